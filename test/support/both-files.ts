/**
 * Which end-to-end files run once more with the launchers on Node (BUCATINI_RUNTIME=node), where the
 * build made an executable for Bun, the default: those of what differs between the runtimes. That is the start and the end of
 * each front end, signals, descriptors, files, sockets of the control plane, the sandbox, and one bulk
 * transfer in each thread plan, through FFI, rings and messages between threads. What packets look like and
 * when they are sent is the same JavaScript on both.
 */
const FILES = [
  ...['api', 'callers', 'descriptors', 'doctor', 'idle', 'life-cycle', 'pasta', 'pasta-fd', 'pasta-ports'],
  ...['publish', 'sandbox', 'slirp4netns', 'splice', 'transfer'],
];

/** Files that run there with several packet threads too, which start in the sandbox; the others with one. */
const FILES_WITH_LANES = ['sandbox'];

/** @param file  as runsOnNodeToo() */
export const needsLanesOnNode = (file: string): boolean =>
  FILES_WITH_LANES.some((name) => file === `test/e2e/${name}.test.ts`);

/** @param file  relative to the directory of package.json */
export const runsOnNodeToo = (file: string): boolean =>
  FILES.some((name) => file === `test/e2e/${name}.test.ts`);
