/**
 * Entry of the `pasta` front end, started by bin/pasta in the user namespace that the options ask for. Every error ends it with
 * status 1 and pasta's message on standard error; COMMAND's status is its own.
 */
import { readFileSync, writeFileSync, writeSync } from 'node:fs';
import { enableCompileCache } from 'node:module';
import { fileURLToPath } from 'node:url';
import type * as Namespace from '../../sys/namespace.ts';
import { STATUS_FD_VARIABLE, statusFd } from './daemon.ts';
import { PastaLog } from './log.ts';
import { Message } from './messages.ts';
import { PastaNetns } from './netns-thread.ts';

/** Compiled code is kept beside dist/main by whoever may write there. undefined when run from source. */
const codeCache = import.meta.url.endsWith('.js')
  ? fileURLToPath(new URL('../../cache', import.meta.url))
  : undefined;
if (codeCache !== undefined) enableCompileCache(codeCache);

const log = new PastaLog();
/** Has what ends the process; asked for before the wall (wall.ts), behind which nothing can be loaded. */
let leaving: Promise<typeof Namespace> | undefined;

async function main(argv: readonly string[]): Promise<number> {
  const env = callersEnvironment();
  const fd = statusFd(process.env);
  const program = process.env.PASTA_PROGRAM ?? 'pasta';
  if (codeCache !== undefined) process.env.NODE_COMPILE_CACHE = codeCache; // workers go by it
  const netns = new PastaNetns();
  const { parsePasta } = await import('./options.ts');
  const parsed = parsePasta(argv, env);
  if (parsed.kind === 'usage') {
    const { usageText } = await import('./texts.ts');
    writeSync(2, `${Message.usage(program, parsed.error)}\n${usageText(program)}`);
    return 1;
  }
  if (parsed.kind !== 'go') {
    const { usageText, versionText } = await import('./texts.ts');
    writeSync(1, parsed.kind === 'help' ? usageText(program) : versionText(version()));
    return 0;
  }
  const { conf, target, login, warnings } = parsed;
  for (const warning of warnings) log.log('warning', warning);
  if (process.env.PASTA_STARTED_AS_ROOT !== undefined) log.log('warning', Message.startedAsRoot);
  log.configure(conf.verbosity);
  leaving = import('../../sys/namespace.ts');
  const { servePasta } = await import('./serve.ts');
  return servePasta({
    ...{ conf, target, netns, log, env, login, program, version: version() },
    ...(fd !== undefined && { statusFd: fd }),
    ...(process.env.PASTA_RUNAS !== undefined && { runAs: process.env.PASTA_RUNAS }),
  });
}

/** What the launcher set aside or added is not for COMMAND. */
function callersEnvironment(): NodeJS.ProcessEnv {
  const env = { ...process.env };
  if (env.BUCATINI_NODE_OPTIONS !== undefined) env.NODE_OPTIONS = env.BUCATINI_NODE_OPTIONS;
  for (const name of [
    'BUCATINI_NODE_OPTIONS',
    'BUCATINI_IGNORED',
    'BUCATINI_TEST_IMPAIR',
    'PASTA_PROGRAM',
    'PASTA_STARTED_AS_ROOT',
    'PASTA_RUNAS',
    'BUCATINI_OWN_MOUNTS',
    STATUS_FD_VARIABLE,
  ])
    delete env[name];
  return env;
}

const version = (): string =>
  JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')).version;

try {
  // The name of the main thread is the process's in ps and pgrep.
  writeFileSync('/proc/self/comm', 'pasta');
} catch {
  // Without /proc there is no ps either.
}
main(process.argv.slice(2)).then(
  (status) => process.exit(status),
  async (error: Error) => {
    log.log('error', error.message);
    if (process.env.BUCATINI_STACK !== undefined) writeSync(2, `${error.stack}\n`);
    // Threads may still be booting; Node's taking them apart in the midst of it has been seen to end in a signal.
    (await (leaving ?? import('../../sys/namespace.ts'))).exitNow(1);
  },
);
