/**
 * Writes three lines with pauses, then blocks and never returns to its event loop; see log-ring.test.ts.
 */
import { workerData } from 'node:worker_threads';
import type { Layout } from '../../src/ring/layout.ts';
import { LogLevel, LogWriter } from '../../src/workers/thread/log-ring.ts';

const { sab, layout } = workerData as { sab: SharedArrayBuffer; layout: Layout };
const log = new LogWriter(sab, layout, 2);
const pause = new Int32Array(new SharedArrayBuffer(4));
for (let i = 0; i < 3; i++) {
  log.log(LogLevel.info, `line ${i}`);
  Atomics.wait(pause, 0, 0, 20);
}
Atomics.wait(pause, 0, 0);
