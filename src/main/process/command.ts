/**
 * COMMAND and the chain of small programs that puts it in its place:
 *
 *   env             the chain ignores the signals that a terminal or a supervisor sends to all of a group
 *   nsenter --net   into the new network namespace, where the main thread is not there itself
 *   setpriv         killed when bucatini dies, even by SIGKILL
 *   unshare         mount and PID namespace; its child is killed with it, and with that child all others
 *   sh              PID 1: runs what becomes COMMAND, reaps orphans, passes the status on, says when COMMAND is stopped
 *   env, sh         not PID 1, all signals at their default actions: says "started", waits for "go", becomes COMMAND
 *   env             only where the environment has names that a shell drops
 *
 * The private resolv.conf is mounted in our own mount namespace, which unshare copies, and taken away here
 * when it has: three programs less in the chain, and each costs milliseconds.
 *
 * The chain starts while the TAP is being configured and the engine started; the last sh holds COMMAND back
 * until both are done. It tells "started" on descriptor 2 and waits for a line there; end of file means that
 * bucatini gave up. From "started" on a signal to it has its effect: it is the process that COMMAND will be.
 *
 *   fd 0, 1   /dev/null
 *   fd 2      the talk with sh, and the chain's own complaints, read by us until "started"
 *   three of fd 3 to 9: the caller's standard input, output and error, for COMMAND; there because libuv makes 0 to 2 blocking for
 *             all who have them, and of those that the caller has not passed on, as the shell can name no higher ones
 *   all that the caller has passed on, by their numbers
 *
 * A stopped COMMAND stops us, as if we were COMMAND: whoever waits for us learns of it, and lets us go on by
 * SIGCONT, which goes to COMMAND too. When COMMAND alone is let go on, PID 1 lets our process group go on.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { accessSync, constants, readFileSync, readSync, statSync, writeFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { constants as os } from 'node:os';
import { MNT_DETACH, MS_BIND, O_DIRECTORY, O_PATH, SIGSTOP } from '../../sys/constants.ts';
import { checked } from '../../sys/error.ts';
import { openHeld } from '../../sys/held-directory.ts';
import { close } from '../../sys/io.ts';
import { mount, umount2 } from '../../sys/mount.ts';
import { openPath } from '../../sys/path.ts';
import { raise } from '../../sys/process.ts';
import { beyondShells } from './callers-environment.ts';
import { callersDescriptors, passOn } from './inherited-descriptors.ts';
import { within } from './patience.ts';
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
 * The init of the PID namespace. It comes in a variable so that ps shows COMMAND and not this text. The
 * parentheses keep COMMAND from taking its place (a shell execs its last command). A shell cannot give a
 * signal back its default action that was ignored when it began: hence env and another one.
 */
const INIT = `
( exec "$BUCATINI_ENV" --default-signal="$BUCATINI_SIGNALS" -- "$BUCATINI_SH" -c 'eval "$BUCATINI_WAIT"' bucatini "$@" ) &
command=$! stopped= continued= gone=
eval "exec $BUCATINI_CLOSE"
look() {
  while read -r key state _; do
    [ "$key" = State: ] || continue
    case $state$stopped in
      T*) stopped=1 continued=; echo stopped >&2 ;;
      *1) [ -n "$continued" ] || kill -CONT 0; stopped= continued= ;; # not with us all: COMMAND alone
    esac
    return
  done <"/proc/$command/status"
}
[ -z "$BUCATINI_PROC" ] || { trap look CHLD; trap continued=1 CONT; }
wait "$command"
status=$?
while [ "$status" = 145 ] || [ "$status" = 146 ]; do # 128 + SIGCHLD, SIGCONT: a trap, unless it is COMMAND's own
  kill -0 "$command" || gone=1
  wait "$command"
  last=$?
  [ -z "$gone" ] || { [ "$last" = 127 ] || status=$last; break; }
  status=$last
done
[ "$stopped:$continued" != 1: ] || kill -CONT 0 # it has ended before we could look
exit "$status"
`;
const WAIT = `
[ -z "$BUCATINI_OPEN_FILES" ] || ulimit -S -n "$BUCATINI_OPEN_FILES"
[ -z "$BUCATINI_LISTEN" ] || export LISTEN_PID="$$"
echo started >&2
read -r BUCATINI_GO <&2 || exit 1
eval "
unset BUCATINI_INIT BUCATINI_WAIT BUCATINI_SIGNALS BUCATINI_ENV BUCATINI_SH BUCATINI_OPEN_FILES BUCATINI_LISTEN BUCATINI_GO BUCATINI_PROC BUCATINI_STREAMS BUCATINI_CLOSE
exec $BUCATINI_STREAMS $BUCATINI_CLOSE"
exec "$@"
`;
const DIGITS = [9, 8, 7, 6, 5, 4, 3];
/** For the chain to say that it has started, a loaded machine included. */
export const START_LIMIT_MS = 60_000;

export class Command {
  /** The chain's head, which is unshare once all are in place. */
  readonly #head: ChildProcess;
  readonly #talk: Socket;
  /**
   * Resolves when the last sh waits for "go"; rejects with CommandError when the chain broke. Gives notes for
   * the log.
   */
  readonly started: Promise<readonly string[]>;
  /** Exit status as a shell gives it: 128 + n for signal n. */
  readonly ended: Promise<number>;
  readonly #covered: CoveredFile | undefined;
  readonly #notes: string[] = [];
  #running = false;
  /** COMMAND's process id as we see it, from "started" on; 0: the kernel has no lists of children. */
  #pid = 0;
  /** Its directory in /proc; negative: there is none. */
  #directory = -1;
  /** We have stopped with it. */
  #suspended = false;

  constructor(options: CommandOptions) {
    const { resolvConf, namespaceFd } = options;
    const { shell, streams, passed, notes } = chainDescriptors();
    this.#notes.push(...notes);
    this.#covered = resolvConf && coverResolvConf(resolvConf);
    const ignored = ignoredSignals();
    const chain = [
      `--ignore-signal=${CHAIN_IGNORES.join()}`,
      ...(namespaceFd === undefined
        ? []
        : ['--', tool('nsenter'), `--net=/proc/${process.pid}/fd/${namespaceFd}`]),
      ...['--', tool('setpriv'), '--pdeathsig', 'KILL', '--', tool('unshare')],
      ...['--mount', '--propagation', 'slave', '--pid', '--fork', '--kill-child'],
      ...(options.mountProc ? ['--mount-proc'] : []),
      ...['--', shell, '-c', 'eval "$BUCATINI_INIT"', 'bucatini'],
      ...withNamesBeyondShells(options.argv, options.env),
    ];
    passOn(passed);
    this.#head = spawn(tool('env'), chain, {
      cwd: commandDirectory(),
      stdio: standardStreams(streams),
      env: {
        ...options.env,
        BUCATINI_INIT: INIT,
        BUCATINI_WAIT: WAIT,
        BUCATINI_SIGNALS: CHAIN_IGNORES.filter(
          (name) => !ignored.includes(`SIG${name}` as NodeJS.Signals),
        ).join(),
        BUCATINI_ENV: tool('env'),
        BUCATINI_SH: shell,
        BUCATINI_OPEN_FILES: options.openFiles ?? '',
        // Of a process that has the caller's descriptors: COMMAND is one, by another number.
        BUCATINI_LISTEN: options.env.LISTEN_PID === String(process.pid) ? '1' : '',
        BUCATINI_PROC: options.mountProc ? '1' : '',
        BUCATINI_STREAMS: streams.map((digit, fd) => `${fd}<&${digit}`).join(' '),
        BUCATINI_CLOSE: streams.map((digit) => `${digit}<&-`).join(' '),
      },
    });
    this.#talk = this.#head.stderr as Socket;
    this.#talk.on('error', () => {}); // EPIPE when the chain is gone: `ended` tells
    this.ended = new Promise((resolve) => {
      this.#head.once('error', () => resolve(1));
      this.#head.once('exit', (code, signal) => resolve(code ?? 128 + os.signals[signal!]));
    });
    this.started = within(this.#waitUntilStarted(), START_LIMIT_MS, 'COMMAND has not been started').catch(
      (error: Error) => {
        throw error instanceof CommandError ? error : new CommandError(error.message, 1);
      },
    );
    this.started.catch(() => {});
  }

  #waitUntilStarted(): Promise<readonly string[]> {
    const { promise, resolve, reject } = Promise.withResolvers<readonly string[]>();
    let complaint = '';
    this.#talk.on('data', (chunk: Buffer) => {
      if (this.#running) {
        if (`\n${chunk}`.includes('\nstopped\n')) this.#stopWithIt();
        return;
      }
      if (complaint.length < 4096) complaint += chunk;
      if (this.#pid !== 0 || !`\n${complaint}`.includes('\nstarted\n')) return;
      // sh is the only child of unshare, what becomes COMMAND the eldest child of sh: adopted orphans come
      // behind it.
      this.#pid = eldestChild(eldestChild(this.#head.pid ?? 0));
      this.#directory = this.#pid === 0 ? -1 : openPath(`/proc/${this.#pid}`, O_PATH | O_DIRECTORY);
      this.#covered?.uncover();
      resolve([...this.#notes, ...(this.#covered?.notes ?? [])]);
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

  /** COMMAND's directory in /proc, for SandboxPlan.readable: whether it is stopped. */
  get directories(): readonly number[] {
    return this.#directory < 0 ? [] : [this.#directory];
  }

  /** Processes that signal() and kill() send to. */
  get signalled(): readonly number[] {
    return [this.#pid, this.#head.pid ?? 0].filter((pid) => pid > 0); // 0 is our own process group
  }

  /** Pass a signal on to COMMAND itself. One that is stopped is let go on, to act on it. */
  signal(name: NodeJS.Signals): void {
    if (this.#pid === 0) return;
    try {
      process.kill(this.#pid, name);
      if (ENDING.includes(name) && this.#isStopped()) process.kill(this.#pid, 'SIGCONT');
    } catch {
      // It has just ended.
    }
  }

  /** We have been let go on. @param handOver  gives the terminal to COMMAND's process group */
  goOn(handOver: (pid: number) => void): void {
    if (this.#suspended && this.#pid !== 0) handOver(this.#pid);
    this.#suspended = false;
    this.signal('SIGCONT');
  }

  /** End everything in the PID namespace at once. */
  kill(): void {
    this.#head.kill('SIGKILL');
  }

  /** The message may be an old one, from before we were stopped together and let go on. */
  #stopWithIt(): void {
    if (!this.#isStopped()) return;
    this.#suspended = true;
    raise(SIGSTOP);
  }

  #isStopped(): boolean {
    if (this.#directory < 0) return false;
    const fd = openHeld(this.#directory, 'stat');
    if (fd < 0) return false;
    try {
      const bytes = Buffer.alloc(512);
      const text = bytes.toString('latin1', 0, readSync(fd, bytes));
      return text.charAt(text.lastIndexOf(')') + 2) === 'T';
    } catch {
      return false; // ESRCH: it has just ended
    } finally {
      close(fd);
    }
  }
}

/** Signals that a stopped process is to act on at once. */
const ENDING: readonly string[] = ['SIGTERM', 'SIGHUP', 'SIGINT', 'SIGQUIT'];

interface ChainDescriptors {
  readonly shell: string;
  /** Where the caller's standard input, output and error are until COMMAND begins. */
  readonly streams: readonly number[];
  /** The caller's, by their numbers. */
  readonly passed: readonly number[];
  readonly notes: readonly string[];
}

/**
 * A shell of POSIX names descriptors of one digit. bash, where it is, all; without it COMMAND does not get
 * those in the way.
 */
function chainDescriptors(): ChainDescriptors {
  const passed = callersDescriptors();
  const free = (list: readonly number[]): readonly number[] => list.filter((fd) => !passed.includes(fd));
  const streams = free(DIGITS).slice(0, 3);
  if (streams.length === 3) return { shell: '/bin/sh', streams, passed, notes: [] };
  if (notExecutable('/bin/bash') === undefined) {
    const beyond = Array.from({ length: passed.length + 3 }, (_, i) => 10 + i);
    return { shell: '/bin/bash', streams: free(beyond).slice(0, 3), passed, notes: [] };
  }
  const taken = DIGITS.slice(0, 3);
  const note = `descriptors ${[...taken].reverse().join(', ')} do not reach COMMAND: without bash four below 10 do`;
  return {
    shell: '/bin/sh',
    streams: taken,
    passed: passed.filter((fd) => !taken.includes(fd)),
    notes: [note],
  };
}

/** For spawn(): the caller's three at those numbers, and a pipe both ways on 2. */
export function standardStreams(streams: readonly number[]): ('ignore' | 'pipe' | number)[] {
  const stdio: ('ignore' | 'pipe' | number)[] = ['ignore', 'ignore', 'pipe'];
  for (let fd = 3; fd <= Math.max(...streams); fd++) stdio[fd] = 'ignore'; // what has its number already stays
  streams.forEach((at, fd) => {
    stdio[at] = fd;
  });
  return stdio;
}

/** A program whose name env(1) would take for an entry goes without. */
export function withNamesBeyondShells(argv: readonly string[], env: NodeJS.ProcessEnv): readonly string[] {
  const entries = beyondShells(env);
  if (entries.length === 0 || argv[0]!.includes('=')) return argv;
  return [tool('env'), '--', ...entries, ...argv];
}

interface CoveredFile {
  /** What did not work. */
  readonly notes: readonly string[];
  /** Show the host's file again; once is enough. */
  uncover(): void;
}

/**
 * Mount a text over the host's resolv.conf, in the mount namespace that the launcher made for us. The tmpfs
 * exists only until its file is bound, so nothing is written to the host's disks.
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
 * A directory to mount over for a moment. The packet thread is loading its modules meanwhile and sees the
 * same mounts: not one that we are installed in.
 */
function scratchDirectory(): string {
  const ours = [import.meta.dirname, process.execPath, process.argv[1] ?? ''];
  const usable = ['/mnt', '/media', '/srv', '/run', '/var/tmp', '/tmp'].filter(
    (dir) => !ours.some((path) => path.startsWith(`${dir}/`)),
  );
  return usable.find((dir) => statSync(dir, { throwIfNoEntry: false })?.isDirectory()) ?? usable[0]!;
}
