/** Virtual time: events run in order of due time, then of creation. No call waits for real time. */
export class Clock {
  /** Milliseconds. */
  now: number;
  /** Binary heap, earliest first. */
  readonly #heap: { at: number; order: number; run: () => void }[] = [];
  #made = 0;

  constructor(startMs = 1000) {
    this.now = startMs;
  }

  get idle(): boolean {
    return this.#heap.length === 0;
  }

  /**
   * Call `run` after `delayMs`. Events cannot be cancelled: `run` checks whether it is still needed.
   */
  after(delayMs: number, run: () => void): void {
    const heap = this.#heap;
    const event = { at: this.now + Math.max(0, delayMs), order: this.#made++, run };
    let i = heap.push(event) - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!before(event, heap[parent]!)) break;
      heap[i] = heap[parent]!;
      i = parent;
    }
    heap[i] = event;
  }

  /** Run the earliest event. @returns false when there is none up to `untilMs` */
  step(untilMs = Number.POSITIVE_INFINITY): boolean {
    const heap = this.#heap;
    const first = heap[0];
    if (first === undefined || first.at > untilMs) return false;
    const last = heap.pop()!;
    if (heap.length > 0) {
      let i = 0;
      for (;;) {
        let child = 2 * i + 1;
        if (child >= heap.length) break;
        if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++;
        if (!before(heap[child]!, last)) break;
        heap[i] = heap[child]!;
        i = child;
      }
      heap[i] = last;
    }
    if (first.at > this.now) this.now = first.at;
    first.run();
    return true;
  }

  /** Advance the clock by `ms`, and run the events until then. */
  advance(ms: number): void {
    const until = this.now + ms;
    while (this.step(until)) {}
    this.now = until;
  }
}

function before(a: { at: number; order: number }, b: { at: number; order: number }): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}
