/**
 * Durations of the steps of a start and of the end: milliseconds since the runtime began, one lap for each step. Logged at
 * level debug. With BUCATINI_TEST_LAPS they are also printed, with the time at which it began (perf/start.ts).
 */
import { launcherVariable } from '../process/launcher-env.ts';
import { put } from '../process/output.ts';

export class Stopwatch {
  readonly #laps: string[] = [`runtime up ${performance.now().toFixed(1)} ms`];
  readonly #printed = launcherVariable('BUCATINI_TEST_LAPS') !== undefined;

  lap(name: string): void {
    this.#laps.push(`${name} ${performance.now().toFixed(1)}`);
  }

  /** The text of the last lap. */
  get last(): string {
    return this.#laps.at(-1)!;
  }

  text(): string {
    return this.#laps.join(', ');
  }

  /** Print all laps to standard error, if they are asked for. */
  print(): void {
    if (this.#printed) put(2, `laps: ${this.text()}, from ${performance.timeOrigin.toFixed(3)}\n`);
  }
}
