/** The maker's end of a socket source: the thread that would be inside the namespace. */
import { workerData } from 'node:worker_threads';
import { serveSockets } from '../../../src/workers/splice/socket-source.ts';

serveSockets(workerData as SharedArrayBuffer);
