// bundle: texts
/**
 * Help, version, manual page and shell completion of `slirp4netns`, all from its option table. The build
 * writes them to files.
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
import { OPTIONS, SHOWN_OPTIONS } from './options.ts';

const INDENT = 34;
/** The slirp4netns whose command line and messages these are. */
const LIKE_VERSION = '1.3.3';
/** Callers check it before they use an option: with 2 there is --outbound-addr, with 3 --disable-dns. */
const SLIRP_CONFIG_VERSION_MAX = 6;

/**
 * Text of `slirp4netns --help`, which callers search for names of options.
 * @param program  name by which it was called
 */
export function usageText(program = 'slirp4netns'): string {
  const out = [
    `Usage: ${program} [OPTION]... PID|PATH|FD [TAPNAME]`,
    'Connects a network namespace through ordinary sockets of this host (bucatini).',
    '',
  ];
  for (const option of SHOWN_OPTIONS) {
    out.push(...helpLines(helpSignature(option, '='), option.help + defaultText(option.default), INDENT));
  }
  return `${out.join('\n')}\n`;
}

/** Text of `slirp4netns --version`. Callers parse the first line: the version follows "version ". */
export const versionText = (version: string): string =>
  `slirp4netns version ${LIKE_VERSION}+bucatini.${version}\nSLIRP_CONFIG_VERSION_MAX: ${SLIRP_CONFIG_VERSION_MAX}\n`;

/** The manual page, man(7). */
export function manPage(): string {
  const out = [
    ...manHead('slirp4netns', 'network for rootless containers through ordinary sockets'),
    '.SH SYNOPSIS',
    '.B slirp4netns',
    '[\\fIOPTION\\fR]... \\fIPID\\fR|\\fIPATH\\fR|\\fIFD\\fR [\\fITAPNAME\\fR]',
    '.SH DESCRIPTION',
    ...manProse(...DESCRIPTION),
    '.SH OPTIONS',
    ...manProse(
      'Options may stand after the operands; long names may be abbreviated. When an option is given several times the last one counts.',
    ),
  ];
  for (const o of SHOWN_OPTIONS) out.push(...manLines(o, '='));
  out.push('.SH API SOCKET', ...manProse(...API));
  out.push('.SH EXIT STATUS', ...manProse(STATUS));
  out.push(...manExamples(EXAMPLES), ...manSeeAlso(['bucatini(1)', 'pasta(1)', 'network_namespaces(7)']));
  return `${out.join('\n')}\n`;
}

const DESCRIPTION: readonly string[] = [
  'Connects the network namespace of process PID, or the one at PATH, to the network without privileges. What programs inside send through the interface TAPNAME leaves the host through ordinary sockets. An existing interface of that name is used; otherwise one is made.',
  'Inside, the network is 10.0.2.0/24 (--cidr): 10.0.2.2 is the gateway and leads to 127.0.0.1 of the host, 10.0.2.3 is the DNS server, DHCP assigns 10.0.2.15, and --configure sets 10.0.2.100. --enable-ipv6 adds fd00::/64, by router advertisements.',
];
const API: readonly string[] = [
  'Each connection carries one request and one reply, both JSON. {"execute": "add_hostfwd", "arguments": {"proto": "tcp", "host_addr": "0.0.0.0", "host_port": 8080, "guest_addr": "10.0.2.100", "guest_port": 80}} gives {"return":{"id":1}}; proto is tcp or udp, the addresses may be left out and may be IPv6. "list_hostfwd" lists the forwarded ports; "remove_hostfwd" with {"id": 1} removes one. "info" gives addresses and settings, "stats" all counters, "list_flows" the connections in pages (docs/api.md). The reply to a wrong request is {"error":{"desc":"bad request: ..."}}.',
];
const STATUS =
  '0 when the descriptor of --exit-fd is closed or the namespace is gone, 1 for every error. SIGTERM and other signals kill it, as they do by default.';

const EXAMPLES: readonly Example[] = [
  [
    'slirp4netns --configure --mtu=65520 --disable-host-loopback 4711 tap0',
    'Connect the namespace of process 4711, with the interface tap0 configured, and without the loopback of the host.',
  ],
  [
    'slirp4netns --configure --api-socket=/run/user/1000/slirp.sock 4711 tap0',
    'The same with a socket for published ports.',
  ],
  [
    `echo '{"execute":"list_hostfwd"}' | socat - UNIX-CONNECT:/run/user/1000/slirp.sock`,
    'List the ports that were published.',
  ],
];

const PROGRAM: PlainProgram = { name: 'slirp4netns', options: SHOWN_OPTIONS, operands: 'files' };

/** File name in dist/texts -> content; bin/slirp4netns reads them. */
export function generatedTexts(version: string): ReadonlyMap<string, string> {
  return new Map([
    ['slirp4netns.help.sh', shellScriptPrinting(usageText())],
    ['slirp4netns.version.sh', shellScriptPrinting(versionText(version))],
    ['slirp4netns.options', launcherTable(OPTIONS)],
  ]);
}

/** Path in the repository -> content, for `npm run docs`. */
export const generatedDocs = (): ReadonlyMap<string, string> =>
  new Map([
    ['man/slirp4netns.1', manPage()],
    ['completions/slirp4netns.bash', bashCompletion(PROGRAM)],
    ['completions/_slirp4netns', zshCompletion(PROGRAM)],
    ['completions/slirp4netns.fish', fishCompletion(PROGRAM)],
  ]);
