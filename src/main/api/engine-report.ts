// bundle: rare
/**
 * The figures of a running engine as one plain object: what `--metrics` exports (main/metrics) and the API
 * answers to `metrics`, so that `bucatini metrics` can export it for other processes. In the sandbox too.
 */
import { openSync, readSync } from 'node:fs';
import { runtimeText } from '#runtime/program';
import type { EngineHandle, EngineMeasures } from '../../workers/engine.ts';

/** As EngineHandle gives them; counters that are 0 are left out. */
export interface EngineReport extends EngineMeasures {
  /** As in the answer to `info`: "bucatini run" ... */
  readonly program: string;
  readonly version: string;
  /** For example "Bun 1.4.5". */
  readonly runtime: string;
  readonly pid: number;
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
}

type ReportedEngine = Pick<EngineHandle, 'counters' | 'threadCounters' | 'histograms' | 'measure'>;

/** Makes reports of one engine. Construct it before the root is exchanged (host/sandbox.ts). */
export class EngineReporter {
  readonly #engine: ReportedEngine;
  readonly #about: Pick<EngineReport, 'program' | 'version'>;
  /** Descriptor of /proc/self/status, which stays readable in the sandbox; -1: there is no /proc. */
  readonly #status = openStatus();

  constructor(engine: ReportedEngine, about: Pick<EngineReport, 'program' | 'version'>) {
    this.#engine = engine;
    this.#about = about;
  }

  async report(): Promise<EngineReport> {
    const engine = this.#engine;
    const { user, system } = process.cpuUsage();
    const residentBytes = residentOf(this.#status);
    return {
      program: this.#about.program,
      version: this.#about.version,
      runtime: runtimeText(),
      pid: process.pid,
      startSeconds: performance.timeOrigin / 1000,
      processCpuUs: user + system,
      ...(residentBytes !== undefined && { residentBytes }),
      ...(await engine.measure()),
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
