/**
 * Charts as SVG files for documentation. They have a ground of their own and follow the reader's light or
 * dark scheme, whatever the page around them. Pure.
 */
import type { Chart } from './chapters.ts';
import { type Plot, plotSvg } from './curves.ts';
import { escapeXml } from './markup.ts';
import { type Colour, LINE_COLOURS } from './palette.ts';

export interface SvgBar {
  readonly name: string;
  readonly classes: string;
  readonly value: number | null;
  readonly low: number;
  readonly high: number;
  readonly text: string;
}

export interface SvgChart {
  /** '': none. */
  readonly title: string;
  readonly groups: readonly {
    readonly title: string;
    readonly unit: string;
    readonly bars: readonly SvgBar[];
  }[];
  readonly hasOwnScales: boolean;
}

const WIDTH = 860;
const PAD = 16;
const COLUMNS = 2;
const GAP = 28;
const COLUMN_WIDTH = (WIDTH - 2 * PAD - GAP) / COLUMNS;
const HEAD_HEIGHT = 30;
const TITLE_HEIGHT = 20;
const BAR_HEIGHT = 17;
const GROUP_GAP = 14;
/** Widths of a character, about: fonts differ. */
const LETTER = 6.6;

const fixed = (n: number): string => Number(n.toFixed(1)).toString();

function groupSvg(
  group: SvgChart['groups'][number],
  most: number,
  names: number,
  [left, top]: readonly [x: number, y: number],
): string {
  const figures = LETTER * Math.max(...group.bars.map(({ text }) => text.length)) + 8;
  const room = COLUMN_WIDTH - names - figures;
  const rows = group.bars.map(({ name, classes, value, low, high, text }, i) => {
    const y = top + TITLE_HEIGHT + i * BAR_HEIGHT;
    const x = (v: number): number => left + names + (most > 0 ? (v / most) * room : 0);
    const length = Math.max(x(value ?? 0) - x(0), 1);
    const base = fixed(y + BAR_HEIGHT - 5);
    return [
      `<text x="${fixed(left + names - 6)}" y="${base}" text-anchor="end" class="dim">${escapeXml(name)}</text>`,
      `<rect class="${classes}" x="${fixed(x(0))}" y="${fixed(y + 1)}" width="${fixed(length)}" height="13"/>`,
      low < high
        ? `<line class="spread" x1="${fixed(x(low))}" x2="${fixed(x(high))}" y1="${fixed(y + 7.5)}" y2="${fixed(y + 7.5)}"/>`
        : '',
      `<text x="${fixed(Math.max(x(high), x(0) + length) + 5)}" y="${base}">${escapeXml(text)}</text>`,
    ].join('');
  });
  const unit = group.unit === '' ? '' : ` <tspan class="dim">${escapeXml(group.unit)}</tspan>`;
  const head = `<text x="${fixed(left)}" y="${fixed(top + 13)}"><tspan class="title">${escapeXml(group.title.replaceAll('`', ''))}</tspan>${unit}</text>`;
  return [head, ...rows].join('\n');
}

/** @returns the markup, and the height it takes from `top` on */
function chartSvg(chart: SvgChart, top: number): { readonly body: string; readonly height: number } {
  const parts: string[] = [];
  let y = top;
  if (chart.title !== '') {
    parts.push(`<text x="${PAD}" y="${fixed(y + 16)}" class="head">${escapeXml(chart.title)}</text>`);
    y += HEAD_HEIGHT;
  }
  const highest = (bars: readonly SvgBar[]): number => Math.max(...bars.map(({ high }) => high), 0);
  const shared = Math.max(...chart.groups.map(({ bars }) => highest(bars)));
  const names =
    10 + LETTER * Math.max(...chart.groups.flatMap(({ bars }) => bars.map(({ name }) => name.length)));
  for (let i = 0; i < chart.groups.length; i += COLUMNS) {
    const row = chart.groups.slice(i, i + COLUMNS);
    row.forEach((group, c) => {
      const most = chart.hasOwnScales ? highest(group.bars) : shared;
      parts.push(groupSvg(group, most, names, [PAD + c * (COLUMN_WIDTH + GAP), y]));
    });
    y += TITLE_HEIGHT + BAR_HEIGHT * Math.max(...row.map(({ bars }) => bars.length)) + GROUP_GAP;
  }
  return { body: parts.join('\n'), height: y - top };
}

const INK =
  'text { fill: #1d1d1f; } .dim, .axis { fill: #5c6066; } .ground { fill: #ffffff; } .grid { stroke: #d9dbde; } .spread { stroke: #1d1d1f; }';
const DARK_INK =
  'text { fill: #e6e7e9; } .dim, .axis { fill: #a2a7ae; } .ground { fill: #17181a; } .grid { stroke: #3a3d42; } .spread { stroke: #e6e7e9; }';

function frame(title: string, colours: readonly Colour[], height: number, body: string): string {
  const classes = [
    ...colours.map((colour, i) => ({ name: `p${i}`, colour })),
    ...LINE_COLOURS.map((colour, i) => ({ name: `s${i}`, colour })),
  ];
  const rules = (scheme: 'light' | 'dark'): string =>
    classes
      .map(
        ({ name, colour }) =>
          `.${name} { fill: ${colour[scheme]}; } .line.${name} { stroke: ${colour[scheme]}; }`,
      )
      .join(' ');
  const own = classes.filter(({ name }) => body.includes(`${name}"`)).length > 0;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" font-family="system-ui, sans-serif" font-size="12">`,
    `<title>${escapeXml(title)}</title>`,
    '<style>',
    `${INK} ${own ? rules('light') : ''}`,
    '.title { font-weight: 600; } .head { font-weight: 600; font-size: 14px; } .spread { stroke-width: 1.5; } .line.line { fill: none; stroke-width: 2; }',
    `@media (prefers-color-scheme: dark) { ${DARK_INK} ${own ? rules('dark') : ''} }`,
    '</style>',
    `<rect class="ground" width="${WIDTH}" height="${height}"/>`,
    body,
    '</svg>',
    '',
  ].join('\n');
}

/** Charts with bars, one below the other. */
export function svgFile(title: string, colours: readonly Colour[], charts: readonly SvgChart[]): string {
  const bodies: string[] = [];
  let y = PAD - 4;
  for (const chart of charts) {
    const { body, height } = chartSvg(chart, y);
    bodies.push(body);
    y += height + 8;
  }
  return frame(title, colours, Math.ceil(y), bodies.join('\n'));
}

/** A chart of the HTML report for svgFile(). @param peers  their names, in the order of the colours */
export const chartForSvg = (chart: Chart, peers: readonly string[]): SvgChart => ({
  title: `${chart.title} (${chart.unit})`,
  hasOwnScales: false,
  groups: chart.groups.map(({ title, bars }) => ({
    title,
    unit: '',
    bars: bars.map((bar) => ({ ...bar, name: bar.peer, classes: `p${peers.indexOf(bar.peer)}` })),
  })),
});

const PLOT_HEIGHT = 300;

/** A plot with lines, and a key below it. */
export function plotFile(plot: Plot, colours: readonly Colour[]): string {
  const [left, top, width] = [64, 70, WIDTH - 64 - 30];
  let x = left;
  const key = plot.lines.map(({ name, classes, dashes }) => {
    const y = top + PLOT_HEIGHT + 62;
    const at = x;
    x += 60 + LETTER * name.length;
    return (
      `<line class="line ${classes}" x1="${at}" x2="${at + 30}" y1="${y - 4}" y2="${y - 4}"${dashes === '' ? '' : ` stroke-dasharray="${dashes}"`}/>` +
      `<text x="${at + 36}" y="${y}">${escapeXml(name)}</text>`
    );
  });
  const body = [
    `<text x="${PAD}" y="28" class="head">${escapeXml(plot.title)}</text>`,
    `<svg x="${left}" y="${top}" width="${width}" height="${PLOT_HEIGHT}" overflow="visible" role="img" aria-label="${escapeXml(plot.title)}">`,
    plotSvg(plot),
    '</svg>',
    ...key,
  ].join('\n');
  return frame(plot.title, colours, top + PLOT_HEIGHT + 80, body);
}
