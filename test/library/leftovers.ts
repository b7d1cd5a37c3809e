/** What a network may leave behind. */
import { findSockets } from '../../src/main/api/socket-directory.ts';
import { eventually, isAlive } from '../support/process.ts';

/** Path of the API socket of the engine with this process id. */
export const socketOf = (pid: number): string | undefined =>
  findSockets().find((socket) => socket.pid === pid)?.path;

/** Wait until none of the processes is there. */
export const gone = (pids: readonly number[]): Promise<unknown> =>
  eventually(`ended: ${pids}`, 3000, () => !pids.some(isAlive));
