/**
 * Whether to look at epoll for a moment before going to sleep.
 *
 * Half of a small exchange is waiting for an answer that takes 10 to 20 µs to come. A thread that sleeps for that is late by the
 * kernel's wake-up of a thread and of an idle processor, twice an exchange (decision 044). Looking costs processor time where nothing
 * comes, so it is kept to where it pays: each look in vain doubles the number of sleeps that go without one, each that pays halves it.
 */

/** Longest that one look lasts. */
export const SHORT_LOOK_MS = 0.02;
/** Most sleeps without a look between two: 20 µs in so many sleeps are not to be seen in anybody's processor time. */
export const MOST_SKIPPED = 1024;

export class ShortLook {
  #skip = 0;
  #skipped = 0;

  /** Before a sleep: is a look due? */
  due(): boolean {
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
}
