// bundle: rare
/**
 * The second try when the launcher guessed wrong about user namespaces: a running Node cannot enter one (it
 * has threads), so we become nsenter or unshare, which becomes Node again, with the same process id and
 * arguments. Once: the variable says so.
 */
import { spawnSync } from 'node:child_process';
import { CLONE_NEWNET } from '../../sys/constants.ts';
import { setCloexec } from '../../sys/io.ts';
import { namespaceOwner, namespaceType } from '../../sys/namespace.ts';
import { openPath } from '../../sys/path.ts';
import { tool } from '../process/command.ts';
import { callersDescriptors, clearCloexec, inheritedBeyondExec } from '../process/inherited-descriptors.ts';
import { type LauncherVariable, launcherVariable } from '../process/launcher-env.ts';

/** For `run` without rights in a user namespace. Returns only when that is no way out. */
export function reenterOwnNamespaces(code: string | undefined): void {
  if (code !== 'EPERM' || launcherVariable('BUCATINI_REENTERED') !== undefined) return;
  const entrance = [tool('unshare'), '-Ur', '-m', '--propagation', 'slave', '--'];
  if (spawnSync(entrance[0]!, [...entrance.slice(1), '/bin/sh', '-c', ':']).status === 0) become(entrance);
}

/**
 * For `attach`: enter the user namespace that owns the network namespace at `path`. Returns only when that is
 * no way out.
 */
export function reenterOwnerOf(path: string, code: string | undefined): void {
  if (code !== 'EPERM' || launcherVariable('BUCATINI_REENTERED') !== undefined) return;
  const netns = openPath(path, 0);
  if (netns < 0 || namespaceType(netns) !== CLONE_NEWNET) return;
  const owner = namespaceOwner(netns);
  if (owner < 0) return; // neither ours nor below ours
  const nsenter = [tool('nsenter'), '--preserve-credentials'];
  const tried = spawnSync(
    nsenter[0]!,
    [...nsenter.slice(1), '--user=/proc/self/fd/3', '--', '/bin/sh', '-c', ':'],
    {
      stdio: ['ignore', 'ignore', 'ignore', owner],
    },
  );
  if (tried.status !== 0) return;
  setCloexec(owner, false);
  const entrance = [
    ...nsenter,
    `--user=/proc/self/fd/${owner}`,
    '--',
    tool('unshare'),
    '-m',
    '--propagation',
    'slave',
    '--',
  ];
  become(entrance, [owner]);
}

/** @param fds  those that the entrance names */
function become(entrance: readonly string[], fds: readonly number[] = []): never {
  clearCloexec(callersDescriptors());
  const argv = [...entrance, process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  return process.execve!(entrance[0]!, argv, {
    ...process.env,
    ...inheritedBeyondExec(fds),
    ...({
      BUCATINI_REENTERED: '1',
      BUCATINI_OWN_MOUNTS: '1', // both entrances end in unshare -m
    } satisfies Partial<Record<LauncherVariable, string>>),
  });
}
