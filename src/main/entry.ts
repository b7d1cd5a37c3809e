/**
 * What the entries of the three programs (bucatini.ts, pasta/main.ts, slirp4netns/main.ts) do first and last. Loaded before the packet
 * thread is booted: imports nothing that takes time. The build keeps it in dist/main/ itself, whichever program it belongs to.
 */
import { readFileSync, writeFileSync, writeSync } from 'node:fs';
import { enableCompileCache } from 'node:module';
import { fileURLToPath } from 'node:url';
import { callersEnvironment } from './callers-environment.ts';
import { launcherVariable } from './launcher-env.ts';
import { leaveRemovedDirectory } from './working-directory.ts';

/** Compiled code is kept beside dist/main by whoever may write there: 20 ms of 150 to start. undefined when run from source. */
const codeCache = import.meta.url.endsWith('.js')
  ? fileURLToPath(new URL('../cache', import.meta.url))
  : undefined;

/**
 * Before anything else, and before the first thread.
 * @param name  of the process
 * @returns the environment for COMMAND
 */
export function enterProgram(name: string): NodeJS.ProcessEnv {
  const env = callersEnvironment();
  if (codeCache !== undefined) {
    enableCompileCache(codeCache);
    process.env.NODE_COMPILE_CACHE = codeCache; // workers go by it
  }
  try {
    // The name of the main thread is the process's in ps and pgrep; Node calls it node-MainThread.
    writeFileSync('/proc/self/comm', name);
  } catch {
    // Without /proc there is no ps either.
  }
  leaveRemovedDirectory();
  return env;
}

/** Of the package. */
export const ownVersion = (): string =>
  JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')).version;

/**
 * End the process with the status that comes, or that an error has. All has been said by synchronous writes. Node's taking its threads
 * apart costs time, and has been seen to end in a signal while they were still booting.
 * @param tell  says what went wrong; gives the status
 */
export async function exitAfter(
  outcome: Promise<number>,
  tell: (error: Error) => number | Promise<number>,
): Promise<never> {
  // Asked for now: nothing can be loaded behind the wall (wall.ts).
  const leaving = import('../sys/process.ts');
  let status: number;
  try {
    status = await outcome;
  } catch (error) {
    status = await tell(error as Error);
    if (launcherVariable('BUCATINI_STACK') !== undefined) writeSync(2, `${(error as Error).stack}\n`);
  }
  return (await leaving).exitNow(status);
}
