/**
 * For benchmarks whose function does many operations a call: the runner divides by `ops`, so that results are
 * per operation and the harness's own call (some nanoseconds) does not drown what is measured.
 *
 *   suite.add('find', () => { for (let i = 0; i < 1000; i++) ... }, ops(1000));
 */
import type Benchmark from 'benchmark';

export interface OpsOptions extends Benchmark.Options {
  readonly opsPerCall: number;
}

export function ops(opsPerCall: number): Benchmark.Options {
  const options: OpsOptions = { opsPerCall };
  return options;
}

/** Write results here, so that no loop is optimised away: `sink.value ^= result`. */
export const sink = { value: 0 };
