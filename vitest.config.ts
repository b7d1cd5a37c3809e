/**
 * Tests of two kinds, one after the other: see test/support/test-kind.ts. Files of test/support/bun-files.ts
 * run again in processes on Bun. End-to-end tests run the launchers, which choose Bun; those of
 * test/support/both-files.ts run again with launchers that choose Bun. `npm test FILE` takes a file from
 * whichever it belongs to.
 */
import { existsSync, globSync, readFileSync } from 'node:fs';
import { defineConfig } from 'vitest/config';
import { bunExecutable } from './scripts/bun.ts';
import { runsOnBunToo } from './test/support/both-files.ts';
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

const bun = bunExecutable(`${import.meta.dirname}/`);
/** Files of both kinds that run once more, on Bun. */
const bunProjects =
  bun === undefined
    ? []
    : (['beside', 'alone'] as const).map((kind, i) => ({
        ssr: { resolve: { conditions: ['bun', 'module', 'node'] } },
        test: {
          ...common,
          name: `bun ${kind}`,
          pool: bunPool(bun),
          include: filesOf(kind).filter(runsOnBun),
          maxWorkers: kind === 'beside' ? BESIDE_WORKERS : 1,
          sequence: { groupOrder: 2 + i },
        },
      }));

/** Where there is no executable with Bun, there is nothing to run again. */
const e2eOnBunProjects = existsSync(`${import.meta.dirname}/dist/bun/bucatini`)
  ? (['beside', 'alone'] as const).map((kind, i) => ({
      test: {
        ...common,
        name: `e2e on bun ${kind}`,
        env: { BUCATINI_RUNTIME: 'bun' },
        include: filesOf(kind).filter(runsOnBunToo),
        maxWorkers: kind === 'beside' ? BESIDE_WORKERS : 1,
        sequence: { groupOrder: 4 + i },
      },
    }))
  : [];

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          ...common,
          name: 'beside',
          include: filesOf('beside'),
          maxWorkers: BESIDE_WORKERS,
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          ...common,
          name: 'alone',
          include: filesOf('alone'),
          maxWorkers: 1,
          sequence: { groupOrder: 1 },
        },
      },
      ...bunProjects,
      ...e2eOnBunProjects,
    ],
  },
});
