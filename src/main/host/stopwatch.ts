/**
 * When each step of a start and of the end was done: milliseconds since the runtime began, one lap for each
 * step. Logged at level debug. With BUCATINI_TEST_LAPS the laps are also printed, with the wall-clock time at
 * which the runtime began, in ms since 1970 (perf/start.ts reads them).
 */
import { launcherVariable } from '../process/launcher-env.ts';
import { put } from '../process/output.ts';

export class Stopwatch {
  readonly #laps: string[] = [`runtime up ${performance.now().toFixed(1)} ms`];
  readonly #printed = launcherVariable('BUCATINI_TEST_LAPS') !== undefined;

  /** Note that a step is done now. */
  lap(name: string): void {
    this.#laps.push(`${name} ${performance.now().toFixed(1)}`);
  }

  /** The text of the last lap. */
  get last(): string {
    return this.#laps.at(-1)!;
  }

  /** All laps in one line. */
  text(): string {
    return this.#laps.join(', ');
  }

  /** Print all laps to standard error, if they are asked for. */
  print(): void {
    if (this.#printed) put(2, `laps: ${this.text()}, from ${performance.timeOrigin.toFixed(3)}\n`);
  }
}
