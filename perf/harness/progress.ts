/**
 * Progress on standard error with the remaining time: planned seconds, corrected by the ratio of actual to
 * planned time so far.
 */
export const say = (text: string): void => {
  process.stderr.write(`${text}\n`);
};

/** Before this much of the plan is done, the plan's own estimate is better than the corrected one. */
const TRUST_SECONDS = 10;

export class Progress {
  readonly #beganMs = performance.now();
  readonly #steps: number;
  readonly #plannedSeconds: number;
  #step = 0;
  #doneSeconds = 0;

  constructor(steps: number, plannedSeconds: number) {
    this.#steps = steps;
    this.#plannedSeconds = plannedSeconds;
  }

  /** Report a step. @param seconds  planned time of the step */
  step(text: string, seconds: number): void {
    this.#step++;
    this.#doneSeconds += seconds;
    const spentSeconds = (performance.now() - this.#beganMs) / 1000;
    const pace = this.#doneSeconds > TRUST_SECONDS ? spentSeconds / this.#doneSeconds : 1;
    const left = this.#step >= this.#steps ? 0 : (this.#plannedSeconds - this.#doneSeconds) * pace;
    say(
      `[${`${this.#step}`.padStart(`${this.#steps}`.length)}/${this.#steps}, ${Progress.time(Math.max(0, left))} left] ${text}`,
    );
  }

  static time(seconds: number): string {
    const whole = Math.ceil(seconds);
    return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${`${whole % 60}`.padStart(2, '0')} s`;
  }
}
