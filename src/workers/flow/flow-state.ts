/**
 * The state of a TCP flow on its way from one lane to another (flow-mover.ts): words in shared memory.
 *
 *   | host-io's, HOST_STATE_WORDS | the shard's, in the order in which its parts write and read it |
 *
 * Times are ages, as each thread's clock has an origin of its own.
 */

/** What host-io has of a socket (StreamSockets.release()). */
export const HOST_STATE_WORDS = 8;
export const STATE_WORDS = 72;

export class FlowState {
  readonly words = new Uint32Array(STATE_WORDS);
  #at = HOST_STATE_WORDS;
  readonly #number = new Float64Array(1);
  readonly #halves = new Uint32Array(this.#number.buffer);

  /** Write, or read, the shard's part from its beginning. */
  begin(): void {
    this.#at = HOST_STATE_WORDS;
  }

  /** @throws RangeError when STATE_WORDS is too small for what the parts write */
  put(word: number): void {
    if (this.#at >= STATE_WORDS) throw new RangeError(`a flow's state has more than ${STATE_WORDS} words`);
    this.words[this.#at++] = word;
  }

  take(): number {
    return this.words[this.#at++]!;
  }

  /** @param value  any number, a fraction too */
  putNumber(value: number): void {
    this.#number[0] = value;
    this.put(this.#halves[0]!);
    this.put(this.#halves[1]!);
  }

  takeNumber(): number {
    this.#halves[0] = this.take();
    this.#halves[1] = this.take();
    return this.#number[0]!;
  }
}
