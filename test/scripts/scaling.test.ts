import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import {
  enginesNs,
  handedOverShare,
  type LanesOptions,
  lanesBound,
  lanesByHash,
  measuredRate,
  pipelineBound,
  poolRuns,
} from '../../perf/scaling/model.ts';
import { report } from '../../perf/scaling/report.ts';
import { parseIperf, parseRuns, parseStats, type Run, type RunsFile } from '../../perf/scaling/runs.ts';
import { repoRoot } from '../support/engines.ts';

const GB = 1e9;
/** 1 GB in 1 s; each end uses 0.2 s. */
const RUN: Run = {
  plan: 'fused',
  protocol: 'tcp',
  direction: 'up',
  streams: 16,
  round: 1,
  seconds: 1,
  bytes: GB,
  datagrams: 0,
  clientSeconds: 0.2,
  serverSeconds: 0.2,
  idleCores: 1.1,
  threads: {},
};
const cpu = (ms: number, over: Record<string, number> = {}) => ({
  cpuUserUs: ms * 400,
  cpuSystemUs: ms * 600,
  ...over,
});
const FUSED: Run = {
  ...RUN,
  threads: { fused: cpu(510, { framesFromGuest: 900, framesToGuest: 100, sockSendBytes: GB }) },
};
const LANES: Run = {
  ...RUN,
  plan: 'lanes=2',
  threads: {
    'lane 0': cpu(310, { framesFromGuest: 600, handedOver: 100, sockSendBytes: 0.5 * GB, wakes: 6 }),
    'lane 1': cpu(210, { framesFromGuest: 400, sockSendBytes: 0.5 * GB, handOverFull: 3 }),
  },
};
const PIPELINE: Run = {
  ...RUN,
  plan: 'pipeline=1',
  threads: {
    reader: cpu(350, { framesFromGuest: 1000 }),
    'shard 0': cpu(150, { framesToGuest: 10 }),
    'host-io': cpu(200, { sockSendBytes: GB }),
  },
};
const FILE: RunsFile = {
  schema: 1,
  date: '2026-01-02',
  machine: { cpu: 'a CPU', cores: 2, kernel: '6.1', iperf3: '3.12', commit: 'abc' },
  starts: [
    { plan: 'fused', threads: { fused: cpu(10) } },
    { plan: 'lanes=2', threads: { 'lane 0': cpu(10), 'lane 1': cpu(10) } },
  ],
  runs: [FUSED, LANES, PIPELINE, { ...FUSED, round: 2 }],
};
const [fused, lanes, pipeline] = poolRuns(FILE) as [
  ReturnType<typeof poolRuns>[0],
  ReturnType<typeof poolRuns>[0],
  ReturnType<typeof poolRuns>[0],
];

describe('measurements', () => {
  it('--stats: non-zero counters by thread; a single thread is `fused`', () => {
    const several = 'counter        value  lane 0  lane 1\ntapReads       1,005   1,005       0\n\nmeasured';
    expect(parseStats(several, 'x')).toEqual({ 'lane 0': { tapReads: 1005 }, 'lane 1': {} });
    expect(parseStats('noise\ncounter   value\nwakes   5\n', 'x')).toEqual({ fused: { wakes: 5 } });
    expect(() => parseStats('none', 'x.txt')).toThrow('x.txt: no table of --stats in it');
  });

  it('iperf3: what arrived, the processor time of both ends, datagrams of UDP', () => {
    const text = JSON.stringify({
      start: { test_start: { blksize: 1400 } },
      end: {
        sum_sent: { bytes: 2800, seconds: 2 },
        sum_received: { bytes: 1400, seconds: 2 },
        cpu_utilization_percent: { host_total: 50, remote_total: 25 },
      },
    });
    const figures = { seconds: 2, bytes: 1400, clientSeconds: 1, serverSeconds: 0.5 };
    expect(parseIperf(text, 'tcp', 'x')).toEqual({ ...figures, datagrams: 0 });
    expect(parseIperf(text, 'udp', 'x')).toEqual({ ...figures, datagrams: 1 });
    expect(() => parseIperf('{"error":"refused"}', 'tcp', 'x')).toThrow('x: refused');
  });

  it('rounds of a kind are added up, less the start of the threads', () => {
    expect(fused).toMatchObject({ plan: 'fused', seconds: 2, units: 2 * GB, clientNs: 0.2, serverNs: 0.2 });
    expect(measuredRate(fused)).toBe(1);
    expect(fused.threads).toMatchObject([
      { name: 'fused', busy: 0.5, nsPerUnit: 0.5, share: 1, frames: 2000 },
    ]);
    expect(lanes.threads).toMatchObject([
      { name: 'lane 0', busy: 0.3, nsPerUnit: 0.3, share: 0.5, nsPerFrame: 5e5, handedOver: 100, wakes: 6 },
      { name: 'lane 1', busy: 0.2, nsPerUnit: 0.2, share: 0.5, handOverFull: 3 },
    ]);
    expect(enginesNs(pipeline)).toBeCloseTo(0.7);
    expect(handedOverShare(lanes)).toBe(0.1);
  });

  it('UDP: costs of a datagram', () => {
    const udp: Run = { ...RUN, protocol: 'udp', datagrams: 500_000, threads: { fused: cpu(500) } };
    expect(poolRuns({ ...FILE, starts: [], runs: [udp] })[0]?.threads[0]?.nsPerUnit).toBe(1000);
  });
});

describe('model', () => {
  const options: LanesOptions = {
    ...{ lanes: 4, cores: 64, busyLanes: 4, ends: 'own cores', hopNs: 0, handedOver: 0, measuredLanes: 2 },
  };

  it('lanes: each carries as much as one, as long as there are cores for lanes and ends', () => {
    expect(lanesBound(lanes, options)).toEqual({ rate: 8, by: 'lanes' });
    expect(lanesBound(lanes, { ...options, busyLanes: 1 })).toEqual({ rate: 2, by: 'its lane' });
    const same = lanesBound(lanes, { ...options, cores: 4, ends: 'same cores' });
    expect(same.by).toBe('cores');
    expect(same.rate).toBeCloseTo(4 / 0.9);
  });

  it('frames handed over: a share of 1/10 with two lanes is 3/20 with four; none with one', () => {
    const shared = { ...options, hopNs: 1, handedOver: 0.1 };
    // The costs of two lanes contain a tenth already, those of one lane nothing.
    expect(lanesBound(lanes, shared).rate).toBeCloseTo(4 / 0.55);
    expect(lanesBound(fused, shared).rate).toBeCloseTo(4 / 0.65);
    expect(lanesBound(fused, { ...shared, lanes: 1, busyLanes: 1 }).rate).toBeCloseTo(2);
  });

  it('flows placed by hash: some lanes have none', () => {
    expect(lanesByHash(1, 1)).toBe(1);
    expect(lanesByHash(8, 1)).toBeCloseTo(1);
    expect(lanesByHash(8, 16)).toBeCloseTo(7.06, 2);
    expect(lanesByHash(8, Number.POSITIVE_INFINITY)).toBe(8);
  });

  it('pipeline: the busiest thread limits it, however many shards there are', () => {
    const bound = (cores: number) => pipelineBound(pipeline, cores, 16, 'same cores');
    expect(bound(2).by).toBe('cores');
    expect(bound(2).rate).toBeCloseTo(2 / 1.1);
    expect(bound(16)).toEqual({ rate: 1 / 0.35, by: 'reader' });
  });
});

it('report: threads, the check with its ratio, predictions for more cores', () => {
  const text = report(FILE);
  expect(text).toContain(
    '| lanes=2, TCP up, 16 | lane 0 | 0.30 | 0.300 | 50.00 | 0.600 | 500.00 | 16.67 | 0 | 10.0 |',
  );
  expect(text).toContain('| up, 16 streams | 10.00 | 0.200 | 4.00 |');
  // 2 / (0.5 + 0.4) bytes per ns were predicted, 1 was measured.
  expect(text).toContain('| lanes=2, TCP up, 16 | its own costs | cores | 17.8 | 8.0 | 2.22 | no |');
  // One of 10 frames costs a hop of 0.2 ns more than in one lane: 2 / (0.52 + 0.4).
  expect(text).toContain('| lanes=2, TCP up, 16 | the costs of fused | cores | 17.4 | 8.0 | 2.17 | no |');
  expect(text).toMatch(/^\| 16 \| 8 \| /m);
});

it('the kept measurements: two lanes as predicted from one, within 15 %', () => {
  const kept = parseRuns(readFileSync(`${repoRoot}/perf/2026-11-29-scaling/runs.json`, 'utf8'), 'runs.json');
  const rows = report(kept).match(/^\| lanes=2, .* \| the costs of fused \|.*$/gm) ?? [];
  expect(rows).toHaveLength(4);
  for (const row of rows) expect(row).toMatch(/ \| yes \|$/);
});

describe('command line', () => {
  const dir = mkdtempSync(join(tmpdir(), 'scaling-'));
  afterAll(() => rmSync(dir, { recursive: true, force: true }));
  const scaling = (...args: string[]) =>
    spawnSync('sh', [`${repoRoot}/scripts/node.sh`, `${repoRoot}/perf/scaling.ts`, ...args], {
      encoding: 'utf8',
    });

  it('a file of measurements: its report', () => {
    const file = join(dir, 'runs.json');
    writeFileSync(file, JSON.stringify(FILE));
    expect(scaling(file)).toMatchObject({ status: 0, stdout: `${report(FILE)}\n` });
  });

  it('another file, or none: one line, status 1', () => {
    const { status, stderr } = scaling('package.json');
    expect({ status, stderr }).toEqual({
      status: 1,
      stderr: 'scaling: package.json: not written by perf/scaling.ts --measure\n',
    });
    expect(scaling().stderr).toMatch(/^scaling: usage: .*\n$/);
  });
});
