/**
 * The options of a network, and the command line of `bucatini run` that they become. Values are passed on as
 * text: `bucatini run` checks them, and its message becomes that of a BucatiniError.
 */
import { BucatiniError } from './error.ts';

/** One value, or several where the option may be repeated. */
export type OneOrMore<Value> = Value | readonly Value[];

/**
 * Options of createNetwork(). Those with a counterpart on the command line have its meaning, default and
 * syntax (docs/cli.md, `bucatini run`).
 */
export interface NetworkOptions {
  /** Stops the start, and closes the network later. createNetwork() rejects with the reason. */
  readonly signal?: AbortSignal | undefined;
  /** Called with each line that the engine logs. Default: the lines are dropped. */
  readonly onLog?: ((line: string) => void) | undefined;
  /** Which lines `onLog` gets: `--log-level`. Default: `warning`. */
  readonly logLevel?: 'error' | 'warning' | 'info' | 'debug' | undefined;

  /** Address inside with prefix length, at most one for each family: `--address`. */
  readonly address?: OneOrMore<string> | undefined;
  /** Default gateway inside, at most one for each family: `--gateway`. */
  readonly gateway?: OneOrMore<string> | undefined;
  /** Resolvers for queries from inside, or `none`: `--dns`. */
  readonly dns?: OneOrMore<string> | undefined;
  /** Name of the interface inside: `--interface-name`. */
  readonly interfaceName?: string | undefined;
  /** MTU of the interface inside, in bytes: `--mtu`. */
  readonly mtu?: number | undefined;
  /** `false`: no IPv4 inside (`--ipv6-only`). */
  readonly ipv4?: boolean | undefined;
  /** `false`: no IPv6 inside (`--ipv4-only`). */
  readonly ipv6?: boolean | undefined;
  /** `false`: the interface inside stays down and without addresses (`--no-configure`). */
  readonly configure?: boolean | undefined;

  /**
   * Ports that are published from the start, for example `8080:80` or `127.0.0.1:5353:53/udp`: `--publish`.
   */
  readonly publish?: OneOrMore<string | number> | undefined;
  /** Connections from the host's loopback to ports of `publish` go past the interface: `--splice`. */
  readonly splice?: boolean | undefined;
  /**
   * An address inside that stands for the host's 127.0.0.1 (::1), one for each family, or `gateway`: `--host-loopback`.
   */
  readonly hostLoopback?: OneOrMore<string> | undefined;
  /** Groups that programs inside may use, or `all`: `--multicast`. */
  readonly multicast?: OneOrMore<string> | undefined;
  /** NAT64 prefixes of the host's network: `--nat64`. */
  readonly nat64?: string | undefined;
  /** Host interface that connections leave through: `--outbound-interface`. */
  readonly outboundInterface?: string | undefined;

  /** What programs inside may reach: `--allow`. */
  readonly allow?: OneOrMore<string> | undefined;
  /** What programs inside may not reach: `--deny`. */
  readonly deny?: OneOrMore<string> | undefined;
  /** A file with the rules of an egress policy: `--policy`. For a text see {@link Network.setPolicy}. */
  readonly policyFile?: string | undefined;

  /**
   * The emulated line: a profile, a file or `none` (`--impair`), or the settings themselves. Only with this
   * option, {@link Network.setImpairment} can change the line later; `none` is a line that changes nothing.
   */
  readonly impairment?: string | Impairment | undefined;

  /** Threads for the packets: `--threads`. */
  readonly threads?: string | undefined;
  /** Packet memory in MiB: `--pool-size`. */
  readonly poolSize?: number | undefined;
  /** Path of a file that gets every frame: `--pcap`. See also {@link Network.capture}. */
  readonly pcap?: string | undefined;
  /** Several files for the frames of `pcap`: `--pcap-rotate`. */
  readonly pcapRotate?: string | undefined;
  /** Keep the last frames in memory, for {@link Network.writeCapture}: `--pcap-ring`. */
  readonly pcapRing?: string | undefined;
  /** The most bytes that `pcap` gets of a frame: `--pcap-snaplen`. */
  readonly pcapSnaplen?: number | undefined;
  /** Which frames `pcap` gets, in the language of tcpdump: `--pcap-filter`. */
  readonly pcapFilter?: string | undefined;
}

/**
 * Settings of one line. Values are texts as in docs/shaping.md; `/up` and `/down` at the end of a value limit
 * it to what leaves the namespace and to what comes to it: `delay: ['60ms/up', '20ms/down']`.
 */
export interface LineSettings {
  /** A named line, for example `3g`; the other settings change it. */
  readonly profile?: string | undefined;
  /** Bits per second: `20mbit`, `512kbit/up`. */
  readonly rate?: OneOrMore<string> | undefined;
  /** Bytes (and packets) that may wait for the rate: `256k`. */
  readonly queue?: OneOrMore<string> | undefined;
  /** Time on the way, jitter, distribution: `50ms`, `50ms,5ms,pareto`. */
  readonly delay?: OneOrMore<string> | undefined;
  /** Share of packets that are lost, and the mean length of bursts: `5%`, `1%,5`. */
  readonly loss?: OneOrMore<string> | undefined;
  /** Share of packets that come twice: `1%`. */
  readonly duplicate?: OneOrMore<string> | undefined;
  /** Share of packets that come later, and by how much: `1%,5ms`. */
  readonly reorder?: OneOrMore<string> | undefined;
  /** Share of packets with a wrong bit: `0.1%`. */
  readonly corrupt?: OneOrMore<string> | undefined;
  /** Longer IP packets are lost, in bytes: `1400`. */
  readonly maxPacket?: OneOrMore<string> | undefined;
}

/** Settings of a line to some destinations. */
export interface LineSection extends LineSettings {
  /** Prefixes, separated by commas: `192.0.2.0/24, 2001:db8::/32`. */
  readonly addresses: string;
}

/** An emulated line, and others for some destinations. */
export interface Impairment extends LineSettings {
  /** For all random numbers. Only createNetwork() can set it. */
  readonly seed?: number | undefined;
  /** The first section with a packet's address outside is the packet's line. */
  readonly to?: OneOrMore<LineSection> | undefined;
}

/** Options of createNetwork() that become an option of `bucatini run` with a value. */
const VALUES = {
  logLevel: 'log-level',
  address: 'address',
  gateway: 'gateway',
  dns: 'dns',
  interfaceName: 'interface-name',
  mtu: 'mtu',
  publish: 'publish',
  hostLoopback: 'host-loopback',
  multicast: 'multicast',
  nat64: 'nat64',
  outboundInterface: 'outbound-interface',
  allow: 'allow',
  deny: 'deny',
  policyFile: 'policy',
  threads: 'threads',
  poolSize: 'pool-size',
  pcap: 'pcap',
  pcapRotate: 'pcap-rotate',
  pcapRing: 'pcap-ring',
  pcapSnaplen: 'pcap-snaplen',
  pcapFilter: 'pcap-filter',
} as const satisfies Partial<Record<keyof NetworkOptions, string>>;

/** Those that become a flag if they have this value. */
const FLAGS = {
  ipv4: [false, 'ipv6-only'],
  ipv6: [false, 'ipv4-only'],
  configure: [false, 'no-configure'],
  splice: [true, 'splice'],
} as const satisfies Partial<Record<keyof NetworkOptions, readonly [boolean, string]>>;

const OTHERS: readonly string[] = ['signal', 'onLog', 'impairment'] satisfies (keyof NetworkOptions)[];

/**
 * The options as arguments of `bucatini run`. Settings of a line are not among them: see lineArguments().
 * @throws BucatiniError for an option that does not exist
 * @internal
 */
export function toArguments(options: NetworkOptions): readonly string[] {
  const args: string[] = [];
  for (const [key, value] of Object.entries(options)) {
    if (value === undefined || OTHERS.includes(key)) continue;
    if (Object.hasOwn(VALUES, key)) {
      const option = VALUES[key as keyof typeof VALUES];
      for (const one of Array.isArray(value) ? value : [value]) args.push(`--${option}=${one}`);
    } else if (Object.hasOwn(FLAGS, key)) {
      const [given, option] = FLAGS[key as keyof typeof FLAGS];
      if (value === given) args.push(`--${option}`);
    } else {
      throw new BucatiniError('argument', `createNetwork: ${JSON.stringify(key)}: unknown option`);
    }
  }
  const { impairment, pcap } = options;
  if (pcap === '-') throw new BucatiniError('argument', "createNetwork: pcap '-': write the name of a file");
  if (impairment === undefined) return args;
  if (typeof impairment === 'string') return [...args, `--impair=${impairment}`];
  const { seed } = impairment;
  return [...args, '--impair=none', ...(seed === undefined ? [] : [`--impair=seed=${seed}`])];
}

/** The settings of a line as arguments of the request `set_impairment`. @internal */
export function lineArguments(impairment: string | Impairment): Readonly<Record<string, unknown>> {
  if (typeof impairment === 'string') return impairment === 'none' ? {} : { profile: impairment };
  const { seed, to, ...settings } = impairment;
  const sections = to === undefined ? [] : Array.isArray(to) ? to : [to];
  return { ...requestKeys(settings), ...(to !== undefined && { to: sections.map(requestKeys) }) };
}

function requestKeys({ maxPacket, ...others }: LineSettings): Readonly<Record<string, unknown>> {
  const keys = { ...others, 'max-packet': maxPacket };
  return Object.fromEntries(Object.entries(keys).filter(([, value]) => value !== undefined));
}
