/** The thread that moves into the namespace: see netns-setup.ts for what it does and netns.ts for who listens. */
import { parentPort } from 'node:worker_threads';
import { checked } from '../sys/error.ts';
import { keepCapabilities } from '../sys/namespace.ts';
import type { NetnsJob, NetnsMessage } from './netns.ts';
import { setUpNetns } from './netns-setup.ts';

const post = (message: NetnsMessage): void => parentPort!.postMessage(message);

// Without a parent this is only being compiled for the code cache (scripts/build.mjs).
parentPort?.once('message', async ({ settings, target, sockets }: NetnsJob) => {
  try {
    // Before the last step is told: nothing can be loaded behind the wall (wall.ts).
    const source = sockets && (await import('../workers/splice/socket-source.ts'));
    for (const step of setUpNetns(settings, target)) {
      if (step.kind === 'configured') checked(keepCapabilities([]), 'capset', 'namespace thread');
      post(step);
    }
    // This thread alone is in the namespace: it stays, and only leaves with the process.
    if (sockets !== undefined) source!.serveSockets(sockets);
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException;
    post({ kind: 'failed', message, ...(code !== undefined && { code }) });
  }
});
