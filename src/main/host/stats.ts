// bundle: rare
/** `--stats`: the engine's counters and measured distributions as tables on standard error. */
import { build } from 'hdr-histogram-js';
import type { EngineHandle, EngineHistogram, ThreadCounters } from '../../workers/engine.ts';
import { put } from '../process/output.ts';

/** Print the tables of a running or ended engine on standard error. */
export function printStats(engine: Pick<EngineHandle, 'counters' | 'threadCounters' | 'histograms'>): void {
  put(
    2,
    `${countersText(engine.counters(), engine.threadCounters())}\n${histogramsText(engine.histograms())}`,
  );
}

const figure = (value: number): string => value.toLocaleString('en-US');

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
    figure(value),
    ...columns.map((column) => figure(column.counters[name] ?? 0)),
  ]);
  return table([['counter', 'value', ...columns.map((column) => column.thread)], ...rows], 1);
}

const PERCENTILES = [50, 90, 99, 99.9] as const;

/** The distributions as a table, one row for each: unit, count, percentiles and maximum. */
export function histogramsText(histograms: readonly EngineHistogram[]): string {
  const head = ['measured', 'unit', 'count', ...PERCENTILES.map((p) => `p${p}`), 'max'];
  return table([head, ...histograms.map(distribution)], 2);
}

function distribution(h: EngineHistogram): string[] {
  // The bounds of ring/histograms.ts: values below 2^27 in buckets an eighth wide. Two significant digits are
  // more precise than that.
  const hdr = build({
    lowestDiscernibleValue: 1,
    highestTrackableValue: 2 ** 28,
    numberOfSignificantValueDigits: 2,
  });
  for (const [value, count] of h.buckets) hdr.recordValueWithCount(value, count);
  // hdr-histogram gives the upper end of a bucket for a percentile, but the lower end of the last bucket for
  // the maximum. So limit each percentile to the maximum.
  const max = hdr.maxValue;
  const values = [...PERCENTILES.map((p) => Math.min(hdr.getValueAtPercentile(p), max)), max];
  return [h.name, h.unit, String(hdr.totalCount), ...values.map(String)];
}

/**
 * Aligned columns.
 * @param left  this many columns, from the first on, are aligned to the left; all others to the right
 */
function table(rows: readonly (readonly string[])[], left: number): string {
  const columns = rows[0]?.length ?? 0;
  const widths = Array.from({ length: columns }, (_, c) =>
    Math.max(...rows.map((row) => row[c]?.length ?? 0)),
  );
  const line = (row: readonly string[]): string =>
    row.map((cell, c) => (c < left ? cell.padEnd(widths[c]!) : cell.padStart(widths[c]!))).join('  ');
  return rows.map((row) => `${line(row)}\n`).join('');
}
