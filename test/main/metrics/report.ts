import type { EngineReport } from '../../../src/main/api/engine-report.ts';

/** A report with a value of each kind. */
export const REPORT: EngineReport = {
  program: 'bucatini run',
  version: '1.2.3',
  runtime: 'Bun 1',
  pid: 4711,
  namespace: 'net:[4026532000]',
  startSeconds: 1_795_940_814.2964,
  processCpuUs: 1_500_000,
  residentBytes: 33_554_432,
  switched: 4,
  counters: { framesFromGuest: 12, bytesFromGuest: 3456, 'drop.tcpNoFlow': 3, cpuUserUs: 9, sockSends: 2 },
  threads: [{ thread: 'packets', userUs: 250_000, systemUs: 500_000 }],
  histograms: [
    {
      name: 'guestRtt',
      buckets: [
        [15, 2],
        [18, 1],
        [2 ** 25, 4],
      ],
    },
  ],
  flows: [
    { proto: 'tcp', state: 'established', path: 'tap', count: 2 },
    { proto: 'tcp', state: 'established', path: 'splice', count: 1 },
    { proto: '132', state: 'replied', path: 'tap', count: 1 },
  ],
  pool: { small: { slots: 100, used: 30 }, large: { slots: 10, used: 1 } },
};
