/**
 * Leaving the caller. bin/pasta starts us in the background with a pipe on descriptor PASTA_STATUS_FD and waits for it to close:
 * one byte '0' means that the network is ready, nothing means that we failed (and said why on standard error). Callers read our
 * output to its end, so standard input, output and error must be let go of before.
 */
import { closeSync, openSync, writeSync } from 'node:fs';
import { O_RDWR, SIGINT, SIGQUIT } from '../../sys/constants.ts';
import { dup3 } from '../../sys/io.ts';
import { setsid, signalDefault } from '../../sys/namespace.ts';

export const STATUS_FD_VARIABLE = 'PASTA_STATUS_FD';

/** The descriptor on which bin/pasta waits; undefined in the foreground. */
export function statusFd(env: NodeJS.ProcessEnv): number | undefined {
  const text = env[STATUS_FD_VARIABLE];
  return text !== undefined && /^[0-9]{1,4}$/.test(text) ? Number(text) : undefined;
}

/**
 * Tell that all is ready and go on alone: a session of our own, nothing of the caller's open.
 * @param fd  from statusFd
 */
export function leaveCaller(fd: number): void {
  setsid(); // refused only for a group's leader, which a job behind "&" is not
  // The shell's "&" had them ignored.
  signalDefault(SIGINT);
  signalDefault(SIGQUIT);
  const none = openSync('/dev/null', O_RDWR);
  for (const standard of [0, 1, 2]) dup3(none, standard, 0);
  closeSync(none);
  process.chdir('/');
  writeSync(fd, '0');
  closeSync(fd);
}

/** Become an ordinary user in all threads, with no capability left. @param ids  "UID:GID" */
export function becomeUser(ids: string): void {
  const [uid = 0, gid = 0] = ids.split(':').map(Number);
  process.setgroups!([gid]);
  process.setgid!(gid);
  process.setuid!(uid);
}
