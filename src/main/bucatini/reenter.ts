// bundle: rare
/**
 * The second attempt if the launcher chose the wrong user namespace. A running program of ours has threads
 * and therefore cannot enter one. So this process executes nsenter or unshare, which executes our program
 * again, with the same process id and arguments. BUCATINI_REENTERED says that this has been done, so it
 * happens only once.
 */
import { spawnSync } from 'node:child_process';
import { ownCommand } from '#runtime/program';
import { CLONE_NEWNET } from '../../sys/constants.ts';
import { SysError } from '../../sys/error.ts';
import { setCloexec } from '../../sys/io.ts';
import { namespaceOwner, namespaceType } from '../../sys/namespace.ts';
import { openPath } from '../../sys/path.ts';
import { executeProgram } from '../../sys/spawn.ts';
import { tool } from '../process/command.ts';
import { callersDescriptors, clearCloexec, inheritedBeyondExec } from '../process/inherited-descriptors.ts';
import { type LauncherVariable, launcherVariable } from '../process/launcher-env.ts';
import { ownArguments, ownEnvironment } from '../process/own-texts.ts';
import { directoryBeyondExec } from '../process/working-directory.ts';

/**
 * For `run` without privileges in a user namespace.
 * @param code  errno name of the failed set-up
 * @returns only if this cannot help
 */
export function reenterOwnNamespaces(code: string | undefined): void {
  if (code !== 'EPERM' || launcherVariable('BUCATINI_REENTERED') !== undefined) return;
  const entrance = [tool('unshare'), '-Ur', '-m', '--propagation', 'slave', '--'];
  if (spawnSync(entrance[0]!, [...entrance.slice(1), '/bin/sh', '-c', ':']).status === 0)
    execThrough(entrance);
}

/**
 * For `attach`: enter the user namespace that owns the network namespace at `path`.
 * @param code  errno name of the failed set-up
 * @returns only if this cannot help
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
  execThrough(entrance, [owner]);
}

/**
 * Execute `entrance`, which then executes our program with our arguments.
 * @param fds  descriptors that `entrance` names
 */
function execThrough(entrance: readonly string[], fds: readonly number[] = []): never {
  const directory = directoryBeyondExec();
  clearCloexec([...callersDescriptors(), ...directory.fds]);
  const argv = [...entrance, ...ownCommand(), ...ownArguments()];
  const r = executeProgram(entrance[0]!, argv, {
    ...ownEnvironment(),
    ...inheritedBeyondExec(fds),
    ...directory.env,
    ...({
      BUCATINI_REENTERED: '1',
      BUCATINI_OWN_MOUNTS: '1', // both entrances end in unshare -m
    } satisfies Partial<Record<LauncherVariable, string>>),
  });
  throw new SysError('execve', entrance[0]!, -r);
}
