// bundle: texts
/**
 * Help, version and the options page, all from the option table. The build writes them into dist/texts, where the launcher
 * finds them (it prints them without starting Node), and docs/cli.md is the same table as Markdown.
 */
import { defaultText, helpLines, saidByShell, wrap } from './option-texts.ts';
import { type CommandName, OPTIONS, type OptionSpec } from './options.ts';

interface CommandText {
  readonly name: CommandName;
  readonly operands: string;
  readonly summary: string;
  readonly about: string;
}

export const COMMANDS: readonly CommandText[] = [
  {
    name: 'run',
    operands: '[OPTIONS] [--] [COMMAND [ARG...]]',
    summary: 'Run a command in a new network namespace that reaches the outside.',
    about:
      "Runs COMMAND (default: your shell) in a new user, network, PID and mount namespace with an interface, addresses, routes and a resolver. Needs no privileges. Ends with COMMAND and with its status (128+N when signal N killed it, 127 when it does not exist, 126 when it cannot be executed); bucatini's own errors give status 1.",
  },
  {
    name: 'attach',
    operands: '[OPTIONS] PID | NETNS-PATH',
    summary: 'Give a network namespace that exists its connection.',
    about:
      'Connects the network namespace of process PID, or the one at NETNS-PATH, and stays until that namespace goes away or SIGTERM or SIGINT comes; the status is then 0. Prints "ready" on standard error once traffic flows.',
  },
  {
    name: 'doctor',
    operands: '',
    summary: 'Check what this host allows, with the remedy for what it does not.',
    about:
      'Tries each thing that bucatini needs and prints one line for each. The status is 1 when `bucatini run` cannot work here.',
  },
  {
    name: 'selftest',
    operands: '',
    summary: 'Make a small network of its own and send real traffic through it.',
    about:
      'Makes two network namespaces of its own (no root, nothing outside them is touched), starts `bucatini run` in one and servers in the other, then pings, resolves, downloads and uploads with checksums over IPv4 and IPv6 and measures the throughput. The status is 1 when a step failed.',
  },
  {
    name: 'switch-over',
    operands: '',
    summary: "Put our pasta in the stock one's place for this user's Podman and Buildah.",
    about:
      'Links our launchers into XDG_DATA_HOME/bucatini/helpers (~/.local/share) and writes XDG_CONFIG_HOME/containers/containers.conf.d/50-bucatini.conf (~/.config), which makes Podman and Buildah look there first. Prints what it changed; a second time it changes nothing. What is there and was not written by it, or was edited since, is left alone and told, with status 1. Containers that run keep their network.',
  },
  {
    name: 'switch-back',
    operands: '',
    summary: 'Undo switch-over.',
    about:
      'Takes away exactly what switch-over made: the drop-in, the links, and the directories that it had to make and that are still empty. What was edited since is left alone and told, with status 1.',
  },
  {
    name: 'bug-report',
    operands: '[API-SOCKET...]',
    summary: 'Print what a report of a fault needs to say about this machine.',
    about:
      'Prints versions, what `doctor` finds, settings of the kernel, and of each running engine of this user its options, age, memory, threads and descriptors. Addresses, names, paths and commands are left out, and nothing of what went through an engine is in it. Of an engine whose API socket is named its counters are in it too.',
  },
];

const INDENT = 26;

/** Text of `bucatini --help`. */
export function overviewText(): string {
  const width = Math.max(...COMMANDS.map((c) => c.name.length)) + 2;
  const lines = COMMANDS.map((c) => `  ${c.name.padEnd(width)}${c.summary}`);
  return [
    'Usage: bucatini COMMAND [ARG...]',
    '',
    'Gives a rootless network namespace real TCP, UDP, ICMP and DNS through ordinary sockets of the host.',
    '',
    ...lines,
    '',
    '`bucatini COMMAND --help` lists its options; `bucatini --version` prints the version.',
    '',
  ].join('\n');
}

/** Text of `bucatini COMMAND --help`. */
export function helpText(command: CommandName): string {
  const about = COMMANDS.find((c) => c.name === command)!;
  const out = [`Usage: bucatini ${command} ${about.operands}`.trimEnd(), '', ...wrap(about.about, 0)];
  for (const [group, options] of grouped(command)) {
    out.push('', `${group}:`);
    for (const option of options) out.push(...optionLines(option));
  }
  return `${out.join('\n')}\n`;
}

/** Text of `bucatini --version`. */
export const versionText = (version: string): string => `bucatini ${version}\n`;

/** The whole page docs/cli.md. */
export function cliMarkdown(): string {
  const out = [
    '# Command line',
    '',
    '<!-- Made from src/main/options.ts by scripts/cli-docs.ts; change the table there and run it again. -->',
    '',
    'Options come before the operands and end at the first word that is none, or at `--`. Values stand behind a space or `=`. A mistake is told in one line on standard error, with status 1.',
  ];
  for (const command of COMMANDS) {
    out.push(
      '',
      `## \`bucatini ${command.name} ${command.operands}`.trimEnd().concat('`'),
      '',
      command.about,
    );
    const options = grouped(command.name).flatMap(([, list]) => list);
    out.push('', '| option | meaning | default |', '|---|---|---|');
    for (const option of options) {
      const repeat = option.repeatable ? ' May be repeated.' : '';
      out.push(
        `| ${cell(`\`${signature(option)}\``)} | ${cell(option.help + repeat)} | ${cell(option.default ?? '')} |`,
      );
    }
  }
  return `${out.join('\n')}\n`;
}

/** File name in dist/texts -> content. */
export function generatedTexts(version: string): ReadonlyMap<string, string> {
  const texts = new Map([
    ['bucatini.help.sh', saidByShell(overviewText())],
    ['bucatini.version.sh', saidByShell(versionText(version))],
  ]);
  for (const { name } of COMMANDS) texts.set(`bucatini-${name}.help.sh`, saidByShell(helpText(name)));
  return texts;
}

function grouped(command: CommandName): [string, OptionSpec[]][] {
  const groups = new Map<string, OptionSpec[]>();
  for (const option of OPTIONS) {
    if (!option.commands.includes(command)) continue;
    const list = groups.get(option.group) ?? [];
    list.push(option);
    groups.set(option.group, list);
  }
  return [...groups];
}

function signature(option: OptionSpec): string {
  const names = option.short === undefined ? option.name : `${option.short}, ${option.name}`;
  return option.value === undefined ? names : `${names} ${option.value}`;
}

function optionLines(option: OptionSpec): string[] {
  const repeat = option.repeatable ? ' May be repeated.' : '';
  return helpLines(signature(option), option.help + repeat + defaultText(option.default), INDENT);
}

const cell = (text: string): string => text.replaceAll('|', '\\|');

/** Files of the repository that are made from here (`npm run docs`). */
export const generatedDocs = (): ReadonlyMap<string, string> => new Map([['docs/cli.md', cliMarkdown()]]);
