/** Sockets and pipes that could not be had because the process, or the machine, has no descriptor left: counted each time, told now and then. */
import { Counter } from '../ring/counters.ts';
import { Errno } from '../sys/constants.ts';
import { Notice, type Notices } from './notices.ts';

const TEXT = {
  [Errno.EMFILE]: 'no descriptors left for new connections: raise the hard limit of open files (ulimit -Hn)',
  [Errno.ENFILE]: 'no descriptors left on this machine for new connections: raise fs.file-max',
} as const;

/** Whether the errno (above zero) of a socket that could not be had says that there may be one a moment later. */
export const isShortage = (errno: number): boolean =>
  errno === Errno.EMFILE || errno === Errno.ENFILE || errno === Errno.ENOBUFS || errno === Errno.ENOMEM;

export class DescriptorShortage {
  readonly #counters: Float64Array;
  readonly #notices: Notices;

  constructor(counters: Float64Array, notices: Notices) {
    this.#counters = counters;
    this.#notices = notices;
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
