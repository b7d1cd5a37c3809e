/**
 * Gives buckets of a lane to other lanes, with the TCP flows in them. A stage of each lane's thread; the main
 * thread asks (ElasticLanes).
 *
 *   buckets without flows   at once: the requested share of them (FlowOwners.give)
 *   buckets with flows      the traffic of each is measured for SAMPLE_MS, then as many buckets move as carry
 *                           the requested share of it, those with the least traffic first
 *
 * How a bucket moves, between two rounds of the thread that runs shard and host-io:
 *
 *   1  host-io carries out all commands, and releases the sockets: it tells the shard nothing more of them
 *   2  the shard handles what host-io had written before
 *   3  the state of each flow goes to the other lane by the ring of its frames, then `movedBucket`. Frames of
 *      the bucket that come here from then on follow by the same ring (FlowOwners)
 *   4  the other lane has the flows, hands the sockets to its host-io, and becomes the bucket's owner
 *
 * Nothing waits, and nothing is copied but a few words for each flow: the bytes towards the guest are in the
 * socket's receive queue, those towards the host in its send queue. A flow does not move while it has payload
 * that the socket has not taken, or while it opens or ends; it is tried again for RETRY_MS. Buckets with UDP or
 * ping flows do not move.
 */
import { BUCKETS } from '../ring/layout.ts';
import type { RingProducer } from '../ring/spsc.ts';
import type { FlowOwners } from './flow/flow-owner.ts';
import { FlowState } from './flow/flow-state.ts';
import type { HostIo } from './host-io/host-io.ts';
import { movedBucketWrite, movedFlowWrite } from './link/to-shard.ts';
import type { Stage } from './thread/stage.ts';
import type { Shard } from './translator/shard.ts';

const SAMPLE_MS = 50;
const RETRY_MS = 500;
const RETRY_EVERY_MS = 5;
/** So many flows lengthen the time between two attempts by a millisecond. */
const FLOWS_PER_MS = 1000;
/** Most flows that move at a request, so that the thread does not stand still for long. */
const MAX_FLOWS = 512;

export interface GiveRequest {
  /** Numbers of the lanes that get the buckets. */
  readonly to: readonly number[];
  /** Of the lane's buckets without flows, and of its traffic; 0 to 1. 1: flows without traffic move too. */
  readonly share: number;
}

/** A bucket that has flows. */
export interface UsedBucket {
  readonly bucket: number;
  readonly flows: number[];
  /** Bytes of its flows in SAMPLE_MS. */
  traffic: number;
  /** As far as the shard knows. */
  canMove: boolean;
}

/**
 * Choose buckets that carry about a share of the traffic, those with the least first.
 * @param all  buckets that have flows
 * @param traffic  of all of them
 * @param share  1: all of them
 */
export function chooseBuckets(all: readonly UsedBucket[], traffic: number, share: number): UsedBucket[] {
  const free = all.filter((used) => used.canMove);
  if (share >= 1) return free;
  const wanted = traffic * share;
  const chosen: UsedBucket[] = [];
  let sum = 0;
  for (const used of free.sort((a, b) => a.traffic - b.traffic)) {
    if (used.traffic === 0) continue;
    // The sum that is nearest to what is wanted. So a flow that carries all, or nearly all, stays.
    if (sum + used.traffic / 2 >= wanted) break;
    chosen.push(used);
    sum += used.traffic;
  }
  return chosen;
}

export interface FlowMoverOptions {
  readonly lane: number;
  readonly shard: Shard;
  readonly hostIo: Pick<HostIo, 'poll' | 'release' | 'isBehind'>;
  readonly owners: FlowOwners;
  /** By lane: the reader's links to the shards. */
  readonly toShards: readonly RingProducer[];
  /** A request is carried out. @param left  buckets that the lane still keeps, for a share of 1 */
  onDone(request: GiveRequest, left: number): void;
}

export class FlowMover implements Stage {
  readonly name = 'flow-mover';
  readonly #o: FlowMoverOptions;
  readonly #requests: GiveRequest[] = [];
  /** By flow: bytes at the beginning of the last measurement, if it was there. Empty before the first one. */
  #before = new Float64Array(0);
  /** The first request's buckets that are still to move, and to which lane; null: traffic is being measured. */
  #moving: Map<number, number> | null = null;
  /** When to go on, and when to end the attempts; monotonic milliseconds. */
  #nextMs = Number.POSITIVE_INFINITY;
  #endMs = 0;
  /** A request has come since the thread asked how long it may sleep. */
  #isNew = false;

  constructor(options: FlowMoverOptions) {
    this.#o = options;
  }

  /** Requests are carried out one after another. */
  give(request: GiveRequest, now: number): void {
    this.#requests.push(request);
    this.#isNew = true;
    if (this.#requests.length === 1) this.#begin(now);
  }

  #begin(now: number): void {
    const { shard } = this.#o;
    const { to, share } = this.#requests[0]!;
    shard.giveBuckets(to, share);
    this.#moving = null;
    this.#nextMs = now;
    if (share >= 1 || shard.flows.count === 0) return;
    this.#nextMs = now + SAMPLE_MS;
    const { flows } = shard;
    if (this.#before.length === 0) this.#before = new Float64Array(flows.maxFlows);
    for (let flow = 0; flow < flows.maxFlows; flow++)
      if (flows.isLive(flow)) this.#before[flow] = this.#bytesOf(flow);
  }

  poll(now: number): number {
    this.#isNew = false;
    if (now < this.#nextMs) return 0;
    if (this.#moving === null) {
      this.#moving = this.#choose(this.#requests[0]!);
      this.#endMs = now + RETRY_MS;
    }
    this.#move(this.#moving, now);
    // Each attempt looks at all flows.
    this.#nextMs = now + Math.max(RETRY_EVERY_MS, this.#o.shard.flows.count / FLOWS_PER_MS);
    if (this.#moving.size === 0 || now >= this.#endMs) this.#finish(now);
    return 1;
  }

  #finish(now: number): void {
    const request = this.#requests.shift()!;
    this.#nextMs = Number.POSITIVE_INFINITY;
    const { shard, onDone } = this.#o;
    // Buckets have become free of flows meanwhile.
    onDone(request, request.share < 1 ? 0 : shard.giveBuckets(request.to, request.share));
    if (this.#requests.length > 0) this.#begin(now);
  }

  /** Buckets that have flows, by number. @param only  these; absent: all */
  #used(only?: ReadonlySet<number>): Map<number, UsedBucket> {
    const { shard, owners } = this.#o;
    const { flows } = shard;
    const found = new Map<number, UsedBucket>();
    for (let flow = 0; flow < flows.maxFlows; flow++) {
      if (!flows.isLive(flow)) continue;
      const bucket = owners.bucketOf(flows.hash[flow]!, flows.proto[flow]!, flows.ports[flow]!);
      if (only !== undefined && !only.has(bucket)) continue;
      let used = found.get(bucket);
      if (used === undefined) found.set(bucket, (used = { bucket, flows: [], traffic: 0, canMove: true }));
      used.flows.push(flow);
      used.traffic += this.#trafficOf(flow);
      used.canMove &&= bucket < BUCKETS && shard.canMove(flow);
    }
    return found;
  }

  /** @returns by number of a bucket: the lane that it is to move to */
  #choose({ to, share }: GiveRequest): Map<number, number> {
    const all = [...this.#used().values()];
    const traffic = all.reduce((sum, used) => sum + used.traffic, 0);
    let flows = 0;
    const chosen = chooseBuckets(all, traffic, share).filter(
      (used) => (flows += used.flows.length) <= MAX_FLOWS,
    );
    return new Map(chosen.map(({ bucket }, i) => [bucket, to[i % to.length]!]));
  }

  /** Bytes of a flow, both ways. */
  #bytesOf(flow: number): number {
    const { flows } = this.#o.shard;
    return flows.fromGuestBytes[flow]! + flows.toGuestBytes[flow]!;
  }

  /** Bytes of a flow since the measurement began, at the least; 0 where nothing was measured. */
  #trafficOf(flow: number): number {
    const bytes = this.#bytesOf(flow);
    return Math.max(0, bytes - (this.#before[flow] ?? bytes));
  }

  /** Move those buckets that can move now, and take off the list those that need not be tried again. */
  #move(list: Map<number, number>, now: number): void {
    const { shard, hostIo, owners, lane } = this.#o;
    if (list.size === 0) return;
    // Flows have begun and ended since the buckets were chosen.
    const used = this.#used(new Set(list.keys()));
    for (const bucket of list.keys())
      if (!used.has(bucket) || !owners.keeps(lane, bucket)) list.delete(bucket);
    const movable = [...used.values()].filter(({ bucket, canMove }) => canMove && list.has(bucket));
    if (movable.length === 0) return;
    hostIo.poll(now);
    // A command or a message that found its ring full would come after the move.
    if (shard.isBehind || hostIo.isBehind) return;
    const ready = movable.filter(({ bucket, flows }) => owners.reserveRoom(list.get(bucket)!, flows.length));
    const { begun } = shard.flows;
    const released = ready.map(({ flows }) => flows.map((flow) => this.#release(flow)));
    shard.takeReleased(now);
    // Host-io's messages begin flows too: accepted connections, datagrams. Their buckets stay.
    const after = shard.flows.begun === begun ? used : this.#used(new Set(ready.map(({ bucket }) => bucket)));
    for (const [i, item] of ready.entries()) {
      const { bucket, flows } = item;
      const hasMore = after.get(bucket)?.flows.some((flow) => !flows.includes(flow)) === true;
      if (this.#send(item, released[i]!, list.get(bucket)!, !hasMore)) list.delete(bucket);
    }
  }

  #release(flow: number): FlowState | undefined {
    const state = new FlowState();
    return this.#o.hostIo.release(flow, state.words) ? state : undefined;
  }

  /**
   * @param isWhole  no further flow has begun in the bucket
   * @returns whether the bucket has moved; else its sockets are host-io's again
   */
  #send(
    { bucket, flows }: UsedBucket,
    states: readonly (FlowState | undefined)[],
    to: number,
    isWhole: boolean,
  ): boolean {
    const { shard, owners, toShards } = this.#o;
    const movable = isWhole && flows.every((flow, i) => states[i] !== undefined && shard.mayMoveOut(flow));
    if (!movable) {
      for (const [i, flow] of flows.entries()) if (states[i] !== undefined) shard.takeBack(flow, states[i]);
      owners.endReservation(to, flows.length);
      return false;
    }
    const out = toShards[to]!;
    for (const [i, flow] of flows.entries()) {
      shard.moveOut(flow, states[i]!);
      movedFlowWrite(out, states[i]!.words);
    }
    movedBucketWrite(out, bucket);
    owners.beginMove(bucket, to);
    out.flush();
    return true;
  }

  hasInput(): boolean {
    return this.#isNew;
  }

  sleepMs(now: number): number {
    return this.#nextMs - now;
  }

  close(): void {}
}
