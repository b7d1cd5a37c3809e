// bundle: boot
/** process.stdout and process.stderr on Bun. */

/**
 * Nothing to be done: Bun makes these streams when a program first uses them, not for a worker, and no front
 * end that runs an engine uses them. To replace them would load node:stream, 3 ms of a start.
 */
export const replaceStreams = (_put: (fd: 1 | 2, text: string) => void): void => {};
