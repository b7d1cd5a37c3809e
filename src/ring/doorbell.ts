/**
 * Doorbell: how a producer wakes a consumer that sleeps in epoll_wait. A shared word says whether the
 * consumer sleeps; the bell is an eventfd in the consumer's epoll set.
 *
 *   consumer                                   producer
 *   --------                                   --------
 *   (1) sleeping = 1       prepareSleep        (a) head = n             RingProducer.flush
 *   (2) check every ring again                 (b) sleeping == 1 ?      ringIfAsleep
 *   (3) all are empty: epoll_wait                  yes: write the eventfd
 *       else: wake() and go on
 *   (4) sleeping = 0       wake
 *
 * Why no wake-up is lost: all four accesses are Atomics, which JavaScript puts in one total order (sequential
 * consistency). If (2) reads the old head, then (2) comes before (a), hence (1) before (b), and (b) reads
 * sleeping == 1 and rings. If (b) reads 0, then (b) comes before (1), hence (a) before (2), and (2) reads the
 * new head. With plain stores in (1) and (a) both sides could miss each other: a store may stay in the store
 * buffer while the load after it is already done (x86 reorders in exactly this way).
 *
 * The eventfd keeps its count until it is read, so a ring between (2) and (3) makes epoll_wait return at
 * once.
 *
 * The producer that rings sets sleeping back to 0. So one sleep costs one eventfd write, however many
 * producers publish before the thread is awake (a wake-up takes 35-40 us on another core).
 */
export class Doorbell {
  /** How often this producer has rung. */
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

  /** For the producer, after publishing: wake the consumer if it sleeps. @returns whether it rang */
  ringIfAsleep(): boolean {
    // Step (b). A load first: while the consumer is awake, the common case, no locked instruction is needed.
    if (Atomics.load(this.#i32, this.#word) !== 1) return false;
    // Several producers may have read 1 for the same sleep: only the one whose exchange succeeds rings.
    if (Atomics.compareExchange(this.#i32, this.#word, 1, 0) !== 1) return false;
    this.rings++;
    this.#ringFn(this.#eventFd);
    return true;
  }

  /** Ring whether or not the consumer sleeps: for a stop, or from a thread that publishes nothing. */
  ring(): void {
    this.rings++;
    this.#ringFn(this.#eventFd);
  }

  /** For the consumer: announce sleep, step (1). Check every ring again before waiting, step (2). */
  prepareSleep(): void {
    Atomics.store(this.#i32, this.#word, 1);
  }

  /** For the consumer: awake again, or not going to sleep after all, step (4). */
  wake(): void {
    Atomics.store(this.#i32, this.#word, 0);
  }
}
