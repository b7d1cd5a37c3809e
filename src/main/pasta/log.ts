/**
 * The log of `pasta`. Until the network is ready, messages go to standard error. Then, in the background,
 * they go to the system log, or to the file of --log-file only. While COMMAND runs, standard error is
 * COMMAND's: only --debug still writes there.
 *
 *   --log-file   "pasta VERSION: PROGRAM (PID)", then a line per message, "S.ffff: LEVEL text"; at --log-size
 *                the oldest third is removed
 *   --log-format logfmt or json  lines of that format (host/log-format.ts) instead, on standard error and in the file
 *   syslog       RFC 3164 over /dev/log, facility daemon
 */
import { closeSync, fstatSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { UsageError } from '../cli/values.ts';
import type { Log, LogLevel } from '../host/log.ts';
import type { LogWriter } from '../host/log-format.ts';
import { put } from '../process/output.ts';
import type { Verbosity } from './conf.ts';
import { Message } from './messages.ts';

export type Level = LogLevel;

const RANK: Readonly<Record<Level, number>> = { error: 0, warning: 1, info: 2, debug: 3 };
const FILE_PREFIX: Readonly<Record<Level, string>> = {
  error: 'ERROR:   ',
  warning: 'WARNING: ',
  info: 'info:    ',
  debug: '         ',
};
/** RFC 3164 section 4.1.1. */
const SYSLOG_SEVERITY: Readonly<Record<Level, number>> = { error: 3, warning: 4, info: 6, debug: 7 };
const LOG_DAEMON = 3;
/** Share of a full log file that is removed from its start. */
const CUT_SHARE = 0.3;

export interface FileLogOptions {
  readonly path: string;
  readonly maxBytes: number;
  readonly header: string;
  /** Makes a line of --log-format; absent: text. */
  readonly line?: LogWriter['line'];
}

/** The file of --log-file, which is kept within `maxBytes`. */
export class LogFile {
  readonly #fd: number;
  readonly #maxBytes: number;
  readonly #header: string;
  readonly #line: NonNullable<LogWriter['line']>;
  #bytes: number;

  /**
   * Create or truncate the file and write the header.
   * @param strerror  the errno text of an error of the runtime
   * @throws UsageError where that fails
   */
  constructor({ path, maxBytes, header, line }: FileLogOptions, strerror: (error: unknown) => string) {
    try {
      this.#fd = openSync(path, 'w+', 0o600);
    } catch (error) {
      throw new UsageError(Message.logFile(path, strerror(error)));
    }
    this.#maxBytes = maxBytes;
    this.#header = header;
    this.#line = line ?? ((_, text) => text);
    try {
      this.#bytes = writeSync(this.#fd, `${this.#line('info', header)}\n`);
    } catch (error) {
      throw new UsageError(Message.logFull(path, strerror(error)));
    }
  }

  /** @param now  seconds since the start, as text, for the note that the file was cut */
  write(line: string, now: string): void {
    const bytes = Buffer.from(`${line}\n`);
    if (this.#bytes + bytes.length > this.#maxBytes) this.#cut(now);
    this.#bytes += writeSync(this.#fd, bytes, 0, bytes.length, this.#bytes);
  }

  /**
   * Remove the oldest lines. The header stays and says so.
   * @param now seconds since the start, as text
   */
  #cut(now: string): void {
    const old = Buffer.alloc(fstatSync(this.#fd).size);
    const readBytes = readSync(this.#fd, old, 0, old.length, 0);
    const from = old.indexOf('\n', Math.ceil(readBytes * CUT_SHARE));
    const rest = from < 0 ? Buffer.alloc(0) : old.subarray(from + 1, readBytes);
    const note = `${this.#header} - log truncated at ${now}`;
    const kept = Buffer.concat([Buffer.from(`${this.#line('info', note)}\n`), rest]);
    this.#bytes = writeSync(this.#fd, kept, 0, kept.length, 0);
    ftruncateSync(this.#fd, this.#bytes);
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** The log of one `pasta` process; it starts with messages of level info and more on standard error. */
export class PastaLog {
  #maxRank: number;
  #hasTimestamps = false;
  #toStderr = true;
  #file: LogFile | undefined;
  #syslog: ((message: Buffer) => void) | undefined;
  /** Of --log-format, or of the journal. */
  #writer: LogWriter | undefined;

  constructor() {
    this.#maxRank = RANK.info;
  }

  /** Apply the options: messages above the verbosity are dropped; --debug adds the time to standard error. */
  configure(verbosity: Verbosity): void {
    this.#hasTimestamps = verbosity === 'debug' || verbosity === 'trace';
    this.#maxRank = { quiet: RANK.warning, normal: RANK.info, debug: RANK.debug, trace: RANK.debug }[
      verbosity
    ];
  }

  /** Write in another way than as text. @param writer  undefined: as text */
  useWriter(writer: LogWriter | undefined): void {
    this.#writer = writer;
  }

  get #writesJournal(): boolean {
    return this.#writer !== undefined && this.#writer.line === undefined;
  }

  /** Makes the lines of --log-format; undefined: they are text. */
  get line(): LogWriter['line'] {
    return this.#writer?.line;
  }

  toFile(file: LogFile): void {
    this.#file = file;
  }

  /**
   * The process goes into the background: standard error is closed.
   * @param syslog  gets the messages, unless there is a file or --debug; undefined: there is no system log
   */
  leaveForBackground(syslog: ((message: Buffer) => void) | undefined): void {
    this.#toStderr = false;
    if (this.#hasTimestamps || this.#file !== undefined) return;
    this.#syslog = this.#writesJournal ? () => {} : syslog;
  }

  /** Standard error belongs to COMMAND from now on; only --debug still writes there. */
  leaveToCommand(): void {
    if (!this.#hasTimestamps) this.#toStderr = false;
  }

  /** The least important level that is logged. */
  get upTo(): Level {
    return (Object.keys(RANK) as Level[]).find((level) => RANK[level] === this.#maxRank)!;
  }

  /** Log one message. Bound to this object, so that it can be passed as a function. */
  readonly log: Log = (level, text) => {
    if (RANK[level] > this.#maxRank) return;
    const seconds = (performance.now() / 1000).toFixed(4);
    const line = this.#writer?.line;
    try {
      if (this.#toStderr && this.#writer !== undefined) this.#writer.log(level, text);
      else if (this.#toStderr) put(2, `${this.#hasTimestamps ? `${seconds}: ` : ''}${text}\n`);
      this.#file?.write(line?.(level, text) ?? `${seconds}: ${FILE_PREFIX[level]}${text}`, seconds);
      if (this.#syslog === undefined) return;
      if (this.#writesJournal) return this.#writer!.log(level, text);
      const priority = LOG_DAEMON * 8 + SYSLOG_SEVERITY[level];
      this.#syslog(Buffer.from(`<${priority}>pasta[${process.pid}]: ${text}`));
    } catch {
      // Standard error is closed or the disk is full: nowhere to report it.
    }
  };
}
