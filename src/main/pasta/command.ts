/**
 * COMMAND of `pasta`, and the chain of small programs that executes COMMAND in its namespaces:
 *
 *   nsenter --net     enters the new network namespace; left out where the main thread is in it
 *   setpriv           has the kernel kill the chain when pasta ends, by SIGKILL too
 *   unshare           makes a mount, an IPC, a UTS and, unless --no-pidns, a PID namespace with its own /proc;
 *                     its child ends with it
 *   sh                sets the host name, waits for "go", executes COMMAND: process 1 of its PID namespace
 *
 *   fd 0, 1     /dev/null
 *   fd 2        the socket between pasta and sh; error messages of the chain are read from it too, and
 *               copied to standard error
 *   fd 3, 4, 5  the caller's standard input, output and error, for COMMAND: libuv makes 0 to 2 blocking in all
 *               processes that share them
 *
 * The chain starts while the interface is configured and the engine starts. sh writes "started" to descriptor
 * 2 and waits there for a line. End of file means that pasta failed, and ends sh. COMMAND does not outlive
 * pasta: no other process can connect its network again.
 */
import { existsSync } from 'node:fs';
import { Child, type ChildPlan } from '../process/child.ts';
import {
  CommandError,
  findProgram,
  START_LIMIT_MS,
  standardStreams,
  tool,
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
  /** Descriptor of the network namespace to enter; absent: the main thread is in it. */
  readonly namespaceFd?: number;
  readonly pidns: boolean;
  /** At most HOST_NAME_MAX bytes; absent: the host's name stays. */
  readonly hostname?: string;
  /** --hostname was given: a message is printed when the name cannot be set. */
  readonly hostnameWritten?: boolean;
}

/**
 * What sh executes. An environment variable holds the script, so that ps does not show it. Without
 * hostname(1) the host's name stays.
 */
const INIT = `
[ -z "$PASTA_HOSTNAME" ] || hostname "$PASTA_HOSTNAME" 2>/dev/null || [ -z "$PASTA_NO_HOSTNAME" ] || echo "$PASTA_NO_HOSTNAME" >&5
[ -z "$PASTA_IGNORED" ] || eval "trap '' $PASTA_IGNORED"
unset PASTA_INIT PASTA_HOSTNAME PASTA_NO_HOSTNAME PASTA_IGNORED
echo started >&2
read -r PASTA_GO <&2 || exit 1
unset PASTA_GO
exec 0<&3 1>&4 2>&5 3<&- 4<&- 5<&-
exec "$@"
`;

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
    const { namespaceFd } = options;
    const enter =
      namespaceFd === undefined
        ? []
        : [tool('nsenter'), `--net=/proc/${process.pid}/fd/${namespaceFd}`, '--'];
    const killWithParent = [tool('setpriv'), '--pdeathsig', 'KILL', '--'];
    const unshare = [tool('unshare'), '--mount', '--propagation', 'slave', '--ipc', '--uts'];
    if (options.pidns) unshare.push('--pid', '--fork', '--kill-child', '--mount-proc');
    const chain = [
      ...[...enter, ...killWithParent, ...unshare, '--'],
      ...['/bin/sh', '-c', 'eval "$PASTA_INIT"', 'pasta'],
      ...withEntriesShellsDrop(options.login ? loginShell(file) : [program, ...args], options.env),
    ];
    this.#head = startChild({
      file: chain[0]!,
      argv: chain,
      cwd: commandDirectory(),
      descriptors: standardStreams([3, 4, 5]),
      env: {
        ...options.env,
        PASTA_INIT: INIT,
        PASTA_HOSTNAME: options.hostname ?? '',
        PASTA_NO_HOSTNAME: options.hostnameWritten ? Message.hostnameUnusable : '',
        PASTA_IGNORED: ignoredSignals()
          .map((name) => name.slice('SIG'.length))
          .join(' '),
      },
    });
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
