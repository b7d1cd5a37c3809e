/**
 * The flows of one shard: open addressing with linear probing over flow ids, keys in structure-of-arrays by
 * id.
 *
 *   #places  ┌────┬────┬────┬────┬────┬────┐  id + 1, 0 = empty; at least twice as many as flows
 *            │  0 │ 18 │  4 │  0 │  0 │  9 │
 *            └────┴──┬─┴────┴────┴────┴────┘
 *                    └─▶ id 17:  hash[17]   addr[136..139] guest, [140..143] remote   ports[17]   proto[17]
 *
 * Deletion shifts the followers of the run back instead of leaving a tombstone, so that a look-up never gets
 * slower with age.
 *
 * A freed id rests until RESTING_IDS more were freed, which makes a stale descriptor easy to tell, and then
 * means another flow. An id that was never given is taken only while no more than these rest: so tables by
 * id, here and in every stage, are touched as far as flows ever were at the same time, and not to their end
 * by short flows one after another (decision 115).
 *
 * Invariant: every place from a flow's home (hash & mask) to where it lies is taken; hence a probe may stop
 * at the first empty place. The load is at most one half, so there always is one.
 */
import type { FlowTuple } from './flow-tuple.ts';

declare const brand: unique symbol;
/**
 * A flow of one shard, 0 to maxFlows - 1. Shard and flow id together name the flow's socket at host-io.
 * Branded for the type checker only: a plain number at run time.
 */
export type FlowId = number & { readonly [brand]: 'FlowId' };

/** No such flow, or no room. */
export const NO_FLOW = -1 as FlowId;

/** Two pages of a table with 8 bytes an id. */
const RESTING_IDS = 1024;

/** Words of `addr` per flow: guest 0..3, remote 4..7. */
export const ADDR_WORDS = 8;

export class FlowTable {
  readonly maxFlows: number;
  /** Addresses by id, ADDR_WORDS each. Borrowed: written by insert() only. */
  readonly addr: Uint32Array;
  /** (guestPort << 16 | remotePort) >>> 0 by id. */
  readonly ports: Uint32Array;
  readonly proto: Uint8Array;
  readonly hash: Uint32Array;
  /**
   * For reports, by id: payload bytes that went each way, which the owner counts, and `nowMs` of insert().
   */
  readonly fromGuestBytes: Float64Array;
  readonly toGuestBytes: Float64Array;
  readonly bornMs: Float64Array;
  /** The owner's clock. */
  nowMs = 0;
  /** 1: can be found. */
  readonly #live: Uint8Array;
  readonly #places: Int32Array;
  readonly #mask: number;
  /** Ids from this on were never given. */
  #fresh = 0;
  /** Freed ids, oldest first: a ring of maxFlows entries. */
  readonly #resting: Int32Array;
  #restingFirst = 0;
  #restingCount = 0;
  /** Fresh and resting. */
  #freeCount: number;
  #count = 0;

  constructor(maxFlows: number) {
    if (!Number.isSafeInteger(maxFlows) || maxFlows < 1 || maxFlows > 2 ** 26) {
      throw new RangeError(`flow table: ${maxFlows} flows; ask for 1 to 2^26`);
    }
    this.maxFlows = maxFlows;
    this.addr = new Uint32Array(maxFlows * ADDR_WORDS);
    this.ports = new Uint32Array(maxFlows);
    this.proto = new Uint8Array(maxFlows);
    this.hash = new Uint32Array(maxFlows);
    this.fromGuestBytes = new Float64Array(maxFlows);
    this.toGuestBytes = new Float64Array(maxFlows);
    this.bornMs = new Float64Array(maxFlows);
    this.#live = new Uint8Array(maxFlows);
    let placeCount = 2;
    while (placeCount < maxFlows * 2) placeCount *= 2;
    this.#places = new Int32Array(placeCount);
    this.#mask = placeCount - 1;
    this.#resting = new Int32Array(maxFlows);
    this.#freeCount = maxFlows;
  }

  /** Flows that can be found. */
  get count(): number {
    return this.#count;
  }

  /** Ids that insert() may still give. */
  get freeCount(): number {
    return this.#freeCount;
  }

  /** Whether find() would give this id. */
  isLive(id: number): boolean {
    return this.#live[id] === 1;
  }

  /** @returns the flow's id, or NO_FLOW (-1) */
  find(tuple: FlowTuple): FlowId {
    const { hash, ports, proto, addr: wanted } = tuple;
    const addr = this.addr;
    for (let place = hash & this.#mask; ; place = (place + 1) & this.#mask) {
      const id = this.#places[place]! - 1;
      if (id < 0) return NO_FLOW;
      if (this.hash[id] !== hash || this.ports[id] !== ports || this.proto[id] !== proto) continue;
      const at = id * ADDR_WORDS;
      // The words that differ most between flows first.
      if (
        addr[at + 7] === wanted[7] &&
        addr[at + 3] === wanted[3] &&
        addr[at + 6] === wanted[6] &&
        addr[at + 5] === wanted[5] &&
        addr[at + 4] === wanted[4] &&
        addr[at + 2] === wanted[2] &&
        addr[at + 1] === wanted[1] &&
        addr[at] === wanted[0]
      ) {
        return id as FlowId;
      }
    }
  }

  /**
   * Add a flow. The caller knows from find() that it is not there.
   * @returns its id, or NO_FLOW (-1) when all ids are in use
   */
  insert(tuple: FlowTuple): FlowId {
    const { hash, ports, proto, addr } = tuple;
    if (this.#freeCount === 0) return NO_FLOW;
    let id: number;
    if (this.#restingCount <= RESTING_IDS && this.#fresh < this.maxFlows) id = this.#fresh++;
    else {
      id = this.#resting[this.#restingFirst]!;
      this.#restingFirst = this.#restingFirst + 1 === this.maxFlows ? 0 : this.#restingFirst + 1;
      this.#restingCount--;
    }
    this.#freeCount--;
    this.#count++;
    this.hash[id] = hash;
    this.ports[id] = ports;
    this.proto[id] = proto;
    this.fromGuestBytes[id] = 0;
    this.toGuestBytes[id] = 0;
    this.bornMs[id] = this.nowMs;
    this.#live[id] = 1;
    const at = id * ADDR_WORDS;
    for (let i = 0; i < ADDR_WORDS; i++) this.addr[at + i] = addr[i]!;
    let place = hash & this.#mask;
    while (this.#places[place] !== 0) place = (place + 1) & this.#mask;
    this.#places[place] = id + 1;
    return id as FlowId;
  }

  /** Forget the flow and free its id. */
  remove(id: number): void {
    this.detach(id);
    this.release(id);
  }

  /**
   * Forget the flow's key, so that the same addresses and ports may begin a new flow, but keep its id out of
   * use until release(): answers for the old flow may still be under way.
   */
  detach(id: number): void {
    const places = this.#places;
    const mask = this.#mask;
    let hole = this.hash[id]! & mask;
    while (places[hole] !== id + 1) {
      if (places[hole] === 0) throw new Error(`flow ${id} is not in the table`);
      hole = (hole + 1) & mask;
    }
    // Shift back: a follower may fill the hole unless its home lies after the hole (then the probe would miss
    // it).
    for (let place = (hole + 1) & mask; places[place] !== 0; place = (place + 1) & mask) {
      const home = this.hash[places[place]! - 1]! & mask;
      if (((place - home) & mask) >= ((place - hole) & mask)) {
        places[hole] = places[place]!;
        hole = place;
      }
    }
    places[hole] = 0;
    this.#live[id] = 0;
    this.#count--;
  }

  /** Free the id of a detached flow. */
  release(id: number): void {
    if (this.#freeCount + this.#count >= this.maxFlows) throw new Error(`flow ${id} was released twice`);
    let end = this.#restingFirst + this.#restingCount;
    if (end >= this.maxFlows) end -= this.maxFlows;
    this.#resting[end] = id;
    this.#restingCount++;
    this.#freeCount++;
  }
}
