/**
 * The maker's end of a socket source: the thread that would be inside the namespace, for nothing else or
 * beside its event loop.
 */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { workerData } from 'node:worker_threads';
import { serveSockets, serveSocketsBeside } from '../../../src/workers/splice/socket-source.ts';

const { shared, beside } = workerData as { shared: SharedArrayBuffer; beside: boolean };
// The sandbox may stand before the first round, and behind it no file can be read.
fs.readFileSync = () => {
  throw new Error('no file can be read');
};
syncBuiltinESMExports();
if (beside) {
  const otherThings = setInterval(() => {}, 1000);
  await serveSocketsBeside(shared);
  clearInterval(otherThings);
} else {
  serveSockets(shared);
}
