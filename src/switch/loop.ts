/**
 * The event loop of a supervisor: one epoll set and timers, without the runtime's event loop. So an answer to a
 * waiting program takes two system calls less, and nothing wakes an idle supervisor. Promises do not advance while it
 * runs.
 */
import { Errno } from '../sys/constants.ts';
import { EpollEvents, epollAdd, epollCreate, epollDel, epollWait } from '../sys/epoll.ts';
import { checked, SysError } from '../sys/error.ts';

/** @param events  EPOLL* bits */
type Ready = (events: number) => void;

interface Timer {
  readonly at: number;
  due: (() => void) | undefined;
}

const EVENTS_A_WAIT = 64;

export class Loop {
  readonly #epoll = checked(epollCreate(), 'epoll_create1', '');
  readonly #events = new EpollEvents(EVENTS_A_WAIT);
  readonly #watched = new Map<number, { readonly ready: Ready; readonly turn: number }>();
  /** The first is due first. */
  readonly #timers: Timer[] = [];
  #turn = 0;
  #stopped = false;

  /**
   * Watch a descriptor, level-triggered.
   * @param events  EPOLL* bits
   * @returns 0 or -errno
   */
  watch(fd: number, events: number, ready: Ready): number {
    const turn = ++this.#turn;
    const r = epollAdd(this.#epoll, fd, events, fd, turn >>> 0);
    if (r === 0) this.#watched.set(fd, { ready, turn: turn >>> 0 });
    return r;
  }

  /** Stop watching, before the descriptor is closed. */
  unwatch(fd: number): void {
    if (this.#watched.delete(fd)) epollDel(this.#epoll, fd);
  }

  /**
   * Call `due` once.
   * @param at  performance.now() at that time
   * @returns cancels it
   */
  at(at: number, due: () => void): () => void {
    const timer: Timer = { at, due };
    this.#timers.splice(this.#after(at), 0, timer);
    return () => {
      if (timer.due === undefined) return;
      timer.due = undefined;
      // Not left until its time: programs may set time limits of days, for each connection.
      for (let i = this.#after(at) - 1; i >= 0 && this.#timers[i]!.at === at; i--)
        if (this.#timers[i] === timer) this.#timers.splice(i, 1);
    };
  }

  /** Timers that are running: for tests. */
  get timers(): number {
    return this.#timers.length;
  }

  /** How many timers are due at `at`. */
  #after(at: number): number {
    let low = 0;
    for (let high = this.#timers.length; low < high; ) {
      const middle = (low + high) >> 1;
      if (this.#timers[middle]!.at <= at) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Serve until stop(). @throws SysError */
  run(): void {
    while (!this.#stopped) this.#once();
  }

  /** Make run() return. */
  stop(): void {
    this.#stopped = true;
  }

  #once(): void {
    const next = this.#timers[0];
    const wait = next === undefined ? -1 : Math.max(0, Math.ceil(next.at - performance.now()));
    const count = epollWait(this.#epoll, this.#events, Math.min(wait, 0x7fff_ffff));
    if (count < 0 && count !== -Errno.EINTR) throw new SysError('epoll_wait', '', -count);
    for (let i = 0; i < count; i++) {
      const watched = this.#watched.get(this.#events.dataLo(i));
      // An earlier event of this turn may have closed the descriptor, and its number may be another's now.
      if (watched !== undefined && watched.turn === this.#events.dataHi(i))
        watched.ready(this.#events.eventsOf(i));
    }
    const now = performance.now();
    while (this.#timers.length > 0 && this.#timers[0]!.at <= now) this.#timers.shift()!.due?.();
  }
}
