/**
 * Detaching from the caller. bin/pasta starts this process in the background with a pipe on descriptor
 * PASTA_STATUS_FD and waits until the pipe is closed: one byte '0' means that the network is ready, no byte
 * means that we failed (and wrote the reason to standard error). Callers read our output to its end, so our
 * standard input, output and error are replaced before.
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
 * Continue in the background, in a session of our own and with nothing of the caller's open, and report that
 * the network is ready.
 * @param fd       from statusFd; closed here
 * @param devNull  descriptor of /dev/null; closed here
 * @param last     called when the caller's descriptors are closed, before the report; its error is also
 *   written to the caller's standard error
 * @throws Error of `last`
 */
export function detachFromCaller(fd: number, devNull: number, last: () => void): void {
  releaseOutputs(); // the caller reads them to their end
  const stderr = dupAbove(2, 3);
  setsid(); // fails only for a process group leader, which a job behind "&" is not
  // A shell without job control starts a job behind "&" with these two ignored (POSIX).
  signalDefault(SIGINT);
  signalDefault(SIGQUIT);
  for (const standard of [0, 1, 2]) dup3(devNull, standard, 0);
  closeSync(devNull);
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

/** Switch all threads to an ordinary user, without capabilities. @param ids  "UID:GID" */
export function becomeUser(ids: string): void {
  const [uid = 0, gid = 0] = ids.split(':').map(Number);
  process.setgroups!([gid]);
  process.setgid!(gid);
  process.setuid!(uid);
}
