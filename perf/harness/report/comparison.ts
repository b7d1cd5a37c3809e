/** docs/comparison.md: the newest report on one page for users. Pure. */
import { METRICS, type Result } from '../result.ts';
import { type Chart, chapters, summaryChart } from './chapters.ts';
import { repeatCommands } from './command.ts';
import { percentilePlot } from './curves.ts';
import { markdownTable } from './markdown.ts';
import { overviewSvg, overviewTable, versionText } from './overview.ts';
import { peerColours } from './palette.ts';
import { ratio } from './statistics.ts';
import { chartForSvg, plotFile, svgFile } from './svg.ts';
import { Figures, HOW_TO_READ, machineText, peerTable, targetSummary, targetTable } from './tables.ts';

/** The cell whose percentiles are drawn. */
const CURVE_CELL = 'rr-64-65520';
/** What readers of pasta's figures have to know; perf/notes.md has the measurement. */
const DEFAULT_BUFFERS =
  "The host's send buffers are the kernel's defaults, with which uploads of pasta stall. With larger ones (`--tcp-wmem 4096,4194304,16777216`), on a busy machine on 2026-11-29 at MTU 65520, pasta of March 2023 carried 1.1 Gbit/s up and bucatini 6.4.";

/** Modes by increasing completeness: of one day the full report is taken. */
const MODE_RANK: readonly string[] = ['only', 'quick', 'full'];

/**
 * The newest full report; without one the newest quick report, then any other. Soaks and `--scaling` are left
 * out: they do not compare tools.
 */
export function newestReport<T extends { readonly name: string; readonly result: Result }>(
  reports: readonly T[],
): T | null {
  const rank = ({ result }: T) => MODE_RANK.indexOf(result.mode);
  const sorted = reports
    .filter(({ result }) => result.soak === null && result.mode !== 'scaling')
    .sort((a, b) => rank(b) - rank(a) || (a.name < b.name ? 1 : -1));
  return sorted[0] ?? null;
}

/** A file beside docs/comparison.md, and its content. */
export interface ComparisonFile {
  readonly name: string;
  readonly text: string;
}

interface Picture {
  readonly name: string;
  /** Chapter's title on the page. */
  readonly title: string;
  readonly alt: string;
  readonly about: string;
  readonly text: string;
}

/** The charts behind the summary, of those cells that were measured. */
function pictures(figures: Figures): Picture[] {
  const { result } = figures;
  const colours = peerColours(result.peers);
  const peers = result.peers.map(({ name }) => name);
  const all = chapters(figures);
  const charts = (chapter: string, ...titles: RegExp[]): Chart[] =>
    titles.flatMap(
      (title) => all.find(({ id }) => id === chapter)?.charts.find((each) => title.test(each.title)) ?? [],
    );
  const bars = (name: string, title: string, about: string, chosen: readonly Chart[]): Picture[] =>
    chosen.length === 0
      ? []
      : [
          {
            ...{ name, title, about },
            alt: `Bars: ${chosen.map((chart) => chart.title).join('; ')}`,
            text: svgFile(
              title,
              colours,
              chosen.map((chart) => chartForSvg(chart, peers)),
            ),
          },
        ];
  const summary = summaryChart(figures);
  const curve = percentilePlot(
    figures,
    CURVE_CELL,
    'TCP request and response of 64 B: time by percentile',
    colours.map(({ dashes }) => dashes),
  );
  return [
    ...bars(
      'comparison-throughput.svg',
      'Throughput',
      'The thin line on a bar goes from the lowest to the highest round. `direct` is a veth without a tool.',
      [...(summary === null ? [] : [summary]), ...charts('throughput', /many idle/)],
    ),
    ...(curve === null
      ? []
      : [
          {
            name: 'comparison-latency.svg',
            title: 'Latency',
            alt: 'Curves: time of a request by percentile',
            about: 'Each step to the right is ten times rarer. Lower is better.',
            text: plotFile(curve, colours),
          },
        ]),
    ...bars(
      'comparison-udp.svg',
      'UDP',
      'What arrives when as much as possible is sent.',
      charts('udp', /full offer/),
    ),
    ...bars(
      'comparison-cost.svg',
      'What it costs',
      'Processor time counts all processes of the tool. A transfer that stalls costs little: look at the rate beside the figure.',
      [...charts('cpu', /each GiB/), ...charts('start', /^Start/, /idle instance/, /many idle/)],
    ),
  ];
}

/**
 * The page and its charts. The table of all cells has one row per cell: each tool's median of the main
 * metric, and bucatini's ratios to them.
 */
export function comparison(result: Result, file: string): ComparisonFile[] {
  const figures = new Figures(result);
  const ours = figures.ours;
  const rows = result.cells.flatMap((cell) => {
    const main = figures.metrics(cell.id)[0];
    if (main === undefined) return [];
    const mine = ours === null ? null : figures.median(cell.id, ours.name, main);
    const unit = figures.unit([cell.id], main);
    const text = (value: number | null): string => (value === null ? '-' : unit.text(value));
    return [
      [
        `${cell.text}, MTU ${cell.mtu}`,
        `${unit.label}${METRICS[main].better === 'more' ? '' : ' ↓'}`,
        ...result.peers.map(({ name }) => text(figures.median(cell.id, name, main))),
        ratio(mine, figures.directMedian(cell.id, main))?.toFixed(2) ?? '-',
        ratio(mine, figures.best(cell.id, main)?.median ?? null)?.toFixed(2) ?? '-',
      ],
    ];
  });
  const targets = targetTable(figures);
  const overview = overviewTable(result);
  const drawn = pictures(figures);
  const page = [
    '# Comparison',
    `<!-- generated by \`npm run comparison\` from perf/${file}; do not edit -->`,
    `Measured on ${result.date}, ${versionsText(result)}, on ${result.machine.cores} cores. Commit ${result.machine.commit}; bucatini ran on ${result.machine.runtime ?? 'Node'}. ` +
      'A figure that is not good stands beside the good ones: nothing was left out.',
    ...(overview === null
      ? []
      : ['## In short', markdownTable(overview), '![The same figures as bars](comparison.svg)']),
    ...drawn.flatMap(({ name, title, alt, about }) => [`## ${title}`, about, `![${alt}](${name})`]),
    '## How it was measured',
    `${machineText(result)}. From [perf/${file}](../perf/${file}).`,
    HOW_TO_READ,
    ...(result.options.tcpWmem ? [] : [DEFAULT_BUFFERS]),
    markdownTable(peerTable(result)),
    ...(result.notes.length === 0 ? [] : [result.notes.map((note) => `- ${note}`).join('\n')]),
    ['To repeat it:', '', ...repeatCommands(result).map((line) => `    ${line}`)].join('\n'),
    '## All cells',
    'Arrows mark figures of which less is better. The last two columns are ours against direct and against the best of the stock tools.',
    markdownTable({
      head: ['what', 'unit', ...result.peers.map(({ name }) => name), 'ours / direct', 'ours / best peer'],
      words: 2,
      rows,
    }),
    '## Targets',
    targetSummary(figures),
    ...(targets === null ? [] : [markdownTable(targets)]),
  ].join('\n\n');
  return [
    { name: 'comparison.md', text: `${page}\n` },
    { name: 'comparison.svg', text: overviewSvg(result) },
    ...drawn.map(({ name, text }) => ({ name, text })),
  ];
}

/** "bucatini 0.1.0 beside pasta ... and slirp4netns ..." */
function versionsText({ peers }: Result): string {
  const of = (kind: string): string[] => peers.filter((peer) => peer.kind === kind).map(versionText);
  const others = [...of('pasta'), ...of('slirp4netns')].join(' and ');
  return `${of('bucatini')[0] ?? 'without bucatini'}${others === '' ? '' : ` beside ${others}`}`;
}
