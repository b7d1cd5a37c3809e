/**
 * Neighbour discovery for the guest, RFC 4861: we are its router, and every address but the guest's own is
 * reached through us (with policy.arp "ours", only the addresses of ours are).
 *
 * The advertised prefix is autonomous, so that an unconfigured guest forms an address by SLAAC (RFC 4862).
 * Flag M says that DHCPv6 gives the plan's address. A plan without an address has neither prefix nor M.
 */

import {
  addressCopy,
  addressEqual,
  addressParse,
  addressRead,
  familyAt,
  isLoopback,
  isUnspecified,
} from '../../proto/address.ts';
import { Drop } from '../../proto/drop.ts';
import { icmpType } from '../../proto/icmp.ts';
import { Icmp6Type, icmp6Check, icmp6ChecksumWrite } from '../../proto/icmpv6.ts';
import { IpProtocol } from '../../proto/ipv4.ts';
import { IPV6_BYTES } from '../../proto/ipv6.ts';
import {
  NDP_HOP_LIMIT,
  NDP_TARGET,
  NdpNaFlag,
  ndpCheck,
  ndpNaWrite,
  ndpRaWrite,
  type RouterAdvertisement,
} from '../../proto/ndp.ts';
import { Counter } from '../../ring/counters.ts';
import { StageDrop } from '../link/stage-drop.ts';
import { DEFAULT_TTL } from '../tap/egress-frame.ts';
import type { ShardContext } from './context.ts';
import { offeredDns6 } from './dhcpv6.ts';
import type { Packet } from './packet.ts';
import { ipWrite } from './to-guest.ts';

/** ff02::1, all nodes of the link. */
const ALL_NODES = Uint32Array.of(0xff020000, 0, 0, 1);
/**
 * RFC 8319 allows the field's greatest value. When we end, the TAP ends too, so no shorter lifetime is
 * needed.
 */
const ROUTER_LIFETIME_S = 65535;
const SLAAC_PREFIX_BITS = 64;

const target = new Uint32Array(4);
const V6_AT = familyAt(6);

/**
 * Answer a neighbour or router solicitation of the guest; other messages are ignored. The packet stays the
 * caller's.
 */
export function handleNdp(ctx: ShardContext, p: Packet): void {
  if (!ctx.plan.policy.ndp) {
    ctx.counters[Counter.discoveryUnanswered]!++;
    return;
  }
  // A valid message is far shorter than slot A: one that continues in slot B is malformed.
  if (p.transportBytes !== p.transportBytesInA) {
    ctx.drop(StageDrop.notCarried);
    return;
  }
  const u8 = ctx.u8;
  let checked = icmp6Check(u8, p.ipAt, p.transportAt, p.transportBytes);
  if (checked === 0) checked = ndpCheck(u8, p.transportAt, p.transportBytes, p.ttl);
  if (checked < 0) {
    ctx.drop(checked);
    return;
  }
  const type = icmpType(u8, p.transportAt);
  if (type === Icmp6Type.neighbourSolicitation) solicitation(ctx, p);
  else if (type === Icmp6Type.routerSolicitation) {
    if (ctx.plan.policy.ra) sendRa(ctx, isUnspecified(p.addr, 0) ? ALL_NODES : p.addr);
    else ctx.counters[Counter.discoveryUnanswered]!++;
  }
}

/** Send a router advertisement to all nodes; the shard calls this periodically (RFC 4861 section 6.2.4). */
export function sendUnsolicitedRa(ctx: ShardContext): void {
  const { ndp, ra } = ctx.plan.policy;
  if (ctx.addressing.ipv6 && ndp && ra) sendRa(ctx, ALL_NODES);
}

function solicitation(ctx: ShardContext, p: Packet): void {
  const { addressing, guest, u8 } = ctx;
  addressRead(u8, p.transportAt + NDP_TARGET, target, 0);
  // No host answers for :: and ::1.
  if (isLoopback(target, 0) || isUnspecified(target, 0)) {
    ctx.drop(Drop.ndpTarget);
    return;
  }
  const ours = addressing.isOurs(target, 0, 6);
  // Source :: means duplicate address detection for an address that the guest is about to take (RFC 4862
  // section 5.4). It may say no more than that, and can be connected to from then on.
  const isProbe = isUnspecified(p.addr, 0);
  if (isProbe && !ours && !ctx.neighbours.inUse) addressing.learnGuestAddress6(target, 0);
  if (addressEqual(target, 0, addressing.guest, V6_AT) || addressEqual(target, 0, p.addr, 0)) return;
  // Another neighbour inside answers itself.
  if (ctx.neighbours.has(target, 0)) return;
  if ((isProbe || ctx.plan.policy.arp === 'ours') && !ours) return;
  const flags = NdpNaFlag.router | NdpNaFlag.override | (isProbe ? 0 : NdpNaFlag.solicited);
  const ipAt = guest.scratchAt;
  const bytes = ndpNaWrite(u8, ipAt + IPV6_BYTES, target, 0, guest.mac, flags >>> 0);
  send(ctx, bytes, target, isProbe ? ALL_NODES : p.addr);
}

/** Not a hot path: a guest gets few of them. */
function sendRa(ctx: ShardContext, dst: Uint32Array): void {
  const { addressing, guest, plan } = ctx;
  const prefix = new Uint32Array(4);
  const { advertised } = plan.addresses.ipv6!;
  if (advertised === undefined || !addressParse(advertised, prefix, 0))
    addressCopy(addressing.guest, V6_AT, prefix, 0);
  prefix.fill(0, 2);
  const { policy } = plan;
  const hasAddress = !isUnspecified(addressing.guest, V6_AT);
  const dns = policy.dhcpDns ? offeredDns6(plan.addresses.offeredDns) : new Uint32Array(0);
  const advertisement: RouterAdvertisement = {
    mac: guest.mac,
    hopLimit: DEFAULT_TTL,
    managed: policy.dhcpv6 && hasAddress,
    other: false,
    routerLifetimeS: ROUTER_LIFETIME_S,
    mtu: policy.offerMtu ? addressing.mtu : 0,
    ...(isUnspecified(prefix, 0)
      ? {}
      : { prefix: { words: prefix, bits: SLAAC_PREFIX_BITS, autonomous: true } }),
    ...(dns.length > 0 ? { dns } : {}),
    // A search list without a resolver is of no use.
    ...(dns.length > 0 && policy.dhcpSearch ? { search: plan.addresses.searchDomains } : {}),
    pref64: ctx.pref64,
  };
  const bytes = ndpRaWrite(ctx.u8, guest.scratchAt + IPV6_BYTES, advertisement);
  // The source must be link-local (RFC 4861 section 4.2), or the guest's kernel ignores it.
  send(ctx, bytes, addressing.linkLocal, dst);
}

/** Complete and send the message that was written in scratch, behind room for an IPv6 header. */
function send(ctx: ShardContext, bytes: number, src: Uint32Array, dst: Uint32Array): void {
  const { guest, u8 } = ctx;
  const f = guest.frame;
  const icmpAt = guest.scratchAt + IPV6_BYTES;
  f.begin(6, IpProtocol.icmpv6);
  f.ttl = NDP_HOP_LIMIT;
  f.addresses(src, 0, dst, 0);
  f.body(icmpAt, bytes, 0, 0);
  ipWrite(u8, f);
  icmp6ChecksumWrite(u8, f.at, icmpAt, bytes);
  guest.send(f);
}
