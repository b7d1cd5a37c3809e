import { spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { parseOptions, requirementList } from '../../perf/harness/options.ts';
import { compareResults, movement, regressions } from '../../perf/harness/report/compare.ts';
import { compareHtml, compareMarkdown, summaryText } from '../../perf/harness/report/compare-report.ts';
import { csv } from '../../perf/harness/report/csv.ts';
import { checkFailures, parseRequirement } from '../../perf/harness/report/gate.ts';
import { summarize } from '../../perf/harness/report/statistics.ts';
import { type Measurement, type Metric, type Result, SCHEMA } from '../../perf/harness/result.ts';
import { describeE2e } from '../support/require.ts';

const UP = 'tcp-1-up-65520';
const RR = 'rr-64-65520';
type Rounds = readonly number[];
const rounds = (cell: string, peer: string, metric: Metric, values: Rounds): Measurement[] =>
  values.map((value, i) => ({ cell, peer, round: i + 1, values: { [metric]: value }, error: null }));

const result = (measurements: readonly Measurement[], over: Partial<Result> = {}): Result => ({
  schema: SCHEMA,
  date: '2026-01-02',
  mode: 'full',
  machine: {
    cpu: 'a CPU',
    cores: 2,
    kernel: '6.1',
    node: '26',
    governor: 'none',
    iperf3: '3.12',
    commit: 'abc',
    loadAtStart: 0,
  },
  options: {},
  peers: [
    { name: 'direct', kind: 'direct', version: 'veth', threads: null },
    { name: 'bucatini', kind: 'bucatini', version: '1', threads: 'fused' },
    { name: 'pasta', kind: 'pasta', version: 'p', threads: null },
  ],
  cells: [
    { id: UP, workload: 'tcp', text: 'TCP, 1 stream, up', mtu: 65520, seconds: 2 },
    { id: RR, workload: 'rr', text: 'request', mtu: 65520, seconds: 1 },
  ],
  measurements,
  soak: null,
  notes: [],
  seconds: 60,
  endedEarly: false,
  ...over,
});

describe('movement', () => {
  const moved = (metric: Metric, old: Rounds, now: Rounds) =>
    movement(summarize(old)!, summarize(now)!, metric);

  it.each([
    ['one round', 'mbit', [100], [50], 'unknown'],
    ['two rounds', 'mbit', [100, 101], [50, 51], 'unknown'],
    ['three rounds, a gap as wide as the ranges', 'mbit', [100, 105, 110], [80, 85, 90], 'worse'],
    ['three rounds, a narrow gap', 'mbit', [100, 105, 110], [85, 90, 95], 'same'],
    ['four rounds, a quarter is enough', 'mbit', [100, 104, 106, 108], [88, 92, 95, 97], 'worse'],
    ['five rounds, any gap', 'mbit', [100, 102, 105, 108, 110], [88, 91, 95, 98, 99], 'worse'],
    ['five rounds, ranges that touch', 'mbit', [100, 102, 105, 108, 110], [88, 91, 95, 98, 100], 'same'],
    ['more is better', 'mbit', [1, 1, 1], [2, 2, 2], 'better'],
    ['less is better', 'p50Us', [1, 1, 1], [2, 2, 2], 'worse'],
    ['no spread, and a difference of 3 %', 'mbit', [100, 100, 100], [97, 97, 97], 'same'],
    ['no spread, and one of 4 %', 'mbit', [100, 100, 100], [96, 96, 96], 'worse'],
    ['from nothing, beyond what can be resolved', 'lossPercent', [0, 0, 0], [1, 1, 1], 'worse'],
    ['from nothing, within it', 'lossPercent', [0, 0, 0], [0.4, 0.4, 0.4], 'same'],
  ] as const)('%s', (_, metric, old, now, verdict) => {
    expect(moved(metric, old, now)).toBe(verdict);
  });

  it('noise alone: about one figure in a hundred', () => {
    // xorshift32, and the sum of twelve for normal noise: the same numbers in every run.
    let state = 2463534242;
    const random = () => {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      return (state >>> 0) / 2 ** 32;
    };
    const sample = () => 1000 + 100 * (Array.from({ length: 12 }, random).reduce((a, b) => a + b) - 6);
    for (const count of [3, 4, 5]) {
      const list = () => Array.from({ length: count }, sample);
      const of = Array.from({ length: 4000 }, () => moved('mbit', list(), list()));
      const share = of.filter((verdict) => verdict !== 'same').length / of.length;
      expect(share, `${count} rounds`).toBeLessThan(0.02);
      expect(share, `${count} rounds`).toBeGreaterThan(0.003);
    }
  });
});

const OLD = result([
  ...rounds(UP, 'direct', 'mbit', [60_000, 61_000, 62_000]),
  ...rounds(UP, 'bucatini', 'mbit', [40_000, 41_000, 42_000]),
  ...rounds(UP, 'pasta', 'mbit', [100, 110, 120]),
  ...rounds(RR, 'bucatini', 'p50Us', [80, 81, 82]),
]);
const SLOWER = [
  ...rounds(UP, 'bucatini', 'mbit', [20_000, 20_500, 21_000]),
  ...rounds(UP, 'pasta', 'mbit', [100, 110, 120]),
];

describe('comparison', () => {
  it('ratio and its spread; the worse figure is named, and fails the check', () => {
    const now = result([...rounds(UP, 'direct', 'mbit', [60_500, 61_000, 61_500]), ...SLOWER]);
    const compared = compareResults(OLD, now);
    const row = compared.rows.find(({ peer }) => peer === 'bucatini');
    expect(row).toMatchObject({ verdict: 'worse', ratio: 0.5, isLikeDirect: false });
    expect(row?.ratioLow).toBeCloseTo(20 / 42);
    expect(row?.ratioHigh).toBeCloseTo(21 / 40);
    expect(summaryText(compared)).toBe(
      'Of 1 figures of bucatini, 1 are worse and 0 are better beyond their spread, 0 are the same.',
    );
    const text = compareMarkdown(compared, ['old.json', 'new.json']);
    expect(text).toContain('# new.json against old.json');
    expect(text).toContain(
      '| TCP, 1 stream, up, MTU 65520 | bucatini | worse | Gbit/s | 41.0 | 20.5 | 0.50 | 0.48–0.53 |',
    );
    // The chart: the spread left of the colon, which is at 1.
    expect(text).toMatch(/\| 0\.50 \| ` ?-?o-* +: +` \|/);
    expect(text).toMatch(/\| pasta \|.*\| 1\.00 \| ` +-*o-* +` \|/);
    const page = compareHtml(compared, ['old.json', 'new.json']);
    expect(page).toContain('class="ratio worse"');
    expect(page).toContain('<td class="no">worse</td>');
    expect(page.replace(/<script>.*<\/script>/s, '')).not.toMatch(/https?:|\ssrc=|NaN|undefined/);
    expect(checkFailures(now, compared, [])).toEqual([
      // It was above half of direct's, and is no longer.
      'target missed: TCP, 1 stream, up, MTU 65520: Gbit/s >= 0.55 × direct: 20.5, want >= 33.5',
      'worse beyond the spread: bucatini, TCP, 1 stream, up, MTU 65520: 41.0, now 20.5 Gbit/s',
    ]);
  });

  it('the direct link got slower too: said so, and no regression', () => {
    const now = result([...rounds(UP, 'direct', 'mbit', [30_000, 30_500, 31_000]), ...SLOWER]);
    const compared = compareResults(OLD, now);
    expect(compared.rows.find(({ peer }) => peer === 'bucatini')?.isLikeDirect).toBe(true);
    expect(regressions(compared)).toEqual([]);
    expect(compareMarkdown(compared, ['a', 'b'])).toContain('| worse, as direct |');
    expect(checkFailures(now, compared, [])).toEqual([]);
  });

  it('another tool got slower: no regression', () => {
    const now = result([
      ...rounds(UP, 'bucatini', 'mbit', [40_000, 41_000, 42_000]),
      ...rounds(UP, 'pasta', 'mbit', [10, 11, 12]),
    ]);
    expect(checkFailures(now, compareResults(OLD, now), [])).toEqual([]);
  });

  it('a cell that fails now: named with its error, fails the check', () => {
    const now = result([{ cell: UP, peer: 'bucatini', round: 1, values: {}, error: 'refused' }]);
    const compared = compareResults(OLD, now);
    expect(checkFailures(now, compared, [])).toContain(
      'fails now: bucatini, TCP, 1 stream, up, MTU 65520: refused',
    );
    expect(compareMarkdown(compared, ['a', 'b'])).toContain('## Fails now');
    expect(compareHtml(compared, ['a', 'b'])).toContain('Fails now');
  });

  it('another machine or another length: a warning; nothing in common: an error', () => {
    const now = result(OLD.measurements, {
      machine: { ...OLD.machine, kernel: '6.2', runtime: 'Bun' },
      cells: OLD.cells.map((cell) => ({ ...cell, seconds: 1 })),
      endedEarly: true,
    });
    expect(compareResults(OLD, now).warnings).toEqual([
      ...['not the same kernel: 6.1, then 6.2', 'not the same runtime: Node, then Bun'],
      ...['cells that were measured for another time: 1', 'one of them ended early'],
    ]);
    expect(compareResults(OLD, OLD).warnings).toEqual([]);
    expect(() => compareResults(OLD, result([], { cells: [] }))).toThrow('no figure of the same cell');
  });
});

describe('check', () => {
  it('without an older result: every missed target, but no stretch', () => {
    const failures = checkFailures(
      result([
        ...rounds(UP, 'direct', 'mbit', [60_000]),
        ...rounds(UP, 'bucatini', 'mbit', [20_000]),
        ...rounds(RR, 'bucatini', 'p50Us', [80]),
      ]),
      null,
      [],
    );
    expect(failures).toEqual([
      'target missed: TCP, 1 stream, up, MTU 65520: Gbit/s >= 0.55 × direct: 20.0, want >= 33.0',
    ]);
  });

  it('requirements: parsed, judged by the median; not measured is a failure', () => {
    expect(parseRequirement(`${UP}:mbit>=40000.5`)).toMatchObject({
      ...{ cell: UP, metric: 'mbit', op: '>=', bound: 40_000.5 },
    });
    for (const bad of ['x', `${UP}:mbit=5`, `${UP}:speed>=5`, `${UP}:mbit>=-1`, `${UP}:mbit>=`])
      expect(parseRequirement(bad)).toBeNull();
    const judged = (...texts: string[]) =>
      checkFailures(OLD, compareResults(OLD, OLD), requirementList(texts));
    expect(judged(`${UP}:mbit>=41000`, `${RR}:p50Us<=81`)).toEqual([]);
    expect(judged(`${UP}:mbit>=41001`, `${RR}:p50Us<=80.9`, 'start-65520:startMs<=9')).toEqual([
      `--require ${UP}:mbit>=41001: measured 41,000`,
      `--require ${RR}:p50Us<=80.9: measured 81.0`,
      '--require start-65520:startMs<=9: not measured',
    ]);
  });

  it.each([
    [['--require', 'x'], '--require x: want CELL:METRIC>=NUMBER'],
    [['--require', 'nosuch-1500:mbit>=1'], "no cell 'nosuch-1500'"],
    [['--compare', ''], '--compare: want the name of a file'],
    [['a.json'], 'a.json: unexpected argument'],
    [['--compare', 'a', 'b', 'c'], 'c is a third'],
    [['--compare', 'a', 'b', '--rounds', '3'], 'leave out --rounds'],
    [['--compare', 'a', '--soak'], '--compare and --soak: one of the two'],
    [['--json', 'a', '--csv', 'a'], '--json and --csv: a is one file for both'],
  ])('%j: refused by name', (argv, words) => {
    expect(() => parseOptions(argv)).toThrow(words);
  });

  it('--compare: with this run, or of two files', () => {
    expect(parseOptions(['--compare', 'a', '--only', 'rr', '--check'])).toMatchObject({
      compare: { old: 'a', now: null },
      check: true,
    });
    expect(parseOptions(['--compare', 'a', 'b', '--html', 'h'])?.compare).toEqual({ old: 'a', now: 'b' });
    expect(parseOptions(['--require', `${UP}:mbit>=1`])?.check).toBe(true);
  });
});

it('CSV: a line for each figure and for each failed round; commas and quotes are quoted', () => {
  const failed = { cell: RR, peer: 'pasta', round: 1, values: {}, error: 'no "route", none' };
  expect(csv(result([...rounds(UP, 'direct', 'mbit', [1.5]), failed]))).toBe(
    'date,commit,cell,peer,round,metric,value,error\r\n' +
      `2026-01-02,abc,${UP},direct,1,mbit,1.5,\r\n` +
      `2026-01-02,abc,${RR},pasta,1,,,"no ""route"", none"\r\n`,
  );
});

describeE2e('command lines', [], () => {
  const directory = mkdtempSync(join(tmpdir(), 'compare-'));
  afterAll(() => rmSync(directory, { recursive: true }));
  const [old, now, page] = ['old.json', 'new.json', 'page.html'].map((name) => join(directory, name));
  writeFileSync(old!, JSON.stringify(OLD));
  writeFileSync(now!, JSON.stringify(result(SLOWER)));
  const file = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url));
  const run = (script: string, ...args: string[]) =>
    spawnSync(process.execPath, ['--no-warnings', file(script), ...args], { encoding: 'utf8' });

  it.each(['perf/harness/main.ts', 'perf/render.ts'])('%s --compare: text, page, status 3', (script) => {
    const { status, stdout, stderr } = run(script, '--compare', old!, now!, '--html', page!, '--check');
    expect(status).toBe(3);
    expect(stdout).toContain('# new.json against old.json');
    expect(readFileSync(page!, 'utf8')).toContain('<h1>new.json against old.json</h1>');
    expect(stderr).toContain('check: worse beyond the spread: bucatini');
  });

  it('bucatini bench: the same from the bundle; nothing moved: status 0; its own name in errors', () => {
    const launcher = file('bin/bucatini');
    const bench = (...args: string[]) => spawnSync(launcher, ['bench', ...args], { encoding: 'utf8' });
    const same = bench('--compare', old!, old!, '--check');
    expect({ status: same.status, stderr: same.stderr }).toEqual({ status: 0, stderr: '' });
    expect(same.stdout).toContain('Nothing, beyond the spread of the rounds.');
    const full = openSync('/dev/full', 'w');
    const unprinted = spawnSync(launcher, ['bench', '--compare', old!, old!, '--html', page!], {
      encoding: 'utf8',
      stdio: ['ignore', full, 'pipe'],
    });
    closeSync(full);
    expect(unprinted).toMatchObject({
      status: 1,
      stderr: 'bucatini bench: standard output: no space is left on the device\n',
    });
    expect(readFileSync(page!, 'utf8')).toContain('<h1>old.json against old.json</h1>');
    const wrong = bench('--rounds', 'many');
    expect(wrong).toMatchObject({ status: 2, stdout: '' });
    expect(wrong.stderr).toMatch(/^bucatini bench: --rounds many[^\n]*\n$/);
  });

  it('a file that is missing or broken: one line, before anything is measured', () => {
    writeFileSync(join(directory, 'broken.json'), '{"schema":2}');
    for (const [name, words] of [
      ['none.json', 'no such file'],
      ['broken.json', 'not a harness result: date is not a text'],
    ] as const) {
      const { status, stdout, stderr } = run('perf/harness/main.ts', '--compare', join(directory, name));
      expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
      expect(stderr).toMatch(/^iperf-harness: [^\n]*\n$/);
      expect(stderr).toContain(words);
    }
  });
});
