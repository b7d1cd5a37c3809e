/**
 * Frames that wait, oldest first: a ring of bytes and a ring of records, both written at the head and read at
 * the tail.
 *
 *   bytes    [ . . . |frame|frame|frame| . . ]     a frame is contiguous; it may not wrap
 *   records  { at, bytes, when ms, extra ms, mark }     one per frame, by number of the frame
 *
 * Memory is taken as it is used: while few frames wait, the same pages are written again.
 */
import { addressOf } from '../../sys/memory.ts';

/** Most frames. */
export const FIFO_FRAMES = 1 << 16;
const MASK = FIFO_FRAMES - 1;

export class FrameFifo {
  readonly u8: Uint8Array;
  /** Of u8[0]. */
  readonly address: number;
  /** Of the frame with number n, at n & MASK. */
  readonly #at = new Uint32Array(FIFO_FRAMES);
  readonly #bytes = new Uint32Array(FIFO_FRAMES);
  readonly #whenMs = new Float64Array(FIFO_FRAMES);
  readonly #extraMs = new Float64Array(FIFO_FRAMES);
  readonly #mark = new Uint8Array(FIFO_FRAMES);
  /** Numbers of the next frame and of the oldest one. */
  head = 0;
  tail = 0;
  #writeAt = 0;

  /** @param capacity  bytes */
  constructor(capacity: number) {
    this.u8 = new Uint8Array(capacity);
    this.address = addressOf(this.u8);
  }

  /**
   * Room for one more frame, which push() adds.
   * @returns offset in u8; -1: there is none
   */
  room(bytes: number): number {
    if (this.head - this.tail >= FIFO_FRAMES) return -1;
    if (this.head === this.tail) this.#writeAt = 0;
    const oldestAt = this.head === this.tail ? 0 : this.#at[this.tail & MASK]!;
    const isWrapped = this.head !== this.tail && this.#writeAt <= oldestAt;
    // Equal offsets mean full, so one byte stays free.
    if (isWrapped) return oldestAt - this.#writeAt > bytes ? this.#writeAt : -1;
    if (this.u8.length - this.#writeAt >= bytes) return this.#writeAt;
    if (oldestAt <= bytes) return -1;
    this.#writeAt = 0;
    return 0;
  }

  /**
   * Add the frame for which room() was called last, with the same length or less.
   * @param whenMs,extraMs,mark  kept for the caller
   */
  push(bytes: number, whenMs: number, extraMs: number, mark: number): void {
    const i = this.head++ & MASK;
    this.#at[i] = this.#writeAt;
    this.#bytes[i] = bytes;
    this.#whenMs[i] = whenMs;
    this.#extraMs[i] = extraMs;
    this.#mark[i] = mark;
    this.#writeAt += bytes;
  }

  /** Remove the oldest frame. */
  pop(): void {
    this.tail++;
  }

  // By number of the frame, from tail to head - 1.

  at(n: number): number {
    return this.#at[n & MASK]!;
  }
  bytes(n: number): number {
    return this.#bytes[n & MASK]!;
  }
  whenMs(n: number): number {
    return this.#whenMs[n & MASK]!;
  }
  setWhenMs(n: number, ms: number): void {
    this.#whenMs[n & MASK] = ms;
  }
  extraMs(n: number): number {
    return this.#extraMs[n & MASK]!;
  }
  mark(n: number): number {
    return this.#mark[n & MASK]!;
  }
}
