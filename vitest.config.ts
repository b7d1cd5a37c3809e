/**
 * Tests of two kinds, one after the other: see test/support/test-kind.ts. Files of test/support/bun-files.ts
 * run again in processes on Bun, and those of test/support/both-files.ts with launchers that choose Bun. `npm
 * test FILE` takes a file from whichever it belongs to.
 */
import { existsSync, globSync, readFileSync } from 'node:fs';
import { defineConfig } from 'vitest/config';
import { bunExecutable } from './scripts/bun.ts';
import { needsLanesOnNode, runsOnNodeToo } from './test/support/both-files.ts';
import { runsOnBun } from './test/support/bun-files.ts';
import { bunPool } from './test/support/bun-pool/pool.ts';
import { testKind } from './test/support/test-kind.ts';

const files = globSync('test/**/*.test.ts', { cwd: import.meta.dirname }).map((file) => ({
  file,
  kind: testKind(readFileSync(`${import.meta.dirname}/${file}`, 'utf8')),
}));
const filesOf = (kind: string): string[] => files.filter((one) => one.kind === kind).map(({ file }) => file);

/** Each waits more than half of its time; a third one made starts of engines late on two cores. */
const BESIDE_WORKERS = 2;

const common = {
  pool: 'forks' as const,
  setupFiles: ['test/support/fast-check-sizes.ts'],
  testTimeout: 30_000,
  hookTimeout: 60_000,
  maxConcurrency: 12,
};

/**
 * A project for each kind of file.
 * @param way     how the files run; none for the first time
 * @param group   groupOrder of the first of the two
 * @param chosen  which files take part
 * @param more    settings of both
 */
const projects = (way: string, group: number, chosen: (file: string) => boolean, more: object = {}) =>
  (['beside', 'alone'] as const).map((kind, i) => ({
    ...common,
    name: `${way} ${kind}`.trim(),
    include: filesOf(kind).filter(chosen),
    maxWorkers: kind === 'beside' ? BESIDE_WORKERS : 1,
    sequence: { groupOrder: group + i },
    ...more,
  }));

const bun = bunExecutable(`${import.meta.dirname}/`);
/** Files that run once more in processes on Bun. */
const onBun = bun === undefined ? [] : projects('bun', 2, runsOnBun, { pool: bunPool(bun) });
/**
 * Where there is no executable with Bun, the launchers choose Node already. Of the thread plans those that differ
 * most, for the files to which it matters on another runtime; the rest of them was tested on Bun.
 */
const onNode = (name: string, group: number, plans: string, chosen: (file: string) => boolean) =>
  projects(name, group, (file) => runsOnNodeToo(file) && chosen(file), {
    env: { BUCATINI_RUNTIME: 'node', E2E_PLANS: process.env.E2E_PLANS ?? plans },
  });
const launchersOnNode = existsSync(`${import.meta.dirname}/dist/bun/bucatini`)
  ? [
      ...onNode('e2e on node', 4, 'fused', (file) => !needsLanesOnNode(file)),
      ...onNode('e2e on node lanes', 6, 'fused,lanes=2', needsLanesOnNode),
    ]
  : [];

export default defineConfig({
  test: {
    projects: [
      ...[...projects('', 0, () => true), ...launchersOnNode].map((test) => ({ test })),
      ...onBun.map((test) => ({ ssr: { resolve: { conditions: ['bun', 'module', 'node'] } }, test })),
    ],
  },
});
