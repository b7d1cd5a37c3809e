/** A result as Markdown. Pure. */
import type { Result } from '../result.ts';
import { chapters } from './chapters.ts';
import { overviewTable, toolsOf } from './overview.ts';
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

export function markdownTable(table: Table): string {
  const row = (fields: readonly string[]) =>
    `| ${fields.map((field) => field.replaceAll('|', '\\|')).join(' | ')} |`;
  const rule = table.head.map((_, c) => (c < table.words ? '---' : '--:')).join('|');
  return [row(table.head), `|${rule}|`, ...table.rows.map(row)].join('\n');
}

export function markdown(result: Result, title = `Measured on ${result.date}`): string {
  const figures = new Figures(result);
  const parts = [
    `# ${title}`,
    machineText(result),
    `Options: ${optionsText(result)}; took ${result.seconds} s.`,
  ];
  if (result.endedEarly) parts.push('**Ended early: fewer rounds than asked for.**');
  parts.push(markdownTable(peerTable(result)));
  if (result.soak !== null) {
    const { peer, minutes, verdict, passed, pieces, errors } = result.soak;
    parts.push(
      `## Soak: ${peer}, ${minutes} minutes of mixed load`,
      `${passed ? 'Passed' : '**Failed**'}: ${verdict}.`,
      `Pieces of load: ${Object.entries(pieces)
        .map(([name, count]) => `${name} ${count}`)
        .join(', ')}.`,
    );
    if (errors.length > 0) parts.push(errors.map((error) => `- ${error}`).join('\n'));
    const samples = soakTable(result);
    if (samples) parts.push(markdownTable(samples));
  } else {
    parts.push(HOW_TO_READ);
    const overview = overviewTable(result);
    if (result.mode !== 'scaling' && overview !== null && toolsOf(figures).length > 1)
      parts.push('## Summary', markdownTable(overview));
    for (const { title, table } of chapters(figures).flatMap((chapter) => chapter.sections))
      parts.push(`## ${title}`, markdownTable(table));
    // The targets come after the figures: someone who measured only some cells looks for these first.
    const targets = targetTable(figures);
    if (result.mode !== 'scaling') parts.push('## Targets', targetSummary(figures));
    if (targets !== null) parts.push(markdownTable(targets));
  }
  if (result.notes.length > 0) parts.push('## Notes', result.notes.map((note) => `- ${note}`).join('\n'));
  return parts.join('\n\n');
}
