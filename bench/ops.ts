/**
 * For benchmarks whose function does many operations per call. The runner divides by `ops`, so that results
 * are per operation, and the benchmark library's own overhead per call (some nanoseconds) does not matter.
 *
 *   suite.add('find', () => { for (let i = 0; i < 1000; i++) ... }, ops(1000));
 */
import type Benchmark from 'benchmark';

/** Options of a member with the number of operations per call, which run.ts reads. */
export interface OpsOptions extends Benchmark.Options {
  readonly opsPerCall: number;
}

/** Options for Suite.add(). @param opsPerCall  operations that one call of the member does */
export function ops(opsPerCall: number): Benchmark.Options {
  const options: OpsOptions = { opsPerCall };
  return options;
}

/** Write results to it, so that V8 does not optimise a loop away: `sink.value ^= result`. */
export const sink = { value: 0 };
