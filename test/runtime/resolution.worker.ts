/** Says which runtime's modules this thread or process has: resolution.test.ts. */
import { parentPort } from 'node:worker_threads';
import { runtimeText } from '#runtime/program';

if (parentPort === null) console.log(runtimeText());
else parentPort.postMessage(runtimeText());
