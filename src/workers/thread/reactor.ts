/**
 * The loop of one packet thread: poll the stages until none has work, then sleep in epoll_wait.
 *
 * Every descriptor is edge-triggered: an event only means that a stage may try again, and a stage that
 * stopped on EAGAIN gets the next edge from here. The doorbell is an eventfd. `prepareSleep` announces sleep,
 * then the loop checks every input once more, then the thread waits (doorbell.ts explains why no wake-up can
 * be lost). While there is work the loop polls epoll between rounds, without waiting, so that no descriptor
 * starves behind a busy one.
 *
 * Where it pays, a thread polls epoll for a moment before it sleeps (pre-poll.ts). Sleep is announced before
 * that poll, so that producers ring the doorbell meanwhile.
 *
 * A thread inside a system call cannot be stopped from outside. So the engine rings the doorbells when it
 * stops, and when the process exits (engine.ts). MAX_WAIT_MS has another purpose: it limits the cost of a
 * wake-up that is lost by a fault of this program.
 */
import { Counter, recordHistogram } from '../../ring/counters.ts';
import type { Doorbell } from '../../ring/doorbell.ts';
import { Histogram } from '../../ring/histograms.ts';
import { EPOLLET, EPOLLIN, EPOLLONESHOT, Errno } from '../../sys/constants.ts';
import {
  EpollEvents,
  epollAdd,
  epollCreate,
  epollDel,
  epollMod,
  epollWait,
  epollWaitPrecise,
} from '../../sys/epoll.ts';
import { close, eventfdDrain } from '../../sys/io.ts';
import type { PrePoll } from './pre-poll.ts';
import type { Carried, Stage } from './stage.ts';

const MAX_WAIT_MS = 10_000;
const EVENTS_PER_WAIT = 256;
/** How often the thread's processor time is read, while it works. */
const CPU_SAMPLE_MS = 1000;
/** The same, where somebody is told the load. */
const LOAD_SAMPLE_MS = 200;
/** Busy rounds between two polls of epoll. */
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
  readonly #prePoll: PrePoll | null;
  /** What the stages had carried, and how many events epoll had reported, at the last sleep. */
  #datagrams = 0;
  #streamBytes = 0;
  #eventsSeen = 0;
  readonly #carried: Carried = { datagrams: 0, streamBytes: 0 };
  /** Stages with addCarried(), each of them once. */
  #carriers: readonly Stage[] = [];
  /** PrePoll decided against the last poll. */
  #skippedPoll = false;
  readonly #onLoad: ((share: number) => void) | null;
  /** Deadlines of stages are not rounded up to whole milliseconds. */
  readonly #isPrecise: boolean;
  /** When the thread's processor time was read last, and how much it was. */
  #sampledMs = 0;
  #sampledUs = 0;
  /** When to read the thread's processor time again. */
  #nextCpuMs = 0;
  /** The thread has worked since its processor time was read last. */
  #worked = true;

  /**
   * @param doorbell  of this thread
   * @param doorbellFd  the doorbell's eventfd
   * @param counters  of this thread
   * @param stopped  whether the engine is to stop; asked once a round
   * @param prePoll  decides about polling before a sleep; null: never
   * @param onLoad  gets the thread's processor time by time, while it works; null: nobody
   * @param isPrecise  sleep until the deadline of a stage, and not until the next whole millisecond
   * @throws Error when the epoll instance cannot be made
   */
  constructor(
    doorbell: Doorbell,
    doorbellFd: number,
    counters: Float64Array,
    stopped: () => boolean,
    prePoll: PrePoll | null,
    onLoad: ((share: number) => void) | null = null,
    isPrecise = false,
  ) {
    this.#isPrecise = isPrecise;
    this.#prePoll = prePoll;
    this.#onLoad = onLoad;
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

  /** Add a handler of events. @returns its index, for watch() */
  handler(handle: EventHandler): number {
    return this.#handlers.push(handle) - 1;
  }

  /**
   * Register a descriptor; closing it removes it (epoll(7)).
   * @param handler  index from handler()
   * @param events  EPOLL* bits
   * @param token  passed to the handler
   * @returns 0 or -errno
   */
  watch(handler: number, fd: number, events: number, token: number): number {
    return epollAdd(this.#ep, fd, events, token, handler);
  }

  /** Undo watch(). Not while events are being handled. @returns 0 or -errno */
  unwatch(fd: number): number {
    return epollDel(this.#ep, fd);
  }

  /**
   * Report one event of a descriptor, and no further one until this is called again (EPOLLONESHOT). If the
   * condition holds already, the event comes at once.
   * @param kind  EPOLL* bit
   * @returns 0 or -errno
   */
  watchOnce(handler: number, fd: number, token: number, kind: number = EPOLLIN): number {
    const events = kind | EPOLLONESHOT;
    const r = epollMod(this.#ep, fd, events, token, handler);
    return r === -Errno.ENOENT ? epollAdd(this.#ep, fd, events, token, handler) : r;
  }

  /**
   * Run until the engine stops.
   * @param stages  in the order in which a round polls them; a stage may be listed more than once
   */
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

  /** Write the thread's processor time to its counters. Not in every round: getrusage(2) takes too long. */
  #sampleCpu(now: number): void {
    const used = process.threadCpuUsage();
    this.#counters[Counter.cpuUserUs] = used.user;
    this.#counters[Counter.cpuSystemUs] = used.system;
    this.#nextCpuMs = now + (this.#onLoad === null ? CPU_SAMPLE_MS : LOAD_SAMPLE_MS);
    this.#worked = false;
    if (this.#onLoad === null || now === 0) return;
    const usedUs = used.user + used.system;
    if (this.#sampledMs > 0) this.#onLoad((usedUs - this.#sampledUs) / 1000 / (now - this.#sampledMs));
    this.#sampledMs = now;
    this.#sampledUs = usedUs;
  }

  #sleep(now: number): void {
    // Wake once to count the processor time of the last rounds, even if the thread has nothing to do then.
    let ms = this.#worked ? this.#nextCpuMs - now : MAX_WAIT_MS;
    for (let i = 0; i < this.#stages.length; i++) {
      const wanted = this.#stages[i]!.sleepMs(now);
      if (wanted < ms) ms = wanted;
    }
    this.#doorbell.prepareSleep();
    let input = this.#stopped();
    for (let i = 0; i < this.#stages.length && !input; i++) input = this.#stages[i]!.hasInput();
    if (!input && !(ms > 0 && this.#pollBeforeSleep())) {
      this.#counters[Counter.sleeps]!++;
      const asleepMs = this.#skippedPoll ? performance.now() : 0;
      // Round up: waking before the deadline would only mean another round without work.
      const events =
        ms <= 0 ? this.#wait(0) : this.#isPrecise ? this.#waitUntil(now + ms) : this.#wait(Math.ceil(ms));
      if (this.#skippedPoll && events > 0) this.#prePoll!.onSleep(performance.now() - asleepMs);
    }
    this.#doorbell.wake();
  }

  /** @returns whether an event came */
  #pollBeforeSleep(): boolean {
    this.#skippedPoll = false;
    const prePoll = this.#prePoll;
    if (prePoll === null) return false;
    const counters = this.#counters;
    const carried = this.#carried;
    carried.datagrams = 0;
    carried.streamBytes = 0;
    for (let i = 0; i < this.#carriers.length; i++) this.#carriers[i]!.addCarried!(carried);
    // With many small datagram flows most polls have an event, but a sleep is far cheaper: batches gather
    // during it.
    const isStream = carried.datagrams === this.#datagrams;
    this.#datagrams = carried.datagrams;
    const bytes = carried.streamBytes - this.#streamBytes;
    this.#streamBytes = carried.streamBytes;
    const eventsSeen = counters[Counter.epollEvents]!;
    const newEvents = eventsSeen - this.#eventsSeen;
    this.#eventsSeen = eventsSeen;
    if (!isStream) return false;
    if (!prePoll.shouldPoll(bytes, newEvents)) {
      this.#skippedPoll = true;
      return false;
    }
    counters[Counter.shortLooks]!++;
    const endMs = performance.now() + prePoll.longestMs;
    let events: number;
    do events = this.#wait(0);
    while (events === 0 && performance.now() < endMs);
    prePoll.onResult(events > 0);
    if (events > 0) counters[Counter.shortLooksPaid]!++;
    return events > 0;
  }

  /** @param endMs  monotonic ms @returns events handled */
  #waitUntil(endMs: number): number {
    const ms = endMs - performance.now();
    if (ms <= 0) return this.#wait(0);
    return this.#handle(epollWaitPrecise(this.#ep, this.#events, ms));
  }

  /** @returns events handled */
  #wait(timeoutMs: number): number {
    return this.#handle(epollWait(this.#ep, this.#events, timeoutMs));
  }

  #handle(n: number): number {
    this.#counters[Counter.epollWaits]!++;
    if (n <= 0) return 0; // 0: time-out; below 0: EINTR, and the loop comes back
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
