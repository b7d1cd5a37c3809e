// bundle: boot
/**
 * Standard output and error, which are the caller's: other programs write there too, at the same open file.
 * So
 *
 *   - their flags stay as they are: Node's streams, which would set O_NONBLOCK, are not opened (ownStreams);
 *   - no line of ours waits for its reader once the engine runs (holdOutputs): it is dropped, and the next that goes says how many were.
 *
 * Pipes and terminals are opened anew by /proc/self/fd/N, which gives an open file of our own that may be
 * non-blocking. What cannot be opened so (a socket, a terminal of another user) goes by writeAtOnce
 * (sys/output.ts). Files never wait. Loaded before the packet thread is started: imports nothing that takes
 * time.
 */
import { closeSync, constants, fstatSync, openSync, writeSync } from 'node:fs';
import type { Writable } from 'node:stream';

/** PIPE_BUF: written whole or not at all. */
const PIECE_BYTES = 4096;

type AtOnce = (fd: number, bytes: Uint8Array) => number;

class Output {
  readonly #standard: number;
  /** Ours, non-blocking; -1: the standard one. */
  #own = -1;
  #atOnce: AtOnce | undefined;
  #dropped = 0;
  /** The last text went in part: its line has no end. */
  #cut = false;

  constructor(standard: number) {
    this.#standard = standard;
  }

  /** From now on nothing waits. @param atOnce  for what cannot be opened anew */
  hold(atOnce: AtOnce): void {
    this.release();
    try {
      const stat = fstatSync(this.#standard);
      if (stat.isFile()) return;
      if (
        stat.isFIFO() ||
        (stat.isCharacterDevice() && process.getBuiltinModule('node:tty').isatty(this.#standard))
      ) {
        const flags = constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY;
        this.#own = openSync(`/proc/self/fd/${this.#standard}`, flags); // close-on-exec
        return;
      }
      if (stat.isCharacterDevice()) return; // /dev/null
    } catch {
      // EBADF: it is closed. EACCES: a terminal of another user. ENXIO: nobody reads.
    }
    this.#atOnce = atOnce;
  }

  /** Somebody may wait for the last of its writers to close it. */
  release(): void {
    if (this.#own >= 0) closeSync(this.#own);
    this.#own = -1;
    this.#atOnce = undefined;
  }

  /** @returns whether all of it was written */
  put(text: string): boolean {
    const said = this.#dropped === 0 ? '' : `${this.#dropped} lines were dropped here: nobody read them\n`;
    const bytes = Buffer.from(`${this.#cut ? '\n' : ''}${said}${text}`);
    let at = 0;
    while (at < bytes.length) {
      const n = this.#write(bytes.subarray(at, at + PIECE_BYTES));
      if (n <= 0) break;
      at += n;
    }
    if (at > 0) {
      this.#cut = at < bytes.length && bytes[at - 1] !== 0x0a;
      this.#dropped = 0;
    }
    if (at < bytes.length) this.#dropped++;
    return at === bytes.length;
  }

  /** @returns bytes, or below 1: no more goes */
  #write(piece: Uint8Array): number {
    if (this.#atOnce !== undefined) return this.#atOnce(this.#standard, piece);
    try {
      return writeSync(this.#own < 0 ? this.#standard : this.#own, piece);
    } catch {
      return -1; // EAGAIN, or EPIPE and EBADF: there is nobody to tell
    }
  }
}

const outputs = { 1: new Output(1), 2: new Output(2) } as const;

/**
 * Write a text to standard output or error; what cannot be written is dropped and counted.
 * @returns whether all of it was written
 */
export const put = (fd: 1 | 2, text: string): boolean => outputs[fd].put(text);

/** From now on no text waits for its reader. While /proc is there. */
export async function holdOutputs(): Promise<void> {
  const { writeAtOnce } = await import('../../sys/output.ts');
  for (const output of Object.values(outputs)) output.hold(writeAtOnce);
}

/** Standard output and error are about to be something else. */
export function releaseOutputs(): void {
  for (const output of Object.values(outputs)) output.release();
}

/**
 * Have process.stdout and process.stderr write by put(). Node makes streams of them when a worker starts,
 * whose streams it joins to them, and a stream of a pipe or socket sets O_NONBLOCK on the caller's open file.
 * Call it before the first worker.
 */
export function ownStreams(): void {
  for (const [name, fd] of [
    ['stdout', 1],
    ['stderr', 2],
  ] as const) {
    let stream: Writable | undefined;
    const get = (): Writable => {
      stream ??= Object.assign(
        new (process.getBuiltinModule('node:stream').Writable)({
          write: (chunk, _encoding, done) => {
            put(fd, String(chunk));
            done();
          },
        }),
        { fd },
      );
      return stream;
    };
    Object.defineProperty(process, name, { configurable: true, enumerable: true, get });
  }
}
