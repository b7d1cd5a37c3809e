/**
 * The result of a run: types of the JSON file and the metrics in it. perf/README.md explains every field; the
 * renderer needs nothing else. A result contains no path and no host name.
 */

export const SCHEMA = 2;

export const PEER_KINDS = ['direct', 'bucatini', 'pasta', 'slirp4netns', 'bypass4netns'] as const;
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
  /** Read from the distribution. */
  p95Us: { label: 'p95 µs', better: 'less', digits: 1 },
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
const isText = (value: unknown): boolean => typeof value === 'string';
const isNumber = (value: unknown): boolean => typeof value === 'number' && Number.isFinite(value);

/** What is wrong with the entries of a list; null: nothing. */
type Fault = (entry: Record<string, unknown>) => string | null;
const wants = (
  entry: Record<string, unknown>,
  field: string,
  is: (value: unknown) => boolean,
  what: string,
) => (is(entry[field]) ? null : `${field} is not ${what}`);
const ENTRIES: Readonly<Record<string, Fault>> = {
  peers: (peer) =>
    wants(peer, 'name', isText, 'a text') ??
    wants(peer, 'version', isText, 'a text') ??
    wants(
      peer,
      'kind',
      (kind) => PEER_KINDS.some((known) => known === kind),
      `one of ${PEER_KINDS.join(' ')}`,
    ),
  cells: (cell) =>
    wants(cell, 'id', isText, 'a text') ??
    wants(cell, 'workload', isText, 'a text') ??
    wants(cell, 'text', isText, 'a text') ??
    wants(cell, 'mtu', isNumber, 'a number'),
  measurements: (one) =>
    wants(one, 'cell', isText, 'a text') ??
    wants(one, 'peer', isText, 'a text') ??
    wants(one, 'values', (v) => isRecord(v) && Object.values(v).every(isNumber), 'a record of numbers') ??
    wants(one, 'error', (error) => error === null || isText(error), 'a text or null') ??
    wants(one, 'distribution', isDistribution, 'a list of pairs'),
};
const isDistribution = (value: unknown): boolean =>
  value === undefined ||
  (Array.isArray(value) &&
    value.every((pair) => Array.isArray(pair) && pair.length === 2 && pair.every(isNumber)));
const MACHINE_TEXTS = ['cpu', 'kernel', 'node', 'governor', 'iperf3', 'commit'];
const MACHINE_NUMBERS = ['cores', 'loadAtStart'];
const SOAK_LISTS = ['samples', 'errors'];

/**
 * Parse a result file. All that reports read is checked, so that a broken file is one message.
 * @param name  for messages
 * @throws Error when it is not a result of the harness
 */
export function parseResult(text: string, name: string): Result {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Error(`${name}: not JSON`, { cause: error });
  }
  if (!isRecord(value) || value.schema !== SCHEMA)
    throw new Error(`${name}: not a harness result of schema ${SCHEMA}`);
  const refuse = (what: string): never => {
    throw new Error(`${name}: not a harness result: ${what}`);
  };
  for (const field of ['date', 'mode']) if (!isText(value[field])) refuse(`${field} is not a text`);
  if (!isNumber(value.seconds)) refuse('seconds is not a number');
  if (!isRecord(value.options)) refuse('options is not a record');
  const { machine, soak } = value;
  if (
    !isRecord(machine) ||
    !MACHINE_TEXTS.every((field) => isText(machine[field])) ||
    !MACHINE_NUMBERS.every((field) => isNumber(machine[field]))
  )
    return refuse('machine lacks a field');
  if (
    soak !== null &&
    (!isRecord(soak) || !isRecord(soak.pieces) || !SOAK_LISTS.every((field) => Array.isArray(soak[field])))
  )
    refuse('soak lacks a field');
  if (!Array.isArray(value.notes) || !value.notes.every(isText)) refuse('notes is not a list of texts');
  for (const [field, fault] of Object.entries(ENTRIES)) {
    const list = value[field];
    if (!Array.isArray(list)) return refuse(`${field} is not a list`);
    list.forEach((entry, i) => {
      const found = isRecord(entry) ? fault(entry) : 'not a record';
      if (found !== null) refuse(`${field}[${i}]: ${found}`);
    });
  }
  return value as unknown as Result;
}
