/**
 * Tests of two kinds, one after the other. `npm test FILE` takes a file from whichever it belongs to.
 *
 *   beside   files that mostly wait, or whose outcome no neighbour can change: several at a time
 *   alone    everything else, one at a time: rates, starts and ends within a time, CPU time of an idle engine
 *
 * A new file is `alone` until somebody has seen that it bears company, and has written it down here.
 */
import { defineConfig } from 'vitest/config';

const BESIDE = [
  'test/*.test.ts',
  'test/{hostile,proto,ring,sys,workers}/**/*.test.ts',
  'test/main/pasta/*.test.ts',
  'test/main/{address-plan,cli-texts,options,publish,resolv-conf,resolver-zones,stats}.test.ts',
  'test/e2e/{address,datagrams,dns,icmp-errors,loss,publish,tcp,tcp-scale}.test.ts',
];
/** Each waits more than half of its time; a third one made starts of engines late on two cores. */
const BESIDE_WORKERS = 2;

const common = {
  pool: 'forks' as const,
  setupFiles: ['test/support/fast-check-sizes.ts'],
  testTimeout: 30_000,
  hookTimeout: 60_000,
  maxConcurrency: 12,
};

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          ...common,
          name: 'beside',
          include: BESIDE,
          maxWorkers: BESIDE_WORKERS,
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          ...common,
          name: 'alone',
          include: ['test/**/*.test.ts'],
          exclude: BESIDE,
          maxWorkers: 1,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
