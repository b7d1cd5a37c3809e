/**
 * Plots as SVG text, by Vega-Lite and Vega, without a display or a network. The colours are those of Okabe
 * and Ito, which colour-blind readers can distinguish.
 */
import { METRICS, type Result } from '../result.ts';
import type { Figures } from './statistics.ts';
import { figure } from './tables.ts';

const WIDTH = 760;
const ROW_HEIGHT = 16;
const SPACING = 20;
const CURVE_HEIGHT = 260;
const DIRECT_COLOUR = '#999999';
const PEER_COLOURS = ['#D55E00', '#0072B2', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#F0E442'];

type Spec = Record<string, unknown>;

/** Render a plot. The libraries take half a second to load, so they are imported here. */
export async function svg(spec: Spec): Promise<string> {
  const [vega, lite] = await Promise.all([import('vega'), import('vega-lite')]);
  const compiled = lite.compile({
    $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
    background: null,
    config: { font: 'sans-serif', axis: { grid: true, labelLimit: 400 }, view: { stroke: null } },
    ...spec,
  } as unknown as Parameters<typeof lite.compile>[0]);
  const view = new vega.View(vega.parse(compiled.spec), { renderer: 'none' });
  try {
    return await view.toSVG();
  } finally {
    view.finalize();
  }
}

function colours(result: Result): Spec {
  const names = result.peers.map((peer) => peer.name);
  let next = 0;
  const range = result.peers.map((peer) =>
    peer.kind === 'direct' ? DIRECT_COLOUR : PEER_COLOURS[next++ % PEER_COLOURS.length],
  );
  return { field: 'tool', type: 'nominal', scale: { domain: names, range }, legend: null };
}

/** Bars of medians with their spread, one block per cell. null: nothing was measured. */
export function bars(figures: Figures, cells: readonly string[]): Spec | null {
  const { result } = figures;
  const first = cells[0];
  const metric = first === undefined ? undefined : figures.metrics(first)[0];
  if (metric === undefined) return null;
  const titles: string[] = [];
  const values = cells.flatMap((id) => {
    const cell = result.cells.find((each) => each.id === id);
    const title = `${cell?.text ?? id}, MTU ${cell?.mtu ?? ''}`.replaceAll('`', '');
    titles.push(title);
    return result.peers.flatMap((peer) => {
      const summary = figures.summary(id, peer.name, metric);
      if (summary !== null)
        return [{ cell: title, tool: peer.name, ...summary, text: figure(summary.median, metric) }];
      // A peer without a bar gets a text with the reason.
      return figures.of(id, peer.name).length === 0
        ? []
        : [{ cell: title, tool: peer.name, median: 0, low: 0, high: 0, text: 'failed' }];
    });
  });
  if (values.length === 0) return null;
  const y = { field: 'tool', type: 'nominal', sort: result.peers.map((peer) => peer.name), title: null };
  const { label, better } = METRICS[metric];
  return {
    data: { values },
    facet: {
      row: {
        field: 'cell',
        type: 'nominal',
        // All titles in order: without `sort`, and also with null, a facet sorts alphabetically.
        sort: titles,
        title: null,
        header: { labelAngle: 0, labelAlign: 'left', labelOrient: 'top', labelAnchor: 'start' },
      },
    },
    spacing: SPACING,
    spec: {
      width: WIDTH,
      height: { step: ROW_HEIGHT },
      layer: [
        {
          mark: { type: 'bar' },
          encoding: {
            y,
            x: {
              field: 'median',
              type: 'quantitative',
              title: `${label} (${better === 'more' ? 'more' : 'less'} is better)`,
            },
            color: colours(result),
          },
        },
        {
          mark: { type: 'rule', strokeWidth: 1.5 },
          encoding: { y, x: { field: 'low', type: 'quantitative' }, x2: { field: 'high' } },
        },
        {
          mark: { type: 'text', align: 'left', dx: 4, fontSize: 10 },
          encoding: { y, x: { field: 'high', type: 'quantitative' }, text: { field: 'text' } },
        },
      ],
    },
  };
}

const SCALING_WIDTH = WIDTH / 2 - 40;

/**
 * Throughput over the number of lanes, a line for each number of streams, a plot for each direction; dashed is
 * what direct carries. null: nothing was measured with lanes.
 */
export function scalingCurves(figures: Figures): Spec | null {
  const { result } = figures;
  const values = result.cells.flatMap((cell) => {
    const [, streams, direction] = /^scaling-(\d+)-(up|down)-/.exec(cell.id) ?? [];
    if (streams === undefined || direction === undefined) return [];
    return result.peers.flatMap(({ name, threads }) => {
      const lanes = Number(/^lanes=(\d+)$/.exec(threads ?? '')?.[1] ?? 0);
      const summary = figures.summary(cell.id, name, 'mbit');
      if (lanes === 0 || summary === null) return [];
      const gbit = { median: summary.median / 1000, low: summary.low / 1000, high: summary.high / 1000 };
      const direct = (figures.directMedian(cell.id, 'mbit') ?? Number.NaN) / 1000;
      const plot = `${direction}, MTU ${cell.mtu}`;
      return [{ plot, streams, lanes, ...gbit, direct: Number.isNaN(direct) ? null : direct }];
    });
  });
  if (values.length === 0) return null;
  const lanes = [...new Set(values.map((value) => value.lanes))];
  const x = {
    field: 'lanes',
    type: 'quantitative',
    title: 'lanes',
    axis: { values: lanes, format: 'd' },
    scale: { domain: [0, Math.max(...lanes)] },
  };
  const color = {
    field: 'streams',
    type: 'nominal',
    sort: [...new Set(values.map(({ streams }) => streams))],
    scale: { range: PEER_COLOURS },
    legend: { title: 'streams', orient: 'bottom' },
  };
  const y = (field: string): Spec => ({ field, type: 'quantitative', title: 'Gbit/s' });
  const line = { strokeWidth: 1, strokeDash: [4, 4] };
  return {
    data: { values },
    facet: { column: { field: 'plot', type: 'nominal', sort: values.map(({ plot }) => plot), title: null } },
    spec: {
      width: SCALING_WIDTH,
      height: CURVE_HEIGHT,
      layer: [
        { mark: { type: 'line', point: true }, encoding: { x, y: y('median'), color } },
        { mark: { type: 'rule' }, encoding: { x, y: y('low'), y2: { field: 'high' }, color } },
        { mark: { type: 'line', ...line }, encoding: { x, y: y('direct'), color } },
      ],
    },
  };
}

/** Ticks 1, 2, 5, 10, 20, ... around the values, so that plots beside each other have similar axes. */
function logTicks(values: readonly number[]): number[] {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const ticks: number[] = [];
  for (let decade = 10 ** Math.floor(Math.log10(low)); decade <= high; decade *= 10)
    for (const step of [1, 2, 5]) {
      const tick = step * decade;
      if (tick >= low / 2 && tick <= high * 2) ticks.push(tick);
    }
  return ticks;
}

/**
 * Latency by percentile with a logarithmic tail: each step to the right is ten times rarer. null: no
 * distribution was measured.
 */
export function percentileCurves(figures: Figures, cell: string): Spec | null {
  const { result } = figures;
  const values = result.peers.flatMap((peer) =>
    figures
      .distribution(cell, peer.name)
      .filter(([percent, us]) => percent < 100 && us > 0)
      .map(([percent, us]) => ({ tool: peer.name, rarity: 1 / (1 - percent / 100), us })),
  );
  if (values.length === 0) return null;
  return {
    data: { values },
    width: WIDTH,
    height: CURVE_HEIGHT,
    mark: { type: 'line', point: { size: 14 } },
    encoding: {
      x: {
        field: 'rarity',
        type: 'quantitative',
        scale: { type: 'log' },
        title: 'percentile',
        axis: {
          values: [1, 2, 10, 100, 1000, 10_000],
          labelExpr:
            "datum.value === 1 ? 'min' : datum.value === 2 ? '50' : datum.value === 10 ? '90' : datum.value === 100 ? '99' : datum.value === 1000 ? '99.9' : '99.99'",
        },
      },
      y: {
        field: 'us',
        type: 'quantitative',
        scale: { type: 'log' },
        title: 'µs',
        axis: { values: logTicks(values.map(({ us }) => us)), format: '~r' },
      },
      color: { ...colours(result), legend: { title: null, orient: 'bottom' } },
    },
  };
}

export function soakCurves(result: Result): Spec | null {
  if (result.soak === null || result.soak.samples.length === 0) return null;
  const curve = (field: string, title: string): Spec => ({
    width: WIDTH,
    height: CURVE_HEIGHT / 2,
    mark: { type: 'line', color: PEER_COLOURS[1] },
    encoding: {
      x: { field: 'second', type: 'quantitative', title: 's' },
      y: { field, type: 'quantitative', title },
    },
  });
  return {
    data: { values: result.soak.samples },
    vconcat: [curve('rssMib', 'RSS MiB'), curve('descriptors', 'descriptors')],
  };
}
