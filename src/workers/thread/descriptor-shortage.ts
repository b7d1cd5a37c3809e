/**
 * Sockets and pipes that could not be opened because the process, or the machine, has no descriptor left.
 * Each failure is counted; the log gets a line now and then.
 *
 * Unanswered connections are closed before descriptors run out. Sockets whose connect() is in progress may
 * hold three quarters of the limit; beyond that each new one closes the oldest of them, so that the rest of
 * the descriptors is left to established flows, datagrams and DNS. When no descriptor is left at all, the
 * oldest is closed if it has waited for PATIENCE_MS, and the failed call is tried again. Each call closes one
 * socket at most, so its work is bounded.
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
 * Whether a call that makes a socket may succeed a moment later.
 * @param errno  of the call that failed, above zero
 */
export const isShortage = (errno: number): boolean =>
  errno === Errno.EMFILE || errno === Errno.ENFILE || errno === Errno.ENOBUFS || errno === Errno.ENOMEM;

/** Whether no descriptor is left, for any purpose. @param errno  of the call that failed, above zero */
export const isOutOfDescriptors = (errno: number): boolean =>
  errno === Errno.EMFILE || errno === Errno.ENFILE;

/** Share of the limit that sockets whose connect() is in progress may hold. */
const CONNECTING_SHARE = 3 / 4;
/** Most peers answer sooner. */
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

  /**
   * @param giveUpOldest  closes the socket whose connect() has run longest, if it has run for `minAgeMs`;
   *   returns false when there is none
   */
  onGiveWay(giveUpOldest: (minAgeMs: number) => boolean): void {
    this.#giveUpOldest = giveUpOldest;
  }

  /** One more connect() is in progress. @param count  how many are now */
  connecting(count: number): void {
    if (count > this.#mostConnecting) this.#giveWay(0);
  }

  /**
   * Close the oldest unanswered connection if a call failed because no descriptor was left.
   * @param result  of the call: a descriptor or -errno
   * @returns whether a descriptor was freed: try the call again, once
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

  /**
   * Count and log a call that failed because no descriptor was left.
   * @param result  of the call: a descriptor or -errno
   * @returns whether it failed for that reason
   */
  reportShortage(result: number): boolean {
    const errno = -result;
    if (errno !== Errno.EMFILE && errno !== Errno.ENFILE) return false;
    this.#counters[Counter.emfile]!++;
    this.#notices.tell(Notice.descriptorsShort, 'warning', TEXT[errno]);
    return true;
  }
}
