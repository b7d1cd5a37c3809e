/**
 * The most important figures for a reader of the README, as rows for docs/comparison.md and as the chart
 * docs/comparison.svg: throughput, connections, small requests, start; good and bad results. Pure.
 */
import { METRICS, type PeerInfo, type Result } from '../result.ts';
import { peerColours } from './palette.ts';
import { Figures } from './statistics.ts';
import { svgFile } from './svg.ts';
import type { Table } from './tables.ts';
import { timesText } from './units.ts';

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

/** A row of the summary. */
export interface SummaryRow {
  readonly title: string;
  /** Unit, with "less is better" where that is so. */
  readonly unit: string;
  readonly bars: readonly { readonly tool: string; readonly value: number | null; readonly text: string }[];
  readonly direct: string | null;
  /** bucatini against the best stock tool, as "6.1 × better"; null: one of the two has no figure. */
  readonly verdict: string | null;
}

/**
 * bucatini with default options, then the newest build of each stock tool, which is the one named last. Without
 * stock tools all builds and plans of bucatini.
 */
export function toolsOf(figures: Figures): PeerInfo[] {
  if (figures.stock.length === 0) return figures.result.peers.filter(({ kind }) => kind === 'bucatini');
  const newest = (kind: PeerInfo['kind']) => figures.stock.findLast((peer) => peer.kind === kind);
  return [figures.ours, newest('pasta'), newest('slirp4netns')].flatMap((peer) => peer ?? []);
}

/** "pasta 0.0~git20261002.cba3570-1": a tool prints its name in one way or another. */
export const versionText = ({ kind, version }: PeerInfo): string =>
  `${kind} ${version.replace(/^\w+ (version )?/, '')}`;

/** Stock tools stand for their kind, whatever the build is called. */
const labelsOf = (figures: Figures): string[] =>
  toolsOf(figures).map(({ kind, name }) => (figures.stock.length === 0 ? name : kind));

/** Figures within this share of each other are called equal: no harness run tells them apart. */
const EQUAL = 0.05;

/** @param base  not 0 */
function verdictOf(ours: number, base: number, better: 'more' | 'less'): string {
  if (Math.abs(ours / base - 1) <= EQUAL) return 'equal';
  const gain = better === 'more' ? ours / base : base / ours;
  if (!(gain > 0)) return 'worse';
  return gain > 1 ? `${timesText(gain)} × better` : `${timesText(1 / gain)} × worse`;
}

/** Those of CELLS that were measured; where none was, the first cells of the result. */
export function summaryRows(figures: Figures): SummaryRow[] {
  const { cells } = figures.result;
  const chosen = CELLS.filter(([cell]) => figures.metrics(cell).length > 0);
  const rows =
    chosen.length > 0
      ? chosen
      : cells.slice(0, CELLS.length).map(({ id, text, mtu }) => [id, `${text}, MTU ${mtu}`] as const);
  return rows.flatMap(([cell, title]) => {
    const metric = figures.metrics(cell)[0];
    if (metric === undefined) return [];
    const unit = figures.unit([cell], metric);
    const { better } = METRICS[metric];
    const labels = labelsOf(figures);
    const bars = toolsOf(figures).map(({ name }, i) => {
      const value = figures.median(cell, name, metric);
      const missing = figures.of(cell, name).length === 0 ? '-' : 'failed';
      return { tool: labels[i] ?? name, value, text: value === null ? missing : unit.text(value) };
    });
    const ours = figures.ours === null ? null : figures.median(cell, figures.ours.name, metric);
    const direct = figures.directMedian(cell, metric);
    // Of those in the row: older builds stand in the tables.
    const others = toolsOf(figures).flatMap(({ kind }, i) =>
      kind === 'bucatini' ? [] : (bars[i]?.value ?? []),
    );
    const best = others.length === 0 ? null : better === 'more' ? Math.max(...others) : Math.min(...others);
    const verdict = ours === null || best === null || best === 0 ? null : verdictOf(ours, best, better);
    return [
      {
        ...{ title, bars },
        unit: better === 'more' ? unit.label : `${unit.label}, less is better`,
        direct: direct === null ? null : unit.text(direct),
        verdict,
      },
    ];
  });
}

/** The summary as a table. null: nothing was measured. */
export function overviewTable(result: Result): Table | null {
  const figures = new Figures(result);
  const rows = summaryRows(figures);
  if (rows.length === 0) return null;
  const hasVerdict = rows.some(({ verdict }) => verdict !== null);
  const hasDirect = rows.some(({ direct }) => direct !== null);
  return {
    head: [
      'what',
      'unit',
      ...labelsOf(figures),
      ...(hasVerdict ? ['bucatini is'] : []),
      ...(hasDirect ? ['no tool'] : []),
    ],
    words: 2,
    rows: rows.map(({ title, unit, bars, verdict, direct }) => [
      ...[title, unit],
      ...bars.map(({ text }) => text),
      ...(hasVerdict ? [verdict ?? '-'] : []),
      ...(hasDirect ? [direct ?? '-'] : []),
    ]),
  };
}

/** The chart of the summary: one group for each row, each with its own scale. */
export function overviewSvg(result: Result): string {
  const figures = new Figures(result);
  const tools = toolsOf(figures);
  const groups = summaryRows(figures).map(({ title, unit, bars }) => ({
    title,
    unit,
    bars: bars.map(({ tool, value, text }, i) => ({
      name: tool,
      classes: `p${i}`,
      value,
      ...{ low: value ?? 0, high: value ?? 0 },
      text,
    })),
  }));
  const versions = tools.map(versionText);
  const title = `${versions.join(', ')}: measured on ${result.date}`;
  return svgFile(title, peerColours(tools), [{ title, groups, hasOwnScales: true }]);
}
