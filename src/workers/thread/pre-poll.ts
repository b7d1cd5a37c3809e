/**
 * Decides whether a thread polls epoll for a moment before it sleeps, and for how long: busy polling as the
 * kernel has it for sockets, but only where it pays.
 *
 * In a small request-response exchange a thread waits 10 to 50 µs for the answer. A thread that sleeps
 * meanwhile loses the time that the kernel takes to wake a thread and an idle processor, twice an exchange
 * (decisions 044 and 085). Polling wastes processor time when nothing arrives. So each poll without an event
 * doubles the number of sleeps that go without a poll; each poll with an event, and each sleep so short that
 * a poll would have had one, halves that number.
 *
 * During a bulk transfer there is no polling: the next event is an acknowledgement or the sender's next
 * burst, and a few microseconds of delay do not matter to either.
 */

/**
 * Longest poll when one event at most has come since the last sleep: a single exchange, whose other side may
 * have to be woken first.
 */
export const LONE_POLL_MS = 0.06;
/** Longest poll when several flows are active: it leaves the processor to others sooner. */
export const SHORT_POLL_MS = 0.02;
/**
 * Most sleeps without a poll between two polls. One poll of 60 µs in 128 sleeps, each with some 10 µs of
 * work, is too little to be measured as processor time.
 */
export const MOST_SKIPPED = 128;
/** Stream bytes between two sleeps from which on the traffic counts as a bulk transfer. */
export const BULK_BYTES = 32 * 1024;

export class PrePoll {
  #skip = 0;
  #skipped = 0;
  #bulk = false;
  /** How long the next poll may last, ms. */
  longestMs = SHORT_POLL_MS;

  /**
   * Whether to poll before the sleep that follows; sets longestMs.
   * @param bytes  stream bytes carried since the last sleep, both ways. With 0 the last decision about a bulk
   *   transfer stays
   * @param events  that epoll has reported since the last sleep
   */
  shouldPoll(bytes: number, events: number): boolean {
    if (bytes > 0) this.#bulk = bytes >= BULK_BYTES;
    this.longestMs = events <= 1 ? LONE_POLL_MS : SHORT_POLL_MS;
    if (this.#bulk) return false;
    if (this.#skipped >= this.#skip) return true;
    this.#skipped++;
    return false;
  }

  /** A poll has ended. @param paid  it had an event */
  onResult(paid: boolean): void {
    this.#skipped = 0;
    if (paid) this.#skip >>>= 1;
    else if (this.#skip < MOST_SKIPPED) this.#skip = this.#skip === 0 ? 1 : this.#skip * 2;
  }

  /** A sleep without a poll before it has ended with an event. @param ms  its length, wake-up included */
  onSleep(ms: number): void {
    if (!this.#bulk && ms <= this.longestMs) this.#skip >>>= 1;
  }
}
