/**
 * A stage: a part of the engine that a plan may place on any packet thread. It never blocks; the thread's reactor calls it.
 *
 * The thread loop (reactor.ts): poll every stage until none did any work, then sleep in epoll_wait until a descriptor, a
 * doorbell or the earliest deadline. All links are flushed by the stage itself at the end of its poll.
 */
export interface Stage {
  readonly name: string;
  /**
   * Do at most a batch of work.
   * @param now  monotonic milliseconds, read once for this round
   * @returns items handled; 0 lets the thread sleep
   */
  poll(now: number): number;
  /** Milliseconds from `now` until this stage wants to be polled though nothing arrives; Infinity when never. */
  sleepMs(now: number): number;
  /** True while descriptors wait on a link into this stage, or overflow of a link out of it could move (checked after announcing sleep). */
  hasInput(): boolean;
  /** Release descriptors and memory; the engine is stopping. */
  close(): void;
}
