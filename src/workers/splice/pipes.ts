/**
 * Pipes for splice(2), kept for the next connection when they are empty. A pipe holds so many pieces, not
 * bytes: sixteen by default, each up to a fragment of the sending socket's (32 KiB on loopback). A stream
 * that moves much gets a larger one; an ordinary user has a budget of them (fs.pipe-user-pages-soft), and
 * beyond it the kernel says no, which costs only speed.
 */
import { F_SETPIPE_SZ, O_CLOEXEC, O_NONBLOCK } from '../../sys/constants.ts';
import { close, fcntl, pipe2 } from '../../sys/io.ts';

/** Pipes kept; two descriptors each. */
const KEPT = 64;

export class Pipes {
  /** Read and write ends, in turn. */
  readonly #kept = new Int32Array(KEPT * 2);
  #count = 0;

  /** @param ends  out: read end, write end @returns 0 or -errno */
  take(ends: Int32Array): number {
    if (this.#count === 0) return pipe2(ends, O_NONBLOCK | O_CLOEXEC);
    this.#count--;
    ends[0] = this.#kept[this.#count * 2]!;
    ends[1] = this.#kept[this.#count * 2 + 1]!;
    return 0;
  }

  /** Give back an empty pipe of the default size. */
  keep(readFd: number, writeFd: number): void {
    if (this.#count === KEPT) return this.drop(readFd, writeFd);
    this.#kept[this.#count * 2] = readFd;
    this.#kept[this.#count * 2 + 1] = writeFd;
    this.#count++;
  }

  drop(readFd: number, writeFd: number): void {
    close(readFd);
    close(writeFd);
  }

  /** @returns whether it is larger now */
  grow(writeFd: number, bytes: number): boolean {
    return fcntl(writeFd, F_SETPIPE_SZ, bytes) >= 0;
  }

  close(): void {
    while (this.#count > 0) {
      this.#count--;
      this.drop(this.#kept[this.#count * 2]!, this.#kept[this.#count * 2 + 1]!);
    }
  }
}
