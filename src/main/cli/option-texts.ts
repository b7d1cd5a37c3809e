// bundle: rare
/**
 * What the texts made from option tables have in common: words for roff(7), wrapped lines, and the table that
 * the launchers read.
 */
import type { OptionShape } from './getopt.ts';

const WIDTH = 100;

/** Text for roff: no command at the start of a line, dashes that can be copied. */
export const roff = (text: string): string =>
  text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replace(/^([.'])/, '\\&$1');

/**
 * What a launcher needs to find the namespaces that the options ask for: names with and without value, as
 * shell variables.
 */
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
 * A text as a shell script that says it and ends: builtins alone, since callers ask for help before every
 * start.
 */
export const saidByShell = (text: string): string => `printf %s '${text.replaceAll("'", "'\\''")}'\nexit\n`;

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

/**
 * Lines of help about one option: its names and value, then from column `indent` on what it means.
 * @param signature  names and value
 * @param meaning  what it does, and its default
 */
export function helpLines(signature: string, meaning: string, indent: number): string[] {
  const head = `  ${signature}`;
  const body = wrap(meaning, indent);
  if (head.length + 2 > indent) return [head, ...body];
  return [head.padEnd(indent) + body[0]!.trimStart(), ...body.slice(1)];
}

/** The default of an option as a sentence for its help, if there is one. */
export const defaultText = (value: string | undefined): string =>
  value === undefined ? '' : ` Default: ${value}.`;

/** -s, --long: what a person may write. */
export const namesOf = (o: OptionShape): string[] =>
  o.short === undefined ? [`--${o.name}`] : [`-${o.short}`, `--${o.name}`];

/**
 * Lines of a manual page about one option.
 * @param between  a long name and its value: a blank or =
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
 * Completion for bash: the values of options, long options, all other words.
 * @param name  of the program, of the directory of its table, and with _ in front of the function
 * @param after  patterns of the word before -> how that option's value is completed; absent: not at all
 * @param long  long options
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
