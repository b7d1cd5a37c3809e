// bundle: rare
/** `--stats`: the engine's counters and measured distributions as tables on standard error. */
import { build } from 'hdr-histogram-js';
import type { EngineHandle, EngineHistogram, ThreadCounters } from '../../workers/engine.ts';
import { tableText } from '../cli/table.ts';
import { bytesText, durationText, figureText, rateText } from '../cli/units.ts';
import { put } from '../process/output.ts';

type Counters = Readonly<Record<string, number>>;

/** What the tables need of an engine. */
export type StatsEngine = Pick<EngineHandle, 'counters' | 'threadCounters' | 'histograms'>;

/**
 * Print the tables of a running or ended engine on standard error.
 * @param elapsedMs  since it has carried packets
 */
export function printStats(engine: StatsEngine, elapsedMs: number): void {
  const counters = engine.counters();
  const tables = [countersText(counters, engine.threadCounters()), histogramsText(engine.histograms())];
  put(2, [throughputText(counters, elapsedMs), ...tables].join('\n'));
}

/** The same as one JSON document in a line (--stats-json). */
export function statsJson(engine: StatsEngine, elapsedMs: number, program: string, version: string): string {
  const counters = engine.counters();
  const { fromGuest, toGuest } = carriedBytes(counters);
  const rate = (bytes: number): number => (elapsedMs > 0 ? Math.round((bytes * 8000) / elapsedMs) : 0);
  return `${JSON.stringify({
    ...{ program, version, timeMs: Date.now(), elapsedMs: Math.round(elapsedMs) },
    fromGuest: { bytes: fromGuest, bitsPerSecond: rate(fromGuest) },
    toGuest: { bytes: toGuest, bitsPerSecond: rate(toGuest) },
    ...{ counters, threads: engine.threadCounters(), histograms: engine.histograms() },
  })}\n`;
}

/** Bytes of frames through the TAP. */
export const carriedBytes = (
  counters: Counters,
): { readonly fromGuest: number; readonly toGuest: number } => ({
  fromGuest: counters.bytesFromGuest ?? 0,
  toGuest: counters.bytesToGuest ?? 0,
});

/**
 * Elapsed time, bytes and mean rates in lines.
 * @param elapsedMs  0: not known
 */
export function throughputText(counters: Counters, elapsedMs: number): string {
  const { fromGuest, toGuest } = carriedBytes(counters);
  const spliced = counters.spliceBytes ?? 0;
  const row = (name: string, bytes: number): string[] => [
    name,
    bytesText(bytes),
    elapsedMs > 0 ? rateText((bytes * 1000) / elapsedMs) : '',
  ];
  const rows = [
    ['elapsed', durationText(elapsedMs), ''],
    row('from guest', fromGuest),
    row('to guest', toGuest),
    ...(spliced > 0 ? [row('past the TAP', spliced)] : []),
  ];
  return tableText(rows, 'lr');
}

/**
 * A line for each interval of --stats=SECONDS.
 * @param before  counters at the beginning of the interval
 * @param seconds  its length
 */
export function intervalLine(
  elapsedMs: number,
  counters: Counters,
  before: Counters,
  seconds: number,
): string {
  const rates = perSecond(counters, before, seconds);
  const { fromGuest, toGuest } = carriedBytes(rates);
  const open = (counters.tcpOpened ?? 0) + (counters.tcpAccepted ?? 0) - (counters.tcpClosed ?? 0);
  const drops = sumOf(counters, 'drop.') - sumOf(before, 'drop.');
  const again = (counters.tcpRetransmits ?? 0) - (before.tcpRetransmits ?? 0);
  return [
    durationText(elapsedMs),
    `from guest ${rateText(fromGuest)}`,
    `to guest ${rateText(toGuest)}`,
    `TCP connections ${open}`,
    `drops ${drops}`,
    `retransmits to guest ${again}\n`,
  ].join('  ');
}

/** Sum of all counters whose names begin with `prefix`. */
export const sumOf = (counters: Counters, prefix: string): number =>
  Object.entries(counters).reduce((sum, [name, value]) => sum + (name.startsWith(prefix) ? value : 0), 0);

/** Changes of all counters per second. A counter that is lower than before belongs to another engine: 0. */
export const perSecond = (counters: Counters, before: Counters, seconds: number): Record<string, number> =>
  Object.fromEntries(
    Object.entries(counters).map(([name, value]) => [
      name,
      seconds > 0 ? Math.max(0, value - (before[name] ?? 0)) / seconds : 0,
    ]),
  );

/**
 * The counters as a table.
 * @param counters  sums over all threads
 * @param threads   one column for each, if there is more than one
 */
export function countersText(
  counters: Readonly<Record<string, number>>,
  threads: readonly ThreadCounters[] = [],
): string {
  const columns = threads.length > 1 ? threads : [];
  const rows = Object.entries(counters).map(([name, value]) => [
    name,
    figureText(value),
    ...columns.map((column) => figureText(column.counters[name] ?? 0)),
  ]);
  return tableText([['counter', 'value', ...columns.map((column) => column.thread)], ...rows], 'lr');
}

const PERCENTILES = [50, 90, 95, 99, 99.9] as const;

/** The distributions as a table, one row for each: unit, count, percentiles and maximum. */
export function histogramsText(histograms: readonly EngineHistogram[]): string {
  const head = ['measured', 'unit', 'count', 'min', 'mean', ...PERCENTILES.map((p) => `p${p}`), 'max'];
  return tableText([head, ...histograms.map(distribution)], 'llr');
}

function distribution(h: EngineHistogram): string[] {
  // The bounds of ring/histograms.ts: values below 2^27 in buckets an eighth wide. Two significant digits are
  // more precise than that.
  const hdr = build({
    bitBucketSize: 64, // an engine that has run for days counts more than 2^32 in a bucket
    lowestDiscernibleValue: 1,
    highestTrackableValue: 2 ** 28,
    numberOfSignificantValueDigits: 2,
  });
  for (const [value, count] of h.buckets) hdr.recordValueWithCount(value, count);
  // hdr-histogram gives the upper end of a bucket for a percentile, but the lower end of the last bucket for
  // the maximum. So limit each percentile to the maximum.
  const max = hdr.maxValue;
  const values = [...PERCENTILES.map((p) => Math.min(hdr.getValueAtPercentile(p), max)), max];
  const min = h.buckets[0]?.[0] ?? 0;
  const mean = Math.min(Math.round(hdr.mean), max);
  return [h.name, h.unit, String(hdr.totalCount), String(min), String(mean), ...values.map(String)];
}
