/**
 * Sockets and pipes that could not be had because the process, or the machine, has no descriptor left: counted each time, told now and
 * then.
 *
 * Connections that nobody has answered give way before that. The kernel gives the lowest free number, so a new descriptor's number says how
 * many are open in the whole process, and costs nothing to know:
 *
 *   0 .. 3/4 of the limit     for everybody
 *   3/4 .. 15/16              a connect() that is older than a second gives way for each new descriptor
 *   15/16 .. the limit        the oldest connect() gives way, whatever its age
 *   none left                 the oldest connect() gives way, and the call is tried again
 *
 * One at most gives way for each call: the work is bounded.
 */
import { Counter } from '../ring/counters.ts';
import { Errno } from '../sys/constants.ts';
import { openFilesLimit } from '../sys/open-files.ts';
import { Notice, type Notices } from './notices.ts';

const TEXT = {
  [Errno.EMFILE]: 'no descriptors left for new connections: raise the hard limit of open files (ulimit -Hn)',
  [Errno.ENFILE]: 'no descriptors left on this machine for new connections: raise fs.file-max',
} as const;

/** Whether the errno (above zero) of a socket that could not be had says that there may be one a moment later. */
export const isShortage = (errno: number): boolean =>
  errno === Errno.EMFILE || errno === Errno.ENFILE || errno === Errno.ENOBUFS || errno === Errno.ENOMEM;

/** Whether it says that there is no descriptor left, neither for anything else. @param errno  above zero */
export const isOutOfDescriptors = (errno: number): boolean =>
  errno === Errno.EMFILE || errno === Errno.ENFILE;

/** Shares of the limit. */
const MANY = 3 / 4;
const MOST = 15 / 16;
/** By then the guest has sent its SYN again. */
const PATIENCE_MS = 1000;
const GAVE_WAY = 'descriptors are short: connections that nobody answers are given up, the oldest first';

export class DescriptorShortage {
  readonly #counters: Float64Array;
  readonly #notices: Notices;
  readonly #many: number;
  readonly #most: number;
  #giveUpOldest: (minAgeMs: number) => boolean = () => false;

  /** @param limit  descriptors that the process may have open */
  constructor(counters: Float64Array, notices: Notices, limit = openFilesLimit()) {
    this.#counters = counters;
    this.#notices = notices;
    this.#many = limit * MANY;
    this.#most = limit * MOST;
  }

  /** @param giveUpOldest  closes the socket whose connect() has run longest, if that is `minAgeMs`; false: there is none */
  onGiveWay(giveUpOldest: (minAgeMs: number) => boolean): void {
    this.#giveUpOldest = giveUpOldest;
  }

  /** A new descriptor: beyond the common share an unanswered connection gives way for it. */
  opened(fd: number): void {
    if (fd >= this.#many) this.#giveWay(fd >= this.#most ? 0 : PATIENCE_MS);
  }

  /** Whether a descriptor was made free for a call that found none: try again, once. @param result  a descriptor or -errno */
  madeRoom(result: number): boolean {
    return (result === -Errno.EMFILE || result === -Errno.ENFILE) && this.#giveWay(0);
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
