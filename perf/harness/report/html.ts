/** A result as one HTML page with embedded charts; the page loads nothing else and needs no script. */
import type { Result } from '../result.ts';
import { type Chapter, type Chart, chapters, summaryChart } from './chapters.ts';
import { repeatCommands } from './command.ts';
import { type Plot, percentilePlot, plotSvg, scalingPlots, soakPlots } from './curves.ts';
import { escapeXml, inlineHtml } from './markup.ts';
import { overviewTable } from './overview.ts';
import { cellHtml, type Part, pageHtml, tableHtml } from './page.ts';
import { peerColours } from './palette.ts';
import { styleSheet } from './style.ts';
import {
  Figures,
  HOW_TO_READ,
  machineText,
  optionsText,
  peerTable,
  soakTable,
  type Table,
  targetSummary,
  targetTable,
} from './tables.ts';

/** Figures as text are at most so wide, in characters. */
const figureWidth = ({ groups }: Chart): number =>
  Math.max(
    ...groups.flatMap(({ bars }) => bars.map(({ value, text }) => (value === null ? 6 : text.length))),
  );

/** Pairs of up and down stand side by side, as do two or four groups; others in as many columns as fit. */
function evenly({ groups }: Chart): string {
  const titles = groups.map(({ title }) => title.toLowerCase());
  const paired = titles.every((title, i) => i % 2 === 0 || title.replace('down', 'up') === titles[i - 1]);
  return titles.length > 1 && titles.length % 2 === 0 && (titles.length <= 4 || paired)
    ? 'groups two'
    : 'groups';
}

export function chartHtml(chart: Chart, peers: readonly string[], classes = evenly(chart)): string {
  const bars = chart.groups.flatMap((group) => group.bars);
  const most = Math.max(...bars.map(({ high }) => high));
  const barHtml = (bar: (typeof bars)[number]): string => {
    const title = escapeXml(`${bar.peer}: ${bar.detail}`);
    const { value, low, high, text } = bar;
    const share = (part: number): string => `${((100 * part) / (high || 1)).toFixed(2)}%`;
    const track =
      value === null
        ? `<span class="fig word">${text} <span>${escapeXml(bar.detail)}</span></span>`
        : `<span class="reach" style="--high:${high}"><span class="fill" style="width:${share(value)}"></span>` +
          `${low < high ? `<span class="spread" style="left:${share(low)}"></span>` : ''}</span><span class="fig">${text}</span>`;
    return `<div class="bar p${peers.indexOf(bar.peer)}" data-high="${high}" title="${title}"><span class="name">${escapeXml(bar.peer)}</span><span class="track">${track}</span></div>`;
  };
  const groups = chart.groups.map(
    ({ title, bars: own }) =>
      `<div class="group">${title === '' ? '' : `<h4>${escapeXml(title)}</h4>`}\n${own.map(barHtml).join('\n')}</div>`,
  );
  return [
    `<figure${chart.groups.length > 1 ? ' class="many"' : ''}><figcaption>${escapeXml(chart.title)} <span>${escapeXml(chart.unit)}</span></figcaption>`,
    chart.note === null ? '' : `<p class="dim">${escapeXml(chart.note)}</p>`,
    `<div class="${classes}" style="--max:${most || 1};--figs:${figureWidth(chart) + 1}ch">`,
    ...groups,
    '</div></figure>',
  ].join('\n');
}

function plotHtml(plot: Plot): string {
  const key = plot.lines.map(
    ({ name, classes, dashes }) =>
      `<li class="${classes}"><svg aria-hidden="true"><line class="line" x2="30" y1="50%" y2="50%"${dashes === '' ? '' : ` stroke-dasharray="${dashes}"`}/></svg>${escapeXml(name)}</li>`,
  );
  return [
    `<figure><figcaption>${escapeXml(plot.title)}</figcaption>`,
    `<div class="plot"><svg width="100%" height="100%" role="img" aria-label="${escapeXml(plot.title)}">`,
    plotSvg(plot),
    `</svg></div><ul class="key">${key.join('')}</ul></figure>`,
  ].join('\n');
}

function chapterHtml(figures: Figures, chapter: Chapter): string {
  const peers = figures.result.peers.map(({ name }) => name);
  const dashes = peerColours(figures.result.peers).map((colour) => colour.dashes);
  const plots = [
    ...chapter.curves.flatMap(({ cell, title }) => percentilePlot(figures, cell, title, dashes) ?? []),
    ...(chapter.id === 'scaling' ? scalingPlots(figures) : []),
  ];
  const tables = chapter.sections.map(
    ({ title, table }) => `<h3>${escapeXml(title)}</h3>\n${tableHtml(table, 'sorts', peers)}`,
  );
  return [
    `<div class="charts">${chapter.charts.map((chart) => chartHtml(chart, peers)).join('\n')}</div>`,
    chapter.curves.length > 0
      ? '<h3>Percentiles</h3>\n<p class="dim">Each step to the right is ten times rarer. Lower is better.</p>'
      : '',
    plots.length > 0 ? `<div class="plots">${plots.map(plotHtml).join('\n')}</div>` : '',
    chapter.loss === null ? '' : `<h3>Loss at an offered load</h3>\n${tableHtml(chapter.loss)}`,
    tables.length > 0
      ? `<details><summary>All figures of this chapter</summary>\n${tables.join('\n')}</details>`
      : '',
  ].join('\n');
}

function soakPart(result: Result): Part[] {
  if (result.soak === null) return [];
  const { peer, minutes, verdict, passed, errors, pieces } = result.soak;
  const samples = soakTable(result);
  return [
    {
      id: 'soak',
      title: `Soak: ${peer}, ${minutes} minutes of mixed load`,
      body: [
        `<p class="${passed ? 'yes' : 'no'}">${passed ? 'Passed' : 'Failed'}: ${inlineHtml(verdict)}.</p>`,
        ...errors.map((error) => `<p>${inlineHtml(error)}</p>`),
        `<div class="plots">${soakPlots(result).map(plotHtml).join('\n')}</div>`,
        `<p>Pieces of load: ${escapeXml(
          Object.entries(pieces)
            .map(([name, count]) => `${name} ${count}`)
            .join(', '),
        )}.</p>`,
        samples === null ? '' : `<details><summary>All samples</summary>${tableHtml(samples)}</details>`,
      ].join('\n'),
    },
  ];
}

/** The summary with the units below the titles; on a phone without the last column, which the chart has. */
function summaryHtml({ head, rows }: Table): string {
  const [what = '', , ...others] = head;
  const cell = (tag: 'th' | 'td', text: string, c: number): string =>
    cellHtml(tag, text, false).replace(
      / class="/,
      head.at(-1) === 'no tool' && c === others.length - 1 ? ' class="extra ' : ' class="',
    );
  const body = rows.map(
    ([title = '', unit = '', ...figures]) =>
      `<tr><td>${inlineHtml(title)}<small>${escapeXml(unit)}</small></td>${figures.map((text, c) => cell('td', text, c)).join('')}</tr>`,
  );
  return (
    `<div class="wide"><table class="summary">\n<thead><tr><th>${escapeXml(what)}</th>${others.map((text, c) => cell('th', text, c)).join('')}</tr></thead>\n` +
    `<tbody>${body.join('\n')}</tbody>\n</table></div>`
  );
}

function summaryPart(figures: Figures): Part[] {
  const table = overviewTable(figures.result);
  const chart = summaryChart(figures);
  if (figures.result.soak !== null || figures.result.mode === 'scaling' || (table === null && chart === null))
    return [];
  const peers = figures.result.peers.map(({ name }) => name);
  const about =
    figures.stock.length > 0
      ? '<p class="dim">Medians. <q>Better</q> and <q>worse</q> compare bucatini with the best of the stock tools, direct left aside.</p>'
      : '';
  return [
    {
      id: 'summary',
      title: 'Summary',
      body: [
        table === null ? '' : summaryHtml(table),
        about,
        chart === null ? '' : chartHtml(chart, peers),
      ].join('\n'),
    },
  ];
}

function machinePart(result: Result): Part {
  const notes = result.notes.map((note) => `<li>${inlineHtml(note)}</li>`).join('\n');
  return {
    id: 'machine',
    title: 'The machine, and how to repeat this',
    body: [
      `<p>${inlineHtml(machineText(result))}.</p>`,
      tableHtml(peerTable(result), ''),
      `<p class="dim">Options: ${inlineHtml(optionsText(result))}; took ${result.seconds} s.</p>`,
      `<p>The same run, in a checkout of this commit or with an installed package:</p>\n<pre>${escapeXml(repeatCommands(result).join('\n'))}</pre>`,
      result.soak === null ? `<p>${inlineHtml(HOW_TO_READ)}</p>` : '',
      notes === '' ? '' : `<h3>Notes</h3>\n<ul>${notes}</ul>`,
    ].join('\n'),
  };
}

function targetPart(figures: Figures): Part[] {
  if (figures.result.soak !== null || figures.result.mode === 'scaling') return [];
  const targets = targetTable(figures);
  const body = `<p>${escapeXml(targetSummary(figures))}</p>\n${targets === null ? '' : tableHtml(targets, 'sorts targets')}`;
  return [{ id: 'targets', title: 'Targets', body }];
}

function titleOf({ date, soak, mode }: Result): string {
  const what =
    soak !== null ? 'a soak' : mode === 'scaling' ? 'scaling with lanes' : 'throughput, latency and cost';
  return `bucatini: ${what}, measured on ${date}`;
}

export function html(result: Result, title = titleOf(result)): string {
  const figures = new Figures(result);
  const { peers, machine } = result;
  const colours = peerColours(peers);
  const head = [
    `<p class="dim">${escapeXml(`Measured on ${result.date}: ${machine.cpu}, ${machine.cores} cores, Linux ${machine.kernel}; ${peers.map(({ version, kind, name }) => (kind === 'direct' ? `${name} (no tool)` : `${name} (${version})`)).join(', ')}.`)}</p>`,
    result.endedEarly ? '<p class="no">Ended early: fewer rounds than asked for.</p>' : '',
  ].join('\n');
  const boxes = peers.map(
    ({ name }, i) =>
      `<label class="p${i}"><input type="checkbox" id="peer${i}" checked><span class="swatch"></span>${escapeXml(name)}</label>`,
  );
  const widest = Math.min(16, Math.max(6, ...peers.map(({ name }) => name.length)));
  const style = `${styleSheet(colours)}\n.bar { --names: ${widest}ch; }`;
  const parts: Part[] = [
    ...summaryPart(figures),
    ...(result.soak === null
      ? chapters(figures).map((chapter) => ({
          id: chapter.id,
          title: chapter.title,
          body: chapterHtml(figures, chapter),
        }))
      : soakPart(result)),
    machinePart(result),
    ...targetPart(figures),
  ];
  const controls =
    result.soak === null && result.mode !== 'scaling'
      ? `<fieldset class="peers" aria-label="Tools to show">${boxes.join('')}</fieldset>`
      : '';
  return pageHtml(title, style, head, parts, controls);
}
