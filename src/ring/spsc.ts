/**
 * SPSC descriptor ring: one producer, one consumer, on one thread or two. Descriptors are DESC_WORDS u32
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
 * mask. All
 * `capacity` places are used, as head - tail tells empty (0) from full (capacity). Wrapping at 2^32 needs no care.
 *
 * A link never refuses. When the ring is full, the producer keeps descriptors in a private overflow FIFO:
 *
 *   reserve/commit ──▶ [overflow] ──flush──▶ [ring] ──▶ consumer
 *
 * and, order being kept, everything goes there until a flush has emptied it. It is bounded by what can be
 * under way at all (slots and flows). While it is not empty after a flush, `starving` is set beside head, and
 * the consumer's release() rings the producer's own doorbell: so a producer may sleep on a full ring,
 * provided that it announces sleep first and then looks at `movable` as it looks at its own input (the same
 * argument as in doorbell.ts, with tail in the place of head, and starving and sleeping both set before the
 * look). Without that look, room made between the last flush and the announcement would go unnoticed.
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

/** What CheckedRingProducer leaves in words that the writer of a descriptor has not set. */
export const UNSET_WORD = 0xdeadbeef;

const OVERFLOW_MIN_DESCRIPTORS = 64;
/** An overflow that was not needed for so many flushes gives half of its memory back. */
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
  /** Where the descriptor last reserved lies. Borrowed: valid until commit(). */
  words: Uint32Array;
  /** Most descriptors that were ever in the overflow. */
  maxOverflow = 0;
  readonly #ringWords: Uint32Array;
  readonly #control: Int32Array;
  readonly #mask: number;
  readonly #doorbell: Doorbell | null;
  readonly #counters: Float64Array;
  /** Next place to write; ours alone. */
  #head: number;
  /** What the consumer has been told. */
  #published: number;
  /** The consumer's tail as last seen: it only moves on, so an old value only means fewer free places. */
  #tail: number;
  /** Overflow FIFO: descriptors [#overflowFirst, #overflowEnd) of #overflow. */
  #overflow: Uint32Array;
  #overflowFirst = 0;
  #overflowEnd = 0;
  #calmFlushes = 0;
  #starving = false;

  /**
   * @param doorbell  the consumer's, or null when both ends are on one thread
   * @param counters  the producing thread's, for linkBatches and linkDescriptors
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

  /** Index in `words` of the first word of a free descriptor. */
  reserve(): number {
    if (this.#overflowEnd === 0) {
      if (((this.#head - this.#tail) | 0) <= this.#mask || this.#hasRoom()) {
        this.words = this.#ringWords;
        return (this.#head & this.#mask) * DESC_WORDS;
      }
    }
    return this.#reserveOverflow();
  }

  /** The descriptor last reserved is complete. The consumer sees it after the next flush(). */
  commit(): void {
    if (this.words === this.#ringWords) this.#head = (this.#head + 1) | 0;
    else {
      this.#overflowEnd++;
      const count = this.#overflowEnd - this.#overflowFirst;
      if (count > this.maxOverflow) this.maxOverflow = count;
    }
  }

  /**
   * Publish what was committed: moves overflow into free places, stores head once, rings the consumer if it
   * sleeps.
   * @returns whether anything was published. `overflowed` tells whether something still waits for room.
   */
  flush(): boolean {
    if (this.#overflowEnd !== 0) this.#moveOverflow();
    else if (this.#overflow.length > OVERFLOW_MIN_DESCRIPTORS * DESC_WORDS) this.#shrinkOverflow();
    if (this.#head === this.#published) return false;
    this.#counters[Counter.linkBatches]!++;
    this.#counters[Counter.linkDescriptors]! += (this.#head - this.#published) | 0;
    this.#published = this.#head;
    // Release: the descriptors' plain writes come before it. Sequentially consistent before the doorbell's
    // load.
    Atomics.store(this.#control, HEAD, this.#head);
    if (this.#doorbell !== null) this.#doorbell.ringIfAsleep();
    return true;
  }

  /** Committed descriptors that the consumer has not been told of, in the ring and in the overflow. */
  get pending(): number {
    return ((this.#head - this.#published) | 0) + this.overflowed;
  }

  /** Descriptors in the overflow. */
  get overflowed(): number {
    return this.#overflowEnd - this.#overflowFirst;
  }

  /**
   * The overflow waits and there is room for it now: a flush() would publish something. To be checked after
   * announcing sleep, along with the inputs.
   */
  get movable(): boolean {
    return this.#overflowEnd !== 0 && (((this.#head - this.#tail) | 0) <= this.#mask || this.#hasRoom());
  }

  /** Present size of the overflow, for tests and reports. */
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
      // Three quarters free in front: shift down; else double. Either way the cost is spread over many
      // descriptors.
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
      // The consumer may have released just before it could see the flag: look once more.
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
 * A writing end for tests: each descriptor begins as UNSET_WORDs, so that a word which its writer forgets
 * shows.
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
  /** The producer's head as last seen. */
  #head: number;
  /** Next place to read; ours alone to move. */
  #tail: number;

  /** @param producerDoorbell  rung when places come free and the producer's overflow waits for them; null on one thread */
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

  /** Unread descriptors; more may have come while those last seen are not all released. */
  available(): number {
    if (this.#head === this.#tail) {
      // Acquire: the descriptors before head are written. Also step (2) of doorbell.ts, hence Atomics.
      this.#head = Atomics.load(this.#control, HEAD);
    }
    return (this.#head - this.#tail) | 0;
  }

  /** Index in `words` of the i-th unread descriptor, 0 <= i < available(). */
  at(i: number): number {
    return ((this.#tail + i) & this.#mask) * DESC_WORDS;
  }

  /** The first n unread descriptors are done with: their places may be written again. */
  release(n: number): void {
    if (n === 0) return;
    this.#tail = (this.#tail + n) | 0;
    // Release: our reads come before it. Sequentially consistent before the load of `starving`.
    Atomics.store(this.#control, TAIL, this.#tail);
    if (this.#producerDoorbell !== null && Atomics.load(this.#control, STARVING) !== 0) {
      this.#producerDoorbell.ringIfAsleep();
    }
  }
}

/**
 * Start a ring's counts at `index` instead of 0, before either end is made. A test door: wrapping at 2^32
 * would otherwise take hours to reach.
 */
export function startRingAt(sab: SharedArrayBuffer, layout: Layout, ring: number, index: number): void {
  const control = controlView(sab, layout, ring);
  Atomics.store(control, HEAD, index | 0);
  Atomics.store(control, TAIL, index | 0);
}
