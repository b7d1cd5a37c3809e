// bundle: boot
/**
 * The first and the last steps of the three programs' entries (bucatini/main.ts, pasta/main.ts,
 * slirp4netns/main.ts). Loaded before the packet thread is booted, so it imports nothing that takes time. The
 * build puts a copy of it into dist/main/ for each program: paths are relative to that directory.
 */
import { readFileSync, writeFileSync, writeSync } from 'node:fs';
import { packageRoot, useCodeCache } from '#runtime/program';
import { callersEnvironment } from './callers-environment.ts';
import { launcherVariable } from './launcher-env.ts';
import { leaveRemovedDirectory } from './working-directory.ts';

/**
 * Must be called before anything else, and before the first thread starts.
 * @param name            name for this process in ps
 * @param hasEnvironment  whether there may be a COMMAND or another use of the caller's environment. Strings
 *   that JavaScript has read stay in memory.
 * @returns the environment for COMMAND
 */
export function enterProgram(name: string, hasEnvironment = true): NodeJS.ProcessEnv {
  const env = hasEnvironment ? callersEnvironment() : {};
  useCodeCache();
  try {
    // ps and pgrep show the name of the main thread as that of the process; Node calls it node-MainThread.
    writeFileSync('/proc/self/comm', name);
  } catch {
    // Without /proc no ps can show a name either.
  }
  leaveRemovedDirectory();
  return env;
}

/** The version of the package. */
export const ownVersion = (): string =>
  JSON.parse(readFileSync(new URL('package.json', packageRoot), 'utf8')).version;

/**
 * End the process with the status of `outcome`, without the runtime's own clean-up: all output has been
 * written by synchronous calls, and Node takes 20 to 40 ms to end its threads. That clean-up also ended the
 * process by a signal when threads were still booting.
 * @param outcome  resolves with the exit status
 * @param report   reports the error and gives the exit status
 */
export async function exitAfter(
  outcome: Promise<number>,
  report: (error: Error) => number | Promise<number>,
): Promise<never> {
  // Load it now: nothing can be loaded in the sandbox (host/sandbox.ts).
  const leaving = import('../../sys/process.ts');
  let status: number;
  try {
    status = await outcome;
  } catch (error) {
    status = await report(error as Error);
    if (launcherVariable('BUCATINI_STACK') !== undefined) writeSync(2, `${(error as Error).stack}\n`);
  }
  return (await leaving).exitNow(status);
}
