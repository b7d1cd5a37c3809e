/**
 * Processes of the harness. They are started outside the terminal's process group (Ctrl-C is for the harness
 * alone), identified by their position in the process tree, and all stopped at the end.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/** The kernel's USER_HZ, the unit of times in /proc/PID/stat on every Linux. */
const TICKS_PER_SECOND = 100;

export type Argv = readonly [string, ...string[]];

export interface Finished {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

const started = new Set<ChildProcess>();

/** A long-running child. Its last output is kept for error messages. */
export class Daemon {
  readonly child: ChildProcess;
  readonly pid: number;
  #output = '';

  constructor(argv: Argv, env: NodeJS.ProcessEnv = process.env) {
    this.child = spawn(argv[0], argv.slice(1), { detached: true, stdio: ['ignore', 'pipe', 'pipe'], env });
    started.add(this.child);
    this.child.on('error', (error) => {
      this.#output += error.message;
      started.delete(this.child);
    });
    this.child.on('exit', () => started.delete(this.child));
    for (const stream of [this.child.stdout, this.child.stderr])
      stream?.on('data', (chunk) => {
        this.#output = (this.#output + chunk).slice(-4000);
      });
    this.pid = this.child.pid ?? -1;
  }

  get output(): string {
    return this.#output.trim();
  }

  get running(): boolean {
    return started.has(this.child);
  }

  /** Stop it and its descendants: SIGTERM, and SIGKILL for those still running after a second. */
  async stop(): Promise<void> {
    if (this.pid < 0) return;
    const pids = descendants(this.pid);
    for (const pid of pids) signal(pid, 'SIGTERM');
    const end = performance.now() + 1000;
    while (performance.now() < end && pids.some(alive)) await sleep(20);
    for (const pid of pids) if (alive(pid)) signal(pid, 'SIGKILL');
  }
}

/**
 * Run a program to its end. Never rejects: for a missing program the status is null and stderr has the
 * reason.
 */
export function run(
  argv: Argv,
  timeoutMs = 0,
  abort?: AbortSignal,
  env: NodeJS.ProcessEnv = process.env,
): Promise<Finished> {
  return new Promise((resolve) => {
    const child = spawn(argv[0], argv.slice(1), {
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: timeoutMs,
      killSignal: 'SIGKILL',
      env,
      ...(abort ? { signal: abort } : {}),
    });
    started.add(child);
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (chunk) => {
      stdout += chunk;
    });
    child.stderr.on('data', (chunk) => {
      stderr += chunk;
    });
    child.on('error', (error) => {
      started.delete(child);
      resolve({ status: null, stdout, stderr: stderr || error.message });
    });
    child.on('close', (status) => {
      started.delete(child);
      resolve({ status, stdout, stderr });
    });
  });
}

/** Run a program that has to succeed. @returns its output @throws Error with the command and its output */
export async function must(argv: Argv): Promise<string> {
  const { status, stdout, stderr } = await run(argv);
  if (status !== 0) throw new Error(`${argv.join(' ')}: ${(stderr || stdout).trim() || `status ${status}`}`);
  return stdout;
}

export async function stopAll(): Promise<void> {
  const pids = [...started].flatMap((child) => (child.pid === undefined ? [] : descendants(child.pid)));
  for (const pid of pids) signal(pid, 'SIGTERM');
  const end = performance.now() + 500;
  while (performance.now() < end && pids.some(alive)) await sleep(20);
  for (const pid of pids) if (alive(pid)) signal(pid, 'SIGKILL');
}

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Poll until `check` returns a value other than null. @throws Error naming `what` after `timeoutMs` */
export async function until<T>(
  what: string,
  timeoutMs: number,
  check: () => T | null | Promise<T | null>,
): Promise<T> {
  const end = performance.now() + timeoutMs;
  for (;;) {
    const value = await check();
    if (value !== null) return value;
    if (performance.now() > end) throw new Error(`${what}: nothing after ${timeoutMs / 1000} s`);
    await sleep(20);
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // The process has ended already.
  }
}

/** Fields of /proc/PID/stat after the command name, from `state` on; null when the process has ended. */
function stat(pid: number): string[] | null {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return text.slice(text.lastIndexOf(')') + 2).split(' ');
  } catch {
    return null;
  }
}

function alive(pid: number): boolean {
  const state = stat(pid)?.[0];
  return state !== undefined && state !== 'Z' && state !== 'X';
}

/**
 * A process and all its descendants.
 * @param without  command line of processes that are left out, with their descendants; absent: none is
 */
export function descendants(root: number, without?: string): number[] {
  const children = new Map<number, number[]>();
  for (const name of readdirSync('/proc')) {
    const pid = Number(name);
    if (!Number.isInteger(pid)) continue;
    const parent = Number(stat(pid)?.[1] ?? -1);
    const siblings = children.get(parent);
    if (siblings) siblings.push(pid);
    else children.set(parent, [pid]);
  }
  const found = [root];
  const counts = (pid: number): boolean => without === undefined || commandLine(pid) !== without;
  for (let i = 0; i < found.length; i++) found.push(...(children.get(found[i] ?? -1) ?? []).filter(counts));
  return found;
}

/**
 * User and system time of all threads of process trees so far, in seconds.
 * @param without  command line of a process that is left out, with its descendants
 */
export function cpuSeconds(roots: readonly number[], without: string): number {
  let ticks = 0;
  for (const pid of roots.flatMap((root) => descendants(root, without))) {
    const fields = stat(pid);
    if (fields) ticks += Number(fields[11]) + Number(fields[12]);
  }
  return ticks / TICKS_PER_SECOND;
}

export function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ').trim();
  } catch {
    return '';
  }
}

/** Namespace of a process as an opaque name; empty when the process has ended. */
export function namespaceOf(pid: number | 'self', kind: 'net' | 'user'): string {
  try {
    return readlinkSync(`/proc/${pid}/ns/${kind}`);
  } catch {
    return '';
  }
}

/**
 * Resident memory of process trees in MiB, current and peak.
 * @param without  command line of a process that is left out, with its descendants
 */
export function memoryMib(roots: readonly number[], without: string): { rss: number; peak: number } {
  let rssKib = 0;
  let peakKib = 0;
  for (const pid of roots.flatMap((root) => descendants(root, without))) {
    let status: string;
    try {
      status = readFileSync(`/proc/${pid}/status`, 'latin1');
    } catch {
      continue; // the process has ended
    }
    rssKib += Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0);
    peakKib += Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0);
  }
  return { rss: rssKib / 1024, peak: peakKib / 1024 };
}

/**
 * Frames that the interfaces in a guest's namespace could not queue: its TAP's queue was full, as more came
 * than the tool read.
 * @param holder  command line of a process in that namespace, below `root`
 */
export function framesDropped(root: number, holder: string): number {
  const inside = descendants(root).find((pid) => commandLine(pid) === holder);
  let table: string;
  try {
    table = readFileSync(`/proc/${inside}/net/dev`, 'latin1');
  } catch {
    return 0; // it has ended
  }
  // proc_pid_net(5): after the name eight columns for receiving, then bytes, packets, errors, drops.
  const rows = table.split('\n').filter((line) => line.includes(':') && !/^\s*lo:/.test(line));
  return rows.reduce((sum, row) => sum + Number(row.split(':')[1]!.trim().split(/\s+/)[11] ?? 0), 0);
}

/** Number of open descriptors of a process tree. */
export function descriptorCount(root: number): number {
  let count = 0;
  for (const pid of descendants(root)) {
    try {
      count += readdirSync(`/proc/${pid}/fd`).length;
    } catch {
      // the process has ended
    }
  }
  return count;
}
