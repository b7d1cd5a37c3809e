/** What the texts made from option tables have in common: words for roff(7), wrapped lines, and the table that the launchers read. */
import type { OptionShape } from './getopt.ts';

const WIDTH = 100;

/** Text for roff: no command at the start of a line, dashes that can be copied. */
export const roff = (text: string): string =>
  text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replace(/^([.'])/, '\\&$1');

/**
 * What a launcher needs to find the namespaces that the options ask for: names with and without value, as shell variables.
 */
export function launcherTable(options: readonly OptionShape[]): string {
  const list = (takes: boolean): string =>
    options
      .filter((o) => o.takesValue === takes)
      .map((o) => o.name)
      .join(' ');
  const shorts = (takes: boolean): string =>
    options
      .filter((o) => o.takesValue === takes && o.short !== undefined)
      .map((o) => o.short)
      .join('');
  return [
    `flags=' ${list(false)} '`,
    `valued=' ${list(true)} '`,
    `short_flags=${shorts(false)}`,
    `short_valued=${shorts(true)}`,
    '',
  ].join('\n');
}

/** @param indent  of every line, in columns */
export function wrap(text: string, indent: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && indent + line.length + 1 + word.length > WIDTH) {
      lines.push(' '.repeat(indent) + line);
      line = '';
    }
    line = line === '' ? word : `${line} ${word}`;
  }
  lines.push(' '.repeat(indent) + line);
  return lines;
}
