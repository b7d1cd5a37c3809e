/** Running totals of what stages have carried: the reactor decides by them whether to poll before a sleep. */
export interface Carried {
  /** Datagrams of all flows, both ways. */
  datagrams: number;
  /** Bytes of all TCP streams, both ways. */
  streamBytes: number;
}

/**
 * A stage: a part of the engine that a plan may place on any packet thread; the thread's reactor calls it. A
 * stage never waits for input. It waits for room to write in one case only, and 20 ms at most: where a socket
 * takes the frames (tap/frame-room.ts).
 *
 * The thread loop (reactor.ts) polls every stage until none has work, then sleeps in epoll_wait until an
 * event of a descriptor, a doorbell or the earliest deadline. A stage flushes its own links at the end of
 * poll().
 */
export interface Stage {
  readonly name: string;
  /**
   * Do at most one batch of work.
   * @param now  monotonic milliseconds, read once per round
   * @returns items handled; 0 lets the thread sleep
   */
  poll(now: number): number;
  /**
   * @returns milliseconds from `now` until this stage must be polled even if nothing arrives; Infinity: never
   */
  sleepMs(now: number): number;
  /**
   * Whether descriptors wait on a link into this stage, or overflow of a link out of it has room now. Called
   * after the thread has announced sleep.
   */
  hasInput(): boolean;
  /**
   * Add this stage's totals to `sum`. Called before a sleep. Absent where other stages count all that this
   * one carries.
   */
  addCarried?(sum: Carried): void;
  /** Release descriptors and memory; the engine is stopping. */
  close(): void;
}
