/** A result as one HTML page with embedded plots; the page loads nothing else. */
import type { Result } from '../result.ts';
import { bars, percentileCurves, scalingCurves, soakCurves, svg } from './charts.ts';
import {
  Figures,
  HOW_TO_READ,
  machineText,
  optionsText,
  peerTable,
  sections,
  soakTable,
  type Table,
  targetSummary,
  targetTable,
} from './tables.ts';

const ENTITIES: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
export const escapeHtml = (text: string): string => text.replace(/[&<>"]/g, (c) => ENTITIES[c] ?? c);

/** Texts are Markdown, of which only `code` occurs. */
const inlineHtml = (text: string): string => escapeHtml(text).replace(/`([^`]*)`/g, '<code>$1</code>');

function cellHtml(tag: 'th' | 'td', text: string, isWord: boolean): string {
  const plain = text.replaceAll('**', '');
  const classes = [isWord ? '' : 'n', plain === 'yes' ? 'yes' : plain === 'no' ? 'no' : ''].filter(Boolean);
  return `<${tag}${classes.length === 0 ? '' : ` class="${classes.join(' ')}"`}>${inlineHtml(plain)}</${tag}>`;
}

function tableHtml(table: Table): string {
  const row = (tag: 'th' | 'td', fields: readonly string[]) =>
    `<tr>${fields.map((field, c) => cellHtml(tag, field, c < table.words)).join('')}</tr>`;
  return `<div class="wide"><table>\n${row('th', table.head)}\n${table.rows.map((fields) => row('td', fields)).join('\n')}\n</table></div>`;
}

const STYLE = `
:root { color-scheme: light dark; --text: #222; --back: #fff; --line: #ddd; --dim: #666; --yes: #007a55; --no: #b33a00; }
@media (prefers-color-scheme: dark) {
  :root { --text: #ddd; --back: #1b1b1b; --line: #444; --dim: #999; --yes: #3fc79a; --no: #ff8a4c; }
}
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: var(--text); background: var(--back); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 13px; }
th, td { border-bottom: 1px solid var(--line); padding: 2px 10px 2px 0; text-align: left; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
td.n, td:nth-child(2) { white-space: nowrap; }
.yes { color: var(--yes); font-weight: 600; }
.no { color: var(--no); font-weight: 600; }
/* Plots have dark ink: they keep a light ground. */
svg { max-width: 100%; height: auto; background: #fff; }
.dim { color: var(--dim); }
`;

export async function html(result: Result, title = `bucatini, measured on ${result.date}`): Promise<string> {
  const figures = new Figures(result);
  const parts: string[] = [];
  const say = (tag: string, text: string, extra = '') =>
    parts.push(`<${tag}${extra}>${inlineHtml(text)}</${tag}>`);
  const draw = async (spec: ReturnType<typeof bars>) => {
    if (spec !== null) parts.push(await svg(spec));
  };
  say('h1', title);
  say('p', machineText(result), ' class="dim"');
  say('p', `Options: ${optionsText(result)}; took ${result.seconds} s.`, ' class="dim"');
  if (result.endedEarly) say('p', 'Ended early: fewer rounds than asked for.', ' class="no"');
  parts.push(tableHtml(peerTable(result)));
  if (result.soak !== null) {
    const { peer, minutes, verdict, passed, errors } = result.soak;
    say('h2', `Soak: ${peer}, ${minutes} minutes of mixed load`);
    say('p', `${passed ? 'Passed' : 'Failed'}: ${verdict}.`, ` class="${passed ? 'yes' : 'no'}"`);
    for (const error of errors) say('p', error);
    await draw(soakCurves(result));
    const samples = soakTable(result);
    if (samples) parts.push(tableHtml(samples));
  } else {
    say('p', HOW_TO_READ);
    for (const section of sections(figures)) {
      say('h2', section.title);
      await draw(section.isScaling ? scalingCurves(figures) : bars(figures, section.cells));
      for (const cell of section.cells) {
        const curves = percentileCurves(figures, cell);
        if (curves === null) continue;
        say('h3', `${result.cells.find(({ id }) => id === cell)?.text ?? cell}: percentiles`);
        await draw(curves);
      }
      parts.push(tableHtml(section.table));
    }
    const targets = targetTable(figures);
    if (result.mode !== 'scaling') {
      say('h2', 'Targets');
      say('p', targetSummary(figures));
    }
    if (targets !== null) parts.push(tableHtml(targets));
  }
  if (result.notes.length > 0) {
    say('h2', 'Notes');
    parts.push(`<ul>${result.notes.map((note) => `<li>${inlineHtml(note)}</li>`).join('\n')}</ul>`);
  }
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>
<style>${STYLE}</style>
</head>
<body>
${parts.join('\n')}
</body>
</html>
`;
}
