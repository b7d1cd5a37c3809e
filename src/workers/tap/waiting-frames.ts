/**
 * Frames of other lanes that wait in this lane's reader because those lanes hold as many of its slots as they
 * may: a FIFO of descriptors in private memory, as large as it ever had to be.
 */
import { DESC_WORDS } from '../../ring/spsc.ts';
import type { DescriptorOut } from '../link/descriptor.ts';

/** Most frames that wait. */
const CAPACITY = 1024;

export class WaitingFrames implements DescriptorOut {
  /** Words of all places; descriptors are read and written here. */
  words = new Uint32Array(0);
  #first = 0;
  #count = 0;

  get count(): number {
    return this.#count;
  }

  get isFull(): boolean {
    return this.#count === CAPACITY;
  }

  /** Take a place at the end; not when isFull. @returns index of its first word */
  reserve(): number {
    if (this.words.length === 0) this.words = new Uint32Array(CAPACITY * DESC_WORDS);
    return ((this.#first + this.#count) % CAPACITY) * DESC_WORDS;
  }

  commit(): void {
    this.#count++;
  }

  /** Index of the first word of the oldest descriptor. */
  get oldest(): number {
    return this.#first * DESC_WORDS;
  }

  /** Forget the oldest descriptor. */
  shift(): void {
    this.#first = (this.#first + 1) % CAPACITY;
    this.#count--;
  }
}
