/**
 * The option table: the only place that defines which options exist, which values they take, what they mean
 * and which values are errors. Parser, `--help`, error texts and docs/cli.md (see `cli-texts.ts`) are made
 * from it.
 *
 * The `set` of an entry converts the text into a setting, or throws a UsageError that says what to write
 * instead; the parser puts option and value in front. Checks that involve two options are in `checkTogether`.
 *
 * The parser is not getopt.ts: it refuses abbreviations, and its errors suggest what to write.
 */

import { MAX_LANES } from '../../ring/layout.ts';
import type { EnginePlan, ListenerPlan, ShapingPlan } from '../../workers/engine-plan.ts';
import { LOG_LEVELS } from '../../workers/thread/log-levels.ts';
import { CAPTURE_OPTIONS, type CaptureOptions, checkCapture } from '../cli/capture-options.ts';
import { LINE_MTU, LINE_OPTIONS, type LineOption, parseLineOptions } from '../cli/lines.ts';
import { LISTEN_ADDRESS, type ListenAddress, parseListenAddress } from '../cli/listen-address.ts';
import { LOG_FORMAT_OPTION, type LogFormat } from '../cli/log-option.ts';
import { addMulticast, MULTICAST_HELP, type MulticastChoice, parseMulticast } from '../cli/multicast.ts';
import { NAT64_HELP, NAT64_VALUE, type Nat64Choice, parseNat64 } from '../cli/nat64.ts';
import {
  API_SOCKET_AUTO,
  API_SOCKET_HELP,
  type EgressOptions,
  fieldsOf,
  METRICS_HELP,
  namesOf,
  POLICY_OPTIONS,
} from '../cli/option-fields.ts';
import { DEFAULT_POOL_MIB } from '../cli/pool-plan.ts';
import {
  checkSwitching,
  NO_SWITCH_OPTION,
  SWITCH_SOCKETS_HELP,
  type SwitchOptions,
} from '../cli/switch-options.ts';
import {
  type AddressWithPrefix,
  DEFAULT_MTU,
  IPV4_MIN_MTU,
  IPV6_MIN_MTU,
  MAX_MTU,
  named,
  parseAddress,
  parseAddressWithPrefix,
  parseChoice,
  parseCount,
  parseInterfaceName,
  parseSocketPath,
  parseUnicast,
  quoted,
  requireUtf8,
  UsageError,
} from '../cli/values.ts';
import type { LogLevel } from '../host/log.ts';

export { mayNeedLogFormat } from '../cli/log-option.ts';

import { COMMAND_NAMES, type CommandName } from './commands.ts';
import { parsePublish, publishConflict, publishText } from './publish.ts';

/** The command line with all defaults filled in. The fields are named after the options. */
export interface Settings extends EgressOptions, CaptureOptions, SwitchOptions {
  readonly mtu: number;
  readonly ipv4: boolean;
  readonly ipv6: boolean;
  readonly address4?: AddressWithPrefix;
  readonly address6?: AddressWithPrefix;
  readonly gateway4?: string;
  readonly gateway6?: string;
  /** Absent: use the host's resolv.conf and follow its changes. Empty: do not forward DNS. */
  readonly dns?: readonly string[];
  /** Absent: the template interface's name. */
  readonly interfaceName?: string;
  /** False: leave the interface down and without addresses, for a DHCP client or SLAAC inside. */
  readonly configure: boolean;
  readonly outboundInterface?: string;
  /** Absent: no multicast. */
  readonly multicast?: MulticastChoice;
  /** Absent: auto. */
  readonly nat64?: Nat64Choice;
  readonly hostLoopback4?: string;
  readonly hostLoopback6?: string;
  /** The gateway's address stands for the host's loopback, in each family without a `hostLoopbackN`. */
  readonly hostLoopbackGateway?: boolean;
  readonly publish: readonly ListenerPlan[];
  /** Path of the API socket (api.ts). */
  readonly apiSocket?: string;
  /** Of `attach`: descriptors of the caller. */
  readonly readyFd?: number;
  readonly exitFd?: number;
  /** Of `doctor`. */
  readonly container?: string;
  /** Where metrics are served; absent: nowhere. */
  readonly metrics?: ListenAddress;
  /** Of `switch-agent`. */
  readonly socket?: string;
  readonly interface?: string;
  /** The profile to begin with; empty: Podman's own. */
  readonly printProfile?: string;
  /** Of `metrics`. */
  readonly all?: boolean;
  readonly listen?: ListenAddress;
  /** Of the commands that watch instances: `top`, `flows`, `ports`, `stats`, `policy`. */
  readonly json?: true;
  /** Seconds between two outputs; absent: one output. */
  readonly watch?: number;
  readonly once?: true;
  readonly interval: number;
  readonly sort?: SortKey;
  readonly filter?: string;
  /** Of `policy test`. */
  readonly protocol?: string;
  readonly name?: string;
  /** Connections from the host's loopback to published ports bypass the TAP. */
  readonly splice: boolean;
  /** Emulated lines; absent: none, and none can be set later. */
  readonly shaping?: ShapingPlan;
  readonly threads: Threads;
  /** Of all lanes together. Absent: DEFAULT_POOL_MIB for each lane. */
  readonly poolMib?: number;
  readonly logLevel: LogLevel;
  /** Absent: text, or the journal. */
  readonly logFormat?: LogFormat;
  readonly stats: boolean;
  /** Seconds between two lines of --stats; absent: only the tables at the end. */
  readonly statsSeconds?: number;
  readonly statsJson?: string;
}

/** The value of --threads. */
export type Threads = { readonly kind: 'auto' } | EnginePlan['threads'];

type Draft = { -readonly [K in keyof Settings]?: Settings[K] } & {
  /** Options of which `shaping` is made. */
  lineOptions?: readonly LineOption[];
};

/** An entry of the option table. */
export interface OptionSpec {
  /** Without dashes. */
  readonly name: string;
  readonly short?: string;
  /** Syntax of the value, for help. Absent: the option is a flag. */
  readonly value?: string;
  /** The value may be left out; it is written behind "=" only. `set` then gets an empty text. */
  readonly optional?: true;
  /** Values for completion, where `value` does not list them. */
  readonly words?: readonly string[];
  readonly group:
    | 'Addresses'
    | 'Connections'
    | 'Line'
    | 'Engine'
    | 'Diagnosis'
    | 'Output'
    | 'Measurement'
    | 'General';
  readonly help: string;
  /** The default in words, for help. */
  readonly default?: string;
  readonly repeatable?: true;
  readonly commands: readonly CommandName[];
  readonly set?: (draft: Draft, text: string) => void;
}

const MAX_SHARDS = 16;
/** Descriptors that a caller can pass: not the standard streams; the limit is the largest of the kernel (sysctl fs.nr_open). */
const FIRST_FREE_FD = 3;
const MAX_FD = 1_073_741_815;
/** With less, a lane has too few large slots for streams, fragments and DNS queries at the same time. */
const MIN_LANE_MIB = 4;
const TEST_PROTOCOLS = ['tcp', 'udp', 'icmp', 'dns'] as const;
const ENGINE: readonly CommandName[] = ['run', 'attach'];
const ALL: readonly CommandName[] = COMMAND_NAMES;
const WATCH: readonly CommandName[] = ['top', 'flows', 'ports', 'stats', 'policy'];
const MAX_SECONDS = 86_400;
/** The orders of flows: --sort, and the keys of `top`. */
export const SORT_KEYS = [
  ...(['rate', 'bytes', 'from-guest', 'to-guest', 'rtt', 'retransmits', 'age', 'remote', 'state'] as const),
];
export type SortKey = (typeof SORT_KEYS)[number];

/** What an error about a wrong address proposes. */
const ADDRESS_EXAMPLES = {
  dns: '192.0.2.53, 2001:db8::53 or none',
  hostLoopback: 'gateway, 192.0.2.15, 2001:db8::15 or none',
};

const { fixed, parsed } = fieldsOf<Draft>();

/** All options, in the order of the help. */
export const OPTIONS: readonly OptionSpec[] = [
  {
    name: 'address',
    value: 'ADDR[/LEN]',
    group: 'Addresses',
    help: 'Address inside, at most one per family. Without /LEN the prefix length is 24 (IPv4) or 64 (IPv6).',
    default: "the host's own address",
    repeatable: true,
    commands: ENGINE,
    set: (draft, text) => {
      const parsed = parseAddressWithPrefix(text);
      setOnce(draft, parsed.family === 4 ? 'address4' : 'address6', parsed, parsed.family);
    },
  },
  {
    name: 'gateway',
    value: 'ADDR',
    group: 'Addresses',
    help: 'Default gateway inside, at most one per family.',
    default: "the host's gateway",
    repeatable: true,
    commands: ENGINE,
    set: (draft, text) => {
      const parsed = parseUnicast(text);
      setOnce(draft, parsed.family === 4 ? 'gateway4' : 'gateway6', parsed.address, parsed.family);
    },
  },
  {
    name: 'dns',
    value: 'ADDR|none',
    group: 'Addresses',
    help: 'Resolver for queries from inside; several are tried in order. none: do not forward DNS.',
    default: 'those in /etc/resolv.conf, followed when it changes',
    repeatable: true,
    commands: ENGINE,
    set: (draft, text) => {
      if (text === 'none') {
        if (draft.dns !== undefined && draft.dns.length > 0)
          throw new UsageError('contradicts an earlier --dns');
        draft.dns = [];
        return;
      }
      const { address } = parseAddress(text, ADDRESS_EXAMPLES.dns);
      if (address === '0.0.0.0' || address === '::')
        throw new UsageError('is not the address of a resolver; write for example 192.0.2.53');
      if (draft.dns?.length === 0) throw new UsageError('contradicts an earlier --dns none');
      draft.dns = [...(draft.dns ?? []), address];
    },
  },
  {
    name: 'interface-name',
    value: 'NAME',
    group: 'Addresses',
    help: 'Name of the interface inside.',
    default: "that of the host's interface, else tap0",
    commands: ENGINE,
    set: (draft, text) => {
      if (text === 'lo') throw new UsageError('is the name of the loopback interface; write another name');
      draft.interfaceName = parseInterfaceName(text);
    },
  },
  {
    name: 'mtu',
    value: 'N',
    group: 'Addresses',
    help: `MTU of the interface inside, ${IPV4_MIN_MTU} to ${MAX_MTU} (from ${IPV6_MIN_MTU} with IPv6).`,
    default: `${DEFAULT_MTU}; ${LINE_MTU} with an emulated line`,
    commands: ENGINE,
    set: parsed('mtu', (text) => parseCount(text, IPV4_MIN_MTU, MAX_MTU, '1500')),
  },
  {
    name: 'ipv4-only',
    short: '4',
    group: 'Addresses',
    help: 'No IPv6 inside.',
    commands: ENGINE,
    set: fixed('ipv6', false),
  },
  {
    name: 'ipv6-only',
    short: '6',
    group: 'Addresses',
    help: 'No IPv4 inside.',
    commands: ENGINE,
    set: fixed('ipv4', false),
  },
  {
    name: 'no-configure',
    group: 'Addresses',
    help: 'Leave the interface inside down and without addresses: a DHCP client or the kernel inside configures it.',
    commands: ENGINE,
    set: fixed('configure', false),
  },
  {
    name: 'publish',
    short: 'p',
    value: '[ADDR:]PORT[-PORT][:PORT[-PORT]][/tcp|/udp]',
    group: 'Connections',
    help: 'Forward this port of the host to the second port inside, or to the same port if there is no second one. Listens on all addresses of the host unless ADDR is given; an IPv6 ADDR stands in brackets. Two ranges must have the same length. TCP unless /udp is given.',
    repeatable: true,
    commands: ENGINE,
    set: (draft, text) => {
      draft.publish = [...(draft.publish ?? []), parsePublish(text)];
    },
  },
  {
    name: 'api-socket',
    value: 'PATH|auto',
    group: 'Connections',
    help: `${API_SOCKET_HELP} (docs/api.md). A socket that is already at PATH is replaced. ${API_SOCKET_AUTO}`,
    commands: ENGINE,
    set: parsed('apiSocket', parseSocketPath),
  },
  {
    name: 'splice',
    group: 'Connections',
    help: "Forward connections from the host's loopback to published ports socket to socket, without the TAP. This is faster, but programs inside see the namespace's own address as the client.",
    commands: ENGINE,
    set: fixed('splice', true),
  },
  {
    name: 'switch-sockets',
    group: 'Connections',
    help: SWITCH_SOCKETS_HELP,
    commands: ['run'],
    set: fixed('switchSockets', true),
  },
  { ...NO_SWITCH_OPTION, group: 'Connections', repeatable: true, commands: ['run', 'switch-agent'] },
  {
    name: 'host-loopback',
    value: 'ADDR|gateway|none',
    group: 'Connections',
    help: "Connections from inside to ADDR reach the host's 127.0.0.1 (::1 for an IPv6 ADDR). At most one per family. gateway: the gateway's address of each family that has no ADDR.",
    default: 'none',
    repeatable: true,
    commands: ENGINE,
    set: (draft, text) => {
      if (text === 'none') {
        if (draft.hostLoopback4 ?? draft.hostLoopback6 ?? draft.hostLoopbackGateway)
          throw new UsageError('contradicts an earlier --host-loopback');
        return;
      }
      if (text === 'gateway') {
        draft.hostLoopbackGateway = true;
        return;
      }
      const parsed = parseUnicast(text, ADDRESS_EXAMPLES.hostLoopback);
      setOnce(draft, parsed.family === 4 ? 'hostLoopback4' : 'hostLoopback6', parsed.address, parsed.family);
    },
  },
  {
    name: 'multicast',
    value: 'all|GROUP[:PORT],…',
    group: 'Connections',
    help: `${MULTICAST_HELP} See docs/multicast.md.`,
    default: 'no multicast: such datagrams are dropped',
    repeatable: true,
    commands: ENGINE,
    set: (draft, text) => {
      draft.multicast = addMulticast(draft.multicast, parseMulticast(text));
    },
  },
  {
    name: 'nat64',
    value: NAT64_VALUE,
    group: 'Connections',
    help: `${NAT64_HELP} See docs/nat64.md.`,
    default: 'auto',
    commands: [...ENGINE, 'policy'],
    set: parsed('nat64', parseNat64),
  },
  {
    name: 'outbound-interface',
    value: 'NAME',
    group: 'Connections',
    help: 'Host interface that connections leave through. The addresses inside are copied from it too.',
    default: "the host's routing decides",
    commands: ENGINE,
    set: parsed('outboundInterface', parseInterfaceName),
  },
  ...POLICY_OPTIONS.map((option) => ({
    ...({ ...option, group: 'Connections', commands: ENGINE } as const),
    ...(option.name === 'allow' && { default: 'everything may be reached' }),
    ...(option.name !== 'policy' && { repeatable: true as const }),
  })),
  {
    name: 'protocol',
    value: 'PROTO',
    group: 'Connections',
    help: `Protocol to test: ${TEST_PROTOCOLS.join(', ')}.`,
    default: 'tcp with a port, icmp without',
    commands: ['policy'],
    set: parsed('protocol', (text) => parseChoice(text, TEST_PROTOCOLS)),
  },
  {
    name: 'name',
    value: 'NAME',
    group: 'Connections',
    help: 'The tested address is one that our DNS forwarder answered for this name.',
    commands: ['policy'],
    set: (draft, text) => {
      draft.name = text;
    },
  },
  ...LINE_OPTIONS.map(({ name, ...text }) => ({
    ...({ name, ...text, group: 'Line', repeatable: true, commands: ENGINE } as const),
    set: (draft: Draft, value: string) => {
      draft.lineOptions = [...(draft.lineOptions ?? []), [name, value]];
    },
  })),
  {
    name: 'threads',
    value: 'auto|fused|pipeline[=N]|lanes=N|lanes=MIN-MAX',
    group: 'Engine',
    help: `Threads for the packets. fused: one thread does everything. pipeline: one thread reads, N threads (shards, 1 to ${MAX_SHARDS}) translate, one thread does host I/O; without =N one shard. lanes=N: N threads (1 to ${MAX_LANES}), each like fused, with its own queue of the TAP and its own host sockets. lanes=MIN-MAX: MIN lanes at the start, more while these are busy, MAX at most; TCP connections move between lanes.`,
    default:
      'auto: with one or two processors fused, with more lanes=1-N, where N is the number of processors, 8 at most',
    commands: ENGINE,
    set: parsed('threads', parseThreads),
  },
  {
    name: 'pool-size',
    value: 'MIB',
    group: 'Engine',
    help: `Packet memory in MiB, 8 to 1024, for all lanes together. It limits the number of connections, and with --threads auto that of lanes: one for each ${DEFAULT_POOL_MIB} MiB. Memory is taken only when used.`,
    default: `${DEFAULT_POOL_MIB} for each lane`,
    commands: ENGINE,
    set: parsed('poolMib', (text) => parseCount(text, 8, 1024, `${DEFAULT_POOL_MIB}`)),
  },
  {
    name: 'pcap',
    value: 'FILE',
    group: 'Diagnosis',
    help: 'Write every frame, in both directions, to FILE for tcpdump or Wireshark: as pcapng, with directions, comments and counters, if the name ends with .pcapng, else as pcap. - is standard output, as pcapng; what COMMAND writes there goes to standard error then.',
    commands: ENGINE,
    set: (draft, text) => {
      if (text === '') throw new UsageError('is empty; write a file name');
      draft.pcap = text;
    },
  },
  ...CAPTURE_OPTIONS.map((option) => ({ ...option, group: 'Diagnosis', commands: ENGINE }) as const),
  {
    name: 'stats',
    value: 'SECONDS',
    optional: true,
    group: 'Diagnosis',
    help: 'Print elapsed time, rates, counters and latency percentiles on standard error when bucatini ends. With SECONDS also a line with the rates of each such interval.',
    commands: ENGINE,
    set: (draft, text) => {
      draft.stats = true;
      if (text !== '') draft.statsSeconds = parseCount(text, 1, MAX_SECONDS, '10');
    },
  },
  {
    name: 'stats-json',
    value: 'FILE',
    group: 'Diagnosis',
    help: 'Write the same as JSON to FILE when bucatini ends (docs/watch.md).',
    commands: ENGINE,
    set: (draft, text) => {
      if (text === '') throw new UsageError('is empty; write a file name');
      draft.statsJson = text;
    },
  },
  {
    name: 'metrics',
    value: LISTEN_ADDRESS,
    group: 'Diagnosis',
    help: METRICS_HELP,
    commands: ENGINE,
    set: parsed('metrics', parseListenAddress),
  },
  {
    name: 'socket',
    value: 'PATH',
    group: 'Connections',
    help: "Unix socket that OCI runtimes send the listeners of containers to: `listenerPath` of the containers' seccomp profile. A socket of that name that nobody listens on is replaced. A socket unit of systemd may pass it instead.",
    commands: ['switch-agent'],
    set: parsed('socket', parseSocketPath),
  },
  {
    name: 'interface',
    value: 'NAME',
    group: 'Connections',
    help: 'Host interface that switched connections leave through; destinations that the host reaches through another one are not switched.',
    default: "that of the host's route to the destination",
    commands: ['switch-agent'],
    set: parsed('interface', parseInterfaceName),
  },
  {
    name: 'print-profile',
    value: 'BASE.json',
    optional: true,
    group: 'Output',
    help: "Print the seccomp profile that containers need, and end. It is BASE.json, or else Podman's own profile, with the changes that docs/switching.md lists.",
    commands: ['switch-agent'],
    set: (draft, text) => {
      draft.printProfile = text;
    },
  },
  {
    name: 'switch-sockets',
    group: 'Connections',
    help: 'Also switch outgoing TCP of containers to sockets of the host (docs/switching.md): a seccomp profile for all containers of this user, and a user unit of systemd for `bucatini switch-agent`. Without this option they are removed.',
    commands: ['switch-over'],
    set: fixed('switchSockets', true),
  },
  {
    name: 'all',
    group: 'Output',
    help: 'All instances of this user that were started with --api-socket auto, as without operands.',
    commands: ['metrics'],
    set: fixed('all', true),
  },
  {
    name: 'listen',
    value: LISTEN_ADDRESS,
    group: 'Output',
    help: 'Serve the metrics by HTTP until SIGTERM or SIGINT instead of printing them: on this port, on 127.0.0.1 unless ADDR is given, or on a Unix socket of mode 0600.',
    commands: ['metrics'],
    set: parsed('listen', parseListenAddress),
  },
  {
    name: 'log-level',
    value: 'LEVEL',
    group: 'Diagnosis',
    help: `Messages on standard error: ${LOG_LEVELS.join(', ')}. Each level includes those before it.`,
    default: 'warning for run, info for attach and switch-agent',
    commands: [...ENGINE, 'switch-agent'],
    set: parsed('logLevel', (text) => parseChoice(text, LOG_LEVELS)),
  },
  {
    name: 'ready-fd',
    value: 'FD',
    group: 'Engine',
    help: 'Write "1" to this descriptor of the caller and close it, once traffic flows.',
    commands: ['attach'],
    set: parsed('readyFd', (text) => parseCount(text, FIRST_FREE_FD, MAX_FD, '3')),
  },
  {
    name: 'exit-fd',
    value: 'FD',
    group: 'Engine',
    help: 'End when the other end of this pipe or socket of the caller is closed; status 0.',
    commands: ['attach'],
    set: parsed('exitFd', (text) => parseCount(text, FIRST_FREE_FD, MAX_FD, '4')),
  },
  {
    name: 'container',
    value: 'NAME',
    group: 'Diagnosis',
    help: 'Examine the network of this container of Podman or Docker, by name or id, or of the process with this number.',
    commands: ['doctor'],
    set: (draft, text) => {
      // A word that the container manager would take for an option.
      if (text === '' || text.startsWith('-'))
        throw new UsageError('is not a name; write for example --container web');
      draft.container = text;
    },
  },
  {
    name: LOG_FORMAT_OPTION.name,
    value: LOG_FORMAT_OPTION.value,
    group: 'Diagnosis',
    help: LOG_FORMAT_OPTION.help,
    default: LOG_FORMAT_OPTION.default,
    commands: [...ENGINE, 'switch-agent'],
    set: parsed('logFormat', LOG_FORMAT_OPTION.parse),
  },
  {
    name: 'json',
    group: 'Output',
    help: 'Print JSON, one document in a line (docs/watch.md).',
    commands: WATCH,
    set: fixed('json', true),
  },
  {
    name: 'watch',
    value: 'SECONDS',
    optional: true,
    group: 'Output',
    help: 'Print again every SECONDS, until a signal ends it. Without SECONDS every 2 seconds.',
    commands: WATCH.filter((name) => name !== 'top'),
    set: (draft, text) => {
      draft.watch = text === '' ? 2 : parseSeconds(text);
    },
  },
  {
    name: 'once',
    group: 'Output',
    help: 'Print one screen, without colour and cut to no size, and end. It takes one interval to measure the rates.',
    commands: ['top'],
    set: fixed('once', true),
  },
  {
    name: 'interval',
    value: 'SECONDS',
    group: 'Output',
    help: 'Time between two measurements, 0.1 to 3600 seconds.',
    default: '1',
    commands: ['top'],
    set: parsed('interval', parseSeconds),
  },
  {
    name: 'sort',
    value: 'COLUMN',
    words: SORT_KEYS,
    group: 'Output',
    help: `Order of the flows: ${SORT_KEYS.join(', ')}. Numbers: the largest first.`,
    default: 'rate for top, age for flows',
    commands: ['top', 'flows'],
    set: parsed('sort', (text) => parseChoice(text, SORT_KEYS)),
  },
  {
    name: 'filter',
    value: 'TEXT',
    group: 'Output',
    help: 'Only flows whose protocol, state or ends contain TEXT, for example `:443` or `udp`. Several words: all of them.',
    commands: ['top', 'flows'],
    set: (draft, text) => {
      draft.filter = text;
    },
  },
  { name: 'help', short: 'h', group: 'General', help: 'Print this text.', commands: ALL },
  { name: 'version', group: 'General', help: 'Print the version.', commands: ALL },
];

/** The command line: a request for a text, or settings and operands. */
export type Parsed =
  | { readonly kind: 'help' | 'version' }
  | { readonly kind: 'go'; readonly settings: Settings; readonly operands: readonly string[] };

/**
 * Parse the arguments of a subcommand. `--`, or the first word that is not an option, ends the options; the
 * rest are operands.
 * @throws UsageError with one line that names option and value
 */
export function parseArguments(command: CommandName, args: readonly string[]): Parsed {
  const draft: Draft = {};
  const seen = new Set<string>();
  let i = 0;
  for (; i < args.length; i++) {
    const [word, rest] = firstOfBundle(command, args[i]!);
    if (word === '--') {
      i++;
      break;
    }
    if (!word.startsWith('-') || word === '-') break;
    const equals = word.startsWith('--') ? word.indexOf('=') : -1;
    const name = equals < 0 ? word : word.slice(0, equals);
    const option = OPTIONS.find((o) => o.commands.includes(command) && namesOf(o).includes(name));
    if (option === undefined) throw new UsageError(unknownOption(command, name));
    if (option.name === 'help') return { kind: 'help' };
    if (option.name === 'version') return { kind: 'version' };
    let text = '';
    if (option.value === undefined || (option.optional && equals < 0)) {
      if (equals >= 0) throw new UsageError(`${name} takes no value; write ${name} alone`);
      if (rest !== '') args = [...args.slice(0, i + 1), `-${rest}`, ...args.slice(i + 1)];
    } else if (equals >= 0) {
      text = word.slice(equals + 1);
    } else if (rest !== '') {
      text = rest;
    } else {
      const next = args[++i];
      if (next === undefined) throw new UsageError(`${name} needs a value; write ${name} ${option.value}`);
      text = next;
    }
    if (option.value !== undefined && !option.optional && !option.repeatable && seen.has(option.name)) {
      throw new UsageError(`${name} ${quoted(text)}: given twice; write it once`);
    }
    seen.add(option.name);
    requireUtf8(name, text);
    named(name, text, () => option.set?.(draft, text));
  }
  return { kind: 'go', settings: complete(command, draft), operands: args.slice(i) };
}

/**
 * Split a word like `-p8080:80` (-p and its value) or `-4p` (-4 and -p).
 * @returns the first option and the rest behind it; any other word unchanged, with an empty rest
 */
function firstOfBundle(command: CommandName, word: string): readonly [string, string] {
  const isBundle =
    word.length > 2 &&
    word.startsWith('-') &&
    OPTIONS.some((o) => o.short === word[1] && o.commands.includes(command));
  return isBundle ? [word.slice(0, 2), word.slice(2)] : [word, ''];
}

function complete(command: CommandName, { lineOptions, ...draft }: Draft): Settings {
  const shaping = lineOptions && parseLineOptions(lineOptions);
  const settings: Settings = {
    mtu: shaping === undefined ? DEFAULT_MTU : LINE_MTU,
    ...(shaping && { shaping }),
    ipv4: true,
    ipv6: true,
    configure: true,
    publish: [],
    egress: [],
    splice: false,
    threads: { kind: 'auto' },
    logLevel: command === 'run' ? 'warning' : 'info',
    stats: false,
    interval: 1,
    ...draft,
  };
  checkTogether(settings);
  if (command !== 'switch-agent') checkSwitching({ ...settings, ...(lineOptions && { lineOptions }) });
  return Object.freeze(settings);
}

function checkTogether(s: Settings): void {
  if (!s.ipv4 && !s.ipv6)
    throw new UsageError('--ipv4-only and --ipv6-only exclude each other; write one of them');
  if (s.ipv6 && s.mtu < IPV6_MIN_MTU) {
    throw new UsageError(
      `--mtu ${s.mtu}: IPv6 needs at least ${IPV6_MIN_MTU}; write --mtu ${IPV6_MIN_MTU} or add --ipv4-only`,
    );
  }
  for (const [option, v4, v6] of [
    ['--address', s.address4?.address, s.address6?.address],
    ['--gateway', s.gateway4, s.gateway6],
    ['--host-loopback', s.hostLoopback4, s.hostLoopback6],
  ] as const) {
    if (!s.ipv4 && v4)
      throw new UsageError(`${option} ${v4}: --ipv6-only leaves no IPv4; leave out one of the two options`);
    if (!s.ipv6 && v6)
      throw new UsageError(`${option} ${v6}: --ipv4-only leaves no IPv6; leave out one of the two options`);
  }
  for (const [address, gateway] of [
    [s.address4?.address, s.gateway4],
    [s.address6?.address, s.gateway6],
  ] as const) {
    if (address !== undefined && address === gateway) {
      throw new UsageError(`--gateway ${gateway}: is also the address inside; write two different addresses`);
    }
  }
  const lanes = s.threads.kind === 'lanes' ? s.threads.lanes : 1;
  const leastMib = MIN_LANE_MIB * lanes;
  if (s.poolMib !== undefined && s.poolMib < leastMib) {
    throw new UsageError(
      `--pool-size ${s.poolMib}: ${lanes} lanes need at least ${leastMib} MiB; write --pool-size ${leastMib} or fewer lanes`,
    );
  }
  if (s.shaping !== undefined && (s.threads.kind === 'pipeline' || lanes > 1)) {
    const first = s.threads.kind === 'lanes' ? s.threads.first : undefined;
    const count = first === undefined ? `${lanes}` : `${first}-${lanes}`;
    const shards = s.threads.kind === 'pipeline' ? s.threads.shards : 0;
    const text = shards === 0 ? `lanes=${count}` : shards === 1 ? 'pipeline' : `pipeline=${shards}`;
    throw new UsageError(
      `--threads ${text}: an emulated line needs one packet thread; leave out --threads, or --rate, --delay, --loss and --impair`,
    );
  }
  checkCapture(s, true);
  const clash = publishConflict(s.publish);
  if (clash !== undefined) {
    throw new UsageError(
      `--publish ${publishText(clash[1])}: collides with ${publishText(clash[0])}; leave one of them out`,
    );
  }
}

function setOnce<K extends keyof Draft>(
  draft: Draft,
  key: K,
  value: NonNullable<Draft[K]>,
  family: number,
): void {
  if (draft[key] !== undefined)
    throw new UsageError(`is the second IPv${family} value; write one per family`);
  draft[key] = value;
}

function parseThreads(text: string): Threads {
  if (text === 'auto' || text === 'fused') return { kind: text };
  if (text === 'pipeline') return { kind: 'pipeline', shards: 1 };
  if (text === 'lanes') throw new UsageError(`has no number; write for example ${LANES_EXAMPLES}`);
  const [, kind, count = ''] = /^(pipeline|lanes)=(.*)$/.exec(text) ?? [];
  if (kind === 'pipeline') return { kind, shards: parseCount(count, 1, MAX_SHARDS, 'pipeline=2') };
  if (kind === 'lanes') return parseLanes(count);
  throw new UsageError('not one of auto, fused, pipeline, pipeline=N, lanes=N, lanes=MIN-MAX');
}

/** Seconds between two outputs, with a fraction. */
function parseSeconds(text: string): number {
  const value = /^[0-9]{1,4}(\.[0-9]{1,3})?$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= 0.1 && value <= 3600))
    throw new UsageError('not a number from 0.1 to 3600; write for example 2');
  return value;
}

const LANES_EXAMPLES = 'lanes=2 or lanes=1-4';

/** N, or MIN-MAX: so many from the start, and so many at the most. */
function parseLanes(text: string): Threads {
  const [, min = '', max] = /^([0-9]+)(?:-([0-9]+))?$/.exec(text) ?? [];
  if (min === '') throw new UsageError(`neither N nor MIN-MAX; write for example ${LANES_EXAMPLES}`);
  const first = parseCount(min, 1, MAX_LANES, LANES_EXAMPLES);
  if (max === undefined) return { kind: 'lanes', lanes: first };
  const lanes = parseCount(max, 1, MAX_LANES, LANES_EXAMPLES);
  if (first > lanes) throw new UsageError(`${first} is more than ${lanes}; write the smaller number first`);
  return first === lanes ? { kind: 'lanes', lanes } : { kind: 'lanes', lanes, first };
}

function unknownOption(command: CommandName, name: string): string {
  const known = OPTIONS.filter((o) => o.commands.includes(command)).map((o) => `--${o.name}`);
  const near = known
    .map((candidate) => ({ candidate, distance: editDistance(candidate, name) }))
    .sort((a, b) => a.distance - b.distance)[0];
  const hint =
    near !== undefined && name.startsWith('--') && near.distance <= Math.max(1, (name.length - 2) / 3)
      ? `did you mean ${near.candidate}?`
      : `bucatini ${command} --help lists the options`;
  return `${quoted(name)}: unknown option; ${hint}`;
}

/**
 * Number of letters to insert, remove, replace or exchange with the next one; both words are short (optimal
 * string alignment distance).
 */
function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const isExchanged = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      next[j] = Math.min(
        row[j]! + 1,
        next[j - 1]! + 1,
        row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1),
        isExchanged ? before[j - 2]! + 1 : Number.POSITIVE_INFINITY,
      );
    }
    before = row;
    row = next;
  }
  return row[b.length]!;
}
