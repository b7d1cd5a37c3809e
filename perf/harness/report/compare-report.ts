/** A comparison of two results as Markdown and as an HTML page. Pure. */
import { METRICS } from '../result.ts';
import { type Comparison, type Row, regressions } from './compare.ts';
import { missedText } from './gate.ts';
import { markdownTable } from './markdown.ts';
import { escapeXml, inlineHtml } from './markup.ts';
import { pageHtml, tableHtml } from './page.ts';
import { styleSheet } from './style.ts';
import { machineText, type Table } from './tables.ts';
import { unitFor } from './units.ts';

const titleOf = ({ cell }: Row): string => `${cell.text}, MTU ${cell.mtu}`;
const times = (value: number | null): string => (value === null ? '-' : value.toFixed(2));
const verdictText = ({ verdict, isLikeDirect }: Row): string =>
  verdict === 'unknown' ? 'too few rounds' : `${verdict}${isLikeDirect ? ', as direct' : ''}`;

/** How far a figure moved, whichever way; for sorting. */
const size = ({ ratio }: Row): number => (ratio === null || ratio <= 0 ? 0 : Math.abs(Math.log(ratio)));

/** Those that moved: bucatini's first, the worse ones first, then by size. */
function movedRows({ rows }: Comparison): Row[] {
  const rank = (row: Row): number =>
    (row.kind === 'bucatini' ? 0 : 4) + (row.isLikeDirect ? 2 : 0) + (row.verdict === 'worse' ? 0 : 1);
  return rows
    .filter(({ verdict }) => verdict === 'better' || verdict === 'worse')
    .sort((a, b) => rank(a) - rank(b) || size(b) - size(a));
}

function rowFields(row: Row): string[] {
  const { old, now, metric } = row;
  const unit = unitFor(metric, [Math.max(old.median, now.median)]);
  return [
    titleOf(row),
    row.peer,
    verdictText(row),
    unit.label,
    unit.text(old.median),
    unit.text(now.median),
    times(row.ratio),
    `${times(row.ratioLow)}–${times(row.ratioHigh)}`,
  ];
}

const HEAD = ['cell', 'tool', 'it is', 'unit', 'old', 'new', 'new / old', 'spread'];
const tableOf = (rows: readonly Row[]): Table => ({ head: HEAD, words: 4, rows: rows.map(rowFields) });

/** Counts of bucatini's figures, in a sentence. */
export function summaryText(comparison: Comparison): string {
  const ours = comparison.rows.filter(({ kind }) => kind === 'bucatini');
  if (ours.length === 0) return 'No figure of bucatini is in both results.';
  const count = (verdict: Row['verdict']): number => ours.filter((row) => row.verdict === verdict).length;
  const withDirect = ours.filter(({ isLikeDirect }) => isLikeDirect).length;
  const unknown = count('unknown');
  return [
    `Of ${ours.length} figures of bucatini, ${count('worse')} are worse and ${count('better')} are better beyond their spread`,
    withDirect === 0 ? '' : ` (${withDirect} of these moved as the direct link did)`,
    `, ${count('same')} are the same`,
    unknown === 0 ? '' : `; ${unknown} have too few rounds to tell`,
    '.',
  ].join('');
}

const HOW =
  'Moved: the ranges of the rounds, from lowest to highest, do not overlap, and the medians differ by more than 3 %. With 3 or 4 rounds ' +
  'the gap between the ranges must have a width as well; fewer rounds are not judged. Noise alone moves about one figure in a hundred. ' +
  'Spread: lowest new by highest old to highest new by lowest old.';

const sideText = (label: string, { date, mode, machine }: Comparison['old']): string =>
  `${label}: ${date}, ${mode}, ${machineText({ machine })}`;

const brokenText = ({ cell, peer, error }: Comparison['broken'][number]): string =>
  `${peer.name}, ${cell.text}, MTU ${cell.mtu}: ${error}`;

const CHART_HALF = 10;
/** The scale of charts reaches at least this far from 1, and at most so far. */
const LEAST_FACTOR = 1.25;
const MOST_FACTOR = 4;

/** The logarithm of the largest ratio shown, among those of the rows. */
function reachOf(rows: readonly Row[]): number {
  const far = rows.flatMap(({ ratio }) => (ratio !== null && ratio > 0 ? [Math.abs(Math.log(ratio))] : []));
  return Math.min(Math.log(MOST_FACTOR), Math.max(Math.log(LEAST_FACTOR), ...far) * 1.1);
}

/** Place of a ratio on the axis, from 0 to 1; 1 is in the middle. */
const placeOf = (ratio: number, reach: number): number =>
  Math.min(1, Math.max(0, 0.5 + (ratio > 0 ? Math.log(ratio) / reach / 2 : -0.5)));

/** "     ---o-:          ": the spread and the ratio, and a colon at 1. */
function textChart({ ratio, ratioLow, ratioHigh }: Row, reach: number): string {
  const width = 2 * CHART_HALF + 1;
  const at = (value: number): number => Math.round(placeOf(value, reach) * (width - 1));
  const line = Array<string>(width).fill(' ');
  if (ratioLow !== null && ratioHigh !== null)
    for (let i = at(ratioLow); i <= at(ratioHigh); i++) line[i] = '-';
  line[CHART_HALF] = ':';
  if (ratio !== null) line[at(ratio)] = 'o';
  return line.join('');
}

export function compareMarkdown(comparison: Comparison, names: readonly [old: string, now: string]): string {
  const moved = movedRows(comparison);
  const main = comparison.rows.filter(({ isMain }) => isMain);
  const reach = reachOf(main);
  const chart = main.map((row) => {
    const { old, now, metric } = row;
    const arrow = METRICS[metric].better === 'less' ? ' ↓' : '';
    const unit = unitFor(metric, [Math.max(old.median, now.median)]);
    return [
      ...[titleOf(row), row.peer, `${unit.label}${arrow}`],
      ...[unit.text(old.median), unit.text(now.median), times(row.ratio)],
      `\`${textChart(row, reach)}\``,
    ];
  });
  const { warnings, lostTargets, broken } = comparison;
  const factor = Math.exp(reach);
  return [
    `# ${names[1]} against ${names[0]}`,
    [sideText('Old', comparison.old), sideText('New', comparison.now)].join('\n\n'),
    summaryText(comparison),
    ...(warnings.length === 0 ? [] : [warnings.map((text) => `- Care: ${text}`).join('\n')]),
    ...(broken.length === 0 ? [] : ['## Fails now', broken.map((one) => `- ${brokenText(one)}`).join('\n')]),
    '## What moved',
    moved.length === 0 ? 'Nothing, beyond the spread of the rounds.' : markdownTable(tableOf(moved)),
    ...(lostTargets.length === 0
      ? []
      : [
          '## Targets reached before and missed now',
          lostTargets.map((lost) => `- ${missedText(lost)}`).join('\n'),
        ]),
    '## All cells',
    `The colon is at 1, the left end at ${(1 / factor).toFixed(2)}, the right end at ${factor.toFixed(2)} times the old figure. Arrows mark figures of which less is better.`,
    markdownTable({
      head: ['cell', 'tool', 'unit', 'old', 'new', 'new / old', 'ratio'],
      words: 3,
      rows: chart,
    }),
    HOW,
  ].join('\n\n');
}

function ratioHtml(row: Row, reach: number): string {
  const { ratio, ratioLow, ratioHigh } = row;
  const percent = (value: number): string => `${(100 * placeOf(value, reach)).toFixed(1)}%`;
  const [, , verdict, unit, old, now, , spread] = rowFields(row);
  const line =
    ratioLow !== null && ratioHigh !== null
      ? `<span class="span" style="left:${percent(ratioLow)};right:${(100 - 100 * placeOf(ratioHigh, reach)).toFixed(1)}%"></span>`
      : '';
  const dot = ratio === null ? '' : `<span class="at" style="left:${percent(ratio)}"></span>`;
  return (
    `<div class="ratio ${row.verdict}" title="${escapeXml(`${unit}: ${old}, then ${now}; ratio ${times(ratio)} (${spread}), ${verdict}`)}">` +
    `<span>${inlineHtml(`${titleOf(row)}: ${unit}`)}</span><span class="where"><span class="one"></span>${line}${dot}</span>` +
    `<span class="n">${times(ratio)}${row.verdict === 'better' || row.verdict === 'worse' ? ` ${row.verdict}` : ''}</span></div>`
  );
}

export function compareHtml(comparison: Comparison, names: readonly [old: string, now: string]): string {
  const moved = movedRows(comparison);
  const { rows, broken, warnings, lostTargets, old, now } = comparison;
  const main = rows.filter(({ isMain }) => isMain);
  const reach = reachOf(main);
  const factor = Math.exp(reach);
  const peers = [...new Set(main.map(({ peer }) => peer))];
  const charts = peers.map((peer) => {
    const own = main.filter((row) => row.peer === peer);
    return (
      `<figure><figcaption>${escapeXml(peer)} <span>new by old, from ${(1 / factor).toFixed(2)} to ${factor.toFixed(2)}; the dashed line is 1</span></figcaption>\n` +
      `${own.map((row) => ratioHtml(row, reach)).join('\n')}</figure>`
    );
  });
  const isBad = regressions(comparison).length + broken.length > 0;
  const parts = [
    {
      id: 'moved',
      title: 'What moved',
      body: [
        broken.length === 0
          ? ''
          : `<h3>Fails now</h3><ul>${broken.map((one) => `<li>${inlineHtml(brokenText(one))}</li>`).join('')}</ul>`,
        moved.length === 0 ? '<p>Nothing, beyond the spread of the rounds.</p>' : tableHtml(tableOf(moved)),
        lostTargets.length === 0
          ? ''
          : `<h3>Targets reached before and missed now</h3><ul>${lostTargets.map((lost) => `<li>${inlineHtml(missedText(lost))}</li>`).join('')}</ul>`,
      ].join('\n'),
    },
    { id: 'cells', title: 'All cells', body: charts.join('\n') },
    {
      id: 'figures',
      title: 'All figures',
      body: `<details><summary>${rows.length} figures</summary>${tableHtml(tableOf(rows))}</details>`,
    },
    {
      id: 'how',
      title: 'What was compared, and how',
      body: `<p>${inlineHtml(sideText('Old', old))}.</p><p>${inlineHtml(sideText('New', now))}.</p><p>${escapeXml(HOW)}</p>`,
    },
  ];
  const head = [
    `<p class="${isBad ? 'no' : ''}">${escapeXml(summaryText(comparison))}</p>`,
    warnings.length === 0
      ? ''
      : `<ul>${warnings.map((text) => `<li>Care: ${escapeXml(text)}</li>`).join('')}</ul>`,
  ].join('\n');
  return pageHtml(`${names[1]} against ${names[0]}`, styleSheet([]), head, parts);
}
