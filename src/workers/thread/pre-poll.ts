/**
 * Whether to look at epoll for a moment before going to sleep, and for how long.
 *
 * Half of a small exchange is waiting for an answer that takes 10 to 50 µs to come. A thread that sleeps for
 * that is late by the kernel's wake-up of a thread and of an idle processor, twice an exchange (decisions 044
 * and 085). Looking costs processor time where nothing comes, so it is kept to where it pays: each look in
 * vain doubles the number of sleeps that go without one; each that pays, and each sleep so short that a look
 * would have paid, halves it.
 *
 * No looks in the middle of a bulk transfer: what comes next there is an acknowledgement or the sender's next
 * burst, and nobody waits for a microsecond of ours.
 */

/**
 * Longest look where a single event has come since the last sleep: an exchange by itself, whose other side
 * may have to be woken first.
 */
export const LONE_LOOK_MS = 0.06;
/** Longest look among several flows: the processor is somebody else's turn sooner. */
export const SHORT_LOOK_MS = 0.02;
/**
 * Most sleeps without a look between two: 60 µs in so many sleeps, each some 10 µs of work, are not to be
 * seen in anybody's processor time.
 */
export const MOST_SKIPPED = 128;
/** Stream bytes between two sleeps from which on it is a bulk transfer. */
export const BULK_BYTES = 32 * 1024;

export class PrePoll {
  #skip = 0;
  #skipped = 0;
  #bulk = false;
  /** How long the look that is due may last. */
  longestMs = SHORT_LOOK_MS;

  /**
   * Before a sleep: is a look due?
   * @param bytes of streams that passed since the last sleep, both ways; none leaves open what they belong to
   * @param events  that epoll has told since then
   */
  due(bytes: number, events: number): boolean {
    if (bytes > 0) this.#bulk = bytes >= BULK_BYTES;
    this.longestMs = events <= 1 ? LONE_LOOK_MS : SHORT_LOOK_MS;
    if (this.#bulk) return false;
    if (this.#skipped >= this.#skip) return true;
    this.#skipped++;
    return false;
  }

  /** A look has ended. @param paid  something came */
  ended(paid: boolean): void {
    this.#skipped = 0;
    if (paid) this.#skip >>>= 1;
    else if (this.#skip < MOST_SKIPPED) this.#skip = this.#skip === 0 ? 1 : this.#skip * 2;
  }

  /** A sleep without a look has ended with an event. @param ms  its length, the wake-up included */
  slept(ms: number): void {
    if (!this.#bulk && ms <= this.longestMs) this.#skip >>>= 1;
  }
}
