/**
 * COMMAND and the chain of small programs that puts it in its place:
 *
 *   env             the chain ignores the signals that a terminal or a supervisor sends to all of a group
 *   nsenter --net   into the new network namespace, where the main thread is not there itself
 *   setpriv         killed when bucatini dies, even by SIGKILL
 *   unshare         mount and PID namespace; its child is killed with it, and with that child all others
 *   sh              PID 1: runs what becomes COMMAND, reaps orphans, passes the status on
 *   env, sh         not PID 1, all signals at their default actions: says "started", waits for "go", becomes COMMAND
 *
 * The private resolv.conf is mounted in our own mount namespace, which unshare copies, and taken away here when it has: three
 * programs less in the chain, and each costs milliseconds.
 *
 * The chain starts while the TAP is being configured and the engine started; the last sh holds COMMAND back until both are done.
 * It tells "started" on descriptor 4 and waits for a line there; end of file means that bucatini gave up. From "started" on a signal
 * to it has its effect: it is the process that COMMAND will be.
 *
 *   fd 0, 1   the caller's          fd 2   the chain's own complaints, read by us until "started"
 *   fd 3      network namespace     fd 4   the talk with sh          fd 5   the caller's standard error, for COMMAND
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { accessSync, constants, readFileSync, statSync, writeFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { constants as os } from 'node:os';
import { MNT_DETACH, MS_BIND } from '../sys/constants.ts';
import { checked } from '../sys/error.ts';
import { mount, umount2 } from '../sys/namespace.ts';
import { ignoredSignals } from './signals.ts';
import { commandDirectory } from './working-directory.ts';

/** COMMAND, or something that is needed to start it, cannot be executed. */
export class CommandError extends Error {
  override readonly name = 'CommandError';
  readonly status: number;
  constructor(message: string, status: number) {
    super(message);
    this.status = status;
  }
}

export interface PrivateResolvConf {
  /** What /etc/resolv.conf is in the end, links followed: the mount goes there. */
  readonly path: string;
  readonly text: string;
}

export interface CommandOptions {
  readonly argv: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  /** Network namespace to enter; without it the chain stays in that of the main thread. */
  readonly namespaceFd?: number;
  readonly resolvConf?: PrivateResolvConf;
  readonly mountProc: boolean;
  /** Its soft limit of open descriptors, as ulimit(1) has it; absent: ours. */
  readonly openFiles?: string | undefined;
}

/** Status of programs that cannot be found or executed, as shells have it. */
const NOT_FOUND = 127;
const NOT_EXECUTABLE = 126;
const SYSTEM_DIRECTORIES = ['/usr/bin', '/bin', '/usr/sbin', '/sbin'];

/** It ends when COMMAND does, or by SIGKILL. */
const CHAIN_IGNORES = ['HUP', 'INT', 'QUIT', 'TERM', 'USR1', 'USR2'];

/**
 * The init of the PID namespace. It comes in a variable so that ps shows COMMAND and not this text. The parentheses keep COMMAND
 * from taking its place (a shell execs its last command). A shell cannot give a signal back its default action that was ignored when
 * it began: hence env and another one.
 */
const INIT = `
( exec "$BUCATINI_ENV" --default-signal="$BUCATINI_SIGNALS" -- /bin/sh -c 'eval "$BUCATINI_WAIT"' bucatini "$@" )
exit $?
`;
const WAIT = `
[ -z "$BUCATINI_OPEN_FILES" ] || ulimit -S -n "$BUCATINI_OPEN_FILES"
unset BUCATINI_INIT BUCATINI_WAIT BUCATINI_SIGNALS BUCATINI_ENV BUCATINI_OPEN_FILES
echo started >&4
read -r go <&4 || exit 1
unset go
exec 2>&5 3<&- 4<&- 5>&-
exec "$@"
`;

export class Command {
  /** The chain's head, which is unshare once all are in place. */
  readonly #head: ChildProcess;
  readonly #talk: Socket;
  /** Resolves when the last sh waits for "go"; rejects with CommandError when the chain broke. Gives notes for the log. */
  readonly started: Promise<readonly string[]>;
  /** Exit status as a shell gives it: 128 + n for signal n. */
  readonly ended: Promise<number>;
  readonly #covered: CoveredFile | undefined;
  #running = false;
  /** COMMAND's process id as we see it, from "started" on; 0: the kernel has no lists of children. */
  #pid = 0;

  constructor(options: CommandOptions) {
    const { resolvConf } = options;
    this.#covered = resolvConf && coverResolvConf(resolvConf);
    const ignored = ignoredSignals();
    const chain = [
      `--ignore-signal=${CHAIN_IGNORES.join()}`,
      ...(options.namespaceFd === undefined ? [] : ['--', tool('nsenter'), '--net=/proc/self/fd/3']),
      ...['--', tool('setpriv'), '--pdeathsig', 'KILL', '--', tool('unshare')],
      ...['--mount', '--propagation', 'slave', '--pid', '--fork', '--kill-child'],
      ...(options.mountProc ? ['--mount-proc'] : []),
      ...['--', '/bin/sh', '-c', 'eval "$BUCATINI_INIT"', 'bucatini', ...options.argv],
    ];
    this.#head = spawn(tool('env'), chain, {
      cwd: commandDirectory(),
      stdio: ['inherit', 'inherit', 'pipe', options.namespaceFd ?? 'ignore', 'pipe', 2],
      env: {
        ...options.env,
        BUCATINI_INIT: INIT,
        BUCATINI_WAIT: WAIT,
        BUCATINI_SIGNALS: CHAIN_IGNORES.filter(
          (name) => !ignored.includes(`SIG${name}` as NodeJS.Signals),
        ).join(),
        BUCATINI_ENV: tool('env'),
        BUCATINI_OPEN_FILES: options.openFiles ?? '',
      },
    });
    this.#talk = this.#head.stdio[4] as Socket;
    this.#talk.on('error', () => {}); // EPIPE when the chain is gone: `ended` tells
    this.ended = new Promise((resolve) => {
      this.#head.once('error', () => resolve(1));
      this.#head.once('exit', (code, signal) => resolve(code ?? 128 + os.signals[signal!]));
    });
    this.started = this.#waitUntilStarted();
    this.started.catch(() => {});
  }

  #waitUntilStarted(): Promise<readonly string[]> {
    const { promise, resolve, reject } = Promise.withResolvers<readonly string[]>();
    let complaint = '';
    let said = '';
    this.#head.stderr!.on('data', (chunk: Buffer) => {
      if (!this.#running && complaint.length < 4096) complaint += chunk;
    });
    this.#talk.on('data', (chunk: Buffer) => {
      said += chunk;
      const lines = said.split('\n');
      if (!lines.includes('started')) return;
      // sh is the only child of unshare, what becomes COMMAND the eldest child of sh: adopted orphans come behind it.
      this.#pid ||= eldestChild(eldestChild(this.#head.pid ?? 0));
      this.#covered?.uncover();
      resolve(this.#covered?.notes ?? []);
    });
    this.#head.once('error', (error) => reject(new CommandError(error.message, 1)));
    // 'close' comes after the last of its output, 'exit' may come before.
    this.#head.once('close', (code, signal) => {
      this.#covered?.uncover();
      const why = complaint.trim().replaceAll('\n', '; ') || `ended with ${signal ?? `status ${code}`}`;
      reject(new CommandError(why, 1));
    });
    return promise;
  }

  /** Let COMMAND run. */
  go(): void {
    this.#running = true;
    this.#talk.end('go\n');
  }

  /** Whether COMMAND has been let run: signals are its own from then on. */
  get running(): boolean {
    return this.#running;
  }

  /** Processes that signal() and kill() send to. */
  get signalled(): readonly number[] {
    return [this.#pid, this.#head.pid ?? 0].filter((pid) => pid > 0); // 0 is our own process group
  }

  /** Pass a signal on to COMMAND itself. */
  signal(name: NodeJS.Signals): void {
    if (this.#pid === 0) return;
    try {
      process.kill(this.#pid, name);
    } catch {
      // It has just ended.
    }
  }

  /** End everything in the PID namespace at once. */
  kill(): void {
    this.#head.kill('SIGKILL');
  }
}

interface CoveredFile {
  /** What did not work. */
  readonly notes: readonly string[];
  /** Show the host's file again; once is enough. */
  uncover(): void;
}

/**
 * Mount a text over the host's resolv.conf, in the mount namespace that the launcher made for us. The tmpfs exists only until its
 * file is bound, so nothing is written to the host's disks.
 */
function coverResolvConf({ path, text }: PrivateResolvConf): CoveredFile {
  const scratch = scratchDirectory();
  let bound = false;
  const notes: string[] = [];
  try {
    checked(mount('bucatini', scratch, 'tmpfs', 0, 'size=64k,mode=755'), 'mount', `tmpfs, ${scratch}`);
    try {
      writeFileSync(`${scratch}/resolv.conf`, text, { mode: 0o644 });
      checked(mount(`${scratch}/resolv.conf`, path, null, MS_BIND, null), 'mount', `MS_BIND, ${path}`);
      bound = true;
    } finally {
      umount2(scratch, MNT_DETACH);
    }
  } catch (error) {
    notes.push(`/etc/resolv.conf inside is the host's: ${(error as Error).message}`);
  }
  return {
    notes,
    uncover: () => {
      if (bound) umount2(path, MNT_DETACH);
      bound = false;
    },
  };
}

/** First of a process's children, in order of birth (CONFIG_PROC_CHILDREN); 0 if there is none. */
function eldestChild(pid: number): number {
  try {
    return Number.parseInt(readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1'), 10) || 0;
  } catch {
    return 0;
  }
}

/**
 * The program that `name` means, as execvp(3) finds it.
 * @throws CommandError with status 127 or 126
 */
export function findProgram(name: string, path = process.env.PATH ?? SYSTEM_DIRECTORIES.join(':')): string {
  if (name === '') throw new CommandError("'': command not found", NOT_FOUND);
  const candidates = name.includes('/') ? [name] : path.split(':').map((dir) => `${dir || '.'}/${name}`);
  let refused = '';
  for (const file of candidates) {
    const problem = notExecutable(file);
    if (problem === undefined) return file;
    refused ||= problem;
  }
  if (refused !== '') throw new CommandError(`${name}: ${refused}`, NOT_EXECUTABLE);
  throw new CommandError(`${name}: ${name.includes('/') ? 'no such file' : 'command not found'}`, NOT_FOUND);
}

/** undefined: can be executed. '': is not there. Else the reason. */
function notExecutable(file: string): string | undefined {
  try {
    if (statSync(file).isDirectory()) return 'is a directory';
    accessSync(file, constants.X_OK);
    return undefined;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EACCES' ? 'permission denied' : '';
  }
}

/** A program of util-linux or coreutils. */
export function tool(name: string): string {
  for (const dir of SYSTEM_DIRECTORIES)
    if (notExecutable(`${dir}/${name}`) === undefined) return `${dir}/${name}`;
  try {
    return findProgram(name);
  } catch {
    throw new CommandError(`${name} is missing; install ${name === 'env' ? 'coreutils' : 'util-linux'}`, 1);
  }
}

/**
 * A directory to mount over for a moment. The packet thread is loading its modules meanwhile and sees the same mounts: not one
 * that we are installed in.
 */
function scratchDirectory(): string {
  const ours = [import.meta.dirname, process.execPath, process.argv[1] ?? ''];
  const usable = ['/mnt', '/media', '/srv', '/run', '/var/tmp', '/tmp'].filter(
    (dir) => !ours.some((path) => path.startsWith(`${dir}/`)),
  );
  return usable.find((dir) => statSync(dir, { throwIfNoEntry: false })?.isDirectory()) ?? usable[0]!;
}
