/** Runs a script of the tests of src/sys inside namespaces of its own. */
import { spawnSync } from 'node:child_process';
import { findTool } from '../support/require.ts';

/** Run a fixture as root of new user, network and mount namespaces. @returns its output, parsed from JSON */
export function runInNamespaces<Report>(fixture: string, ...args: string[]): Report {
  const path = new URL(`./fixtures/${fixture}`, import.meta.url).pathname;
  const argv = ['-Urnm', process.execPath, path, ...args];
  const run = spawnSync(findTool('unshare')!, argv, { encoding: 'utf8', timeout: 20_000 });
  if (run.status !== 0) {
    throw new Error(`${fixture}: status ${run.status} ${run.signal ?? ''}\n${run.stdout}\n${run.stderr}`);
  }
  return JSON.parse(run.stdout) as Report;
}
