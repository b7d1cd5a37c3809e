// @vitest: beside
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LogFile, PastaLog } from '../../../src/main/pasta/log.ts';

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(`${tmpdir()}/pasta-log-`);
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const open = (name: string, maxBytes: number): LogFile =>
  new LogFile({ path: `${dir}/${name}`, maxBytes, header: 'pasta 1: /x (7)' }, (e) => (e as Error).message);

describe('log file of pasta', () => {
  it('has mode 0600, a header with the version, and one line with level per message', () => {
    const file = open('a', 100_000);
    const log = new PastaLog();
    log.toFile(file);
    log.leaveForBackground(undefined);
    log.configure('normal');
    log.log('warning', 'careful');
    log.log('info', 'fine');
    log.log('debug', 'not wanted');
    expect(statSync(`${dir}/a`).mode & 0o777).toBe(0o600);
    const [header, warning, info, end] = readFileSync(`${dir}/a`, 'utf8').split('\n');
    expect(header).toBe('pasta 1: /x (7)');
    expect(warning).toMatch(/^\d+\.\d{4}: WARNING: careful$/);
    expect(info).toMatch(/^\d+\.\d{4}: info: {4}fine$/);
    expect(end).toBe('');
  });

  it('full: whole oldest lines are dropped, and the first line reports it', () => {
    const file = open('b', 4096);
    for (let i = 0; i < 1000; i++) {
      file.write(`${i}.0000: line number ${i}`, `${i}.0000`);
      expect(statSync(`${dir}/b`).size).toBeLessThanOrEqual(4096);
    }
    const [header = '', ...lines] = readFileSync(`${dir}/b`, 'utf8').trimEnd().split('\n');
    expect(header).toMatch(/^pasta 1: \/x \(7\) - log truncated at \d+\.0000$/);
    const numbers = lines.map((line) => Number(/^\d+\.0000: line number (\d+)$/.exec(line)?.[1]));
    const first = numbers[0]!;
    expect(first).toBeGreaterThan(800);
    expect(numbers).toEqual(numbers.map((_, i) => first + i));
    expect(numbers.at(-1)).toBe(999);
  });

  it('--log-format json: every line of the file is JSON, also after a cut', () => {
    const line = (level: string, text: string): string => JSON.stringify({ level, text });
    const log = new PastaLog();
    log.useWriter({ line, log: () => {} });
    const options = { path: `${dir}/j`, maxBytes: 4096, header: 'pasta 1', line: log.line };
    log.toFile(new LogFile(options, String));
    log.leaveForBackground(undefined);
    for (let i = 0; i < 200; i++) log.log('info', `line "${i}"`);
    const lines = readFileSync(`${dir}/j`, 'utf8')
      .trimEnd()
      .split('\n')
      .map((text) => JSON.parse(text));
    expect(lines[0].text).toMatch(/^pasta 1 - log truncated at \d+\.\d{4}$/);
    expect(lines.at(-1)).toEqual({ level: 'info', text: 'line "199"' });
  });

  it('standard error is the journal: entries go there, in the background too', () => {
    const entries: string[] = [];
    const log = new PastaLog();
    log.useWriter({ log: (level, text) => entries.push(`${level} ${text}`) });
    log.log('info', 'one');
    log.leaveForBackground(() => entries.push('not to the system log'));
    log.log('error', 'two');
    expect(entries).toEqual(['info one', 'error two']);
  });

  it('cannot be opened: the error names the file', () => {
    expect(() => open('missing/c', 4096)).toThrow(`Couldn't open log file ${dir}/missing/c: `);
  });

  it('in the background without a log file: messages go to the system log', () => {
    const sent: string[] = [];
    const log = new PastaLog();
    log.configure('quiet');
    log.leaveForBackground((message) => sent.push(message.toString()));
    log.log('info', 'left out');
    log.log('error', 'broken');
    expect(sent).toEqual([`<27>pasta[${process.pid}]: broken`]);
    log.toFile(open('d', 4096));
    const other = new PastaLog();
    other.toFile(open('e', 4096));
    other.leaveForBackground((message) => sent.push(message.toString()));
    other.log('error', 'in the file');
    expect(sent).toHaveLength(1);
  });
});
