/**
 * Random numbers from a seed, so that a run can be repeated: mulberry32 (a Weyl sequence with a mixing
 * function; Tommy Ettinger, 2017). Each effect of a line has a generator of its own, so the n-th packet has
 * the same fate whatever the others do to it.
 */
import type { JitterDistribution } from '../engine-plan.ts';

const WEYL = 0x6d2b79f5;
const TO_SHARE = 2 ** -32;

/** Deviations beyond these are cut off: memory is sized for the longest delay. */
export const MAX_NORMAL = 4;
export const MAX_PARETO = 10;
/** Shape 3; the standard deviation of 1/U^(1/3) is sqrt(3)/2, its mean 3/2. */
const PARETO_MEAN = 1.5;
const PARETO_DEVIATION = Math.sqrt(3) / 2;

export class Random {
  #state: number;
  /** Second of a pair of normal deviates; NaN: used up. */
  #spare = Number.NaN;

  /** @param seed  any integer */
  constructor(seed: number) {
    this.#state = seed >>> 0;
    this.share(); // the first value of neighbouring seeds is alike
  }

  /** @returns a number from 0 up to, but not including 1 */
  share(): number {
    this.#state = (this.#state + WEYL) >>> 0;
    let x = this.#state;
    x = Math.imul(x ^ (x >>> 15), x | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) * TO_SHARE;
  }

  /**
   * A deviation from the mean. Uniform: -1 to 1. Normal and Pareto (shape 3, a long tail above): mean 0 and
   * standard deviation 1.
   */
  deviation(distribution: JitterDistribution): number {
    if (distribution === 'uniform') return 2 * this.share() - 1;
    if (distribution === 'normal') return this.#normal();
    const x = ((1 - this.share()) ** (-1 / 3) - PARETO_MEAN) / PARETO_DEVIATION;
    return x < MAX_PARETO ? x : MAX_PARETO;
  }

  /** Box and Muller, 1958. */
  #normal(): number {
    let x = this.#spare;
    this.#spare = Number.NaN;
    if (Number.isNaN(x)) {
      const radius = Math.sqrt(-2 * Math.log1p(-this.share()));
      const angle = 2 * Math.PI * this.share();
      x = radius * Math.cos(angle);
      this.#spare = radius * Math.sin(angle);
    }
    return x > MAX_NORMAL ? MAX_NORMAL : x < -MAX_NORMAL ? -MAX_NORMAL : x;
  }
}

/** Gilbert-Elliott: E. N. Gilbert 1960, E. O. Elliott 1963; tc-netem(8), `loss gemodel`. */
export class LossModel {
  readonly #random: Random;
  #goodToBad = 0;
  #badToGood = 0;
  #lossGood = 0;
  #lossBad = 0;
  #isBad = false;
  /** Whether any packet can be lost. */
  isOn = false;

  constructor(random: Random) {
    this.#random = random;
  }

  configure(p: { goodToBad: number; badToGood: number; lossGood: number; lossBad: number }): void {
    this.#goodToBad = p.goodToBad;
    this.#badToGood = p.badToGood;
    this.#lossGood = p.lossGood;
    this.#lossBad = p.lossBad;
    this.isOn = p.lossGood > 0 || p.goodToBad > 0;
    if (p.goodToBad === 0) this.#isBad = false;
  }

  /** Whether the next packet is lost. */
  loses(): boolean {
    if (!this.isOn) return false;
    if (this.#goodToBad > 0 && this.#random.share() < (this.#isBad ? this.#badToGood : this.#goodToBad))
      this.#isBad = !this.#isBad;
    return this.#random.share() < (this.#isBad ? this.#lossBad : this.#lossGood);
  }
}
