/**
 * The command line of `pasta` as data: the options (`PastaConf`), what to connect (`PastaTarget`), and the
 * draft that the table of options.ts fills.
 */
import type { ShapingPlan } from '../../workers/engine-plan.ts';
import type { CaptureOptions } from '../cli/capture-options.ts';
import type { LineOption } from '../cli/lines.ts';
import type { ListenAddress } from '../cli/listen-address.ts';
import type { LogFormat } from '../cli/log-option.ts';
import type { MulticastChoice } from '../cli/multicast.ts';
import type { Nat64Choice } from '../cli/nat64.ts';
import type { EgressOptions } from '../cli/option-fields.ts';
import type { SwitchOptions } from '../cli/switch-options.ts';
import { DEFAULT_MTU } from '../cli/values.ts';

const DEFAULT_LOG_BYTES = 1024 * 1024;
export const DEFAULT_MAC = '9a:55:9a:55:9a:55';
export const MAX_INT = 0x7fff_ffff;

export type Verbosity = 'quiet' | 'normal' | 'debug' | 'trace';
/** Short names of the port options: TCP and UDP, into the namespace (small) and out of it (capital). */
export type PortOption = 't' | 'u' | 'T' | 'U';

/**
 * The options, with defaults filled in. Plain data: it is posted to the namespace thread. "4" and "6" in
 * names are the families.
 */
export interface PastaConf extends EgressOptions, CaptureOptions, SwitchOptions {
  readonly ipv4: boolean;
  readonly ipv6: boolean;
  /** 0: the interface keeps the kernel's MTU, and DHCP and router advertisements offer none. */
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
  /**
   * Absent: those of resolv.conf; empty: none. A family without an address here uses those of resolv.conf.
   */
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
  /**
   * The gateway's address is mapped to the host's loopback where --map-host-loopback gives no other address.
   */
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
  /** Absent: text, or the journal. */
  readonly logFormat?: LogFormat;
  readonly logFile?: string;
  readonly logBytes: number;
  readonly runas?: string;
  readonly confPath?: string;
  readonly apiSocket?: string;
  /** Where metrics are served; absent: nowhere. */
  readonly metrics?: ListenAddress;
  /** Absent: no multicast. */
  readonly multicast?: MulticastChoice;
  /** Absent: off. */
  readonly nat64?: Nat64Choice;
  /** Emulated lines; absent: none. */
  readonly shaping?: ShapingPlan;
  readonly pidFile?: string;
  /** Descriptor that carries the frames; no interface is made. */
  readonly fd?: number;
}

/** What to connect: the new namespace of a command, that of a process, or that at a path. */
export type PastaTarget =
  | { readonly kind: 'command'; readonly argv: readonly string[] }
  | { readonly kind: 'pid'; readonly pid: number }
  | { readonly kind: 'netns'; readonly path: string };

/** The options read so far, and state that only parsing needs. */
export type Draft = { -readonly [K in keyof PastaConf]: PastaConf[K] } & {
  prefixWritten?: boolean;
  netmaskWritten?: boolean;
  mtuWritten?: boolean;
  /** Options of which `shaping` is made. */
  lineOptions?: readonly LineOption[];
  readonly warnings: string[];
};

/** @returns a new draft, as it is without any option */
export function defaults(): Draft {
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
    egress: [],
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
