/**
 * Frame slots: the pool that all threads share, the private stacks of free slots, and the ownership check.
 *
 *   slot   0 .. smallSlots-1                         SMALL_SLOT_BYTES each
 *          smallSlots .. smallSlots+largeSlots-1     LARGE_SLOT_BYTES each
 *
 * Invariant: a slot has one owner at a time. Ownership passes with the descriptor that names the slot: the
 * consumer of the descriptor may write to the slot; after commit() the producer may not access it any more.
 */
import { LARGE_SLOT_BYTES, type Layout, SMALL_SLOT_BYTES } from './layout.ts';

export { LARGE_SLOT_BYTES, SMALL_SLOT_BYTES } from './layout.ts';

/** Bytes kept free in front of received payload: vnet 12 + Ethernet 14 + IPv6 40 + TCP 60 = 126. */
export const HEADROOM_BYTES = 128;
/** "No slot" in a descriptor word. */
export const NO_SLOT = 0xffffffff;

export class FramePool {
  /** The whole shared buffer. Byte offsets of frames and slots (`at`) are indexes into it. */
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
    // Where slot 0 would be if all slots were large: this saves a subtraction per call of slotAt().
    this.#largeAt = layout.largeAt - layout.smallSlots * LARGE_SLOT_BYTES;
  }

  /** Byte offset in `u8` of the slot's first byte. */
  slotAt(slot: number): number {
    return slot < this.smallSlots
      ? this.#smallAt + slot * SMALL_SLOT_BYTES
      : this.#largeAt + slot * LARGE_SLOT_BYTES;
  }

  /** Size of the slot. */
  slotBytes(slot: number): number {
    return slot < this.smallSlots ? SMALL_SLOT_BYTES : LARGE_SLOT_BYTES;
  }

  /** Native address of the slot's first byte, for iovecs. */
  slotAddress(slot: number): number {
    return this.baseAddress + this.slotAt(slot);
  }

  /** The slot as a count of slots, small | large << 16: such counts can be added up. 0 for NO_SLOT. */
  slotCost(slot: number): number {
    return slot === NO_SLOT ? 0 : slot < this.smallSlots ? 1 : 0x10000;
  }

  isSmall(slot: number): boolean {
    return slot < this.smallSlots;
  }
}

/**
 * Free slots of one thread, last in, first out: the next slot taken is one whose memory is still in the
 * cache, and an engine with little traffic never touches most pages.
 */
export class SlotStack {
  readonly #slots: Uint32Array;
  #free: number;

  /** A stack of the slots [first, first + count), all free. */
  constructor(first: number, count: number) {
    this.#slots = new Uint32Array(count);
    for (let i = 0; i < count; i++) this.#slots[i] = first + count - 1 - i;
    this.#free = count;
  }

  /** Take a free slot. @returns NO_SLOT when there is none */
  pop(): number {
    if (this.#free === 0) return NO_SLOT;
    return this.#slots[--this.#free]!;
  }

  /** Return a slot. @throws Error when all slots are free already: one was freed twice */
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

  get used(): number {
    return this.#slots.length - this.#free;
  }

  get capacity(): number {
    return this.#slots.length;
  }
}

/** Owner number of a slot that was not assigned yet: the value of zeroed memory. */
const UNOWNED = 0;

/**
 * A check for debugging: one int32 per slot holds its owner. Each transfer names both owners and throws when
 * the slot had another owner. When the check is off, every method returns at its first branch.
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

  /** Pass `slot` from one owner to another; ignores NO_SLOT. @throws Error when `fromOwner` did not own it */
  claim(slot: number, fromOwner: number, toOwner: number): void {
    if (!this.on || slot === NO_SLOT) return;
    if (slot >= this.#owners.length) {
      throw new Error(`slot ${slot} does not exist: the pool has ${this.#owners.length}`);
    }
    // Compared and exchanged in one step: of two threads that both claim the slot only one succeeds.
    const owner = Atomics.compareExchange(this.#owners, slot, fromOwner, toOwner);
    if (owner !== fromOwner) {
      const kind = slot < this.#smallSlots ? 'small' : 'large';
      throw new Error(
        `${kind} slot ${slot} belongs to owner ${owner}; owner ${fromOwner} cannot pass it to owner ${toOwner}`,
      );
    }
  }

  /** @throws Error unless `owner` owns the slot */
  check(slot: number, owner: number): void {
    this.claim(slot, owner, owner);
  }

  /** At set-up: assign the slots [first, first + count) to `owner`. @throws Error when one has an owner */
  assign(first: number, count: number, owner: number): void {
    if (!this.on) return;
    for (let slot = first; slot < first + count; slot++) this.claim(slot, UNOWNED, owner);
  }
}
