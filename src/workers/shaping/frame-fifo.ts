/**
 * Frames that wait, oldest first: a ring of bytes and a ring of records, both written at the head and read at
 * the tail.
 *
 *   bytes    [ . . . |frame|frame|frame| . . ]     a frame is contiguous; it may not wrap
 *   records  { at, bytes, line bytes, packets, when ms, extra ms, mark }     one per frame, by number of the frame
 *
 * Memory is taken as it is used: while few frames wait, the same pages are written again.
 */
import { addressOf, discardPages } from '../../sys/memory.ts';

/** Most frames. */
export const FIFO_FRAMES = 1 << 16;
/** A smaller fifo has fewer records: no frame is much shorter. */
const LEAST_FRAME_BYTES = 64;
/** Fifos that a FifoStore keeps without a user. */
const MOST_SPARES = 40;

export class FrameFifo {
  readonly u8: Uint8Array;
  /** Of u8[0]. */
  readonly address: number;
  /** Of the frame with number n, at n & #mask. */
  readonly #at: Uint32Array;
  readonly #bytes: Uint32Array;
  readonly #lineBytes: Uint32Array;
  readonly #packets: Uint16Array;
  readonly #whenMs: Float64Array;
  readonly #extraMs: Float64Array;
  readonly #mark: Uint8Array;
  readonly #mask: number;
  /** Numbers of the next frame and of the oldest one. */
  head = 0;
  tail = 0;
  #writeAt = 0;

  /** @param capacity  bytes */
  constructor(capacity: number) {
    this.u8 = new Uint8Array(capacity);
    this.address = addressOf(this.u8);
    let frames = FIFO_FRAMES;
    while (frames > 1024 && (frames >> 1) * LEAST_FRAME_BYTES >= capacity) frames >>= 1;
    this.#mask = frames - 1;
    this.#at = new Uint32Array(frames);
    this.#bytes = new Uint32Array(frames);
    this.#lineBytes = new Uint32Array(frames);
    this.#packets = new Uint16Array(frames);
    this.#whenMs = new Float64Array(frames);
    this.#extraMs = new Float64Array(frames);
    this.#mark = new Uint8Array(frames);
    this.reset(); // some allocators write zeros to new memory
  }

  /** Remove all frames, and give the memory back to the kernel until it is used again. Cold. */
  reset(): void {
    this.head = 0;
    this.tail = 0;
    this.#writeAt = 0;
    const tables = [this.#at, this.#bytes, this.#lineBytes, this.#packets, this.#whenMs, this.#extraMs];
    for (const array of [this.u8, ...tables, this.#mark]) discardPages(array);
  }

  /**
   * Room for one more frame, which push() adds.
   * @returns offset in u8; -1: there is none
   */
  room(bytes: number): number {
    if (this.head - this.tail > this.#mask) return -1;
    if (this.head === this.tail) this.#writeAt = 0;
    const oldestAt = this.head === this.tail ? 0 : this.#at[this.tail & this.#mask]!;
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
   * @param lineBytes,packets  of the packets in the frame; kept for the caller as the others
   */
  push(
    bytes: number,
    lineBytes: number,
    packets: number,
    whenMs: number,
    extraMs: number,
    mark: number,
  ): void {
    const i = this.head++ & this.#mask;
    this.#at[i] = this.#writeAt;
    this.#bytes[i] = bytes;
    this.#lineBytes[i] = lineBytes;
    this.#packets[i] = packets;
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
    return this.#at[n & this.#mask]!;
  }
  bytes(n: number): number {
    return this.#bytes[n & this.#mask]!;
  }
  lineBytes(n: number): number {
    return this.#lineBytes[n & this.#mask]!;
  }
  packets(n: number): number {
    return this.#packets[n & this.#mask]!;
  }
  whenMs(n: number): number {
    return this.#whenMs[n & this.#mask]!;
  }
  setWhenMs(n: number, ms: number): void {
    this.#whenMs[n & this.#mask] = ms;
  }
  extraMs(n: number): number {
    return this.#extraMs[n & this.#mask]!;
  }
  mark(n: number): number {
    return this.#mark[n & this.#mask]!;
  }
}

/**
 * Fifos that are used again: a thread that never returns to its event loop gives nothing to the garbage
 * collector in time, and lines may be changed at any rate by the API.
 */
export class FifoStore {
  /** Without a user. */
  readonly #spares: FrameFifo[] = [];

  /** @param least  bytes. The fifo gets a power of two, so that it serves other lines too */
  take(least: number): FrameFifo {
    const capacity = 2 ** Math.ceil(Math.log2(least));
    let best = -1;
    for (let i = 0; i < this.#spares.length; i++) {
      const bytes = this.#spares[i]!.u8.length;
      if (bytes >= capacity && (best < 0 || bytes < this.#spares[best]!.u8.length)) best = i;
    }
    return best < 0 ? new FrameFifo(capacity) : this.#spares.splice(best, 1)[0]!;
  }

  /** Take back a fifo; its frames are lost. The largest ones are kept, as they serve everybody. */
  give(fifo: FrameFifo): void {
    fifo.reset();
    this.#spares.push(fifo);
    if (this.#spares.length <= MOST_SPARES) return;
    let least = 0;
    for (let i = 1; i < this.#spares.length; i++)
      if (this.#spares[i]!.u8.length < this.#spares[least]!.u8.length) least = i;
    this.#spares.splice(least, 1);
  }
}
