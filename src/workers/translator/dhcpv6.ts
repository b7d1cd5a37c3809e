/**
 * DHCPv6 server for the guest (RFC 8415): it always gives the plan's address, with infinite lifetimes.
 *
 *   SOLICIT              -> ADVERTISE, or REPLY when the client takes rapid commit
 *   REQUEST              -> REPLY; NotOnLink for another address, so that the client starts over
 *   RENEW, REBIND        -> REPLY; another address is withdrawn and the right one given
 *   CONFIRM              -> REPLY: Success or NotOnLink
 *   RELEASE, DECLINE     -> REPLY: Success
 *   INFORMATION-REQUEST  -> REPLY without an address
 *
 * Only messages to ff02::1:2 are answered. Not a hot path: a guest sends a few messages in all.
 */

import { addressEqual, addressParse, addressRead, familyAt, isUnspecified } from '../../proto/address.ts';
import {
  DHCPV6_CLIENT_PORT,
  DHCPV6_SERVER_PORT,
  type Dhcpv6Association,
  Dhcpv6Message,
  Dhcpv6Option,
  type Dhcpv6Reply,
  Dhcpv6Status,
  dhcpv6Check,
  dhcpv6IaAddressAt,
  dhcpv6Iaid,
  dhcpv6IsOurs,
  dhcpv6OptionAt,
  dhcpv6OptionBytes,
  dhcpv6ReplyWrite,
  dhcpv6Type,
  dhcpv6Wants,
} from '../../proto/dhcpv6.ts';
import { IpProtocol } from '../../proto/ipv4.ts';
import { IPV6_BYTES } from '../../proto/ipv6.ts';
import { UDP_BYTES, UDP_CHECKSUM, udpLength, udpWrite } from '../../proto/udp.ts';
import { StageDrop } from '../link/stage-drop.ts';
import type { ShardContext } from './context.ts';
import type { Packet } from './packet.ts';
import { datagramToGuest } from './to-guest.ts';

const V6_AT = familyAt(6);
/**
 * Most identity associations that are answered: more than clients have, and all that the reply has room for.
 */
const MAX_ASSOCIATIONS = 8;
const MAX_WITHDRAWN = 4;
const OPTION_BYTES = 4;

/** Whether an address is All_DHCP_Relay_Agents_and_Servers, ff02::1:2 (RFC 8415 section 7.1). */
export function isDhcpv6Group(words: Uint32Array, w: number): boolean {
  return words[w] === 0xff020000 && words[w + 1] === 0 && words[w + 2] === 0 && words[w + 3] === 0x10002;
}

/**
 * Answer a datagram to ff02::1:2, port 547, whose UDP header has been checked. The packet stays the caller's.
 */
export function handleDhcpv6(ctx: ShardContext, p: Packet): void {
  const { u8, addressing } = ctx;
  const requestAt = p.transportAt + UDP_BYTES;
  const requestBytes = udpLength(u8, p.transportAt) - UDP_BYTES;
  const isServed = ctx.plan.policy.dhcpv6 && !isUnspecified(addressing.guest, V6_AT);
  if (!isServed || requestBytes > p.transportBytesInA - UDP_BYTES) {
    ctx.drop(StageDrop.dhcp);
    return;
  }
  const checked = dhcpv6Check(u8, requestAt, requestBytes);
  if (checked < 0) {
    ctx.drop(checked);
    return;
  }
  const reply = dhcpv6Answer(ctx, requestAt, requestBytes);
  if (reply === null) {
    ctx.drop(StageDrop.dhcp);
    return;
  }
  const bodyAt = ctx.guest.scratchAt + IPV6_BYTES;
  const bytes = dhcpv6ReplyWrite(u8, bodyAt + UDP_BYTES, requestAt, requestBytes, reply);
  udpWrite(u8, bodyAt, DHCPV6_SERVER_PORT, DHCPV6_CLIENT_PORT, UDP_BYTES + bytes);
  const f = ctx.guest.frame;
  f.begin(6, IpProtocol.udp);
  f.addresses(addressing.linkLocal, 0, p.addr, 0);
  f.body(bodyAt, UDP_BYTES + bytes, 0, 0);
  f.checksumField = UDP_CHECKSUM;
  const sent = datagramToGuest(ctx, f);
  if (sent === StageDrop.tooLong) ctx.drop(sent);
}

/**
 * The reply to a message, or null: none. RFC 8415 section 16 says which messages must, and must not, name a
 * server.
 */
function dhcpv6Answer(ctx: ShardContext, at: number, bytes: number): Dhcpv6Reply | null {
  const { u8, addressing } = ctx;
  const type = dhcpv6Type(u8, at);
  const server = dhcpv6OptionAt(u8, at, bytes, Dhcpv6Option.serverId);
  const hasClient = dhcpv6OptionAt(u8, at, bytes, Dhcpv6Option.clientId) !== 0;
  const isForUs = server !== 0 && dhcpv6IsOurs(u8, at, server, addressing.mac);
  if (server !== 0 && !isForUs) return null;
  const reply = { type: Dhcpv6Message.reply, mac: addressing.mac, associations: [] };
  switch (type) {
    case Dhcpv6Message.solicit: {
      if (!hasClient || server !== 0) return null;
      const rapidCommit = dhcpv6OptionAt(u8, at, bytes, Dhcpv6Option.rapidCommit) !== 0;
      return {
        ...reply,
        type: rapidCommit ? Dhcpv6Message.reply : Dhcpv6Message.advertise,
        rapidCommit,
        associations: associations(ctx, at, bytes, type),
        ...settings(ctx, at, bytes),
      };
    }
    case Dhcpv6Message.request:
    case Dhcpv6Message.renew:
    case Dhcpv6Message.rebind:
      if (!hasClient || isForUs === (type === Dhcpv6Message.rebind)) return null;
      return {
        ...reply,
        associations: associations(ctx, at, bytes, type),
        ...settings(ctx, at, bytes),
      };
    case Dhcpv6Message.confirm: {
      if (!hasClient || server !== 0) return null;
      const status = confirmStatus(ctx, at, bytes);
      return status < 0 ? null : { ...reply, status };
    }
    case Dhcpv6Message.release:
    case Dhcpv6Message.decline:
      return hasClient && isForUs ? { ...reply, status: Dhcpv6Status.success } : null;
    case Dhcpv6Message.informationRequest:
      if (dhcpv6OptionAt(u8, at, bytes, Dhcpv6Option.iaNa) !== 0) return null;
      return { ...reply, ...settings(ctx, at, bytes) };
    default:
      return null; // a message that only servers send, or of no known type
  }
}

/**
 * The answer to each identity association of the client: there is one address, which the first association
 * gets.
 */
function associations(ctx: ShardContext, at: number, bytes: number, type: number): Dhcpv6Association[] {
  const { u8 } = ctx;
  const address = ctx.addressing.guest.slice(V6_AT, V6_AT + 4);
  const list: Dhcpv6Association[] = [];
  let ia = dhcpv6OptionAt(u8, at, bytes, Dhcpv6Option.iaNa);
  while (ia !== 0 && list.length < MAX_ASSOCIATIONS) {
    const iaid = dhcpv6Iaid(u8, at, ia);
    const others = otherAddresses(ctx, at, ia);
    if (list.length > 0) list.push({ iaid, status: Dhcpv6Status.noAddrsAvail });
    else if (others.length === 0 || type === Dhcpv6Message.solicit) list.push({ iaid, address });
    else if (type === Dhcpv6Message.request) list.push({ iaid, status: Dhcpv6Status.notOnLink });
    else list.push({ iaid, address, withdrawn: others });
    ia = nextAssociation(ctx, at, bytes, ia);
  }
  return list;
}

function nextAssociation(ctx: ShardContext, at: number, bytes: number, ia: number): number {
  const next = ia + OPTION_BYTES + dhcpv6OptionBytes(ctx.u8, at, ia);
  return dhcpv6OptionAt(ctx.u8, at, bytes, Dhcpv6Option.iaNa, next);
}

/** Addresses in an association that are not the guest's, four words each. */
function otherAddresses(ctx: ShardContext, at: number, ia: number): Uint32Array {
  const words = new Uint32Array(MAX_WITHDRAWN * 4);
  let count = 0;
  let found = dhcpv6IaAddressAt(ctx.u8, at, ia);
  while (found !== 0 && count < MAX_WITHDRAWN) {
    addressRead(ctx.u8, at + found + OPTION_BYTES, words, count * 4);
    if (!addressEqual(words, count * 4, ctx.addressing.guest, V6_AT)) count++;
    found = dhcpv6IaAddressAt(ctx.u8, at, ia, found);
  }
  return words.slice(0, count * 4);
}

/**
 * The status for a CONFIRM (RFC 8415 section 18.3.3).
 * @returns Dhcpv6Status; below zero: the client named no address
 */
function confirmStatus(ctx: ShardContext, at: number, bytes: number): number {
  let hasAddress = false;
  let ia = dhcpv6OptionAt(ctx.u8, at, bytes, Dhcpv6Option.iaNa);
  while (ia !== 0) {
    if (otherAddresses(ctx, at, ia).length > 0) return Dhcpv6Status.notOnLink;
    if (dhcpv6IaAddressAt(ctx.u8, at, ia) !== 0) hasAddress = true;
    ia = nextAssociation(ctx, at, bytes, ia);
  }
  return hasAddress ? Dhcpv6Status.success : -1;
}

function settings(ctx: ShardContext, at: number, bytes: number): Partial<Dhcpv6Reply> {
  const { policy, addresses } = ctx.plan;
  const { u8 } = ctx;
  const dns = offeredDns6(addresses.offeredDns);
  const wantsDns = policy.dhcpDns && dns.length > 0 && dhcpv6Wants(u8, at, bytes, Dhcpv6Option.dns);
  const wantsSearch = policy.dhcpSearch && dhcpv6Wants(u8, at, bytes, Dhcpv6Option.domainList);
  return {
    ...(wantsDns ? { dns } : {}),
    ...(wantsSearch ? { search: addresses.searchDomains } : {}),
    ...(policy.fqdn === undefined ? {} : { fqdn: policy.fqdn }),
  };
}

/** The IPv6 addresses of a list of resolvers, four words each. Not for the hot path. */
export function offeredDns6(list: readonly string[]): Uint32Array {
  const words = new Uint32Array(list.length * 4);
  let count = 0;
  for (const text of list) if (text.includes(':') && addressParse(text, words, count * 4)) count++;
  return words.slice(0, count * 4);
}
