/** The second thread of ring-spsc.bench.ts, which reads. */
import { workerData } from 'node:worker_threads';
import type { Layout } from '../src/ring/layout.ts';
import { drainUntilStopped } from './ring-spsc.bench.ts';

const { sab, layout } = workerData as { sab: SharedArrayBuffer; layout: Layout };
drainUntilStopped(sab, layout);
