/**
 * Plots with lines: percentiles, scaling, soak. An area without margins, in percentages of its size, so
 * that a page can give it any width and its texts keep their size. Pure.
 */
import type { Result } from '../result.ts';
import { escapeXml } from './markup.ts';
import type { Figures } from './statistics.ts';
import { timesText } from './units.ts';

/** Of an axis; `at` is a share of its length, from 0 to 1. */
export interface Tick {
  readonly at: number;
  readonly text: string;
}

export interface Line {
  readonly name: string;
  /** CSS classes: `p0` ... are the peers' colours, `s0` ... others. */
  readonly classes: string;
  readonly dashes: string;
  readonly points: readonly { readonly x: number; readonly y: number; readonly detail: string }[];
}

export interface Plot {
  readonly title: string;
  readonly x: readonly Tick[];
  readonly y: readonly Tick[];
  readonly xTitle: string;
  readonly yTitle: string;
  readonly lines: readonly Line[];
}

const percent = (share: number): string => `${(100 * share).toFixed(2)}%`;
/** The area in the coordinates of lines, which are stretched to its size. */
const SPAN = 1000;

/** The content of the area's <svg>: grid, texts of the axes, lines, points with a text each. */
export function plotSvg(plot: Plot): string {
  const grid = [
    ...plot.x.map(
      ({ at, text }) =>
        `<line class="grid" x1="${percent(at)}" x2="${percent(at)}" y1="0" y2="100%"/>` +
        `<text x="${percent(at)}" y="100%" dy="16" text-anchor="middle">${escapeXml(text)}</text>`,
    ),
    ...plot.y.map(
      ({ at, text }) =>
        `<line class="grid" x1="0" x2="100%" y1="${percent(1 - at)}" y2="${percent(1 - at)}"/>` +
        `<text x="0" y="${percent(1 - at)}" dx="-6" dy="4" text-anchor="end">${escapeXml(text)}</text>`,
    ),
    `<text x="100%" y="100%" dy="32" text-anchor="end" class="axis">${escapeXml(plot.xTitle)}</text>`,
    `<text x="0" y="0" dx="-40" dy="-10" class="axis">${escapeXml(plot.yTitle)}</text>`,
  ];
  const place = ({ x, y }: { x: number; y: number }): string =>
    `${(x * SPAN).toFixed(1)},${((1 - y) * SPAN).toFixed(1)}`;
  const lines = plot.lines.map(
    ({ classes, dashes, points }) =>
      `<polyline class="line ${classes}" vector-effect="non-scaling-stroke"${dashes === '' ? '' : ` stroke-dasharray="${dashes}"`} points="${points.map(place).join(' ')}"/>`,
  );
  const dots = plot.lines.flatMap(({ name, classes, points }) =>
    points.map(
      ({ x, y, detail }) =>
        `<circle class="dot ${classes}" cx="${percent(x)}" cy="${percent(1 - y)}" r="3"><title>${escapeXml(`${name}: ${detail}`)}</title></circle>`,
    ),
  );
  return [
    ...grid,
    `<svg aria-hidden="true" width="100%" height="100%" viewBox="0 0 ${SPAN} ${SPAN}" preserveAspectRatio="none" overflow="visible">${lines.join('')}</svg>`,
    ...dots,
  ].join('\n');
}

/** Ticks 1, 2, 5, 10, 20 ... around the values, and the place of a value on that axis. */
function logAxis(values: readonly number[]): { ticks: Tick[]; place: (value: number) => number } {
  const [lowest, highest] = [Math.min(...values), Math.max(...values)];
  const steps: number[] = [];
  for (let decade = 10 ** Math.floor(Math.log10(lowest)); decade <= highest * 10; decade *= 10)
    for (const step of [1, 2, 5]) steps.push(step * decade);
  const from = steps.findLast((step) => step <= lowest) ?? lowest;
  const to = steps.find((step) => step >= highest) ?? highest;
  const length = Math.log(to / from) || 1;
  const place = (value: number): number => Math.log(value / from) / length;
  const shown = steps.filter((step) => step >= from && step <= to);
  // With more than two decades only the powers of ten.
  const few = shown.length > 8 ? shown.filter((step) => Math.log10(step) % 1 === 0) : shown;
  return { ticks: few.map((step) => ({ at: place(step), text: step.toLocaleString('en-US') })), place };
}

const LINEAR_TICKS = 5;
/** Ticks from 0 to a round number above the highest value. */
function linearAxis(highest: number): { ticks: Tick[]; place: (value: number) => number } {
  const rough = (highest || 1) / LINEAR_TICKS;
  const decade = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 5, 10].find((each) => each * decade >= rough) ?? 10) * decade;
  const count = Math.ceil((highest || 1) / step);
  const ticks = Array.from({ length: count + 1 }, (_, i) => ({
    at: i / count,
    text: Number((i * step).toPrecision(6)).toLocaleString('en-US'),
  }));
  return { ticks, place: (value) => value / (count * step) };
}

/** How many of the requests are slower: the axis of percentiles, on which each step is ten times rarer. */
const RARITIES = [
  [2, '50'],
  [10, '90'],
  [100, '99'],
  [1000, '99.9'],
  [10_000, '99.99'],
] as const;

/** Latency by percentile. null: no distribution was measured. */
export function percentilePlot(
  figures: Figures,
  cell: string,
  title: string,
  dashes: readonly string[] = [],
): Plot | null {
  const curves = figures.result.peers.flatMap(({ name }, i) => {
    const points = figures
      .distribution(cell, name)
      .filter(([percentile, us]) => percentile >= 50 && percentile < 100 && us > 0)
      .map(([percentile, us]) => ({ percentile, us, rarity: 1 / (1 - percentile / 100) }));
    return points.length === 0 ? [] : [{ name, classes: `p${i}`, dashes: dashes[i] ?? '', points }];
  });
  if (curves.length === 0) return null;
  const all = curves.flatMap(({ points }) => points);
  const [median] = RARITIES[0];
  const rarest = Math.max(...all.map(({ rarity }) => rarity), 10);
  const place = (rarity: number): number => Math.log(rarity / median) / Math.log(rarest / median);
  const y = logAxis(all.map(({ us }) => us));
  return {
    title,
    x: RARITIES.filter(([rarity]) => rarity <= rarest * 1.01).map(([rarity, text]) => ({
      at: place(rarity),
      text,
    })),
    y: y.ticks,
    xTitle: 'percentile',
    yTitle: 'µs',
    lines: curves.map((curve) => ({
      ...curve,
      points: curve.points.map(({ percentile, us, rarity }) => ({
        x: place(rarity),
        y: y.place(us),
        detail: `p${percentile} ${us.toFixed(1)} µs`,
      })),
    })),
  };
}

/**
 * Throughput over the number of lanes: a plot for each direction and MTU, a line for each number of streams,
 * dashed what direct carries.
 */
export function scalingPlots(figures: Figures): Plot[] {
  const { result } = figures;
  const values = result.cells.flatMap((cell) => {
    const [, streams, direction] = /^scaling-(\d+)-(up|down)-/.exec(cell.id) ?? [];
    if (streams === undefined || direction === undefined) return [];
    return result.peers.flatMap(({ name, threads }) => {
      const lanes = Number(/^lanes=(\d+)$/.exec(threads ?? '')?.[1] ?? 0);
      const gbit = (figures.median(cell.id, name, 'mbit') ?? Number.NaN) / 1000;
      const direct = (figures.directMedian(cell.id, 'mbit') ?? Number.NaN) / 1000;
      if (lanes === 0 || Number.isNaN(gbit)) return [];
      return [{ plot: `TCP ${direction}, MTU ${cell.mtu}`, streams: Number(streams), lanes, gbit, direct }];
    });
  });
  if (values.length === 0) return [];
  const most = Math.max(...values.map(({ lanes }) => lanes));
  const y = linearAxis(Math.max(...values.flatMap(({ gbit, direct }) => [gbit, direct || 0])));
  const counts = [...new Set(values.map(({ streams }) => streams))].sort((a, b) => a - b);
  return [...new Set(values.map(({ plot }) => plot))].map((title) => {
    const own = values.filter(({ plot }) => plot === title);
    const line = (streams: number, index: number): Line[] => {
      const at = own.filter((value) => value.streams === streams).sort((a, b) => a.lanes - b.lanes);
      if (at.length === 0) return [];
      const name = `${streams} stream${streams === 1 ? '' : 's'}`;
      const points = (field: 'gbit' | 'direct') =>
        at.map((value) => ({
          x: value.lanes / most,
          y: y.place(value[field]),
          detail: `${value.lanes} lane${value.lanes === 1 ? '' : 's'}, ${value[field].toFixed(2)} Gbit/s`,
        }));
      const carried = { name, classes: `s${index}`, dashes: '', points: points('gbit') };
      if (at.some(({ direct }) => Number.isNaN(direct))) return [carried];
      return [carried, { ...carried, name: `direct, ${name}`, dashes: '4 4', points: points('direct') }];
    };
    return {
      title,
      x: [...new Set(own.map(({ lanes }) => lanes))].map((lanes) => ({ at: lanes / most, text: `${lanes}` })),
      y: y.ticks,
      xTitle: 'lanes',
      yTitle: 'Gbit/s',
      lines: counts.flatMap(line),
    };
  });
}

/** Memory and descriptors over the time of a soak. */
export function soakPlots({ soak }: Result): Plot[] {
  if (soak === null || soak.samples.length === 0) return [];
  const x = linearAxis(Math.max(...soak.samples.map(({ second }) => second)) / 60);
  const plot = (field: 'rssMib' | 'descriptors', title: string, unit: string): Plot => {
    const y = linearAxis(Math.max(...soak.samples.map((sample) => sample[field])));
    const points = soak.samples.map((sample) => ({
      x: x.place(sample.second / 60),
      y: y.place(sample[field]),
      detail: `${timesText(sample[field])} ${unit} after ${sample.second} s`,
    }));
    const lines = [{ name: soak.peer, classes: 's1', dashes: '', points }];
    return { title, x: x.ticks, y: y.ticks, xTitle: 'minutes', yTitle: unit, lines };
  };
  return [plot('rssMib', 'Resident memory', 'MiB'), plot('descriptors', 'Open descriptors', 'descriptors')];
}
