/**
 * How slots go back to the reader that they belong to: the links of one shard or host-io stage to all
 * readers. Only lanes have several readers; a frame read by one may be kept by the shard of another.
 */
import { type FramePool, NO_SLOT } from '../../ring/pool.ts';
import type { RingProducer } from '../../ring/spsc.ts';
import type { SlotShares } from '../placement.ts';
import { freeReaderSlotsWrite } from './to-reader.ts';

export class ReaderReturns {
  readonly #links: readonly RingProducer[];
  readonly #first: RingProducer;
  readonly #pool: FramePool;
  readonly #smallEach: number;
  readonly #largeEach: number;
  readonly #largeAt: number;

  /** @param links  by reader */
  constructor(links: readonly RingProducer[], pool: FramePool, shares: SlotShares) {
    this.#links = links;
    this.#first = links[0]!;
    this.#pool = pool;
    this.#smallEach = shares.readerSmall[0]![1];
    [this.#largeAt, this.#largeEach] = shares.readerLarge[0]!;
  }

  /** Give slots back. Either may be NO_SLOT. */
  free(slotA: number, slotB: number): void {
    if (this.#links.length === 1) return freeReaderSlotsWrite(this.#first, slotA, slotB);
    const a = slotA === NO_SLOT ? -1 : this.readerOf(slotA);
    const b = slotB === NO_SLOT ? -1 : this.readerOf(slotB);
    if (a === b && a < 0) return;
    if (a === b || b < 0) return freeReaderSlotsWrite(this.#links[a]!, slotA, slotB);
    if (a >= 0) freeReaderSlotsWrite(this.#links[a]!, slotA, NO_SLOT);
    freeReaderSlotsWrite(this.#links[b]!, NO_SLOT, slotB);
  }

  /** @returns the reader that has a slot: readers' shares lie one behind another (slotShares) */
  readerOf(slot: number): number {
    return this.#pool.isSmall(slot)
      ? Math.floor(slot / this.#smallEach)
      : Math.floor((slot - this.#largeAt) / this.#largeEach);
  }

  /** @returns whether the readers see more than before */
  flush(): boolean {
    let published = false;
    for (let i = 0; i < this.#links.length; i++) if (this.#links[i]!.flush()) published = true;
    return published;
  }

  /** Whether overflow of a link can move. */
  get movable(): boolean {
    for (let i = 0; i < this.#links.length; i++) if (this.#links[i]!.movable) return true;
    return false;
  }
}
