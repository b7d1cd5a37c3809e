import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import type { Measurement } from '../../perf/harness/measure.ts';
import { parseOptions, UsageError } from '../../perf/harness/options.ts';
import { median, table } from '../../perf/harness/report.ts';
import { describeE2e, requireTool } from '../support/require.ts';

const harness = fileURLToPath(new URL('../../scripts/iperf-harness.sh', import.meta.url));
const run = (...args: string[]) => spawnSync('sh', [harness, ...args], { encoding: 'utf8' });

describe('options', () => {
  const names = ['direct', 'fused', 'pasta'];
  const parse = (...argv: string[]) => parseOptions(argv, names);

  test('defaults: three rounds of three seconds at both MTUs, every peer', () => {
    expect(parse()).toMatchObject({
      rounds: 3,
      seconds: 3,
      mtus: [65520, 1500],
      peers: null,
      streams: 1,
      wan: null,
    });
  });

  test('--quick shortens what is not said otherwise', () => {
    expect(parse('--quick')).toMatchObject({ rounds: 1, seconds: 1, mtus: [65520] });
    expect(parse('--quick', '--seconds', '2.5', '--mtu', '1500')).toMatchObject({
      rounds: 1,
      seconds: 2.5,
      mtus: [1500],
    });
  });

  test('--wan and --tcp-wmem are read field by field', () => {
    expect(parse('--wan', '10,500,8192,0.1')?.wan).toEqual({
      delayMs: 10,
      rateMbit: 500,
      queueKib: 8192,
      lossPercent: 0.1,
    });
    expect(parse('--tcp-wmem', '4096,65536,1048576')?.tcpWmem).toBe('4096 65536 1048576');
  });

  test.each([
    [['--rounds', '0'], '--rounds 0'],
    [['--seconds', 'x'], '--seconds x'],
    [['--mtu', '1500,99999'], '--mtu 99999'],
    [['--peers', 'direct,vde'], "no peer 'vde'"],
    [['--wan', '10,500'], '--wan 10,500'],
    [['--tcp-wmem', '1,2'], '--tcp-wmem 1,2'],
    [['--fast'], '--fast'],
    [['more'], 'more'],
  ])('%j is refused by name', (argv, words) => {
    expect(() => parse(...argv)).toThrow(UsageError);
    expect(() => parse(...argv)).toThrow(words);
  });
});

describe('report', () => {
  test('median: middle, mean of the two middles, nothing', () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 2, 3])).toBe(2.5);
    expect(median([])).toBeNull();
  });

  test('table: ratios to direct and to the best other tool, dashes where nothing was measured', () => {
    const one = (peer: string, direction: 'up' | 'down', mbit: number, round = 1): Measurement => ({
      mtu: 1500,
      round,
      peer,
      direction,
      mbit,
      retransmits: 0,
      cpuSecondsPerGib: peer === 'direct' ? null : 0.5,
      error: null,
    });
    const all = [
      one('direct', 'up', 1000),
      one('fused', 'up', 300, 1),
      one('fused', 'up', 500, 2),
      one('fused', 'up', 900, 3),
      one('pasta', 'up', 200),
      one('slirp4netns', 'up', 250),
      one('direct', 'down', 1000),
    ];
    const rows = table(all, ['direct', 'fused', 'pasta', 'slirp4netns'], {
      direct: 'direct',
      ours: ['fused'],
    }).split('\n');
    expect(rows[3]).toBe('| fused | 500 | 300-900 | 0.50 | 2.00 | 0.50 | 0 | - | - | - | - | - | - |');
    expect(rows[2]).toBe(
      '| direct | 1000 | 1000-1000 | 1.00 | 4.00 | - | 0 | 1000 | 1000-1000 | 1.00 | - | - | 0 |',
    );
  });
});

test('--help lists every option and peer; a bad option is one line and status 2', () => {
  const help = run('--help');
  expect(help.status).toBe(0);
  for (const word of ['--rounds', '--wan', '--ipv6', 'PASTA_NEW', 'pipeline=2', 'slirp4netns'])
    expect(help.stdout).toContain(word);
  const bad = run('--rounds', 'many');
  expect(bad).toMatchObject({
    status: 2,
    stdout: '',
    stderr: expect.stringMatching(/^iperf-harness: --rounds many: .*\n$/),
  });
});

describeE2e('iperf harness', [requireTool('iperf3', 'apt package iperf3')], () => {
  const dir = mkdtempSync(join(tmpdir(), 'harness-'));
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  test('direct only: a table, JSON, nothing left', () => {
    const json = join(dir, 'h.json');
    const done = run('--quick', '--peers', 'direct', '--json', json);
    expect(done.stderr).toMatch(/\[2\/2, 0 s left\] MTU 65520 round 1 direct down: \d+ Mbit\/s/);
    expect(done.stdout).toMatch(/\| direct \| \d+ \|/);
    expect(done.status).toBe(0);
    const written = JSON.parse(readFileSync(json, 'utf8'));
    expect(written.measurements).toHaveLength(2);
    for (const m of written.measurements) expect(m.mbit).toBeGreaterThan(50);
  });

  test('a line of 100 Mbit/s and 5 ms each way is nearly filled and never exceeded', () => {
    const done = run(
      '--quick',
      '--seconds',
      '2',
      '--peers',
      'direct',
      '--wan',
      '5,100,1024,0',
      '--json',
      join(dir, 'w.json'),
    );
    expect(done.status).toBe(0);
    for (const m of JSON.parse(readFileSync(join(dir, 'w.json'), 'utf8')).measurements) {
      expect(m.mbit).toBeGreaterThan(70);
      expect(m.mbit).toBeLessThan(105);
    }
  });
});
