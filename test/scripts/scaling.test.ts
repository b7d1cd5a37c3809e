import { spawnSync } from 'node:child_process';
import { expect, it } from 'vitest';
import { repoRoot } from '../support/engines.ts';

const DUMPS = `${repoRoot}/perf/2026-11-24-scaling`;
const scaling = (...args: string[]) =>
  spawnSync('sh', [`${repoRoot}/scripts/node.sh`, `${repoRoot}/perf/scaling.ts`, ...args], {
    encoding: 'utf8',
  });
const of = (plan: string, direction: string) =>
  scaling(
    '--idle',
    `${DUMPS}/${plan}-idle.txt`,
    '--iperf',
    `${DUMPS}/${plan}-${direction}.json`,
    `${DUMPS}/${plan}-${direction}.txt`,
  ).stdout;

it('counters of a pipeline: one row per thread; the busiest thread limits the rate with more cores', () => {
  const up = of('pipeline', 'up');
  expect(up).toMatch(/^\| reader \| 0\.38 \| 0\.345 \| 23\.2 \|$/m);
  expect(up).toContain('| 2 | 11.7 | cores, ends included | 1 | 11.7 | cores, ends included |');
  expect(up).toContain('| 16 | 23.2 | reader | 14 | 23.2 | reader |');
  expect(of('pipeline', 'down')).toContain('| 4 | 22.7 | host-io | 2 | 22.7 | host-io |');
});

it('counters of one thread: one row', () => {
  expect(of('fused', 'up')).toContain('| 8 | 12.9 | fused | - | 12.9 | fused |');
});

it('other files: one line, status 1', () => {
  const { status, stderr } = scaling('--idle', 'package.json', '--iperf', 'package.json', 'package.json');
  expect(status).toBe(1);
  expect(stderr).toBe('scaling: package.json: no table of --stats in it\n');
});
