/**
 * SPSC descriptor ring: one producer and one consumer, on one thread or two. A descriptor is DESC_WORDS u32
 * words, one cache line, in shared memory.
 *
 *        tail                head          #head
 *         |   to be read      |  committed,  |   free
 *   ┌─────┬───┬───┬───┬───┬───┬───┬───┬──────┬──────────┐
 *   │     │ d │ d │ d │ d │ d │ p │ p │      │          │   capacity = mask + 1 descriptors, a power of two
 *   └─────┴───┴───┴───┴───┴───┴───┴───┴──────┴──────────┘
 *         └ moved by release()   └ published by flush()
 *
 * head and tail are free-running 32-bit counts, kept as int32: count = (head - tail) | 0, place = head &
 * mask. All `capacity` places are used: head - tail is 0 when the ring is empty and `capacity` when it is
 * full. Wrapping at 2^32 needs no special case.
 *
 * A link never refuses a descriptor. When the ring is full, the producer keeps descriptors in a private FIFO:
 *
 *   reserve/commit ──▶ [overflow] ──flush──▶ [ring] ──▶ consumer
 *
 * To keep the order, all further descriptors go to the overflow until a flush has emptied it. Its size is
 * bounded by the number of slots and flows that exist. If it is not empty after a flush, the producer sets
 * the word `starving` beside head, and the consumer's release() rings the producer's own doorbell. So a
 * producer may sleep while its ring is full, if it announces sleep first and then checks `movable` along with
 * its inputs. The argument is that of doorbell.ts with tail in the place of head; starving and sleeping are
 * both set before the check. Without the check, room made between the last flush and the announcement would
 * go unnoticed.
 */
import { COUNTER_WORDS, Counter } from './counters.ts';
import type { Doorbell } from './doorbell.ts';
import { DESC_WORDS, type Layout, LINE_BYTES, ringControlAt, ringSlotsAt } from './layout.ts';

export { DESC_WORDS } from './layout.ts';

// Words of a ring's control block.
const HEAD = 0;
const STARVING = 1;
const TAIL = LINE_BYTES / 4;
const CONTROL_WORDS = TAIL + 1;

/** Value of the words that the writer of a descriptor has not set, under CheckedRingProducer. */
export const UNSET_WORD = 0xdeadbeef;

const OVERFLOW_MIN_DESCRIPTORS = 64;
/** After so many flushes without overflow the overflow's memory is halved. */
const OVERFLOW_CALM_FLUSHES = 1024;

function controlView(sab: SharedArrayBuffer, layout: Layout, ring: number): Int32Array {
  if (ring < 0 || ring >= layout.rings) throw new RangeError(`ring ${ring}: the layout has ${layout.rings}`);
  return new Int32Array(sab, ringControlAt(layout, ring), CONTROL_WORDS);
}

function slotsView(sab: SharedArrayBuffer, layout: Layout, ring: number): Uint32Array {
  return new Uint32Array(sab, ringSlotsAt(layout, ring), layout.ringDescriptors * DESC_WORDS);
}

/**
 * The writing end. One descriptor at a time:
 *
 *   const at = out.reserve();      // never fails
 *   const w = out.words;           // after reserve(): it may have changed
 *   w[at + ...] = ...;             // write all words that the reader reads; the others hold old contents
 *   out.commit();                  // before the next reserve()
 *   ...
 *   out.flush();                   // once per batch
 */
export class RingProducer {
  /** Words that hold the descriptor reserved last. Borrowed: valid until commit(). */
  words: Uint32Array;
  /** Most descriptors that were ever in the overflow. */
  maxOverflow = 0;
  readonly #ringWords: Uint32Array;
  readonly #control: Int32Array;
  readonly #mask: number;
  readonly #doorbell: Doorbell | null;
  readonly #counters: Float64Array;
  /** Next place to write; private until it is published. */
  #head: number;
  /** Head as the consumer sees it. */
  #published: number;
  /** The consumer's tail as read last. It only increases, so an old value only means fewer free places. */
  #tail: number;
  /** Overflow FIFO: descriptors [#overflowFirst, #overflowEnd) of #overflow. */
  #overflow: Uint32Array;
  #overflowFirst = 0;
  #overflowEnd = 0;
  #calmFlushes = 0;
  #starving = false;

  /**
   * @param ring  ring number (workers/placement.ts)
   * @param doorbell  of the consumer's thread; null when both ends are on one thread
   * @param counters  of the producer's thread, for linkBatches and linkDescriptors
   * @throws RangeError for a ring that the layout does not have
   */
  constructor(
    sab: SharedArrayBuffer,
    layout: Layout,
    ring: number,
    doorbell: Doorbell | null,
    counters: Float64Array = new Float64Array(COUNTER_WORDS),
  ) {
    this.#counters = counters;
    this.#control = controlView(sab, layout, ring);
    this.#ringWords = slotsView(sab, layout, ring);
    this.#mask = layout.ringDescriptors - 1;
    this.#doorbell = doorbell;
    this.#head = Atomics.load(this.#control, HEAD);
    this.#published = this.#head;
    this.#tail = Atomics.load(this.#control, TAIL);
    this.#overflow = new Uint32Array(OVERFLOW_MIN_DESCRIPTORS * DESC_WORDS);
    this.words = this.#ringWords;
  }

  /** Take a free descriptor. @returns index of its first word in `words` */
  reserve(): number {
    if (this.#overflowEnd === 0) {
      if (((this.#head - this.#tail) | 0) <= this.#mask || this.#hasRoom()) {
        this.words = this.#ringWords;
        return (this.#head & this.#mask) * DESC_WORDS;
      }
    }
    return this.#reserveOverflow();
  }

  /** Complete the descriptor reserved last. The consumer sees it after the next flush(). */
  commit(): void {
    if (this.words === this.#ringWords) this.#head = (this.#head + 1) | 0;
    else {
      this.#overflowEnd++;
      const count = this.#overflowEnd - this.#overflowFirst;
      if (count > this.maxOverflow) this.maxOverflow = count;
    }
  }

  /**
   * Publish all committed descriptors: move overflow into free places, store head once, ring the consumer if
   * it sleeps.
   * @returns whether any descriptor was published. `overflowed` counts those that still wait for room
   */
  flush(): boolean {
    if (this.#overflowEnd !== 0) this.#moveOverflow();
    else if (this.#overflow.length > OVERFLOW_MIN_DESCRIPTORS * DESC_WORDS) this.#shrinkOverflow();
    if (this.#head === this.#published) return false;
    this.#counters[Counter.linkBatches]!++;
    this.#counters[Counter.linkDescriptors]! += (this.#head - this.#published) | 0;
    this.#published = this.#head;
    // Release: the descriptors' plain writes come before this store. Sequential consistency: this store comes
    // before the doorbell's load.
    Atomics.store(this.#control, HEAD, this.#head);
    if (this.#doorbell !== null) this.#doorbell.ringIfAsleep();
    return true;
  }

  /** Number of committed descriptors that are not published, in the ring and in the overflow. */
  get pending(): number {
    return ((this.#head - this.#published) | 0) + this.overflowed;
  }

  /** Number of descriptors in the overflow. */
  get overflowed(): number {
    return this.#overflowEnd - this.#overflowFirst;
  }

  /**
   * Whether the overflow is not empty and there is room in the ring now: flush() would publish something. To
   * be checked after announcing sleep, along with the inputs.
   */
  get movable(): boolean {
    return this.#overflowEnd !== 0 && (((this.#head - this.#tail) | 0) <= this.#mask || this.#hasRoom());
  }

  /** Descriptors that the overflow's memory has room for; for tests. */
  get overflowCapacity(): number {
    return this.#overflow.length / DESC_WORDS;
  }

  #hasRoom(): boolean {
    // Acquire: the consumer has finished reading the places before tail.
    this.#tail = Atomics.load(this.#control, TAIL);
    return ((this.#head - this.#tail) | 0) <= this.#mask;
  }

  #reserveOverflow(): number {
    if (this.#overflowEnd * DESC_WORDS === this.#overflow.length) {
      const first = this.#overflowFirst;
      const count = this.#overflowEnd - first;
      // If three quarters are free at the front, shift down, else double the memory. Either way the cost is
      // spread over many descriptors.
      const target =
        count * 4 <= this.#overflowEnd ? this.#overflow : new Uint32Array(this.#overflow.length * 2);
      if (target === this.#overflow) {
        target.copyWithin(0, first * DESC_WORDS, this.#overflowEnd * DESC_WORDS);
      } else {
        target.set(this.#overflow.subarray(first * DESC_WORDS));
      }
      this.#overflow = target;
      this.#overflowFirst = 0;
      this.#overflowEnd = count;
    }
    this.words = this.#overflow;
    return this.#overflowEnd * DESC_WORDS;
  }

  #moveOverflow(): void {
    this.#calmFlushes = 0;
    this.#fillFromOverflow();
    if (this.#overflowEnd === 0) return;
    if (!this.#starving) {
      this.#starving = true;
      Atomics.store(this.#control, STARVING, 1);
      // The consumer may have released places just before it could see the flag: check once more.
      this.#fillFromOverflow();
    }
  }

  #fillFromOverflow(): void {
    while (this.#overflowFirst < this.#overflowEnd) {
      if (((this.#head - this.#tail) | 0) > this.#mask && !this.#hasRoom()) return;
      const from = this.#overflowFirst * DESC_WORDS;
      const to = (this.#head & this.#mask) * DESC_WORDS;
      for (let i = 0; i < DESC_WORDS; i++) this.#ringWords[to + i] = this.#overflow[from + i]!;
      this.#overflowFirst++;
      this.#head = (this.#head + 1) | 0;
    }
    this.#overflowFirst = 0;
    this.#overflowEnd = 0;
    if (this.#starving) {
      this.#starving = false;
      Atomics.store(this.#control, STARVING, 0);
    }
  }

  #shrinkOverflow(): void {
    if (++this.#calmFlushes < OVERFLOW_CALM_FLUSHES) return;
    this.#calmFlushes = 0;
    this.#overflow = new Uint32Array(this.#overflow.length / 2);
  }
}

/**
 * A writing end for tests: it fills each descriptor with UNSET_WORD first, so that a test sees which words
 * the writer forgot.
 */
export class CheckedRingProducer extends RingProducer {
  override reserve(): number {
    const at = super.reserve();
    this.words.fill(UNSET_WORD, at, at + DESC_WORDS);
    return at;
  }
}

/**
 * The reading end:
 *
 *   const n = link.available();
 *   for (let i = 0; i < n; i++) { const at = link.at(i); ... link.words[at + ...] ... }
 *   link.release(n);
 */
export class RingConsumer {
  readonly words: Uint32Array;
  readonly #control: Int32Array;
  readonly #mask: number;
  readonly #producerDoorbell: Doorbell | null;
  /** The producer's head as read last. */
  #head: number;
  /** Next place to read; only this object moves it. */
  #tail: number;

  /**
   * @param ring  ring number (workers/placement.ts)
   * @param producerDoorbell  rung when places become free and the producer's overflow waits for them; null
   *   when both ends are on one thread
   * @throws RangeError for a ring that the layout does not have
   */
  constructor(
    sab: SharedArrayBuffer,
    layout: Layout,
    ring: number,
    producerDoorbell: Doorbell | null = null,
  ) {
    this.#control = controlView(sab, layout, ring);
    this.words = slotsView(sab, layout, ring);
    this.#mask = layout.ringDescriptors - 1;
    this.#producerDoorbell = producerDoorbell;
    this.#tail = Atomics.load(this.#control, TAIL);
    this.#head = this.#tail;
  }

  /**
   * Number of unread descriptors that are known. Newly published ones are looked for only when all known ones
   * are released.
   */
  available(): number {
    if (this.#head === this.#tail) {
      // Acquire: the descriptors before head are complete. It is also step (2) of doorbell.ts.
      this.#head = Atomics.load(this.#control, HEAD);
    }
    return (this.#head - this.#tail) | 0;
  }

  /** Index in `words` of the i-th unread descriptor, 0 <= i < available(). */
  at(i: number): number {
    return ((this.#tail + i) & this.#mask) * DESC_WORDS;
  }

  /** Free the places of the first n unread descriptors. */
  release(n: number): void {
    if (n === 0) return;
    this.#tail = (this.#tail + n) | 0;
    // Release: the reads of the descriptors come before this store. Sequential consistency: this store comes
    // before the load of `starving`.
    Atomics.store(this.#control, TAIL, this.#tail);
    if (this.#producerDoorbell !== null && Atomics.load(this.#control, STARVING) !== 0) {
      this.#producerDoorbell.ringIfAsleep();
    }
  }
}

/**
 * For tests: start a ring's counts at `index` instead of 0, before either end is made. Without it a test
 * would need hours to reach the wrap at 2^32.
 */
export function startRingAt(sab: SharedArrayBuffer, layout: Layout, ring: number, index: number): void {
  const control = controlView(sab, layout, ring);
  Atomics.store(control, HEAD, index | 0);
  Atomics.store(control, TAIL, index | 0);
}
