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
 * Manual page lines of one option.
 * @param between  separates a long name from its value: a blank or =
 */
export function manLines(
  o: OptionShape & { readonly value?: string; readonly help: string; readonly default?: string },
  between: string,
): string[] {
  const names = namesOf(o).map((name) => `\\fB${roff(name)}\\fR`);
  const value = o.value === undefined ? '' : `${between}\\fI${roff(o.value)}\\fR`;
  const lines = ['.TP', `${names.join(', ')}${value}`, roff(o.help)];
  return o.default === undefined ? lines : [...lines, roff(`Default: ${o.default}.`)];
}

/**
 * A completion script for bash: completes values of options, long options and all other words.
 * @param name     of the program; its directory in src/main and its function, `_name`, are named after it
 * @param after    pattern of the preceding word, and compgen's arguments for that option's value; absent:
 *   none
 * @param long     long options, without dashes
 * @param operand  compgen's option for all other words: -c commands, -f files
 */
export function bashCompletionText(
  name: string,
  after: readonly (readonly [pattern: string, compgen?: string])[],
  long: readonly string[],
  operand: '-c' | '-f',
): string {
  const cases = after.map(([pattern, compgen]) => {
    const reply = compgen === undefined ? [] : [`      COMPREPLY=($(compgen ${compgen} -- "$cur"))`];
    return [`    ${pattern})`, ...reply, '      return', '      ;;'].join('\n');
  });
  return `# bash completion for ${name}; made from src/main/${name}/options.ts by scripts/cli-docs.ts.
_${name}() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD - 1]}
  case $prev in
${cases.join('\n')}
  esac
  case $cur in
    -*) COMPREPLY=($(compgen -W '${long.map((option) => `--${option}`).join(' ')}' -- "$cur")) ;;
    *) COMPREPLY=($(compgen ${operand} -- "$cur")) ;;
  esac
}
complete -F _${name} ${name}
`;
}
