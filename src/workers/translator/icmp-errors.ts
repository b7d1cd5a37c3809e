/**
 * ICMP and ICMPv6 errors to the guest: about a packet of the guest that is still in its slot, or about a flow
 * of which only the key is known (the host's error queue reports when the packet's slot is free already).
 *
 *     | IP, ours | ICMP 8 | quoted IP | quoted transport header ... |
 *     ^ scratchAt
 *
 * The error's source is the offender that the host names, under its address on the TAP: the guest's kernel
 * would drop a loopback source as martian, so an offender on the host's loopback appears under its mapped
 * address, or as our gateway.
 *
 * Sources: RFC 792, RFC 1812 section 4.3.2, RFC 4443 section 3.
 */

import { addressCopy, familyAt, familyOf, isUnspecified } from '../../proto/address.ts';
import { writeU32 } from '../../proto/be.ts';
import {
  ICMP_BYTES,
  IcmpType,
  IcmpUnreachable,
  icmpChecksumWrite,
  icmpErrorWrite,
} from '../../proto/icmp.ts';
import { Icmp6Parameter, Icmp6Type, Icmp6Unreachable, icmp6ChecksumWrite } from '../../proto/icmpv6.ts';
import { IpProtocol } from '../../proto/ipv4.ts';
import { TcpFlag } from '../../proto/tcp.ts';
import { udpWrite } from '../../proto/udp.ts';
import { Counter } from '../../ring/counters.ts';
import { NO_SLOT } from '../../ring/pool.ts';
import { Errno } from '../../sys/constants.ts';
import { ADDR_WORDS } from '../flow/flow-table.ts';
import { linkBytes, linkSlotA, linkSlotOffset } from '../link/descriptor.ts';
import { icmpErrorInfo, icmpErrorOffenderAt } from '../link/to-shard.ts';
import type { EgressFrame } from '../tap/egress-frame.ts';
import type { ShardContext } from './context.ts';
import { type Packet, packetFree } from './packet.ts';
import { ipHeaderBytes, ipWrite } from './to-guest.ts';

/** Longest error, IP header included: RFC 1812 section 4.3.2.3, RFC 4443 section 2.4 (c). */
const MAX_ERROR_BYTES_V4 = 576;
const MAX_ERROR_BYTES_V6 = 1280;
/**
 * Offset in scratch of the rebuilt packet that is quoted; in front of it is room for the error's own headers.
 */
const REBUILD_OFFSET = 128;

/** Source address of the error being built, four words. */
const source = new Uint32Array(4);

/**
 * The ICMP error for the errno of a failed connect or send.
 * @param errno  above zero
 * @returns type << 8 | code, by family, or -1: no error is sent
 */
export function icmpForErrno(family: 4 | 6, errno: number): number {
  switch (errno) {
    case Errno.ECONNREFUSED:
      return family === 4
        ? (IcmpType.unreachable << 8) | IcmpUnreachable.port
        : (Icmp6Type.unreachable << 8) | Icmp6Unreachable.port;
    case Errno.ENETUNREACH:
    case Errno.ENETDOWN:
    case Errno.EADDRNOTAVAIL: // no source address of that family, or the host lost the plan's address
    case Errno.ENODEV: // the interface that sockets are bound to is gone
      return family === 4
        ? (IcmpType.unreachable << 8) | IcmpUnreachable.network
        : (Icmp6Type.unreachable << 8) | Icmp6Unreachable.noRoute;
    case Errno.EHOSTUNREACH:
    case Errno.EHOSTDOWN:
      return family === 4
        ? (IcmpType.unreachable << 8) | IcmpUnreachable.host
        : (Icmp6Type.unreachable << 8) | Icmp6Unreachable.address;
    case Errno.EPERM: // the host's firewall
    case Errno.EACCES:
      return family === 4
        ? (IcmpType.unreachable << 8) | IcmpUnreachable.adminProhibited
        : (Icmp6Type.unreachable << 8) | Icmp6Unreachable.prohibited;
    default:
      return -1;
  }
}

/**
 * Whether an ICMP error that the host received is passed on to the guest. Redirects and the like are about
 * the host's own routes.
 * @param type  of ICMP or ICMPv6, by family
 */
export function isCarriedError(family: 4 | 6, type: number): boolean {
  if (family === 6) return type >= Icmp6Type.unreachable && type <= Icmp6Type.parameterProblem;
  return (
    type === IcmpType.unreachable || type === IcmpType.timeExceeded || type === IcmpType.parameterProblem
  );
}

/**
 * Send an error about the guest's packets of a flow after a system call on the host failed: no offender is
 * known.
 * @param typeCode  ICMP type << 8 | code, by the flow's family
 * @param seq  sequence number of the TCP header or echo request that is quoted; 0 for UDP
 */
export function icmpFlowErrorToGuest(ctx: ShardContext, flow: number, typeCode: number, seq: number): void {
  const bytes = quoteFlow(ctx, flow, seq, 0, 0);
  const remoteAt = flow * ADDR_WORDS + 4;
  chooseSource(ctx, flowFamily(ctx, flow), null, 0, ctx.flows.addr, remoteAt);
  sendFlowError(ctx, flow, typeCode, 0, bytes);
}

/**
 * Send an error about the guest's packets of a flow that the host received from a router or peer, or that its
 * kernel made.
 * @param typeCode,seq  as for icmpFlowErrorToGuest()
 * @param words,at  the message ToShard.icmpError: the offender, the error's info word and the data that it
 *   quotes
 */
export function icmpCarriedErrorToGuest(
  ctx: ShardContext,
  flow: number,
  typeCode: number,
  seq: number,
  words: Uint32Array,
  at: number,
): void {
  const bytes = quoteFlow(ctx, flow, seq, quotedAt(ctx, words, at), quotedBytes(ctx, words, at));
  const remoteAt = flow * ADDR_WORDS + 4;
  chooseSource(ctx, flowFamily(ctx, flow), words, icmpErrorOffenderAt(at), ctx.flows.addr, remoteAt);
  sendFlowError(ctx, flow, typeCode, icmpErrorInfo(words, at), bytes);
}

function flowFamily(ctx: ShardContext, flow: number): 4 | 6 {
  const addr = ctx.flows.addr;
  const guestAt = flow * ADDR_WORDS;
  return familyOf(addr, guestAt);
}

/**
 * Rebuild a packet of the guest in scratch, to be quoted: an IP header, 8 bytes of UDP or ICMP or 20 of TCP,
 * and as much of the data behind them as is known. A program that asks for errors may identify its packets by
 * the data (traceroute to IPv6 addresses does).
 * @param dataAt,dataBytes  the data in u8, not in scratch; 0 bytes: unknown
 * @returns bytes from `scratchAt + REBUILD_OFFSET` on
 */
function quoteFlow(ctx: ShardContext, flow: number, seq: number, dataAt: number, dataBytes: number): number {
  const addr = ctx.flows.addr;
  const guestAt = flow * ADDR_WORDS;
  const family = flowFamily(ctx, flow);
  const proto = ctx.flows.proto[flow]!;
  const ports = ctx.flows.ports[flow]!;
  const transportAt = ctx.guest.scratchAt + REBUILD_OFFSET + ipHeaderBytes(family);
  let transportBytes = 8;
  if (proto === IpProtocol.tcp) {
    transportBytes = 20;
    writeU32(ctx.u8, transportAt, ports);
    writeU32(ctx.u8, transportAt + 4, seq);
    writeU32(ctx.u8, transportAt + 8, 0);
    writeU32(ctx.u8, transportAt + 12, (0x5000 | TcpFlag.syn) << 16);
    writeU32(ctx.u8, transportAt + 16, 0);
  } else if (proto === IpProtocol.udp) {
    udpWrite(ctx.u8, transportAt, ports >>> 16, ports & 0xffff, transportBytes + dataBytes);
  } else {
    // An echo request with the guest's identifier.
    writeU32(ctx.u8, transportAt, family === 4 ? 0x08000000 : 0x80000000);
    writeU32(ctx.u8, transportAt + 4, (ports & 0xffff0000) | (seq & 0xffff));
  }
  ctx.u8.copyWithin(transportAt + transportBytes, dataAt, dataAt + dataBytes);
  const f = ctx.guest.frame;
  f.begin(family, proto);
  f.ttl = 1;
  f.addresses(addr, guestAt, addr, guestAt + 4);
  f.body(transportAt, transportBytes + dataBytes, 0, 0);
  ipWrite(ctx.u8, f);
  return f.bytes;
}

/**
 * Send an error from `source` that quotes the packet which quoteFlow() built.
 * @param quotableBytes  the packet's length
 */
function sendFlowError(
  ctx: ShardContext,
  flow: number,
  typeCode: number,
  info: number,
  quotableBytes: number,
): void {
  const f = ctx.guest.frame;
  beginError(f, flowFamily(ctx, flow), ctx.flows.addr, flow * ADDR_WORDS);
  sendError(ctx, f, typeCode, info, ctx.guest.scratchAt + REBUILD_OFFSET, quotableBytes);
}

/**
 * Refuse a packet to an address of ours that is mapped to nothing: port or network unreachable, as
 * policy.refusal says, from that address. Frees the packet.
 */
export function refusalToGuest(ctx: ShardContext, p: Packet): void {
  const type = p.family === 4 ? IcmpType.unreachable : Icmp6Type.unreachable;
  const network = ctx.plan.policy.refusal === 'network';
  const code =
    p.family === 4
      ? network
        ? IcmpUnreachable.network
        : IcmpUnreachable.port
      : network
        ? Icmp6Unreachable.noRoute
        : Icmp6Unreachable.port;
  for (let i = 0; i < 4; i++) source[i] = p.addr[4 + i]!;
  const f = ctx.guest.frame;
  beginError(f, p.family, p.addr, 0);
  sendError(ctx, f, (type << 8) | code, 0, p.ipAt, p.transportAt - p.ipAt + p.transportBytesInA);
  packetFree(ctx, p);
}

/**
 * Refuse a packet of an IP protocol that is not carried, as its destination would: protocol unreachable (RFC
 * 1122 section 3.2.2.1), over IPv6 unrecognised next header (RFC 4443 section 3.4).
 * @param nextHeaderAt  IPv6: offset from the IP header of the byte that names the protocol
 */
export function protocolErrorToGuest(ctx: ShardContext, p: Packet, nextHeaderAt: number): void {
  const typeCode =
    p.family === 4
      ? (IcmpType.unreachable << 8) | IcmpUnreachable.protocol
      : (Icmp6Type.parameterProblem << 8) | Icmp6Parameter.nextHeader;
  for (let i = 0; i < 4; i++) source[i] = p.addr[4 + i]!;
  const f = ctx.guest.frame;
  beginError(f, p.family, p.addr, 0);
  const info = p.family === 4 ? 0 : nextHeaderAt;
  sendError(ctx, f, typeCode, info, p.ipAt, p.transportAt - p.ipAt + p.transportBytesInA);
}

/** Type and code of "administratively prohibited" (RFC 1812 section 5.2.7.1, RFC 4443 section 3.1). */
export const prohibitedTypeCode = (family: 4 | 6): number =>
  family === 4
    ? (IcmpType.unreachable << 8) | IcmpUnreachable.adminProhibited
    : (Icmp6Type.unreachable << 8) | Icmp6Unreachable.prohibited;

/** Refuse a packet that the egress policy denies, as a router does. Does not free the packet. */
export function prohibitedToGuest(ctx: ShardContext, p: Packet): void {
  const f = ctx.guest.frame;
  chooseSource(ctx, p.family, null, 0, p.addr, 4);
  beginError(f, p.family, p.addr, 0);
  const quotableBytes = p.transportAt - p.ipAt + p.transportBytesInA;
  sendError(ctx, f, prohibitedTypeCode(p.family), 0, p.ipAt, quotableBytes);
}

/** Offset in u8 of the data that an icmpError message quotes; 0: none. */
function quotedAt(ctx: ShardContext, words: Uint32Array, at: number): number {
  const slot = linkSlotA(words, at);
  return slot === NO_SLOT ? 0 : ctx.pool.slotAt(slot) + linkSlotOffset(words, at);
}

/** Bytes of the data that an icmpError message quotes, limited to the slot that holds them. */
function quotedBytes(ctx: ShardContext, words: Uint32Array, at: number): number {
  const slot = linkSlotA(words, at);
  if (slot === NO_SLOT) return 0;
  return Math.min(linkBytes(words, at), ctx.pool.slotBytes(slot) - linkSlotOffset(words, at));
}

function chooseSource(
  ctx: ShardContext,
  family: 4 | 6,
  offender: Uint32Array | null,
  o: number,
  remote: Uint32Array,
  r: number,
): void {
  const known = offender !== null && !isUnspecified(offender, o);
  if (known) ctx.addressing.fromHost(offender, o, source, 0);
  else addressCopy(ctx.addressing.gateway, familyAt(family), source, 0);
  // A plan without a gateway: the destination itself is the source.
  if (isUnspecified(source, 0) || familyOf(source, 0) !== family) addressCopy(remote, r, source, 0);
}

/** Begin the frame of an error from `source`; sendError() completes it. */
function beginError(f: EgressFrame, family: 4 | 6, dst: Uint32Array, dstAt: number): void {
  f.begin(family, family === 4 ? IpProtocol.icmp : IpProtocol.icmpv6);
  f.addresses(source, 0, dst, dstAt);
}

/**
 * Build the error in scratch and send it.
 * @param quotedAt  offset in u8 of the packet that the error is about
 */
function sendError(
  ctx: ShardContext,
  f: EgressFrame,
  typeCode: number,
  info: number,
  quotedAt: number,
  quotableBytes: number,
): void {
  const { u8, guest } = ctx;
  const ipBytes = ipHeaderBytes(f.family);
  const room = (f.family === 4 ? MAX_ERROR_BYTES_V4 : MAX_ERROR_BYTES_V6) - ipBytes - ICMP_BYTES;
  const quotedBytes = Math.min(quotableBytes, room);
  const icmpAt = guest.scratchAt + ipBytes;
  const bytes = icmpErrorWrite(u8, icmpAt, typeCode >>> 8, typeCode & 0xff, info, quotedAt, quotedBytes);
  f.body(icmpAt, bytes, 0, 0);
  ipWrite(u8, f);
  if (f.family === 4) icmpChecksumWrite(u8, icmpAt, bytes);
  else icmp6ChecksumWrite(u8, f.at, icmpAt, bytes);
  guest.send(f);
  ctx.counters[Counter.icmpErrorsToGuest]!++;
}
