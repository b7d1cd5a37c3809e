/**
 * Leaving the caller. bin/pasta starts us in the background with a pipe on descriptor PASTA_STATUS_FD and
 * waits for it to close: one byte '0' means that the network is ready, nothing means that we failed (and said
 * why on standard error). Callers read our output to its end, so standard input, output and error must be let
 * go of before.
 */
import { closeSync, writeSync } from 'node:fs';
import { SIGINT, SIGQUIT } from '../../sys/constants.ts';
import { dup3, dupAbove } from '../../sys/io.ts';
import { setsid, signalDefault } from '../../sys/process.ts';
import { launcherVariable } from '../process/launcher-env.ts';
import { releaseOutputs } from '../process/output.ts';

/** The descriptor on which bin/pasta waits; undefined in the foreground. */
export function statusFd(env: NodeJS.ProcessEnv): number | undefined {
  const text = launcherVariable('PASTA_STATUS_FD', env);
  return text !== undefined && /^[0-9]{1,4}$/.test(text) ? Number(text) : undefined;
}

/**
 * Tell that all is ready and go on alone: a session of our own, nothing of the caller's open.
 * @param fd    from statusFd
 * @param none  /dev/null, which is closed here
 * @param last what is to be done before we say so, with the caller's things let go of; he is told why it
 *   fails
 */
export function leaveCaller(fd: number, none: number, last: () => void): void {
  releaseOutputs(); // he reads them to their end
  const stderr = dupAbove(2, 3);
  setsid(); // refused only for a group's leader, which a job behind "&" is not
  // The shell's "&" had them ignored.
  signalDefault(SIGINT);
  signalDefault(SIGQUIT);
  for (const standard of [0, 1, 2]) dup3(none, standard, 0);
  closeSync(none);
  process.chdir('/');
  try {
    last();
  } catch (error) {
    if (stderr >= 0) writeSync(stderr, `${(error as Error).message}\n`);
    throw error;
  }
  if (stderr >= 0) closeSync(stderr);
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
