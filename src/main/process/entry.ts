// bundle: boot
/**
 * What the entries of the three programs (bucatini/main.ts, pasta/main.ts, slirp4netns/main.ts) do first and
 * last. It is loaded before the packet thread is booted, so it imports nothing that takes time. The build
 * puts it into dist/main/ for each program: paths are relative to that.
 */
import { readFileSync, writeFileSync, writeSync } from 'node:fs';
import { enableCompileCache } from 'node:module';
import { fileURLToPath } from 'node:url';
import { callersEnvironment } from './callers-environment.ts';
import { launcherVariable } from './launcher-env.ts';
import { leaveRemovedDirectory } from './working-directory.ts';

/**
 * Where Node keeps compiled code: 20 ms of 150 to start. A user who may not write there only reads.
 * undefined when run from source.
 */
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

/**
 * Where package.json and bin/ lie: above src/main/process when run from source, above dist/main when
 * compiled.
 */
export const packageRoot = new URL(import.meta.url.endsWith('.ts') ? '../../../' : '../../', import.meta.url);

/** Of the package. */
export const ownVersion = (): string =>
  JSON.parse(readFileSync(new URL('package.json', packageRoot), 'utf8')).version;

/**
 * End the process with the status of `outcome`, without Node's own tidying: everything has been written by
 * synchronous calls, and Node takes 20 to 40 ms to end its threads. While threads were booting that has ended
 * in a signal.
 * @param tell  says what went wrong; gives the status
 */
export async function exitAfter(
  outcome: Promise<number>,
  tell: (error: Error) => number | Promise<number>,
): Promise<never> {
  // Loaded now: nothing can be loaded in the sandbox (host/sandbox.ts).
  const leaving = import('../../sys/process.ts');
  let status: number;
  try {
    status = await outcome;
  } catch (error) {
    status = await tell(error as Error);
    if (launcherVariable('BUCATINI_STACK') !== undefined) writeSync(2, `${(error as Error).stack}\n`);
  }
  return (await leaving).exitNow(status);
}
