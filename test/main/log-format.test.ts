// @vitest: beside
/**
 * Log lines as logfmt and JSON, and entries of the journal: no text ends one early, or is obeyed by a
 * terminal.
 */

import { fstatSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { entryBytes, logLine, logWriter, stderrIsJournal } from '../../src/main/host/log-format.ts';
import { LOG_LEVELS } from '../../src/workers/thread/log-levels.ts';

const FIELDS = { program: 'run', version: '1.2.3' };
const NOW = new Date(Date.UTC(2026, 10, 29, 8, 14, 31, 123));
/**
 * Line ends, what a terminal obeys, quotes and escapes, text in several scripts, half of a surrogate pair.
 */
const HOSTILE = 'a "b" = \\ \n\r\t\0\x1b[2J\x7f\x9b31m\u2028\u202ereversed\u200f é 漢 🙂 \ud800 level=error';
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not be in a line
const UNSAFE = /[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]/;

/** Pairs of a line of logfmt, as its parsers read it. */
function readLogfmt(line: string): Record<string, string> {
  const pairs: Record<string, string> = {};
  let rest = line;
  while (rest !== '') {
    const [all, name, value] = /^([a-z]+)=("(?:[^"\\]|\\.)*"|[^\s"=]+)(?: |$)/.exec(rest) ?? [];
    if (all === undefined) throw new Error(`not logfmt: ${rest}`);
    pairs[name!] = value!.startsWith('"') ? JSON.parse(value!) : value!;
    rest = rest.slice(all.length);
  }
  return pairs;
}

/** Fields of an entry, as journald reads them. */
function readEntry(bytes: Buffer): Record<string, string> {
  const fields: Record<string, string> = {};
  for (let at = 0; at < bytes.length; ) {
    const end = bytes.indexOf(0x0a, at);
    const line = bytes.subarray(at, end);
    const equals = line.indexOf('=');
    if (equals >= 0) {
      fields[line.toString('utf8', 0, equals)] = line.toString('utf8', equals + 1);
      at = end + 1;
    } else {
      const length = Number(bytes.readBigUInt64LE(end + 1));
      fields[line.toString('utf8')] = bytes.toString('utf8', end + 9, end + 9 + length);
      expect(bytes[end + 9 + length]).toBe(0x0a);
      at = end + 10 + length;
    }
  }
  return fields;
}

describe('log lines', () => {
  it('are as documented', () => {
    const { pid } = process;
    expect(logLine('logfmt', 'warning', 'no "space" left', FIELDS, NOW)).toBe(
      `time=2026-11-29T08:14:31.123Z level=warning program=run pid=${pid} msg="no \\"space\\" left"`,
    );
    expect(logLine('json', 'info', 'ready', FIELDS, NOW)).toBe(
      `{"time":"2026-11-29T08:14:31.123Z","level":"info","program":"run","pid":${pid},"msg":"ready"}`,
    );
  });

  it('any text comes back whole, and no character of it reaches a terminal that would obey it', () => {
    const check = (text: string): void => {
      for (const level of LOG_LEVELS) {
        const json = logLine('json', level, text, FIELDS, NOW);
        const logfmt = logLine('logfmt', level, text, FIELDS, NOW);
        for (const line of [json, logfmt]) expect(line).not.toMatch(UNSAFE);
        const wanted = { time: NOW.toISOString(), level, program: 'run', msg: text.toWellFormed() };
        expect(JSON.parse(json)).toMatchObject({ ...wanted, pid: process.pid });
        expect(readLogfmt(logfmt)).toEqual({ ...wanted, pid: String(process.pid) });
      }
    };
    check(HOSTILE);
    check('');
    fc.assert(fc.property(fc.string({ unit: 'binary', maxLength: 40 }), check), { numRuns: 30 });
  });
});

describe('entries of the journal', () => {
  it('have message, priority and fields of ours', () => {
    expect(readEntry(entryBytes('warning', 'careful', FIELDS))).toEqual({
      MESSAGE: 'careful',
      PRIORITY: '4',
      SYSLOG_IDENTIFIER: 'bucatini',
      SYSLOG_PID: String(process.pid),
      BUCATINI_PROGRAM: 'run',
      BUCATINI_VERSION: '1.2.3',
    });
    expect(readEntry(entryBytes('error', '', { program: 'pasta', version: '1' }))).toMatchObject({
      PRIORITY: '3',
      SYSLOG_IDENTIFIER: 'pasta',
    });
  });

  it('no message makes a field of its own, however long it is', () => {
    for (const text of [HOSTILE, 'x\nPRIORITY=0\nMESSAGE=y', 'é\n'.repeat(100_000)]) {
      const bytes = entryBytes('info', text, FIELDS);
      const fields = readEntry(bytes);
      expect(fields.PRIORITY).toBe('6');
      expect(Object.keys(fields)).toHaveLength(6);
      expect(text.toWellFormed().startsWith(fields.MESSAGE!.replace(/\ufffd$/, ''))).toBe(true);
      expect(bytes.length).toBeLessThan(40_000);
    }
  });

  it('only where standard error is the stream that systemd has opened', () => {
    const { dev, ino } = fstatSync(2, { bigint: true });
    expect(stderrIsJournal(`${dev}:${ino}`)).toBe(true);
    for (const other of [undefined, '', `${dev}:${ino + 1n}`, `${dev}:`, `${dev}:${ino}x`, '-1:2'])
      expect(stderrIsJournal(other), String(other)).toBe(false);
    expect(logWriter('text', FIELDS, `${dev}:${ino}`)).toBeUndefined();
    expect(logWriter(undefined, FIELDS, '1:2')).toBeUndefined();
    expect(logWriter('json', FIELDS, undefined)?.line?.('info', 'x')).toMatch(/"msg":"x"}$/);
  });
});
