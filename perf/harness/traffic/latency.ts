/**
 * A distribution of durations: recorded by hdr-histogram-js in nanoseconds, reported as percentiles in
 * microseconds.
 */
import { build } from 'hdr-histogram-js';

export const PERCENTILES = [0, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99, 100] as const;
const HIGHEST_NS = 60e9;

export interface LatencySummary {
  readonly count: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly p999Us: number;
  readonly distribution: readonly (readonly [number, number])[];
}

export class Latency {
  readonly #histogram = build({
    lowestDiscernibleValue: 1,
    highestTrackableValue: HIGHEST_NS,
    numberOfSignificantValueDigits: 3,
    bitBucketSize: 64,
  });

  recordMs(ms: number): void {
    this.#histogram.recordValue(Math.min(HIGHEST_NS, Math.max(1, Math.round(ms * 1e6))));
  }

  summary(): LatencySummary {
    const us = (percentile: number) => this.#histogram.getValueAtPercentile(percentile) / 1000;
    return {
      count: this.#histogram.totalCount,
      p50Us: us(50),
      p99Us: us(99),
      p999Us: us(99.9),
      distribution: PERCENTILES.map((p) => [p, p === 0 ? this.#histogram.minNonZeroValue / 1000 : us(p)]),
    };
  }
}
