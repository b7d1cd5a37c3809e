/**
 * Which shard owns a flow: it alone has the flow's state. Every reader and every host-io stage comes to the
 * same shard without asking another thread.
 *
 *   fused, pipeline   by the flow's hash
 *   lanes             by a table in shared memory, whose index is a bucket: a part of the flow's hash for TCP
 *                     and ping; a hash of the guest's port for UDP, because all UDP flows of an endpoint of
 *                     the guest share a socket (udp-endpoints.ts), and a lane has sockets of its own
 *
 * Network cards divide flows among their queues by such an indirection table (receive side scaling). A bucket
 * has one owner, and only that lane may give it away: at once while the bucket has no flows, or with its TCP
 * flows (flow-mover.ts). So no flow ever has two owners:
 *
 *   beginMove()   the owner has sent the flows' state to the next lane. It still gets the bucket's frames, and
 *                 passes them on by the same ring, behind that state
 *   endMove()     the next lane has the flows, and is the owner from then on
 *
 * The last bucket is always the first lane's: frames that belong to no flow, and UDP ports that are published,
 * as the first lane has the listeners.
 */
import { IpProtocol } from '../../proto/ipv4.ts';
import { BUCKETS, MAX_LANES } from '../../ring/layout.ts';
import type { ThreadsPlan } from '../engine-plan.ts';
import { shardCount } from '../placement.ts';
import { type HashKey, shardOf } from './flow-hash.ts';

/** Bucket of what only the first lane handles. */
export const FIRST_LANE = BUCKETS;
const BUCKET_SHIFT = 32 - Math.log2(BUCKETS);
/** 2^32 divided by the golden ratio: spreads consecutive ports (Knuth, The Art of Computer Programming 6.4). */
const PORT_MULTIPLIER = 0x9e3779b1;

/** Shared memory that says who owns what; both are parts of ControlViews. */
export interface OwnerTables {
  /**
   * By bucket: number of the lane, in the low byte. The high byte is not 0 while the bucket moves: 1 + the next
   * lane. BUCKETS + 1 entries.
   */
  readonly laneOf: Uint16Array;
  /** By port of the guest: how many published UDP ports lead to it. */
  readonly publishedUdp: Uint16Array;
  /** By lane: flows for which its table has room; behind that, flows that move to it. ROOM_WORDS entries. */
  readonly room: Int32Array;
}

/** Give the lanes equal parts of the buckets, one behind another. */
export function divideBuckets(laneOf: Uint16Array, lanes: number): void {
  for (let bucket = 0; bucket < BUCKETS; bucket++) laneOf[bucket] = Math.floor((bucket * lanes) / BUCKETS);
}

export class FlowOwners {
  readonly shards: number;
  /** There are several lanes. */
  readonly areLanes: boolean;
  readonly #laneOf: Uint16Array;
  readonly #publishedUdp: Uint16Array;
  readonly #room: Int32Array;
  readonly #key: number;

  constructor(threads: ThreadsPlan, hashKey: HashKey, { laneOf, publishedUdp, room }: OwnerTables) {
    this.shards = shardCount(threads);
    this.areLanes = threads.kind === 'lanes' && this.shards > 1;
    this.#laneOf = laneOf;
    this.#publishedUdp = publishedUdp;
    this.#room = room;
    this.#key = hashKey[0] & 0xffff;
  }

  /** @param hash  flowHash() of a TCP or ping flow, in a pipeline of any flow @returns its shard */
  ofHash(hash: number): number {
    return this.areLanes ? this.laneOf(this.bucketOfHash(hash)) : shardOf(hash, this.shards);
  }

  /** @param ports  (guestPort << 16 | remotePort) >>> 0 @returns shard of a flow */
  of(hash: number, proto: number, ports: number): number {
    return this.areLanes ? this.laneOf(this.bucketOf(hash, proto, ports)) : shardOf(hash, this.shards);
  }

  /** Whether a flow that begins now would be a shard's: of a lane, unless its bucket is moving to another one. */
  isOf(shard: number, hash: number, proto: number, ports: number): boolean {
    if (!this.areLanes) return shardOf(hash, this.shards) === shard;
    return this.keeps(shard, this.bucketOf(hash, proto, ports));
  }

  /** @returns the lane that owns a bucket now */
  laneOf(bucket: number): number {
    return this.#laneOf[bucket]! & 0xff;
  }

  /** Whether a lane owns a bucket and is not giving it away. */
  keeps(lane: number, bucket: number): boolean {
    return this.#laneOf[bucket] === lane;
  }

  /** @returns where a lane passes on what it gets of a bucket that it does not keep */
  nextOf(lane: number, bucket: number): number {
    const entry = this.#laneOf[bucket]!;
    const owner = entry & 0xff;
    return owner === lane && entry !== owner ? (entry >>> 8) - 1 : owner;
  }

  /** The owner has sent the state of a bucket's flows to another lane. */
  beginMove(bucket: number, to: number): void {
    Atomics.store(this.#laneOf, bucket, this.laneOf(bucket) | ((to + 1) << 8));
  }

  /** The lane that a bucket moves to has its flows. */
  endMove(bucket: number, to: number): void {
    Atomics.store(this.#laneOf, bucket, to);
  }

  /** A lane says for how many flows its table has room. */
  setRoom(lane: number, flows: number): void {
    Atomics.store(this.#room, lane, flows);
  }

  /**
   * Reserve room for flows that are to move to a lane. A connection that finds the table full there is lost.
   * @returns false: it has not so much
   */
  reserveRoom(lane: number, flows: number): boolean {
    const coming = Atomics.add(this.#room, MAX_LANES + lane, flows) + flows;
    if (coming <= Atomics.load(this.#room, lane)) return true;
    this.endReservation(lane, flows);
    return false;
  }

  /** Flows for which room was reserved have come, or do not move. */
  endReservation(lane: number, flows: number): void {
    Atomics.sub(this.#room, MAX_LANES + lane, flows);
  }

  /** @param hash  flowHash() of a TCP or ping flow; 0: the frame belongs to no flow */
  bucketOfHash(hash: number): number {
    return hash === 0 ? FIRST_LANE : hash >>> BUCKET_SHIFT;
  }

  /** @param guestPort  of a UDP flow */
  bucketOfUdp(guestPort: number): number {
    if (this.#publishedUdp[guestPort] !== 0) return FIRST_LANE;
    return Math.imul(guestPort ^ this.#key, PORT_MULTIPLIER) >>> BUCKET_SHIFT;
  }

  bucketOf(hash: number, proto: number, ports: number): number {
    return proto === IpProtocol.udp ? this.bucketOfUdp(ports >>> 16) : this.bucketOfHash(hash);
  }

  /**
   * Give buckets of a lane to others, in turn. Called by the lane that owns them, between two of its rounds.
   * @param to  numbers of the lanes that get them
   * @param inUse  by bucket: not 0: it has flows and stays
   * @param share  of the buckets that the lane owns, 0 to 1
   * @returns how many the lane still keeps, the one of the first lane not counted
   */
  give(from: number, to: readonly number[], inUse: Uint8Array, share: number): number {
    const laneOf = this.#laneOf;
    let owned = 0;
    for (let bucket = 0; bucket < BUCKETS; bucket++) if (this.keeps(from, bucket)) owned++;
    const most = Math.floor(owned * share);
    let given = 0;
    for (let bucket = 0; bucket < BUCKETS && given < most; bucket++) {
      if (!this.keeps(from, bucket) || inUse[bucket] !== 0) continue;
      Atomics.store(laneOf, bucket, to[given % to.length]!);
      given++;
    }
    return owned - given;
  }

  /** Whether a lane owns a bucket, or one moves to it; the one of the first lane not counted. */
  hasAny(lane: number): boolean {
    for (let bucket = 0; bucket < BUCKETS; bucket++)
      if (this.laneOf(bucket) === lane || this.#laneOf[bucket]! >>> 8 === lane + 1) return true;
    return false;
  }
}
