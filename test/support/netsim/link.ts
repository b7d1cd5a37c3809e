/** One direction of a link: loses, duplicates, delays and reorders frames. */
import type { Clock } from './clock.ts';
import type { Prng } from './prng.ts';

export interface LinkOptions {
  /** Probabilities 0..1. */
  readonly loss?: number;
  readonly duplicate?: number;
  /** Probability of a further delay of up to reorderMs, so that later frames overtake. */
  readonly reorder?: number;
  readonly reorderMs?: number;
  readonly delayMs?: number;
  /** Bytes per millisecond; absent: no limit. */
  readonly bytesPerMs?: number;
}

export class Link<T> {
  readonly #clock: Clock;
  readonly #prng: Prng;
  readonly #deliver: (item: T) => void;
  #o: LinkOptions;
  #busyUntil = 0;
  sent = 0;
  lost = 0;
  /** Called first; true: the item is lost. For losses that a test selects. */
  filter: ((item: T) => boolean) | null = null;

  constructor(clock: Clock, prng: Prng, options: LinkOptions, deliver: (item: T) => void) {
    this.#clock = clock;
    this.#prng = prng;
    this.#o = options;
    this.#deliver = deliver;
  }

  set options(options: LinkOptions) {
    this.#o = options;
  }

  send(item: T, bytes: number): void {
    const o = this.#o;
    this.sent++;
    if (this.filter?.(item) || this.#prng.chance(o.loss ?? 0)) {
      this.lost++;
      return;
    }
    let delay = o.delayMs ?? 0;
    if (o.bytesPerMs !== undefined) {
      const start = Math.max(this.#busyUntil, this.#clock.now);
      this.#busyUntil = start + bytes / o.bytesPerMs;
      delay += this.#busyUntil - this.#clock.now;
    }
    const copies = this.#prng.chance(o.duplicate ?? 0) ? 2 : 1;
    for (let i = 0; i < copies; i++) {
      const held = this.#prng.chance(o.reorder ?? 0) ? this.#prng.unit() * (o.reorderMs ?? 1) : 0;
      this.#clock.after(delay + held, () => this.#deliver(item));
    }
  }
}
