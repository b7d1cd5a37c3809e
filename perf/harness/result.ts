/**
 * The result of a run: types of the JSON file and the metrics in it. perf/README.md explains every field; the
 * renderer needs nothing else. A result contains no path and no host name.
 */

export const SCHEMA = 2;

export const PEER_KINDS = ['direct', 'bucatini', 'pasta', 'slirp4netns'] as const;
export type PeerKind = (typeof PEER_KINDS)[number];

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly kernel: string;
  readonly node: string;
  /** What bucatini's launchers ran, "Bun" or "Node". Reports without it are older than Bun there: Node. */
  readonly runtime?: string;
  readonly governor: string;
  readonly iperf3: string;
  readonly commit: string;
  /** One-minute load average at the start of the run: with a high load the figures are not reliable. */
  readonly loadAtStart: number;
}

export interface PeerInfo {
  readonly name: string;
  readonly kind: PeerKind;
  readonly version: string;
  /** Thread plan as text; only for bucatini. */
  readonly threads: string | null;
}

export interface Measurement {
  readonly cell: string;
  readonly peer: string;
  /** From 1; warm-ups are not recorded. */
  readonly round: number;
  readonly values: Partial<Record<Metric, number>>;
  readonly error: string | null;
  /** Latency percentiles: [per cent, microseconds], ascending. */
  readonly distribution?: readonly (readonly [number, number])[];
}

/** A cell of the matrix as measured. */
export interface CellInfo {
  readonly id: string;
  readonly workload: string;
  readonly text: string;
  readonly mtu: number;
  readonly seconds: number;
}

export interface SoakSample {
  readonly second: number;
  readonly rssMib: number;
  readonly descriptors: number;
}

export interface Soak {
  readonly peer: string;
  readonly minutes: number;
  readonly samples: readonly SoakSample[];
  /** Number of completed pieces of load, by kind. */
  readonly pieces: Readonly<Record<string, number>>;
  readonly errors: readonly string[];
  readonly verdict: string;
  readonly passed: boolean;
}

export interface Result {
  readonly schema: typeof SCHEMA;
  readonly date: string;
  readonly mode: string;
  readonly machine: Machine;
  readonly options: Readonly<Record<string, string | number | boolean | null>>;
  readonly peers: readonly PeerInfo[];
  readonly cells: readonly CellInfo[];
  readonly measurements: readonly Measurement[];
  readonly soak: Soak | null;
  /** Remarks for the reader of the figures. */
  readonly notes: readonly string[];
  readonly seconds: number;
  readonly endedEarly: boolean;
}

export interface MetricInfo {
  readonly label: string;
  readonly better: 'more' | 'less';
  readonly digits: number;
}

/** All metrics. The plot of a measurement shows the first of its metrics in this order. */
export const METRICS = {
  mbit: { label: 'Mbit/s', better: 'more', digits: 0 },
  perSecond: { label: 'per second', better: 'more', digits: 0 },
  packetsPerSecond: { label: 'packets/s', better: 'more', digits: 0 },
  p50Us: { label: 'p50 µs', better: 'less', digits: 1 },
  p99Us: { label: 'p99 µs', better: 'less', digits: 1 },
  p999Us: { label: 'p99.9 µs', better: 'less', digits: 1 },
  startMs: { label: 'ms', better: 'less', digits: 1 },
  lossPercent: { label: 'loss %', better: 'less', digits: 2 },
  jitterMs: { label: 'jitter ms', better: 'less', digits: 3 },
  flows: { label: 'flows held', better: 'more', digits: 0 },
  cpuTicks: { label: 'CPU ticks', better: 'less', digits: 0 },
  cpuSecondsPerGib: { label: 'CPU s/GiB', better: 'less', digits: 2 },
  cpuPercent: { label: 'CPU %', better: 'less', digits: 1 },
  rssMib: { label: 'RSS MiB', better: 'less', digits: 1 },
  peakRssMib: { label: 'peak RSS MiB', better: 'less', digits: 1 },
  retransmits: { label: 'retransmits', better: 'less', digits: 0 },
} as const satisfies Record<string, MetricInfo>;
export type Metric = keyof typeof METRICS;
export const METRIC_NAMES = Object.keys(METRICS) as readonly Metric[];

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Parse a result file. @param name  for messages @throws Error when it is not a result of the harness */
export function parseResult(text: string, name: string): Result {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Error(`${name}: not JSON`, { cause: error });
  }
  if (!isRecord(value) || value.schema !== SCHEMA)
    throw new Error(`${name}: not a harness result of schema ${SCHEMA}`);
  for (const field of ['peers', 'cells', 'measurements', 'notes'])
    if (!Array.isArray(value[field])) throw new Error(`${name}: ${field} is not a list`);
  return value as unknown as Result;
}
