/**
 * Packets that a kernel sends on every link by itself: group memberships (IGMP, MLD), neighbour discovery on
 * a link without IPv6, mDNS and LLMNR. They are for other hosts on the link, and this link has none: such
 * packets are freed without loss to anyone, so they are counted apart from the causes of loss (StageDrop).
 *
 * Link-local groups: 224.0.0.0/24 (RFC 5771 section 4), and multicast of scope 1 and 2, e.g. ff02::/16 (RFC
 * 4291 section 2.7), with any flags.
 */
import { isV4Mapped } from '../../proto/address.ts';
import { IpProtocol } from '../../proto/ipv4.ts';
import { IPV6_BYTES, IPV6_DST, Ipv6Next } from '../../proto/ipv6.ts';
import { Counter } from '../../ring/counters.ts';
import type { ShardContext } from './context.ts';
import { type Packet, packetFree } from './packet.ts';

const IPV4_PROTOCOL_AT = 9;
const IPV4_DST_AT = 16;
const IPV4_BYTES = 20;
const IPV6_NEXT_AT = 6;
const MULTICAST = 0xff;
const INTERFACE_LOCAL = 1;
const LINK_LOCAL = 2;

/**
 * Whether an address is a group of link-local or interface-local scope.
 * @param at  index of the address's first word; IPv4 as v4-mapped
 */
export function isLinkLocalGroup(a: Uint32Array, at: number): boolean {
  const first = a[at]!;
  if (first >>> 24 === MULTICAST) {
    const scope = (first >>> 16) & 0xf;
    return scope === INTERFACE_LOCAL || scope === LINK_LOCAL;
  }
  return isV4Mapped(a, at) && a[at + 3]! >>> 8 === 0xe00000;
}

/**
 * Count the packet by its kind and free it.
 * @param counter  Counter.groupReports, discoveryUnanswered or linkLocalDatagrams
 */
export function packetChatter(ctx: ShardContext, p: Packet, counter: number): void {
  ctx.counters[counter]!++;
  packetFree(ctx, p);
}

/**
 * The counter for an IPv4 packet on a link without IPv4. The packet is not checked before.
 * @param bytes  readable from `at`
 * @returns Counter.groupReports or linkLocalDatagrams; -1: not such a packet
 */
export function chatterKind4(u8: Uint8Array, at: number, bytes: number): number {
  if (bytes < IPV4_BYTES) return -1;
  if (u8[at + IPV4_DST_AT] !== 224 || u8[at + IPV4_DST_AT + 1] !== 0 || u8[at + IPV4_DST_AT + 2] !== 0)
    return -1;
  const protocol = u8[at + IPV4_PROTOCOL_AT]!;
  if (protocol === IpProtocol.igmp) return Counter.groupReports;
  return protocol === IpProtocol.udp ? Counter.linkLocalDatagrams : -1;
}

/**
 * The counter for an IPv6 packet on a link without IPv6. The packet is not checked before. MLD has a
 * hop-by-hop option in front (RFC 3810 section 5), neighbour discovery has none.
 * @param bytes  readable from `at`
 * @returns Counter.groupReports, discoveryUnanswered or linkLocalDatagrams; -1: not such a packet
 */
export function chatterKind6(u8: Uint8Array, at: number, bytes: number): number {
  if (bytes < IPV6_BYTES || u8[at + IPV6_DST] !== MULTICAST) return -1;
  const scope = u8[at + IPV6_DST + 1]! & 0xf;
  if (scope !== INTERFACE_LOCAL && scope !== LINK_LOCAL) return -1;
  switch (u8[at + IPV6_NEXT_AT]) {
    case Ipv6Next.hopByHop:
      return Counter.groupReports;
    case IpProtocol.icmpv6:
      return Counter.discoveryUnanswered;
    case IpProtocol.udp:
      return Counter.linkLocalDatagrams;
    default:
      return -1;
  }
}
