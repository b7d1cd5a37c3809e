// bundle: boot
/**
 * A working directory that has been removed. Bun does not start in it; Node's threads ask for its path as
 * they boot and end with ENOENT. So the launchers leave it and pass it on as a descriptor, through which
 * COMMAND is started in it. A program started without a launcher leaves the directory itself, before its
 * first thread starts. Loaded before all other modules of a front end, so it imports nothing that takes time.
 */
import { closeSync, openSync } from 'node:fs';
import { type LauncherVariable, launcherVariable } from './launcher-env.ts';

const DIRECTORY: LauncherVariable = 'BUCATINI_DIRECTORY';

let removed: number | undefined;

/**
 * Call it before the first thread starts. Changes to /proc: a relative path in an option no longer has a
 * meaning, and nothing can be created there.
 */
export function leaveRemovedDirectory(): void {
  const passed = launcherVariable(DIRECTORY);
  delete process.env[DIRECTORY];
  if (passed !== undefined) {
    try {
      // Another number: those below 10 are for the streams of COMMAND's chain.
      removed = openSync(`/proc/self/fd/${passed}`, 'r');
    } catch {
      // pasta has changed to a user who must not enter the directory: COMMAND starts in /proc.
    }
    closeSync(Number(passed));
    return;
  }
  try {
    process.cwd();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') return;
    removed = openSync('.', 'r');
    process.chdir('/proc');
  }
}

/** COMMAND's working directory (SpawnPlan.cwd). undefined: ours. */
export function commandDirectory(): string | undefined {
  return removed === undefined ? undefined : `/proc/self/fd/${removed}`;
}

/**
 * The variable by which a program that this process executes gets the directory, and its descriptor, which
 * must stay open. Nothing if the working directory exists.
 */
export const directoryBeyondExec = (): {
  readonly fds: readonly number[];
  readonly env: NodeJS.ProcessEnv;
} =>
  removed === undefined ? { fds: [], env: {} } : { fds: [removed], env: { [DIRECTORY]: String(removed) } };

/** Close the descriptor once COMMAND has started: it leads to the host's files. */
export function forgetCommandDirectory(): void {
  if (removed !== undefined) closeSync(removed);
  removed = undefined;
}
