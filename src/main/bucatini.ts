// bundle: front-end bucatini
/**
 * Entry of the `bucatini` front end, started by bin/bucatini in the namespaces that the subcommand needs. Only what the
 * subcommand uses is loaded; the process ends with the status that the subcommand gives, 1 for errors of our own.
 */
import { writeFileSync, writeSync } from 'node:fs';
import { enableCompileCache, flushCompileCache } from 'node:module';
import { fileURLToPath } from 'node:url';
import type * as Process from '../sys/process.ts';
import { bootPacketThread } from '../workers/packet-worker.ts';
import { callersEnvironment } from './callers-environment.ts';
import { say } from './log.ts';
import type { CommandName } from './options.ts';
import { ownStreams, put } from './output.ts';
import { leaveRemovedDirectory } from './working-directory.ts';

const COMMANDS: readonly string[] = [
  'run',
  'attach',
  'doctor',
  'selftest',
  'switch-over',
  'switch-back',
  'bug-report',
] satisfies CommandName[];

/** Compiled code is kept beside dist/main by whoever may write there: 20 ms of 150 to start. undefined when run from source. */
const codeCache = import.meta.url.endsWith('.js')
  ? fileURLToPath(new URL('../cache', import.meta.url))
  : undefined;
if (codeCache !== undefined) enableCompileCache(codeCache);

async function main(argv: readonly string[]): Promise<number> {
  const [name = '', ...args] = argv;
  if (!COMMANDS.includes(name))
    throw new Error(
      `${name || 'no command'}: write bucatini ${COMMANDS.slice(0, -1).join(', ')} or ${COMMANDS.at(-1)}`,
    );
  const command = name as CommandName;
  const env = callersEnvironment();
  leaveRemovedDirectory();
  if (codeCache !== undefined) process.env.NODE_COMPILE_CACHE = codeCache; // workers go by it
  if (command === 'run' || command === 'attach') ownStreams();
  // First of all, as it takes longest, and before the main thread may move into another network namespace (netns.ts).
  const booted = command === 'run' || command === 'attach' ? bootPacketThread('packet thread 0') : undefined;
  const { parseArguments } = await import('./options.ts');
  let parsed: ReturnType<typeof parseArguments>;
  try {
    parsed = parseArguments(command, args);
  } catch (error) {
    throw inCommand(command, error);
  }
  if (parsed.kind !== 'go') {
    const said = printText(command, parsed.kind);
    if (booted === undefined) return said;
    await said;
    flushCompileCache(); // scripts/build.ts fills it by this, and leave() would not
    return leave(said);
  }
  const { settings, operands } = parsed;
  try {
    switch (command) {
      case 'run':
        return await leave((await import('./run.ts')).run(booted!, settings, operands, env, ownVersion));
      case 'attach':
        return await leave((await import('./attach.ts')).attach(booted!, settings, operands, ownVersion));
      case 'doctor':
        refuseOperands(operands);
        return await (await import('./doctor.ts')).doctor();
      case 'selftest':
        refuseOperands(operands);
        return await (await import('./selftest/selftest.ts')).selftest();
      case 'switch-over':
      case 'switch-back': {
        refuseOperands(operands);
        const { podmanPasta, switchBack, switchOver } = await import('./switch-over.ts');
        const binDir = fileURLToPath(new URL('../../bin', import.meta.url));
        const options = {
          ...{ env, uid: process.getuid!(), binDir, podmanPasta },
          tell: (line: string) => console.log(line),
        };
        return command === 'switch-over' ? switchOver(options) : switchBack(options);
      }
      case 'bug-report':
        return await (await import('./bug-report.ts')).bugReport(await ownVersion(), operands);
    }
  } catch (error) {
    throw inCommand(command, error);
  }
}

/**
 * The engine has stopped, or its thread may still be booting, and everything has been said by synchronous writes: leave without Node's
 * taking its threads apart, which in the midst of a boot has been seen to end in a signal.
 */
async function leave(outcome: Promise<number>): Promise<number> {
  leaving = import('../sys/process.ts');
  const status = await outcome;
  return (await leaving).exitNow(status);
}

/** Has what ends the process; asked for before the wall (wall.ts), behind which nothing can be loaded. */
let leaving: Promise<typeof Process> | undefined;

async function printText(command: CommandName, kind: 'help' | 'version'): Promise<number> {
  const { helpText, versionText } = await import('./cli-texts.ts');
  if (kind === 'help') {
    put(1, helpText(command));
  } else {
    put(1, versionText(await ownVersion()));
  }
  return 0;
}

async function ownVersion(): Promise<string> {
  const { readFileSync } = await import('node:fs');
  return JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')).version;
}

function refuseOperands(operands: readonly string[]): void {
  if (operands.length > 0)
    throw new Error(`${JSON.stringify(operands[0])}: unexpected argument; leave it out`);
}

/** The subcommand's name in front of what went wrong in it. */
function inCommand(command: CommandName, error: unknown): Error {
  const cause = error instanceof Error ? error : new Error(String(error));
  return Object.assign(new Error(`${command}: ${cause.message}`, { cause }), {
    status: (cause as { status?: number }).status,
  });
}

try {
  // The name of the main thread is the process's in ps and pgrep; Node calls it node-MainThread.
  writeFileSync('/proc/self/comm', 'bucatini');
} catch {
  // Without /proc there is no ps either.
}
main(process.argv.slice(2)).then(
  (status) => process.exit(status),
  async (error: Error & { status?: number }) => {
    say(error.message);
    if (process.env.BUCATINI_STACK !== undefined) writeSync(2, `${error.stack}\n`);
    // Threads may still be booting; Node's taking them apart in the midst of it has been seen to end in a signal.
    (await (leaving ?? import('../sys/process.ts'))).exitNow(error.status ?? 1);
  },
);
