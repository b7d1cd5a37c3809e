/**
 * The maker's end of a socket source: stands for the thread inside the namespace, either dedicated or with an
 * event loop.
 */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { workerData } from 'node:worker_threads';
import { serveSockets, serveSocketsBeside } from '../../../src/workers/splice/socket-source.ts';

const { shared, beside } = workerData as { shared: SharedArrayBuffer; beside: boolean };
// In the engine the sandbox may be entered before the first round; no file can be read afterwards.
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
