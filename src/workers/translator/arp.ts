/**
 * ARP for the guest (RFC 826). Every address but the guest's own is reached through us, so a request for any
 * other address is answered with our MAC address; with policy.arp "ours", only a request for an address of
 * ours.
 *
 * By announcements (sender = target) and probes (sender 0.0.0.0, RFC 5227 section 2.1.1) the guest claims an
 * address for itself: an answer would mean a conflict, and the guest would give the address up. Only a probe
 * for an address of ours is answered.
 */
import { addressSetIpv4 } from '../../proto/address.ts';
import {
  ARP_BYTES,
  ARP_SENDER_MAC,
  ArpOp,
  arpCheck,
  arpOp,
  arpReplyWrite,
  arpSenderIp,
  arpTargetIp,
} from '../../proto/arp.ts';
import { EtherType, MAC_BYTES } from '../../proto/ethernet.ts';
import type { ShardContext } from './context.ts';

const target = new Uint32Array(4);

/**
 * Answer an ARP request of the guest. The frame stays the caller's.
 * @param at  offset in u8 of the ARP packet, behind the Ethernet header
 * @param bytes  contiguous bytes from there
 */
export function handleArp(ctx: ShardContext, at: number, bytes: number): void {
  const checked = arpCheck(ctx.u8, at, bytes);
  if (checked < 0) {
    ctx.drop(checked);
    return;
  }
  const { addressing, guest } = ctx;
  if (!addressing.ipv4 || arpOp(ctx.u8, at) !== ArpOp.request) return;
  const senderIp = arpSenderIp(ctx.u8, at);
  const targetIp = arpTargetIp(ctx.u8, at);
  if (targetIp === senderIp || targetIp === addressing.guest[3]) return;
  if ((senderIp === 0 || ctx.plan.policy.arp === 'ours') && !isOurs(ctx, targetIp)) return;
  // No host has such an address: 0.0.0.0/8, 127.0.0.0/8, and from 224.0.0.0 on, broadcast included.
  const top = targetIp >>> 24;
  if (top === 0 || top === 127 || top >= 224) return;
  addressSetIpv4(target, 0, targetIp);
  if (ctx.neighbours.has(target, 0)) return;
  const asker = ctx.u8.slice(at + ARP_SENDER_MAC, at + ARP_SENDER_MAC + MAC_BYTES);
  arpReplyWrite(ctx.u8, guest.scratchAt, guest.mac, targetIp, asker, senderIp);
  guest.frame.beginPacket(EtherType.arp, guest.scratchAt, ARP_BYTES);
  guest.send(guest.frame);
}

function isOurs(ctx: ShardContext, ip: number): boolean {
  addressSetIpv4(target, 0, ip);
  return ctx.addressing.isOurs(target, 0, 4);
}
