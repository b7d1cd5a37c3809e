// bundle: front-end bucatini
/**
 * Entry of the `bucatini` front end. bin/bucatini starts it in the namespaces that the subcommand needs. It
 * loads only the modules of the subcommand. The process ends with the status that the subcommand returns; 1
 * for our own errors.
 */
import { fileURLToPath } from 'node:url';
import { packageRoot, writeCodeCache } from '#runtime/program';
import { bootPacketThread } from '../../workers/packet-worker.ts';
import { say, useLogWriter } from '../host/log.ts';
import { enterProgram, exitAfter, ownVersion } from '../process/entry.ts';
import { ownStreams, print } from '../process/output.ts';
import { ownArguments } from '../process/own-texts.ts';
import { COMMAND_NAMES, type CommandName, commandList } from './commands.ts';
import type { Settings } from './options.ts';

/** Subcommands that run an engine in this process. */
const startsEngine = (name: string | undefined): name is 'run' | 'attach' =>
  name === 'run' || name === 'attach';

/** @param env  for COMMAND */
async function main(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const [name = '', ...args] = argv;
  const command = COMMAND_NAMES.find((known) => known === name);
  if (command === undefined) throw new Error(`${name || 'no command'}: write bucatini ${commandList()}`);
  if (startsEngine(command)) ownStreams();
  // Boot the packet thread first, as it takes longest. It must be started before the main thread may move
  // into another network namespace (netns.ts).
  const booted = startsEngine(command) ? bootPacketThread('packet thread 0') : undefined;
  try {
    const { parseArguments, mayNeedLogFormat } = await import('./options.ts');
    // The options of `policy test` come after its name.
    const tests = command === 'policy' && args[0] === 'test';
    const parsed = parseArguments(command, tests ? args.slice(1) : args);
    if (parsed.kind !== 'go') {
      await printText(command, parsed.kind);
      // scripts/build.ts fills the compile cache by this call. exitAfter() would not write it.
      if (booted !== undefined) writeCodeCache();
      return 0;
    }
    const { settings, operands } = parsed;
    if ((startsEngine(command) || command === 'switch-agent') && mayNeedLogFormat(settings.logFormat)) {
      const { logWriter } = await import('../host/log-format.ts');
      const writer = logWriter(settings.logFormat, { program: command, version: ownVersion() });
      if (writer !== undefined) useLogWriter(writer.log);
    }
    switch (command) {
      case 'run':
        return await (await import('./run.ts')).run(booted!, settings, operands, env, ownVersion);
      case 'attach':
        return await (await import('./attach.ts')).attach(booted!, settings, operands, ownVersion);
      case 'doctor':
        refuseOperands(operands);
        return await (await import('./doctor.ts')).doctor(settings.container, env);
      case 'selftest':
        refuseOperands(operands);
        return await (await import('./selftest/selftest.ts')).selftest();
      case 'policy':
        if (tests) return (await import('./policy.ts')).policyTest(settings, operands);
        refuseOptions(settings, ['protocol', 'name'], 'bucatini policy test');
        return await (await import('./watch.ts')).watch(command, settings, operands);
      case 'flows':
      case 'ports':
      case 'stats':
        return await (await import('./watch.ts')).watch(command, settings, operands);
      case 'metrics':
        return await (await import('./metrics.ts')).metrics(settings, operands);
      case 'top':
        return await (await import('./top/top.ts')).top(settings, operands, env);
      case 'switch-agent':
        return await (await import('./switch-agent.ts')).switchAgent(settings, operands, env);
      case 'switch-over':
      case 'switch-back': {
        refuseOperands(operands);
        const { podmanPasta, switchBack, switchOver } = await import('./switch-over.ts');
        const binDir = fileURLToPath(new URL('bin', packageRoot));
        let unprinted: unknown;
        const options = {
          env,
          uid: process.getuid!(),
          binDir,
          podmanPasta: () => podmanPasta(env),
          // What is printed has been done: what is left is done as well, before the error.
          print: (line: string) => {
            try {
              print(`${line}\n`);
            } catch (error) {
              unprinted ??= error;
            }
          },
        };
        const status =
          command === 'switch-over' ? switchOver(options, settings.switchSockets) : switchBack(options);
        if (unprinted !== undefined) throw unprinted;
        return status;
      }
      case 'bench':
        throw new Error('only the launcher starts it (bin/bucatini): it is another program');
      case 'bug-report':
        return await (await import('./bug-report.ts')).bugReport(ownVersion(), operands, env);
    }
  } catch (error) {
    throw inCommand(command, error);
  }
}

async function printText(command: CommandName, kind: 'help' | 'version'): Promise<void> {
  const { helpText, versionText } = await import('./cli-texts.ts');
  print(kind === 'help' ? helpText(command) : versionText(ownVersion()));
}

/** Of two commands that share a table of options: those of the other one. */
function refuseOptions(settings: Settings, names: readonly (keyof Settings)[], owner: string): void {
  const given = names.find((name) => settings[name] !== undefined);
  if (given !== undefined) throw new Error(`--${given}: is an option of ${owner}`);
}

function refuseOperands(operands: readonly string[]): void {
  if (operands.length > 0)
    throw new Error(`${JSON.stringify(operands[0])}: unexpected argument; leave it out`);
}

/** Put the subcommand's name in front of an error's message. */
function inCommand(command: CommandName, error: unknown): Error {
  const cause = error instanceof Error ? error : new Error(String(error));
  return Object.assign(new Error(`${command}: ${cause.message}`, { cause }), {
    status: (cause as { status?: number }).status,
  });
}

function reportError(error: Error & { status?: number }): number {
  say(error.message);
  return error.status ?? 1;
}

const argv = ownArguments();
const outcome = main(argv, enterProgram('bucatini', argv[0] !== 'attach'));
if (startsEngine(argv[0])) void exitAfter(outcome, reportError);
else
  outcome.then(
    (status) => process.exit(status),
    () => exitAfter(outcome, reportError),
  );
