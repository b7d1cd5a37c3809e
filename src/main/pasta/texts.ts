// bundle: texts
/**
 * Help, version, man page and shell completion of `pasta`, all from its option table. The build writes them
 * to files.
 */
import { bashCompletion, fishCompletion, type PlainProgram, zshCompletion } from '../cli/completion.ts';
import {
  defaultText,
  type Example,
  helpLines,
  helpSignature,
  launcherTable,
  manExamples,
  manHead,
  manLines,
  manProse,
  manSeeAlso,
  shellScriptPrinting,
} from '../cli/option-texts.ts';
import { OPTIONS, type PastaOption, SHOWN_OPTIONS } from './options.ts';

const GROUPS: readonly PastaOption['group'][] = [
  'General',
  'Namespaces',
  'Addresses',
  'Names',
  'Services',
  'Ports',
];
const INDENT = 30;

/** Text of `pasta --help`. @param program  name by which it was called */
export function usageText(program = 'pasta'): string {
  const out = [
    `Usage: ${program} [OPTION]... [COMMAND [ARG]...]`,
    `       ${program} [OPTION]... PID`,
    `       ${program} [OPTION]... --netns PATH|NAME`,
    '',
    'Connects a network namespace through ordinary sockets of this host: a new one, in which COMMAND',
    '(default: your shell) runs, that of process PID, or one by path or name.',
  ];
  for (const group of GROUPS) {
    out.push('', `${group}:`);
    for (const option of SHOWN_OPTIONS.filter((o) => o.group === group)) {
      out.push(...helpLines(helpSignature(option, ' '), option.help + defaultText(option.default), INDENT));
    }
  }
  return `${out.join('\n')}\n`;
}

/** Text of `pasta --version`. */
export const versionText = (version: string): string =>
  `pasta ${version} (bucatini)\nMIT licence: free software, without any warranty.\n`;

/** The manual page, man(7). */
export function manPage(): string {
  const out = [
    ...manHead('pasta', 'network for rootless containers through ordinary sockets'),
    '.SH SYNOPSIS',
    '.B pasta',
    '[\\fIOPTION\\fR]... [\\fICOMMAND\\fR [\\fIARG\\fR]...]',
    '.br',
    '.B pasta',
    '[\\fIOPTION\\fR]... \\fIPID\\fR',
    '.br',
    '.B pasta',
    '[\\fIOPTION\\fR]... \\fB\\-\\-netns\\fR \\fIPATH\\fR|\\fINAME\\fR',
    '.SH DESCRIPTION',
    ...manProse(...DESCRIPTION),
    '.SH OPTIONS',
    ...manProse(OPTION_RULES),
  ];
  for (const group of GROUPS) {
    out.push(`.SS ${group}`);
    for (const o of SHOWN_OPTIONS.filter((option) => option.group === group)) out.push(...manLines(o, ' '));
  }
  out.push('.SH EXIT STATUS', ...manProse(STATUS), '.SH SIGNALS', ...manProse(SIGNALS));
  out.push(...manExamples(EXAMPLES));
  out.push(
    ...manSeeAlso(['bucatini(1)', 'pesto(1)', 'slirp4netns(1)', 'namespaces(7)', 'user_namespaces(7)']),
  );
  return `${out.join('\n')}\n`;
}

const DESCRIPTION: readonly string[] = [
  'Connects a network namespace to the network without privileges. What programs inside send through the interface leaves the host through ordinary sockets; what arrives on these sockets reaches the programs through the interface.',
  'With COMMAND (default: the login shell of the user) pasta makes user, network, mount, PID, IPC and UTS namespaces, runs COMMAND in them and stays in the foreground. With PID or --netns it connects an existing namespace: it returns once the network works, continues in the background, and ends when the namespace is gone.',
];
const OPTION_RULES =
  'Options end at the first word that is not an option, or at --. Long names may be abbreviated, short ones combined. When an option is given several times the last one counts, unless its text says otherwise.';
const STATUS =
  'With COMMAND: its status, or 128+N when signal N killed it. Otherwise 0 when the namespace is gone or a signal ended pasta. 1 for every error of pasta itself.';
const SIGNALS = 'SIGTERM and SIGQUIT end it with status 0.';

const EXAMPLES: readonly Example[] = [
  [
    'pasta --config-net',
    'A shell in a network namespace of its own, with the addresses and routes of the host.',
  ],
  [
    'pasta --config-net -t 8080:80 -- python3 -m http.server 80',
    'Port 8080 of the host leads to port 80 inside.',
  ],
  [
    'pasta --config-net --pcap /tmp/p.pcap -- ping -c 3 192.0.2.1',
    'Write all frames to a file for Wireshark.',
  ],
  [
    'pasta --config-net -c /run/user/1000/pasta.sock 4711',
    'Connect the namespace of process 4711, in the background; pesto(1) changes its ports.',
  ],
];

const PROGRAM: PlainProgram = { name: 'pasta', options: SHOWN_OPTIONS, operands: 'command' };

/** File name in dist/texts -> content; bin/pasta reads them. */
export function generatedTexts(version: string): ReadonlyMap<string, string> {
  return new Map([
    ['pasta.help.sh', shellScriptPrinting(usageText())],
    ['pasta.version.sh', shellScriptPrinting(versionText(version))],
    ['pasta.options', launcherTable(OPTIONS)],
  ]);
}

/** Path in the repository -> content, for `npm run docs`. */
export const generatedDocs = (): ReadonlyMap<string, string> =>
  new Map([
    ['man/pasta.1', manPage()],
    ['completions/pasta.bash', bashCompletion(PROGRAM)],
    ['completions/_pasta', zshCompletion(PROGRAM)],
    ['completions/pasta.fish', fishCompletion(PROGRAM)],
  ]);
