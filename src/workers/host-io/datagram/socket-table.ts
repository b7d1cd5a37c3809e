/**
 * What the parts of the datagram sockets know of each flow and each socket. A socket is named by its sid: the
 * gid of its only flow (ping, UDP without a guest's port), or of its listener, or endpointBase + endpoint.
 */
import { DROP_BASE } from '../../../ring/counters.ts';
import type { ListenerPlan } from '../../engine-plan.ts';
import { SendFragment, sendOptions } from '../../link/to-host.ts';
import type { HostContext } from '../context.ts';
import type { UdpEndpoints } from '../udp-endpoints.ts';

export const Kind = {
  none: 0,
  udp4: 1,
  udp6: 2,
  ping4: 3,
  ping6: 4,
  failed: 5,
  listener4: 6,
  listener6: 7,
} as const;

/** Of a flow from behind a published port: where its socket is. */
export const Published = { no: 0, ownSocket: 1, byListener: 2 } as const;

/** What a socket has until it is told otherwise: the kernel's TTL, and fragments. */
export const DEFAULT_OPTIONS = sendOptions(0, SendFragment.allowed);

export class SocketTable {
  /** sid of endpoint 0; a gid is smaller than ctx.listenerBase. */
  readonly endpointBase: number;
  readonly #listenerBase: number;
  /** Made with the first socket for an endpoint. */
  endpoints: UdpEndpoints | null = null;
  /** Sockets for endpoints are connected while they can be. */
  readonly connects: boolean;
  // By gid. Descriptors and sids are kept + 1: zeroed memory means none, and stays untouched until used.
  readonly socketOf: Int32Array;
  /** What a flow wants of its socket: ttl | SendFragment << 8. */
  readonly wanted: Uint16Array;
  /** UDP_SEGMENT was refused for datagrams of this size: no larger ones are tried (0: no limit known). */
  readonly noSegment: Uint16Array;
  /** Published: if not `no`, the flow's peer is known to an endpoint (DatagramSockets.#openPublished). */
  readonly isPublished: Uint8Array;
  // By sid; kind by gid too.
  readonly fd: Int32Array;
  readonly kind: Uint8Array;
  /** The options that it has now. */
  readonly options: Uint16Array;
  /** Local port of a socket that was disconnected, which HostContext.datagramPorts counts; 0: none. */
  readonly port: Uint16Array;
  /**
   * The socket has UDP_GRO: the kernel may hand over several datagrams as one, and says so in a control
   * message.
   */
  readonly hasGro: Uint8Array;
  // By listener: the port inside, the rule, whether what comes from loopback is spliced.
  readonly listenerPort: Uint16Array;
  readonly listenerPlan: ListenerPlan[] = [];
  readonly listenerSplices: Uint8Array;

  /** How many sockets have a number: `gids` and, from there on, an endpoint for each flow. */
  static sids(flows: number, gids: number): number {
    return gids + flows;
  }

  /** @param gids  flows and listeners */
  constructor(ctx: HostContext, gids: number) {
    this.endpointBase = gids;
    this.#listenerBase = ctx.listenerBase;
    this.connects = ctx.plan.policy.udpFiltering === 'address-and-port-dependent';
    this.socketOf = new Int32Array(ctx.listenerBase);
    this.wanted = new Uint16Array(ctx.listenerBase);
    this.noSegment = new Uint16Array(ctx.listenerBase);
    this.isPublished = new Uint8Array(ctx.listenerBase);
    const sids = SocketTable.sids(ctx.listenerBase, gids);
    this.fd = new Int32Array(sids);
    this.kind = new Uint8Array(sids);
    this.options = new Uint16Array(sids);
    this.port = new Uint16Array(sids);
    this.hasGro = new Uint8Array(sids);
    this.listenerPort = new Uint16Array(gids - ctx.listenerBase);
    this.listenerSplices = new Uint8Array(gids - ctx.listenerBase);
  }

  /** The flow that a socket is connected for, -1: it is not connected. */
  onlyFlow(sid: number): number {
    if (sid >= this.endpointBase) return this.endpoints!.only(sid - this.endpointBase);
    return sid < this.#listenerBase ? sid : -1;
  }
}

/** Count datagrams that go nowhere. @param cause  StageDrop */
export function dropDatagrams(counters: Float64Array, cause: number, count: number): void {
  counters[DROP_BASE - cause]! += count;
}
