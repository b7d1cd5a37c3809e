// bundle: rare
/**
 * The figures of a running engine as one plain object: what `--metrics` exports (main/metrics) and the API
 * answers to `metrics`, so that `bucatini metrics` can export it for other processes. In the sandbox too.
 */
import { openSync, readlinkSync, readSync } from 'node:fs';
import { runtimeText } from '#runtime/program';
import type { EngineHandle, EngineMeasures } from '../../workers/engine.ts';
import type { SwitchedConnections } from '../switching/switched-connections.ts';

/** As EngineHandle gives them; counters that are 0 are left out. */
export interface EngineReport extends EngineMeasures {
  /** As in the answer to `info`: "bucatini run" ... */
  readonly program: string;
  readonly version: string;
  /** For example "Bun 1.4.5". */
  readonly runtime: string;
  readonly pid: number;
  /** The network namespace that is served, as "net:[NUMBER]"; absent: not known. */
  readonly namespace?: string;
  /** Seconds since 1970. */
  readonly startSeconds: number;
  /** User and system time of the whole process, the threads of the runtime included. */
  readonly processCpuUs: number;
  /** Absent: not known. */
  readonly residentBytes?: number;
  readonly counters: Readonly<Record<string, number>>;
  /** Processor time of each packet thread. */
  readonly threads: readonly {
    readonly thread: string;
    readonly userUs: number;
    readonly systemUs: number;
  }[];
  /** Without the empty ones: [value, count] pairs as in `stats`. */
  readonly histograms: readonly {
    readonly name: string;
    readonly buckets: readonly (readonly [value: number, count: number])[];
  }[];
  /** Switched connections that there are; absent: no socket switching, or its supervisor does not answer. */
  readonly switched?: number;
}

/** What an engine does not know about itself. */
export type Reported = Pick<EngineReport, 'program' | 'version'> & {
  readonly namespace?: string | undefined;
  readonly switched?: Pick<SwitchedConnections, 'active'> | undefined;
};

type ReportedEngine = Pick<EngineHandle, 'counters' | 'threadCounters' | 'histograms' | 'measure'>;

/** Makes reports of one engine. Construct it before the root is exchanged (host/sandbox.ts). */
export class EngineReporter {
  readonly #engine: ReportedEngine;
  readonly #about: Reported;
  /** Descriptor of /proc/self/status, which stays readable in the sandbox; -1: there is no /proc. */
  readonly #status = openStatus();

  constructor(engine: ReportedEngine, about: Reported) {
    this.#engine = engine;
    this.#about = about;
  }

  async report(): Promise<EngineReport> {
    const engine = this.#engine;
    const { program, version, namespace } = this.#about;
    const switched = await this.#about.switched?.active();
    const { user, system } = process.cpuUsage();
    const residentBytes = residentOf(this.#status);
    return {
      program,
      version,
      ...(namespace !== undefined && { namespace }),
      runtime: runtimeText(),
      pid: process.pid,
      startSeconds: performance.timeOrigin / 1000,
      processCpuUs: user + system,
      ...(residentBytes !== undefined && { residentBytes }),
      ...(await engine.measure()),
      ...(switched !== undefined && { switched }),
      counters: engine.counters(),
      threads: engine.threadCounters().map(({ thread, counters }) => ({
        thread,
        userUs: counters.cpuUserUs ?? 0,
        systemUs: counters.cpuSystemUs ?? 0,
      })),
      histograms: engine.histograms().map(({ name, buckets }) => ({ name, buckets })),
    };
  }
}

function openStatus(): number {
  try {
    return openSync('/proc/self/status', 'r');
  } catch {
    return -1;
  }
}

/** Longer than the file: with hundreds of processors it has long lines, but VmRSS comes before these. */
const STATUS_BYTES = 4096;

/** VmRSS of proc_pid_status(5). @returns undefined if it cannot be read */
function residentOf(status: number): number | undefined {
  if (status < 0) return undefined;
  const text = Buffer.alloc(STATUS_BYTES);
  try {
    const bytes = readSync(status, text, 0, STATUS_BYTES, 0);
    const [, kib] = /^VmRSS:\s+(\d+) kB$/m.exec(text.toString('latin1', 0, bytes)) ?? [];
    return kib === undefined ? undefined : Number(kib) * 1024;
  } catch {
    return undefined;
  }
}

/** The network namespace of the main thread, as EngineReport has it. Not in the sandbox. */
export function ownNamespace(): string | undefined {
  try {
    return readlinkSync('/proc/self/ns/net');
  } catch {
    return undefined;
  }
}

type Json = Readonly<Record<string, unknown>>;

/** Most entries of a list, and characters of a text, that are read from an answer. */
const MAX_ENTRIES = 1000;
const MAX_TEXT = 128;

/**
 * Check the answer to the request `metrics`. What is missing or malformed in it counts as 0 or is left out.
 * @returns undefined if it is no such answer
 */
export function readReport(answer: unknown): EngineReport | undefined {
  const from = object(answer);
  if (from === undefined || typeof from.program !== 'string') return undefined;
  const pool = object(from.pool) ?? {};
  const slots = (kind: string): { slots: number; used: number } => {
    const of = object(pool[kind]) ?? {};
    return { slots: count(of.slots), used: count(of.used) };
  };
  return {
    program: text(from.program),
    version: text(from.version),
    runtime: text(from.runtime),
    pid: count(from.pid),
    ...(typeof from.namespace === 'string' && { namespace: text(from.namespace) }),
    startSeconds: count(from.startSeconds),
    processCpuUs: count(from.processCpuUs),
    ...(typeof from.residentBytes === 'number' && { residentBytes: count(from.residentBytes) }),
    ...(typeof from.switched === 'number' && { switched: count(from.switched) }),
    counters: Object.fromEntries(
      Object.entries(object(from.counters) ?? {})
        .slice(0, MAX_ENTRIES)
        .map(([name, value]) => [name, count(value)]),
    ),
    threads: threads(from.threads),
    histograms: list(from.histograms).map(({ name, buckets }) => ({
      name: text(name),
      buckets: pairs(buckets),
    })),
    flows: list(from.flows).map(({ proto, state, path, count: flows }) => ({
      proto: text(proto),
      state: text(state),
      path: path === 'splice' ? 'splice' : 'tap',
      count: count(flows),
    })),
    pool: { small: slots('small'), large: slots('large') },
  };
}

/** Each name once: it tells samples apart. */
function threads(value: unknown): EngineReport['threads'] {
  const all = list(value).map(({ thread, userUs, systemUs }) => ({
    thread: text(thread),
    userUs: count(userUs),
    systemUs: count(systemUs),
  }));
  return [...new Map(all.map((one) => [one.thread, one])).values()];
}

const object = (value: unknown): Json | undefined =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : undefined;

const list = (value: unknown): readonly Json[] =>
  (Array.isArray(value) ? (value as readonly unknown[]) : [])
    .slice(0, MAX_ENTRIES)
    .map(object)
    .filter((entry) => entry !== undefined);

const text = (value: unknown): string => (typeof value === 'string' ? value.slice(0, MAX_TEXT) : '');

/** A number from 0 to what counters count exactly; 0 if it is none. */
const count = (value: unknown): number =>
  typeof value === 'number' && value > 0 ? Math.min(value, Number.MAX_SAFE_INTEGER) : 0;

const pairs = (value: unknown): readonly (readonly [number, number])[] =>
  (Array.isArray(value) ? value : [])
    .slice(0, MAX_ENTRIES)
    .map((pair) => (Array.isArray(pair) ? [count(pair[0]), count(pair[1])] : [0, 0]));
