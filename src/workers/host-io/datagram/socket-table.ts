/**
 * What the parts of the datagram sockets share about each flow and each socket. A flow has a gid, a socket a
 * sid (SocketId):
 *
 *   0 ..                sid = gid of the socket's only flow (ping, UDP without guest port, published port)
 *   listenerBase ..     sid = gid of a listener
 *   endpointBase ..     sid = endpointBase + endpoint, for the flows of one endpoint of the guest
 */
import { DROP_BASE } from '../../../ring/counters.ts';
import { close } from '../../../sys/io.ts';
import type { ListenerPlan } from '../../engine-plan.ts';
import { SendFragment, sendOptions } from '../../link/to-host.ts';
import { DescriptorTable } from '../../thread/descriptor-table.ts';
import type { HostContext, SocketId } from '../context.ts';
import type { EndpointId, UdpEndpoints } from '../udp-endpoints.ts';

/**
 * Of a flow (by gid) and of a socket (by sid). Only the functions below depend on the order of the values.
 */
export const Kind = {
  none: 0,
  udp4: 1,
  udp6: 2,
  ping4: 3,
  ping6: 4,
  /** A flow to a multicast group or broadcast address; its socket is of kind udp4, udp6 or a listener. */
  group4: 5,
  group6: 6,
  /** A flow whose socket could not be opened, or was taken from it; waits for the shard's `close`. */
  failed: 7,
  listener4: 8,
  listener6: 9,
} as const;

/** A published port's own socket. */
export const isListener = (kind: number): boolean => kind >= Kind.listener4;
export const isUdpFlow = (kind: number): boolean => kind === Kind.udp4 || kind === Kind.udp6;
export const isPing = (kind: number): boolean => kind === Kind.ping4 || kind === Kind.ping6;
/** Of a flow that has a socket. */
export const hasSocket = (kind: number): boolean => kind >= Kind.udp4 && kind <= Kind.group6;
export const isGroupFlow = (kind: number): boolean => kind === Kind.group4 || kind === Kind.group6;
/** Of a flow's socket, not a listener. */
export const isIpv4Flow = (kind: number): boolean =>
  kind === Kind.udp4 || kind === Kind.ping4 || kind === Kind.group4;

/** A listener may be dual-stack: its IPv4 peers obey the options of SOL_IP. */
export const sendsIpv4 = (kind: number): boolean => isIpv4Flow(kind) || isListener(kind);
export const sendsIpv6 = (kind: number): boolean => !isIpv4Flow(kind) && kind !== Kind.listener4;

/** Which socket a flow that leaves from a published port has. */
export const Published = { no: 0, ownSocket: 1, byListener: 2 } as const;

/** What a new socket has: the kernel's TTL, fragments are allowed, TOS 0. */
export const DEFAULT_OPTIONS = sendOptions(0, SendFragment.allowed, 0);

export const NO_SOCKET = -1 as SocketId;

export class SocketTable {
  /** sid of endpoint 0; a gid is smaller than ctx.listenerBase. */
  readonly endpointBase: number;
  readonly #listenerBase: number;
  /** Null until the first flow with a guest port is opened. */
  endpoints: UdpEndpoints | null = null;
  /** Sockets of endpoints are connected while they have one peer (policy udpFiltering). */
  readonly connects: boolean;
  // By gid.
  /** sid + 1, 0: none. Zeroed memory of flows that were never used stays untouched. */
  readonly #socketOf: Int32Array;
  /** Options that the flow's datagrams need (sendOptions()). */
  readonly wanted: Uint32Array;
  /** UDP_SEGMENT was refused for datagrams of this size: not tried from this size on. 0: no limit known. */
  readonly noSegment: Uint16Array;
  /**
   * A value of Published; if not `no`, an endpoint knows the flow's peer (DatagramSockets.#openPublished).
   */
  readonly isPublished: Uint8Array;
  // By sid; kind by gid too.
  readonly fd: DescriptorTable;
  readonly kind: Uint8Array;
  /** Options that are set on the socket now (sendOptions()). */
  readonly options: Uint32Array;
  /** Local port of a disconnected socket, counted in HostContext.datagramPorts; 0: not counted. */
  readonly port: Uint16Array;
  /** 1: UDP_GRO is set; the kernel may coalesce datagrams and gives their size in a control message. */
  readonly hasGro: Uint8Array;
  /** 1: the kernel gives the TOS of each datagram that is received in a control message. */
  readonly hasTos: Uint8Array;
  /** 1: flows send to groups through the socket, and any peer may send to it. */
  readonly sendsToGroups: Uint8Array;
  /** Of such a socket: the guest's port, counted in HostContext.publishedUdp; 0: not counted. */
  readonly groupPort: Uint16Array;
  // By listener: the port inside, the rule, 1: datagrams from loopback are spliced.
  readonly listenerPort: Uint16Array;
  readonly listenerPlan: ListenerPlan[] = [];
  readonly listenerSplices: Uint8Array;

  /**
   * @param flows  flows of all shards
   * @param gids  flows and listeners
   * @returns how many sids there are: all gids, and an endpoint for each flow
   */
  static sids(flows: number, gids: number): number {
    return gids + flows;
  }

  /** @param gids  flows and listeners */
  constructor(ctx: HostContext, gids: number) {
    this.endpointBase = gids;
    this.#listenerBase = ctx.listenerBase;
    this.connects = ctx.plan.policy.udpFiltering === 'address-and-port-dependent';
    this.#socketOf = new Int32Array(ctx.listenerBase);
    this.wanted = new Uint32Array(ctx.listenerBase);
    this.noSegment = new Uint16Array(ctx.listenerBase);
    this.isPublished = new Uint8Array(ctx.listenerBase);
    const sids = SocketTable.sids(ctx.listenerBase, gids);
    this.fd = new DescriptorTable(sids);
    this.kind = new Uint8Array(sids);
    this.options = new Uint32Array(sids);
    this.port = new Uint16Array(sids);
    this.hasGro = new Uint8Array(sids);
    this.hasTos = new Uint8Array(sids);
    this.sendsToGroups = new Uint8Array(sids);
    this.groupPort = new Uint16Array(sids);
    this.listenerPort = new Uint16Array(gids - ctx.listenerBase);
    this.listenerSplices = new Uint8Array(gids - ctx.listenerBase);
  }

  /** A new socket, with the options that the kernel gives it. */
  open(sid: SocketId, fd: number): void {
    this.fd.set(sid, fd);
    this.options[sid] = DEFAULT_OPTIONS;
    this.hasTos[sid] = 0;
    this.sendsToGroups[sid] = 0;
  }

  /** Close a socket that is open. */
  close(sid: SocketId): void {
    close(this.fd.get(sid));
    this.fd.clear(sid);
    this.kind[sid] = Kind.none;
  }

  /** @returns the socket that serves only this flow */
  ownSocket(gid: number): SocketId {
    return gid as SocketId;
  }

  /** @param index  listener number */
  listenerSocket(index: number): SocketId {
    return (this.#listenerBase + index) as SocketId;
  }

  endpointSocket(endpoint: EndpointId): SocketId {
    return (this.endpointBase + endpoint) as SocketId;
  }

  /** @param sid  of an endpoint's socket */
  endpointOf(sid: SocketId): EndpointId {
    return (sid - this.endpointBase) as EndpointId;
  }

  /** @returns the socket that a flow sends through, or NO_SOCKET */
  socketOf(gid: number): SocketId {
    return (this.#socketOf[gid]! - 1) as SocketId;
  }

  setSocket(gid: number, sid: SocketId): void {
    this.#socketOf[gid] = sid + 1;
  }

  /** @returns gid of the flow that a socket is connected for, or -1: it is not connected */
  onlyFlow(sid: SocketId): number {
    if (sid >= this.endpointBase) return this.endpoints!.only(this.endpointOf(sid));
    return sid < this.#listenerBase ? sid : -1;
  }
}

/** Count dropped datagrams. @param cause  StageDrop */
export function dropDatagrams(counters: Float64Array, cause: number, count: number): void {
  counters[DROP_BASE - cause]! += count;
}
