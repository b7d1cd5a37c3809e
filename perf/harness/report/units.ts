/** Units and texts of figures. Pure. */
import { METRICS, type Metric } from '../result.ts';

export interface Unit {
  readonly label: string;
  /** Text of a value in the metric's own unit (throughput: Mbit/s), without the label. */
  readonly text: (value: number) => string;
}

/** Throughput is in Gbit/s where every cell has a peer that carried at least this, in Mbit/s. */
const GBIT_FROM = 1500;
const SEPARATED_FROM = 10_000;

/** With commas from 10,000 on. */
const rounded = (value: number, digits: number): string =>
  Math.abs(value) >= SEPARATED_FROM
    ? value.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits })
    : value.toFixed(digits);

/** About three significant digits, at most three after the point. */
const significant = (value: number): string => {
  const size = Math.abs(value);
  return rounded(value, size >= 100 || size === 0 ? 0 : size >= 10 ? 1 : size >= 0.1 ? 2 : 3);
};

function plainText(value: number, metric: Metric): string {
  const { digits } = METRICS[metric];
  // These measurements have at most three significant digits.
  return rounded(value, digits === 0 && !Number.isInteger(value) && Math.abs(value) < 10 ? 2 : digits);
}

export const figure = (value: number | null, metric: Metric): string =>
  value === null ? '-' : plainText(value, metric);

/**
 * The unit for figures that are compared with each other.
 * @param highest  the highest value of each cell
 */
export function unitFor(metric: Metric, highest: readonly number[]): Unit {
  if (metric === 'mbit' && highest.length > 0 && Math.min(...highest) >= GBIT_FROM)
    return { label: 'Gbit/s', text: (mbit) => significant(mbit / 1000) };
  return { label: METRICS[metric].label, text: (value) => plainText(value, metric) };
}

/** "6.1", "0.36", "137": a ratio with two or three digits. */
export const timesText = (ratio: number): string =>
  ratio >= 100 ? rounded(ratio, 0) : ratio >= 10 ? ratio.toFixed(0) : ratio.toFixed(ratio >= 1.95 ? 1 : 2);
