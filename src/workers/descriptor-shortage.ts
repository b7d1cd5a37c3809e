/** Sockets and pipes that could not be had because the process, or the machine, has no descriptor left: counted each time, told now and then. */
import { Counter } from '../ring/counters.ts';
import { Errno } from '../sys/constants.ts';

const TELL_AGAIN_MS = 10_000;
const TEXT = {
  [Errno.EMFILE]: 'no descriptors left for new connections: raise the hard limit of open files (ulimit -Hn)',
  [Errno.ENFILE]: 'no descriptors left on this machine for new connections: raise fs.file-max',
} as const;

/** Whether the errno (above zero) of a socket that could not be had says that there may be one a moment later. */
export const isShortage = (errno: number): boolean =>
  errno === Errno.EMFILE || errno === Errno.ENFILE || errno === Errno.ENOBUFS || errno === Errno.ENOMEM;

export class DescriptorShortage {
  readonly #counters: Float64Array;
  readonly #log: (level: 'warning', text: string) => void;
  #toldAt = Number.NEGATIVE_INFINITY;

  constructor(counters: Float64Array, log: (level: 'warning', text: string) => void) {
    this.#counters = counters;
    this.#log = log;
  }

  /** Whether that is what a call's result says. @param result  a descriptor or -errno */
  is(result: number): boolean {
    const errno = -result;
    if (errno !== Errno.EMFILE && errno !== Errno.ENFILE) return false;
    this.#counters[Counter.emfile]!++;
    const now = performance.now();
    if (now - this.#toldAt >= TELL_AGAIN_MS) {
      this.#toldAt = now;
      this.#log('warning', TEXT[errno]);
    }
    return true;
  }
}
