/** Medians, spread and ratios of the measurements of one run. Pure. */
import {
  METRIC_NAMES,
  METRICS,
  type Measurement,
  type Metric,
  type PeerInfo,
  type Result,
} from '../result.ts';
import { type Unit, unitFor } from './units.ts';

export function median(values: readonly number[]): number | null {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle];
  if (upper === undefined) return null;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? upper) + upper) / 2;
}

/** One figure of a measurement. p95 stands only in the distribution. */
export const valueIn = (measurement: Measurement, metric: Metric): number | undefined =>
  measurement.values[metric] ??
  (metric === 'p95Us' ? measurement.distribution?.find(([percent]) => percent === 95)?.[1] : undefined);

export interface Summary {
  readonly median: number;
  readonly low: number;
  readonly high: number;
  readonly rounds: number;
}

export function summarize(values: readonly number[]): Summary | null {
  const middle = median(values);
  if (middle === null) return null;
  return { median: middle, low: Math.min(...values), high: Math.max(...values), rounds: values.length };
}

/** value / base; null when one is missing or the base is 0. */
export const ratio = (value: number | null, base: number | null): number | null =>
  value === null || base === null || base === 0 ? null : value / base;

/** Look-ups in one result. A cell is named by its whole id, MTU included. */
export class Figures {
  readonly result: Result;
  readonly #byCell = new Map<string, Measurement[]>();

  constructor(result: Result) {
    this.result = result;
    for (const measurement of result.measurements) {
      const of = `${measurement.cell} ${measurement.peer}`;
      const there = this.#byCell.get(of);
      if (there) there.push(measurement);
      else this.#byCell.set(of, [measurement]);
    }
  }

  of(cell: string, peer: string): readonly Measurement[] {
    return this.#byCell.get(`${cell} ${peer}`) ?? [];
  }

  summary(cell: string, peer: string, metric: Metric): Summary | null {
    return summarize(
      this.of(cell, peer).flatMap((m) => {
        const value = valueIn(m, metric);
        return value === undefined ? [] : [value];
      }),
    );
  }

  median(cell: string, peer: string, metric: Metric): number | null {
    return this.summary(cell, peer, metric)?.median ?? null;
  }

  /** Why a peer has no figure in a cell: the error of its first failed round. null: it has not failed. */
  error(cell: string, peer: string): string | null {
    return this.of(cell, peer).find(({ error }) => error !== null)?.error ?? null;
  }

  /** Number of rounds that ended with an error and without this metric. */
  failedRounds(cell: string, peer: string, metric: Metric): number {
    return this.of(cell, peer).filter((m) => m.error !== null && m.values[metric] === undefined).length;
  }

  /** Whether most rounds failed: then the median of the others is not representative. */
  failedMostly(cell: string, peer: string, metric: Metric): boolean {
    const failed = this.failedRounds(cell, peer, metric);
    return failed > 0 && failed * 2 >= this.of(cell, peer).length;
  }

  get direct(): PeerInfo | null {
    return this.result.peers.find((peer) => peer.kind === 'direct') ?? null;
  }

  /** The bucatini whose targets are checked: the one with default options, else the first. */
  get ours(): PeerInfo | null {
    const { peers } = this.result;
    return (
      peers.find((peer) => peer.name === 'bucatini') ?? peers.find((peer) => peer.kind === 'bucatini') ?? null
    );
  }

  get stock(): readonly PeerInfo[] {
    return this.result.peers.filter((peer) => peer.kind === 'pasta' || peer.kind === 'slirp4netns');
  }

  directMedian(cell: string, metric: Metric): number | null {
    return this.direct === null ? null : this.median(cell, this.direct.name, metric);
  }

  /**
   * The best stock tool in a cell, and its median.
   * @param leastMbit  tools that carried less are left out; 0: none are
   */
  best(
    cell: string,
    metric: Metric,
    leastMbit = 0,
  ): { readonly peer: string; readonly median: number } | null {
    let best: { peer: string; median: number } | null = null;
    for (const { name } of this.stock) {
      if (leastMbit > 0 && (this.median(cell, name, 'mbit') ?? 0) < leastMbit) continue;
      const value = this.median(cell, name, metric);
      if (value === null) continue;
      const isBetter =
        best === null || (METRICS[metric].better === 'more' ? value > best.median : value < best.median);
      if (isBetter) best = { peer: name, median: value };
    }
    return best;
  }

  /** Metrics that occur in a cell, in the order of METRICS: the first is the main one. */
  metrics(cell: string): Metric[] {
    const there = this.result.measurements.filter((m) => m.cell === cell);
    return METRIC_NAMES.filter((metric) => there.some((m) => valueIn(m, metric) !== undefined));
  }

  /** The unit in which a metric of several cells is shown. */
  unit(cells: readonly string[], metric: Metric): Unit {
    const highest = cells.map((cell) =>
      Math.max(...this.result.peers.map(({ name }) => this.median(cell, name, metric) ?? 0)),
    );
    return unitFor(
      metric,
      highest.filter((value) => value > 0),
    );
  }

  hasDistribution(cell: string): boolean {
    return this.result.measurements.some((m) => m.cell === cell && (m.distribution?.length ?? 0) > 0);
  }

  /** For each percentile the median over all rounds. */
  distribution(cell: string, peer: string): [percent: number, us: number][] {
    const curves = this.of(cell, peer).flatMap((m) => (m.distribution ? [m.distribution] : []));
    const percents = [...new Set(curves.flatMap((curve) => curve.map(([percent]) => percent)))];
    return percents
      .sort((a, b) => a - b)
      .flatMap((percent) => {
        const middle = median(
          curves.flatMap((curve) => curve.filter(([p]) => p === percent).map(([, us]) => us)),
        );
        return middle === null ? [] : [[percent, middle] as [number, number]];
      });
  }
}
