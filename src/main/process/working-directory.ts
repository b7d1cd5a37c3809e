// bundle: boot
/**
 * A working directory that has been removed. Node's threads ask for its path as they boot and end with
 * ENOENT. So we leave the directory before the first thread starts, and start COMMAND in it through a
 * descriptor. Loaded before all other modules of a front end, so it imports only Node's.
 */
import { closeSync, openSync } from 'node:fs';

let removed: number | undefined;

/**
 * Call it before the first thread starts. Changes to /proc: a relative path in an option no longer has a
 * meaning, and nothing can be created there.
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

/** COMMAND's working directory, for spawn(). undefined: ours. */
export function commandDirectory(): string | undefined {
  return removed === undefined ? undefined : `/proc/self/fd/${removed}`;
}

/** Close the descriptor once COMMAND has started: it leads to the host's files. */
export function forgetCommandDirectory(): void {
  if (removed !== undefined) closeSync(removed);
  removed = undefined;
}
