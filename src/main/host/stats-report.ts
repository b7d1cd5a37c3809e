// bundle: rare
/** --stats and --stats-json of `run` and `attach`. Loaded, and its file opened, before the sandbox is entered. */
import { closeSync, openSync, writeSync } from 'node:fs';
import { strerrorOf } from '../../sys/error.ts';
import { UsageError } from '../cli/values.ts';
import { put } from '../process/output.ts';
import type { Log } from './log.ts';
import { intervalLine, printStats, type StatsEngine, statsJson } from './stats.ts';

export interface StatsReportOptions {
  /** Print the tables at the end. */
  readonly stats: boolean;
  /** Print a line for each interval of so many seconds. */
  readonly statsSeconds?: number;
  /** Write JSON to this file at the end. */
  readonly statsJson?: string;
  readonly program: string;
  readonly version: string;
  readonly log: Log;
}

/** Reports about one engine, from the time at which it is constructed. */
export class StatsReport {
  readonly #engine: StatsEngine;
  readonly #o: StatsReportOptions;
  readonly #startMs = performance.now();
  readonly #fd: number = -1;
  #timer: NodeJS.Timeout | undefined;

  /** @throws UsageError if the file cannot be opened */
  constructor(engine: StatsEngine, options: StatsReportOptions) {
    this.#engine = engine;
    this.#o = options;
    if (options.statsJson !== undefined) this.#fd = openFile(options.statsJson);
    if (options.statsSeconds !== undefined) this.#reportEvery(options.statsSeconds);
  }

  #reportEvery(seconds: number): void {
    let before = this.#engine.counters();
    let beforeMs = performance.now();
    const report = (): void => {
      const counters = this.#engine.counters();
      const now = performance.now();
      put(2, intervalLine(now - this.#startMs, counters, before, (now - beforeMs) / 1000));
      before = counters;
      beforeMs = now;
    };
    this.#timer = setInterval(report, seconds * 1000).unref();
  }

  /** Print and write everything; the engine has not been stopped yet. */
  end(): void {
    clearInterval(this.#timer);
    const elapsedMs = performance.now() - this.#startMs;
    if (this.#o.stats) printStats(this.#engine, elapsedMs);
    if (this.#fd < 0) return;
    try {
      const bytes = Buffer.from(statsJson(this.#engine, elapsedMs, this.#o.program, this.#o.version));
      for (let at = 0; at < bytes.length; ) at += writeSync(this.#fd, bytes, at);
      closeSync(this.#fd);
    } catch (error) {
      this.#o.log('error', `--stats-json ${this.#o.statsJson}: ${strerrorOf(error)}`);
    }
  }
}

function openFile(path: string): number {
  try {
    return openSync(path, 'w', 0o666);
  } catch (error) {
    throw new UsageError(`--stats-json ${path}: ${strerrorOf(error)}`);
  }
}
