// bundle: rare
/**
 * Helpers for texts that are generated from option tables: escapes for roff(7), wrapped lines, and the table
 * that the launchers read.
 */
import type { OptionShape } from './getopt.ts';
import { namesOf } from './option-fields.ts';

const WIDTH = 100;

/**
 * Escape a text for roff(7): no request at the start of a line, and hyphens that can be copied from the page.
 */
export const roff = (text: string): string =>
  text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replace(/^([.'])/, '\\&$1');

/** Paragraphs of a manual page, the first under a heading, in lines that fit into 80 columns. */
export const manProse = (...paragraphs: readonly string[]): string[] =>
  paragraphs.flatMap((text, i) => [
    ...(i > 0 ? ['.PP'] : []),
    // A line that begins with a dot or an apostrophe would be a request.
    ...wrap(roff(text), 0, 80).map((line) => line.replace(/^([.'])/, '\\&$1')),
  ]);

/** The option names as shell variables. A launcher needs them to find the options that name a namespace. */
export function launcherTable(options: readonly OptionShape[]): string {
  const list = (takes: boolean, ours = false): string =>
    options
      .filter((o) => o.takesValue === takes && (o.ours ?? false) === ours)
      .map((o) => o.name)
      .join(' ');
  const shorts = (takes: boolean): string =>
    options
      .filter((o) => o.takesValue === takes && o.short !== undefined)
      .map((o) => o.short)
      .join('');
  return [
    `flags=' ${list(false)} '`,
    `ours_flags=' ${list(false, true)} '`,
    `valued=' ${list(true)} '`,
    `ours_valued=' ${list(true, true)} '`,
    `short_flags=${shorts(false)}`,
    `short_valued=${shorts(true)}`,
    '',
  ].join('\n');
}

/**
 * A shell script that prints a text and exits. It uses builtins only, since callers ask for help before every
 * start.
 */
export const shellScriptPrinting = (text: string): string =>
  `printf %s '${text.replaceAll("'", "'\\''")}'\nexit\n`;

/**
 * Break a text into lines.
 * @param indent  of every line, in columns
 */
export function wrap(text: string, indent: number, width = WIDTH): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && indent + line.length + 1 + word.length > width) {
      lines.push(' '.repeat(indent) + line);
      line = '';
    }
    line = line === '' ? word : `${line} ${word}`;
  }
  lines.push(' '.repeat(indent) + line);
  return lines;
}

/**
 * Help of one option: its names and value, and from column `indent` on its meaning.
 * @param signature  names and value
 * @param meaning    what the option does, and its default
 */
export function helpLines(signature: string, meaning: string, indent: number): string[] {
  const head = `  ${signature}`;
  const body = wrap(meaning, indent);
  if (head.length + 2 > indent) return [head, ...body];
  return [head.padEnd(indent) + body[0]!.trimStart(), ...body.slice(1)];
}

/** The default of an option as a sentence for its help; empty if there is none. */
export const defaultText = (value: string | undefined): string =>
  value === undefined ? '' : ` Default: ${value}.`;

/**
 * An option's names and value for help, long names below one another.
 * @param between  separates a long name from its value: a blank or =
 */
export const helpSignature = (o: OptionShape & { readonly value?: string }, between: string): string =>
  `${o.short === undefined ? '    ' : `-${o.short}, `}--${o.name}${o.value === undefined ? '' : `${between}${o.value}`}`;

/**
 * Manual page lines of one option.
 * @param between  separates a long name from its value: a blank or =
 */
export function manLines(
  o: OptionShape & { readonly value?: string; readonly help: string; readonly default?: string },
  between: string,
): string[] {
  const names = namesOf(o).map((name) => `\\fB${roff(name)}\\fR`);
  const value = o.value === undefined ? '' : `${between}\\fI${roff(o.value)}\\fR`;
  return ['.TP', `${names.join(', ')}${value}`, ...manProse(o.help + defaultText(o.default))];
}

/** Date of the manual pages, as .TH wants one: of their last change in more than an option. */
const PAGE_DATE = '2026-11-29';

/** First lines of a manual page. @param about  what follows the name in NAME */
export const manHead = (name: string, about: string): string[] => [
  `.TH ${name.toUpperCase()} 1 "${PAGE_DATE}" "bucatini" "User Commands"`,
  '.ad l',
  '.nh',
  '.SH NAME',
  `${name} \\- ${roff(about)}`,
];

/** A command line, and what it does. */
export type Example = readonly [command: string, meaning: string];

/** Section EXAMPLES of a manual page. */
export const manExamples = (examples: readonly Example[]): string[] => [
  '.SH EXAMPLES',
  ...examples.flatMap(([command, meaning]) => ['.TP', `\\fB${roff(command)}\\fR`, ...manProse(meaning)]),
];

/** Section SEE ALSO of a manual page. @param pages  "pasta(1)" ... */
export const manSeeAlso = (pages: readonly string[]): string[] => [
  '.SH SEE ALSO',
  ...pages.map((page, i) => {
    const [, name, section] = /^(.*)(\(.*\))$/.exec(page)!;
    return `.BR ${roff(name!)} ${section}${i < pages.length - 1 ? ',' : ''}`;
  }),
];
