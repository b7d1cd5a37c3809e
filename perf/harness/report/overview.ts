/**
 * The most important figures for a reader of the README, as rows for docs/comparison.md and as the chart
 * docs/comparison.svg: throughput, connections, small requests, start; good and bad results. Pure.
 */
import { METRICS, type PeerInfo, type Result } from '../result.ts';
import { Figures } from './statistics.ts';
import { figure, type Table } from './tables.ts';

/** Cells of harness/matrix.ts in the order of display, with a self-contained title. */
const CELLS: readonly (readonly [cell: string, title: string])[] = [
  ['tcp-1-up-65520', 'TCP upload, one stream'],
  ['tcp-1-down-65520', 'TCP download, one stream'],
  ['tcp-1-up-1500', 'TCP upload, MTU 1500'],
  ['tcp-1-down-1500', 'TCP download, MTU 1500'],
  ['flows-1000-65520', 'TCP upload beside 1,000 idle connections'],
  ['connect-out-65520', 'New connections, one request each'],
  ['rr-64-65520', 'Requests of 64 bytes, one after the other'],
  ['start-65520', 'Start and end of a network with `true` in it'],
];

interface Bar {
  readonly tool: string;
  readonly value: number | null;
  readonly text: string;
}

interface Group {
  readonly title: string;
  /** Unit, with "less is better" where that is so. */
  readonly unit: string;
  readonly bars: readonly Bar[];
}

/** bucatini with default options, then the newest build of each stock tool, which is the one named last. */
function toolsOf(figures: Figures): PeerInfo[] {
  const newest = (kind: PeerInfo['kind']) => figures.stock.findLast((peer) => peer.kind === kind);
  return [figures.ours, newest('pasta'), newest('slirp4netns')].flatMap((peer) => peer ?? []);
}

/** Those of CELLS that were measured. */
function groupsOf(figures: Figures): Group[] {
  return CELLS.flatMap(([cell, title]) => {
    const metric = figures.metrics(cell)[0];
    if (metric === undefined) return [];
    const { label, better } = METRICS[metric];
    const bars = toolsOf(figures).map(({ kind, name }) => {
      const value = figures.median(cell, name, metric);
      return { tool: kind, value, text: value === null ? 'failed' : figure(value, metric) };
    });
    return [{ title, unit: better === 'more' ? label : `${label}, less is better`, bars }];
  });
}

/** The figures as a table. null: none of CELLS was measured. */
export function overviewTable(result: Result): Table | null {
  const figures = new Figures(result);
  const groups = groupsOf(figures);
  if (groups.length === 0) return null;
  return {
    head: ['what', 'unit', ...toolsOf(figures).map(({ kind }) => kind)],
    words: 2,
    rows: groups.map(({ title, unit, bars }) => [title, unit, ...bars.map(({ text }) => text)]),
  };
}

const WIDTH = 860;
const COLUMNS = 2;
const GAP = 24;
const PAD = 16;
const TITLE_HEIGHT = 20;
const BAR_HEIGHT = 16;
const GROUP_HEIGHT = TITLE_HEIGHT + 3 * BAR_HEIGHT + 18;
const NAME_WIDTH = 82;
const FIGURE_WIDTH = 52;
/** Colours of Okabe and Ito, as in charts.ts, which colour-blind readers can distinguish. */
const COLOURS: Readonly<Record<string, string>> = {
  bucatini: '#D55E00',
  pasta: '#0072B2',
  slirp4netns: '#009E73',
};

const escaped = (text: string): string =>
  text.replaceAll('`', '').replaceAll('&', '&amp;').replaceAll('<', '&lt;');

function groupSvg({ title, unit, bars }: Group, x: number, y: number, width: number): string {
  const room = width - NAME_WIDTH - FIGURE_WIDTH;
  const most = Math.max(...bars.map(({ value }) => value ?? 0), Number.MIN_VALUE);
  const rows = bars.map(({ tool, value, text }, i) => {
    const barY = y + TITLE_HEIGHT + i * BAR_HEIGHT;
    const length = Math.max(((value ?? 0) / most) * room, 1).toFixed(1);
    const base = barY + BAR_HEIGHT - 5;
    return [
      `<text x="${x + NAME_WIDTH - 6}" y="${base}" text-anchor="end">${tool}</text>`,
      `<rect x="${x + NAME_WIDTH}" y="${barY + 1}" width="${length}" height="${BAR_HEIGHT - 3}" fill="${COLOURS[tool]}"/>`,
      `<text x="${(x + NAME_WIDTH + Number(length) + 4).toFixed(1)}" y="${base}">${text}</text>`,
    ].join('');
  });
  const head = `<text x="${x}" y="${y + 12}"><tspan font-weight="bold">${escaped(title)}</tspan> (${escaped(unit)})</text>`;
  return [head, ...rows].join('\n');
}

/**
 * The chart, with a white background so that it is readable on a dark page; each group of bars has its own
 * scale.
 */
export function overviewSvg(result: Result): string {
  const groups = groupsOf(new Figures(result));
  const width = (WIDTH - 2 * PAD - (COLUMNS - 1) * GAP) / COLUMNS;
  const height = 2 * PAD + Math.ceil(groups.length / COLUMNS) * GROUP_HEIGHT;
  const drawn = groups.map((group, i) =>
    groupSvg(group, PAD + (i % COLUMNS) * (width + GAP), PAD + Math.floor(i / COLUMNS) * GROUP_HEIGHT, width),
  );
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="11">`,
    `<title>bucatini, pasta and slirp4netns, measured on ${escaped(result.date)}</title>`,
    `<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>`,
    ...drawn,
    '</svg>',
    '',
  ].join('\n');
}
