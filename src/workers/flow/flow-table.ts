/**
 * The flows of one shard: open addressing with linear probing over flow ids, keys in structure-of-arrays by
 * id.
 *
 *   #places  ┌────┬────┬────┬────┬────┬────┐  id + 1, 0 = empty; at least twice as many as flows
 *            │  0 │ 18 │  4 │  0 │  0 │  9 │
 *            └────┴──┬─┴────┴────┴────┴────┘
 *                    └─▶ id 17:  hash[17]   addr[136..139] guest, [140..143] remote   ports[17]   proto[17]
 *
 * Deletion moves the entries behind it in the probe sequence back instead of leaving a tombstone, so that
 * look-ups do not get slower over time.
 *
 * A freed id is not given again until RESTING_IDS more ids were freed, so that a stale descriptor with the
 * old id can be recognised. An id that was never given is taken only while no more than RESTING_IDS freed
 * ones rest. So the memory of tables by id, here and in every stage, is touched only as far as the greatest
 * number of flows at one time, and not to its end by many short flows in succession (decision 115).
 *
 * Invariant: every place from a flow's home (hash & mask) to its actual place is taken; hence a probe may
 * stop at the first empty place. The load is at most one half, so there always is an empty place.
 */
import type { FlowTuple } from './flow-tuple.ts';

declare const brand: unique symbol;
/**
 * A flow of one shard, 0 to maxFlows - 1. Shard and flow id together name the flow's socket at host-io.
 * Branded for the type checker only: a plain number at run time.
 */
export type FlowId = number & { readonly [brand]: 'FlowId' };

/** No such flow, or no free id. */
export const NO_FLOW = -1 as FlowId;

/** In a table with 8 bytes per id these fill two pages. */
const RESTING_IDS = 1024;

/** Words of `addr` per flow: guest 0..3, remote 4..7. */
export const ADDR_WORDS = 8;

/** Flows by key and by id, up to `maxFlows`. */
export class FlowTable {
  readonly maxFlows: number;
  /** Addresses by id, ADDR_WORDS each. Callers only read them. */
  readonly addr: Uint32Array;
  /** (guestPort << 16 | remotePort) >>> 0 by id. */
  readonly ports: Uint32Array;
  readonly proto: Uint8Array;
  readonly hash: Uint32Array;
  /** By id, for reports: payload bytes in each direction, which the owner counts, and `nowMs` at insert(). */
  readonly fromGuestBytes: Float64Array;
  readonly toGuestBytes: Float64Array;
  readonly bornMs: Float64Array;
  /** Monotonic milliseconds; the owner sets it before insert(). */
  nowMs = 0;
  /** By id: 1 if find() can find the flow. */
  readonly #live: Uint8Array;
  readonly #places: Int32Array;
  readonly #mask: number;
  /** Ids from here on were never given. */
  #fresh = 0;
  /** Freed ids, oldest first: a ring of maxFlows entries. */
  readonly #resting: Int32Array;
  #restingFirst = 0;
  #restingCount = 0;
  /** Ids not in use: never given, or resting. */
  #freeCount: number;
  #count = 0;
  #begun = 0;

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

  /** Flows that find() can find. */
  get count(): number {
    return this.#count;
  }

  /** Flows that were ever inserted. */
  get begun(): number {
    return this.#begun;
  }

  /** Ids that insert() may still give. */
  get freeCount(): number {
    return this.#freeCount;
  }

  /** Whether find() would give this id. */
  isLive(id: number): boolean {
    return this.#live[id] === 1;
  }

  /**
   * Look a flow up.
   * @param tuple  its hash must be set
   * @returns the flow's id, or NO_FLOW (-1)
   */
  find(tuple: FlowTuple): FlowId {
    const { hash, ports, proto, addr: wanted } = tuple;
    const addr = this.addr;
    for (let place = hash & this.#mask; ; place = (place + 1) & this.#mask) {
      const id = this.#places[place]! - 1;
      if (id < 0) return NO_FLOW;
      if (this.hash[id] !== hash || this.ports[id] !== ports || this.proto[id] !== proto) continue;
      const at = id * ADDR_WORDS;
      // The words that most often differ between flows are compared first.
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
   * Add a flow that is not in the table (the caller has tried find()).
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
    this.#begun++;
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

  /** Remove the flow and free its id. */
  remove(id: number): void {
    this.detach(id);
    this.release(id);
  }

  /**
   * Remove the flow's key, so that the same addresses and ports may begin a new flow. The id stays in use
   * until release(): messages about the old flow may still be on a link.
   * @throws Error when the flow is not in the table
   */
  detach(id: number): void {
    const places = this.#places;
    const mask = this.#mask;
    let hole = this.hash[id]! & mask;
    while (places[hole] !== id + 1) {
      if (places[hole] === 0) throw new Error(`flow ${id} is not in the table`);
      hole = (hole + 1) & mask;
    }
    // Move back: a later entry may fill the hole unless its home lies after the hole (then find() would miss
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

  /**
   * Free the id of a detached flow.
   * @throws Error when all ids are free or live: it was released twice
   */
  release(id: number): void {
    if (this.#freeCount + this.#count >= this.maxFlows) throw new Error(`flow ${id} was released twice`);
    let end = this.#restingFirst + this.#restingCount;
    if (end >= this.maxFlows) end -= this.maxFlows;
    this.#resting[end] = id;
    this.#restingCount++;
    this.#freeCount++;
  }
}
