/** The thread that moves into the namespace for `slirp4netns`, where packet threads are started after it: see netns-setup.ts. */
import { parentPort } from 'node:worker_threads';
import type { NetnsMessage } from '../netns.ts';
import { type SlirpTap, setUpSlirp } from './netns-setup.ts';
import type { SlirpConf } from './options.ts';

const post = (message: NetnsMessage<SlirpTap>): void => parentPort!.postMessage(message);

// Without a parent this is only being compiled for the code cache (scripts/build.mjs).
parentPort?.once('message', (conf: SlirpConf) => {
  try {
    for (const step of setUpSlirp(conf)) post(step);
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException;
    post({ kind: 'failed', message, ...(code !== undefined && { code }) });
  }
});
