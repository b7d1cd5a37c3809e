/**
 * COMMAND of `pasta`, and the chain of small programs that executes COMMAND in its namespaces:
 *
 *   sh                in a new mount, IPC, UTS and, unless --no-pidns, PID namespace with its own /proc; killed
 *                     when pasta ends, by SIGKILL too; with a host name of its own. All this is done before it is
 *                     executed (sys/spawn.ts). It waits for "go" and executes COMMAND: process 1 of its PID
 *                     namespace
 *   env               only if the environment has names that a shell drops
 *
 *   fd 0, 1     /dev/null
 *   fd 2        the socket between pasta and sh; error messages of the chain are read from it too, and
 *               copied to standard error
 *   fd 3, 4, 5  the caller's standard input, output and error, for COMMAND. Not 0 to 2: sh must not read or
 *               write the caller's streams
 *
 * The chain starts while the interface is configured and the engine starts. sh writes "started" to descriptor
 * 2 and waits there for a line. End of file means that pasta failed, and ends sh. COMMAND does not outlive
 * pasta: no other process can connect its network again.
 */
import { existsSync } from 'node:fs';
import { CLONE_NEWIPC, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUTS } from '../../sys/constants.ts';
import type { Supervision } from '../../sys/spawn.ts';
import { Child, type ChildPlan } from '../process/child.ts';
import {
  CommandError,
  findProgram,
  START_LIMIT_MS,
  standardStreams,
  withEntriesShellsDrop,
} from '../process/command.ts';
import { put } from '../process/output.ts';
import { ignoredSignals } from '../process/signals.ts';
import { within } from '../process/time-limit.ts';
import { commandDirectory } from '../process/working-directory.ts';
import { Message } from './messages.ts';

export interface PastaCommandOptions {
  readonly argv: readonly string[];
  /** No command was given: the shell is started as a login shell, argv[0] with `-` in front. */
  readonly login: boolean;
  readonly env: NodeJS.ProcessEnv;
  readonly pidns: boolean;
  /** At most HOST_NAME_MAX bytes; absent: the host's name stays. */
  readonly hostname?: string;
  /** --hostname was given: a message is printed when the name cannot be set. */
  readonly hostnameWritten?: boolean;
  /** Of --switch-sockets. */
  readonly supervised?: Supervision | undefined;
}

/**
 * What sh executes. An environment variable holds the script, so that ps does not show it.
 */
const INIT = `
unset PASTA_INIT
echo started >&2
read -r PASTA_GO <&2 || exit 1
unset PASTA_GO
exec 0<&3 1>&4 2>&5 3<&- 4<&- 5<&-
exec "$@"
`;

/** Numbers of the signals that ignoredSignals() names: <asm-generic/signal.h>. */
const CALLERS_SIGNALS: Readonly<Record<string, number>> = { SIGHUP: 1, SIGINT: 2, SIGQUIT: 3 };

/** Status of findProgram's error for a program that does not exist. */
const NOT_FOUND = 127;
export const HOST_NAME_MAX = 64; // bytes, sethostname(2)

/**
 * The chain and COMMAND, started by the constructor.
 * @throws CommandError with pasta's message where COMMAND does not exist or cannot be executed
 */
export class PastaCommand {
  readonly #head: Child;
  #running = false;
  /** Resolves when sh waits for "go"; rejects when the chain ends before. */
  readonly started: Promise<void>;
  /** Resolves to COMMAND's exit status as a shell reports it: 128 + n for signal n. */
  readonly ended: Promise<number>;

  constructor(options: PastaCommandOptions) {
    const [program = '', ...args] = options.argv;
    const file = executable(program, options.env.PATH);
    const argv = [
      ...['/bin/sh', '-c', 'eval "$PASTA_INIT"', 'pasta'],
      ...withEntriesShellsDrop(options.login ? loginShell(file) : [program, ...args], options.env),
    ];
    this.#head = startChild({
      ...{ file: '/bin/sh', argv, ignores: ignoredSignals().map((name) => CALLERS_SIGNALS[name]!) },
      endsWithUs: true,
      namespaces: CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | (options.pidns ? CLONE_NEWPID : 0),
      mountsProc: options.pidns,
      hostName: options.hostname,
      cwd: commandDirectory(),
      descriptors: standardStreams([3, 4, 5]),
      supervised: options.supervised,
      env: { ...options.env, PASTA_INIT: INIT },
    });
    if (this.#head.hostNameRefused && options.hostnameWritten) put(2, `${Message.hostnameUnusable}\n`);
    this.ended = this.#head.exited;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    let partialLine = '';
    this.#head.channel.onData((chunk) => {
      if (this.#running) return;
      const lines = `${partialLine}${chunk}`.split('\n');
      partialLine = lines.pop()!;
      for (const line of lines) {
        if (line === 'started') resolve();
        else put(2, `${line}\n`);
      }
    });
    void this.#head.closed.then(() => reject(new CommandError(Message.cannotExecute('its namespaces'), 1)));
    this.started = within(promise, START_LIMIT_MS, 'COMMAND has not been started');
    this.started.catch(() => {});
  }

  /** Let sh execute COMMAND. */
  go(): void {
    this.#running = true;
    this.#head.channel.end('go\n');
  }

  /** Id of the first process. */
  get firstPid(): number {
    return this.#head.pid;
  }

  /** Process ids that kill() signals. */
  get signalled(): readonly number[] {
    return [this.#head.pid];
  }

  kill(): void {
    this.#head.kill();
  }
}

/** @throws CommandError with pasta's message */
function startChild(plan: ChildPlan): Child {
  try {
    return new Child(plan);
  } catch (error) {
    throw new CommandError(Message.cannotExecute((error as Error).message), 1);
  }
}

/**
 * The argv of a login shell: argv[0] starts with a dash. bash can execute a program with such an argv[0];
 * without bash, the shell gets -l.
 */
function loginShell(file: string): readonly string[] {
  if (existsSync('/bin/bash')) return ['/bin/bash', '-c', 'exec -a "$0" "$1"', `-${file}`, file];
  return [file, '-l'];
}

/** @returns the file that execvp(3) executes. @throws CommandError with pasta's message */
function executable(program: string, path: string | undefined): string {
  try {
    return findProgram(program, path);
  } catch (error) {
    const missing = (error as CommandError).status === NOT_FOUND;
    throw new CommandError(
      Message.cannotExecute(missing ? 'No such file or directory' : 'Permission denied'),
      1,
    );
  }
}
