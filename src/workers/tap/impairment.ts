/**
 * For tests only: random frame loss inside the engine, from a seeded generator, so that a failing run can be
 * repeated; or a crash of the thread.
 */
export class Impairment {
  #state: number;
  readonly #threshold: number;
  /** Frames until the thread fails; 0: never. */
  #crashIn: number;

  /**
   * @param seed  any integer
   * @param loss  probability 0..1 that a frame is lost
   * @param crashAfter  the loses() call of this number throws; 0: none does
   */
  constructor(seed: number, loss: number, crashAfter = 0) {
    this.#crashIn = crashAfter;
    this.#state = (seed ^ 0x9e3779b9) >>> 0 || 1;
    this.#threshold = Math.round(Math.min(Math.max(loss, 0), 1) * 0x100000000);
  }

  /** Whether to drop the next frame: by xorshift32 (Marsaglia 2003). @throws Error as crashAfter says */
  loses(): boolean {
    if (this.#crashIn > 0 && --this.#crashIn === 0) throw new Error('test door: crash');
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x >>> 0;
    return this.#state < this.#threshold;
  }
}
