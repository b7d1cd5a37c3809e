/**
 * The engine plan: everything the packet threads need to know, as plain data that crosses to worker threads
 * by structured clone. A front end builds it; no stage knows which one did. Addresses are text here and
 * become words when a stage starts.
 */
import type { FrameSocketKind } from '../sys/frame-socket.ts';
import type { LogLevelName } from './thread/log-levels.ts';

export interface Ipv4Plan {
  /** The guest's address, e.g. "192.0.2.15". */
  readonly guest: string;
  readonly prefixLen: number;
  /** What DHCP hands out; absent: `guest`. */
  readonly dhcpOffer?: string;
  /** Our address on the TAP: answers ARP and ping, the guest's default gateway. */
  readonly gateway: string;
  /** Guest -> this address means the host's 127.0.0.1; absent: no such mapping. */
  readonly hostLoopback?: string;
  /**
   * Guest -> this address means `guest` on the host; a host peer that has `guest` itself appears as it.
   * Absent: as the gateway.
   */
  readonly mapGuestAddr?: string;
  /**
   * Guest -> this address on one of ServicePolicy.dnsPorts means the host's resolvers; absent: no forwarding.
   */
  readonly dns?: string;
  /** Resolvers of that address alone, instead of AddressPlan.resolvers; they do not change. */
  readonly dnsHosts?: readonly string[];
}

export interface Ipv6Plan {
  /** "::": it chooses for itself, and is heard. */
  readonly guest: string;
  readonly prefixLen: number;
  /** Network of 64 bits that router advertisements offer for SLAAC; absent: that of `guest`. */
  readonly advertised?: string;
  /** Our global (or link-local) gateway address. */
  readonly gateway: string;
  /** Our link-local address on the TAP, source of router advertisements. */
  readonly linkLocal: string;
  /**
   * Index of the host's interface that the guest's link-local destinations lie behind; absent: they are
   * unreachable.
   */
  readonly linkLocalScope?: number;
  readonly hostLoopback?: string;
  readonly mapGuestAddr?: string;
  readonly dns?: string;
  readonly dnsHosts?: readonly string[];
}

export interface ListenerPlan {
  readonly proto: 'tcp' | 'udp';
  /** Which side connects: the host's network (the default), or programs inside over their loopback. */
  readonly from?: 'host' | 'guest';
  /** Address to bind, "" = any of both families (dual stack where IPv6 exists). */
  readonly address: string;
  /** SO_BINDTODEVICE. */
  readonly interface?: string;
  readonly port: number;
  /** Last port of a range; absent: one port. Port p leads to p - port + targetPort. */
  readonly lastPort?: number;
  /** Port that connections are led to. */
  readonly targetPort: number;
  /** Address inside that they are led to, by the TAP; absent: the guest's own. */
  readonly targetAddress?: string;
  /** Ports that cannot be bound are left out; without it the first one is an error. */
  readonly weak?: boolean;
  /** Nor is it an error when none of its ports can be bound. */
  readonly mayFail?: boolean;
  /**
   * What happens to connections from a loopback address: packets as from everywhere, or socket to socket past
   * the TAP.
   */
  readonly path?: 'tap' | 'splice';
}

export interface AddressPlan {
  readonly mtu: number;
  /** Our MAC on the TAP, "9a:55:9a:55:9a:55". */
  readonly mac: string;
  /** The guest's MAC when known at start (it is learnt from frames as well). */
  readonly guestMac?: string;
  readonly ipv4?: Ipv4Plan;
  readonly ipv6?: Ipv6Plan;
  /**
   * The host's resolvers in order, both families, loopback ones included; EngineHandle.setResolvers() gives
   * others.
   */
  readonly resolvers: readonly string[];
  /** Offer these by DHCP/RA: the addresses the guest should use as resolvers. */
  readonly offeredDns: readonly string[];
  readonly searchDomains: readonly string[];
}

export interface ServicePolicy {
  /** UDP flow idle time-outs in ms: before a reply was seen, and once both sides talk. */
  readonly udpTimeoutMs: number;
  readonly udpStreamTimeoutMs: number;
  readonly pingTimeoutMs: number;
  /**
   * Whose datagrams reach the guest on a UDP port that it sends from (RFC 4787 section 5): those of the peers
   * that it has sent to from there, or everybody's. The mapping is the same for both: one port of the host's
   * for one of the guest's.
   */
  readonly udpFiltering: 'address-and-port-dependent' | 'endpoint-independent';
  /** What is carried at all. DHCP, DHCPv6 and neighbour discovery are services of their own, below. */
  readonly tcp: boolean;
  readonly udp: boolean;
  /** Echo, both kinds. */
  readonly icmp: boolean;
  readonly dhcp: boolean;
  readonly dhcpv6: boolean;
  /** Neighbour and router discovery; without it nobody answers for any IPv6 address. */
  readonly ndp: boolean;
  /** Router advertisements, asked for and unasked. */
  readonly ra: boolean;
  /**
   * Whom ARP and neighbour solicitations are answered for: every address but the guest's, or the plan's own
   * addresses alone.
   */
  readonly arp: 'any' | 'ours';
  /**
   * What the plan's gateway and DNS addresses are where nothing is mapped to them: ours (ping is answered,
   * the rest refused), or addresses of the world like any other, to which the host connects.
   */
  readonly gateway: 'ours' | 'world';
  /** Offer AddressPlan.offeredDns by DHCP, DHCPv6 and RA; and AddressPlan.searchDomains. */
  readonly dhcpDns: boolean;
  readonly dhcpSearch: boolean;
  /** Offer AddressPlan.mtu by DHCP and RA. */
  readonly offerMtu: boolean;
  /** The guest's name: DHCP option 12. */
  readonly hostname?: string;
  /** Its full name: DHCP option 81, DHCPv6 option 39. */
  readonly fqdn?: string;
  /**
   * Ports of the plan's DNS addresses that lead to resolvers. None at all: they answer ARP and ping, the rest
   * of them is the world's.
   */
  readonly dnsPorts: readonly number[];
  /**
   * How what goes to an address of ours without a mapping is refused: RST and ICMP port unreachable, or ICMP
   * network unreachable.
   */
  readonly refusal: 'port' | 'network';
  /**
   * How a failed connect is told: 'honest' = ICMP unreachable for unreachable hosts and networks, RST for
   * refusals; 'rst' = always RST.
   */
  readonly connectFailure: 'honest' | 'rst';
  /** Source address of outbound TCP, UDP and ping sockets, by family; absent: the kernel's choice. */
  readonly outboundAddress4?: string;
  readonly outboundAddress6?: string;
  /** They are also the source of connections to the host's loopback, resolvers there included. */
  readonly outboundToLoopback: boolean;
  /**
   * SO_BINDTODEVICE for outbound sockets, by family; absent: the kernel's choice. Not for the host's
   * loopback.
   */
  readonly outboundInterface4?: string;
  readonly outboundInterface6?: string;
  /** Listeners and UDP sockets may have addresses that the host does not have (IP_FREEBIND). */
  readonly freebind: boolean;
}

/**
 * Everything on, the truth told: what front ends start from. Time-outs are the kernel's
 * (nf_conntrack_udp_timeout and _stream).
 */
export const DEFAULT_POLICY: ServicePolicy = {
  udpTimeoutMs: 30_000,
  udpStreamTimeoutMs: 120_000,
  pingTimeoutMs: 60_000,
  udpFiltering: 'address-and-port-dependent',
  tcp: true,
  udp: true,
  icmp: true,
  dhcp: true,
  dhcpv6: true,
  ndp: true,
  ra: true,
  arp: 'any',
  gateway: 'ours',
  dhcpDns: true,
  dhcpSearch: true,
  offerMtu: true,
  dnsPorts: [53],
  refusal: 'port',
  outboundToLoopback: false,
  connectFailure: 'honest',
  freebind: false,
};

/** The loopback path: connections and datagrams that go socket to socket, past the TAP. */
export interface SplicePlan {
  /** Sockets of the guest's namespace: splice/socket-source.ts, served by the thread that is inside. */
  readonly sockets: SharedArrayBuffer;
  /**
   * What comes to a loopback address of the host goes to the same address inside, else to the guest's
   * address.
   */
  readonly hostLoToNsLo: boolean;
}

/**
 * The host's network has changed: what of the plan goes along. The guest's own addresses never change
 * (decision 060).
 */
export interface HostChange {
  /** As Ipv6Plan.linkLocalScope; absent: there is no such interface now. */
  readonly linkLocalScope?: number;
  /** The host's address that Ipv4Plan.mapGuestAddr stands for; absent: as before. */
  readonly self4?: string;
  /** The same for IPv6; a guest that had no global address in the plan is offered this one. */
  readonly self6?: string;
  /**
   * The gateway that the guest is told of by DHCPv4, which was off (ServicePolicy.dhcp) for want of one;
   * absent: as before.
   */
  readonly dhcpGateway?: string;
}

export interface PoolPlan {
  readonly smallSlots: number;
  readonly largeSlots: number;
  /** Flows per shard (TCP, UDP and ping together). */
  readonly flows: number;
}

/** Test door: frames lost at random inside the engine, both directions of the TAP. */
export interface ImpairmentPlan {
  readonly lossFromGuest: number;
  readonly lossToGuest: number;
  readonly seed: number;
  /** Frames from the guest after which the thread that reads them fails. */
  readonly crashAfterFrames?: number;
}

export interface EnginePlan {
  readonly threads: { readonly kind: 'fused' } | { readonly kind: 'pipeline'; readonly shards: number };
  readonly addresses: AddressPlan;
  readonly policy: ServicePolicy;
  readonly listeners: readonly ListenerPlan[];
  /**
   * Most sockets that listen at a time, for a set that changes while the engine runs; absent: as many as
   * `listeners` has.
   */
  readonly listenerCapacity?: number;
  /** Absent: what comes in takes the TAP, whatever a listener's path says. */
  readonly splice?: SplicePlan;
  readonly pool: PoolPlan;
  /** Absent: no interface inside, and nothing but the loopback path is carried. */
  readonly tap?: TapPlan;
  /** Two random words: key of the flow hash. */
  readonly hashKey: readonly [number, number];
  /** Sixteen random bytes for initial sequence numbers (RFC 6528), as four words. */
  readonly isnKey: readonly [number, number, number, number];
  readonly pcapFile?: string;
  readonly impairment?: ImpairmentPlan;
  /** For tests: whose each slot is, and which words of a descriptor were not set, is checked. */
  readonly debugOwnership?: boolean;
  readonly logLevel: LogLevelName;
  /** The process becomes another, ordinary user once all is ready. */
  readonly changesUser?: boolean;
}

/** A plan with an interface, as the stages that serve it need. */
export type TapEnginePlan = EnginePlan & { readonly tap: TapPlan };

export interface TapPlan {
  readonly fd: number;
  /** 12 with IFF_VNET_HDR, 0 in the fallback. */
  readonly vnetHdrBytes: 0 | 12;
  /** The kernel accepts GSO_UDP_L4 frames (USO). */
  readonly uso: boolean;
  /**
   * No TAP, but a socket with a frame a message (sys/frame-socket.ts): it may be full, and its peer may go.
   */
  readonly socket?: FrameSocketKind;
  /** TCP frames to the guest may be longer than 64 KiB; left out: no. */
  readonly bigTcp?: boolean;
}
