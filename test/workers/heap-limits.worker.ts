/** Sends the limits of its own heap. */
import { parentPort, resourceLimits } from 'node:worker_threads';

parentPort!.postMessage(resourceLimits);
