/**
 * Doorbell: how a producer wakes a consumer that sleeps in epoll_wait. A shared word says whether it sleeps;
 * the bell is an eventfd that its epoll set watches.
 *
 *   consumer                                   producer
 *   --------                                   --------
 *   (1) sleeping = 1       prepareSleep        (a) head = n             RingProducer.flush
 *   (2) look at every ring again               (b) sleeping == 1 ?      ringIfAsleep
 *   (3) nothing there: epoll_wait                  yes: write the eventfd
 *       something: wake(), work on
 *   (4) sleeping = 0       wake
 *
 * Why no wake-up is lost. All four accesses are Atomics, which JavaScript orders in one total order
 * (seq-cst). If (2) missed the new head, then (2) came before (a), hence (1) before (b), and (b) sees
 * sleeping == 1 and rings. If (b) saw
 * 0, then (b) came before (1), hence (a) before (2), and (2) sees the new head. A plain store in (1) or (a) may sit in
 * the store buffer while the load that follows it is done (x86 allows exactly that), and both sides miss each
 * other.
 *
 * The eventfd is level-triggered memory: a ring that comes between (2) and (3) makes epoll_wait return at
 * once.
 *
 * Whoever rings sets sleeping back to 0, so one sleep costs one eventfd write however many producers publish
 * before the thread is awake (that takes 35-40 us on another core).
 */
export class Doorbell {
  /** Rings by this producer, for the `wakes` counter. */
  rings = 0;
  readonly #i32: Int32Array;
  readonly #word: number;
  readonly #eventFd: number;
  readonly #ringFn: (fd: number) => void;

  /**
   * @param i32  view over the whole shared buffer
   * @param wordIndex  index of the consumer's sleeping word: sleepingAt(layout, thread) >>> 2
   * @param eventFd  the consumer's eventfd
   * @param ringFn  writes the eventfd: eventfdWrite
   */
  constructor(i32: Int32Array, wordIndex: number, eventFd: number, ringFn: (fd: number) => void) {
    this.#i32 = i32;
    this.#word = wordIndex;
    this.#eventFd = eventFd;
    this.#ringFn = ringFn;
  }

  /** Producer, after publishing: wake the consumer if it sleeps. @returns whether the bell was rung */
  ringIfAsleep(): boolean {
    // The load keeps the common case (awake) free of a locked instruction; it is step (b).
    if (Atomics.load(this.#i32, this.#word) !== 1) return false;
    // Of several producers that see the same sleep, the one that wins this exchange rings.
    if (Atomics.compareExchange(this.#i32, this.#word, 1, 0) !== 1) return false;
    this.rings++;
    this.#ringFn(this.#eventFd);
    return true;
  }

  /** Ring whatever the flag says: for a stop, or from a thread that publishes nothing. */
  ring(): void {
    this.rings++;
    this.#ringFn(this.#eventFd);
  }

  /** Consumer: announce sleep. Then look at every ring again, and only then wait; see above. */
  prepareSleep(): void {
    Atomics.store(this.#i32, this.#word, 1);
  }

  /** Consumer: awake again, or not going to sleep after all. */
  wake(): void {
    Atomics.store(this.#i32, this.#word, 0);
  }
}
