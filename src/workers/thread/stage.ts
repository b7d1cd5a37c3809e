/**
 * Running totals of what stages have carried, for the reactor's decision about a look before it sleeps
 * (thread/pre-poll.ts).
 */
export interface Carried {
  /** Either way, of all flows. */
  datagrams: number;
  /** Bytes of byte streams, either way. */
  streamBytes: number;
}

/**
 * A stage: a part of the engine that a plan may place on any packet thread; the thread's reactor calls it. It
 * never waits for input. For room to write it waits in one place, and 20 ms at most: where a socket takes
 * frames (tap/frame-room.ts).
 *
 * The thread loop (reactor.ts): poll every stage until none did any work, then sleep in epoll_wait until a
 * descriptor, a doorbell or the earliest deadline. All links are flushed by the stage itself at the end of
 * its poll.
 */
export interface Stage {
  readonly name: string;
  /**
   * Do at most a batch of work.
   * @param now  monotonic milliseconds, read once for this round
   * @returns items handled; 0 lets the thread sleep
   */
  poll(now: number): number;
  /**
   * Milliseconds from `now` until this stage wants to be polled though nothing arrives; Infinity when never.
   */
  sleepMs(now: number): number;
  /**
   * True while descriptors wait on a link into this stage, or overflow of a link out of it could move
   * (checked after announcing sleep).
   */
  hasInput(): boolean;
  /**
   * Add this stage's own part. Called before a sleep; absent where everything that passes is another stage's
   * to count.
   */
  addCarried?(sum: Carried): void;
  /** Release descriptors and memory; the engine is stopping. */
  close(): void;
}
