import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { matrix } from '../../perf/harness/matrix.ts';
import { parseOptions } from '../../perf/harness/options.ts';
import { ageNote, type Guest } from '../../perf/harness/peers.ts';
import { chapters } from '../../perf/harness/report/chapters.ts';
import { repeatArguments } from '../../perf/harness/report/command.ts';
import { comparison, newestReport } from '../../perf/harness/report/comparison.ts';
import { percentilePlot, scalingPlots } from '../../perf/harness/report/curves.ts';
import { gainsText } from '../../perf/harness/report/gains.ts';
import { html } from '../../perf/harness/report/html.ts';
import { markdown } from '../../perf/harness/report/markdown.ts';
import { overviewSvg, overviewTable } from '../../perf/harness/report/overview.ts';
import { Figures, median, ratio } from '../../perf/harness/report/statistics.ts';
import { boundText, judgeTarget } from '../../perf/harness/report/verdicts.ts';
import {
  type Measurement,
  type Metric,
  parseResult,
  type Result,
  SCHEMA,
} from '../../perf/harness/result.ts';
import { judge, type SoakRecord } from '../../perf/harness/soak.ts';
import { TARGETS, type Target } from '../../perf/harness/targets.ts';
import { Latency } from '../../perf/harness/traffic/latency.ts';
import { runClient } from '../../perf/harness/workloads/context.ts';
import {
  type IperfReport,
  type IperfSum,
  joined,
  tcpOutcome,
  udpOutcome,
} from '../../perf/harness/workloads/iperf.ts';
import { idle, torrentOutcome } from '../../perf/harness/workloads/others.ts';
import { streamOutcome } from '../../perf/harness/workloads/streams.ts';

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
  it('median: odd count, even count, empty list', () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 2, 3])).toBe(2.5);
    expect(median([])).toBeNull();
  });

  it('summary: median, lowest and highest; a failed run is left out', () => {
    expect(figures.summary(UP, 'bucatini', 'mbit')).toEqual({ median: 500, low: 300, high: 900, rounds: 3 });
    expect(figures.summary(UP, 'pasta-new', 'mbit')).toBeNull();
  });

  it('best peer: a stock tool, with most throughput or least CPU', () => {
    expect(figures.best(UP, 'mbit')).toEqual({ peer: 'slirp4netns', median: 250 });
    expect(figures.best(UP, 'cpuSecondsPerGib')).toEqual({ peer: 'pasta', median: 0.6 });
    expect(figures.best('none', 'mbit')).toBeNull();
  });

  it('ratio: null without a base or a value', () => {
    expect(ratio(1, 4)).toBe(0.25);
    expect(ratio(1, 0)).toBeNull();
    expect(ratio(null, 1)).toBeNull();
  });

  it('percentiles of several rounds: the median of each', () => {
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

  it.each([
    ['at the bound', {}, 500, true],
    ['below it', { factor: 0.51 }, 510, false],
    ['above the best peer', { op: '>', reference: 'best', factor: 1 }, 250, true],
    ['another peer than bucatini', { peer: 'slirp4netns' }, 500, false],
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

  it('a target without figures: neither reached nor missed', () => {
    expect(judged({ cell: 'none' }).reached).toBeNull();
    expect(judged({ reference: 'newest-pasta' }).reached).toBeNull();
    expect(judged({ reference: 'newest-bypass4netns' }).reached).toBeNull();
    expect(judged({ peer: 'bucatini-switch' })).toMatchObject({ measured: null, reached: null });
    expect(judged({ reference: 'ours', than: [UP, 'none'] }).reached).toBeNull();
  });

  it('our cell failed in most rounds: missed; in one round of three: a note beside the figure', () => {
    const rounds = (...errors: (string | null)[]) =>
      new Figures({
        ...RESULT,
        measurements: [
          one(UP, 'direct', { mbit: 1000 }),
          ...errors.map((error, i) => one(UP, 'bucatini', error === null ? { mbit: 900 } : {}, i + 1, error)),
        ],
      });
    const target: Target = {
      text: 't',
      cell: UP,
      metric: 'mbit',
      op: '>=',
      reference: 'direct',
      factor: 0.5,
    };
    expect(judgeTarget(rounds('dead', 'dead', 'dead'), target).reached).toBe(false);
    expect(judgeTarget(rounds('dead', null, 'dead'), target).reached).toBe(false);
    // One of two rounds: the median is not meaningful.
    expect(judgeTarget(rounds('dead', null), target).reached).toBe(false);
    expect(judgeTarget(rounds(null, 'dead', null), target).reached).toBe(true);
    expect(markdown(rounds(null, 'dead', null).result)).toContain(
      '| bucatini | 900 | 900–900 (1 of 3 failed) |',
    );
  });

  it('several cells of ours: the better one counts', () => {
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

    it('per GiB: the bound is that of a peer with a tenth of our rate', () => {
      expect(judgeTarget(stalled(999, 113), perGib)).toMatchObject({ bound: 0.5, reached: true });
      const noneCounts = { ...perGib, carrying: { shareOfOurs: 0.2 } };
      expect(judgeTarget(stalled(999, 113), noneCounts)).toMatchObject({ bound: null, reached: null });
    });

    it.each([
      [998, 113, 15, true],
      [998, 900, 1, false],
      [200, 113, 15, false],
    ])('paced: ours at %i, a peer at %i Mbit/s: bound %i, reached %s', (ours, peer, bound, reached) => {
      expect(judgeTarget(stalled(ours, peer), paced)).toMatchObject({ bound, reached });
    });

    it('newest pasta carries nothing: no bound', () => {
      const torrent: Target = { ...perGib, reference: 'newest-pasta', carrying: { shareOfOurs: 0.1 } };
      const without = { ...RESULT, peers: RESULT.peers.filter(({ name }) => name !== 'pasta-new') };
      const { measurements } = stalled(999, 113).result;
      expect(judgeTarget(new Figures({ ...without, measurements }), torrent).reached).toBeNull();
      const unmeasured = [
        ...measurements.filter(({ peer }) => peer !== 'pasta'),
        one(UP, 'pasta', { cpuSecondsPerGib: 0.1 }),
      ];
      expect(judgeTarget(new Figures({ ...without, measurements: unmeasured }), torrent).bound).toBeNull();
    });

    it('every target that compares CPU with the best peer: has a minimum rate for the peer', () => {
      const ofPeers = TARGETS.filter((t) => t.reference === 'best' && t.metric.startsWith('cpu'));
      expect(ofPeers).toHaveLength(6);
      for (const t of ofPeers) expect(t.carrying, t.text).toBeDefined();
      expect(boundText(paced)).toBe('<= the best peer (of those that carried >= 900 Mbit/s)');
      expect(boundText(perGib)).toContain('0.1 × our rate');
    });
  });

  it('bound text: operator, factor, reference', () => {
    const text = { text: '', cell: UP, metric: 'mbit' as const };
    expect(boundText({ ...text, op: '>=', reference: 'best', factor: 10 })).toBe('>= 10 × the best peer');
    expect(boundText({ ...text, op: '<=', reference: 'direct', factor: 1, plus: 2 })).toBe('<= direct + 2');
    expect(boundText({ ...text, op: '<=', reference: 'fixed', factor: 95.4 })).toBe('<= 95.4');
  });
});

describe('iperf3 reports', () => {
  const usage = { cpuSeconds: 1, rssMib: 80, peakRssMib: 90 };

  it('both directions at once: added', () => {
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

  it('several transfers at once: added, with their streams; a failed one fails all', () => {
    const report = (bytes: number, seconds: number): IperfReport => {
      const all = { bits_per_second: 8 * bytes, bytes, retransmits: 1, seconds };
      return { end: { sum_sent: all, sum_received: all, streams: [{ receiver: all }] } };
    };
    const both = joined([report(1e8, 2), report(3e8, 1.9)]);
    expect(both.end?.sum_received).toEqual({
      bits_per_second: 3.2e9,
      bytes: 4e8,
      retransmits: 2,
      seconds: 1.9,
    });
    expect(both.end).not.toHaveProperty('sum_sent_bidir_reverse');
    expect(tcpOutcome(both, null, 2)).toEqual({ values: { mbit: 3200, retransmits: 2 }, error: null });
    expect(tcpOutcome(joined([report(1e8, 2), report(0, 2)]), null, 2).error).toBe(
      '1 of 2 streams carried nothing',
    );
    expect(joined([report(1, 1), { error: 'refused' }])).toEqual({ error: 'refused' });
    expect(joined([report(1, 1)])).toEqual(report(1, 1));
  });

  it('TCP, the receiver got nothing: zero with a note', () => {
    const sent = { bits_per_second: 5e6, bytes: 6e5, retransmits: 0, seconds: 1 };
    const nothing = { bits_per_second: 0, bytes: 0, seconds: 1 };
    const { values, error } = tcpOutcome({ end: { sum_sent: sent, sum_received: nothing } }, usage, 1);
    expect(values).toMatchObject({ mbit: 0, cpuPercent: 100 });
    expect(values).not.toHaveProperty('cpuSecondsPerGib');
    expect(error).toBe('the receiver got nothing');
  });

  it('TCP, a stalled direction or stream, an early end: figures with a note', () => {
    const sum = { bits_per_second: 1e9, bytes: 1e8, seconds: 1 };
    const nothing = { bits_per_second: 0, bytes: 0, seconds: 1 };
    const both = { sum_received: sum, sum_received_bidir_reverse: nothing };
    expect(tcpOutcome({ end: both }, null, 1)).toMatchObject({
      values: { mbit: 1000 },
      error: 'one direction carried nothing',
    });
    const streams = [sum, nothing, sum, nothing].map((receiver) => ({ receiver }));
    expect(tcpOutcome({ end: { sum_received: sum, streams } }, null, 1).error).toBe(
      '2 of 4 streams carried nothing',
    );
    expect(tcpOutcome({ end: { sum_received: sum } }, null, 3).error).toBe(
      'the transfer ended after 1.0 of 3 s',
    );
  });

  /** iperf3 3.12 with -u -l 8192: figures of the sender and of the receiver. */
  const datagrams = (got: Partial<IperfSum>): IperfReport => {
    const sent = { seconds: 1, bytes: 12_492_800, bits_per_second: 99_931_607, packets: 1525, jitter_ms: 0 };
    return {
      end: {
        sum: { ...sent, jitter_ms: got.jitter_ms ?? 0 },
        sum_sent: sent,
        sum_received: { seconds: 1, ...got },
      },
    };
  };

  it('UDP: the received rate, not the offered one', () => {
    const report = datagrams({ bytes: 1000 * 8192, packets: 1525, jitter_ms: 0.5 });
    expect(udpOutcome(report, null, 8192, 1)).toEqual({
      values: {
        mbit: 65.536,
        packetsPerSecond: 1000,
        lossPercent: 100 * (1 - 1000 / 1525),
        jitterMs: 0.5,
      },
      error: null,
    });
  });

  it('UDP, the receiver got nothing: zero with a note, though `sum` reports success', () => {
    const report = datagrams({ bytes: 0, packets: 0, jitter_ms: 0 });
    expect(report.end?.sum).toMatchObject({ bytes: 12_492_800, bits_per_second: 99_931_607 });
    expect(udpOutcome(report, usage, 8192, 1)).toEqual({
      values: { mbit: 0, packetsPerSecond: 0, lossPercent: 100, cpuPercent: 100, rssMib: 80, peakRssMib: 90 },
      error: 'the receiver got nothing',
    });
  });

  it('UDP, an early end, or no figures of the receiver: a note', () => {
    expect(udpOutcome(datagrams({ bytes: 8192 }), null, 8192, 2).error).toBe(
      'the transfer ended after 1.0 of 2 s',
    );
    const { error, values } = udpOutcome({ end: { sum: { bytes: 1e6, packets: 10 } } }, null, 8192, 1);
    expect(values).toEqual({});
    expect(error).toContain('what the receiver got');
  });

  it('an error or an empty report: no figures', () => {
    expect(tcpOutcome({ error: 'refused' }, null, 1)).toEqual({ values: {}, error: 'refused' });
    expect(tcpOutcome({}, null, 1).error).toBe('no result in the report');
    expect(udpOutcome({}, null, 64, 1).error).toBe('no result in the report');
    expect(udpOutcome({ error: 'refused' }, null, 64, 1)).toEqual({ values: {}, error: 'refused' });
  });
});

describe('reports of other clients', () => {
  const answers = { count: 90, perSecond: 90, p50Us: 1, p99Us: 2e6, p999Us: 2e6, distribution: [] };

  it('requests: failures get a note; no answer or a dead server: no figures', () => {
    expect(streamOutcome({ ...answers, failed: 0 }, null, 1, true).error).toBeNull();
    expect(streamOutcome({ ...answers, failed: 3 }, null, 1, true)).toMatchObject({
      values: { perSecond: 90, p99Us: 2e6 },
      error: expect.stringContaining('3 attempts failed'),
    });
    expect(streamOutcome({ ...answers, count: 0, failed: 9 }, null, 1, true)).toEqual({
      values: {},
      error: 'nothing was answered, 9 attempts failed',
    });
    expect(streamOutcome({ ...answers, failed: 0 }, null, 1, false)).toEqual({
      values: {},
      error: 'the server died',
    });
  });

  const SENT = 62_500; // 3 s of 200 Mbit/s in 1200 B
  it.each([
    ['all is well', [SENT, SENT, SENT, SENT], 0, null],
    ['nobody got anything', [SENT, 0, 0, 0], 100, 'the receiver got nothing'],
    ['one way only', [SENT, 0, SENT, SENT], 50, 'nothing arrived at the guest'],
    ['a guest that is held up', [100, SENT, SENT, 100], 0, 'the guest sent only 0 % of the load'],
  ] as const)('torrent: %s', (_, [guestSent, guestGot, peersSent, peersGot], loss, error) => {
    const guest = { sent: guestSent, received: guestGot };
    const outcome = torrentOutcome(guest, { sent: peersSent, received: peersGot }, null, 3);
    expect(outcome.error).toBe(error);
    expect(outcome.values.lossPercent).toBeCloseTo(loss);
  });

  it('torrent, the guest could not send: failed', () => {
    expect(torrentOutcome({ sent: 0, received: 0 }, { sent: 0, received: 0 }, null, 3).values).toEqual({});
  });

  it('idle, the tool has ended: no figures, and it is not the best peer', async () => {
    const guest = { toolPids: [999_999_999], holder: '', alive: () => false, words: () => 'bye' };
    const outcomes = await idle(
      [{ name: 'pasta', guest: guest as unknown as Guest }],
      0,
      new AbortController().signal,
    );
    expect(outcomes.get('pasta')).toEqual({ values: {}, error: 'the tool died: bye' });
  });

  it('a client killed during its report: failed', async () => {
    const half = ['sh', '-c', 'echo \'{"end":\'; exec sleep 60'] as const;
    await expect(runClient(half, 300, new AbortController().signal)).rejects.toThrow(
      'the client ended in the middle of its report: no answer in 0.3 s',
    );
  });
});

it('latency: percentiles in microseconds, ascending, to three digits', () => {
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
  const MINUTES = 30;
  const carried = (n = 5) =>
    Object.fromEntries(
      [
        'tcp up',
        'tcp down',
        'tcp both ways',
        '1,000 flows',
        'udp 1400 up',
        'udp 64 down',
        'udp fragments up',
        'torrent',
        'requests',
        'connections',
        'connections in',
      ].map((name) => [name, n]),
    );
  const judged = (
    rss: (second: number) => number,
    descriptors: (second: number) => number = () => 50,
    over: Partial<SoakRecord> = {},
  ) =>
    judge({
      minutes: MINUTES,
      errors: [],
      pieces: carried(),
      samples: Array.from({ length: MINUTES * 6 }, (_, i) => {
        const second = (i + 1) * 10;
        return { second, rssMib: rss(second), descriptors: descriptors(second) };
      }),
      ...over,
    });
  /** A heap with a garbage collection every 70 s. */
  const sawtooth = (second: number) => 120 + (second % 70) / 10;
  /** One sample per minute falls into a burst of connections, which grows each time. */
  const bursts = (between: (second: number) => number) => (second: number) =>
    second % 60 === 40 ? 500 + 5 * second : between(second);

  it.each([
    ['growth in the first two minutes only', judged((second) => Math.min(130, 80 + second / 3))],
    ['a heap that goes up and down, its highest the same', judged(sawtooth)],
    ['a rise of just below 3 % in all', judged((second) => 130 + Math.max(0, second - 180) * (3.8 / 1620))],
    ['memory that is given back', judged((second) => (second < 200 ? 140 : 120))],
  ])('%s: passed', (_, { passed, verdict }) => {
    expect(verdict).toContain('memory did not grow');
    expect(passed).toBe(true);
  });

  it('descriptors: short bursts in single samples: passed', () => {
    const { passed, verdict } = judged(
      () => 90,
      bursts((second) => 75 + (second % 30)),
    );
    expect(verdict).toContain('descriptors did not grow: at least 75 in the third minute, 75 in the last');
    expect(passed).toBe(true);
  });

  it.each([
    [
      'a leak of a fifth of a MiB a minute under a heap that goes up and down',
      judged((second) => sawtooth(second) + second / 300),
      /memory grew: at most 126\.4 MiB in the third minute, 131\.8 MiB later \(\+4\.2 %\)/,
    ],
    ['one step of 3.5 % late in the run', judged((second) => (second > 1700 ? 134.6 : 130)), /memory grew/],
    [
      'growth that ends with the fourth minute',
      judged((second) => 80 + Math.min(240, second) / 4),
      /memory grew/,
    ],
    [
      'between bursts more descriptors stay each minute',
      judged(
        () => 90,
        bursts((second) => 75 + (second % 30) + Math.floor(second / 20)),
      ),
      /descriptors grew: at least 82 in the third minute, 163 in the last/,
    ],
    ['an error', judged(() => 90, undefined, { errors: ['x'] }), /^1 error;/],
    [
      'a kind of load that was never carried',
      judged(() => 90, undefined, { pieces: { ...carried(), torrent: 0 } }),
      /never carried: torrent/,
    ],
    ['ended early', judged(() => 90, undefined, { minutes: 40 }), /ended after 1800 s of 40 minutes/],
    ['too short', judged(() => 90, undefined, { minutes: 3, samples: [] }), /too short to judge growth/],
  ])('%s: failed, and says so', (_, { passed, verdict }, words) => {
    expect(verdict).toMatch(words);
    expect(passed).toBe(false);
  });
});

describe('scaling', () => {
  const id = (streams: number, direction: string) => `scaling-${streams}-${direction}-65520`;
  const cells = [1, 16].flatMap((streams) =>
    ['up', 'down'].map((direction) => ({
      id: id(streams, direction),
      workload: 'scaling',
      text: `TCP, ${streams} streams, ${direction}`,
      mtu: 65520,
      seconds: 2,
    })),
  );
  const lanes = (count: number) => ({
    name: `bucatini-lanes-${count}`,
    kind: 'bucatini' as const,
    version: '1',
    threads: `lanes=${count}`,
  });
  const result: Result = {
    ...RESULT,
    mode: 'scaling',
    peers: [RESULT.peers[0]!, lanes(1), lanes(2)],
    cells,
    measurements: [
      ...cells.map((cell) => one(cell.id, 'direct', { mbit: 80_000 })),
      one(id(1, 'up'), 'bucatini-lanes-1', { mbit: 20_000, cpuSecondsPerGib: 0.4 }),
      one(id(1, 'up'), 'bucatini-lanes-2', { mbit: 19_000, cpuSecondsPerGib: 0.42 }),
      one(id(16, 'up'), 'bucatini-lanes-1', { mbit: 14_000, cpuSecondsPerGib: 0.5 }),
      one(id(16, 'up'), 'bucatini-lanes-2', { mbit: 20_000, cpuSecondsPerGib: 0.6 }),
      one(id(16, 'up'), 'bucatini-lanes-2', { mbit: 22_000, cpuSecondsPerGib: 0.6 }, 2),
      one(id(16, 'down'), 'bucatini-lanes-2', {}, 1, 'refused'),
    ],
    notes: [],
  };

  it('table: by number of lanes, ratio to one lane of the same cell; no targets', () => {
    const text = markdown(result);
    expect(text).toContain('| cell | threads | Gbit/s | min–max | / lanes=1 | CPU s/GiB | / direct |');
    expect(text).toContain(
      '| TCP, 16 streams, up, MTU 65520 | lanes=2 | 21.00 | 20.00–22.00 | 1.50 | 0.60 | 0.26 |',
    );
    expect(text).toContain(
      '| TCP, 1 streams, up, MTU 65520 | direct | 80.00 | 80.00–80.00 | 4.00 | - | 1.00 |',
    );
    expect(text).toContain('| TCP, 16 streams, down, MTU 65520 | lanes=2 | failed | - | - | - | - |');
    expect(text).not.toContain('Targets');
  });

  it('plot: a line per number of streams, a plot per direction; none without lanes', () => {
    const page = html(result);
    expect(page).toContain('aria-label="TCP up, MTU 65520"');
    expect(page).not.toContain('Targets');
    const [up] = scalingPlots(new Figures(result));
    expect(up?.lines.map(({ name }) => name)).toEqual([
      ...['1 stream', 'direct, 1 stream', '16 streams', 'direct, 16 streams'],
    ]);
    expect(up?.lines[2]?.points.map(({ detail }) => detail)).toEqual([
      '1 lane, 14.00 Gbit/s',
      '2 lanes, 21.00 Gbit/s',
    ]);
    expect(scalingPlots(new Figures({ ...result, peers: [RESULT.peers[0]!] }))).toEqual([]);
  });

  it('is no report for the comparison', () => {
    expect(newestReport([{ name: '2026-01-06-e.json', result }])).toBeNull();
  });
});

describe('rendering', () => {
  it('Markdown: spread, both ratios, a dash for cells not measured, and the failures', () => {
    const text = markdown(RESULT);
    expect(text).toContain('| TCP, 1 stream, up, MTU 1500 | bucatini | 500 | 300–900 | 0.50 | 2.00 | 0.50 |');
    expect(text).toContain('| TCP, 1 stream, up, MTU 1500 | pasta-new | failed | - | - | - | - |');
    expect(text).toContain('| TCP, 1 stream, up, MTU 1500 | Mbit/s >= 0.5 × direct | 500 | 500 | yes |');
    expect(text).toMatch(
      /\d+ targets? \(stretch goals left aside\) reached, \d+ missed; \d+ others not measured in this run\./,
    );
  });

  it('a partial run: figures first, then only the targets with figures', () => {
    const text = markdown(RESULT);
    expect(text).not.toMatch(/\| not measured \|/);
    expect(text.indexOf('## TCP throughput')).toBeLessThan(text.indexOf('## Targets'));
    expect(html(RESULT)).not.toContain('<td>not measured');
    const nothing = markdown({ ...RESULT, cells: [], measurements: [] });
    expect(nothing).toMatch(
      /^0 targets \(stretch goals left aside\) reached, 0 missed; \d+ others not measured in this run\.$/m,
    );
  });

  /** A result with every cell of the matrix, all measured by all. */
  const everything = (): Result => {
    const cells = matrix({ mtus: [65520, 1500] });
    const values = { mbit: 23_456, p50Us: 80, p99Us: 90, perSecond: 9000, startMs: 50, rssMib: 30 };
    const more = { cpuSecondsPerGib: 0.3, cpuPercent: 5, cpuTicks: 1, packetsPerSecond: 1e5, lossPercent: 1 };
    const measurements = cells.flatMap(({ id }) => [
      { ...one(id, 'direct', { ...values, ...more }), distribution: [[50, 80]] as const },
      one(id, 'bucatini', { ...values, ...more }),
    ]);
    return { ...RESULT, cells, measurements };
  };

  it('HTML: the summary first, the chapters in order, the targets last', () => {
    const page = html(everything());
    const titles = [...page.matchAll(/<h2 id="[^"]*">([^<]*)</g)].map(([, title]) => title);
    expect(titles).toEqual([
      ...['Summary', 'Throughput', 'Latency and connections', 'UDP', 'Processor time', 'Start and memory'],
      ...['The machine, and how to repeat this', 'Targets'],
    ]);
    expect([...page.matchAll(/<li><a href="#([^"]*)">/g)].map(([, id]) => id)).toEqual(
      [...page.matchAll(/<h2 id="([^"]*)">/g)].map(([, id]) => id),
    );
    expect(page.indexOf('<figure')).toBeLessThan(page.indexOf('id="throughput"'));
  });

  it('every workload of the matrix has a chart and a table in a chapter of its own', () => {
    const all = chapters(new Figures(everything()));
    expect(all.map(({ id }) => id)).not.toContain('others');
    const shown = all.flatMap(({ sections }) => sections.flatMap(({ cells }) => cells));
    expect(shown.sort()).toEqual(
      everything()
        .cells.map(({ id }) => id)
        .sort(),
    );
    const unknown = { id: 'new-1500', workload: 'new', text: 'new', mtu: 1500, seconds: 1 };
    const later = { ...RESULT, cells: [unknown], measurements: [one('new-1500', 'bucatini', { mbit: 1 })] };
    expect(chapters(new Figures(later))).toMatchObject([{ id: 'others', charts: [{ title: 'New' }] }]);
  });

  it('charts: groups in matrix order, numeric and not alphabetic; Gbit/s; a word where a tool failed', () => {
    const result = everything();
    const failed = result.measurements.map((m) =>
      m.peer === 'bucatini' && m.cell === 'tcp-1-up-65520' ? { ...m, values: {}, error: 'it <died>' } : m,
    );
    // The order in the file does not matter.
    const cells = [...result.cells].reverse().sort((a, b) => b.mtu - a.mtu);
    const all = chapters(new Figures({ ...result, cells, measurements: failed }));
    const [tcp] = all[0]?.charts ?? [];
    expect(tcp).toMatchObject({ title: 'TCP, MTU 65520', unit: 'Gbit/s, more is better' });
    expect(tcp?.groups.map(({ title }) => title)).toEqual(
      [1, 4, 16].flatMap((n) =>
        ['up', 'down', 'both ways at once'].map((way) => `${n} stream${n === 1 ? '' : 's'}, ${way}`),
      ),
    );
    expect(tcp?.groups[0]?.bars).toMatchObject([
      { peer: 'direct', value: 23_456, text: '23.5' },
      { peer: 'bucatini', value: null, text: 'failed', detail: 'it <died>' },
    ]);
    expect(all[1]?.charts[0]?.groups.map(({ title }) => title)).toEqual(['1 B', '64 B', '1024 B']);
    const page = html({ ...result, measurements: failed });
    expect(page).toContain('>failed <span>it &lt;died&gt;</span>');
    expect(page).toContain('<span class="fig">23.5</span>');
  });

  it('percentiles: from the median on, ten times rarer with each step', () => {
    const plot = percentilePlot(figures, RR, 't');
    expect(plot?.lines).toMatchObject([{ name: 'bucatini', classes: 'p1' }]);
    expect(plot?.lines[0]?.points.map(({ x, detail }) => [x, detail])).toEqual([
      [0, 'p50 105.0 µs'],
      [1, 'p99 230.0 µs'],
    ]);
    expect(plot?.x.map(({ text }) => text)).toEqual(['50', '90', '99']);
    expect(percentilePlot(figures, UP, 't')).toBeNull();
  });

  it('p95: from the distribution, where a result has none', () => {
    const p95 = { ...one(RR, 'bucatini', { p50Us: 1 }), distribution: [[95, 120]] as const };
    const also = new Figures({ ...RESULT, measurements: [p95] });
    expect(also.metrics(RR)).toEqual(['p50Us', 'p95Us']);
    expect(also.median(RR, 'bucatini', 'p95Us')).toBe(120);
  });

  it('HTML: `code` elements, figures without line breaks, light and dark scheme, for phone and print', () => {
    const cells = RESULT.cells.map((cell) => ({ ...cell, text: 'start of `true`' }));
    const page = html({ ...RESULT, cells });
    expect(page).toContain('start of <code>true</code>');
    expect(page.replace(/<script>.*<\/script>/s, '')).not.toContain('`');
    for (const word of ['prefers-color-scheme: dark', '@media print', 'width=device-width'])
      expect(page).toContain(word);
    expect(page).toMatch(/\.n \{[^}]*nowrap/);
  });

  it('HTML: text escaped, whole without scripts, nothing external', () => {
    const page = html(RESULT);
    expect(page).toContain('p &lt;old&gt;');
    expect(page).toContain("default-src 'none'");
    const still = page.replace(/<script>.*<\/script>/s, '');
    expect(still).not.toMatch(/https?:|<script|<link|\ssrc=|\shref="[^#]|url\(/);
    expect(page).toContain('pasta-new, a | b');
    for (const { name } of RESULT.peers) expect(still).toContain(`</span>${name}</label>`);
    // A peer is hidden by style alone.
    expect(still).toContain('body:has(#peer1:not(:checked)) .p1:not(label)');
  });

  it('the command that repeats a run: what differs from the defaults, files as FILE', () => {
    const made = (over: Partial<Result>) => repeatArguments({ ...RESULT, ...over }).join(' ');
    expect(made({})).toBe('--full --peers direct,bucatini,pasta,slirp4netns,pasta-new=FILE');
    const four = RESULT.peers.slice(0, 4);
    const options = {
      mode: 'only',
      only: 'rr,tcp-1',
      mtus: '1500',
      rounds: 7,
      seconds: null,
      idleSeconds: 5,
    };
    expect(made({ mode: 'only', peers: four, options })).toBe(
      '--only rr,tcp-1 --rounds 7 --mtu 1500 --idle 5',
    );
    const line = { mode: 'full', tcpWmem: '1 2 3', line: '10,500,2048,0' };
    expect(made({ peers: four, options: line })).toBe('--full --tcp-wmem 1,2,3 --wan 10,500,2048,0');
    for (const argv of [made({}).replace('=FILE', '=/p'), made({ mode: 'only', options, peers: four })])
      expect(() => parseOptions(argv.split(' '))).not.toThrow();
  });

  it('an old build of a stock tool: marked as old, by date for passt', () => {
    const now = new Date('2026-11-28');
    expect(ageNote('pasta', 'pasta 0.0~git20230309.7c7625d-1', now)).toContain(
      'pasta is of 2023-03, 3 years old',
    );
    expect(ageNote('pasta', 'pasta 0.1.0 (bucatini)', now)).toContain('not the original');
    expect(ageNote('pasta', 'pasta 2024_11_27.1', now)).toContain('2 years old');
    expect(ageNote('pasta', 'pasta 2024_12_27.1', now)).toBeNull();
    expect(ageNote('pasta-new', 'pasta 0.0~git20261002.1', now)).toBeNull();
    expect(ageNote('slirp4netns', 'slirp4netns version 1.3.3', now)).toBeNull();
  });

  it('comparison: the summary first, sources, our figures as ratios, its charts as files', () => {
    const files = (result: Result) => comparison(result, '2026-01-02-full.json');
    const [{ text: page } = { text: '' }] = files(RESULT);
    expect(page.indexOf('## In short')).toBeLessThan(page.indexOf('## How it was measured'));
    expect(page).toContain('[perf/2026-01-02-full.json]');
    expect(page).toContain('bucatini ran on Node.'); // the report does not say it
    const onBun = { ...RESULT, machine: { ...RESULT.machine, runtime: 'Bun' } };
    expect(files(onBun)[0]?.text).toContain('bucatini ran on Bun.');
    expect(page).toContain(
      '| TCP, 1 stream, up, MTU 1500 | Mbit/s | 1000 | 500 | 200 | 250 | - | 0.50 | 2.00 |',
    );
    const names = files(everything()).map(({ name }) => name);
    expect(names).toEqual([
      ...['comparison.md', 'comparison.svg', 'comparison-throughput.svg'],
      ...['comparison-latency.svg', 'comparison-udp.svg', 'comparison-cost.svg'],
    ]);
    expect(files(RESULT).map(({ name }) => name)).toContain('comparison.svg');
    for (const { name, text } of files(everything()).slice(1)) {
      expect(text, name).toContain('prefers-color-scheme: dark');
      expect(text, name).not.toMatch(/NaN|undefined|Infinity/);
    }
    for (const name of names.slice(1)) expect(files(everything())[0]?.text).toContain(`](${name})`);
  });

  it('overview: newest build of each tool, better or worse in words, a word where there is no figure', () => {
    expect(overviewTable(RESULT)?.head).toEqual([
      ...['what', 'unit', 'bucatini', 'pasta', 'slirp4netns', 'bucatini is', 'no tool'],
    ]);
    expect(overviewTable(RESULT)?.rows).toContainEqual([
      ...['TCP upload, MTU 1500', 'Mbit/s', '500', 'failed', '250', '2.0 × better', '1000'],
    ]);
    expect(overviewTable({ ...RESULT, measurements: [] })).toBeNull();
    const rr = (p50Us: number) =>
      overviewTable({
        ...RESULT,
        measurements: [one(RR, 'bucatini', { p50Us }), one(RR, 'pasta-new', { p50Us: 100 })],
      })?.rows[0]?.slice(2);
    expect(rr(50)).toEqual(['50.0', '100.0', '-', '2.0 × better']);
    expect([rr(103)?.at(-1), rr(200)?.at(-1)]).toEqual(['equal', '2.0 × worse']);
    const text = overviewSvg(RESULT);
    const widths = [...text.matchAll(/width="([\d.]+)" height="13"/g)].map(([, width]) => Number(width));
    expect(widths).toHaveLength(6);
    expect(widths[1]).toBe(1);
    expect(widths[2]! / widths[0]!).toBeCloseTo(0.5, 2);
    expect(text).toContain('>failed<');
  });

  it('README: three bullets with factors, date and versions; the kept ones are those of the newest report', () => {
    const few = gainsText(RESULT);
    expect(few).toContain('Measured on 2026-01-02 with bucatini 1 (commit abc, on Node) on 2 processors.');
    const cells = ['tcp-1-up-65520', 'tcp-1-down-65520', 'connect-out-65520', 'flows-10000-65520'];
    const measurements = cells.flatMap((cell) => [
      one(cell, 'bucatini', { mbit: 20_000, perSecond: 10_000 }),
      one(cell, 'pasta', { mbit: 5000, perSecond: 4000, flows: 5400 }),
      one(cell, 'slirp4netns', {}, 1, 'refused'),
    ]);
    expect(
      gainsText({ ...RESULT, measurements })
        .split('\n')
        .slice(0, 3),
    ).toEqual([
      '- **Throughput:** one TCP stream uploads 20.0 Gbit/s (4.0 times as much) and downloads 20.0 Gbit/s (4.0 times).',
      '- **Connections:** 10,000 new ones per second, 2.5 times as many.',
      '- **Many connections:** beside 10,000 idle ones a busy stream uploads 20.0 Gbit/s (pasta 5.00 Gbit/s, and only 5,400 could be opened; slirp4netns failed: refused).',
    ]);
    const read = (name: string) => readFileSync(new URL(`../../${name}`, import.meta.url), 'utf8');
    const reports = readdirSync(new URL('../../perf/', import.meta.url))
      .filter((name) => /^\d{4}-\d{2}-\d{2}-.*\.json$/.test(name))
      .map((name) => ({ name, result: parseResult(read(`perf/${name}`), name) }));
    const newest = newestReport(reports);
    if (newest === null) throw new Error('perf/ has no report');
    expect(read('README.md'), 'npm run comparison').toContain(gainsText(newest.result));
    expect(read('docs/comparison.md'), 'npm run comparison').toContain(`perf/${newest.name}`);
  });

  it('newest report: a full one has precedence over a later quick one; a soak never counts', () => {
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

  it('a file that is no harness result: the error names it', () => {
    expect(() => parseResult('{', 'x.json')).toThrow('x.json: not JSON');
    expect(() => parseResult('{"schema":1}', 'x.json')).toThrow('x.json: not a harness result');
    expect(parseResult(JSON.stringify(RESULT), 'x.json')).toEqual(RESULT);
    const broken = (over: object) => () => parseResult(JSON.stringify({ ...RESULT, ...over }), 'x.json');
    expect(broken({ cells: {} })).toThrow('x.json: not a harness result: cells is not a list');
    expect(broken({ peers: [{ name: 'p', kind: 'vde', version: '' }] })).toThrow(
      'peers[0]: kind is not one of',
    );
    expect(broken({ measurements: [{ ...one(UP, 'p', {}), values: null }] })).toThrow(
      'measurements[0]: values is not a record of numbers',
    );
    expect(broken({ measurements: [null] })).toThrow('measurements[0]: not a record');
    expect(broken({ machine: {} })).toThrow('machine lacks a field');
    expect(broken({ soak: { samples: 1 } })).toThrow('soak lacks a field');
  });
});
