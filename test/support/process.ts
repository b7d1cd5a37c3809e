/** Child processes and /proc for the test bed. All process ids are those of our own PID namespace. */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync, readSync } from 'node:fs';

export const sleepMs = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * Call `check` until it returns something other than undefined or false. @throws Error with `what` after the
 * time limit
 */
export async function eventually<T>(
  what: string,
  timeoutMs: number,
  check: () => T | undefined | false | Promise<T | undefined | false>,
): Promise<T> {
  const endAt = performance.now() + timeoutMs;
  for (;;) {
    const value = await check();
    if (value !== undefined && value !== false) return value;
    if (performance.now() > endAt) throw new Error(`not within ${timeoutMs} ms: ${what}`);
    await sleepMs(5);
  }
}

export interface Finished {
  /** Exit status as in a shell: 128 + n after signal n. */
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly ms: number;
}

export interface RunOptions {
  readonly timeoutMs?: number;
  readonly input?: string;
  readonly env?: Readonly<Record<string, string>>;
}

const SIGNAL_NUMBER: Readonly<Record<string, number>> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGKILL: 9,
  SIGUSR1: 10,
  SIGSEGV: 11,
  SIGPIPE: 13,
  SIGTERM: 15,
};

/** Run a command to its end. Any status is returned. @throws Error at the time limit */
export async function runToEnd(argv: readonly string[], options: RunOptions = {}): Promise<Finished> {
  const timeoutMs = options.timeoutMs ?? 20_000;
  const startedAt = performance.now();
  const child = start(argv, options);
  child.process.stdin?.end(options.input ?? '');
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    killTree(child.process.pid!);
  }, timeoutMs);
  const status = await child.exited;
  clearTimeout(timer);
  const finished = { status, ...(await child.output()), ms: Math.round(performance.now() - startedAt) };
  if (late) {
    throw new Error(
      `not ended after ${timeoutMs} ms: ${argv.join(' ')}\nstdout: ${finished.stdout.slice(-2000)}\nstderr: ${finished.stderr.slice(-2000)}`,
    );
  }
  return finished;
}

export interface Started {
  readonly process: ChildProcess;
  readonly pid: number;
  /** Resolves with the status when the process has ended. */
  readonly exited: Promise<number>;
  /** The whole output, when its pipes are closed. */
  output(): Promise<{ stdout: string; stderr: string }>;
  /** The output so far. */
  printed(): { stdout: string; stderr: string };
}

export function start(argv: readonly string[], options: RunOptions = {}): Started {
  const [program = '', ...args] = argv;
  const child = spawn(program, args, {
    // An ordinary user's PATH may lack the directories of ip, nft and udhcpc.
    env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin`, ...options.env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  const printed = { stdout: '', stderr: '' };
  child.stdin.on('error', () => {}); // the child may end before it has read everything
  child.stdout.setEncoding('utf8').on('data', (s: string) => {
    printed.stdout += s;
  });
  child.stderr.setEncoding('utf8').on('data', (s: string) => {
    printed.stderr += s;
  });
  const exited = new Promise<number>((resolve) => {
    child.on('error', (e) => {
      printed.stderr += `${e.message}\n`;
      resolve(127);
    });
    child.on('exit', (status, signal) => resolve(status ?? 128 + (SIGNAL_NUMBER[signal ?? ''] ?? 0)));
  });
  const closed = new Promise<void>((resolve) => {
    child.on('close', () => resolve());
    child.on('error', () => resolve());
  });
  return {
    process: child,
    pid: child.pid ?? 0,
    exited,
    output: () => closed.then(() => printed),
    printed: () => printed,
  };
}

function readProc(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return ''; // it ended
  }
}

/** The direct children of a process. */
export function childrenOf(pid: number): number[] {
  let tasks: string[];
  try {
    tasks = readdirSync(`/proc/${pid}/task`);
  } catch {
    return [];
  }
  return tasks.flatMap((tid) => readProc(pid, `task/${tid}/children`).split(' ').filter(Boolean).map(Number));
}

/** A process's descendants, without itself, parents first. */
export function descendantsOf(pid: number): number[] {
  return childrenOf(pid).flatMap((child) => [child, ...descendantsOf(child)]);
}

/** Send SIGKILL to a process that we started and to its descendants. */
export function killTree(pid: number): void {
  for (const p of [pid, ...descendantsOf(pid)]) {
    try {
      process.kill(p, 'SIGKILL');
    } catch {
      // it ended by itself
    }
  }
}

export const isAlive = (pid: number): boolean => {
  const state = /^State:\s+(\S)/m.exec(readProc(pid, 'status'))?.[1];
  return state !== undefined && state !== 'Z' && state !== 'X';
};

export const commandLine = (pid: number): string[] => readProc(pid, 'cmdline').split('\0').slice(0, -1);

export const processName = (pid: number): string => readProc(pid, 'comm').trimEnd();

/**
 * @returns the id of a process in the PID namespace `depth` levels below ours; 0 when it is not in one
 */
export const pidInside = (pid: number, depth: number): number =>
  Number((/^NSpid:\s+(.*)$/m.exec(readProc(pid, 'status'))?.[1] ?? '').split(/\s+/)[depth] ?? 0);

export const rssKib = (pid: number): number =>
  Number(/^VmRSS:\s+(\d+)/m.exec(readProc(pid, 'status'))?.[1] ?? 0);

/** Resident memory of a process that is no file: heaps, stacks, the frame pool. */
export const anonymousKib = (pid: number): number =>
  Number(/^RssAnon:\s+(\d+)/m.exec(readProc(pid, 'status'))?.[1] ?? 0);

/** User + system time of all threads, in ticks of 10 ms. */
export function cpuTicks(pid: number): number {
  const fields = readProc(pid, 'stat')
    .replace(/^.*\) /s, '')
    .split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

/** Numbers of voluntary context switches, that is how often a thread slept and was woken, by thread. */
export type Sleeps = ReadonlyMap<string, number>;

/** Those of the processes' threads. @param names  of the threads that count */
export const sleeps = (pids: readonly number[], names = /^/): Sleeps =>
  new Map(
    pids.flatMap((pid) =>
      readdirSync(`/proc/${pid}/task`).flatMap((tid) => {
        const status = readProc(pid, `task/${tid}/status`);
        const name = /^Name:\s*(.*)/.exec(status)?.[1];
        if (name === undefined || !names.test(name)) return []; // undefined: the thread has just ended
        return [[tid, Number(/^voluntary_ctxt_switches:\s*(\d+)/m.exec(status)?.[1])] as const];
      }),
    ),
  );

/** Wake-ups between two looks. A thread that has ended in between was woken once for that. */
export function wakesBetween(before: Sleeps, after: Sleeps): number {
  let wakes = 0;
  for (const [tid, count] of after) wakes += count - (before.get(tid) ?? 0);
  for (const tid of before.keys()) if (!after.has(tid)) wakes++;
  return wakes;
}

/** Targets of a process's open descriptors. */
export function openFiles(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
      try {
        return [readlinkSync(`/proc/${pid}/fd/${fd}`)];
      } catch {
        return [];
      }
    });
  } catch {
    return [];
  }
}

export interface ThreadStatus {
  readonly name: string;
  /** By kind: "net:[4026531840]". Empty if we may not see them: an engine in the sandbox is not dumpable. */
  readonly namespaces: Readonly<Record<string, string>>;
  readonly noNewPrivs: boolean;
  /** 2: a filter is in force (proc_pid_status(5)). */
  readonly seccomp: number;
  /** CapEff, in hexadecimal. */
  readonly capEff: string;
  /** CapPrm, in hexadecimal. */
  readonly capPrm: string;
  /** Lines of proc_pid_status(5): user, groups, capabilities, filters. */
  readonly confinement: readonly string[];
}

const CONFINEMENT = /^(Uid|Gid|Groups|Cap\w+|NoNewPrivs|Seccomp|Seccomp_filters):/;

function namespacesOf(pid: number, tid: string): Record<string, string> {
  const at = `/proc/${pid}/task/${tid}/ns`;
  try {
    return Object.fromEntries(readdirSync(at).map((kind) => [kind, readlinkSync(`${at}/${kind}`)]));
  } catch {
    return {}; // the thread has ended, or we may not
  }
}

/** State of each thread of a process from /proc; also works for a process that is not dumpable. */
export function threadStatus(pid: number): ThreadStatus[] {
  return readdirSync(`/proc/${pid}/task`).flatMap((tid) => {
    const text = readProc(pid, `task/${tid}/status`);
    if (text === '') return []; // it ended
    const field = (name: string): string => new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(text)?.[1] ?? '';
    const hex = (name: string): string => field(name).replace(/^0+(?=.)/, '');
    return {
      name: field('Name'),
      namespaces: namespacesOf(pid, tid),
      noNewPrivs: field('NoNewPrivs') === '1',
      seccomp: Number(field('Seccomp')),
      capEff: hex('CapEff'),
      capPrm: hex('CapPrm'),
      confinement: text.split('\n').filter((line) => CONFINEMENT.test(line)),
    };
  });
}

/** The packet threads of an engine, those of lanes in their order. */
export const packetThreads = (pid: number): ThreadStatus[] =>
  threadStatus(pid)
    .filter(({ name }) => name.startsWith('packet thread'))
    .sort((a, b) => a.name.localeCompare(b.name));

const PAGE_BYTES = 4096;
const CHUNK_PAGES = 1024;

/** How often an ASCII text is in the writable memory of a process. Pages that were never touched are skipped. */
export function countInMemory(pid: number, text: string): number {
  const [mem, pagemap] = [openSync(`/proc/${pid}/mem`, 'r'), openSync(`/proc/${pid}/pagemap`, 'r')];
  const chunk = Buffer.alloc(CHUNK_PAGES * PAGE_BYTES);
  const entries = Buffer.alloc(CHUNK_PAGES * 8); // one u64 for each page: bits 62 and 63 are "swapped" and "present"
  let count = 0;
  try {
    for (const line of readFileSync(`/proc/${pid}/maps`, 'latin1').split('\n')) {
      const [, start, end] = /^([0-9a-f]+)-([0-9a-f]+) rw/.exec(line) ?? [];
      if (start === undefined) continue;
      const last = Number(`0x${end}`);
      for (let at = Number(`0x${start}`); at < last; at += chunk.length) {
        const bytes = Math.min(chunk.length, last - at);
        const pages = bytes / PAGE_BYTES;
        readSync(pagemap, entries, 0, pages * 8, (at / PAGE_BYTES) * 8);
        if (!entries.subarray(0, pages * 8).some((byte, i) => i % 8 === 7 && (byte & 0xc0) !== 0)) continue;
        const got = readSync(mem, chunk, 0, bytes, at);
        const present = chunk.subarray(0, got);
        for (let i = present.indexOf(text); i >= 0; i = present.indexOf(text, i + 1)) count++;
      }
    }
  } finally {
    closeSync(mem);
    closeSync(pagemap);
  }
  return count;
}
