/** The thread that moves into the namespace: see netns-setup.ts for what it does and netns.ts for who listens. */
import { parentPort } from 'node:worker_threads';
import type { NetnsJob, NetnsMessage } from './netns.ts';
import { setUpNetns } from './netns-setup.ts';

const post = (message: NetnsMessage): void => parentPort!.postMessage(message);

// Without a parent this is only being compiled for the code cache (scripts/build.mjs).
parentPort?.once('message', async ({ settings, target, sockets }: NetnsJob) => {
  try {
    for (const step of setUpNetns(settings, target)) post(step);
    // This thread alone is in the namespace: it stays, and only leaves with the process.
    if (sockets !== undefined) (await import('../workers/splice/socket-source.ts')).serveSockets(sockets);
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException;
    post({ kind: 'failed', message, ...(code !== undefined && { code }) });
  }
});
