// bundle: rare
/**
 * Formats of log lines other than text (`--log-format`), and the journal of systemd. Messages may contain any
 * character, also of names that programs inside have chosen: none ends a line or a value early, and none
 * reaches a terminal that would obey it.
 *
 *   logfmt   time=2026-11-29T08:14:31.123Z level=warning program=run pid=4711 msg="text with \"quotes\""
 *   json     {"time":"2026-11-29T08:14:31.123Z","level":"warning","program":"run","pid":4711,"msg":"text"}
 *   journal  an entry with the fields of entryBytes()
 */
import { fstatSync } from 'node:fs';
import { openSyslog } from '../../sys/syslog.ts';
import type { LogFormat } from '../cli/log-option.ts';
import { put } from '../process/output.ts';
import type { Log, LogLevel } from './log.ts';

/** What each line says about its origin. */
export interface LogFields {
  /** run, attach, pasta or slirp4netns. */
  readonly program: string;
  readonly version: string;
}

/**
 * Characters that JSON leaves as they are, but a terminal may obey, or a reader may take for the end of a
 * line.
 */
const UNSAFE = /[\u007f-\u009f\u2028\u2029\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]/g;

/**
 * A string of JSON, and of logfmt, whose quoted values Go's strconv.Unquote reads: the escapes are the same.
 */
const quotedText = (text: string): string =>
  JSON.stringify(text.toWellFormed()).replace(
    UNSAFE,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );

/** Values that logfmt writes without quotes. */
const BARE = /^[\w.:/@%+,-]+$/;

const logfmtValue = (text: string): string => (BARE.test(text) ? text : quotedText(text));

/** One line, without its end. */
export function logLine(
  format: 'logfmt' | 'json',
  level: LogLevel,
  text: string,
  { program }: LogFields,
  now = new Date(),
): string {
  const time = now.toISOString();
  const { pid } = process;
  if (format === 'json')
    return `{"time":"${time}","level":"${level}","program":${quotedText(program)},"pid":${pid},"msg":${quotedText(text)}}`;
  return `time=${time} level=${level} program=${logfmtValue(program)} pid=${pid} msg=${logfmtValue(text)}`;
}

/** Priorities of syslog(3). */
const PRIORITY: Readonly<Record<LogLevel, number>> = { error: 3, warning: 4, info: 6, debug: 7 };
/** Our fields begin with this; it is no variable of the environment. */
const OURS = 'BUCATINI';
/** A datagram must fit into the socket's send buffer. */
const MAX_MESSAGE_BYTES = 32 * 1024;

/** An entry of the journal: https://systemd.io/JOURNAL_NATIVE_PROTOCOL. */
export function entryBytes(level: LogLevel, text: string, { program, version }: LogFields): Buffer {
  const message = Buffer.from(text.toWellFormed());
  return Buffer.concat(
    [
      ['MESSAGE', message.subarray(0, MAX_MESSAGE_BYTES)] as const,
      ['PRIORITY', String(PRIORITY[level])] as const,
      ['SYSLOG_IDENTIFIER', program === 'run' || program === 'attach' ? 'bucatini' : program] as const,
      ['SYSLOG_PID', String(process.pid)] as const,
      [`${OURS}_PROGRAM`, program] as const,
      [`${OURS}_VERSION`, version] as const,
    ].map(([name, value]) => field(name, Buffer.from(value))),
  );
}

/** A value with a line feed stands behind its length in 64 bits. */
function field(name: string, value: Buffer): Buffer {
  if (!value.includes(0x0a)) return Buffer.concat([Buffer.from(`${name}=`), value, Buffer.from('\n')]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(value.length));
  return Buffer.concat([Buffer.from(`${name}\n`), length, value, Buffer.from('\n')]);
}

const JOURNAL_SOCKET = '/run/systemd/journal/socket';

/**
 * Whether standard error is connected to the journal: JOURNAL_STREAM names device and inode of the stream
 * that systemd has opened (systemd.exec(5)); a caller may have redirected standard error since.
 */
export function stderrIsJournal(stream: string | undefined): boolean {
  const [, device, inode] = /^([0-9]+):([0-9]+)$/.exec(stream ?? '') ?? [];
  if (device === undefined) return false;
  try {
    const stat = fstatSync(2, { bigint: true });
    return stat.dev === BigInt(device) && stat.ino === BigInt(inode!);
  } catch {
    return false; // it is closed
  }
}

export interface LogWriter {
  readonly log: Log;
  /** One line in the format; absent: entries go to the journal. */
  readonly line?: (level: LogLevel, text: string) => string;
}

/**
 * How messages are written. Call it before the root is exchanged (host/sandbox.ts).
 * @param format  absent: the journal if standard error is connected to it, else text
 * @returns undefined: as text
 */
export function logWriter(
  format: LogFormat | undefined,
  fields: LogFields,
  stream = process.env.JOURNAL_STREAM,
): LogWriter | undefined {
  if (format === 'text') return undefined;
  if (format !== undefined) {
    const line = (level: LogLevel, text: string): string => logLine(format, level, text, fields);
    return { line, log: (level, text) => put(2, `${line(level, text)}\n`) };
  }
  const send = stderrIsJournal(stream) ? openSyslog(JOURNAL_SOCKET) : undefined;
  return send && { log: (level, text) => send(entryBytes(level, text, fields)) };
}
