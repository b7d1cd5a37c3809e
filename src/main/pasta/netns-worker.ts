/** The thread that moves into the namespace for `pasta`: see netns-setup.ts beside it, and ../netns.ts for who listens. */
import { parentPort } from 'node:worker_threads';
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
    post({ kind: 'configured', notes });
    // This thread alone is in the namespace: it stays, and only leaves with the process.
    if (job.sockets !== undefined)
      (await import('../../workers/splice/socket-source.ts')).serveSockets(job.sockets);
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException;
    post({ kind: 'failed', message, ...(code !== undefined && { code }) });
  }
});
