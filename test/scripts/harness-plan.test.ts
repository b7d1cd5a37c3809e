import { describe, expect, it } from 'vitest';
import {
  batches,
  cellSeconds,
  matches,
  matrix,
  needsWarmUp,
  type PlanOptions,
  participants,
  plan,
  planText,
  ROUNDS,
} from '../../perf/harness/matrix.ts';
import type { PeerKind } from '../../perf/harness/result.ts';
import { TARGETS } from '../../perf/harness/targets.ts';

const peer = (name: string, kind: PeerKind) => ({ name, kind });
const PEERS = [
  peer('direct', 'direct'),
  peer('bucatini', 'bucatini'),
  peer('pasta', 'pasta'),
  peer('slirp4netns', 'slirp4netns'),
  peer('pasta-new', 'pasta'),
  peer('slirp-new', 'slirp4netns'),
];
const OPTIONS: PlanOptions = { mode: 'full', only: null, rounds: null, seconds: null, mtus: [65520, 1500] };

describe('time', () => {
  it('--full with six peers: below 45 minutes, with a reserve for tools that stall', () => {
    expect(plan(OPTIONS, PEERS).seconds).toBeLessThan(42 * 60);
  });

  it('--quick with six peers: below 5 minutes', () => {
    expect(plan({ ...OPTIONS, mode: 'quick' }, PEERS).seconds).toBeLessThan(5 * 60);
  });

  it('time of a cell: its rounds times its peers; idle runs for all peers at once', () => {
    const { cells } = plan({ ...OPTIONS, only: ['tcp-1-up', 'idle'], rounds: 2, seconds: 10 }, PEERS);
    const [idle, up] = cells;
    expect([idle?.workload, up?.id]).toEqual(['idle', 'tcp-1-up-65520']);
    expect(idle && cellSeconds(idle)).toBe(10);
    expect(up && cellSeconds(up)).toBe(2 * 6 * 10.5);
  });
});

describe('matrix', () => {
  const cells = matrix(OPTIONS);

  it('ids: unique; idle is first, before a load has raised the memory of the tools', () => {
    expect(new Set(cells.map(({ id }) => id)).size).toBe(cells.length);
    expect(cells[0]?.workload).toBe('idle');
  });

  it('every target refers to existing cells', () => {
    const ids = cells.map(({ id }) => id);
    for (const target of TARGETS)
      for (const id of [target.cell, ...(target.than ?? [])]) expect(ids).toContain(id);
  });

  it('one MTU: all cells at that MTU', () => {
    const at1500 = matrix({ mtus: [1500] });
    for (const workload of ['idle', 'rr', 'udp', 'tcp'])
      expect(at1500.some((cell) => cell.workload === workload && cell.mtu === 1500)).toBe(true);
  });

  it('--line: replaces both built-in lines', () => {
    const line = { delayMs: 1, rateMbit: 10, queueKib: 64, lossPercent: 0 };
    const own = matrix({ mtus: [1500], line }).filter(({ workload }) => workload === 'line');
    expect(own.map(({ id }) => id)).toEqual(['line-own-up-1500', 'line-own-down-1500']);
    for (const { traffic } of own) expect(traffic).toMatchObject({ line });
  });

  it('--scaling: 1 to 64 streams up and down, divided among as many pairs of iperf3 as lanes', () => {
    const cells = matrix({ mtus: [65520], scalingCores: 6 });
    expect(cells.map(({ id }) => id)).toEqual(
      [1, 4, 16, 64].flatMap((n) => [`scaling-${n}-up-65520`, `scaling-${n}-down-65520`]),
    );
    const processes = cells.map(({ traffic }) => traffic.kind === 'tcp' && traffic.processes);
    expect(processes).toEqual([1, 1, 4, 4, 8, 8, 8, 8]);
    for (const cores of [1, 2, 3, 5, 7, 8, 64])
      for (const { traffic } of matrix({ mtus: [65520], scalingCores: cores }))
        expect(traffic.kind === 'tcp' && traffic.streams % traffic.processes).toBe(0);
  });

  it('--only: whole words between dashes', () => {
    expect(matches('tcp-1-up-1500', 'tcp-1')).toBe(true);
    expect(matches('tcp-16-up-1500', 'tcp-1')).toBe(false);
    expect(matches('tcp-1-up-1500', 'tcp-1-up-1500')).toBe(true);
  });
});

describe('plan', () => {
  it('cells for newest builds: the newest build of each stock tool; other cells: all builds', () => {
    const cell = (id: string) => plan(OPTIONS, PEERS).cells.find((each) => each.id === id);
    expect(cell('udp-512-full-up-1500')?.peers).toEqual(['direct', 'bucatini', 'pasta-new', 'slirp-new']);
    expect(cell('udp-1400-full-up-1500')?.peers).toHaveLength(6);
    expect(cell('idle-65520')?.peers).not.toContain('direct');
  });

  it('two builds of bucatini: both are in every cell', () => {
    const cell = matrix(OPTIONS).find(({ who }) => who === 'newest');
    const two = [...PEERS, peer('bucatini-fused', 'bucatini')];
    expect(cell && participants(cell, two)).toEqual([
      'direct',
      'bucatini',
      'pasta-new',
      'slirp-new',
      'bucatini-fused',
    ]);
  });

  it('bypass4netns: in the cells of TCP whose guests run already; its starts take time', () => {
    const { cells } = plan({ ...OPTIONS, rounds: 2 }, [...PEERS, peer('bypass4netns', 'bypass4netns')]);
    const those = cells.filter(({ peers }) => peers.includes('bypass4netns'));
    expect(new Set(those.map(({ workload }) => workload))).toEqual(
      new Set(['rr', 'connect', 'tcp', 'tcp6', 'inbound', 'paced', 'line']),
    );
    expect(cellSeconds(those.find(({ id }) => id === 'rr-64-65520')!)).toBe(2 * (7 * 1.5 + 1.5));
  });

  it('--rounds and --seconds: replace those of the matrix; starts have no seconds', () => {
    const { cells } = plan({ ...OPTIONS, rounds: 1, seconds: 7 }, PEERS);
    for (const cell of cells) {
      expect(cell.rounds).toBe(1);
      expect(cell.seconds).toBe(cell.workload === 'start' ? 0 : 7);
    }
    expect(plan(OPTIONS, PEERS).cells.find(({ id }) => id === 'tcp-4-up-1500')?.rounds).toBe(ROUNDS);
  });

  it('streams of one MTU: alternate round by round; other cells run alone', () => {
    const groups = batches(plan(OPTIONS, PEERS).cells);
    const streams = groups.filter((group) => group.length > 1);
    expect(streams.map((group) => [...new Set(group.map(({ mtu }) => mtu))])).toEqual([[65520], [1500]]);
    for (const group of streams)
      expect(group.map(({ id }) => id.replace(/-\d+$/, ''))).toEqual(
        [1, 4, 16]
          .flatMap((n) => [`tcp-${n}-up`, `tcp-${n}-down`, `tcp-${n}-both`])
          .concat('tcp6-1-up', 'tcp6-1-down'),
      );
    expect(groups.flat()).toEqual(plan(OPTIONS, PEERS).cells);
  });

  it('a warm-up precedes the first cell of a kind at each MTU', () => {
    const { cells } = plan({ ...OPTIONS, only: ['tcp-1-up', 'tcp-1-down', 'start'] }, PEERS);
    const warm = cells.filter((_, index) => needsWarmUp(cells, index)).map(({ id }) => id);
    expect(warm).toEqual(['tcp-1-up-65520', 'tcp-1-up-1500']);
  });

  it('--plan: lists every cell, its peers and the total time', () => {
    const planned = plan({ ...OPTIONS, mode: 'quick' }, PEERS.slice(0, 2));
    const text = planText(planned);
    for (const { id } of planned.cells) expect(text).toContain(`${id} `);
    expect(text).toMatch(/\d+ cells, about \d+ min \d+ s in all/);
  });
});
