// bundle: boot
/**
 * A working directory that has been removed. Node's threads ask for its path as they boot, and die of ENOENT:
 * so we leave it before the first one, and COMMAND is put back by a descriptor. Loaded before anything else
 * of a front end: imports nothing but Node's.
 */
import { closeSync, openSync } from 'node:fs';

let removed: number | undefined;

/**
 * Before the first thread. We go to /proc: a relative path in an option means nothing any more, and nothing
 * can be made there.
 */
export function leaveRemovedDirectory(): void {
  try {
    process.cwd();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') return;
    removed = openSync('.', 'r');
    process.chdir('/proc');
  }
}

/** Where COMMAND is to start, for spawn(); undefined: where we are. */
export function commandDirectory(): string | undefined {
  return removed === undefined ? undefined : `/proc/self/fd/${removed}`;
}

/** COMMAND has started: it leads to the host's files. */
export function forgetCommandDirectory(): void {
  if (removed !== undefined) closeSync(removed);
  removed = undefined;
}
