// bundle: rare
/**
 * What is exported, and under which names: one table for the exporter, docs/metrics.md and the tests. Names
 * of counters are made from those of src/ring/counters.ts by the conventions of Prometheus
 * (https://prometheus.io/docs/practices/naming/): snake_case, base units, the unit at the end, then `_total`.
 */
import { Drop } from '../../proto/drop.ts';
import { COUNTERS } from '../../ring/counters.ts';
import { HISTOGRAMS } from '../../ring/histograms.ts';
import { StageDrop } from '../../workers/link/stage-drop.ts';
import type { EngineReport } from '../api/engine-report.ts';

/** Name and meaning of a metric family. */
export interface FamilyInfo {
  readonly name: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly help: string;
  /** Names of labels, without those that tell instances apart. */
  readonly labels: readonly string[];
}

export type Labels = Readonly<Record<string, string>>;

/** One line of an exposition. */
export interface Sample {
  /** Of a histogram: _bucket, _sum or _count. */
  readonly suffix?: string;
  readonly labels: Labels;
  readonly value: number;
}

/** A family with its values. */
export interface Family extends FamilyInfo {
  readonly samples: readonly Sample[];
}

/** A family that every instance has. */
interface EngineFamily extends FamilyInfo {
  samples(report: EngineReport): readonly Sample[];
}

const US_PER_SECOND = 1_000_000;
/** Counters that are exported by thread, under one name. */
const CPU = ['cpuUserUs', 'cpuSystemUs'];

const snakeCase = (name: string): string => name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`);

/** `framesFromGuest` → `bucatini_frames_from_guest_total`, `bytesToGuest` → `bucatini_to_guest_bytes_total`. */
export function counterFamilyName(name: string, unit: string): string {
  const snake = snakeCase(name);
  const noun = unit === 'bytes' ? `${snake.replace(/(^|_)bytes(?=_|$)/, '').replace(/^_/, '')}_bytes` : snake;
  return `bucatini_${noun}_total`;
}

/** `run` of "bucatini run". */
export const shortProgram = (program: string): string => program.replace(/^bucatini /, '');

const sum = (labels: Labels, value: number): readonly Sample[] => [{ labels, value }];

const counters: readonly EngineFamily[] = COUNTERS.filter(({ name }) => !CPU.includes(name)).map(
  ({ name, unit, help }) => ({
    name: counterFamilyName(name, unit),
    type: 'counter',
    help,
    labels: [],
    samples: (report) => sum({}, report.counters[name] ?? 0),
  }),
);

/** Every cause of loss by name, in the order of the codes. */
export const CAUSES: readonly string[] = [...Object.keys(Drop), ...Object.keys(StageDrop)];

/**
 * Upper bounds of the buckets. The engine counts in buckets whose borders are powers of two
 * (ring/histograms.ts); at these borders a cumulative count is exact.
 */
const BOUNDS = {
  /** Microseconds; the engine counts whole ones, so a value below 16 µs counts as at most 15. */
  us: Array.from({ length: 21 }, (_, i) => 2 ** (i + 4)),
  /** Of whole numbers: 7 is the last one below 8. */
  frames: Array.from({ length: 9 }, (_, i) => 2 ** i - 1).slice(1),
} as const;

/** Bounds of a histogram as `le` has them. */
export const boundsOf = (unit: 'us' | 'frames'): readonly number[] =>
  unit === 'us' ? BOUNDS.us.map((us) => us / US_PER_SECOND) : BOUNDS.frames;

/**
 * A histogram of the engine as cumulative buckets.
 * @param buckets  [value, count] pairs; values are the middle of the engine's buckets
 */
export function histogramSamples(
  unit: 'us' | 'frames',
  buckets: readonly (readonly [value: number, count: number])[],
): readonly Sample[] {
  const isTime = unit === 'us';
  const samples = boundsOf(unit).map((bound, i): Sample => {
    // A bucket of the engine lies wholly below a border or wholly above it: so does its middle.
    const below = isTime ? BOUNDS.us[i]! : bound + 1;
    const count = buckets.reduce((n, [value, more]) => (value < below ? n + more : n), 0);
    return { suffix: '_bucket', labels: { le: leText(bound) }, value: count };
  });
  const count = buckets.reduce((n, [, more]) => n + more, 0);
  const total = buckets.reduce((n, [value, more]) => n + value * more, 0);
  return [
    ...samples,
    { suffix: '_bucket', labels: { le: '+Inf' }, value: count },
    { suffix: '_sum', labels: {}, value: isTime ? total / US_PER_SECOND : total },
    { suffix: '_count', labels: {}, value: count },
  ];
}

/** OpenMetrics writes bounds as floating-point numbers: 1.0. */
const leText = (bound: number): string => (Number.isInteger(bound) ? `${bound}.0` : String(bound));

const histograms: readonly EngineFamily[] = HISTOGRAMS.map(({ name, unit, help }) => ({
  name: `bucatini_${snakeCase(name)}_${unit === 'us' ? 'seconds' : unit}`,
  type: 'histogram',
  help,
  labels: ['le'],
  samples: (report) =>
    histogramSamples(unit, report.histograms.find((histogram) => histogram.name === name)?.buckets ?? []),
}));

const DATAGRAM_STATES = ['unreplied', 'replied'] as const;
/** Kinds of flows of which there may be none: they are exported as 0. */
const FLOW_KINDS: readonly (readonly [proto: string, states: readonly string[]])[] = [
  ['tcp', ['connecting', 'syn-received', 'syn-sent', 'established', 'close-wait', 'fin-wait', 'closed']],
  ['udp', DATAGRAM_STATES],
  ['icmp', DATAGRAM_STATES],
  ['icmpv6', DATAGRAM_STATES],
];

function flowSamples({ flows }: EngineReport): readonly Sample[] {
  const counts = new Map<string, Sample>();
  const add = (protocol: string, state: string, count: number): void => {
    const key = `${protocol} ${state}`;
    counts.set(key, { labels: { protocol, state }, value: (counts.get(key)?.value ?? 0) + count });
  };
  for (const [proto, states] of FLOW_KINDS) for (const state of states) add(proto, state, 0);
  for (const { proto, state, count } of flows) add(proto, state, count);
  return [...counts.values()];
}

/** All families that an engine has, in the order of their export. */
export const ENGINE_FAMILIES: readonly EngineFamily[] = [
  {
    name: 'bucatini_build_info',
    type: 'gauge',
    help: 'Always 1: program, version and JavaScript runtime are in the labels',
    labels: ['program', 'version', 'runtime'],
    samples: ({ program, version, runtime }) => sum({ program: shortProgram(program), version, runtime }, 1),
  },
  {
    name: 'bucatini_start_time_seconds',
    type: 'gauge',
    help: 'When the process started, in seconds since 1970',
    labels: [],
    samples: ({ startSeconds }) => sum({}, Math.round(startSeconds * 1000) / 1000),
  },
  {
    name: 'bucatini_resident_memory_bytes',
    type: 'gauge',
    help: 'Resident memory of the process',
    labels: [],
    samples: ({ residentBytes }) => (residentBytes === undefined ? [] : sum({}, residentBytes)),
  },
  {
    name: 'bucatini_process_cpu_seconds_total',
    type: 'counter',
    help: 'Processor time of the whole process, the threads of the runtime included',
    labels: [],
    samples: ({ processCpuUs }) => sum({}, processCpuUs / US_PER_SECOND),
  },
  {
    name: 'bucatini_cpu_seconds_total',
    type: 'counter',
    help: 'Processor time of each packet thread, as of the last second',
    labels: ['thread', 'mode'],
    samples: ({ threads }) =>
      threads.flatMap(({ thread, userUs, systemUs }) => [
        { labels: { thread, mode: 'user' }, value: userUs / US_PER_SECOND },
        { labels: { thread, mode: 'system' }, value: systemUs / US_PER_SECOND },
      ]),
  },
  {
    name: 'bucatini_flows',
    type: 'gauge',
    help: 'Live flows by protocol and state (docs/api.md)',
    labels: ['protocol', 'state'],
    samples: flowSamples,
  },
  {
    name: 'bucatini_switched_connections_open',
    type: 'gauge',
    help: 'Switched connections that there are; only with --switch-sockets',
    labels: [],
    samples: ({ switched }) => (switched === undefined ? [] : sum({}, switched)),
  },
  {
    name: 'bucatini_pool_slots',
    type: 'gauge',
    help: 'Slots of the packet memory, small (2 KiB) and large (68 KiB), that hold a packet or are free',
    labels: ['size', 'state'],
    samples: ({ pool }) =>
      (['small', 'large'] as const).flatMap((size) => [
        { labels: { size, state: 'used' }, value: pool[size].used },
        { labels: { size, state: 'free' }, value: Math.max(0, pool[size].slots - pool[size].used) },
      ]),
  },
  {
    name: 'bucatini_dropped_packets_total',
    type: 'counter',
    help: 'Packets lost, by cause (docs/counters.md)',
    labels: ['cause'],
    samples: ({ counters }) =>
      CAUSES.map((cause) => ({ labels: { cause }, value: counters[`drop.${cause}`] ?? 0 })),
  },
  ...counters,
  ...histograms,
];

/** Of `bucatini metrics`, beside those of the engines. */
export const INSTANCE_FAMILIES = {
  count: {
    name: 'bucatini_instances',
    type: 'gauge',
    help: 'Instances of this user that were started with --api-socket auto, or that were named',
    labels: [],
  },
  up: {
    name: 'bucatini_instance_up',
    type: 'gauge',
    help: '1: the instance has answered. 0: it has not; its other metrics are missing',
    labels: [],
  },
  container: {
    name: 'bucatini_instance_container_info',
    type: 'gauge',
    help: 'Always 1: the container of Podman whose network namespace the instance serves, its name and id in the labels',
    labels: ['id'],
  },
} as const satisfies Record<string, FamilyInfo>;

/** An instance and its figures. */
export interface Reported {
  /** Put on each sample. */
  readonly labels: Labels;
  /** Absent: it has not answered. */
  readonly report?: EngineReport;
  /** Id of the container; absent: none is known. */
  readonly containerId?: string;
}

/** The families of one engine, which needs no labels to tell it from others. */
export const familiesOf = (report: EngineReport): readonly Family[] =>
  ENGINE_FAMILIES.map(({ samples, ...info }) => ({ ...info, samples: samples(report) }));

/** The families of several instances, each with its labels. */
export function familiesOfInstances(instances: readonly Reported[]): readonly Family[] {
  const count: Family = { ...INSTANCE_FAMILIES.count, samples: sum({}, instances.length) };
  const up: Family = {
    ...INSTANCE_FAMILIES.up,
    samples: instances.map(({ labels, report }) => ({ labels, value: report === undefined ? 0 : 1 })),
  };
  const others = ENGINE_FAMILIES.map(({ samples, ...info }) => ({
    ...info,
    samples: instances.flatMap(({ labels, report }) =>
      report === undefined
        ? []
        : samples(report).map((sample) => ({ ...sample, labels: { ...labels, ...sample.labels } })),
    ),
  }));
  const container: Family = {
    ...INSTANCE_FAMILIES.container,
    samples: instances.flatMap(({ labels, containerId }) =>
      containerId === undefined ? [] : sum({ ...labels, id: containerId }, 1),
    ),
  };
  return [count, up, container, ...others];
}
