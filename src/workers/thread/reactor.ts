/**
 * The loop of one packet thread: poll the stages until none has work, then sleep in epoll_wait.
 *
 * Every descriptor is edge-triggered; an event only says that a stage may try again. A stage that stopped on
 * EAGAIN hears of the next edge here. The doorbell is an eventfd: `prepareSleep` announces sleep, then every
 * input is looked at once more, then the thread waits (doorbell.ts says why no wake-up can be lost). While
 * there is work the loop still looks at epoll between rounds, without waiting, so that no descriptor starves
 * behind a busy one.
 *
 * Where it has been found to pay, a thread looks at epoll for a moment more before it sleeps
 * (thread/pre-poll.ts): announced already, so that a producer rings.
 *
 * A thread inside a system call cannot be stopped from outside, so whoever stops the engine rings, the
 * process at its end too (engine.ts). MAX_WAIT_MS is no part of that: it bounds what a wake-up lost by a
 * mistake of ours would cost.
 */
import { Counter, recordHistogram } from '../../ring/counters.ts';
import type { Doorbell } from '../../ring/doorbell.ts';
import { Histogram } from '../../ring/histograms.ts';
import { EPOLLET, EPOLLIN, EPOLLONESHOT, Errno } from '../../sys/constants.ts';
import { EpollEvents, epollAdd, epollCreate, epollMod, epollWait } from '../../sys/epoll.ts';
import { close, eventfdDrain } from '../../sys/io.ts';
import type { PrePoll } from './pre-poll.ts';
import type { Carried, Stage } from './stage.ts';

const MAX_WAIT_MS = 10_000;
const EVENTS_PER_WAIT = 256;
/** How often the thread's processor time is read, while it works. */
const CPU_SAMPLE_MS = 1000;
/** Busy rounds between two looks at epoll. */
const ROUNDS_PER_POLL = 2;

/** Called with the token that the descriptor was registered with and its EPOLL* bits. */
export type EventHandler = (token: number, events: number) => void;

export class Reactor {
  readonly #ep: number;
  readonly #events = new EpollEvents(EVENTS_PER_WAIT);
  readonly #handlers: EventHandler[] = [];
  readonly #stages: Stage[] = [];
  readonly #doorbell: Doorbell;
  readonly #counters: Float64Array;
  readonly #stopped: () => boolean;
  readonly #look: PrePoll | null;
  /** What the stages had carried and epoll had told until the last sleep. */
  #datagrams = 0;
  #streamBytes = 0;
  #eventsSeen = 0;
  readonly #carried: Carried = { datagrams: 0, streamBytes: 0 };
  /** Each stage that carries something, once. */
  #carriers: readonly Stage[] = [];
  /** The last look was left out where one might have paid. */
  #skippedLook = false;
  /** When the thread's processor time is to be read again. */
  #nextCpuMs = 0;
  /** It has worked since that was read last. */
  #worked = true;

  /**
   * @param doorbell   this thread's own
   * @param doorbellFd  its eventfd
   * @param stopped    is the engine to stop?
   * @param look       whether to look before a sleep; null: never
   */
  constructor(
    doorbell: Doorbell,
    doorbellFd: number,
    counters: Float64Array,
    stopped: () => boolean,
    look: PrePoll | null,
  ) {
    this.#look = look;
    this.#ep = epollCreate();
    if (this.#ep < 0) throw new Error(`epoll_create1: errno ${-this.#ep}`);
    this.#doorbell = doorbell;
    this.#counters = counters;
    this.#stopped = stopped;
    this.watch(
      this.handler(() => eventfdDrain(doorbellFd)),
      doorbellFd,
      EPOLLIN | EPOLLET,
      0,
    );
  }

  /** Make `handle` known. @returns its index for watch() */
  handler(handle: EventHandler): number {
    return this.#handlers.push(handle) - 1;
  }

  /** Register a descriptor; it leaves by being closed. @returns 0 or -errno */
  watch(handler: number, fd: number, events: number, token: number): number {
    return epollAdd(this.#ep, fd, events, token, handler);
  }

  /**
   * The next event of a descriptor and no other, until this is called again; it may have come already.
   * @param kind EPOLL*
   * @returns 0 or -errno
   */
  watchOnce(handler: number, fd: number, token: number, kind: number = EPOLLIN): number {
    const events = kind | EPOLLONESHOT;
    const r = epollMod(this.#ep, fd, events, token, handler);
    return r === -Errno.ENOENT ? epollAdd(this.#ep, fd, events, token, handler) : r;
  }

  /** Stages in the order in which a round polls them; one may stand in it more than once. */
  run(stages: readonly Stage[]): void {
    this.#stages.push(...stages);
    this.#carriers = [...new Set(stages)].filter((stage) => stage.addCarried !== undefined);
    let rounds = 0;
    while (!this.#stopped()) {
      const now = performance.now();
      let work = 0;
      for (let i = 0; i < this.#stages.length; i++) work += this.#stages[i]!.poll(now);
      if (now >= this.#nextCpuMs) this.#sampleCpu(now);
      if (work > 0) {
        this.#worked = true;
        this.#counters[Counter.busyRounds]!++;
        recordHistogram(this.#counters, Histogram.busyRound, (performance.now() - now) * 1000);
        if (++rounds >= ROUNDS_PER_POLL) {
          rounds = 0;
          this.#wait(0);
        }
        continue;
      }
      rounds = 0;
      this.#counters[Counter.idleRounds]!++;
      this.#sleep(now);
    }
    this.#sampleCpu(0);
  }

  /** The thread's processor time into its counters: getrusage, too dear for every round. */
  #sampleCpu(now: number): void {
    const used = process.threadCpuUsage();
    this.#counters[Counter.cpuUserUs] = used.user;
    this.#counters[Counter.cpuSystemUs] = used.system;
    this.#nextCpuMs = now + CPU_SAMPLE_MS;
    this.#worked = false;
  }

  #sleep(now: number): void {
    // What the last rounds took is to be seen a second later, and then not again.
    let ms = this.#worked ? this.#nextCpuMs - now : MAX_WAIT_MS;
    for (let i = 0; i < this.#stages.length; i++) {
      const wanted = this.#stages[i]!.sleepMs(now);
      if (wanted < ms) ms = wanted;
    }
    this.#doorbell.prepareSleep();
    let input = this.#stopped();
    for (let i = 0; i < this.#stages.length && !input; i++) input = this.#stages[i]!.hasInput();
    if (!input && !(ms > 0 && this.#lookShortly())) {
      this.#counters[Counter.sleeps]!++;
      const asleepMs = this.#skippedLook ? performance.now() : 0;
      // Round up: waking before the deadline would only mean another round without work.
      const events = this.#wait(ms <= 0 ? 0 : Math.ceil(ms));
      if (this.#skippedLook && events > 0) this.#look!.slept(performance.now() - asleepMs);
    }
    this.#doorbell.wake();
  }

  /** @returns whether something came */
  #lookShortly(): boolean {
    this.#skippedLook = false;
    const look = this.#look;
    if (look === null) return false;
    const counters = this.#counters;
    const carried = this.#carried;
    carried.datagrams = 0;
    carried.streamBytes = 0;
    for (let i = 0; i < this.#carriers.length; i++) this.#carriers[i]!.addCarried!(carried);
    // Many small datagram flows make most looks pay, and sleeping, which lets batches gather, would have been
    // cheaper by far.
    const isStream = carried.datagrams === this.#datagrams;
    this.#datagrams = carried.datagrams;
    const bytes = carried.streamBytes - this.#streamBytes;
    this.#streamBytes = carried.streamBytes;
    const eventsSeen = counters[Counter.epollEvents]!;
    const newEvents = eventsSeen - this.#eventsSeen;
    this.#eventsSeen = eventsSeen;
    if (!isStream) return false;
    if (!look.due(bytes, newEvents)) {
      this.#skippedLook = true;
      return false;
    }
    counters[Counter.shortLooks]!++;
    const endMs = performance.now() + look.longestMs;
    let events: number;
    do events = this.#wait(0);
    while (events === 0 && performance.now() < endMs);
    look.ended(events > 0);
    if (events > 0) counters[Counter.shortLooksPaid]!++;
    return events > 0;
  }

  /** @returns events handled */
  #wait(timeoutMs: number): number {
    const n = epollWait(this.#ep, this.#events, timeoutMs);
    this.#counters[Counter.epollWaits]!++;
    if (n <= 0) return 0; // 0: time-out; below: EINTR, the loop comes back
    this.#counters[Counter.epollEvents]! += n;
    for (let i = 0; i < n; i++) {
      this.#handlers[this.#events.dataHi(i)]!(this.#events.dataLo(i), this.#events.eventsOf(i));
    }
    return n;
  }

  close(): void {
    close(this.#ep);
  }
}
