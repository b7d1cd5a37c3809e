/**
 * Sockets and pipes that could not be had because the process, or the machine, has no descriptor left:
 * counted each time, told now and then.
 *
 * Connections that nobody has answered give way before that: a connect() that runs may hold a descriptor as
 * long as they are three quarters of the limit at the most. Beyond that the oldest gives way for each new
 * one, so that flows which stand, datagrams and names have the rest. Where none is left at all, the oldest
 * gives way if it has had time to be answered, and the call is tried again. One at most gives way for each
 * call: the work is bounded.
 */
import { Counter } from '../../ring/counters.ts';
import { Errno } from '../../sys/constants.ts';
import { openFilesLimit } from '../../sys/open-files.ts';
import { Notice, type Notices } from './notices.ts';

const TEXT = {
  [Errno.EMFILE]: 'no descriptors left for new connections: raise the hard limit of open files (ulimit -Hn)',
  [Errno.ENFILE]: 'no descriptors left on this machine for new connections: raise fs.file-max',
} as const;

/**
 * Whether the errno (above zero) of a socket that could not be had says that there may be one a moment later.
 */
export const isShortage = (errno: number): boolean =>
  errno === Errno.EMFILE || errno === Errno.ENFILE || errno === Errno.ENOBUFS || errno === Errno.ENOMEM;

/** Whether it says that there is no descriptor left, neither for anything else. @param errno  above zero */
export const isOutOfDescriptors = (errno: number): boolean =>
  errno === Errno.EMFILE || errno === Errno.ENFILE;

/** Share of the limit that connections without an answer may hold. */
const CONNECTING_SHARE = 3 / 4;
/** Longer than an answer takes from most places. */
const PATIENCE_MS = 300;
const GAVE_WAY = 'descriptors are short: connections that nobody answers are given up, the oldest first';

export class DescriptorShortage {
  readonly #counters: Float64Array;
  readonly #notices: Notices;
  readonly #mostConnecting: number;
  #giveUpOldest: (minAgeMs: number) => boolean = () => false;

  /** @param limit  descriptors that the process may have open */
  constructor(counters: Float64Array, notices: Notices, limit = openFilesLimit()) {
    this.#counters = counters;
    this.#notices = notices;
    this.#mostConnecting = limit * CONNECTING_SHARE;
  }

  /** @param giveUpOldest  closes the socket whose connect() has run longest, if that is `minAgeMs`; false: there is none */
  onGiveWay(giveUpOldest: (minAgeMs: number) => boolean): void {
    this.#giveUpOldest = giveUpOldest;
  }

  /** One more connect() runs. @param count  how many do now */
  connecting(count: number): void {
    if (count > this.#mostConnecting) this.#giveWay(0);
  }

  /**
   * Whether a descriptor was made free for a call that found none: try again, once.
   * @param result a descriptor or -errno
   */
  madeRoom(result: number): boolean {
    return (result === -Errno.EMFILE || result === -Errno.ENFILE) && this.#giveWay(PATIENCE_MS);
  }

  #giveWay(minAgeMs: number): boolean {
    if (!this.#giveUpOldest(minAgeMs)) return false;
    this.#counters[Counter.connectsGaveWay]!++;
    this.#notices.tell(Notice.connectsGaveWay, 'warning', GAVE_WAY);
    return true;
  }

  /** Whether that is what a call's result says. @param result  a descriptor or -errno */
  is(result: number): boolean {
    const errno = -result;
    if (errno !== Errno.EMFILE && errno !== Errno.ENFILE) return false;
    this.#counters[Counter.emfile]!++;
    this.#notices.tell(Notice.descriptorsShort, 'warning', TEXT[errno]);
    return true;
  }
}
