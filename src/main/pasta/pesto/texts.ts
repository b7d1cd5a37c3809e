// bundle: texts
/** Help, version, manual page and shell completion of `pesto`, all from its option table. */
import { bashCompletion, fishCompletion, type PlainProgram, zshCompletion } from '../../cli/completion.ts';
import {
  type Example,
  helpLines,
  helpSignature,
  manExamples,
  manHead,
  manLines,
  manProse,
  manSeeAlso,
  shellScriptPrinting,
} from '../../cli/option-texts.ts';
import { OPTIONS } from './options.ts';

const INDENT = 26;

/** Text of `pesto --help`. */
export const usageText = (): string =>
  `${[
    'Usage: pesto [OPTION]... PATH',
    'Shows and changes the port forwarding of a running pasta, through its control socket (-c PATH).',
    '',
    ...OPTIONS.flatMap((o) => helpLines(helpSignature(o, ' '), o.help, INDENT)),
  ].join('\n')}\n`;

/** Text of `pesto --version`. */
export const versionText = (version: string): string =>
  `pesto ${version} (bucatini)\nMIT licence: free software, without any warranty.\n`;

/** The manual page, man(7). */
export function manPage(): string {
  return `${[
    ...manHead('pesto', 'change the ports that a running pasta forwards'),
    '.SH SYNOPSIS',
    '.B pesto',
    '[\\fIOPTION\\fR]... \\fIPATH\\fR',
    '.SH DESCRIPTION',
    ...manProse(...DESCRIPTION),
    '.SH OPTIONS',
    ...manProse(OPTION_RULES),
    ...OPTIONS.flatMap((o) => manLines(o, ' ')),
    '.SH EXIT STATUS',
    ...manProse(STATUS),
    ...manExamples(EXAMPLES),
    ...manSeeAlso(['pasta(1)', 'bucatini(1)', 'unix(7)']),
  ].join('\n')}\n`;
}

const DESCRIPTION: readonly string[] = [
  "Connects to the control socket PATH of a running pasta (its option -c), bucatini's or passt's, and changes the ports that it forwards. Without options it lists them.",
  'Several pesto may run at the same time: each applies only its own changes.',
];
const OPTION_RULES =
  'The options -A, -D, -C, -t, -u, -T and -U are carried out in their order, and sent to pasta together. Without -A or -D before it, the first port option of a table replaces all rules of that table. Options may stand after PATH; long names may be abbreviated, short ones combined.';
const STATUS =
  "0 when pasta has carried out the request, 1 for every error. If a port cannot be opened, bucatini's pasta says which and why, and leaves all rules as they were: status 1. passt's pasta does not report that: status 0.";
const EXAMPLES: readonly Example[] = [
  ['pesto /run/user/1000/pasta.sock', 'List the forwarded ports.'],
  [
    'pesto -A -t 8080:80 -u 5353 /run/user/1000/pasta.sock',
    'Forward port 8080 of the host to port 80 inside, and UDP port 5353.',
  ],
  ['pesto -D -t 8080:80 /run/user/1000/pasta.sock', 'No longer forward the first one.'],
  ['pesto -s -t 8000-8010 /run/user/1000/pasta.sock', 'Replace all rules, and show those before and after.'],
  ['pesto -C HOST /run/user/1000/pasta.sock', 'Forward no port of the host.'],
];

const PROGRAM: PlainProgram = { name: 'pesto', options: OPTIONS, operands: 'files' };

/** File name in dist/texts -> content; bin/pesto reads them. */
export const generatedTexts = (version: string): ReadonlyMap<string, string> =>
  new Map([
    ['pesto.help.sh', shellScriptPrinting(usageText())],
    ['pesto.version.sh', shellScriptPrinting(versionText(version))],
  ]);

/** Path in the repository -> content, for `npm run docs`. */
export const generatedDocs = (): ReadonlyMap<string, string> =>
  new Map([
    ['man/pesto.1', manPage()],
    ['completions/pesto.bash', bashCompletion(PROGRAM)],
    ['completions/_pesto', zshCompletion(PROGRAM)],
    ['completions/pesto.fish', fishCompletion(PROGRAM)],
  ]);
