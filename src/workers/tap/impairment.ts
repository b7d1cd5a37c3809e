/**
 * Random frame loss inside the engine, for tests only: a seeded generator, so that a failing run can be
 * repeated. Or its end.
 */
export class Impairment {
  #state: number;
  readonly #threshold: number;

  /** Frames until the thread fails as by a fault of its own; 0: never. */
  #crashIn: number;

  /**
   * @param loss  probability 0..1 that a frame is lost
   * @param crashAfter  frames after which the next one ends the thread; 0: none does
   */
  constructor(seed: number, loss: number, crashAfter = 0) {
    this.#crashIn = crashAfter;
    this.#state = (seed ^ 0x9e3779b9) >>> 0 || 1;
    this.#threshold = Math.round(Math.min(Math.max(loss, 0), 1) * 0x100000000);
  }

  /** xorshift32 (Marsaglia 2003): enough for choosing victims. */
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
