/**
 * The options of `pasta`: the one table behind parsing, help, manual page and shell completion. Names,
 * values, defaults and rejections are those of passt's pasta; the help texts are ours.
 *
 * An entry's `set` stores the value in a draft and throws UsageError, with pasta's message, when the value is
 * wrong. parse.ts checks what depends on several options. Port specifications are stored unparsed:
 * port-spec.ts parses them when the addresses are known.
 */

import { CAPTURE_OPTIONS } from '../cli/capture-options.ts';
import type { OptionShape } from '../cli/getopt.ts';
import { LINE_MTU, LINE_OPTIONS } from '../cli/lines.ts';
import { LISTEN_ADDRESS, parseListenAddress } from '../cli/listen-address.ts';
import { LOG_FORMAT_OPTION } from '../cli/log-option.ts';
import { addMulticast, MULTICAST_HELP, parseMulticast } from '../cli/multicast.ts';
import { NAT64_HELP, NAT64_VALUE, parseNat64 } from '../cli/nat64.ts';
import {
  API_SOCKET_AUTO,
  API_SOCKET_HELP,
  fieldsOf,
  METRICS_HELP,
  POLICY_OPTIONS,
} from '../cli/option-fields.ts';
import { NO_SWITCH_OPTION, SWITCH_SOCKETS_HELP } from '../cli/switch-options.ts';
import {
  DEFAULT_MTU,
  isInterfaceName,
  MAX_MTU,
  named,
  parseSocketPath,
  SOCKET_PATH_BYTES,
  UsageError,
} from '../cli/values.ts';
import { DEFAULT_MAC, type Draft, MAX_INT, type PortOption } from './conf.ts';
import { ForwardMessage } from './forward-messages.ts';
import { Message } from './messages.ts';
import {
  CONTROL,
  checkNameLength,
  cNumber,
  maskLength,
  parseInterfaceName,
  parseMac,
  putAddress,
  setAddress,
  setDns,
  setMappedAddress,
  warnUnlessDomainName,
  wholeNumber,
} from './option-values.ts';

const MIN_LOG_BYTES = 40 * 1024;
const MIN_FD = 3; // 0 to 2 are standard input, output and error
const MAX_SEARCH_DOMAINS = 6; // resolv.conf(5)

/** An entry of the table. */
export interface PastaOption extends OptionShape {
  /** Name of the value in help; absent: a flag. */
  readonly value?: string;
  readonly group: 'General' | 'Addresses' | 'Names' | 'Services' | 'Ports' | 'Namespaces';
  readonly help: string;
  readonly default?: string;
  /** An option of passt only: refused, and left out of all texts. */
  readonly passtOnly?: true;
  /**
   * Store the value; absent: the option has no effect here.
   * @param written  the option as the user wrote it: "--mtu", "-m"
   */
  readonly set?: (draft: Draft, value: string, written: string) => void;
}

type Entry = Omit<PastaOption, 'takesValue'>;

const { fixed, verbatim, parsed } = fieldsOf<Draft>();

/**
 * An option of passt, which serves virtual machines.
 * @param mode     the mode that passt's message names
 * @param spelled  the option as passt's message spells it, however it was written
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

/** A port option. */
const port = (letter: PortOption, name: string, help: string): Entry => ({
  name,
  short: letter,
  value: 'SPEC',
  group: 'Ports',
  help,
  default: 'auto',
  set: (draft, spec, written) => {
    // The specification is parsed later. Control characters are refused here, because the message must be one
    // line.
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
      d.statsSeconds = wholeNumber(text, 1, 86_400, `Invalid statistics interval: ${text}`);
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
      wholeNumber(text, MIN_LOG_BYTES, Number.MAX_SAFE_INTEGER, `Invalid --log-size: ${text}`),
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
    value: 'PATH|auto',
    group: 'General',
    help: `${API_SOCKET_HELP}; requests as in slirp4netns(1). ${API_SOCKET_AUTO} passt's pasta does not have this option.`,
    set: (d, text, written) => {
      d.apiSocket = named(written, text, parseSocketPath);
    },
  },
  {
    name: LOG_FORMAT_OPTION.name,
    ours: true,
    value: LOG_FORMAT_OPTION.value,
    group: 'General',
    help: `${LOG_FORMAT_OPTION.help} For --log-file too. passt's pasta does not have this option.`,
    default: LOG_FORMAT_OPTION.default,
    set: (d, text, written) => {
      d.logFormat = named(written, text, LOG_FORMAT_OPTION.parse);
    },
  },
  {
    name: 'metrics',
    ours: true,
    value: LISTEN_ADDRESS,
    group: 'General',
    help: `${METRICS_HELP} passt's pasta does not have this option.`,
    set: (d, text, written) => {
      d.metrics = named(written, text, parseListenAddress);
    },
  },
  {
    name: 'multicast',
    ours: true,
    value: 'all|GROUP[:PORT],…',
    group: 'Services',
    help: `${MULTICAST_HELP} passt's pasta does not have this option.`,
    set: (d, text, written) => {
      d.multicast = addMulticast(d.multicast, named(written, text, parseMulticast));
    },
  },
  {
    name: 'nat64',
    ours: true,
    value: NAT64_VALUE,
    group: 'Services',
    help: `${NAT64_HELP} Default: off. passt's pasta does not have this option.`,
    set: (d, text, written) => {
      d.nat64 = named(written, text, parseNat64);
    },
  },
  {
    name: 'switch-sockets',
    ours: true,
    group: 'Services',
    help: `${SWITCH_SOCKETS_HELP} passt's pasta does not have this option.`,
    set: fixed('switchSockets', true),
  },
  {
    name: NO_SWITCH_OPTION.name,
    ours: true,
    value: NO_SWITCH_OPTION.value,
    group: 'Services',
    help: `${NO_SWITCH_OPTION.help} passt's pasta does not have this option.`,
    set: (d, text, written) => named(written, text, () => NO_SWITCH_OPTION.set(d, text)),
  },
  ...POLICY_OPTIONS.map(
    ({ name, value, help, set }): Entry => ({
      ...{ name, ours: true, value, group: 'Services' },
      help: `${help} passt's pasta does not have this option.`,
      set: (d, text, written) => named(written, text, () => set(d, text)),
    }),
  ),
  ...LINE_OPTIONS.map(
    ({ name, value, help }): Entry => ({
      ...{ name, ours: true, value, group: 'Services' },
      help: `${help} passt's pasta does not have this option.`,
      set: (d, text) => {
        d.lineOptions = [...(d.lineOptions ?? []), [name, text]];
      },
    }),
  ),
  { name: 'help', short: 'h', group: 'General', help: 'Print this text and exit.' },
  { name: 'version', group: 'General', help: 'Print the version and exit.' },
  {
    name: 'pcap',
    short: 'p',
    value: 'FILE',
    group: 'General',
    help: "Write all frames of the interface, in both directions, to a capture file: as pcapng, with directions, comments and counters, if its name ends with .pcapng, which passt's pasta does not have, else as pcap.",
    set: (d, text) => {
      if (text === '') throw new UsageError('Invalid pcap path: ');
      d.pcap = text;
    },
  },
  ...CAPTURE_OPTIONS.map(
    ({ set, help, ...row }): Entry => ({
      ...{ ...row, ours: true, group: 'General' },
      help: `${help} passt's pasta does not have this option.`,
      set: (d, text, written) => named(written, text, () => set(d, text)),
    }),
  ),
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
    default: `${DEFAULT_MTU}; ${LINE_MTU} with an emulated line`,
    set: (d, text) => {
      const mtu = cNumber(text);
      if (mtu === undefined) throw new UsageError(`Invalid MTU: ${text}`);
      if (mtu > MAX_MTU) throw new UsageError(Message.mtuTooLarge(mtu, MAX_MTU));
      d.mtu = Number(mtu);
      d.mtuWritten = true;
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
    set: parsed('mac', parseMac),
  },
  {
    name: 'gateway',
    short: 'g',
    value: 'ADDR',
    group: 'Addresses',
    help: 'Default gateway inside, one per family. The routes of that family are then not copied.',
    default: "the host's",
    set: (d, text) =>
      putAddress(d, 'gateway', text, `Invalid gateway address: ${text}`, { unicast: true, loopback: false }),
  },
  {
    name: 'interface',
    short: 'i',
    value: 'NAME',
    group: 'Addresses',
    help: 'Host interface whose addresses and routes are copied.',
    default: 'that of --outbound-if4 and --outbound-if6, or of the first default route',
    set: (d, text) => {
      // A name that cannot exist gets the same message as one that does not exist.
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
      putAddress(d, 'outbound', text, `Invalid or redundant outbound address: ${text}`, {
        unicast: true,
        loopback: 'ipv4',
      }),
  },
  {
    name: 'outbound-if4',
    value: 'NAME',
    group: 'Addresses',
    help: 'Interface that outbound IPv4 connections are bound to.',
    set: parsed('outboundIf4', parseInterfaceName),
  },
  {
    name: 'outbound-if6',
    value: 'NAME',
    group: 'Addresses',
    help: 'Interface that outbound IPv6 connections are bound to.',
    set: parsed('outboundIf6', parseInterfaceName),
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
      putAddress(d, 'dnsForward', text, `Invalid DNS forwarding address: ${text}`, {
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
      putAddress(d, 'dnsHost', text, `Invalid host nameserver address: ${text}`, {
        unicast: false,
        loopback: true,
      }),
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
        checkNameLength(name, `Invalid search domain: ${name}`);
        warnUnlessDomainName(d, '--search', name);
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
      checkNameLength(text, `Invalid hostname: ${text}`);
      d.hostname = text;
    },
  },
  {
    name: 'fqdn',
    value: 'NAME',
    group: 'Names',
    help: 'Full host name to offer by DHCP and DHCPv6.',
    set: (d, text) => {
      checkNameLength(text, `Invalid FQDN: ${text}`);
      warnUnlessDomainName(d, '--fqdn', text);
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
    set: (d, text) => setMappedAddress(d, 'mapHostLoopback', text),
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
    set: (d, text) => setMappedAddress(d, 'mapGuestAddr', text),
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
    set: parsed('nsIfname', parseInterfaceName),
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
    set: parsed('nsMac', parseMac),
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
      // Decimal without leading zeros, as shells write it: the launcher compares the digits to keep this one
      // open.
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

/** The options that help, manual page and completion show. */
export const SHOWN_OPTIONS: readonly PastaOption[] = OPTIONS.filter((o) => !o.passtOnly);
