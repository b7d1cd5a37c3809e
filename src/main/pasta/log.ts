/**
 * Where messages of `pasta` go. Until the options are read and the network is up: standard error. In the
 * background afterwards: the system log, or the file of --log-file and nothing else. A command that we
 * started owns standard error: then only --debug goes on writing there.
 *
 *   --log-file   "pasta VERSION: PROGRAM (PID)", then a line per message, "S.ffff: LEVEL text"; at --log-size the oldest third goes
 *   syslog       RFC 3164 over /dev/log, facility daemon
 */
import { closeSync, fstatSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { UsageError } from '../cli/values.ts';
import type { Log, LogLevel } from '../host/log.ts';
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
/** Share of a full log file that is cut off at its start. */
const CUT = 0.3;

export interface FileLogOptions {
  readonly path: string;
  readonly maxBytes: number;
  readonly header: string;
}

/** A file of at most so many bytes. */
export class LogFile {
  readonly #fd: number;
  readonly #maxBytes: number;
  readonly #header: string;
  #bytes: number;

  /** @throws UsageError */
  constructor({ path, maxBytes, header }: FileLogOptions, strerror: (error: unknown) => string) {
    try {
      this.#fd = openSync(path, 'w+', 0o600);
    } catch (error) {
      throw new UsageError(Message.logFile(path, strerror(error)));
    }
    this.#maxBytes = maxBytes;
    this.#header = header;
    try {
      this.#bytes = writeSync(this.#fd, `${header}\n`);
    } catch (error) {
      throw new UsageError(Message.logFull(path, strerror(error)));
    }
  }

  write(line: string): void {
    const bytes = Buffer.from(`${line}\n`);
    if (this.#bytes + bytes.length > this.#maxBytes) this.#cut(line.slice(0, line.indexOf(':')));
    this.#bytes += writeSync(this.#fd, bytes, 0, bytes.length, this.#bytes);
  }

  /** Drop the oldest lines; the header stays and says so. */
  #cut(now: string): void {
    const old = Buffer.alloc(fstatSync(this.#fd).size);
    const got = readSync(this.#fd, old, 0, old.length, 0);
    const from = old.indexOf('\n', Math.ceil(got * CUT));
    const rest = from < 0 ? Buffer.alloc(0) : old.subarray(from + 1, got);
    const whole = Buffer.concat([Buffer.from(`${this.#header} - log truncated at ${now}\n`), rest]);
    this.#bytes = writeSync(this.#fd, whole, 0, whole.length, 0);
    ftruncateSync(this.#fd, this.#bytes);
  }

  close(): void {
    closeSync(this.#fd);
  }
}

export class PastaLog {
  #upTo: number;
  #stamped = false;
  #stderr = true;
  #file: LogFile | undefined;
  #syslog: ((message: Buffer) => void) | undefined;

  constructor() {
    this.#upTo = RANK.info;
  }

  /** From now on the options hold. */
  configure(verbosity: Verbosity): void {
    this.#stamped = verbosity === 'debug' || verbosity === 'trace';
    this.#upTo = { quiet: RANK.warning, normal: RANK.info, debug: RANK.debug, trace: RANK.debug }[verbosity];
  }

  toFile(file: LogFile): void {
    this.#file = file;
  }

  /** We go into the background: `syslog` takes over where there is no file and no --debug. */
  leaveForBackground(syslog: ((message: Buffer) => void) | undefined): void {
    this.#stderr = false;
    if (!this.#stamped && this.#file === undefined) this.#syslog = syslog;
  }

  /** Standard error is the command's now; --debug goes on writing there. */
  leaveToCommand(): void {
    if (!this.#stamped) this.#stderr = false;
  }

  get upTo(): Level {
    return (Object.keys(RANK) as Level[]).find((level) => RANK[level] === this.#upTo)!;
  }

  /** To be passed on as it is. */
  readonly log: Log = (level, text) => {
    if (RANK[level] > this.#upTo) return;
    const seconds = `${(performance.now() / 1000).toFixed(4)}: `;
    try {
      if (this.#stderr) put(2, `${this.#stamped ? seconds : ''}${text}\n`);
      this.#file?.write(`${seconds}${FILE_PREFIX[level]}${text}`);
      const priority = LOG_DAEMON * 8 + SYSLOG_SEVERITY[level];
      this.#syslog?.(Buffer.from(`<${priority}>pasta[${process.pid}]: ${text}`));
    } catch {
      // Standard error is closed, the disk is full: nobody is left to be told.
    }
  };
}
