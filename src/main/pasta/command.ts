/**
 * COMMAND of `pasta`, and the chain of small programs that puts it in its place:
 *
 *   nsenter --net     into the new network namespace, where the main thread is not there itself
 *   setpriv           killed when pasta ends, however it does, SIGKILL included
 *   unshare           mount, IPC, UTS and, unless --no-pidns, PID namespace with a /proc of its own; its child is killed with it
 *   sh                waits for "go", sets the host name, becomes COMMAND: process 1 of its PID namespace
 *
 *   fd 0, 1     /dev/null
 *   fd 2        the talk with sh, and the chain's complaints, which are passed on to standard error
 *   fd 3, 4, 5  the caller's standard input, output and error, for COMMAND: libuv makes 0 to 2 blocking for all who have them
 *
 * It starts while the interface is being configured and the engine started; sh tells "started" on descriptor
 * 2 and waits for a line there. End of file means that pasta gave up. A COMMAND whose network has gone ends:
 * there is nobody to give it another.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import type { Socket } from 'node:net';
import { constants as os } from 'node:os';
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
  /** No command was given: start the shell as a login shell does, with `-` in front of its name. */
  readonly login: boolean;
  readonly env: NodeJS.ProcessEnv;
  /** Network namespace to enter; without it the chain stays in that of the main thread. */
  readonly namespaceFd?: number;
  readonly pidns: boolean;
  /** At most HOST_NAME_MAX bytes; without it the host's. */
  readonly hostname?: string;
  /** Somebody asked for it, and is told when it cannot be had. */
  readonly hostnameWritten?: boolean;
}

/** In a variable, so that ps never shows it. The host name stays the host's where there is no hostname(1). */
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

/** Status of findProgram for a program that is nowhere. */
const NOT_FOUND = 127;
export const HOST_NAME_MAX = 64; // bytes, sethostname(2)

export class PastaCommand {
  readonly #head: ChildProcess;
  readonly #talk: Socket;
  #running = false;
  /** Resolves when sh waits for "go"; rejects when the chain broke. */
  readonly started: Promise<void>;
  /** Exit status as a shell gives it: 128 + n for signal n. */
  readonly ended: Promise<number>;

  constructor(options: PastaCommandOptions) {
    const [program = '', ...args] = options.argv;
    const file = executable(program, options.env.PATH);
    const { namespaceFd } = options;
    const enter =
      namespaceFd === undefined
        ? []
        : [tool('nsenter'), `--net=/proc/${process.pid}/fd/${namespaceFd}`, '--'];
    const dying = [tool('setpriv'), '--pdeathsig', 'KILL', '--'];
    const unshare = [tool('unshare'), '--mount', '--propagation', 'slave', '--ipc', '--uts'];
    if (options.pidns) unshare.push('--pid', '--fork', '--kill-child', '--mount-proc');
    const [head, ...chain] = [
      ...[...enter, ...dying, ...unshare, '--'],
      ...['/bin/sh', '-c', 'eval "$PASTA_INIT"', 'pasta'],
      ...withEntriesShellsDrop(options.login ? loginShell(file) : [program, ...args], options.env),
    ];
    this.#head = spawn(head!, chain, {
      cwd: commandDirectory(),
      stdio: standardStreams([3, 4, 5]),
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
    this.#talk = this.#head.stderr as Socket;
    this.#talk.on('error', () => {}); // EPIPE when the chain is gone: `ended` tells
    this.ended = new Promise((resolve) => {
      this.#head.once('error', () => resolve(1));
      this.#head.once('exit', (code, signal) => resolve(code ?? 128 + os.signals[signal!]));
    });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    let said = '';
    this.#talk.on('data', (chunk: Buffer) => {
      if (this.#running) return;
      const lines = `${said}${chunk}`.split('\n');
      said = lines.pop()!;
      for (const line of lines) {
        if (line === 'started') resolve();
        else put(2, `${line}\n`);
      }
    });
    this.#head.once('error', (error) => reject(new CommandError(Message.cannotExecute(error.message), 1)));
    this.#head.once('close', () => reject(new CommandError(Message.cannotExecute('its namespaces'), 1)));
    this.started = within(promise, START_LIMIT_MS, 'COMMAND has not been started');
    this.started.catch(() => {});
  }

  /** Let COMMAND run. */
  go(): void {
    this.#running = true;
    this.#talk.end('go\n');
  }

  /** Processes that kill() sends to. */
  get signalled(): readonly number[] {
    return this.#head.pid === undefined ? [] : [this.#head.pid];
  }

  kill(): void {
    this.#head.kill('SIGKILL');
  }
}

/**
 * Login shells are told so by a dash in front of their name, which only some shells can give another program.
 */
function loginShell(file: string): readonly string[] {
  if (existsSync('/bin/bash')) return ['/bin/bash', '-c', 'exec -a "$0" "$1"', `-${file}`, file];
  return [file, '-l'];
}

/** The file that execvp(3) takes. @throws CommandError with pasta's words */
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
