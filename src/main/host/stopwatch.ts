/**
 * Durations of the steps of a start: milliseconds since Node began, one lap for each step. Logged at level
 * debug.
 */
export class Stopwatch {
  readonly #laps: string[] = [`Node up ${performance.now().toFixed(0)} ms`];

  lap(name: string): void {
    this.#laps.push(`${name} ${performance.now().toFixed(0)}`);
  }

  /** The text of the last lap. */
  get last(): string {
    return this.#laps.at(-1)!;
  }

  text(): string {
    return this.#laps.join(', ');
  }
}
