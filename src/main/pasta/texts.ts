/** Help, version, man page and shell completion of `pasta`, all from its option table. The build writes them to files. */
import { OPTIONS, type PastaOption, SHOWN_OPTIONS } from './options.ts';

const GROUPS: readonly PastaOption['group'][] = [
  'General',
  'Namespaces',
  'Addresses',
  'Names',
  'Services',
  'Ports',
];
const WIDTH = 100;
const INDENT = 30;

const signature = (o: PastaOption): string =>
  `${o.short === undefined ? '    ' : `-${o.short}, `}--${o.name}${o.value === undefined ? '' : ` ${o.value}`}`;

/** Text of `pasta --help`. @param program  how it was called */
export function usageText(program = 'pasta'): string {
  const out = [
    `Usage: ${program} [OPTION]... [COMMAND [ARG]...]`,
    `       ${program} [OPTION]... PID`,
    `       ${program} [OPTION]... --netns PATH|NAME`,
    '',
    'Runs COMMAND (default: your shell) in a network and user namespace of its own, or serves the',
    'network namespace of a process or at a path, and connects it through sockets of this host.',
  ];
  for (const group of GROUPS) {
    out.push('', `${group}:`);
    for (const option of SHOWN_OPTIONS.filter((o) => o.group === group)) {
      const fallback = option.default === undefined ? '' : ` Default: ${option.default}.`;
      const head = `  ${signature(option)}`;
      const body = wrap(option.help + fallback, INDENT);
      if (head.length + 2 > INDENT) out.push(head, ...body);
      else out.push(head.padEnd(INDENT) + body[0]!.trimStart(), ...body.slice(1));
    }
  }
  return `${out.join('\n')}\n`;
}

export const versionText = (version: string): string =>
  `pasta ${version} (bucatini)\nMIT licence: free software, without any warranty.\n`;

/** File name in dist/texts -> content; bin/pasta reads them. */
export function generatedPastaTexts(version: string): ReadonlyMap<string, string> {
  return new Map([
    ['pasta.help', usageText()],
    ['pasta.version', versionText(version)],
    ['pasta.options', launcherTable(OPTIONS)],
  ]);
}

/**
 * What bin/pasta needs to find the namespaces that the options ask for: names with and without value, as shell variables.
 */
export function launcherTable(options: readonly PastaOption[]): string {
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

function wrap(text: string, indent: number): string[] {
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
