/** The maker's end of a socket source: the thread that would be inside the namespace, for nothing else or beside its event loop. */
import { workerData } from 'node:worker_threads';
import { serveSockets, serveSocketsBeside } from '../../../src/workers/splice/socket-source.ts';

const { shared, beside } = workerData as { shared: SharedArrayBuffer; beside: boolean };
if (beside) {
  const otherThings = setInterval(() => {}, 1000);
  await serveSocketsBeside(shared);
  clearInterval(otherThings);
} else {
  serveSockets(shared);
}
