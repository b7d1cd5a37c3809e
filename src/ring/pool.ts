/**
 * Frame slots: the pool that all threads share, the private stacks of free slots, and the ownership check.
 *
 *   slot   0 .. smallSlots-1                         SMALL_SLOT_BYTES each
 *          smallSlots .. smallSlots+largeSlots-1     LARGE_SLOT_BYTES each
 *
 * Invariant: a slot has one owner at a time. Ownership passes with the descriptor that names the slot; who
 * takes a slot from a ring may write it, who has committed it to a ring may not touch it again.
 */
import { LARGE_SLOT_BYTES, type Layout, SMALL_SLOT_BYTES } from './layout.ts';

export { LARGE_SLOT_BYTES, SMALL_SLOT_BYTES } from './layout.ts';

/** Bytes kept free in front of received payload: vnet 12 + Ethernet 14 + IPv6 40 + TCP 60 = 126. */
export const HEADROOM_BYTES = 128;
/** "No slot" in a descriptor word. */
export const NO_SLOT = 0xffffffff;

export class FramePool {
  /** The whole shared buffer; every `at` in the engine is an index into it. */
  readonly u8: Uint8Array;
  /** Native address of u8[0]; valid while this object is referenced. */
  readonly baseAddress: number;
  readonly smallSlots: number;
  readonly largeSlots: number;
  readonly #smallAt: number;
  readonly #largeAt: number;

  constructor(sab: SharedArrayBuffer, layout: Layout, baseAddress: number) {
    this.u8 = new Uint8Array(sab);
    this.baseAddress = baseAddress;
    this.smallSlots = layout.smallSlots;
    this.largeSlots = layout.largeSlots;
    this.#smallAt = layout.smallAt;
    // Where slot 0 would be if all slots were large: saves a subtraction per look-up.
    this.#largeAt = layout.largeAt - layout.smallSlots * LARGE_SLOT_BYTES;
  }

  /** Byte offset in `u8` of the slot's first byte. */
  slotAt(slot: number): number {
    return slot < this.smallSlots
      ? this.#smallAt + slot * SMALL_SLOT_BYTES
      : this.#largeAt + slot * LARGE_SLOT_BYTES;
  }

  slotBytes(slot: number): number {
    return slot < this.smallSlots ? SMALL_SLOT_BYTES : LARGE_SLOT_BYTES;
  }

  /** Native address of the slot's first byte, for iovecs. */
  slotAddress(slot: number): number {
    return this.baseAddress + this.slotAt(slot);
  }

  /** A slot as counts of slots are kept: small | large << 16; 0 for NO_SLOT. */
  slotCost(slot: number): number {
    return slot === NO_SLOT ? 0 : slot < this.smallSlots ? 1 : 0x10000;
  }

  isSmall(slot: number): boolean {
    return slot < this.smallSlots;
  }
}

/**
 * Free slots of one thread: last in, first out, so that the slot whose lines are still in cache goes out next
 * and pages that a quiet engine never needs stay untouched.
 */
export class SlotStack {
  readonly #slots: Uint32Array;
  #free: number;

  /** Own the slots [first, first + count), all free. */
  constructor(first: number, count: number) {
    this.#slots = new Uint32Array(count);
    for (let i = 0; i < count; i++) this.#slots[i] = first + count - 1 - i;
    this.#free = count;
  }

  /** A free slot, or NO_SLOT when there is none. */
  pop(): number {
    if (this.#free === 0) return NO_SLOT;
    return this.#slots[--this.#free]!;
  }

  /** Give a slot back. Throws when more come back than were ever handed out: somebody freed one twice. */
  push(slot: number): void {
    if (this.#free === this.#slots.length) {
      throw new Error(
        `slot ${slot} was freed twice: all ${this.#slots.length} slots of this stack are free already`,
      );
    }
    this.#slots[this.#free++] = slot;
  }

  get free(): number {
    return this.#free;
  }

  get capacity(): number {
    return this.#slots.length;
  }
}

/** Owner number of a slot that nobody was given yet: what zeroed memory says. */
const UNOWNED = 0;

/**
 * Debug mode: one int32 per slot says who owns it. Each hand-over names both sides and fails loudly when the
 * slot was somebody else's. When off, every method returns at its first branch.
 */
export class Ownership {
  readonly on: boolean;
  readonly #owners: Int32Array;
  readonly #smallSlots: number;

  constructor(sab: SharedArrayBuffer, layout: Layout, on: boolean) {
    this.on = on;
    this.#smallSlots = layout.smallSlots;
    this.#owners = new Int32Array(sab, layout.ownershipAt, layout.smallSlots + layout.largeSlots);
  }

  /** Pass `slot` from one owner to another. NO_SLOT is ignored. Throws when `fromOwner` did not own it. */
  claim(slot: number, fromOwner: number, toOwner: number): void {
    if (!this.on || slot === NO_SLOT) return;
    if (slot >= this.#owners.length) {
      throw new Error(`slot ${slot} does not exist: the pool has ${this.#owners.length}`);
    }
    // One atomic step: two threads that both believe they own the slot cannot both succeed.
    const owner = Atomics.compareExchange(this.#owners, slot, fromOwner, toOwner);
    if (owner !== fromOwner) {
      const kind = slot < this.#smallSlots ? 'small' : 'large';
      throw new Error(
        `${kind} slot ${slot} belongs to owner ${owner}; owner ${fromOwner} cannot pass it to owner ${toOwner}`,
      );
    }
  }

  /** Throw unless `owner` owns the slot. */
  check(slot: number, owner: number): void {
    this.claim(slot, owner, owner);
  }

  /** Set-up: give [first, first + count), so far unowned, to `owner`. */
  assign(first: number, count: number, owner: number): void {
    if (!this.on) return;
    for (let slot = first; slot < first + count; slot++) this.claim(slot, UNOWNED, owner);
  }
}
