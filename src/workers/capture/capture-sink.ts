// bundle: rare
/**
 * Where captured records go: files, one after the other if they are rotated; a pipe, FIFO or socket that may
 * not keep up; memory that is written to a file on request.
 */
import type { TimeWords } from '../../proto/pcapng.ts';
import { Errno } from '../../sys/constants.ts';
import { close, cutEnd, truncate, write } from '../../sys/io.ts';
import { errnoText } from '../../sys/libc.ts';
import { addressOf, copyBytes } from '../../sys/memory.ts';

/** What is written around the records of a file. */
export interface SinkFile {
  now(): TimeWords;
  /** So many records were written, or lost. */
  wrote(records: number): void;
  lost(records: number): void;
  header(): Uint8Array;
  totals(): SinkTotals;
  /** Counters since `before`; empty in a format without. */
  statistics(start: TimeWords, before: SinkTotals, isLast: boolean): Uint8Array;
}

export interface SinkTotals {
  readonly received: number;
  readonly drops: number;
  readonly accepted: number;
  readonly lost: number;
}

export interface Taken {
  /** Records that the sink has done with. */
  readonly records: number;
  /** Bytes of the next record that it has taken. */
  readonly bytes: number;
}

export interface CaptureSink {
  /** As in messages: the option and its value. */
  readonly name: string;
  /** CaptureTask.waitMs. */
  readonly waitMs: number;
  /** Nothing can be written any more. */
  readonly hasFailed: boolean;
  /** The first thing that went wrong, as a line for the log. */
  readonly failure: string | undefined;
  /**
   * Take records.
   * @param address  native address of the stage, which has them
   * @param starts  offsets of each in the stage, and the end of the last one
   * @param from,fromBytes  the first one to take, and how many bytes of it were taken before
   */
  take(file: SinkFile, address: number, starts: readonly number[], from: number, fromBytes: number): Taken;
  /** Write out what is in memory. @returns one line about it */
  dump?(file: SinkFile): string;
  /** Write the end, and close. */
  end(file: SinkFile): void;
}

/** A regular file takes whatever comes: packet threads wait for the disk, but not long. */
const FILE_WAIT_MS = 50;

/** Write bytes at once. @returns bytes written, or -errno */
function put(fd: number, bytes: Uint8Array): number {
  return bytes.length === 0 ? 0 : write(fd, addressOf(bytes), bytes.length);
}

export interface Rotation {
  /** 0: no limit. */
  readonly bytes: number;
  readonly seconds: number;
}

/** One of the files of a capture. */
export interface OpenFile {
  readonly fd: number;
  /** As in messages. */
  readonly name: string;
}

/**
 * Regular files, open for appending. A record is written as a whole or not at all; if the disk is full, the
 * part that was written is cut off.
 */
export class FileSink implements CaptureSink {
  readonly waitMs = FILE_WAIT_MS;
  readonly hasFailed = false;
  failure: string | undefined;
  readonly name: string;
  readonly #files: readonly OpenFile[];
  readonly #rotation: Rotation;
  #current = 0;
  #bytes = 0;
  #beganMs = 0;
  #hasHeader = false;
  #headerBytes = 0;
  #start: TimeWords = [0, 0];
  #before: SinkTotals = { received: 0, drops: 0, accepted: 0, lost: 0 };

  /** @param files  empty; at least one */
  constructor(name: string, files: readonly OpenFile[], rotation: Rotation = { bytes: 0, seconds: 0 }) {
    this.name = name;
    this.#files = files;
    this.#rotation = rotation;
  }

  /**
   * Write the header of the first file, and of the others, so that each is a capture from the start.
   * @throws Error with a text of one line
   */
  begin(file: SinkFile): void {
    for (this.#current = this.#files.length - 1; ; this.#current--) {
      const r = this.#begin(file);
      if (r < 0) throw new Error(`${this.name}: ${this.#nameIfMany()}cannot be written: ${errnoText(-r)}`);
      if (this.#current === 0) return;
    }
  }

  #nameIfMany(): string {
    return this.#files.length > 1 ? `${this.#files[this.#current]!.name}: ` : '';
  }

  get #fd(): number {
    return this.#files[this.#current]!.fd;
  }

  /** @returns 0 or -errno */
  #begin(file: SinkFile): number {
    const header = file.header();
    const r = put(this.#fd, header);
    if (r >= 0 && r < header.length) cutEnd(this.#fd, r);
    this.#hasHeader = r === header.length;
    this.#headerBytes = header.length;
    this.#bytes = header.length;
    this.#beganMs = performance.now();
    this.#start = file.now();
    this.#before = file.totals();
    return r < 0 ? r : this.#hasHeader ? 0 : -Errno.ENOSPC;
  }

  take(file: SinkFile, address: number, starts: readonly number[], from: number): Taken {
    const end = starts.length - 1;
    for (let at = from; at < end; ) {
      if (this.#isFull(starts[at + 1]! - starts[at]!)) this.#rotate(file);
      if (!this.#hasHeader) {
        const r = this.#begin(file);
        if (r < 0) {
          this.#fail(-r);
          file.lost(end - at);
          return { records: end - from, bytes: 0 };
        }
      }
      // As many as fit.
      let to = at + 1;
      const { bytes: most } = this.#rotation;
      if (most === 0) to = end;
      else while (to < end && this.#bytes + starts[to + 1]! - starts[at]! <= most) to++;
      const written = write(this.#fd, address + starts[at]!, starts[to]! - starts[at]!);
      const whole = written < 0 ? at : this.#keepWhole(starts, at, to, written);
      this.#bytes += starts[whole]! - starts[at]!;
      file.wrote(whole - at);
      at = whole;
      if (at === to) continue;
      // The next one is lost; one that is shorter may have room.
      this.#fail(written < 0 ? -written : Errno.ENOSPC);
      file.lost(1);
      at++;
    }
    return { records: end - from, bytes: 0 };
  }

  /** Cut off the part of a record. @returns the record behind the last whole one */
  #keepWhole(starts: readonly number[], from: number, to: number, written: number): number {
    let whole = to;
    while (whole > from && starts[whole]! - starts[from]! > written) whole--;
    const part = written - (starts[whole]! - starts[from]!);
    if (part > 0) cutEnd(this.#fd, part);
    return whole;
  }

  #fail(errno: number): void {
    this.failure ??= `${this.name}: ${errnoText(errno)}: frames are missing from it`;
  }

  /** Whether a record of so many bytes goes into the next file. */
  #isFull(bytes: number): boolean {
    const { bytes: most, seconds } = this.#rotation;
    if (this.#bytes <= this.#headerBytes) {
      // The time begins with the first record: an idle engine fills no files.
      this.#beganMs = performance.now();
      return false;
    }
    return (
      (most > 0 && this.#bytes + bytes > most) ||
      (seconds > 0 && performance.now() - this.#beganMs >= 1000 * seconds)
    );
  }

  /** End the file, and go on with the next one. */
  #rotate(file: SinkFile): void {
    this.finish(file, false);
    this.next(file);
  }

  /** Go on with the next file, whose contents are lost. */
  next(file: SinkFile): void {
    this.#current = (this.#current + 1) % this.#files.length;
    truncate(this.#fd, 0);
    this.#begin(file);
  }

  /** Write the counters behind the records. */
  finish(file: SinkFile, isLast: boolean): void {
    const block = file.statistics(this.#start, this.#before, isLast);
    const r = put(this.#fd, block);
    if (r > 0 && r < block.length) cutEnd(this.#fd, r);
  }

  end(file: SinkFile): void {
    this.finish(file, true);
    this.close();
  }

  close(): void {
    for (const { fd } of this.#files) close(fd);
  }

  /** Name of the file that is written now. */
  get currentName(): string {
    return this.#files[this.#current]!.name;
  }
}

/**
 * A pipe, FIFO or socket, which does not block. What its reader does not take in time is lost in the rings.
 */
export class StreamSink implements CaptureSink {
  readonly waitMs = 0;
  hasFailed = false;
  failure: string | undefined;
  readonly name: string;
  readonly #fd: number;
  #header: Uint8Array | undefined;
  #headerAt = 0;
  #start: TimeWords = [0, 0];
  #before: SinkTotals = { received: 0, drops: 0, accepted: 0, lost: 0 };
  /** The reader has got a part of a record. */
  #isCut = false;

  constructor(name: string, fd: number) {
    this.name = name;
    this.#fd = fd;
  }

  /** @throws Error with a text of one line */
  begin(file: SinkFile): void {
    this.#header = file.header();
    this.#start = file.now();
    this.#before = file.totals();
    const errno = this.#putHeader();
    if (errno !== 0) throw new Error(`${this.name}: cannot be written: ${errnoText(errno)}`);
  }

  /** @returns 0, or an errno; a header that does not fit waits */
  #putHeader(): number {
    const header = this.#header!;
    const r = put(this.#fd, header.slice(this.#headerAt));
    if (r < 0) return r === -Errno.EAGAIN ? 0 : -r;
    this.#headerAt += r;
    return 0;
  }

  take(file: SinkFile, address: number, starts: readonly number[], from: number, fromBytes: number): Taken {
    if (this.#headerAt < this.#header!.length) {
      const errno = this.#putHeader();
      if (errno !== 0) return this.#fail(file, errno, starts.length - 1 - from);
      if (this.#headerAt < this.#header!.length) return { records: 0, bytes: 0 };
    }
    const begin = starts[from]! + fromBytes;
    let at = begin;
    const end = starts[starts.length - 1]!;
    while (at < end) {
      const r = write(this.#fd, address + at, end - at);
      if (r === -Errno.EINTR) continue;
      if (r === -Errno.EAGAIN || r === 0) break;
      if (r < 0) return this.#fail(file, -r, starts.length - 1 - from);
      at += r;
    }
    let next = from;
    while (next < starts.length - 1 && starts[next + 1]! <= at) next++;
    const bytes = next < starts.length - 1 ? at - starts[next]! : 0;
    this.#isCut = bytes > 0;
    file.wrote(next - from);
    return { records: next - from, bytes };
  }

  #fail(file: SinkFile, errno: number, records: number): Taken {
    this.hasFailed = true;
    this.failure =
      errno === Errno.EPIPE
        ? `${this.name}: its reader has gone: the capture ends`
        : `${this.name}: ${errnoText(errno)}: the capture ends`;
    file.lost(records);
    return { records, bytes: 0 };
  }

  end(file: SinkFile): void {
    if (!this.hasFailed && !this.#isCut) put(this.#fd, file.statistics(this.#start, this.#before, true));
    close(this.#fd);
  }
}

/** Where the records in `bytes` begin, and where the last one ends. */
interface Part {
  readonly bytes: Uint8Array;
  /** Native address of `bytes`. */
  readonly address: number;
  readonly starts: number[];
  used: number;
}

/** Parts of the memory of a RingSink: the oldest is emptied for new records. */
const RING_PARTS = 16;

/**
 * The last records, in memory. dump() writes them to the current one of its files and goes on with the next
 * file.
 */
export class RingSink implements CaptureSink {
  readonly waitMs = FILE_WAIT_MS;
  readonly hasFailed = false;
  readonly #files: FileSink;
  readonly #partBytes: number;
  /** Oldest first. */
  readonly #parts: Part[] = [];
  #dumps = 0;

  /** @param bytes  memory to use */
  constructor(files: FileSink, bytes: number) {
    this.#files = files;
    this.#partBytes = Math.ceil(bytes / RING_PARTS);
  }

  get name(): string {
    return this.#files.name;
  }

  get failure(): string | undefined {
    return this.#files.failure;
  }

  take(_file: SinkFile, address: number, starts: readonly number[], from: number): Taken {
    const end = starts.length - 1;
    for (let at = from; at < end; at++) {
      const bytes = starts[at + 1]! - starts[at]!;
      let part = this.#parts.at(-1);
      if (part === undefined || part.used + bytes > part.bytes.length) part = this.#nextPart(bytes);
      copyBytes(part.address + part.used, address + starts[at]!, bytes);
      part.starts.push(part.used);
      part.used += bytes;
    }
    return { records: end - from, bytes: 0 };
  }

  #nextPart(atLeast: number): Part {
    const oldest = this.#parts.length >= RING_PARTS ? this.#parts.shift() : undefined;
    const isReused = oldest !== undefined && oldest.bytes.length >= atLeast;
    const bytes = isReused ? oldest.bytes : new Uint8Array(Math.max(atLeast, this.#partBytes));
    const part: Part = { bytes, address: addressOf(bytes), starts: [], used: 0 };
    this.#parts.push(part);
    return part;
  }

  dump(file: SinkFile): string {
    const files = this.#files;
    if (this.#dumps++ > 0) files.next(file);
    let frames = 0;
    let lost = 0;
    // Meanwhile packet threads lose frames, too: those are not among the ones in memory.
    const counting: SinkFile = {
      now: () => file.now(),
      wrote: (records) => {
        frames += records;
        file.wrote(records);
      },
      lost: (records) => {
        lost += records;
        file.lost(records);
      },
      header: () => file.header(),
      totals: () => file.totals(),
      statistics: (...of) => file.statistics(...of),
    };
    for (const { address, starts, used } of this.#parts)
      if (starts.length > 0) files.take(counting, address, [...starts, used], 0);
    files.finish(file, false);
    return `${files.currentName}: ${frames} frames written${lost > 0 ? `, ${lost} lost: ${files.failure}` : ''}`;
  }

  end(file: SinkFile): void {
    if (this.#dumps === 0) this.#files.finish(file, true);
    this.#files.close();
  }
}
