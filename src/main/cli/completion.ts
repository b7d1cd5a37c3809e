// bundle: rare
/**
 * Completion scripts for bash, zsh and fish, made from a description of a program's commands and options. Pure.
 */
import { LOG_LEVELS } from '../../workers/thread/log-levels.ts';
import { PROFILES } from './lines.ts';

/** What the completion needs to know about an option. Entries of all option tables fit. */
export interface CompletedOption {
  /** Without dashes. */
  readonly name: string;
  readonly short?: string;
  /** Syntax of the value. Absent: the option is a flag. */
  readonly value?: string;
  /** Words for the value, where neither its syntax nor WORDS below has them. */
  readonly words?: readonly string[];
  readonly help: string;
  readonly repeatable?: true;
}

/** What words that are not options are: nothing that is known, files, or a command with its arguments. */
export type OperandKind = 'none' | 'files' | 'command';

interface Arguments {
  readonly options: readonly CompletedOption[];
  readonly operands: OperandKind;
  /** Words for the first operand, beside those of `operands`. */
  readonly words?: readonly string[];
}

/** A program whose first word is one of its commands. */
export interface ProgramWithCommands {
  readonly name: string;
  readonly commands: readonly (Arguments & { readonly name: string; readonly summary: string })[];
}

/** A program without commands. */
export interface PlainProgram extends Arguments {
  readonly name: string;
}

/** What may be written as the value of an option. */
interface ValueKind {
  readonly files: boolean;
  readonly interfaces: boolean;
  readonly words: readonly string[];
}

/** Words for values whose syntax does not list them. */
const WORDS: Readonly<Record<string, readonly string[]>> = {
  'log-level': LOG_LEVELS,
  'netns-type': ['pid', 'path', 'tapfd'],
  'target-type': ['netns', 'bess'],
  impair: [...Object.keys(PROFILES), 'none'],
  protocol: ['tcp', 'udp', 'icmp', 'dns'],
};

/** The value's kind, from its syntax: FILE and PATH are files; alternatives in lower case are words. */
export function valueKind({ name, value = '', words }: CompletedOption): ValueKind {
  return {
    files: /\b(FILE|PATH|SOCKET)\b/.test(value),
    interfaces: /^outbound-i|^interface$/.test(name) || /\bINTERFACE\b/.test(value),
    words:
      words ??
      WORDS[name] ??
      value
        .split('|')
        .map((word) => word.replace(/\[.*\]$/, '').replace(/=.*$/, '='))
        .filter((word, i, all) => /^[a-z][a-z0-9-]*=?$/.test(word) && all.indexOf(word) === i),
  };
}

const HEAD = 'made from the option table by scripts/cli-docs.ts.';
const longNames = (options: readonly CompletedOption[]): string =>
  options.map(({ name }) => `--${name}`).join(' ');

/** The short description of an option: the first clause of its help. */
const clause = (help: string): string => help.split(/[.;:](?: |$)/)[0]!;

/** In single quotes, for bash and zsh. */
const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;

// ---- bash

const INTERFACES_BASH = '-W "$(cd /sys/class/net && echo *)"';

function bashWords(kind: ValueKind): string {
  const parts = [
    ...(kind.files ? ['-f'] : []),
    ...(kind.interfaces ? [INTERFACES_BASH] : []),
    ...(kind.words.length > 0 ? [`-W '${kind.words.join(' ')}'`] : []),
  ];
  return parts.map((part) => `$(compgen ${part} -- "$cur")`).join(' ');
}

/** Statements that set COMPREPLY. @param depth  of their indentation */
function bashArguments({ options, operands, words }: Arguments, depth: number): string[] {
  const pad = ' '.repeat(depth);
  const byReply = new Map<string, string[]>();
  for (const option of options) {
    if (option.value === undefined) continue;
    const reply = bashWords(valueKind(option));
    const names = [`--${option.name}`, ...(option.short === undefined ? [] : [`-${option.short}`])];
    byReply.set(reply, [...(byReply.get(reply) ?? []), ...names]);
  }
  const cases = [...byReply].flatMap(([reply, names]) => [
    `${pad}  ${names.join(' | ')})`,
    ...(reply === '' ? [] : [`${pad}    COMPREPLY=(${reply})`]),
    ...(/=[ ']/.test(reply)
      ? [`${pad}    [[ $\{COMPREPLY[0]-} != *= ]] || compopt -o nospace 2>/dev/null`]
      : []),
    `${pad}    return`,
    `${pad}    ;;`,
  ]);
  const rest = [
    ...(words === undefined ? [] : [`$(compgen -W '${words.join(' ')}' -- "$cur")`]),
    ...(operands === 'files' ? ['$(compgen -f -- "$cur")'] : []),
    ...(operands === 'command' ? ['$(compgen -c -- "$cur")', '$(compgen -f -- "$cur")'] : []),
  ];
  return [
    ...(cases.length === 0 ? [] : [`${pad}case $prev in`, ...cases, `${pad}esac`]),
    `${pad}case $cur in`,
    `${pad}  -*) COMPREPLY=($(compgen -W '${longNames(options)}' -- "$cur")) ;;`,
    ...(rest.length === 0 ? [] : [`${pad}  *) COMPREPLY=(${rest.join(' ')}) ;;`]),
    `${pad}esac`,
  ];
}

/** A completion script for bash. */
export function bashCompletion(program: ProgramWithCommands | PlainProgram): string {
  const { name } = program;
  const body =
    'commands' in program
      ? [
          '  if [ "$COMP_CWORD" = 1 ]; then',
          `    COMPREPLY=($(compgen -W '${program.commands.map((c) => c.name).join(' ')} help version --help --version' -- "$cur"))`,
          '    return',
          '  fi',
          // biome-ignore lint/suspicious/noTemplateCurlyInString: of bash
          '  case ${COMP_WORDS[1]} in',
          ...program.commands.flatMap((command) => [
            `    ${command.name})`,
            ...bashArguments(command, 6),
            '      ;;',
          ]),
          `    help) COMPREPLY=($(compgen -W '${program.commands.map((c) => c.name).join(' ')}' -- "$cur")) ;;`,
          '  esac',
        ]
      : bashArguments(program, 2);
  return `# bash completion for ${name}; ${HEAD}
# shellcheck shell=bash disable=SC2207
_${name}() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD - 1]}
  # In bash "=" is a word of its own.
  if [ "$cur" = = ]; then cur=; elif [ "$prev" = = ]; then prev=\${COMP_WORDS[COMP_CWORD - 2]}; fi
${body.join('\n')}
}
complete -o filenames -F _${name} ${name}
`;
}

// ---- zsh

function zshAction(kind: ValueKind): string {
  const parts = [
    ...(kind.words.length > 0 ? [['words', 'value', `(${kind.words.join(' ')})`]] : []),
    ...(kind.interfaces ? [['interfaces', 'interface', '_net_interfaces']] : []),
    ...(kind.files ? [['files', 'file', '_files']] : []),
  ];
  if (parts.length === 0) return ' ';
  if (parts.length === 1) return parts[0]![2]!;
  // In braces _arguments calls it without options of compadd, which _alternative does not take.
  return `{_alternative ${parts.map((part) => `"${part.join('\\:')}"`).join(' ')}}`;
}

/** Arguments of zsh's _arguments for one option. */
function zshOption(option: CompletedOption): string[] {
  const { name, short, value, repeatable } = option;
  const text = clause(option.help).replaceAll(/[[\]\\:]/g, '\\$&');
  const names = [...(short === undefined ? [] : [`-${short}`]), `--${name}`];
  const before = repeatable ? '*' : names.length > 1 ? `(${names.join(' ')})` : '';
  return names.map((written) => {
    if (value === undefined) return quoted(`${before}${written}[${text}]`);
    const label = value.replaceAll(/[[\]\\:]/g, '\\$&');
    const sign = written.startsWith('--') ? '=' : '+';
    return quoted(`${before}${written}${sign}[${text}]:${label}:${zshAction(valueKind(option))}`);
  });
}

function zshArguments({ options, operands, words }: Arguments): string[] {
  const first = words === undefined ? [] : [quoted(`1:argument:(${words.join(' ')})`)];
  const rest = {
    none: [],
    files: [quoted('*:file:_files')],
    // "(-)": behind the command's name its own options are completed, not ours.
    command: [quoted('(-)1:command:_command_names -e'), quoted('*::arguments:_normal')],
  }[operands];
  return ['-s', '-S', ...options.flatMap(zshOption), ...first, ...rest];
}

/** A completion script for zsh, to be installed as `_NAME` in a directory of `fpath`. */
export function zshCompletion(program: ProgramWithCommands | PlainProgram): string {
  const { name } = program;
  const call = (pad: string, one: Arguments): string =>
    `${pad}_arguments ${zshArguments(one).join(` \\\n${pad}  `)}`;
  if (!('commands' in program)) {
    return `#compdef ${name}\n# zsh completion for ${name}; ${HEAD}\n${call('', program)}\n`;
  }
  const described = program.commands.map((c) => quoted(`${c.name}:${c.summary.replaceAll(':', '\\:')}`));
  return `#compdef ${name}
# zsh completion for ${name}; ${HEAD}
local curcontext=$curcontext state line
local -a commands
commands=(
  ${described.join('\n  ')}
  'help:Explain a command.'
  'version:Print the version.'
)
_arguments -C '(- *)'{-h,--help}'[Explain a command]' '(- *)'{-V,--version}'[Print the version]' \\
  '1:command:->command' '*::argument:->argument'
case $state in
  command) _describe -t commands command commands ;;
  argument)
    case $words[1] in
${program.commands.map((c) => `      ${c.name})\n${call('        ', c)}\n        ;;`).join('\n')}
      help) _describe -t commands command commands ;;
    esac
    ;;
esac
`;
}

// ---- fish

const fishQuoted = (text: string): string => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;

/**
 * @param start   `complete` with the options that say for which command the lines are
 * @param before  words before the options
 */
function fishArguments(start: string, { options, operands, words }: Arguments, before: number): string[] {
  const lines = options.map((option) => {
    const names = `${option.short === undefined ? '' : ` -s ${option.short}`} -l ${option.name}`;
    const about = ` -d ${fishQuoted(clause(option.help))}`;
    if (option.value === undefined) return `${start}${names}${about}`;
    const kind = valueKind(option);
    const list = [...kind.words, ...(kind.interfaces ? ['(command ls /sys/class/net)'] : [])].join(' ');
    const given = list === '' ? '' : ` -a ${fishQuoted(list)}`;
    return `${start}${names} ${kind.files ? '-r -F' : '-x'}${given}${about}`;
  });
  if (words !== undefined) lines.push(`${start} -a ${fishQuoted(words.join(' '))}`);
  if (operands === 'files') lines.push(`${start} -F`);
  if (operands === 'command') {
    const valued = options
      .filter(({ value }) => value !== undefined)
      .flatMap(({ name, short }) => [`--${name}`, ...(short === undefined ? [] : [`-${short}`])]);
    lines.push(`${start} -x -a '(__fish_complete_subcommand --fcs-skip=${before} ${valued.join(' ')})'`);
  }
  return lines;
}

/** A completion script for fish. */
export function fishCompletion(program: ProgramWithCommands | PlainProgram): string {
  const { name } = program;
  const start = `complete -c ${name}`;
  const lines = [`# fish completion for ${name}; ${HEAD}`, `${start} -f`];
  if (!('commands' in program)) return `${[...lines, ...fishArguments(start, program, 1)].join('\n')}\n`;
  const none = `${start} -n __fish_use_subcommand`;
  for (const command of program.commands)
    lines.push(`${none} -a ${command.name} -d ${fishQuoted(command.summary.replace(/\.$/, ''))}`);
  lines.push(
    `${none} -a help -d 'Explain a command'`,
    `${none} -a version -d 'Print the version'`,
    `${none} -s h -l help -d 'Explain a command'`,
    `${none} -s V -l version -d 'Print the version'`,
    `${start} -n '__fish_seen_subcommand_from help' -a '${program.commands.map((c) => c.name).join(' ')}'`,
  );
  for (const command of program.commands)
    lines.push(...fishArguments(`${start} -n '__fish_seen_subcommand_from ${command.name}'`, command, 2));
  return `${lines.join('\n')}\n`;
}
