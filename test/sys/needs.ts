/** What the tests of src/sys need from the machine, and how they run a script inside namespaces of its own. */
import { spawnSync } from 'node:child_process';
import { describe, it } from 'vitest';
import { findTool, type Need, requireNamespaces, requireTool, requireTun } from '../support/require.ts';

export const requireGcc: Need = requireTool('gcc', 'apt packages gcc, libc6-dev and linux-libc-dev');

/** Empty if everything is there; a need that is not met skips with its reason, and fails where CI=true. */
export function describeNeeding(title: string, needs: readonly Need[], body: () => void): void {
  const missing = needs.map((need) => need()).filter((reason) => reason !== undefined);
  if (missing.length === 0) {
    describe(title, body);
  } else if (process.env.CI === 'true') {
    it(title, () => {
      throw new Error(missing.join('\n'));
    });
  } else {
    describe.skip(`${title} (${missing.join('; ')})`, body);
  }
}

export const namespaceNeeds: readonly Need[] = [
  requireTool('unshare', 'apt package util-linux'),
  requireNamespaces,
];
export const tapNeeds: readonly Need[] = [...namespaceNeeds, requireTun];

/** Run a fixture as root of new user, network and mount namespaces; what it prints, parsed from JSON. */
export function runInNamespaces<Report>(fixture: string, ...args: string[]): Report {
  const path = new URL(`./fixtures/${fixture}`, import.meta.url).pathname;
  const argv = ['-Urnm', process.execPath, path, ...args];
  const run = spawnSync(findTool('unshare')!, argv, { encoding: 'utf8', timeout: 20_000 });
  if (run.status !== 0) {
    throw new Error(`${fixture}: status ${run.status} ${run.signal ?? ''}\n${run.stdout}\n${run.stderr}`);
  }
  return JSON.parse(run.stdout) as Report;
}
