/**
 * Descriptors that our caller left open beyond standard input, output and error. Node's own cannot be told
 * from them any more once it runs, so the launchers count them (bin/launch.sh): BUCATINI_INHERITED="12 40".
 * COMMAND of `run` gets them by their numbers (command.ts). In the sandbox none is open that no option names:
 * whatever they lead to, packet threads would have it too.
 */
import { readdirSync } from 'node:fs';
import { F_GETFD, FD_CLOEXEC } from '../../sys/constants.ts';
import { close, fcntl, isOpen, setCloexec } from '../../sys/io.ts';
import { openFilesLimit } from '../../sys/open-files.ts';
import type { LauncherVariable } from './launcher-env.ts';

const INHERITED: LauncherVariable = 'BUCATINI_INHERITED';

/**
 * Children get standard input, output and error, by name, and nothing else: Node closes some of the others on
 * exec (the low ones) and not all.
 */
export function closeInheritedOnExec(): void {
  for (const name of readdirSync('/proc/self/fd')) {
    const fd = Number(name);
    if (fd > 2) setCloexec(fd); // one that is closed by now says EBADF
  }
}

/** What COMMAND is to have beyond standard error. */
export const callersDescriptors = (env: NodeJS.ProcessEnv = process.env): readonly number[] =>
  inherited(env).filter(isOpen);

/** Children born from now on have these. */
export function passOn(fds: readonly number[]): void {
  for (const fd of fds) setCloexec(fd, false);
}

const inherited = (env: NodeJS.ProcessEnv): number[] =>
  (env[INHERITED] ?? '').split(' ').filter(Boolean).map(Number);

/** We and the container's connections are short of descriptors below this. */
const FEW_OPEN_FILES = 256;

/** What to tell when hardly any connection has a descriptor; undefined: there are enough. */
export function fewDescriptors(): string | undefined {
  const limit = openFilesLimit();
  if (limit >= FEW_OPEN_FILES) return undefined;
  return `only ${limit} descriptors may be open, connections that find none wait: raise the hard limit (ulimit -Hn)`;
}

/** Whether our caller has left it open; started without a launcher, whether it is open at all. */
export const isInherited = (fd: number, env: NodeJS.ProcessEnv = process.env): boolean =>
  env[INHERITED] === undefined ? isOpen(fd) : inherited(env).includes(fd);

/** Close them, once. @param keep  those that options name */
export function closeInherited(keep: readonly number[] = [], env: NodeJS.ProcessEnv = process.env): void {
  for (const fd of inherited(env)) if (!keep.includes(fd)) close(fd);
  delete env[INHERITED];
}

/**
 * What to tell a program that this process becomes: those of them that it would have too.
 * @param added and these
 */
export function inheritedBeyondExec(
  added: readonly number[],
  env: NodeJS.ProcessEnv = process.env,
): NodeJS.ProcessEnv {
  const left = inherited(env).filter((fd) => (fcntl(fd, F_GETFD, 0) & FD_CLOEXEC) === 0);
  return { [INHERITED]: [...left, ...added].join(' ') };
}

/** The descriptor that a path of this process's own leads to: /proc/self/fd/N. */
export function descriptorOfPath(path: string): readonly number[] {
  const fd = /^\/(?:proc\/self|dev)\/fd\/([0-9]{1,7})$/.exec(path)?.[1];
  return fd === undefined ? [] : [Number(fd)];
}
