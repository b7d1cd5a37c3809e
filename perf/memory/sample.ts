/** What /proc says about the memory and the threads of processes. Reading it wakes none of them. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { descendants } from '../harness/processes.ts';

/** Memory in KiB, from /proc/PID/smaps_rollup (proc_pid_smaps(5)). */
export interface Memory {
  readonly rss: number;
  /** Each page counted as its part of 1 / (number of processes that have mapped it). */
  readonly pss: number;
  /** Pages that no other process has mapped, of files too: what would be free if this process ended. */
  readonly private: number;
  /** Pages that belong to no file. */
  readonly anonymous: number;
}

export const NO_MEMORY: Memory = { rss: 0, pss: 0, private: 0, anonymous: 0 };

export const MEMORY_KEYS = ['rss', 'pss', 'private', 'anonymous'] as const;

/** Sum of two. Pure. */
export function addMemory(a: Memory, b: Memory): Memory {
  return {
    rss: a.rss + b.rss,
    pss: a.pss + b.pss,
    private: a.private + b.private,
    anonymous: a.anonymous + b.anonymous,
  };
}

/** Parse the text of a smaps_rollup file. Pure. */
export function parseRollup(text: string): Memory {
  const field = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(text)?.[1] ?? 0);
  return {
    rss: field('Rss'),
    pss: field('Pss'),
    private: field('Private_Clean') + field('Private_Dirty'),
    anonymous: field('Anonymous'),
  };
}

function memoryOf(pid: number): Memory {
  try {
    return parseRollup(readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1'));
  } catch {
    return NO_MEMORY; // the process has ended
  }
}

function programOf(pid: number): string {
  try {
    return readlinkSync(`/proc/${pid}/exe`);
  } catch {
    return '';
  }
}

/** One instance of a tool, as process ids. */
export interface Instance {
  /** Processes that run the same program as the root of the tool's process tree. */
  readonly engine: readonly number[];
  /** The other processes of the tree, which start COMMAND and wait for its end. COMMAND is not among them. */
  readonly helpers: readonly number[];
}

/**
 * Divide a tool's process tree.
 * @param root  pid of the tool
 * @param without  command line of COMMAND
 */
export function instanceOf(root: number, without: string): Instance {
  const program = programOf(root);
  const pids = descendants(root, without);
  return {
    engine: pids.filter((pid) => programOf(pid) === program),
    helpers: pids.filter((pid) => programOf(pid) !== program),
  };
}

export const memorySum = (pids: readonly number[]): Memory => pids.map(memoryOf).reduce(addMemory, NO_MEMORY);

/** What threads have done. */
export interface Activity {
  /** Context switches of all threads, voluntary and not. */
  readonly switches: number;
  /** Processor time of all threads. */
  readonly cpuMs: number;
}

/**
 * Follows the threads of processes from its construction on. Sample often: a thread that has ended counts
 * with what its last sample showed.
 */
export class ThreadWatch {
  readonly #pids: readonly number[];
  readonly #first = new Map<string, Activity>();
  readonly #last = new Map<string, Activity>();

  constructor(pids: readonly number[]) {
    this.#pids = pids;
    this.sample();
    for (const [thread, activity] of this.#last) this.#first.set(thread, activity);
  }

  /** @returns what all threads together have done since the construction */
  sample(): Activity {
    for (const pid of this.#pids) {
      for (const tid of threadsOf(pid)) {
        const activity = activityOf(pid, tid);
        if (activity !== null) this.#last.set(`${pid}/${tid}`, activity);
      }
    }
    let switches = 0;
    let cpuMs = 0;
    for (const [thread, now] of this.#last) {
      const then = this.#first.get(thread); // undefined: the thread was started later
      switches += now.switches - (then?.switches ?? 0);
      cpuMs += now.cpuMs - (then?.cpuMs ?? 0);
    }
    return { switches, cpuMs };
  }
}

function threadsOf(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`);
  } catch {
    return [];
  }
}

function activityOf(pid: number, tid: string): Activity | null {
  try {
    const status = readFileSync(`/proc/${pid}/task/${tid}/status`, 'latin1');
    const switches = [...status.matchAll(/^(?:non)?voluntary_ctxt_switches:\s+(\d+)$/gm)];
    // First field of schedstat: time on the processor in ns.
    const ns = Number(readFileSync(`/proc/${pid}/task/${tid}/schedstat`, 'latin1').split(' ')[0]);
    return { switches: switches.reduce((sum, [, count]) => sum + Number(count), 0), cpuMs: ns / 1e6 };
  } catch {
    return null; // the thread has ended
  }
}
