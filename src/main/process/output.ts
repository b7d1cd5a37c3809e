// bundle: boot
/**
 * Standard output and error. The caller's other programs write to the same open files. So
 *
 *   - their flags stay unchanged: Node's streams, which would set O_NONBLOCK, are not opened (ownStreams);
 *   - once the engine runs (holdOutputs), no line of ours waits for its reader: it is dropped, and the next
 *     line that can be written is preceded by the number of dropped ones.
 *
 * Pipes and terminals are opened again through /proc/self/fd/N. That gives an open file of our own, which may
 * be non-blocking. What cannot be opened this way (a socket, a terminal of another user) is written by
 * writeAtOnce (sys/output.ts). Files never block. Loaded before the packet thread is started, so it imports
 * nothing that takes time.
 */
import { closeSync, constants, fstatSync, openSync, writeSync } from 'node:fs';
import { replaceStreams } from '#runtime/streams';

/** PIPE_BUF: a write of at most this size to a pipe is atomic. */
const PIECE_BYTES = 4096;

type AtOnce = (fd: number, bytes: Uint8Array) => number;

class Output {
  readonly #standard: number;
  /** Our own non-blocking open file; -1: use the standard one. */
  #own = -1;
  #atOnce: AtOnce | undefined;
  #dropped = 0;
  /** The last text was written in part, so its line has no end. */
  #cut = false;

  constructor(standard: number) {
    this.#standard = standard;
  }

  /**
   * From now on no write blocks.
   * @param atOnce  writes without blocking to what cannot be opened again
   */
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

  /** Close our own open file: a reader may be waiting for the last writer to close. */
  release(): void {
    if (this.#own >= 0) closeSync(this.#own);
    this.#own = -1;
    this.#atOnce = undefined;
  }

  /** @returns whether all of it was written */
  put(text: string): boolean {
    const droppedNote =
      this.#dropped === 0 ? '' : `${this.#dropped} lines were dropped here: nobody read them\n`;
    const bytes = Buffer.from(`${this.#cut ? '\n' : ''}${droppedNote}${text}`);
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

  /** @returns bytes written; below 1: no more can be written now */
  #write(piece: Uint8Array): number {
    if (this.#atOnce !== undefined) return this.#atOnce(this.#standard, piece);
    try {
      return writeSync(this.#own < 0 ? this.#standard : this.#own, piece);
    } catch {
      return -1; // EAGAIN; EPIPE or EBADF: there is no reader
    }
  }
}

const outputs = { 1: new Output(1), 2: new Output(2) } as const;

/**
 * Write a text to standard output or error; what cannot be written is dropped and counted.
 * @returns whether all of it was written
 */
export const put = (fd: 1 | 2, text: string): boolean => outputs[fd].put(text);

const RETRY_MS = 10;

/**
 * Write the result of a command to standard output, all of it.
 * @throws Error where that fails, with the reason for the user
 */
export function print(text: string): void {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; ) {
    try {
      at += writeSync(1, bytes, at);
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      if (code !== 'EAGAIN')
        throw new Error(`standard output: ${message.replace(/^[A-Z]+: |, write$/g, '')}`, { cause: error });
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_MS); // the caller's pipe does not block
    }
  }
}

/** From now on no text waits for its reader. Needs /proc. */
export async function holdOutputs(): Promise<void> {
  const { writeAtOnce } = await import('../../sys/output.ts');
  for (const output of Object.values(outputs)) output.hold(writeAtOnce);
}

/** Call it before descriptors 1 and 2 are replaced. */
export function releaseOutputs(): void {
  for (const output of Object.values(outputs)) output.release();
}

/**
 * Call it before the first thread starts: nothing else than put() writes to descriptors 1 and 2
 * (runtime/node/streams.ts).
 */
export const ownStreams = (): void => replaceStreams(put);
