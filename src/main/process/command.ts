/**
 * COMMAND, and the chain of small programs that sets up its environment and becomes it:
 *
 *   sh              PID 1 of a new PID namespace, in a new mount namespace with its own /proc and /sys;
 *                   killed when bucatini ends, even by SIGKILL, and with it all others. Ignores the signals
 *                   that a terminal or a supervisor sends to a whole group. All this is done before it is
 *                   executed (sys/spawn.ts). It runs what becomes COMMAND, reaps orphans, passes the exit status on,
 *                   reports when COMMAND is stopped
 *   env, sh         not PID 1, all signals at their default actions: says "started", waits for "go", becomes
 *                   COMMAND
 *   env             only if the environment has names that a shell drops
 *
 * The private resolv.conf is mounted in our own mount namespace, which is copied for the chain, and unmounted
 * here after that. This saves three programs in the chain, and each costs a millisecond.
 *
 * The chain starts while the TAP is being configured and the engine starts; the last sh holds COMMAND back
 * until both are done. It writes "started" to descriptor 2 and waits for a line there; end of file means that
 * bucatini gave up. From "started" on, a signal to that process has its effect: it is the process that
 * COMMAND will be.
 *
 *   fd 0, 1     /dev/null
 *   fd 2        the dialogue with sh, and error messages of the chain, which we read until "started"
 *   three of    the caller's standard input, output and error, for COMMAND. Not 0 to 2: the programs of the
 *   fd 3 to 9   chain must not read or write the caller's streams. Only numbers that the caller has not
 *               passed on; at most 9, because sh can name no higher ones
 *   others      all that the caller has passed on, by their numbers
 *
 * If COMMAND is stopped, we stop too, as if we were COMMAND: whoever waits for us notices, and continues us
 * by SIGCONT, which we pass to COMMAND. If COMMAND alone is continued, PID 1 continues our process group.
 */
import { accessSync, constants, readFileSync, readSync, statSync, writeFileSync } from 'node:fs';
import { codeDirectory } from '#runtime/program';
import { bytesOfText } from '../../sys/byte-text.ts';
import {
  CLONE_NEWNS,
  CLONE_NEWPID,
  MNT_DETACH,
  MS_BIND,
  O_DIRECTORY,
  O_PATH,
  SIGSTOP,
} from '../../sys/constants.ts';
import { checked } from '../../sys/error.ts';
import { openHeld } from '../../sys/held-directory.ts';
import { close } from '../../sys/io.ts';
import { mount, umount2 } from '../../sys/mount.ts';
import { openPath } from '../../sys/path.ts';
import { raise } from '../../sys/process.ts';
import type { Supervision } from '../../sys/spawn.ts';
import { entriesShellsDrop } from './callers-environment.ts';
import { CHANNEL, Child, ChildError, type ChildPlan } from './child.ts';
import { callersDescriptors, clearCloexec } from './inherited-descriptors.ts';
import { ignoredSignals } from './signals.ts';
import { newSysMount } from './sys-mount.ts';
import { within } from './time-limit.ts';
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

/** The kernel refuses a new /proc: parts of ours are covered by mounts, as in containers. */
export class ProcError extends CommandError {}

/** The resolv.conf that COMMAND sees instead of the host's. */
export interface PrivateResolvConf {
  /** The file that /etc/resolv.conf leads to, links resolved: the mount covers this file. */
  readonly path: string;
  readonly text: string;
}

/** What to start, and how. */
export interface CommandOptions {
  readonly argv: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  /** Network namespace to enter. Absent: the chain stays in that of the main thread. */
  readonly namespaceFd?: number;
  readonly resolvConf?: PrivateResolvConf;
  readonly mountProc: boolean;
  /** COMMAND's soft limit of open descriptors, in the form of ulimit(1). Absent: ours. */
  readonly openFiles?: string | undefined;
  /** Of --switch-sockets. */
  readonly supervised?: Supervision | undefined;
}

/** Exit status of a program that cannot be found or executed, as in shells. */
const NOT_FOUND = 127;
const NOT_EXECUTABLE = 126;
const SYSTEM_DIRECTORIES = ['/usr/bin', '/bin', '/usr/sbin', '/sbin'];

/**
 * Signals that the chain ignores, by their numbers (<asm-generic/signal.h>): it ends when COMMAND ends, or by
 * SIGKILL.
 */
const IGNORED_BY_CHAIN = { HUP: 1, INT: 2, QUIT: 3, TERM: 15, USR1: 10, USR2: 12 };

/**
 * The init of the PID namespace. It is passed in a variable so that ps shows COMMAND and not this text. The
 * parentheses keep COMMAND from taking init's process, as a shell executes its last command without a fork. A
 * shell cannot restore the default action of a signal that was ignored at its start: hence the second env and
 * sh.
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
      *1) [ -n "$continued" ] || kill -CONT 0; stopped= continued= ;; # COMMAND alone was continued: our group too
    esac
    return
  done <"/proc/$command/status"
}
[ -z "$BUCATINI_PROC" ] || { trap look CHLD; trap continued=1 CONT; }
wait "$command"
status=$?
while [ "$status" = 145 ] || [ "$status" = 146 ]; do # 128 + SIGCHLD or SIGCONT: a trap, or COMMAND's own status
  kill -0 "$command" || gone=1
  wait "$command"
  last=$?
  [ -z "$gone" ] || { [ "$last" = 127 ] || status=$last; break; }
  status=$last
done
[ "$stopped:$continued" != 1: ] || kill -CONT 0 # COMMAND ended before look() ran
exit "$status"
`;
/** The last sh of the chain: says "started", waits for a line, restores the streams, becomes COMMAND. */
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
/** Descriptors that every shell can name, above the standard ones. */
const SINGLE_DIGIT_FDS = [9, 8, 7, 6, 5, 4, 3];
/** Time limit for the chain to start, on a loaded machine too. */
export const START_LIMIT_MS = 60_000;

/** COMMAND and its chain. The constructor starts the chain; go() lets COMMAND run. */
export class Command {
  /** The first process of the chain: sh, PID 1 of the PID namespace. */
  readonly #head: Child;
  /**
   * Resolves, with notes for the log, when the last sh waits for "go". Rejects with CommandError if the chain
   * fails.
   */
  readonly started: Promise<readonly string[]>;
  /** Exit status as a shell gives it: 128 + n for signal n. */
  readonly ended: Promise<number>;
  readonly #covered: CoveredFile | undefined;
  readonly #notes: string[] = [];
  #running = false;
  /** COMMAND's process id in our PID namespace, from "started" on. 0: the kernel has no lists of children. */
  #pid = 0;
  /** Descriptor of its directory in /proc; negative: there is none. */
  #directory = -1;
  /** We have stopped because COMMAND is stopped. */
  #suspended = false;

  constructor(options: CommandOptions) {
    const { resolvConf, namespaceFd } = options;
    const { shell, streams, passed, notes } = chainDescriptors();
    this.#notes.push(...notes);
    this.#covered = resolvConf && coverResolvConf(resolvConf);
    const ignored = ignoredSignals();
    clearCloexec(passed);
    const argv = [
      ...[shell, '-c', 'eval "$BUCATINI_INIT"', 'bucatini'],
      ...withEntriesShellsDrop(options.argv, options.env),
    ];
    const sys = options.mountProc ? newSysMount() : undefined;
    this.#head = this.#start({
      ...{ file: shell, argv, ignores: Object.values(IGNORED_BY_CHAIN), endsWithUs: true },
      ...{ namespaces: CLONE_NEWNS | CLONE_NEWPID, mountsProc: options.mountProc, sys },
      networkNamespace: namespaceFd,
      cwd: commandDirectory(),
      descriptors: standardStreams(streams),
      supervised: options.supervised,
      env: {
        ...options.env,
        BUCATINI_INIT: INIT,
        BUCATINI_WAIT: WAIT,
        BUCATINI_SIGNALS: Object.keys(IGNORED_BY_CHAIN)
          .filter((name) => !ignored.includes(`SIG${name}` as NodeJS.Signals))
          .join(),
        BUCATINI_ENV: tool('env'),
        BUCATINI_SH: shell,
        BUCATINI_OPEN_FILES: options.openFiles ?? '',
        // LISTEN_PID names the process that gets the caller's descriptors. That is COMMAND, under another
        // process id.
        BUCATINI_LISTEN: options.env.LISTEN_PID === String(process.pid) ? '1' : '',
        BUCATINI_PROC: options.mountProc ? '1' : '',
        BUCATINI_STREAMS: streams.map((digit, fd) => `${fd}<&${digit}`).join(' '),
        BUCATINI_CLOSE: streams.map((digit) => `${digit}<&-`).join(' '),
      },
    });
    this.ended = this.#head.exited;
    this.started = within(this.#waitUntilStarted(), START_LIMIT_MS, 'COMMAND has not been started').catch(
      (error: Error) => {
        throw error instanceof CommandError ? error : new CommandError(error.message, 1);
      },
    );
    this.started.catch(() => {});
  }

  /**
   * Start the first process. Its mount namespace has the private resolv.conf then, and ours the host's again.
   */
  #start(plan: ChildPlan): Child {
    try {
      return new Child(plan);
    } catch (error) {
      if (!(error instanceof ChildError) || error.call !== 'mount') throw error;
      throw new ProcError(error.message, 1);
    } finally {
      this.#covered?.uncover();
      for (const { fd } of plan.sys?.below ?? []) close(fd);
    }
  }

  #waitUntilStarted(): Promise<readonly string[]> {
    const { promise, resolve, reject } = Promise.withResolvers<readonly string[]>();
    let complaint = '';
    this.#head.channel.onData((chunk) => {
      if (this.#running) {
        if (`\n${chunk}`.includes('\nstopped\n')) this.#stopWithIt();
        return;
      }
      if (complaint.length < 4096) complaint += chunk;
      if (this.#pid !== 0 || !`\n${complaint}`.includes('\nstarted\n')) return;
      // The process that becomes COMMAND is the eldest child of sh, as adopted orphans come behind it.
      this.#pid = eldestChild(this.#head.pid);
      this.#directory = this.#pid === 0 ? -1 : openPath(`/proc/${this.#pid}`, O_PATH | O_DIRECTORY);
      resolve([...this.#notes, ...(this.#covered?.notes ?? [])]);
    });
    // `exited` may resolve before the last output has come.
    void this.#head.closed.then((status) => {
      const why = complaint.trim().replaceAll('\n', '; ') || `ended with status ${status}`;
      reject(new CommandError(why, 1));
    });
    return promise;
  }

  /** Let COMMAND run. */
  go(): void {
    this.#running = true;
    this.#head.channel.end('go\n');
  }

  /** Whether COMMAND may run: from then on signals are passed to it. */
  get running(): boolean {
    return this.#running;
  }

  /**
   * COMMAND's directory in /proc, for SandboxPlan.readable: its file `stat` says whether COMMAND is stopped.
   */
  get directories(): readonly number[] {
    return this.#directory < 0 ? [] : [this.#directory];
  }

  /** Id of the first process of the PID namespace. */
  get firstPid(): number {
    return this.#head.pid;
  }

  /** Ids of the processes that signal() and kill() send to. */
  get signalled(): readonly number[] {
    return [this.#pid, this.#head.pid].filter((pid) => pid > 0); // 0 is our own process group
  }

  /**
   * Pass a signal on to COMMAND. If COMMAND is stopped and the signal is a terminating one, continue it so
   * that it can react.
   */
  signal(name: NodeJS.Signals): void {
    if (this.#pid === 0) return;
    try {
      process.kill(this.#pid, name);
      if (TERMINATING_SIGNALS.includes(name) && this.#isStopped()) process.kill(this.#pid, 'SIGCONT');
    } catch {
      // COMMAND has just ended.
    }
  }

  /**
   * We have been continued by SIGCONT: continue COMMAND too.
   * @param handOver  gives the terminal to COMMAND's process group
   */
  resume(handOver: (pid: number) => void): void {
    if (this.#suspended && this.#pid !== 0) handOver(this.#pid);
    this.#suspended = false;
    this.signal('SIGCONT');
  }

  /** End everything in the PID namespace at once. */
  kill(): void {
    this.#head.kill();
  }

  /** The message may be stale: sent before both were stopped and continued. */
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
      return false; // ESRCH: COMMAND has just ended
    } finally {
      close(fd);
    }
  }
}

/** Signals that COMMAND must be able to react to at once, even if it is stopped. */
const TERMINATING_SIGNALS: readonly string[] = ['SIGTERM', 'SIGHUP', 'SIGINT', 'SIGQUIT'];

interface ChainDescriptors {
  readonly shell: string;
  /** The numbers of the caller's standard input, output and error until COMMAND begins. */
  readonly streams: readonly number[];
  /** Descriptors that the caller has passed on, by their numbers. */
  readonly passed: readonly number[];
  readonly notes: readonly string[];
}

/**
 * Choose the shell and the descriptors of the chain. A POSIX shell can only name descriptors of one digit;
 * bash can name all. Without bash, COMMAND does not get those descriptors that are in the way.
 */
function chainDescriptors(): ChainDescriptors {
  const passed = callersDescriptors();
  const free = (list: readonly number[]): readonly number[] => list.filter((fd) => !passed.includes(fd));
  const streams = free(SINGLE_DIGIT_FDS).slice(0, 3);
  if (streams.length === 3) return { shell: '/bin/sh', streams, passed, notes: [] };
  if (notExecutable('/bin/bash') === undefined) {
    const beyond = Array.from({ length: passed.length + 3 }, (_, i) => 10 + i);
    return { shell: '/bin/bash', streams: free(beyond).slice(0, 3), passed, notes: [] };
  }
  const taken = SINGLE_DIGIT_FDS.slice(0, 3);
  const note = `descriptors ${[...taken].reverse().join(', ')} are not passed to COMMAND: without bash, only four descriptors below 10 can be`;
  return {
    shell: '/bin/sh',
    streams: taken,
    passed: passed.filter((fd) => !taken.includes(fd)),
    notes: [note],
  };
}

/**
 * The descriptors of a chain: the caller's three streams at the numbers `streams`, the channel at 2,
 * /dev/null at 0 and 1.
 */
export function standardStreams(streams: readonly number[]): ChildPlan['descriptors'] {
  const descriptors = new Array<number | typeof CHANNEL | undefined>(Math.max(...streams) + 1).fill(
    undefined,
  );
  descriptors[2] = CHANNEL;
  streams.forEach((at, fd) => {
    descriptors[at] = fd;
  });
  return descriptors;
}

/**
 * Put an env(1) in front that sets the entries which shells drop. Not if the program's name contains "=", as
 * env(1) would take it for an entry.
 */
export function withEntriesShellsDrop(argv: readonly string[], env: NodeJS.ProcessEnv): readonly string[] {
  const entries = entriesShellsDrop(env);
  if (entries.length === 0 || argv[0]!.includes('=')) return argv;
  return [tool('env'), '--', ...entries, ...argv];
}

interface CoveredFile {
  /** What failed, for the log. */
  readonly notes: readonly string[];
  /** Show the host's file again. Later calls have no effect. */
  uncover(): void;
}

/**
 * Mount a text over the host's resolv.conf, in the mount namespace that the launcher made for us. The tmpfs
 * is unmounted as soon as its file is bind-mounted. Nothing is written to the host's disks.
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

/** The first of a process's children, in order of creation (CONFIG_PROC_CHILDREN). 0: it has none. */
function eldestChild(pid: number): number {
  try {
    return Number.parseInt(readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1'), 10) || 0;
  } catch {
    return 0;
  }
}

/**
 * The program that execvp(3) would find for `name`.
 * @param path  directories separated by colons
 * @throws CommandError with status 127 (not found) or 126 (not executable)
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

/** @returns undefined: the file can be executed; '': it does not exist; otherwise the reason why it cannot */
function notExecutable(file: string): string | undefined {
  try {
    const path = bytesOfText(file);
    if (statSync(path).isDirectory()) return 'is a directory';
    accessSync(path, constants.X_OK);
    return undefined;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EACCES' ? 'permission denied' : '';
  }
}

/**
 * Path of a program of util-linux or coreutils.
 * @throws CommandError that names the package to install
 */
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
 * A directory to mount over for a moment. The packet thread is loading its modules at that time and sees the
 * same mounts, so it is not a directory that we are installed in.
 */
function scratchDirectory(): string {
  const ours = [codeDirectory, process.execPath, process.argv[1] ?? ''];
  const usable = ['/mnt', '/media', '/srv', '/run', '/var/tmp', '/tmp'].filter(
    (dir) => !ours.some((path) => path.startsWith(`${dir}/`)),
  );
  return usable.find((dir) => statSync(dir, { throwIfNoEntry: false })?.isDirectory()) ?? usable[0]!;
}
