/**
 * Socket options that the guest's IP headers require of a flow's host socket: TTL, whether datagrams may be
 * fragmented, and TOS (DSCP and ECN). A socket option stays set, so it is sent with a datagram only when it
 * changes (sendDatagramWrite()).
 *
 * A Linux guest sets DF in nearly all of its datagrams, though its MTU may be larger than the host's. DF is
 * kept only for probes with a small TTL (traceroute; decision 062): other datagrams are fragmented where the
 * host's link has a smaller MTU, as passt does. A datagram to a multicast group is no probe: it has a small
 * TTL because it is meant for a near network.
 */

import { IPV6_MIN_MTU } from '../../proto/ipv6.ts';
import { SendFragment, sendOptions } from '../link/to-host.ts';
import type { Packet } from './packet.ts';
import { ipHeaderBytes } from './to-guest.ts';

/**
 * Paths are assumed to carry IPv4 packets of so many bytes unfragmented (RFC 791 section 3.2: all hosts
 * accept them). For IPv6 that is the rule, with IPV6_MIN_MTU.
 */
const CARRIED_BYTES_V4 = 576;
/**
 * Packets with a smaller TTL count as probes: tools that trace a path start at 1 and end below this; hosts
 * send with 64, 128 or 255.
 */
const PROBE_TTL_LIMIT = 32;

/** The socket options of all flows of one protocol. */
export class SendOptions {
  // By flow: options that its host socket has. TTL 0: not set yet.
  readonly #ttl: Uint8Array;
  readonly #fragment: Uint8Array;
  readonly #tos: Uint8Array;

  constructor(flows: number) {
    this.#ttl = new Uint8Array(flows);
    this.#fragment = new Uint8Array(flows);
    this.#tos = new Uint8Array(flows);
  }

  /** A flow gets a new socket: the kernel fragments what exceeds the path's MTU. */
  begin(flow: number): void {
    this.#ttl[flow] = 0;
    this.#fragment[flow] = SendFragment.allowed;
    this.#tos[flow] = 0;
  }

  /**
   * The options that have to be set before a packet of the flow is sent; they count as set from then on.
   * @param p  packet from the guest
   * @param toGroup  its destination is a multicast group or broadcast address
   * @returns options of sendDatagramWrite()
   */
  change(flow: number, p: Packet, toGroup = false): number {
    let ttl = 0;
    let fragment: SendFragment = SendFragment.unchanged;
    if (p.ttl !== this.#ttl[flow]) {
      this.#ttl[flow] = p.ttl;
      ttl = p.ttl;
    }
    const isProbe = !toGroup && p.dontFragment && p.ttl < PROBE_TTL_LIMIT;
    const wanted = isProbe ? SendFragment.never : SendFragment.allowed;
    if (wanted !== this.#fragment[flow] && !isCarried(p)) {
      this.#fragment[flow] = wanted;
      fragment = wanted;
    }
    if (p.tos === this.#tos[flow]) return sendOptions(ttl, fragment);
    this.#tos[flow] = p.tos;
    return sendOptions(ttl, fragment, p.tos);
  }
}

/** Whether any path carries the packet unfragmented, so that the fragment option does not matter. */
function isCarried(p: Packet): boolean {
  const bytes = ipHeaderBytes(p.family) + p.transportBytes;
  return bytes <= (p.family === 4 ? CARRIED_BYTES_V4 : IPV6_MIN_MTU);
}
