import { describe, expect, test } from 'vitest';
import { comparison, newestReport } from '../../perf/harness/report/comparison.ts';
import { html } from '../../perf/harness/report/html.ts';
import { markdown } from '../../perf/harness/report/markdown.ts';
import { Figures, median, ratio } from '../../perf/harness/report/statistics.ts';
import { boundText, judgeTarget } from '../../perf/harness/report/verdicts.ts';
import {
  type Measurement,
  type Metric,
  parseResult,
  type Result,
  SCHEMA,
} from '../../perf/harness/result.ts';
import { judge } from '../../perf/harness/soak.ts';
import { TARGETS, type Target } from '../../perf/harness/targets.ts';
import { Latency } from '../../perf/harness/traffic/latency.ts';
import { tcpOutcome, udpOutcome } from '../../perf/harness/workloads/iperf.ts';

const UP = 'tcp-1-up-1500';
const RR = 'rr-64-65520';
const one = (
  cell: string,
  peer: string,
  values: Partial<Record<Metric, number>>,
  round = 1,
  error: string | null = null,
): Measurement => ({ cell, peer, round, values, error });

const RESULT: Result = {
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
    loadAtStart: 0.5,
  },
  options: { mode: 'full', rounds: null },
  peers: [
    { name: 'direct', kind: 'direct', version: 'veth', threads: null },
    { name: 'bucatini', kind: 'bucatini', version: '1', threads: 'auto: fused' },
    { name: 'pasta', kind: 'pasta', version: 'p <old>', threads: null },
    { name: 'slirp4netns', kind: 'slirp4netns', version: 's', threads: null },
    { name: 'pasta-new', kind: 'pasta', version: 'p2', threads: null },
  ],
  cells: [
    { id: UP, workload: 'tcp', text: 'TCP, 1 stream, up', mtu: 1500, seconds: 2 },
    { id: RR, workload: 'rr', text: 'request', mtu: 65520, seconds: 1 },
  ],
  measurements: [
    one(UP, 'direct', { mbit: 1000 }),
    one(UP, 'bucatini', { mbit: 300, cpuSecondsPerGib: 0.5 }, 1),
    one(UP, 'bucatini', { mbit: 900, cpuSecondsPerGib: 0.5 }, 2),
    one(UP, 'bucatini', { mbit: 500, cpuSecondsPerGib: 0.7 }, 3),
    one(UP, 'pasta', { mbit: 200, cpuSecondsPerGib: 0.6 }),
    one(UP, 'slirp4netns', { mbit: 250, cpuSecondsPerGib: 3 }),
    one(UP, 'pasta-new', {}, 1, 'refused'),
    {
      ...one(RR, 'bucatini', { p50Us: 100 }),
      distribution: [
        [50, 100],
        [99, 220],
      ],
    },
    {
      ...one(RR, 'bucatini', { p50Us: 110 }, 2),
      distribution: [
        [50, 110],
        [99, 240],
      ],
    },
    one(RR, 'pasta', { p50Us: 90 }),
    one(RR, 'pasta-new', { p50Us: 120 }),
  ],
  soak: null,
  notes: ['pasta-new, a | b'],
  seconds: 60,
  endedEarly: false,
};
const figures = new Figures(RESULT);

describe('statistics', () => {
  test('median: middle, mean of the two middles, nothing', () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 2, 3])).toBe(2.5);
    expect(median([])).toBeNull();
  });

  test('summary: median with the lowest and highest; a run that failed is no zero', () => {
    expect(figures.summary(UP, 'bucatini', 'mbit')).toEqual({ median: 500, low: 300, high: 900, rounds: 3 });
    expect(figures.summary(UP, 'pasta-new', 'mbit')).toBeNull();
  });

  test('the best peer is a stock tool, by the metric: more throughput, less CPU', () => {
    expect(figures.best(UP, 'mbit')).toEqual({ peer: 'slirp4netns', median: 250 });
    expect(figures.best(UP, 'cpuSecondsPerGib')).toEqual({ peer: 'pasta', median: 0.6 });
    expect(figures.best('none', 'mbit')).toBeNull();
  });

  test('ratio: none without a base or to nothing', () => {
    expect(ratio(1, 4)).toBe(0.25);
    expect(ratio(1, 0)).toBeNull();
    expect(ratio(null, 1)).toBeNull();
  });

  test('percentiles of several rounds: the median of each', () => {
    expect(figures.distribution(RR, 'bucatini')).toEqual([
      [50, 105],
      [99, 230],
    ]);
  });
});

describe('targets', () => {
  const judged = (over: Partial<Target>) =>
    judgeTarget(figures, {
      text: 't',
      cell: UP,
      metric: 'mbit',
      op: '>=',
      reference: 'direct',
      factor: 0.5,
      ...over,
    });

  test.each([
    ['at the bound', {}, 500, true],
    ['below it', { factor: 0.51 }, 510, false],
    ['above the best peer', { op: '>', reference: 'best', factor: 1 }, 250, true],
    ['exactly there is not above', { op: '>', reference: 'best', factor: 2 }, 500, false],
    [
      'at most, with something on top',
      { op: '<=', reference: 'newest-slirp4netns', factor: 1.6, plus: 100 },
      500,
      true,
    ],
    ['fixed', { op: '<=', reference: 'fixed', factor: 499 }, 499, false],
    [
      'the newest pasta of two',
      { cell: RR, metric: 'p50Us', op: '<=', reference: 'newest-pasta', factor: 1 },
      120,
      true,
    ],
  ] as const)('%s', (_, over, bound, reached) => {
    expect(judged(over)).toMatchObject({ bound, reached });
  });

  test('not measured: neither reached nor missed', () => {
    expect(judged({ cell: 'none' }).reached).toBeNull();
    expect(judged({ reference: 'newest-pasta' }).reached).toBeNull();
    expect(judged({ reference: 'ours', than: [UP, 'none'] }).reached).toBeNull();
  });

  test('of several cells of ours the better one counts', () => {
    expect(
      judged({ cell: RR, metric: 'p50Us', op: '<=', reference: 'ours', than: [RR, RR], factor: 1 }).bound,
    ).toBe(105);
  });

  describe('processor time of a peer that stalled', () => {
    const PACED = 'paced-up-65520';
    const stalled = (ours: number, peer: number) =>
      new Figures({
        ...RESULT,
        measurements: [
          one(UP, 'bucatini', { mbit: 20_000, cpuSecondsPerGib: 0.3 }),
          one(UP, 'pasta', { mbit: 21, cpuSecondsPerGib: 0 }),
          one(UP, 'slirp4netns', { mbit: 2000, cpuSecondsPerGib: 0.5 }),
          one(PACED, 'bucatini', { mbit: ours, cpuPercent: 6 }),
          one(PACED, 'pasta', { mbit: peer, cpuPercent: 1 }),
          one(PACED, 'slirp4netns', { mbit: 999, cpuPercent: 15 }),
        ],
      });
    const perGib: Target = {
      text: 't',
      cell: UP,
      metric: 'cpuSecondsPerGib',
      op: '<=',
      reference: 'best',
      factor: 1,
      carrying: { shareOfOurs: 0.1 },
    };
    const paced: Target = { ...perGib, cell: PACED, metric: 'cpuPercent', carrying: { leastMbit: 900 } };

    test('per GiB: the bound is that of a peer with a tenth of our rate', () => {
      expect(judgeTarget(stalled(999, 113), perGib)).toMatchObject({ bound: 0.5, reached: true });
      const noneCounts = { ...perGib, carrying: { shareOfOurs: 0.2 } };
      expect(judgeTarget(stalled(999, 113), noneCounts)).toMatchObject({ bound: null, reached: null });
    });

    test.each([
      [998, 113, 15, true],
      [998, 900, 1, false],
      [200, 113, 15, false],
    ])('paced: ours at %i, a peer at %i Mbit/s: bound %i, reached %s', (ours, peer, bound, reached) => {
      expect(judgeTarget(stalled(ours, peer), paced)).toMatchObject({ bound, reached });
    });

    test('the table of targets asks it of every comparison of processor time with the best peer', () => {
      const ofPeers = TARGETS.filter((t) => t.reference === 'best' && t.metric.startsWith('cpu'));
      expect(ofPeers).toHaveLength(6);
      for (const t of ofPeers) expect(t.carrying, t.text).toBeDefined();
      expect(boundText(paced)).toBe('<= the best peer (of those that carried >= 900 Mbit/s)');
      expect(boundText(perGib)).toContain('0.1 × our rate');
    });
  });

  test('a bound in words', () => {
    const text = { text: '', cell: UP, metric: 'mbit' as const };
    expect(boundText({ ...text, op: '>=', reference: 'best', factor: 10 })).toBe('>= 10 × the best peer');
    expect(boundText({ ...text, op: '<=', reference: 'direct', factor: 1, plus: 2 })).toBe('<= direct + 2');
    expect(boundText({ ...text, op: '<=', reference: 'fixed', factor: 95.4 })).toBe('<= 95.4');
  });
});

describe('iperf3 reports', () => {
  const usage = { cpuSeconds: 1, rssMib: 80, peakRssMib: 90 };

  test('both ways at once are added up', () => {
    const sum = { bits_per_second: 1e9, bytes: 2 ** 29, retransmits: 2 };
    const end = {
      sum_sent: sum,
      sum_received: sum,
      sum_sent_bidir_reverse: sum,
      sum_received_bidir_reverse: sum,
    };
    expect(tcpOutcome({ end }, usage, 2)).toEqual({
      values: { mbit: 2000, retransmits: 4, cpuSecondsPerGib: 1, cpuPercent: 50, rssMib: 80, peakRssMib: 90 },
      error: null,
    });
  });

  test('UDP: what arrived, not what was offered', () => {
    const sum = { packets: 1000, lost_packets: 250, seconds: 1, jitter_ms: 0.5 };
    expect(udpOutcome({ end: { sum } }, null, 1000)).toEqual({
      values: { mbit: 6, packetsPerSecond: 750, lossPercent: 25, jitterMs: 0.5 },
      error: null,
    });
  });

  test('an error, or nothing, gives no figures', () => {
    expect(tcpOutcome({ error: 'refused' }, null, 1)).toEqual({ values: {}, error: 'refused' });
    expect(tcpOutcome({}, null, 1).error).toBe('no result in the report');
    expect(udpOutcome({ end: { sum: { packets: 0 } } }, null, 64).error).toBe('no datagram arrived');
  });
});

test('latency: percentiles in microseconds, ascending, to three digits', () => {
  const latency = new Latency();
  for (let i = 1; i <= 1000; i++) latency.recordMs(i / 1000);
  const summary = latency.summary();
  expect(summary.count).toBe(1000);
  expect(Math.abs(summary.p50Us - 500)).toBeLessThan(2);
  expect(Math.abs(summary.p99Us - 990)).toBeLessThan(2);
  const curve = summary.distribution.map(([, us]) => us);
  expect(curve).toEqual([...curve].sort((a, b) => a - b));
});

describe('soak', () => {
  const samples = (rss: (second: number) => number, descriptors = (_: number) => 50) =>
    Array.from({ length: 30 }, (_, i) => {
      const second = (i + 1) * 10;
      return { second, rssMib: rss(second), descriptors: descriptors(second) };
    });

  test('growth in the first minute only: passed', () => {
    expect(
      judge(
        samples((second) => Math.min(150, 80 + second)),
        [],
      ).passed,
    ).toBe(true);
  });

  /** Every minute a sample meets a burst of connections, a higher one each time. */
  const bursts = (between: (second: number) => number) => (second: number) =>
    second % 60 === 40 ? 500 + 5 * second : between(second);

  test('descriptors: bursts that samples meet by chance, gone in between: passed', () => {
    const { passed, verdict } = judge(
      samples(
        () => 90,
        bursts((second) => 75 + (second % 30)),
      ),
      [],
    );
    expect(verdict).toContain('descriptors did not grow: at least 75 in the second minute, 75 in the last');
    expect(passed).toBe(true);
  });

  test.each([
    [
      'between bursts more descriptors stay each minute',
      judge(
        samples(
          () => 90,
          bursts((second) => 75 + (second % 30) + second / 2),
        ),
        [],
      ),
      'descriptors grew: at least 120 in the second minute, 210 in the last',
    ],
    [
      'memory grows on',
      judge(
        samples((second) => 80 + second / 2),
        [],
      ),
      'memory grew',
    ],
    [
      'descriptors grow on',
      judge(
        samples(
          () => 90,
          (second) => second,
        ),
        [],
      ),
      'descriptors grew',
    ],
    [
      'an error',
      judge(
        samples(() => 90),
        ['x'],
      ),
      '1 errors',
    ],
    ['too short', judge(samples(() => 90).slice(0, 9), []), 'too short'],
  ])('%s: failed, and says so', (_, { passed, verdict }, words) => {
    expect(passed).toBe(false);
    expect(verdict).toContain(words);
  });
});

describe('rendering', () => {
  test('Markdown: spread, both ratios, a dash for what was not measured, and what failed', () => {
    const text = markdown(RESULT);
    expect(text).toContain('| TCP, 1 stream, up, MTU 1500 | bucatini | 500 | 300–900 | 0.50 | 2.00 | 0.50 |');
    expect(text).toContain('| TCP, 1 stream, up, MTU 1500 | pasta-new | failed | - | - | - | - |');
    expect(text).toContain('| TCP, 1 stream, up, MTU 1500 | Mbit/s >= 0.5 × direct | 500 | 500 | yes |');
    expect(text).toMatch(/\d+ targets reached, \d+ missed, \d+ not measured in this run\./);
  });

  test('HTML: plots inside, text escaped, nothing to load', async () => {
    const page = await html(RESULT);
    expect(page).toContain('p &lt;old&gt;');
    // Bars of each workload and the percentile curves.
    expect(page.match(/<svg/g)).toHaveLength(3);
    expect(page.replaceAll(/xmlns(:\w+)?="[^"]*"/g, '')).not.toMatch(/https?:|<script|<link/);
  });

  test('comparison: says what it was made from, ours in ratios', () => {
    const page = comparison(RESULT, '2026-01-02-full.json');
    expect(page).toContain('[perf/2026-01-02-full.json]');
    expect(page).toContain(
      '| TCP, 1 stream, up, MTU 1500 | Mbit/s | 1000 | 500 | 200 | 250 | - | 0.50 | 2.00 |',
    );
  });

  test('the newest report: a full one before a later quick one, a soak never', () => {
    const named = (name: string, over: Partial<Result>) => ({ name, result: { ...RESULT, ...over } });
    const soak = { peer: 'p', minutes: 1, samples: [], pieces: {}, errors: [], verdict: '', passed: true };
    const reports = [
      named('2026-01-01-a.json', {}),
      named('2026-01-03-b.json', {}),
      named('2026-01-04-c.json', { mode: 'quick' }),
      named('2026-01-05-d.json', { mode: 'soak', soak }),
    ];
    expect(newestReport(reports)?.name).toBe('2026-01-03-b.json');
    expect(newestReport(reports.slice(2))?.name).toBe('2026-01-04-c.json');
    expect(newestReport(reports.slice(3))).toBeNull();
  });

  test('a file that is none of ours is named', () => {
    expect(() => parseResult('{', 'x.json')).toThrow('x.json: not JSON');
    expect(() => parseResult('{"schema":1}', 'x.json')).toThrow('x.json: not a harness result');
    expect(parseResult(JSON.stringify(RESULT), 'x.json')).toEqual(RESULT);
  });
});
