/**
 * Frames that stay on the link between guest and gateway, as no router forwards them: they do not take the
 * emulated line, which is beyond the gateway. On it, the first packet to a neighbour would wait for a round trip
 * of ARP or neighbour discovery.
 */

import { readU16 } from '../../proto/be.ts';
import { DHCP_CLIENT_PORT, DHCP_SERVER_PORT } from '../../proto/dhcp.ts';
import { DHCPV6_CLIENT_PORT, DHCPV6_SERVER_PORT } from '../../proto/dhcpv6.ts';
import { ETH_BYTES, EtherType, etherType } from '../../proto/ethernet.ts';
import { Icmp6Type } from '../../proto/icmpv6.ts';
import { IPV4_MIN_BYTES, IpProtocol, ipv4IsFragment, ipv4Protocol } from '../../proto/ipv4.ts';
import { IPV6_BYTES, Ipv6Next, ipv6NextHeader } from '../../proto/ipv6.ts';

const UDP_PORTS_BYTES = 4;
/** A hop-by-hop header with router alert, as MLD has it (RFC 3810 section 5). */
const ROUTER_ALERT_BYTES = 8;

/**
 * Whether a frame is ARP, DHCP, DHCPv6, neighbour or router discovery, IGMP or MLD.
 * @param ethAt    the frame in u8
 * @param inBytes  bytes of it that lie there; a frame that is shorter than its headers takes the line
 */
export function isLinkFrame(u8: Uint8Array, ethAt: number, inBytes: number): boolean {
  if (inBytes < ETH_BYTES) return false;
  const type = etherType(u8, ethAt);
  if (type === EtherType.ipv4) return isLinkPacket4(u8, ethAt + ETH_BYTES, inBytes - ETH_BYTES);
  if (type === EtherType.ipv6) return isLinkPacket6(u8, ethAt + ETH_BYTES, inBytes - ETH_BYTES);
  return type === EtherType.arp;
}

function isLinkPacket4(u8: Uint8Array, at: number, bytes: number): boolean {
  if (bytes < IPV4_MIN_BYTES) return false;
  const protocol = ipv4Protocol(u8, at);
  if (protocol === IpProtocol.igmp) return true;
  const udpAt = at + (u8[at]! & 15) * 4;
  if (protocol !== IpProtocol.udp || udpAt + UDP_PORTS_BYTES > at + bytes) return false;
  return arePorts(u8, udpAt, DHCP_CLIENT_PORT, DHCP_SERVER_PORT) && !ipv4IsFragment(u8, at);
}

function isLinkPacket6(u8: Uint8Array, at: number, bytes: number): boolean {
  if (bytes < IPV6_BYTES) return false;
  let protocol = ipv6NextHeader(u8, at);
  let upperAt = at + IPV6_BYTES;
  if (protocol === Ipv6Next.hopByHop && bytes > IPV6_BYTES + ROUTER_ALERT_BYTES && u8[upperAt + 1] === 0) {
    protocol = u8[upperAt]!;
    upperAt += ROUTER_ALERT_BYTES;
  }
  if (upperAt + UDP_PORTS_BYTES > at + bytes) return false;
  if (protocol === IpProtocol.udp) return arePorts(u8, upperAt, DHCPV6_CLIENT_PORT, DHCPV6_SERVER_PORT);
  if (protocol !== IpProtocol.icmpv6) return false;
  const type = u8[upperAt]!;
  return (type >= Icmp6Type.mldQuery && type <= Icmp6Type.redirect) || type === Icmp6Type.mld2Report;
}

/** Whether a UDP header has these two ports, in either order. */
function arePorts(u8: Uint8Array, at: number, client: number, server: number): boolean {
  const src = readU16(u8, at);
  const dst = readU16(u8, at + 2);
  return (src === client && dst === server) || (src === server && dst === client);
}
