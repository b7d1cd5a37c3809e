/**
 * Emulated lines as users write them: the options --rate, --delay, --loss and --impair, the lines of an
 * impairment file, and arguments of the API's `set_impairment` all are a key and a value, and are parsed here.
 *
 *     rate 10mbit/down           VALUE, VALUE/up (from the container) or VALUE/down (to it)
 */

import { readFileSync } from 'node:fs';
import { strerrorOf } from '../../sys/error.ts';
import type {
  JitterDistribution,
  LinePlan,
  LinesPlan,
  LossPlan,
  NetworkPlan,
  ShapingPlan,
} from '../../workers/engine-plan.ts';
import { FIFO_FRAMES } from '../../workers/shaping/frame-fifo.ts';
import { parseAddress, parseCount, quoted, UsageError } from './values.ts';

/** A line that changes nothing. */
const OPEN: LinePlan = {
  bytesPerSecond: Number.POSITIVE_INFINITY,
  burstBytes: 0,
  queueBytes: 0,
  queuePackets: FIFO_FRAMES,
  delayMs: 0,
  jitterMs: 0,
  distribution: 'normal',
  loss: { goodToBad: 0, badToGood: 0, lossGood: 0, lossBad: 0 },
  duplicate: 0,
  reorder: 0,
  reorderMs: 5,
  corrupt: 0,
  maxPacketBytes: 65_535,
};

/** Default queue: what the line sends in this time, within these limits. */
const QUEUE_MS = 100;
const MIN_QUEUE_BYTES = 64 * 1024;
const MAX_QUEUE_BYTES = 16 << 20;

const DEFAULT_SEED = 1;
const MAX_DELAY_MS = 60_000;
const MIN_RATE = 1000;
const MAX_RATE = 100e9;
const MAX_RULES = 32;
const MAX_NETWORKS = 256;

type Fields = { -readonly [K in keyof LinePlan]: LinePlan[K] };

/** Lines of one section of a file, as far as it has been parsed. */
interface Section {
  up: Fields;
  down: Fields;
  networks: readonly NetworkPlan[];
}

/**
 * Profiles by name. Figures: docs/shaping.md; a test compares. The delay is of one way.
 */
export const PROFILES: Readonly<Record<string, readonly (readonly [key: string, value: string])[]>> = {
  '2g': [
    ...([
      ['rate', '256kbit/up'],
      ['rate', '280kbit/down'],
      ['delay', '400ms,40ms'],
    ] as const),
    ...([['loss', '0.5%,3']] as const),
  ],
  '3g': [
    ...([
      ['rate', '768kbit/up'],
      ['rate', '1600kbit/down'],
      ['delay', '150ms,20ms'],
    ] as const),
    ...([['loss', '0.3%,3']] as const),
  ],
  '4g': [
    ...([
      ['rate', '9mbit'],
      ['delay', '85ms,10ms'],
      ['loss', '0.1%,3'],
    ] as const),
  ],
  lte: [
    ...([
      ['rate', '12mbit'],
      ['delay', '35ms,5ms'],
      ['loss', '0.05%,3'],
    ] as const),
  ],
  '5g': [
    ...([
      ['rate', '20mbit/up'],
      ['rate', '150mbit/down'],
      ['delay', '12ms,3ms'],
      ['loss', '0.02%,3'],
    ] as const),
  ],
  dsl: [
    ...([
      ['rate', '1mbit/up'],
      ['rate', '16mbit/down'],
      ['delay', '12ms,0.5ms'],
      ['queue', '96k/up'],
    ] as const),
  ],
  cable: [
    ...([
      ['rate', '20mbit/up'],
      ['rate', '200mbit/down'],
      ['delay', '7ms,1ms'],
    ] as const),
    ...([['queue', '512k/up']] as const),
  ],
  fibre: [
    ...([
      ['rate', '500mbit/up'],
      ['rate', '1gbit/down'],
      ['delay', '2ms,0.1ms'],
    ] as const),
  ],
  starlink: [
    ...([
      ['rate', '12mbit/up'],
      ['rate', '120mbit/down'],
      ['delay', '18ms,4ms,pareto'],
    ] as const),
    ...([['loss', '0.5%,12']] as const),
  ],
  geo: [
    ...([
      ['rate', '3mbit/up'],
      ['rate', '30mbit/down'],
      ['delay', '290ms,10ms'],
      ['loss', '0.2%,5'],
    ] as const),
  ],
  'lossy-wifi': [
    ...([
      ['rate', '25mbit'],
      ['delay', '3ms,4ms,pareto'],
      ['loss', '2%,4'],
      ['reorder', '0.2%,4ms'],
    ] as const),
    ...([['duplicate', '0.1%']] as const),
  ],
  lan: [
    ...([
      ['rate', '1gbit'],
      ['delay', '0.2ms'],
    ] as const),
  ],
};

const PROFILE_NAMES = Object.keys(PROFILES);

/** The value of a name that users write; undefined also for names that every object has (`constructor`). */
function ownEntry<T>(table: Readonly<Record<string, T>>, name: string): T | undefined {
  return Object.hasOwn(table, name) ? table[name] : undefined;
}

/** Parses settings of emulated lines, one after the other; later ones replace earlier ones. */
export class LineSettings {
  #seed = DEFAULT_SEED;
  readonly #rest = newSection([]);
  readonly #rules: Section[] = [];
  #section = this.#rest;

  /**
   * Set one key.
   * @throws UsageError that says what to write instead, without key and value
   */
  set(key: string, text: string): void {
    if (key === 'seed') {
      this.#seed = parseCount(text, 0, 0xffff_ffff, '7');
      return;
    }
    if (key === 'profile') {
      const profile = ownEntry(PROFILES, text);
      if (profile === undefined)
        throw new UsageError(`no such profile; write one of ${PROFILE_NAMES.join(', ')}`);
      for (const [name, value] of profile) this.set(name, value);
      return;
    }
    const [, value = text, way] = /^(.*)\/(up|down)$/.exec(text) ?? [];
    const parse = ownEntry(KEYS, key);
    const [, other] = /\/([a-z]+)$/.exec(value) ?? [];
    if (parse !== undefined && other !== undefined)
      throw new UsageError(`${quoted(`/${other}`)} is no direction; write /up or /down, or neither for both`);
    if (parse === undefined)
      throw new UsageError(
        `no such setting; write one of ${[...Object.keys(KEYS), 'seed', 'profile'].join(', ')}`,
      );
    const fields = parse(value);
    if (way !== 'down') Object.assign(this.#section.up, fields);
    if (way !== 'up') Object.assign(this.#section.down, fields);
  }

  /**
   * Begin the lines of some destinations; what is set next is theirs.
   * @param text  addresses or prefixes, separated by commas or blanks
   * @throws UsageError
   */
  to(text: string): void {
    if (this.#rules.length === MAX_RULES) throw new UsageError(`more than ${MAX_RULES} sections`);
    const networks = text
      .split(/[\s,]+/)
      .filter((word) => word !== '')
      .map(parseNetwork);
    const count = this.#rules.reduce((sum, rule) => sum + rule.networks.length, networks.length);
    if (networks.length === 0) throw new UsageError('has no address; write for example 192.0.2.0/24');
    if (count > MAX_NETWORKS) throw new UsageError(`more than ${MAX_NETWORKS} addresses in all sections`);
    this.#section = newSection(networks);
    this.#rules.push(this.#section);
  }

  /** What is set next is for all other destinations again. */
  toRest(): void {
    this.#section = this.#rest;
  }

  /**
   * Take the settings of a file.
   * @throws UsageError with the number of the line
   */
  addFile(content: string): void {
    for (const [i, raw] of content.split('\n').entries()) {
      const line = raw.replace(/#.*/, '').trim();
      if (line === '') continue;
      try {
        const [, networks] = /^\[\s*to\s+(.*?)\s*\]$/.exec(line) ?? [];
        if (networks !== undefined) {
          this.to(networks);
          continue;
        }
        const [, key, value] = /^([a-z-]+)\s*[\s=]\s*(\S.*)$/.exec(line) ?? [];
        if (key === undefined || value === undefined)
          throw new UsageError('write a setting and its value, or [to ADDRESS/LENGTH]');
        this.set(key, value);
      } catch (error) {
        if (!(error instanceof UsageError)) throw error;
        throw new UsageError(`line ${i + 1}: ${quoted(line)}: ${error.message}`);
      }
    }
    this.toRest();
  }

  plan(): ShapingPlan {
    return {
      seed: this.#seed,
      rest: finished(this.#rest),
      rules: this.#rules.map((rule) => ({ ...finished(rule), networks: rule.networks })),
    };
  }
}

/** `--impair` with KEY=VALUE. */
const SETTING = /^([a-z-]+)=(.*)$/;

/** MTU inside where no option gives it: that of most lines. */
export const LINE_MTU = 1500;

const EACH_WAY = '/up: only what leaves the container, /down: only what comes to it.';

/** The options of all programs, with their help. */
export const LINE_OPTIONS = [
  {
    name: 'rate',
    value: 'RATE[,BURST][/up|/down]',
    help: `Limit the rate, for example 100mbit, 1gbit/down, 512kbit/up. BURST: so many bytes (64k, 1m) may leave at once after a pause. ${EACH_WAY}`,
    default: 'unlimited',
  },
  {
    name: 'delay',
    value: 'TIME[,JITTER[,uniform|normal|pareto]][/up|/down]',
    help: `Delay packets, for example 50ms, 20ms,5ms, 0.5ms/down: on both ways, so a round trip takes twice as much longer. ${EACH_WAY}`,
    default: 'none',
  },
  {
    name: 'loss',
    value: 'SHARE[,PACKETS][/up|/down]',
    help: `Lose packets at random, for example 1%; 1%,5: as many, in bursts of 5 on average; ge,P,R[,LOSS-BAD[,LOSS-GOOD]]: the Gilbert-Elliott model. ${EACH_WAY}`,
    default: 'none',
  },
  {
    name: 'impair',
    value: 'PROFILE|FILE|none|KEY=VALUE',
    help: `Emulate a line by name (${PROFILE_NAMES.join(', ')}) or as FILE says; KEY=VALUE changes one setting: duplicate=1%, reorder=1%,5ms, corrupt=0.1%, max-packet=1400, queue=256k, seed=7. none: nothing now, but the API socket may change it. See docs/shaping.md.`,
  },
] as const;

/** Options about lines in the order in which they were written. */
export type LineOption = readonly [option: (typeof LINE_OPTIONS)[number]['name'], text: string];

/**
 * Parse the options --rate, --delay, --loss and --impair. Profile or file come first, wherever they stand:
 * single settings change them.
 * @param readFile  reads the file of --impair; throws Error
 * @throws UsageError that names option and value
 */
export function parseLineOptions(
  options: readonly LineOption[],
  readFile = (path: string): string => readFileSync(path, 'utf8'),
): ShapingPlan {
  const settings = new LineSettings();
  const isBase = ([option, text]: LineOption): boolean => option === 'impair' && !SETTING.test(text);
  const bases = options.filter(isBase);
  if (bases.length > 1)
    throw new UsageError(`--impair ${quoted(bases[1]![1])}: is the second profile or file; write one`);
  for (const option of [...bases, ...options.filter((o) => !isBase(o))]) {
    const [name, text] = option;
    try {
      if (name !== 'impair') settings.set(name, text);
      else if (isBase(option)) setBase(settings, text, readFile);
      else {
        const [, key = '', value = ''] = SETTING.exec(text)!;
        settings.set(key, value);
      }
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
      throw new UsageError(`--${name} ${quoted(text)}: ${error.message}`);
    }
  }
  return settings.plan();
}

function setBase(settings: LineSettings, text: string, readFile: (path: string) => string): void {
  if (text === 'none') return;
  if (ownEntry(PROFILES, text) !== undefined) {
    settings.set('profile', text);
    return;
  }
  let content: string;
  try {
    content = readFile(text);
  } catch (cause) {
    const why = strerrorOf(cause);
    throw new UsageError(
      `neither none, a profile (${PROFILE_NAMES.join(', ')}) nor a file that can be read: ${why}`,
    );
  }
  settings.addFile(content);
}

const newSection = (networks: readonly NetworkPlan[]): Section => ({
  up: { ...OPEN },
  down: { ...OPEN },
  networks,
});

const finished = ({ up, down }: Section): LinesPlan => ({
  fromGuest: withQueue(up),
  toGuest: withQueue(down),
});

function withQueue(fields: Fields): LinePlan {
  if (fields.queueBytes > 0) return fields;
  const bytes = Number.isFinite(fields.bytesPerSecond) ? (fields.bytesPerSecond * QUEUE_MS) / 1000 : 0;
  return { ...fields, queueBytes: Math.min(MAX_QUEUE_BYTES, Math.max(MIN_QUEUE_BYTES, Math.ceil(bytes))) };
}

/** Keys of settings, and what each value sets. */
const KEYS: Readonly<Record<string, (text: string) => Partial<Fields>>> = {
  rate: (text) => {
    const [rate, burst] = parts(text, 1, 2, '100mbit, or 100mbit,64k with a burst');
    return { bytesPerSecond: parseRate(rate!), burstBytes: burst === undefined ? 0 : parseSize(burst) };
  },
  delay: (text) => {
    const [delay, jitter = '0ms', distribution = 'normal'] = parts(
      text,
      1,
      3,
      '50ms, 50ms,10ms or 50ms,10ms,pareto',
    );
    if (!isDistribution(distribution))
      throw new UsageError(`${quoted(distribution)} is not one of uniform, normal, pareto`);
    return { delayMs: parseTime(delay!), jitterMs: parseTime(jitter), distribution };
  },
  loss: (text) => ({ loss: parseLoss(text) }),
  duplicate: (text) => ({ duplicate: parseShare(text) }),
  reorder: (text) => {
    const [share, time] = parts(text, 1, 2, '1%, or 1%,5ms');
    return { reorder: parseShare(share!), reorderMs: time === undefined ? OPEN.reorderMs : parseTime(time) };
  },
  corrupt: (text) => ({ corrupt: parseShare(text) }),
  'max-packet': (text) => ({
    maxPacketBytes: text === 'none' ? OPEN.maxPacketBytes : parseCount(text, 68, 65_535, '1400'),
  }),
  queue: (text) => {
    const [size, packets] = parts(text, 1, 2, '256k, or 256k,200 with a number of packets');
    return {
      queueBytes: Math.max(1, parseSize(size!)),
      queuePackets: packets === undefined ? FIFO_FRAMES : parseCount(packets, 1, FIFO_FRAMES, '200'),
    };
  },
};

const isDistribution = (text: string): text is JitterDistribution =>
  text === 'uniform' || text === 'normal' || text === 'pareto';

function parts(text: string, min: number, max: number, example: string): readonly string[] {
  const list = text.split(',').map((part) => part.trim());
  if (list.length < min || list.length > max || list.includes(''))
    throw new UsageError(`not understood; write for example ${example}`);
  return list;
}

const RATE_UNITS: Readonly<Record<string, number>> = { bit: 1, kbit: 1e3, mbit: 1e6, gbit: 1e9 };

/** @returns bytes per second */
function parseRate(text: string): number {
  if (text === 'unlimited') return Number.POSITIVE_INFINITY;
  const [, number, unit = ''] = /^([0-9]+(?:\.[0-9]+)?)([a-z]+)$/.exec(text.toLowerCase()) ?? [];
  const factor = ownEntry(RATE_UNITS, unit);
  if (number === undefined || factor === undefined)
    throw new UsageError(
      `${quoted(text)} is not a rate; write for example 500kbit, 100mbit, 1gbit or unlimited`,
    );
  const bits = Number(number) * factor;
  if (bits < MIN_RATE || bits > MAX_RATE) throw new UsageError('not within 1kbit and 100gbit');
  return bits / 8;
}

function parseSize(text: string): number {
  const [, number, unit] = /^([0-9]{1,9})([km]?)$/.exec(text.toLowerCase()) ?? [];
  if (number === undefined)
    throw new UsageError(`${quoted(text)} is not a size; write for example 64k, 1m or 3000 (bytes)`);
  const bytes = Number(number) * (unit === 'm' ? 1 << 20 : unit === 'k' ? 1024 : 1);
  if (bytes > MAX_QUEUE_BYTES) throw new UsageError(`${quoted(text)} is larger than 16m`);
  return bytes;
}

const TIME_UNITS: Readonly<Record<string, number>> = { us: 0.001, ms: 1, s: 1000 };

/** @returns milliseconds */
function parseTime(text: string): number {
  const [, number, unit = ''] = /^([0-9]+(?:\.[0-9]+)?)(us|ms|s)$/.exec(text) ?? [];
  if (number === undefined)
    throw new UsageError(`${quoted(text)} is not a time; write for example 50ms, 0.5ms, 200us or 1s`);
  const ms = Number(number) * TIME_UNITS[unit]!;
  if (ms > MAX_DELAY_MS) throw new UsageError(`${quoted(text)} is longer than 60s`);
  return ms;
}

/** @returns 0 to 1 */
function parseShare(text: string): number {
  const [, number] = /^([0-9]+(?:\.[0-9]+)?)%$/.exec(text) ?? [];
  if (number === undefined || Number(number) > 100)
    throw new UsageError(`${quoted(text)} is not a share; write for example 1% or 0.05%, at most 100%`);
  return Number(number) / 100;
}

/** SHARE; SHARE,PACKETS: in bursts of so many on average; ge,P,R[,LOSS-BAD[,LOSS-GOOD]]. */
function parseLoss(text: string): LossPlan {
  const list = parts(text, 1, 5, '1%, 1%,5 (bursts of 5) or ge,0.5%,20%');
  if (list[0] === 'ge') {
    if (list.length < 3) throw new UsageError('needs both changes of state; write for example ge,0.5%,20%');
    const [goodToBad = 0, badToGood = 0, lossBad = 1, lossGood = 0] = list.slice(1).map(parseShare);
    if (badToGood === 0) throw new UsageError('never leaves the bad state; write for example ge,0.5%,20%');
    return { goodToBad, badToGood, lossGood, lossBad };
  }
  if (list.length > 2) throw new UsageError('not understood; write for example 1%, or 1%,5');
  const share = parseShare(list[0]!);
  if (list.length === 1) return { ...OPEN.loss, lossGood: share };
  const burst = Number(list[1]);
  if (!/^[0-9]+(\.[0-9]+)?$/.test(list[1]!) || burst < 1 || burst > 10_000)
    throw new UsageError(`${quoted(list[1]!)} is not a number of packets from 1 to 10000`);
  if (share === 0) return OPEN.loss;
  const badToGood = 1 / burst;
  const goodToBad = (share * badToGood) / (1 - share);
  if (!(goodToBad <= 1))
    throw new UsageError('so many losses cannot come in such short bursts; write a longer one');
  return { goodToBad, badToGood, lossGood: 0, lossBad: 1 };
}

function parseNetwork(text: string): NetworkPlan {
  const [, host = '', length] = /^([^/]*)(?:\/(.*))?$/.exec(text) ?? [];
  const { family, address } = parseAddress(host);
  const max = family === 4 ? 32 : 128;
  return { address, prefixLen: length === undefined ? max : parseCount(length, 0, max, `${max}`) };
}

/** A plan as the API reports it. Rates are bits per second. */
export function describeLines(plan: ShapingPlan): object {
  const line = (l: LinePlan): object => ({
    ...(Number.isFinite(l.bytesPerSecond) && {
      rate: l.bytesPerSecond * 8,
      burst: l.burstBytes,
      queue: l.queueBytes,
      queue_packets: l.queuePackets,
    }),
    delay_ms: l.delayMs,
    ...(l.jitterMs > 0 && { jitter_ms: l.jitterMs, distribution: l.distribution }),
    loss: {
      good_to_bad: l.loss.goodToBad,
      bad_to_good: l.loss.badToGood,
      loss_good: l.loss.lossGood,
      loss_bad: l.loss.lossBad,
    },
    duplicate: l.duplicate,
    reorder: l.reorder,
    ...(l.reorder > 0 && { reorder_ms: l.reorderMs }),
    corrupt: l.corrupt,
    ...(l.maxPacketBytes < OPEN.maxPacketBytes && { max_packet: l.maxPacketBytes }),
  });
  const lines = (p: LinesPlan): object => ({ up: line(p.fromGuest), down: line(p.toGuest) });
  return {
    seed: plan.seed,
    ...lines(plan.rest),
    rules: plan.rules.map((rule) => ({
      to: rule.networks.map(({ address, prefixLen }) => `${address}/${prefixLen}`),
      ...lines(rule),
    })),
  };
}
