/**
 * Descriptors that our caller left open beyond standard input, output and error. Once the runtime runs, they
 * cannot be distinguished from its own. So the launchers list them before (bin/launch.sh):
 * BUCATINI_INHERITED="12 40". COMMAND of `run` gets them under the same numbers (command.ts). In the sandbox
 * only those that an option names stay open, as the packet threads could use the others too.
 */
import { readdirSync } from 'node:fs';
import { F_GETFD, FD_CLOEXEC } from '../../sys/constants.ts';
import { close, fcntl, isOpen, setCloexec } from '../../sys/io.ts';
import { openFilesLimit } from '../../sys/open-files.ts';
import type { LauncherVariable } from './launcher-env.ts';

const INHERITED: LauncherVariable = 'BUCATINI_INHERITED';

/**
 * Set close-on-exec on all descriptors above 2, so that children get only those that their plan names
 * (sys/spawn.ts). At its start Node does this for the low ones, Bun for those from 4 on.
 */
export function closeInheritedOnExec(): void {
  for (const name of readdirSync('/proc/self/fd')) {
    const fd = Number(name);
    if (fd > 2) setCloexec(fd); // EBADF if the descriptor has been closed meanwhile
  }
}

/** Descriptors above 2 that COMMAND gets. */
export const callersDescriptors = (env: NodeJS.ProcessEnv = process.env): readonly number[] =>
  inherited(env).filter(isOpen);

/** Clear close-on-exec: children started from now on get these descriptors. */
export function clearCloexec(fds: readonly number[]): void {
  for (const fd of fds) setCloexec(fd, false);
}

const inherited = (env: NodeJS.ProcessEnv): number[] =>
  (env[INHERITED] ?? '').split(' ').filter(Boolean).map(Number);

/** With a lower limit, the container's connections run out of descriptors soon. */
const FEW_OPEN_FILES = 256;

/** A warning if the limit leaves few descriptors for connections. undefined: there are enough. */
export function fewDescriptors(): string | undefined {
  const limit = openFilesLimit();
  if (limit >= FEW_OPEN_FILES) return undefined;
  return `only ${limit} descriptors may be open; connections beyond that wait: raise the hard limit (ulimit -Hn)`;
}

/** Whether our caller left the descriptor open. Without a launcher's list: whether it is open at all. */
export const isInherited = (fd: number, env: NodeJS.ProcessEnv = process.env): boolean =>
  env[INHERITED] === undefined ? isOpen(fd) : inherited(env).includes(fd);

/**
 * Close the inherited descriptors; a second call has no effect.
 * @param keep  those that options name
 */
export function closeInherited(keep: readonly number[] = [], env: NodeJS.ProcessEnv = process.env): void {
  for (const fd of inherited(env)) if (!keep.includes(fd)) close(fd);
  delete env[INHERITED];
}

/**
 * The variable for a program that this process executes: the inherited descriptors that stay open across
 * execve(), and `added`.
 * @param added  more descriptors
 */
export function inheritedBeyondExec(
  added: readonly number[],
  env: NodeJS.ProcessEnv = process.env,
): NodeJS.ProcessEnv {
  const left = inherited(env).filter((fd) => (fcntl(fd, F_GETFD, 0) & FD_CLOEXEC) === 0);
  return { [INHERITED]: [...left, ...added].join(' ') };
}

/** The descriptor that a path like /proc/self/fd/N names. Empty for any other path. */
export function descriptorOfPath(path: string): readonly number[] {
  const fd = /^\/(?:proc\/self|dev)\/fd\/([0-9]{1,7})$/.exec(path)?.[1];
  return fd === undefined ? [] : [Number(fd)];
}
