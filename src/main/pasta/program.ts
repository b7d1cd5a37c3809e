/**
 * The `pasta` front end, from the command line to the exit status: COMMAND's, or 1 after an error, whose
 * message goes to standard error.
 */
import { writeSync } from 'node:fs';
import { Errno } from '../../sys/constants.ts';
import { strerror } from '../../sys/libc.ts';
import type { BootedThread } from '../../workers/packet-worker.ts';
import { mayNeedLogFormat } from '../cli/log-option.ts';
import { UsageError } from '../cli/values.ts';
import { exitAfter, ownVersion } from '../process/entry.ts';
import { closeInherited, isInherited } from '../process/inherited-descriptors.ts';
import { launcherVariable } from '../process/launcher-env.ts';
import { statusFd } from './daemon.ts';
import { PastaLog } from './log.ts';
import { Message } from './messages.ts';

const log = new PastaLog();

export interface PastaProgram {
  readonly argv: readonly string[];
  /** COMMAND's environment. */
  readonly env: NodeJS.ProcessEnv;
  /**
   * The packet thread, started before the main thread may move into another network namespace
   * (../host/netns.ts).
   */
  readonly booted: BootedThread;
}

/** @returns the exit status. @throws Error with the message for the user */
async function main({ argv, env, booted }: PastaProgram): Promise<number> {
  const fd = statusFd(process.env);
  const program = launcherVariable('PASTA_PROGRAM') ?? 'pasta';
  const { parsePasta } = await import('./parse.ts');
  const parsed = parsePasta(argv, env);
  if (parsed.kind === 'usage') {
    const { usageText } = await import('./texts.ts');
    writeSync(2, `${Message.usage(program, parsed.error)}\n${usageText(program)}`);
    return 1;
  }
  if (parsed.kind !== 'go') {
    const { usageText, versionText } = await import('./texts.ts');
    writeSync(1, parsed.kind === 'help' ? usageText(program) : versionText(ownVersion()));
    return 0;
  }
  const { conf, target, login, warnings } = parsed;
  if (conf.fd !== undefined && !isInherited(conf.fd))
    throw new UsageError(Message.fdNotOpen(strerror(Errno.EBADF)));
  // As passt's pasta does: an inherited descriptor can be used only by --fd, not by a path in another option.
  closeInherited(conf.fd === undefined ? [] : [conf.fd]);
  if (mayNeedLogFormat(conf.logFormat)) {
    const { logWriter } = await import('../host/log-format.ts');
    log.useWriter(logWriter(conf.logFormat, { program: 'pasta', version: ownVersion() }));
  }
  for (const warning of warnings) log.log('warning', warning);
  if (launcherVariable('PASTA_STARTED_AS_ROOT') !== undefined) log.log('warning', Message.startedAsRoot);
  log.configure(conf.verbosity);
  const runAs = launcherVariable('PASTA_RUNAS');
  const { servePasta } = await import('./serve.ts');
  return servePasta({
    ...{ conf, target, booted, log, env, login, program, version: ownVersion() },
    ...(fd !== undefined && { statusFd: fd }),
    ...(runAs !== undefined && { runAs }),
  });
}

/** Run `pasta` and end the process with its status. */
export async function pasta(program: PastaProgram): Promise<void> {
  await exitAfter(main(program), (error) => {
    log.log('error', error.message);
    return 1;
  });
}
