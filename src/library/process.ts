/**
 * A program inside. The launcher's `enter` executes nsenter(1), which waits for its child, the program: the
 * process that we start and the one that signals are for are two. The kernel ends the program when the first
 * process of its PID namespace ends, so it cannot outlive the network.
 */
import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process';
import { accessSync, constants, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { BucatiniError } from './error.ts';

/** The same path from src/library/ and from dist/library/. @internal */
export const LAUNCHER = fileURLToPath(new URL('../../bin/bucatini', import.meta.url));

/** Options of a program inside. */
export interface SpawnOptions {
  /** Working directory. Default: that of this process. */
  readonly cwd?: string | undefined;
  /** The program's whole environment. Default: that of this process. */
  readonly env?: Readonly<Record<string, string | undefined>> | undefined;
  /** As for `child_process.spawn()`. Default: three pipes. */
  readonly stdio?: StdioOptions | undefined;
  /** Ends the program by SIGKILL. */
  readonly signal?: AbortSignal | undefined;
}

/** Options of {@link Network.run}. */
export interface RunOptions extends Omit<SpawnOptions, 'stdio'> {
  /** What the program reads from standard input. Default: nothing. */
  readonly input?: string | Uint8Array | undefined;
  /** The most that the program may print on each of its two outputs. Default: 64 MiB. */
  readonly maxOutputBytes?: number | undefined;
}

/** How a program has ended. */
export interface Exit {
  /** The exit status; `null`: a signal ended the program. */
  readonly status: number | null;
  /** The signal that ended the program, else `null`. */
  readonly signal: NodeJS.Signals | null;
}

/** How a program has ended, and what it has printed. */
export interface RunResult extends Exit {
  readonly stdout: string;
  readonly stderr: string;
}

const MAX_OUTPUT_BYTES = 64 * 1024 * 1024;
/** Between two looks for the process id of a program that is about to start. */
const LOOK_AGAIN_MS = 2;
const SYSTEM_PATH = '/usr/bin:/bin:/usr/sbin:/sbin';

/** A program that runs inside of a network. */
export class NetworkProcess implements AsyncDisposable {
  /** Standard input of the program; `null` if `stdio` asks for no pipe. */
  readonly stdin: Writable | null;
  /** Standard output of the program; `null` if `stdio` asks for no pipe. */
  readonly stdout: Readable | null;
  /** Standard error of the program; `null` if `stdio` asks for no pipe. */
  readonly stderr: Readable | null;
  /** Resolves when the program has ended, however that happens. Rejects only if it could not be started. */
  readonly exited: Promise<Exit>;
  readonly #child: ChildProcess;
  /** Resolves when the program has ended and nobody has the other ends of its pipes. */
  readonly #closed: Promise<void>;
  /** Resolves when the program is ended by its signal, or for its output. */
  readonly #killed: Promise<void>;
  #end: () => void = () => {};

  /** @internal */
  constructor(child: ChildProcess, signal: AbortSignal | undefined) {
    this.#child = child;
    ({ stdin: this.stdin, stdout: this.stdout, stderr: this.stderr } = child);
    // A program may end before it has read all: that is no error of the caller's.
    child.stdin?.on('error', () => {});
    this.exited = new Promise((resolve, reject) => {
      child.once('error', (error) =>
        reject(new BucatiniError('not-found', `cannot start a program: ${error.message}`, { cause: error })),
      );
      child.once('exit', (status, signal) => resolve({ status, signal }));
    });
    this.#closed = new Promise((resolve) => {
      child.once('close', () => resolve());
      child.once('error', () => resolve());
    });
    this.#killed = new Promise((resolve) => {
      this.#end = () => {
        this.kill('SIGKILL');
        resolve();
      };
    });
    const abort = (): void => this.#end();
    const listensNoMore = (): void => signal?.removeEventListener('abort', abort);
    this.#closed.then(listensNoMore);
    if (signal?.aborted) abort();
    else signal?.addEventListener('abort', abort, { once: true });
  }

  /**
   * Process id of the program, as this process sees it; `undefined`: it has not started yet, or has ended.
   */
  get pid(): number | undefined {
    return this.#ended ? undefined : childOf(this.#child.pid);
  }

  get #ended(): boolean {
    return this.#child.pid === undefined || this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  /**
   * Send a signal to the program. One that is about to start gets it a moment later.
   * @returns whether the program has not ended yet
   */
  kill(signal: NodeJS.Signals = 'SIGTERM'): boolean {
    if (this.#ended) return false;
    const { pid } = this;
    if (pid === undefined) setTimeout(() => this.kill(signal), LOOK_AGAIN_MS);
    else send(pid, signal);
    return true;
  }

  /** Read both outputs to their ends. @internal */
  async output(maxBytes: number = MAX_OUTPUT_BYTES): Promise<RunResult> {
    let tooMuch = false;
    const read = (stream: Readable | null): Buffer[] => {
      const pieces: Buffer[] = [];
      let bytes = 0;
      stream?.on('data', (piece: Buffer) => {
        bytes += piece.length;
        if (bytes <= maxBytes) pieces.push(piece);
        else if (!tooMuch) {
          tooMuch = true;
          this.#end();
        }
      });
      return pieces;
    };
    const [stdout, stderr] = [read(this.stdout), read(this.stderr)];
    const exit = await this.exited;
    // Other programs may have the outputs still. They are waited for, but not once the program is to end.
    await Promise.race([this.#closed, this.#killed]);
    for (const stream of [this.stdout, this.stderr]) stream?.destroy();
    if (tooMuch)
      throw new BucatiniError('output', `a program printed more than ${maxBytes} bytes, and was ended`);
    return { ...exit, stdout: Buffer.concat(stdout).toString(), stderr: Buffer.concat(stderr).toString() };
  }

  /** End the program by SIGKILL, if it runs, and wait for its end. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.kill('SIGKILL');
    await this.exited.catch(() => {});
  }
}

/**
 * Start a program in the namespaces of a process.
 * @param namespacePid  the first process of their PID namespace
 * @throws BucatiniError if there is no such program or directory
 * @internal
 */
export function spawnInside(
  namespacePid: number,
  command: string,
  args: readonly string[],
  { cwd, env = process.env, stdio = 'pipe', signal }: SpawnOptions,
): NetworkProcess {
  const directory = path.resolve(cwd ?? '.');
  checkDirectory(directory);
  checkProgram(command, env.PATH ?? SYSTEM_PATH, directory);
  const inner = [...entriesOfEnv(command, env), command, ...args];
  try {
    const child = spawn(LAUNCHER, ['enter', String(namespacePid), directory, ...inner], {
      env: env as NodeJS.ProcessEnv,
      stdio,
      // Signals that a terminal sends to its foreground processes reach this process alone.
      detached: true,
    });
    return new NetworkProcess(child, signal);
  } catch (error) {
    // For example a NUL character in an argument.
    throw new BucatiniError('argument', `${command}: ${(error as Error).message}`, { cause: error });
  }
}

function checkDirectory(directory: string): void {
  if (statSync(directory, { throwIfNoEntry: false })?.isDirectory()) return;
  throw new BucatiniError('not-found', `${directory}: no such directory`);
}

/** Inside, all files but those of /proc, /sys and resolv.conf are the same as outside. */
function checkProgram(command: string, searchPath: string, directory: string): void {
  const candidates = command.includes('/')
    ? [path.resolve(directory, command)]
    : searchPath.split(':').map((of) => path.resolve(directory, of, command));
  let reason = command.includes('/') ? 'no such file' : 'command not found';
  for (const file of command === '' ? [] : candidates) {
    try {
      if (statSync(file).isDirectory()) {
        reason = 'is a directory';
        continue;
      }
      accessSync(file, constants.X_OK);
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EACCES') reason = 'permission denied';
    }
  }
  throw new BucatiniError('not-found', `${command === '' ? "''" : command}: ${reason}`);
}

/**
 * The launcher is a shell, and a shell drops variables whose names it cannot have. An env(1) in front sets
 * them again, unless the program's name has "=", which env(1) would take for a variable.
 */
function entriesOfEnv(command: string, env: Readonly<Record<string, string | undefined>>): readonly string[] {
  const dropped = Object.entries(env)
    .filter(([name, value]) => value !== undefined && !/^[A-Za-z_][A-Za-z0-9_]*$/.test(name))
    .map(([name, value]) => `${name}=${value}`);
  return dropped.length === 0 || command.includes('=') ? [] : ['/usr/bin/env', '--', ...dropped];
}

/** The only child of a process (proc_pid_task(5)); `undefined`: it has none. */
function childOf(pid: number | undefined): number | undefined {
  try {
    return Number.parseInt(readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1'), 10) || undefined;
  } catch {
    return undefined;
  }
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error; // ESRCH: it has just ended
  }
}
