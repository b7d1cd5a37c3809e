/**
 * The second thread of hop.bench.ts: sends back as many descriptors as it receives, until it is asked to
 * stop.
 */
import { workerData } from 'node:worker_threads';
import { stopRequested } from '../src/ring/layout.ts';
import { HopEnd, type HopShared } from './hop.bench.ts';

const shared = workerData as HopShared;
const i32 = new Int32Array(shared.sab, 0, Math.floor(shared.sab.byteLength / 4));
const end = new HopEnd(shared, 1, () => stopRequested(i32, shared.layout));
for (;;) {
  const n = end.receive();
  if (n === 0) break;
  end.send(n);
}
end.close();
