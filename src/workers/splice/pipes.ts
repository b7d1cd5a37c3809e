/**
 * Pipes for splice(2); an empty pipe is kept for the next connection. The capacity of a pipe is a number of
 * buffers, not of bytes: 16 by default, each of which holds at most one fragment of the sending socket (32
 * KiB on loopback). A stream that moves many bytes gets a larger pipe. The kernel limits the pipe pages of a
 * user without privileges (fs.pipe-user-pages-soft); beyond the limit grow() fails, which costs only speed.
 */
import { F_SETPIPE_SZ, O_CLOEXEC, O_NONBLOCK } from '../../sys/constants.ts';
import { close, fcntl, pipe2 } from '../../sys/io.ts';

/** Most pipes that are kept; two descriptors each. */
const KEPT = 64;

export class Pipes {
  /** Read end and write end of each kept pipe. */
  readonly #kept = new Int32Array(KEPT * 2);
  #count = 0;

  /** Get an empty non-blocking pipe. @param ends  out: read end, write end @returns 0 or -errno */
  take(ends: Int32Array): number {
    if (this.#count === 0) return pipe2(ends, O_NONBLOCK | O_CLOEXEC);
    this.#count--;
    ends[0] = this.#kept[this.#count * 2]!;
    ends[1] = this.#kept[this.#count * 2 + 1]!;
    return 0;
  }

  /** Return an empty pipe of the default size. */
  keep(readFd: number, writeFd: number): void {
    if (this.#count === KEPT) return this.drop(readFd, writeFd);
    this.#kept[this.#count * 2] = readFd;
    this.#kept[this.#count * 2 + 1] = writeFd;
    this.#count++;
  }

  /** Close a pipe that holds bytes or was enlarged. */
  drop(readFd: number, writeFd: number): void {
    close(readFd);
    close(writeFd);
  }

  /** Enlarge a pipe (F_SETPIPE_SZ). @returns whether the kernel did */
  grow(writeFd: number, bytes: number): boolean {
    return fcntl(writeFd, F_SETPIPE_SZ, bytes) >= 0;
  }

  /** Close the kept pipes. */
  close(): void {
    while (this.#count > 0) {
      this.#count--;
      this.drop(this.#kept[this.#count * 2]!, this.#kept[this.#count * 2 + 1]!);
    }
  }
}
