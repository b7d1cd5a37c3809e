/**
 * The engine plan: all settings of the packet threads, as plain data that reaches worker threads by
 * structured clone. A front end builds it; no stage knows which front end. Addresses are text here; stages
 * convert them to words when they start.
 */
import type { FrameSocketKind } from '../sys/frame-socket.ts';
import type { LogLevelName } from './thread/log-levels.ts';

export interface Ipv4Plan {
  /** The guest's address, e.g. "192.0.2.15". */
  readonly guest: string;
  readonly prefixLen: number;
  /** Address that DHCP offers; absent: `guest`. */
  readonly dhcpOffer?: string;
  /** The engine's address on the TAP, the guest's default gateway: answers ARP and ping. */
  readonly gateway: string;
  /** Traffic of the guest to this address goes to the host's 127.0.0.1; absent: no such mapping. */
  readonly hostLoopback?: string;
  /**
   * Traffic of the guest to this address goes to the host's own address `guest`, which host and guest share;
   * a peer on the host with the address `guest` appears to the guest with this address. Absent: such a peer
   * appears with the gateway's address.
   */
  readonly mapGuestAddr?: string;
  /**
   * Traffic of the guest to this address, on one of ServicePolicy.dnsPorts, goes to the host's resolvers;
   * absent: no forwarding.
   */
  readonly dns?: string;
  /** Resolvers for `dns` only, instead of AddressPlan.resolvers; setResolvers() does not change them. */
  readonly dnsHosts?: readonly string[];
}

export interface Ipv6Plan {
  /** The guest's address. "::": the guest chooses one, which the engine learns from its packets. */
  readonly guest: string;
  readonly prefixLen: number;
  /** /64 prefix that router advertisements offer for SLAAC; absent: that of `guest`. */
  readonly advertised?: string;
  /** The engine's global (or link-local) address on the TAP, the guest's default gateway. */
  readonly gateway: string;
  /** The engine's link-local address on the TAP, source of router advertisements. */
  readonly linkLocal: string;
  /**
   * Index of the host's interface through which link-local destinations of the guest are reached; absent:
   * they are unreachable.
   */
  readonly linkLocalScope?: number;
  /** The following fields are as in Ipv4Plan; hostLoopback stands for ::1. */
  readonly hostLoopback?: string;
  readonly mapGuestAddr?: string;
  readonly dns?: string;
  readonly dnsHosts?: readonly string[];
}

export interface ListenerPlan {
  readonly proto: 'tcp' | 'udp';
  /** Side that connects: the host's network (default), or programs in the namespace over their loopback. */
  readonly from?: 'host' | 'guest';
  /** Address to bind; "": any address of both families (dual stack where IPv6 exists). */
  readonly address: string;
  /** Interface to bind to (SO_BINDTODEVICE). */
  readonly interface?: string;
  readonly port: number;
  /** Last port of a range; absent: one port. Connections to port p go to p - port + targetPort. */
  readonly lastPort?: number;
  /** Port to which connections to `port` go. */
  readonly targetPort: number;
  /** Address in the namespace to which connections go through the TAP; absent: the guest's. */
  readonly targetAddress?: string;
  /** Ports of the range that cannot be bound are skipped. Without it the first such port is an error. */
  readonly weak?: boolean;
  /** It is no error either when none of the ports can be bound. */
  readonly mayFail?: boolean;
  /**
   * How connections from a loopback address are carried: as packets through the TAP, as all others are, or
   * from socket to socket past the TAP.
   */
  readonly path?: 'tap' | 'splice';
}

export interface AddressPlan {
  readonly mtu: number;
  /** The engine's MAC on the TAP, "9a:55:9a:55:9a:55". */
  readonly mac: string;
  /** The guest's MAC if it is known at the start. The engine also learns it from frames. */
  readonly guestMac?: string;
  readonly ipv4?: Ipv4Plan;
  readonly ipv6?: Ipv6Plan;
  /**
   * The host's resolvers in order, of both families, loopback addresses included. EngineHandle.setResolvers()
   * replaces them.
   */
  readonly resolvers: readonly string[];
  /** Resolver addresses that DHCP, DHCPv6 and router advertisements offer to the guest. */
  readonly offeredDns: readonly string[];
  /** Search domains that they offer. */
  readonly searchDomains: readonly string[];
}

/** Which multicast groups and broadcast addresses of the host's network the guest reaches. */
export interface MulticastPlan {
  /** All of them; else only those of `groups`. */
  readonly all: boolean;
  /**
   * A group, or 255.255.255.255 for broadcast. With a port: datagrams to this port are received as soon as
   * the guest is a member and, without `all`, the guest sends to this port only.
   */
  readonly groups: readonly { readonly address: string; readonly port?: number }[];
  /** Most groups of each family that the guest is a member of at a time. */
  readonly maxGroups: number;
}

export interface ServicePolicy {
  /** Idle time-outs of a UDP flow in ms: before a reply was seen, and once both sides have sent. */
  readonly udpTimeoutMs: number;
  readonly udpStreamTimeoutMs: number;
  readonly pingTimeoutMs: number;
  /**
   * Which peers' datagrams reach the guest on a UDP port from which it sends (RFC 4787 section 5): only those
   * of peers to which it has sent from that port, or those of all peers. The mapping is the same in both
   * cases: one port on the host for each port of the guest.
   */
  readonly udpFiltering: 'address-and-port-dependent' | 'endpoint-independent';
  /** Protocols that are carried. DHCP, DHCPv6 and neighbour discovery have their own fields below. */
  readonly tcp: boolean;
  readonly udp: boolean;
  /** ICMP and ICMPv6 echo. */
  readonly icmp: boolean;
  readonly dhcp: boolean;
  readonly dhcpv6: boolean;
  /** Neighbour and router discovery. Without it no IPv6 address is resolved. */
  readonly ndp: boolean;
  /** Router advertisements, solicited and unsolicited. */
  readonly ra: boolean;
  /**
   * For which addresses ARP and neighbour solicitations are answered: all but the guest's, or only the
   * engine's.
   */
  readonly arp: 'any' | 'ours';
  /**
   * How the gateway and DNS addresses of the plan are treated where no mapping applies: as the engine's own
   * (ping is answered, everything else refused), or as remote addresses, to which the host connects.
   */
  readonly gateway: 'ours' | 'world';
  /** Offer AddressPlan.offeredDns by DHCP, DHCPv6 and RA; and AddressPlan.searchDomains. */
  readonly dhcpDns: boolean;
  readonly dhcpSearch: boolean;
  /** Offer AddressPlan.mtu by DHCP and RA. */
  readonly offerMtu: boolean;
  /** The guest's host name: DHCP option 12. */
  readonly hostname?: string;
  /** The guest's fully qualified name: DHCP option 81, DHCPv6 option 39. */
  readonly fqdn?: string;
  /**
   * Ports of the plan's DNS addresses on which queries go to resolvers. Empty: these addresses answer ARP and
   * ping, and are remote addresses otherwise.
   */
  readonly dnsPorts: readonly number[];
  /**
   * How traffic to an address of the engine is refused where no mapping applies: by RST and ICMP port
   * unreachable, or by ICMP network unreachable.
   */
  readonly refusal: 'port' | 'network';
  /**
   * How a failed connect is reported to the guest: 'honest' = ICMP unreachable for unreachable hosts and
   * networks, RST for refusals; 'rst' = always RST.
   */
  readonly connectFailure: 'honest' | 'rst';
  /** Source address of outbound TCP, UDP and ping sockets, by family; absent: the kernel's choice. */
  readonly outboundAddress4?: string;
  readonly outboundAddress6?: string;
  /** Sockets to the host's loopback addresses, resolvers included, have these source addresses too. */
  readonly outboundToLoopback: boolean;
  /**
   * Interface of outbound sockets (SO_BINDTODEVICE), by family; absent: the kernel's choice. Sockets to the
   * host's loopback are not bound.
   */
  readonly outboundInterface4?: string;
  readonly outboundInterface6?: string;
  /** Listeners and UDP sockets may bind to addresses that the host does not have (IP_FREEBIND). */
  readonly freebind: boolean;
  /** Absent: multicast and broadcast of the guest are dropped. */
  readonly multicast?: MulticastPlan;
}

/**
 * Policy with which front ends begin: all services are on, failures are reported as they are. UDP time-outs
 * are the kernel's defaults (nf_conntrack_udp_timeout and nf_conntrack_udp_timeout_stream).
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

/** The splice stage: connections and datagrams that go from socket to socket, past the TAP. */
export interface SplicePlan {
  /** Source of sockets in the guest's namespace (splice/socket-source.ts). */
  readonly sockets: SharedArrayBuffer;
  /**
   * Connections to a loopback address of the host go to the same address in the namespace; false: to the
   * guest's address.
   */
  readonly hostLoToNsLo: boolean;
}

/**
 * Changes of the plan after the host's network has changed. The guest's own addresses never change (decision
 * 060).
 */
export interface HostChange {
  /** As Ipv6Plan.linkLocalScope; absent: there is no such interface now. */
  readonly linkLocalScope?: number;
  /** The host's address to which Ipv4Plan.mapGuestAddr is mapped; absent: unchanged. */
  readonly self4?: string;
  /** The same for IPv6. A guest without a global address in the plan is offered this one. */
  readonly self6?: string;
  /**
   * Gateway to offer by DHCPv4, which was off (ServicePolicy.dhcp) because there was no gateway; absent:
   * unchanged.
   */
  readonly dhcpGateway?: string;
}

/** The egress policy, in shared memory: which destinations the guest may reach (flow/egress.ts). */
export interface EgressPlan {
  /** compileEgress(). Never changed: EngineHandle.setEgress() takes another block. */
  readonly policy: SharedArrayBuffer;
  /** EGRESS_NAMES_BYTES: addresses that the DNS forwarder answered. The same for all policies of an engine. */
  readonly names: SharedArrayBuffer;
}

export interface PoolPlan {
  readonly smallSlots: number;
  readonly largeSlots: number;
  /** Flows per shard (TCP, UDP and ping together). */
  readonly flows: number;
}

/** For tests: frames lost at random inside the engine, in both directions of the TAP. */
export interface ImpairmentPlan {
  /** Probabilities, 0 to 1. */
  readonly lossFromGuest: number;
  readonly lossToGuest: number;
  readonly seed: number;
  /** The thread that reads frames of the guest fails at the frame of this number. */
  readonly crashAfterFrames?: number;
  /** Each frame of this number, counted by each reader, goes through the ring of a wrong lane. */
  readonly wrongLaneEvery?: number;
  /** Share of processor time above which a lane counts as busy; half of it is calm. */
  readonly busyShare?: number;
  /** Lanes open and are given up in turn, after so many ms each, whatever the load is. */
  readonly lanesTurnMs?: number;
}

/**
 * Gilbert-Elliott loss: the line is in a good or in a bad state, and changes between them before each packet.
 * All fields are probabilities, 0 to 1. Independent losses: goodToBad 0, and lossGood alone.
 */
export interface LossPlan {
  readonly goodToBad: number;
  readonly badToGood: number;
  readonly lossGood: number;
  readonly lossBad: number;
}

export type JitterDistribution = 'uniform' | 'normal' | 'pareto';

/** One direction of an emulated line (shaping/line.ts). Shares are 0 to 1; bytes have the Ethernet header. */
export interface LinePlan {
  /** Bytes per second; Infinity: no limit. */
  readonly bytesPerSecond: number;
  /** Bytes that may leave at once after a pause. */
  readonly burstBytes: number;
  /** What may wait for the rate; more is lost. */
  readonly queueBytes: number;
  readonly queuePackets: number;
  readonly delayMs: number;
  /** Uniform: the largest deviation from delayMs; the others: the standard deviation. */
  readonly jitterMs: number;
  readonly distribution: JitterDistribution;
  readonly loss: LossPlan;
  readonly duplicate: number;
  /** Share of packets that later ones overtake: they arrive reorderMs later than they would. */
  readonly reorder: number;
  readonly reorderMs: number;
  /** Share of packets in which one bit is wrong. */
  readonly corrupt: number;
  /** Longest IP packet; longer ones are lost without an ICMP error. */
  readonly maxPacketBytes: number;
}

/** Both directions of an emulated line. */
export interface LinesPlan {
  readonly fromGuest: LinePlan;
  readonly toGuest: LinePlan;
}

/** Emulated lines of a container. Only with one packet thread. */
export interface ShapingPlan {
  readonly seed: number;
  /** The line of all packets of no rule. */
  readonly rest: LinesPlan;
  /** Lines by the address outside; the first rule that has it applies. */
  readonly rules: readonly (LinesPlan & { readonly networks: readonly NetworkPlan[] })[];
}

/** Addresses with a common prefix. */
export interface NetworkPlan {
  readonly address: string;
  readonly prefixLen: number;
}

/**
 * How stages are spread over packet threads (placement.ts): all on one; one thread for the reader, one for
 * each shard and one for host-io; or lanes, each of which has all stages and a queue of the TAP.
 */
export type ThreadsPlan =
  | { readonly kind: 'fused' }
  | { readonly kind: 'pipeline'; readonly shards: number }
  /** `first`: so many start with the engine, the others when load needs them; absent: all. */
  | { readonly kind: 'lanes'; readonly lanes: number; readonly first?: number };

export interface EnginePlan {
  readonly threads: ThreadsPlan;
  readonly addresses: AddressPlan;
  readonly policy: ServicePolicy;
  readonly listeners: readonly ListenerPlan[];
  /**
   * Most listening sockets at a time, where listeners change while the engine runs; absent: as many as
   * `listeners` need.
   */
  readonly listenerCapacity?: number;
  /** Absent: all connections go through the TAP, whatever ListenerPlan.path is. */
  readonly splice?: SplicePlan;
  /** Absent: the guest may reach everything. */
  readonly egress?: EgressPlan;
  readonly pool: PoolPlan;
  /** Absent: the namespace has no interface, and only the splice stage runs. */
  readonly tap?: TapPlan;
  /** Two random words: key of the flow hash. */
  readonly hashKey: readonly [number, number];
  /** Sixteen random bytes for initial sequence numbers (RFC 6528), as four words. */
  readonly isnKey: readonly [number, number, number, number];
  readonly impairment?: ImpairmentPlan;
  /** Emulated lines between guest and engine, only with one packet thread; absent: none. */
  readonly shaping?: ShapingPlan;
  /** For tests: check the owner of each slot, and fill unset words of descriptors with UNSET_WORD. */
  readonly debugOwnership?: boolean;
  readonly logLevel: LogLevelName;
  /** The process will change to another, unprivileged user when it is ready. */
  readonly changesUser?: boolean;
  /**
   * Packet threads carry nothing until EngineHandle.begin(), although they are ready: the guest may be
   * running before this process is in the sandbox.
   */
  readonly waitsForBegin?: boolean;
}

/** A plan with an interface: reader and shards need one. */
export type TapEnginePlan = EnginePlan & { readonly tap: TapPlan };

export interface TapPlan {
  readonly fd: number;
  /** Descriptors of its further queues (IFF_MULTI_QUEUE), those of lanes 1, 2 ...; absent: none. */
  readonly moreQueues?: readonly number[];
  /** 12 with IFF_VNET_HDR, else 0. */
  readonly vnetHdrBytes: 0 | 12;
  /** The kernel accepts GSO_UDP_L4 frames (USO). */
  readonly uso: boolean;
  /**
   * The descriptor is not a TAP but a socket with one frame per message (sys/frame-socket.ts): it may be
   * full, and its peer may close it.
   */
  readonly socket?: FrameSocketKind;
  /** TCP frames to the guest may be longer than 64 KiB; absent: no. */
  readonly bigTcp?: boolean;
}
