/**
 * DHCPv4 server for the guest (RFC 2131): it always offers the plan's address, with an infinite lease.
 *
 *   DISCOVER -> OFFER, or ACK when the client takes rapid commit (RFC 4039)
 *   REQUEST  -> ACK; NAK for another address, so that the client starts over at once
 *   INFORM   -> ACK without an address;   BOOTP request -> reply;   others are not answered
 *
 * Not a hot path: a guest sends a few messages in all.
 */

import { addressParse, isLoopback } from '../../proto/address.ts';
import {
  DHCP_CLIENT_PORT,
  DHCP_SERVER_PORT,
  DhcpMessage,
  type DhcpReply,
  dhcpCheck,
  dhcpCiaddr,
  dhcpMessageType,
  dhcpRapidCommit,
  dhcpReplyWrite,
  dhcpRequestedIp,
  dhcpServerId,
  dhcpWantsBroadcast,
} from '../../proto/dhcp.ts';
import { IPV4_MIN_BYTES, IpProtocol, ipv4Parse } from '../../proto/ipv4.ts';
import { UDP_BYTES, UDP_CHECKSUM, udpLength, udpWrite } from '../../proto/udp.ts';
import { StageDrop } from '../link/stage-drop.ts';
import type { ShardContext } from './context.ts';
import type { Packet } from './packet.ts';
import { datagramToGuest } from './to-guest.ts';

const LEASE_FOREVER_S = 0xffffffff;
const BROADCAST = 0xffffffff;
/** Greatest value of the MTU option, which has 16 bits (RFC 2132 section 5.1). */
const MAX_MTU_OPTION = 0xffff;

const src = Uint32Array.of(0, 0, 0xffff, 0);
const dst = Uint32Array.of(0, 0, 0xffff, 0);

/**
 * Answer a datagram to port 67 whose UDP header has been checked. The packet stays the caller's.
 */
export function handleDhcp(ctx: ShardContext, p: Packet): void {
  const plan = ctx.plan.addresses.ipv4;
  if (plan === undefined || ctx.addressing.dhcpServer === 0) {
    ctx.drop(StageDrop.dhcp);
    return;
  }
  const requestAt = p.transportAt + UDP_BYTES;
  const requestBytes = udpLength(ctx.u8, p.transportAt) - UDP_BYTES;
  if (requestBytes > p.transportBytesInA - UDP_BYTES) {
    ctx.drop(StageDrop.dhcp);
    return;
  }
  const checked = dhcpCheck(ctx.u8, requestAt, requestBytes);
  if (checked < 0) {
    ctx.drop(checked);
    return;
  }
  const reply = dhcpAnswer(ctx, requestAt, requestBytes, plan.prefixLen);
  if (reply === null) {
    ctx.drop(StageDrop.dhcp);
    return;
  }

  const bodyAt = ctx.guest.scratchAt + IPV4_MIN_BYTES;
  const bytes = dhcpReplyWrite(ctx.u8, bodyAt + UDP_BYTES, requestAt, requestBytes, reply);
  udpWrite(ctx.u8, bodyAt, DHCP_SERVER_PORT, DHCP_CLIENT_PORT, UDP_BYTES + bytes);
  src[3] = reply.serverId;
  const ciaddr = dhcpCiaddr(ctx.u8, requestAt);
  const broadcast = dhcpWantsBroadcast(ctx.u8, requestAt) || reply.messageType === DhcpMessage.nak;
  dst[3] = broadcast ? BROADCAST : ciaddr !== 0 ? ciaddr : reply.yiaddr;
  const f = ctx.guest.frame;
  f.begin(4, IpProtocol.udp);
  f.addresses(src, 0, dst, 0);
  f.body(bodyAt, UDP_BYTES + bytes, 0, 0);
  f.checksumField = UDP_CHECKSUM;
  const sent = datagramToGuest(ctx, f);
  if (sent === StageDrop.tooLong) ctx.drop(sent);
}

/** The reply to a request, or null: none. */
function dhcpAnswer(ctx: ShardContext, at: number, bytes: number, prefixLen: number): DhcpReply | null {
  const { u8, addressing } = ctx;
  const { dhcpOffer } = ctx.plan.addresses.ipv4!;
  const guest = dhcpOffer === undefined ? addressing.guest[3]! : ipv4Parse(dhcpOffer);
  const serverId = addressing.dhcpServer;
  const forServer = dhcpServerId(u8, at, bytes);
  if (forServer !== 0 && forServer !== serverId) return null; // the client took another server's offer
  switch (dhcpMessageType(u8, at, bytes)) {
    case DhcpMessage.none:
      return { messageType: DhcpMessage.none, yiaddr: guest, serverId, ...settings(ctx, prefixLen) };
    case DhcpMessage.discover: {
      const rapidCommit = dhcpRapidCommit(u8, at, bytes);
      const messageType = rapidCommit ? DhcpMessage.ack : DhcpMessage.offer;
      return {
        messageType,
        yiaddr: guest,
        serverId,
        leaseTimeS: LEASE_FOREVER_S,
        rapidCommit,
        ...settings(ctx, prefixLen),
      };
    }
    case DhcpMessage.request: {
      // RFC 2131 section 4.3.2: a client names the address in option 50, or in ciaddr when it renews.
      const wanted = dhcpRequestedIp(u8, at, bytes) || dhcpCiaddr(u8, at);
      if (wanted !== 0 && wanted !== guest) return { messageType: DhcpMessage.nak, yiaddr: 0, serverId };
      return {
        messageType: DhcpMessage.ack,
        yiaddr: guest,
        serverId,
        leaseTimeS: LEASE_FOREVER_S,
        ...settings(ctx, prefixLen),
      };
    }
    case DhcpMessage.inform:
      // The reply has neither address nor lease time (RFC 2131 section 4.3.5).
      return { messageType: DhcpMessage.ack, yiaddr: 0, serverId, ...settings(ctx, prefixLen) };
    default:
      return null;
  }
}

function settings(ctx: ShardContext, prefixLen: number): Partial<DhcpReply> {
  const { addressing, plan } = ctx;
  const { policy } = plan;
  const router = addressing.dhcpServer;
  const mask = prefixLen === 0 ? 0 : (-1 << (32 - prefixLen)) >>> 0;
  const onLink = ((router ^ addressing.guest[3]!) & mask) === 0;
  const words = new Uint32Array(4);
  const dns = (policy.dhcpDns ? plan.addresses.offeredDns : [])
    .filter((text) => addressParse(text, words, 0) && !text.includes(':') && !isLoopback(words, 0))
    .map(ipv4Parse);
  const search = policy.dhcpSearch ? plan.addresses.searchDomains : [];
  return {
    subnetMask: mask,
    router,
    ...(policy.offerMtu ? { mtu: Math.min(addressing.mtu, MAX_MTU_OPTION) } : {}),
    ...(dns.length > 0 ? { dns } : {}),
    ...(search.length > 0 ? { search } : {}),
    ...(policy.hostname === undefined ? {} : { hostname: policy.hostname }),
    ...(policy.fqdn === undefined ? {} : { fqdn: policy.fqdn }),
    // A gateway outside the subnet needs a host route; clients that get option 121 ignore option 3 (RFC
    // 3442).
    ...(onLink
      ? {}
      : {
          routes: [
            { dst: router, prefixLen: 32, via: 0 },
            { dst: 0, prefixLen: 0, via: router },
          ],
        }),
  };
}
