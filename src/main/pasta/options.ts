/**
 * The options of `pasta`: the one table that parsing, help, man page and shell completion are made from.
 * Names, values, defaults and rejections are those of passt's pasta; the words are ours.
 *
 * An entry's `set` puts the value into a draft and throws UsageError with pasta's own message when it is
 * wrong. What depends on several options is in `finish`. Port specifications are kept as written: they are
 * read when the addresses are known.
 */
import { domainLabels } from '../../proto/domain-name.ts';
import { macParse, macText } from '../../proto/ethernet.ts';
import { ipv4Parse } from '../../proto/ipv4.ts';
import { getopt, type OptionShape } from '../cli/getopt.ts';
import { API_SOCKET_HELP, fieldsOf } from '../cli/option-fields.ts';
import {
  addressOf,
  DEFAULT_MTU,
  IPV4_MIN_MTU,
  IPV6_MIN_MTU,
  isInterfaceName,
  MAX_MTU,
  named,
  parseSocketPath,
  quoted,
  SOCKET_PATH_BYTES,
  UsageError,
} from '../cli/values.ts';
import { ForwardMessage } from './forward-messages.ts';
import { canonicalAddress } from './forward-rules.ts';
import { Message } from './messages.ts';

const DEFAULT_LOG_BYTES = 1024 * 1024;
const MIN_LOG_BYTES = 40 * 1024;
const V4_MAPPED_BITS = 96; // RFC 4291 section 2.5.5.2: ::ffff:0:0/96
const MAX_INT = 0x7fff_ffff;
const MIN_FD = 3; // the first three are COMMAND's
const MAX_NAME_CHARS = 253; // RFC 1035 section 2.3.4, without the root's dot
const MAX_SEARCH_DOMAINS = 6; // resolv.conf(5)
const MAX_DNS_PER_FAMILY = 3;
const DEFAULT_MAC = '9a:55:9a:55:9a:55';

export type Verbosity = 'quiet' | 'normal' | 'debug' | 'trace';
export type PortOption = 't' | 'u' | 'T' | 'U';

/**
 * The command line, defaults filled in; plain data, crosses to the namespace thread. "4" and "6" are the
 * families.
 */
export interface PastaConf {
  readonly ipv4: boolean;
  readonly ipv6: boolean;
  /** 0: the interface keeps the kernel's, and none is offered. */
  readonly mtu: number;
  readonly address4?: string;
  readonly address6?: string;
  /** From -a or -n. */
  readonly prefixLen4?: number;
  readonly mac: string;
  readonly nsMac?: string;
  readonly gateway4?: string;
  readonly gateway6?: string;
  readonly interface?: string;
  readonly outbound4?: string;
  readonly outbound6?: string;
  readonly outboundIf4?: string;
  readonly outboundIf6?: string;
  /** Absent: those of resolv.conf; empty: none; else those of resolv.conf of a family that has none here. */
  readonly dns?: readonly string[];
  readonly dnsForward4?: string;
  readonly dnsForward6?: string;
  readonly dnsHost4?: string;
  readonly dnsHost6?: string;
  readonly search?: readonly string[];
  readonly dhcpDns: boolean;
  readonly dhcpSearch: boolean;
  readonly hostname?: string;
  readonly fqdn?: string;
  readonly tcp: boolean;
  readonly udp: boolean;
  readonly icmp: boolean;
  readonly dhcp: boolean;
  readonly dhcpv6: boolean;
  readonly ndp: boolean;
  readonly ra: boolean;
  readonly freebind: boolean;
  /** False: the gateway stands for the host's loopback only where --map-host-loopback says so. */
  readonly mapGateway: boolean;
  readonly mapHostLoopback4?: string;
  readonly mapHostLoopback6?: string;
  readonly mapGuestAddr4?: string;
  readonly mapGuestAddr6?: string;
  readonly ports: readonly { readonly option: PortOption; readonly spec: string; readonly written: string }[];
  readonly nsIfname?: string;
  readonly userns?: string;
  readonly netns?: string;
  readonly netnsOnly: boolean;
  readonly netnsQuit: boolean;
  readonly pidns: boolean;
  readonly configNet: boolean;
  readonly copyRoutes: boolean;
  readonly copyAddrs: boolean;
  readonly hostLoToNsLo: boolean;
  readonly splice: boolean;
  readonly spliceOnly: boolean;
  readonly chrootFallback: boolean;
  readonly foreground: boolean;
  readonly verbosity: Verbosity;
  readonly statsSeconds?: number;
  readonly logFile?: string;
  readonly logBytes: number;
  readonly runas?: string;
  readonly confPath?: string;
  readonly apiSocket?: string;
  readonly pcap?: string;
  readonly pidFile?: string;
  /** Frames come by this descriptor, and no interface is made. */
  readonly fd?: number;
}

/** What is to be connected. */
export type PastaTarget =
  | { readonly kind: 'command'; readonly argv: readonly string[] }
  | { readonly kind: 'pid'; readonly pid: number }
  | { readonly kind: 'netns'; readonly path: string };

type Draft = { -readonly [K in keyof PastaConf]: PastaConf[K] } & {
  prefixWritten?: boolean;
  netmaskWritten?: boolean;
  readonly warnings: string[];
};

export interface PastaOption extends OptionShape {
  /** Value's name in help; absent: a flag. */
  readonly value?: string;
  readonly group: 'General' | 'Addresses' | 'Names' | 'Services' | 'Ports' | 'Namespaces';
  readonly help: string;
  readonly default?: string;
  /** Refused, and shown nowhere. */
  readonly passtOnly?: true;
  readonly set?: (draft: Draft, value: string, written: string) => void;
}

const CONTROL = /\p{Cc}/u;
/** As JSON has it, without the quotes. */
const escaped = (text: string): string => JSON.stringify(text).slice(1, -1);

type Entry = Omit<PastaOption, 'takesValue'>;

const { fixed, verbatim, parsed } = fieldsOf<Draft>();

/**
 * Only for passt, which serves virtual machines.
 * @param mode     where the original has it
 * @param spelled  how its message names the option, whatever was written
 */
const passtOnly = (
  name: string,
  short?: string,
  value?: string,
  mode = 'passt / vhost-user',
  spelled = `--${name}`,
): Entry => ({
  name,
  ...(short !== undefined && { short }),
  ...(value !== undefined && { value }),
  group: 'General',
  help: '',
  passtOnly: true,
  set: () => {
    throw new UsageError(Message.passtOnly(spelled, mode));
  },
});

const port = (letter: PortOption, name: string, help: string): Entry => ({
  name,
  short: letter,
  value: 'SPEC',
  group: 'Ports',
  help,
  default: 'auto',
  set: (draft, spec, written) => {
    // Read when the addresses are known; the message is to be one line.
    if (CONTROL.test(spec)) throw new UsageError(ForwardMessage.invalidSpec(spec));
    draft.ports = [...draft.ports, { option: letter, spec, written }];
  },
});

const ENTRIES: readonly Entry[] = [
  {
    name: 'debug',
    short: 'd',
    group: 'General',
    help: 'Log each step on standard error, with the seconds since the start.',
    set: fixed('verbosity', 'debug'),
  },
  {
    name: 'trace',
    group: 'General',
    help: 'As --debug, and log the messages of the packet threads (for the packets themselves use --pcap).',
    set: fixed('verbosity', 'trace'),
  },
  {
    name: 'stats',
    value: 'SECONDS',
    group: 'General',
    help: 'Print counters on standard error every SECONDS; --foreground must stand before this option.',
    set: (d, text) => {
      if (!d.foreground) throw new UsageError("Can't display statistics if not running in foreground");
      d.statsSeconds = whole(text, 1, 86_400, `Invalid statistics interval: ${text}`);
    },
  },
  {
    name: 'quiet',
    short: 'q',
    group: 'General',
    help: 'Print warnings and errors only.',
    set: fixed('verbosity', 'quiet'),
  },
  {
    name: 'foreground',
    short: 'f',
    group: 'General',
    help: 'Stay in the foreground.',
    default: 'in the background, unless a command is started',
    set: fixed('foreground', true),
  },
  {
    name: 'stderr',
    short: 'e',
    group: 'General',
    help: 'No effect: messages go to standard error anyway.',
    set: (d) => d.warnings.push('--stderr will be dropped soon'),
  },
  {
    name: 'log-file',
    short: 'l',
    value: 'FILE',
    group: 'General',
    help: 'Log to this file (mode 0600) instead of the system log.',
    set: verbatim('logFile'),
  },
  {
    name: 'log-size',
    value: 'BYTES',
    group: 'General',
    help: 'Largest size of the log file; when it is full, its oldest third is removed.',
    default: '1 MiB',
    set: parsed('logBytes', (text) =>
      whole(text, MIN_LOG_BYTES, Number.MAX_SAFE_INTEGER, `Invalid --log-size: ${text}`),
    ),
  },
  {
    name: 'runas',
    value: 'USER[:GROUP]',
    group: 'General',
    help: 'Run as this user and group, by number or name, when started as root.',
    default: 'nobody',
    set: (d, text) => {
      if (!/^[^:]+(:[^:]+)?$/.test(text)) throw new UsageError(`Invalid --runas option: ${text}`);
      d.runas = text;
    },
  },
  {
    name: 'conf-path',
    short: 'c',
    value: 'PATH',
    group: 'General',
    help: 'Socket on which port forwarding can be changed while running.',
    set: (d, text) => {
      if (text === '' || Buffer.byteLength(text) >= SOCKET_PATH_BYTES)
        throw new UsageError(`Invalid configuration path: ${text}`);
      d.confPath = text;
    },
  },
  {
    name: 'api-socket',
    ours: true,
    value: 'PATH',
    group: 'General',
    help: `${API_SOCKET_HELP}; requests as in slirp4netns(1). passt's pasta does not have this option.`,
    set: (d, text, written) => {
      d.apiSocket = named(written, text, parseSocketPath);
    },
  },
  { name: 'help', short: 'h', group: 'General', help: 'Print this text and exit.' },
  { name: 'version', group: 'General', help: 'Print the version and exit.' },
  {
    name: 'pcap',
    short: 'p',
    value: 'FILE',
    group: 'General',
    help: 'Write all frames of the interface, in both directions, to a capture file.',
    set: (d, text) => {
      if (text === '') throw new UsageError('Invalid pcap path: ');
      d.pcap = text;
    },
  },
  {
    name: 'pid',
    short: 'P',
    value: 'FILE',
    group: 'General',
    help: 'Write the process id to this file once the network is ready.',
    set: (d, text) => {
      if (text === '') throw new UsageError('Invalid PID file: ');
      d.pidFile = text;
    },
  },
  {
    name: 'mtu',
    short: 'm',
    value: 'BYTES',
    group: 'Addresses',
    help: 'MTU inside, also offered by DHCP and router advertisements. 0: keep that of the kernel and offer none.',
    default: String(DEFAULT_MTU),
    set: (d, text) => {
      const mtu = cNumber(text);
      if (mtu === undefined) throw new UsageError(`Invalid MTU: ${text}`);
      if (mtu > MAX_MTU) throw new UsageError(Message.mtuTooLarge(mtu, MAX_MTU));
      d.mtu = Number(mtu);
    },
  },
  {
    name: 'address',
    short: 'a',
    value: 'ADDR[/LEN]',
    group: 'Addresses',
    help: "Address inside, at most one per family, instead of the host's. IPv6 addresses are /64.",
    default: "the host interface's",
    set: setAddress,
  },
  {
    name: 'netmask',
    short: 'n',
    value: 'MASK',
    group: 'Addresses',
    help: 'IPv4 netmask, for example 255.255.255.0 or 24.',
    default: "that of the host's address; with --address, that of its address class",
    set: (d, text) => {
      const length = maskLength(text);
      if (length === undefined) throw new UsageError(`Invalid prefix length: ${text}`);
      if (d.prefixWritten) throw new UsageError(Message.redundantPrefix);
      d.prefixLen4 = length;
      d.netmaskWritten = true;
    },
  },
  {
    name: 'mac-addr',
    short: 'M',
    value: 'MAC',
    group: 'Addresses',
    help: "The gateway's MAC address inside.",
    default: DEFAULT_MAC,
    set: parsed('mac', mac),
  },
  {
    name: 'gateway',
    short: 'g',
    value: 'ADDR',
    group: 'Addresses',
    help: 'Default gateway inside, one per family. The routes of that family are then not copied.',
    default: "the host's",
    set: (d, text) =>
      put(d, 'gateway', text, `Invalid gateway address: ${text}`, { unicast: true, loopback: false }),
  },
  {
    name: 'interface',
    short: 'i',
    value: 'NAME',
    group: 'Addresses',
    help: 'Host interface whose addresses and routes are copied.',
    default: 'that of --outbound-if4 and --outbound-if6, or of the first default route',
    set: (d, text) => {
      // One that cannot exist is told like one that does not.
      if (!isInterfaceName(text)) throw new UsageError(Message.noSuchInterface(text));
      d.interface = text;
    },
  },
  {
    name: 'outbound',
    short: 'o',
    value: 'ADDR',
    group: 'Addresses',
    help: 'Source address of outbound connections, one per family.',
    default: "the kernel's choice",
    set: (d, text) =>
      put(d, 'outbound', text, `Invalid or redundant outbound address: ${text}`, {
        unicast: true,
        loopback: 'ipv4',
      }),
  },
  {
    name: 'outbound-if4',
    value: 'NAME',
    group: 'Addresses',
    help: 'Interface that outbound IPv4 connections are bound to.',
    set: parsed('outboundIf4', interfaceName),
  },
  {
    name: 'outbound-if6',
    value: 'NAME',
    group: 'Addresses',
    help: 'Interface that outbound IPv6 connections are bound to.',
    set: parsed('outboundIf6', interfaceName),
  },
  {
    name: 'dns',
    short: 'D',
    value: 'ADDR|none',
    group: 'Names',
    help: 'Resolver to offer inside, up to three per family. none: offer none.',
    default: 'those of resolv.conf, by family',
    set: setDns,
  },
  {
    name: 'dns-forward',
    value: 'ADDR',
    group: 'Names',
    help: "Queries to this address inside go to the host's resolvers; one per family.",
    set: (d, text) =>
      put(d, 'dnsForward', text, `Invalid DNS forwarding address: ${text}`, {
        unicast: false,
        loopback: false,
      }),
  },
  {
    name: 'dns-host',
    value: 'ADDR',
    group: 'Names',
    help: 'Resolver that gets the queries to --dns-forward; one per family.',
    default: 'those of resolv.conf, followed when it changes',
    set: (d, text) =>
      put(d, 'dnsHost', text, `Invalid host nameserver address: ${text}`, { unicast: false, loopback: true }),
  },
  {
    name: 'search',
    short: 'S',
    value: 'DOMAIN|none',
    group: 'Names',
    help: 'Search domain to offer inside, up to six. none: offer none.',
    default: 'those of resolv.conf',
    set: (d, text) => {
      if (text === 'none') {
        d.search = [];
        return;
      }
      if (text === '') throw new UsageError(Message.cannotUseSearch(text));
      const added = text.split(/[ ,]+/).filter((word) => word !== '');
      for (const name of added) {
        nameLength(name, `Invalid search domain: ${name}`);
        warnUnlessName(d, '--search', name);
      }
      if ((d.search ?? []).length >= MAX_SEARCH_DOMAINS) throw new UsageError(Message.cannotUseSearch(text));
      d.search = [...(d.search ?? []), ...added];
    },
  },
  {
    name: 'dhcp-dns',
    group: 'Names',
    help: 'Offer resolvers by DHCP, DHCPv6 and router advertisements.',
    set: fixed('dhcpDns', true),
  },
  {
    name: 'dhcp-search',
    group: 'Names',
    help: 'Offer search domains by DHCP, DHCPv6 and router advertisements.',
    set: fixed('dhcpSearch', true),
  },
  {
    name: 'hostname',
    short: 'H',
    value: 'NAME',
    group: 'Names',
    help: 'Host name to offer by DHCP; COMMAND runs with it too.',
    default: 'none; COMMAND runs with pasta-HOSTNAME',
    set: (d, text) => {
      nameLength(text, `Invalid hostname: ${text}`);
      d.hostname = text;
    },
  },
  {
    name: 'fqdn',
    value: 'NAME',
    group: 'Names',
    help: 'Full host name to offer by DHCP and DHCPv6.',
    set: (d, text) => {
      nameLength(text, `Invalid FQDN: ${text}`);
      warnUnlessName(d, '--fqdn', text);
      d.fqdn = text;
    },
  },
  { name: 'no-tcp', group: 'Services', help: 'No TCP.', set: fixed('tcp', false) },
  { name: 'no-udp', group: 'Services', help: 'No UDP.', set: fixed('udp', false) },
  {
    name: 'no-icmp',
    group: 'Services',
    help: 'No ICMP, and with it no neighbour discovery.',
    set: (d) => {
      d.icmp = false;
      d.ndp = false;
    },
  },
  { name: 'no-dhcp', group: 'Services', help: 'No DHCP server.', set: fixed('dhcp', false) },
  { name: 'no-dhcpv6', group: 'Services', help: 'No DHCPv6 server.', set: fixed('dhcpv6', false) },
  { name: 'no-ndp', group: 'Services', help: 'No answers to neighbour discovery.', set: fixed('ndp', false) },
  { name: 'no-ra', group: 'Services', help: 'No router advertisements.', set: fixed('ra', false) },
  {
    name: 'freebind',
    group: 'Services',
    help: 'Allow published ports on addresses that the host does not have (yet).',
    set: fixed('freebind', true),
  },
  {
    name: 'map-host-loopback',
    value: 'ADDR|none',
    group: 'Addresses',
    help: "Connections to this address inside reach the host's loopback; one per family.",
    default: 'the gateway',
    set: (d, text) => setMap(d, 'mapHostLoopback', text),
  },
  {
    name: 'no-map-gw',
    group: 'Addresses',
    help: "Do not map the gateway's address to the host's loopback.",
    set: fixed('mapGateway', false),
  },
  {
    name: 'map-guest-addr',
    value: 'ADDR|none',
    group: 'Addresses',
    help: "Connections to this address inside reach the host's own address; one per family.",
    set: (d, text) => setMap(d, 'mapGuestAddr', text),
  },
  {
    name: 'ipv4-only',
    short: '4',
    group: 'Addresses',
    help: 'IPv4 only.',
    set: (d) => {
      d.ipv4 = true;
      d.ipv6 = false;
    },
  },
  {
    name: 'ipv6-only',
    short: '6',
    group: 'Addresses',
    help: 'IPv6 only.',
    set: (d) => {
      d.ipv4 = false;
      d.ipv6 = true;
    },
  },
  port(
    't',
    'tcp-ports',
    'TCP ports of the host to forward into the namespace: none, auto, all, or a list separated by commas, for example 80, 8080:80, 127.0.0.1/80 or 1000-1010,~1005 (a range without 1005).',
  ),
  port('u', 'udp-ports', 'The same for UDP.'),
  port('T', 'tcp-ns', "TCP ports on the namespace's loopback to forward to the host's loopback."),
  port('U', 'udp-ns', 'The same for UDP.'),
  {
    name: 'ns-ifname',
    short: 'I',
    value: 'NAME',
    group: 'Namespaces',
    help: 'Name of the interface inside.',
    default: 'that of the copied interface, else tap0',
    set: parsed('nsIfname', interfaceName),
  },
  {
    name: 'userns',
    value: 'PATH',
    group: 'Namespaces',
    help: 'User namespace to enter.',
    set: (d, text) => {
      if (text === '') throw new UsageError('Invalid userns: ');
      d.userns = text;
      d.netnsOnly = false;
    },
  },
  {
    name: 'netns',
    value: 'PATH|NAME',
    group: 'Namespaces',
    help: 'Network namespace to connect: a path, or a name in /run/netns.',
    set: (d, text) => {
      if (text === '') throw new UsageError('Invalid network namespace: empty');
      d.netns = text.includes('/') ? text : `/run/netns/${text}`;
    },
  },
  {
    name: 'netns-only',
    group: 'Namespaces',
    help: 'Neither make nor enter a user namespace.',
    set: (d) => {
      d.netnsOnly = true;
      delete d.userns;
    },
  },
  {
    name: 'no-netns-quit',
    group: 'Namespaces',
    help: 'Keep running when the network namespace is gone.',
    set: fixed('netnsQuit', false),
  },
  {
    name: 'no-pidns',
    group: 'Namespaces',
    help: 'No PID namespace for the command.',
    set: fixed('pidns', false),
  },
  {
    name: 'config-net',
    group: 'Namespaces',
    help: 'Configure the interface inside: addresses, routes, up.',
    set: fixed('configNet', true),
  },
  {
    name: 'no-copy-routes',
    group: 'Namespaces',
    help: 'With --config-net: only a default route. Deprecated.',
    set: (d) => {
      d.copyRoutes = false;
      d.warnings.push(Message.deprecated('--no-copy-routes'));
    },
  },
  {
    name: 'no-copy-addrs',
    group: 'Namespaces',
    help: 'With --config-net: only one address per family. Deprecated.',
    set: (d) => {
      d.copyAddrs = false;
      d.warnings.push(Message.deprecated('--no-copy-addrs'));
    },
  },
  {
    name: 'ns-mac-addr',
    value: 'MAC',
    group: 'Namespaces',
    help: 'MAC address of the interface inside.',
    default: 'random',
    set: parsed('nsMac', mac),
  },
  {
    name: 'host-lo-to-ns-lo',
    group: 'Ports',
    help: "Connections from the host's loopback arrive at the namespace's loopback.",
    set: fixed('hostLoToNsLo', true),
  },
  {
    name: 'no-splice',
    group: 'Ports',
    help: "Connections from the host's loopback arrive through the interface, like all others.",
    set: fixed('splice', false),
  },
  {
    name: 'splice-only',
    group: 'Ports',
    help: 'Make no interface; forward loopback ports only.',
    set: fixed('spliceOnly', true),
  },
  {
    name: 'fd',
    short: 'F',
    value: 'FD',
    group: 'Namespaces',
    help: 'Use this descriptor instead of making an interface: an open TAP, or a connected socket that carries one Ethernet frame per packet (SOCK_SEQPACKET) or datagram. pasta ends when the other side closes the socket.',
    set: (d, text) => {
      // As a shell writes it: the launcher keeps this one open, and has to know it by its digits.
      const fd = /^(0|[1-9][0-9]{0,9})$/.test(text) ? Number(text) : -1;
      if (fd < MIN_FD || fd > MAX_INT) throw new UsageError(`Invalid --fd: ${text}`);
      d.fd = fd;
    },
  },
  {
    name: 'chroot-fallback',
    group: 'General',
    help: 'Isolate from the files of the host by chroot where pivot_root does not work (as root in an initramfs).',
    set: fixed('chrootFallback', true),
  },
  passtOnly('socket', 's', 'PATH', undefined, '-s'),
  passtOnly('socket-path', undefined, 'PATH', undefined, '-s'),
  passtOnly('one-off', '1', undefined, 'passt'),
  passtOnly('vhost-user'),
  passtOnly('print-capabilities'),
  passtOnly('repair-path', undefined, 'PATH', 'vhost-user'),
  passtOnly('migrate-exit', undefined, undefined, 'vhost-user'),
  passtOnly('migrate-no-linger', undefined, undefined, 'vhost-user'),
  passtOnly('no-dhcp-dns', undefined, undefined, 'passt'),
  passtOnly('no-dhcp-search', undefined, undefined, 'passt'),
];

export const OPTIONS: readonly PastaOption[] = ENTRIES.map((e) => ({
  ...e,
  takesValue: e.value !== undefined,
}));

/** What help, man page and completion show. */
export const SHOWN_OPTIONS: readonly PastaOption[] = OPTIONS.filter((o) => !o.passtOnly);

export type Parsed =
  | {
      readonly kind: 'go';
      readonly conf: PastaConf;
      readonly target: PastaTarget;
      /** No command was written: the user's shell, as a login shell. */
      readonly login: boolean;
      readonly warnings: readonly string[];
    }
  | { readonly kind: 'help' | 'version' }
  /** The options cannot be read: the usage text follows the message. */
  | { readonly kind: 'usage'; readonly error: string };

/**
 * @param argv  words behind the program's name
 * @param env   for SHELL
 * @throws UsageError with pasta's message
 */
export function parsePasta(argv: readonly string[], env: NodeJS.ProcessEnv = {}): Parsed {
  const words = getopt(argv, OPTIONS);
  const draft = defaults();
  for (const { option, value, written } of words.options) {
    if (option.name === 'help' || option.name === 'version') return { kind: option.name };
    try {
      option.set?.(draft, value, written);
    } catch (error) {
      if (!(error instanceof UsageError) || !CONTROL.test(value)) throw error;
      throw new UsageError(error.message.replaceAll(value, escaped(value))); // one line, whatever was written
    }
  }
  if (words.error !== undefined) return { kind: 'usage', error: words.error };
  const target = targetOf(draft, words.operands, env);
  finish(draft, target);
  const { prefixWritten, netmaskWritten, warnings, ...conf } = draft;
  const login = target.kind === 'command' && words.operands.length === 0;
  return { kind: 'go', conf, target, login, warnings };
}

function defaults(): Draft {
  return {
    ipv4: true,
    ipv6: true,
    mtu: DEFAULT_MTU,
    mac: DEFAULT_MAC,
    dhcpDns: false,
    dhcpSearch: false,
    tcp: true,
    udp: true,
    icmp: true,
    dhcp: true,
    dhcpv6: true,
    ndp: true,
    ra: true,
    freebind: false,
    mapGateway: true,
    ports: [],
    netnsOnly: false,
    netnsQuit: true,
    pidns: true,
    configNet: false,
    copyRoutes: true,
    copyAddrs: true,
    hostLoToNsLo: false,
    splice: true,
    spliceOnly: false,
    chrootFallback: false,
    foreground: false,
    verbosity: 'normal',
    logBytes: DEFAULT_LOG_BYTES,
    warnings: [],
  };
}

function targetOf(draft: Draft, operands: readonly string[], env: NodeJS.ProcessEnv): PastaTarget {
  if (draft.netns !== undefined) {
    if (operands.length > 0) throw new UsageError(Message.bothNetnsAndOperand);
    return { kind: 'netns', path: draft.netns };
  }
  const [first] = operands;
  if (operands.length === 1 && /^[0-9]+$/.test(first!)) {
    const pid = Number(first);
    if (pid > MAX_INT) throw new UsageError(Message.invalidPid(first!));
    return { kind: 'pid', pid };
  }
  // Without a command the user's shell, as a login shell.
  return { kind: 'command', argv: operands.length > 0 ? operands : [env.SHELL || '/bin/sh'] };
}

function finish(draft: Draft, target: PastaTarget): void {
  if (target.kind !== 'command' && !draft.pidns)
    throw new UsageError('--no-pidns is incompatible with PID or --netns');
  for (const [on, name] of [
    [draft.copyRoutes, '--no-copy-routes'],
    [draft.copyAddrs, '--no-copy-addrs'],
  ] as const) {
    if (!on && !draft.configNet) throw new UsageError(Message.needsConfigNet(name));
  }
  // The path alone says where to go.
  if (target.kind === 'netns' && draft.userns === undefined) draft.netnsOnly = true;
  if (draft.configNet) draft.ra = false;
  if (draft.spliceOnly) {
    if (!draft.splice) throw new UsageError('--splice-only is incompatible with --no-splice');
    if (draft.fd !== undefined) throw new UsageError('--splice-only is incompatible with --fd');
    draft.hostLoToNsLo = true;
    draft.icmp = false;
  }
  if (draft.hostLoToNsLo && !draft.splice)
    throw new UsageError('--host-lo-to-ns-lo is incompatible with --no-splice');
  if (draft.mtu !== 0) {
    if (draft.ipv4 && draft.mtu < IPV4_MIN_MTU)
      draft.warnings.push(Message.mtuTooSmall(draft.mtu, 4, IPV4_MIN_MTU));
    if (draft.ipv6 && draft.mtu < IPV6_MIN_MTU)
      draft.warnings.push(Message.mtuTooSmall(draft.mtu, 6, IPV6_MIN_MTU));
    if (draft.mtu < IPV4_MIN_MTU) draft.mtu = 0; // no Ethernet device takes it
  }
}

// ---- values -------------------------------------------------------------------------------------------------------

type FamilyKey = 'gateway' | 'outbound' | 'dnsForward' | 'dnsHost' | 'mapHostLoopback' | 'mapGuestAddr';

interface AddressRules {
  readonly unicast: boolean;
  readonly loopback: boolean | 'ipv4';
}

/** Put an address into the field of its family. */
function put(draft: Draft, key: FamilyKey, text: string, message: string, rules: AddressRules): void {
  const address = usable(text, rules);
  if (address === undefined) throw new UsageError(message);
  Object.assign(draft, { [`${key}${address.includes(':') ? 6 : 4}`]: address });
}

/**
 * The address in its canonical spelling; undefined when it is none, or none of the kind that is asked for.
 */
function usable(text: string, rules: AddressRules): string | undefined {
  const address = addressOf(text);
  if (address === undefined) return undefined;
  if (!address.includes(':')) {
    const first = Number(address.slice(0, address.indexOf('.')));
    if (address === '0.0.0.0' || address === '255.255.255.255') return undefined;
    if (first === 127 && rules.loopback === false) return undefined;
    return rules.unicast && first >= 224 && first < 240 ? undefined : address;
  }
  if (address === '::' || address.startsWith('::ffff:')) return undefined;
  if (address === '::1' && rules.loopback !== true) return undefined;
  return rules.unicast && address.startsWith('ff') ? undefined : address;
}

function setAddress(draft: Draft, text: string): void {
  const slash = text.indexOf('/');
  const written = slash < 0 ? text : text.slice(0, slash);
  // In brackets or not; an IPv4 address may be mapped into IPv6, and its prefix length is then 96 bits more.
  const address = usable(canonicalAddress(written) ?? '', { unicast: true, loopback: false });
  if (address === undefined) throw new UsageError(`Invalid guest address: ${text}`);
  const v6 = address.includes(':');
  const beforeBits = !v6 && written.includes(':') ? V4_MAPPED_BITS : 0;
  if (slash >= 0) {
    const length = text.slice(slash + 1);
    // The original reads a number first, and only then looks at what it is.
    if (!/^-?[0-9]+(\.[0-9.]*)?$/.test(length)) throw new UsageError(`Invalid guest address: ${text}`);
    const bits = /^[0-9]{1,3}$/.test(length) ? Number(length) - beforeBits : -1;
    if (bits < 0 || bits > (v6 ? 128 : 32)) throw new UsageError(`Invalid prefix length: ${text}`);
    if (!v6) {
      if (draft.netmaskWritten) throw new UsageError(Message.redundantPrefix);
      if (bits > 0) draft.prefixLen4 = bits;
      draft.prefixWritten = true;
    }
  }
  if (v6) draft.address6 = address;
  else draft.address4 = address;
}

function setDns(draft: Draft, text: string): void {
  if (text === 'none') {
    draft.dns = [];
    for (const key of ['dnsForward4', 'dnsForward6', 'dnsHost4', 'dnsHost6'] as const) delete draft[key];
    return;
  }
  const address = addressOf(text);
  if (address === undefined) throw new UsageError(`Cannot use DNS address ${text}`);
  const list = draft.dns ?? [];
  const family = list.filter((a) => a.includes(':') === address.includes(':'));
  if (family.length === MAX_DNS_PER_FAMILY) draft.warnings.push(`Too many nameservers, ${text} is left out`);
  else draft.dns = [...list, address];
}

function setMap(draft: Draft, key: 'mapHostLoopback' | 'mapGuestAddr', text: string): void {
  if (text === 'none') {
    delete draft[`${key}4`];
    delete draft[`${key}6`];
    if (key === 'mapHostLoopback') draft.mapGateway = false;
    return;
  }
  put(draft, key, text, `Invalid address to remap to host: ${text}`, { unicast: true, loopback: false });
}

function mac(text: string): string {
  const bytes = macParse(text);
  // The lowest bit of the first byte means a group: no interface has such an address (IEEE 802 section 8.2).
  if (bytes === null || (bytes[0]! & 1) === 1 || bytes.every((byte) => byte === 0))
    throw new UsageError(`Invalid MAC address: ${text}`);
  return macText(bytes, 0);
}

function interfaceName(text: string): string {
  if (!isInterfaceName(text)) throw new UsageError(`Invalid interface name: ${text}`);
  return text;
}

function nameLength(text: string, message: string): void {
  if (text.length > MAX_NAME_CHARS) throw new UsageError(message);
}

/** DHCP cannot carry what has no labels of 1 to 63 characters; "." and nothing are no name on purpose. */
function warnUnlessName(draft: Draft, option: string, text: string): void {
  if (text !== '' && text !== '.' && domainLabels(text) === null)
    draft.warnings.push(Message.noDomainName(option, quoted(text)));
}

/** Prefix length of "24" or "255.255.255.0"; undefined: neither, or holes in the mask. */
function maskLength(text: string): number | undefined {
  if (/^[0-9]{1,2}$/.test(text)) return Number(text) <= 32 ? Number(text) : undefined;
  const mask = ipv4Parse(text);
  if (mask < 0) return undefined;
  const bits = mask.toString(2).padStart(32, '0');
  const length = bits.indexOf('0') < 0 ? 32 : bits.indexOf('0');
  return bits.includes('1', length) ? undefined : length;
}

/**
 * A number as strtoul(3) with base 0 reads it: white space and a sign in front, 0x hexadecimal, 0 octal; a
 * negative one wraps.
 * @returns undefined for anything else and for what 64 bits do not hold
 */
function cNumber(text: string): bigint | undefined {
  const [, sign, digits = ''] = /^\s*([+-]?)(0x[0-9a-f]+|0[0-7]*|[1-9][0-9]*)$/i.exec(text) ?? [];
  if (sign === undefined) return undefined;
  const value = BigInt(/^0[0-7]/.test(digits) ? `0o${digits}` : digits);
  if (value >= 1n << 64n) return undefined;
  return sign === '-' ? BigInt.asUintN(64, -value) : value;
}

function whole(text: string, min: number, max: number, message: string): number {
  const value = cNumber(text);
  if (value === undefined || value < min || value > max) throw new UsageError(message);
  return Number(value);
}
