/**
 * The options of `slirp4netns`: the one table behind parsing, help, manual page and shell completion. Names,
 * values, defaults and rejections are those of slirp4netns 1.3.
 */
import { ipv4Parse } from '../../proto/ipv4.ts';
import { IFNAMSIZ } from '../../sys/constants.ts';
import type { ShapingPlan } from '../../workers/engine-plan.ts';
import { getopt, type OptionShape } from '../cli/getopt.ts';
import { LINE_OPTIONS, type LineOption, parseLineOptions } from '../cli/lines.ts';
import { LISTEN_ADDRESS, type ListenAddress, parseListenAddress } from '../cli/listen-address.ts';
import { LOG_FORMAT_OPTION, type LogFormat } from '../cli/log-option.ts';
import { addMulticast, MULTICAST_HELP, type MulticastChoice, parseMulticast } from '../cli/multicast.ts';
import { NAT64_HELP, NAT64_VALUE, type Nat64Choice, parseNat64 } from '../cli/nat64.ts';
import {
  API_SOCKET_AUTO,
  type EgressOptions,
  fieldsOf,
  METRICS_HELP,
  POLICY_OPTIONS,
} from '../cli/option-fields.ts';
import { addressOf, MAX_MTU, named, requireUtf8, UsageError } from '../cli/values.ts';
import { Message } from './messages.ts';

const DEFAULT_MTU = 1500;
/** A zero byte ends the name within IFNAMSIZ. */
const MAX_TAP_NAME_BYTES = IFNAMSIZ - 1;
/** The guest's address is that of the network + 100, which lies outside of a /26. */
const MAX_PREFIX_LEN = 25;

/** An IPv4 network. */
export interface Network {
  /** First address, as a u32. */
  readonly first: number;
  readonly prefixLen: number;
}

/** What to connect. */
export type SlirpTarget =
  | { readonly kind: 'netns'; readonly path: string; readonly pid?: number; readonly tapName: string }
  | { readonly kind: 'tapfd'; readonly fd: number }
  /** We make a socket at this path; it carries the frames. */
  | { readonly kind: 'bess'; readonly path: string };

/** The options, with defaults filled in. Plain data: it is posted to the namespace thread. */
export interface SlirpConf extends EgressOptions {
  readonly target: SlirpTarget;
  readonly configure: boolean;
  readonly exitFd?: number;
  readonly readyFd?: number;
  readonly mtu: number;
  readonly network: Network;
  readonly ipv6: boolean;
  readonly apiSocket?: string;
  /** Absent: text, or the journal. */
  readonly logFormat?: LogFormat;
  /** Where metrics are served; absent: nowhere. */
  readonly metrics?: ListenAddress;
  /** Absent: no multicast. */
  readonly multicast?: MulticastChoice;
  /** Absent: off. */
  readonly nat64?: Nat64Choice;
  /** Emulated lines; absent: none. */
  readonly shaping?: ShapingPlan;
  readonly hostLoopback: boolean;
  readonly outbound4?: string;
  readonly outbound6?: string;
  readonly dns: boolean;
  readonly mac?: string;
}

/** The options read so far, and texts that are checked when all have been read. */
type Draft = { -readonly [K in keyof Omit<SlirpConf, 'target'>]: SlirpConf[K] } & {
  cidr?: string;
  lineOptions?: readonly LineOption[];
  macText?: string;
  outbound4Text?: string;
  outbound6Text?: string;
  netnsType?: string;
  usernsPath?: string;
  targetType: string;
  readonly warnings: string[];
};

/** An entry of the table. */
export interface SlirpOption extends OptionShape {
  /** Name of the value in help; absent: a flag. */
  readonly value?: string;
  readonly help: string;
  readonly default?: string;
  /** A deprecated name: left out of help. */
  readonly hidden?: true;
  readonly set?: (draft: Draft, value: string) => void;
}

const { fixed, verbatim, parsed } = fieldsOf<Draft>();

type Entry = Omit<SlirpOption, 'takesValue'>;

const ENTRIES: readonly Entry[] = [
  {
    name: 'configure',
    short: 'c',
    help: 'Configure the interface inside: loopback and TAP up, MTU, address, default route.',
    set: fixed('configure', true),
  },
  {
    name: 'exit-fd',
    short: 'e',
    value: 'FD',
    help: 'Exit with status 0 when the other end of this descriptor is closed.',
    set: parsed('exitFd', (text) => parseDescriptor(text, 'exit-fd')),
  },
  {
    name: 'ready-fd',
    short: 'r',
    value: 'FD',
    help: 'Write "1" to this descriptor and close it once traffic flows.',
    set: parsed('readyFd', (text) => parseDescriptor(text, 'ready-fd')),
  },
  {
    name: 'mtu',
    short: 'm',
    value: 'BYTES',
    help: `MTU of the interface, up to ${MAX_MTU}.`,
    default: String(DEFAULT_MTU),
    set: (d, text) => {
      const mtu = Number(text);
      if (!/^[0-9]{1,9}$/.test(text) || mtu < 1 || mtu > MAX_MTU) throw new UsageError(Message.mtu);
      d.mtu = mtu;
    },
  },
  {
    name: 'enable-ipv6',
    short: '6',
    help: 'IPv6 as well: fd00::/64 by router advertisements.',
    set: (d) => {
      d.ipv6 = true;
      d.warnings.push(Message.experimental('IPv6'));
    },
  },
  {
    name: 'api-socket',
    short: 'a',
    value: 'PATH|auto',
    help: `Unix socket for requests while running, for example to forward ports of the host. ${API_SOCKET_AUTO} For a file of this name write ./auto.`,
    set: verbatim('apiSocket'),
  },
  {
    name: LOG_FORMAT_OPTION.name,
    ours: true,
    value: LOG_FORMAT_OPTION.value,
    help: `${LOG_FORMAT_OPTION.help} Only of those on standard error. The original does not have this option.`,
    default: LOG_FORMAT_OPTION.default,
    set: (d, text) => {
      d.logFormat = named('--log-format', text, LOG_FORMAT_OPTION.parse);
    },
  },
  {
    name: 'metrics',
    ours: true,
    value: LISTEN_ADDRESS,
    help: `${METRICS_HELP} The original does not have this option.`,
    set: (d, text) => {
      d.metrics = named('--metrics', text, parseListenAddress);
    },
  },
  {
    name: 'multicast',
    ours: true,
    value: 'all|GROUP[:PORT],…',
    help: `${MULTICAST_HELP} The original does not have this option.`,
    set: (d, text) => {
      d.multicast = addMulticast(d.multicast, named('--multicast', text, parseMulticast));
    },
  },
  {
    name: 'nat64',
    ours: true,
    value: NAT64_VALUE,
    help: `${NAT64_HELP} Default: off. The original does not have this option.`,
    set: (d, text) => {
      d.nat64 = named('--nat64', text, parseNat64);
    },
  },
  ...POLICY_OPTIONS.map(
    ({ name, value, help, set }): Entry => ({
      ...{ name, ours: true, value },
      help: `${help} The original does not have this option.`,
      set: (d, text) => named(`--${name}`, text, () => set(d, text)),
    }),
  ),
  ...LINE_OPTIONS.map(
    ({ name, value, help }): Entry => ({
      ...{ name, ours: true, value },
      help: `${help} The original does not have this option.`,
      set: (d, text) => {
        d.lineOptions = [...(d.lineOptions ?? []), [name, text]];
      },
    }),
  ),
  {
    name: 'cidr',
    value: 'CIDR',
    help: 'IPv4 network inside: gateway .2, DNS server .3, DHCP from .15, guest .100.',
    default: '10.0.2.0/24',
    set: verbatim('cidr'),
  },
  {
    name: 'disable-host-loopback',
    help: "Do not map the gateway's address to the host's 127.0.0.1.",
    set: fixed('hostLoopback', false),
  },
  {
    name: 'no-host-loopback',
    help: '',
    hidden: true,
    set: (d) => {
      d.hostLoopback = false;
      d.warnings.push(Message.deprecated('--no-host-loopback', '--disable-host-loopback'));
    },
  },
  {
    name: 'netns-type',
    value: 'TYPE',
    help: 'What the first operand is: pid, path, or tapfd (descriptor of an open TAP).',
    default: 'pid',
    set: verbatim('netnsType'),
  },
  {
    name: 'userns-path',
    value: 'PATH',
    help: 'User namespace to enter.',
    default: "that of PID; with a path, the caller's",
    set: verbatim('usernsPath'),
  },
  {
    name: 'enable-sandbox',
    help: 'No effect: the sandbox (empty root, no capabilities except for low ports) is always on.',
  },
  {
    name: 'create-sandbox',
    help: '',
    hidden: true,
    set: (d) => {
      d.warnings.push(Message.deprecated('--create-sandbox', '--enable-sandbox'));
    },
  },
  {
    name: 'enable-seccomp',
    help: 'No effect: the filter for system calls is always on.',
    set: (d) => {
      d.warnings.push(Message.experimental('seccomp'));
    },
  },
  {
    name: 'outbound-addr',
    value: 'IPv4|INTERFACE',
    help: 'Source address of outgoing IPv4 connections and datagrams.',
    set: (d, text) => {
      d.outbound4Text = text;
      d.warnings.push(Message.experimental('--outbound-addr'));
    },
  },
  {
    name: 'outbound-addr6',
    value: 'IPv6|INTERFACE',
    help: 'Source address of outgoing IPv6 connections and datagrams.',
    set: (d, text) => {
      d.outbound6Text = text;
      d.warnings.push(Message.experimental('--outbound-addr6'));
    },
  },
  {
    name: 'disable-dns',
    help: "Do not map the .3 address to the host's resolvers.",
    set: fixed('dns', false),
  },
  {
    name: 'macaddress',
    value: 'MAC',
    help: 'MAC address of the TAP; only with --configure.',
    default: 'random',
    set: verbatim('macText'),
  },
  {
    name: 'target-type',
    value: 'TYPE',
    help: 'netns, or bess: the operand is then the path of a socket that slirp4netns makes and User Mode Linux connects to (transport=bess).',
    default: 'netns',
    set: verbatim('targetType'),
  },
  { name: 'help', short: 'h', help: 'Print this text and exit.' },
  { name: 'version', short: 'v', help: 'Print the version and exit.' },
];

export { mayNeedLogFormat } from '../cli/log-option.ts';

export const OPTIONS: readonly SlirpOption[] = ENTRIES.map((e) => ({
  ...e,
  takesValue: e.value !== undefined,
}));

/** The options that help, manual page and completion show. */
export const SHOWN_OPTIONS: readonly SlirpOption[] = OPTIONS.filter((o) => o.hidden === undefined);

/** What parsing needs to know about the host. */
export interface SlirpHost {
  exists(path: string): boolean;
  /** First address of this family on an interface; undefined: no such interface, or no such address. */
  interfaceAddress(name: string, family: 4 | 6): string | undefined;
}

/** The result of parsing. */
export type Parsed =
  | { readonly kind: 'go'; readonly conf: SlirpConf; readonly warnings: readonly string[] }
  | { readonly kind: 'help' | 'version' }
  | {
      readonly kind: 'wrong';
      /** Empty: only the usage text is printed. */
      readonly error: string;
      /** Whether to print the usage text, on standard output. */
      readonly usage: boolean;
      readonly warnings: readonly string[];
    };

/**
 * Parse the command line. Wrong options give a result of kind 'wrong'; nothing is thrown for them.
 * @param argv     words after the program's name
 * @param program  name by which it was called, for getopt's messages
 */
export function parseSlirp(argv: readonly string[], program: string, host: SlirpHost): Parsed {
  const words = getopt(argv, OPTIONS, 'gnu');
  const draft: Draft = {
    configure: false,
    mtu: DEFAULT_MTU,
    network: { first: 0x0a000200, prefixLen: 24 },
    ipv6: false,
    hostLoopback: true,
    dns: true,
    targetType: 'netns',
    egress: [],
    warnings: [],
  };
  const { warnings } = draft;
  let usage = false;
  try {
    for (const { value, written } of words.options) requireUtf8(written, value);
    for (const operand of words.operands) requireUtf8('', operand);
    usage = true;
    for (const { option, value } of words.options) {
      if (option.name === 'help' || option.name === 'version') return { kind: option.name };
      option.set?.(draft, value);
      // As in the original, this error precedes errors of the options that follow.
      if (option.name === 'userns-path' && !host.exists(value))
        throw new UsageError(Message.usernsPath(value));
    }
    if (words.error !== undefined) throw new UsageError(`${program}: ${words.error}`);
    if (draft.macText !== undefined && !draft.configure) throw new UsageError(Message.macWithoutConfigure);
    const target = targetOf(draft, words.operands, host);
    usage = false; // errors in these values are printed without the usage text
    if (draft.cidr !== undefined) draft.network = parseCidr(draft.cidr);
    if (draft.macText !== undefined) draft.mac = parseMac(draft.macText);
    const outbound4 = outboundAddress(draft.outbound4Text, 4, host);
    const outbound6 = outboundAddress(draft.outbound6Text, 6, host);
    if (draft.lineOptions !== undefined) draft.shaping = parseLineOptions(draft.lineOptions);
    const { cidr, macText, outbound4Text, outbound6Text, netnsType, usernsPath, targetType, ...given } =
      draft;
    const { lineOptions, ...conf } = given;
    const { warnings: _, ...rest } = conf;
    return {
      kind: 'go',
      warnings,
      conf: {
        ...rest,
        target,
        ...(outbound4 !== undefined && { outbound4 }),
        ...(outbound6 !== undefined && { outbound6 }),
      },
    };
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    return { kind: 'wrong', error: error.message, usage, warnings };
  }
}

/** The target with --target-type=bess. @throws UsageError */
function bessTarget(draft: Draft, operands: readonly string[]): SlirpTarget {
  const [path] = operands;
  if (path === undefined) throw new UsageError('');
  if (operands.length > 1) throw new UsageError(Message.tooMany);
  for (const [option, given] of [
    ['configure', draft.configure],
    ['netns-type', draft.netnsType !== undefined],
    ['userns-path', draft.usernsPath !== undefined],
  ] as const) {
    if (given) throw new UsageError(Message.conflictsWithBess(option));
  }
  draft.warnings.push(Message.bessExperimental);
  return { kind: 'bess', path };
}

/** What to connect. @throws UsageError; an empty message: only the usage text is printed */
function targetOf(draft: Draft, operands: readonly string[], host: SlirpHost): SlirpTarget {
  if (draft.targetType === 'bess') return bessTarget(draft, operands);
  if (draft.targetType !== 'netns') throw new UsageError(Message.targetType);
  const [first, name] = operands;
  if (draft.netnsType === 'tapfd') {
    if (first === undefined) throw new UsageError('');
    if (operands.length > 1) draft.warnings.push(Message.tooManyArguments);
    return { kind: 'tapfd', fd: wholeNumber(first, 0, Message.tapFd) };
  }
  const byPid = (draft.netnsType ?? 'pid') === 'pid';
  if (first !== undefined && !byPid && !host.exists(first)) throw new UsageError(Message.path);
  if (first === undefined || name === undefined) throw new UsageError('');
  if (operands.length > 2) draft.warnings.push(Message.tooManyArguments);
  const tapName = Buffer.from(name).subarray(0, MAX_TAP_NAME_BYTES).toString();
  if (tapName === '') throw new UsageError(Message.tapName);
  const pid = byPid ? wholeNumber(first, 1, Message.pid) : undefined;
  return {
    kind: 'netns',
    path: pid === undefined ? first : `/proc/${pid}/ns/net`,
    tapName,
    ...(pid !== undefined && { pid }),
  };
}

const MAX_INT = 0x7fff_ffff;

/** @returns a number from `min` to INT_MAX. @throws UsageError with `message` */
function wholeNumber(text: string, min: number, message: string): number {
  const value = Number(text);
  if (!/^[0-9]{1,10}$/.test(text) || value < min || value > MAX_INT) throw new UsageError(message);
  return value;
}

const parseDescriptor = (text: string, option: string): number =>
  wholeNumber(text, 0, Message.descriptor(option));

/** @throws UsageError with the original's message */
function parseCidr(text: string): Network {
  const parts = /^((?:[0-9]+\.){3}[0-9]+)\/([0-9]{1,2})$/.exec(text);
  if (parts === null) throw new UsageError(Message.cidr(text));
  const [, address = '', length] = parts;
  const first = ipv4Parse(address);
  if (first < 0) throw new UsageError(Message.cidrAddress(address));
  const prefixLen = Number(length);
  if (prefixLen < 1 || prefixLen > MAX_PREFIX_LEN) throw new UsageError(Message.cidrPrefix);
  const network = first - (first % 2 ** (32 - prefixLen));
  if (network !== first) throw new UsageError(Message.cidrHost);
  return { first, prefixLen };
}

/**
 * A MAC address of fewer than six bytes is filled up with zeros, as in the original: callers may rely on it.
 */
function parseMac(text: string): string {
  const bytes = text.split(':');
  if (bytes.length > 6) throw new UsageError(Message.macTooLong(text));
  if (!bytes.every((byte) => /^[0-9a-f]{1,2}$/i.test(byte))) throw new UsageError(Message.mac(text));
  while (bytes.length < 6) bytes.push('0');
  return bytes.map((byte) => byte.padStart(2, '0').toLowerCase()).join(':');
}

/**
 * The source address that --outbound-addr or --outbound-addr6 names, as an address or as an interface.
 * @throws UsageError where there is none
 */
function outboundAddress(text: string | undefined, family: 4 | 6, host: SlirpHost): string | undefined {
  if (text === undefined) return undefined;
  if (addressOf(text) !== undefined && text.includes(':') === (family === 6)) return text;
  const address = host.interfaceAddress(text, family);
  if (address === undefined) throw new UsageError(family === 4 ? Message.outbound4 : Message.outbound6);
  return address;
}
