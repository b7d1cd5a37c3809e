// bundle: rare
/**
 * `bucatini top`: measures the instances again and again (sample.ts), and shows them on a terminal (screen.ts,
 * terminal.ts), or as text or JSON where there is none or the options say so. Why it has a renderer of its
 * own: docs/decisions/131-top-without-a-library.md.
 */
import { print } from '../../process/output.ts';
import type { Settings } from '../options.ts';
import { onKey, type TopKey } from './keys.ts';
import { type Measured, Sampler } from './sample.ts';
import { maxScroll, pageRows, plainText, screenLines, shownRows, type TopView } from './screen.ts';
import { Screen } from './terminal.ts';

/** How long a measurement waits for answers before the screen is drawn without them. */
const WAIT_MS = 1000;

/**
 * Run `bucatini top`.
 * @param operands  process ids and paths of API sockets; none: all instances of this user
 * @param env       the caller's environment
 * @returns the exit status: with --once 1 if there is no instance or one did not answer, else 0
 * @throws Error with one line for the user
 */
export async function top(
  settings: Settings,
  operands: readonly string[],
  env: NodeJS.ProcessEnv,
): Promise<number> {
  const sampler = new Sampler(operands);
  const tty = process.getBuiltinModule('node:tty');
  const interactive =
    !settings.once && !settings.json && tty.isatty(0) && tty.isatty(1) && env.TERM !== 'dumb';
  const view: TopView = {
    sort: settings.sort ?? 'rate',
    filter: settings.filter ?? '',
    ...{ reversed: false, paused: false, scroll: 0, help: false },
  };
  const intervalMs = settings.interval * 1000;
  if (!interactive) return printed(sampler, settings, view, intervalMs);
  return new Top(sampler, view, intervalMs, wantsColour(env)).run();
}

/** https://no-color.org */
const wantsColour = (env: NodeJS.ProcessEnv): boolean => (env.NO_COLOR ?? '') === '';

/** Without a terminal: one text or JSON document after another. */
async function printed(
  sampler: Sampler,
  settings: Settings,
  view: TopView,
  intervalMs: number,
): Promise<number> {
  // The rates of the first measurement are not known.
  await sampler.sample(WAIT_MS);
  for (;;) {
    await pause(intervalMs);
    const all = await sampler.sample(Math.max(WAIT_MS, intervalMs));
    const now = new Date();
    const columns = settings.once ? undefined : process.stdout.columns; // of a terminal without control sequences
    const text = settings.json
      ? `${JSON.stringify(document(all, view, now))}\n`
      : plainText(all, view, now, columns);
    if (settings.once) {
      print(text);
      return all.length > 0 && all.every(({ problem }) => problem === undefined) ? 0 : 1;
    }
    try {
      print(settings.json ? text : `${text}\n`);
    } catch {
      return 0; // nobody reads any more
    }
  }
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** The document of --json. Rates are in bits per second. */
export const document = (all: readonly Measured[], view: TopView, now: Date): unknown => ({
  timeMs: now.getTime(),
  instances: all.map((one) => ({
    program: one.info?.program ?? one.name,
    pid: one.pid,
    socket: one.path,
    ...(one.problem !== undefined && { problem: one.problem }),
    uptimeMs: one.uptimeMs,
    fromGuest: { bytes: one.fromGuestBytes, bitsPerSecond: Math.round(one.fromGuestRate * 8) },
    toGuest: { bytes: one.toGuestBytes, bitsPerSecond: Math.round(one.toGuestRate * 8) },
    pastTap: { bytes: one.splicedBytes, bitsPerSecond: Math.round(one.splicedRate * 8) },
    drops: Object.fromEntries(one.drops.map(({ cause, count }) => [cause, count])),
    threads: one.threads.map(({ name, share }) => ({ name, share: Math.round(share * 1000) / 1000 })),
    flows: shownRows([one], view).map(({ flow, fromGuestRate, toGuestRate }) => ({
      ...flow,
      bits_per_second_from_guest: Math.round(fromGuestRate * 8),
      bits_per_second_to_guest: Math.round(toGuestRate * 8),
    })),
    ...(one.moreFlows && { moreFlows: true }),
  })),
});

/** The interactive program. */
class Top {
  readonly #sampler: Sampler;
  readonly #intervalMs: number;
  readonly #screen: Screen;
  readonly #ended = Promise.withResolvers<number>();
  #view: TopView;
  #all: readonly Measured[] = [];
  #at = new Date();

  constructor(sampler: Sampler, view: TopView, intervalMs: number, colour: boolean) {
    this.#sampler = sampler;
    this.#view = view;
    this.#intervalMs = intervalMs;
    this.#screen = new Screen(colour, {
      onRedraw: () => this.#try(() => this.#draw()),
      onKey: (key) => this.#try(() => this.#onKey(key)),
    });
  }

  /** @returns the exit status */
  async run(): Promise<number> {
    try {
      this.#screen.open();
      this.#measure().catch(this.#ended.reject);
      return await this.#ended.promise;
    } finally {
      // Before an error is printed: on the other screen nobody would see it.
      this.#screen.close();
    }
  }

  /** An error in a callback ends the program as any other does. */
  #try(what: () => void): void {
    try {
      what();
    } catch (error) {
      this.#ended.reject(error);
    }
  }

  #onKey(key: TopKey): void {
    const context = {
      paths: this.#all.map(({ path }) => path),
      pageRows: pageRows(this.#all, this.#view, this.#screen.size),
      maxScroll: maxScroll(this.#all, this.#view, this.#screen.size),
    };
    const result = onKey(this.#view, key, context);
    if (result === 'quit') this.#ended.resolve(0);
    else if (result === 'suspend') this.#screen.suspend();
    else {
      this.#view = result;
      this.#draw();
    }
  }

  async #measure(): Promise<void> {
    for (let round = 0; ; round++) {
      const all = await this.#sampler.sample(WAIT_MS);
      if (!this.#view.paused) {
        this.#all = all;
        this.#at = new Date();
        this.#draw();
      }
      // The first measurement has no rates: the second one comes soon.
      await pause(round === 0 ? Math.min(500, this.#intervalMs) : this.#intervalMs);
    }
  }

  #draw(): void {
    this.#screen.draw(screenLines(this.#all, this.#view, this.#screen.size, this.#at));
  }
}
