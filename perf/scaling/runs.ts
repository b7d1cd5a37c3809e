/** Types of the file of measurements that the model reads, and the parsers of what the programs print. */

export type Direction = 'up' | 'down';
export type Protocol = 'tcp' | 'udp';

/** Counters of one packet thread by name; those that are 0 are left out. */
export type Counters = Readonly<Record<string, number>>;

/** Counters by the name of the thread: `lane 0`, `reader`, `shard 0`, `host-io`; a single thread is `fused`. */
export type Threads = Readonly<Record<string, Counters>>;

export interface Run {
  /** The value of `--threads`. */
  readonly plan: string;
  readonly protocol: Protocol;
  readonly direction: Direction;
  readonly streams: number;
  readonly round: number;
  readonly seconds: number;
  /** Payload that arrived: bytes of TCP, datagrams of UDP. */
  readonly bytes: number;
  readonly datagrams: number;
  /** Processor time of the two iperf3 processes, in seconds. */
  readonly clientSeconds: number;
  readonly serverSeconds: number;
  /** Idle cores during the transfer, on average. */
  readonly idleCores: number;
  readonly threads: Threads;
}

/** What the threads of a plan use for their start. */
export interface Start {
  readonly plan: string;
  readonly threads: Threads;
}

export interface RunsFile {
  readonly schema: 1;
  readonly date: string;
  readonly machine: {
    readonly cpu: string;
    readonly cores: number;
    readonly kernel: string;
    readonly iperf3: string;
    readonly commit: string;
  };
  readonly starts: readonly Start[];
  readonly runs: readonly Run[];
}

/** Parse a file of measurements. @param name  for messages @throws Error when it is something else */
export function parseRuns(text: string, name: string): RunsFile {
  let value: Partial<RunsFile> | null;
  try {
    value = JSON.parse(text) as Partial<RunsFile> | null;
  } catch (error) {
    throw new Error(`${name}: not JSON`, { cause: error });
  }
  if (value?.schema !== 1 || !Array.isArray(value.runs) || !Array.isArray(value.starts))
    throw new Error(`${name}: not written by perf/scaling.ts --measure`);
  return value as RunsFile;
}

/**
 * Parse a `--stats` table. A table without columns for threads has only `value`.
 * @param name  for messages
 * @throws Error when the text has no such table
 */
export function parseStats(text: string, name: string): Threads {
  const cells = (line: string): string[] => line.trim().split(/\s{2,}/);
  const lines = text.split('\n');
  const headAt = lines.findIndex((line) => /^counter\s+value/.test(line));
  if (headAt < 0) throw new Error(`${name}: no table of --stats in it`);
  const columns = cells(lines[headAt] ?? '').slice(1);
  const threads = columns.map((): Record<string, number> => ({}));
  for (const line of lines.slice(headAt + 1)) {
    const [counter = '', ...values] = cells(line);
    if (values.length !== columns.length) break;
    for (const [c, text] of values.entries()) {
      const value = Number(text.replaceAll(',', ''));
      const thread = threads[c];
      if (thread && value !== 0) thread[counter] = value;
    }
  }
  const named = columns.map((column, c) => [column, threads[c] ?? {}] as const);
  return Object.fromEntries(named.length === 1 ? [['fused', named[0]![1]]] : named.slice(1));
}

interface IperfSum {
  readonly bytes?: number;
  readonly seconds?: number;
}

interface Iperf {
  readonly error?: string;
  readonly start?: { readonly test_start?: { readonly blksize?: number } };
  readonly end?: {
    readonly sum_sent?: IperfSum;
    readonly sum_received?: IperfSum;
    readonly cpu_utilization_percent?: { readonly host_total: number; readonly remote_total: number };
  };
}

type IperfFigures = Pick<Run, 'seconds' | 'bytes' | 'datagrams' | 'clientSeconds' | 'serverSeconds'>;

/** Parse the report of `iperf3 -J`. @param name  for messages @throws Error when the transfer failed */
export function parseIperf(text: string, protocol: Protocol, name: string): IperfFigures {
  const { error, start, end } = JSON.parse(text) as Iperf;
  const received = end?.sum_received;
  const ends = end?.cpu_utilization_percent;
  if (error !== undefined || !received?.bytes || !received.seconds || ends === undefined)
    throw new Error(`${name}: ${error ?? 'iperf3 reports no bytes or no processor time'}`);
  const { bytes, seconds } = received;
  return {
    seconds,
    bytes,
    datagrams: protocol === 'udp' ? Math.round(bytes / (start?.test_start?.blksize ?? bytes)) : 0,
    clientSeconds: (ends.host_total / 100) * seconds,
    serverSeconds: (ends.remote_total / 100) * seconds,
  };
}
