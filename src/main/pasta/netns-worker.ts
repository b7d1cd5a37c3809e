/** The thread that moves into the namespace for `pasta`: see netns-setup.ts beside it, and ../netns.ts for who listens. */
import { parentPort } from 'node:worker_threads';
import { checked } from '../../sys/error.ts';
import { keepCapabilities } from '../../sys/namespace.ts';
import { type PastaJob, setUpPasta } from './netns-setup.ts';
import type { PastaNetnsMessage } from './netns-thread.ts';

const post = (message: PastaNetnsMessage): void => parentPort!.postMessage(message);

// Without a parent this is only being compiled for the code cache (scripts/build.mjs).
parentPort?.once('message', async (job: PastaJob) => {
  try {
    const notes = setUpPasta(job, {
      onNamespace: (fd) => post({ kind: 'namespace', fd }),
      onTap: (made) => post({ kind: 'tap', made }),
    });
    // Before the last step is told: nothing can be loaded behind the wall (wall.ts).
    const source = job.sockets && (await import('../../workers/splice/socket-source.ts'));
    checked(keepCapabilities([]), 'capset', 'namespace thread');
    post({ kind: 'configured', notes });
    // This thread alone is in the namespace: it stays, and only leaves with the process.
    if (job.sockets !== undefined) source!.serveSockets(job.sockets);
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException;
    post({ kind: 'failed', message, ...(code !== undefined && { code }) });
  }
});
