/**
 * ICMP and ICMPv6 errors to the guest: about a packet of the guest's that is at hand, or about a flow of which only the key is
 * known (the host's error queue reports long after the packet's slot has gone).
 *
 *     | IP, ours | ICMP 8 | quoted IP | quoted transport header ... |
 *     ^ scratchAt
 *
 * The source is who the host says refused the packet, as seen on the TAP: an offender on the host's loopback would look martian
 * to the guest's kernel, so it appears under its mapped address, or as our gateway.
 *
 * Sources: RFC 792, RFC 1812 section 4.3.2, RFC 4443 section 3.
 */

import { addressCopy, familyAt, familyOf, isUnspecified } from '../../proto/address.ts';
import { writeU32 } from '../../proto/be.ts';
import { EtherType } from '../../proto/ethernet.ts';
import {
  ICMP_BYTES,
  IcmpType,
  IcmpUnreachable,
  icmpChecksumWrite,
  icmpErrorWrite,
} from '../../proto/icmp.ts';
import { Icmp6Type, Icmp6Unreachable, icmp6ChecksumWrite } from '../../proto/icmpv6.ts';
import { IpProtocol } from '../../proto/ipv4.ts';
import { TcpFlag } from '../../proto/tcp.ts';
import { udpWrite } from '../../proto/udp.ts';
import { VnetGso } from '../../proto/vnethdr.ts';
import { Counter } from '../../ring/counters.ts';
import { NO_SLOT } from '../../ring/pool.ts';
import { Errno } from '../../sys/constants.ts';
import { ADDR_WORDS } from '../flow-table.ts';
import { linkBytes, linkSlotA, linkSlotOffset } from '../link/descriptor.ts';
import type { ShardContext } from './context.ts';
import { type Packet, packetFree } from './packet.ts';
import { DEFAULT_TTL, ipHeaderBytes, ipWrite } from './to-guest.ts';

/** Longest error with its IP header: RFC 1812 section 4.3.2.3, RFC 4443 section 2.4 (c). */
const MAX_ERROR_BYTES_V4 = 576;
const MAX_ERROR_BYTES_V6 = 1280;
/** Scratch left for our own headers; the quoted packet is rebuilt behind it. */
const REBUILD_OFFSET = 128;

/** Source address of the error being built, four words. */
const source = new Uint32Array(4);

/** What is told: by errno of a failed connect or send. Type and code of both families, or -1 where silence is right. */
export function icmpForErrno(family: 4 | 6, errno: number): number {
  switch (errno) {
    case Errno.ECONNREFUSED:
      return family === 4
        ? (IcmpType.unreachable << 8) | IcmpUnreachable.port
        : (Icmp6Type.unreachable << 8) | Icmp6Unreachable.port;
    case Errno.ENETUNREACH:
    case Errno.ENETDOWN:
    case Errno.EADDRNOTAVAIL: // no source address of that family, or the plan's is not the host's (any more)
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

/** Whether an error that the host received is for the guest too; redirects and the like are about the host's own routes. */
export function isCarriedError(family: 4 | 6, type: number): boolean {
  if (family === 6) return type >= Icmp6Type.unreachable && type <= Icmp6Type.parameterProblem;
  return (
    type === IcmpType.unreachable || type === IcmpType.timeExceeded || type === IcmpType.parameterProblem
  );
}

/**
 * Send an error about the guest's packets of a flow, quoting a rebuilt IP header, 8 bytes of UDP or 20 of TCP, and what is known of
 * the data behind them: a program that asks for errors may tell its packets apart by it (traceroute to IPv6 addresses does).
 * @param seq  sequence number of the rebuilt TCP header or echo request; 0 for UDP
 * @param dataAt,dataBytes  that data, elsewhere than in scratch; 0 bytes: unknown
 */
export function icmpFlowErrorToGuest(
  ctx: ShardContext,
  flow: number,
  type: number,
  code: number,
  info: number,
  offender: Uint32Array | null,
  o: number,
  seq: number,
  dataAt = 0,
  dataBytes = 0,
): void {
  const addr = ctx.flows.addr;
  const guestAt = flow * ADDR_WORDS;
  const remoteAt = guestAt + 4;
  const family = familyOf(addr, guestAt);
  const proto = ctx.flows.proto[flow]!;
  const ports = ctx.flows.ports[flow]!;
  const ipAt = ctx.guest.scratchAt + REBUILD_OFFSET;
  const transportAt = ipAt + ipHeaderBytes(family);
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
  transportBytes += dataBytes;
  ipWrite(ctx.u8, ipAt, family, proto, addr, guestAt, addr, remoteAt, 1, transportBytes);
  chooseSource(ctx, family, offender, o, addr, remoteAt);
  sendError(ctx, family, addr, guestAt, type, code, info, ipAt, transportBytes + ipHeaderBytes(family));
}

/**
 * A TCP connection of the guest's cannot be made: say so for its SYN.
 * @param type,code  ICMP type 3 or ICMPv6 type 1 numbers, by the flow's family
 * @param seq  sequence number of the SYN
 */
export function tcpUnreachableToGuest(
  ctx: ShardContext,
  flow: number,
  type: number,
  code: number,
  seq: number,
): void {
  icmpFlowErrorToGuest(ctx, flow, type, code, 0, null, 0, seq);
}

/** About a packet to an address of ours that is nobody, from that very address: port or network unreachable, as the policy says; frees the packet. */
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
  sendError(ctx, p.family, p.addr, 0, type, code, 0, p.ipAt, p.transportAt - p.ipAt + p.transportBytesInA);
  packetFree(ctx, p);
}

/** Data that an icmpError message quotes: where in u8. */
export function quotedAt(ctx: ShardContext, words: Uint32Array, at: number): number {
  const slot = linkSlotA(words, at);
  return slot === NO_SLOT ? 0 : ctx.pool.slotAt(slot) + linkSlotOffset(words, at);
}

/** How many bytes; never past the slot that they are in, whatever the message says. */
export function quotedBytes(ctx: ShardContext, words: Uint32Array, at: number): number {
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
  // A plan without a gateway: nobody better than the destination itself.
  if (isUnspecified(source, 0) || familyOf(source, 0) !== family) addressCopy(remote, r, source, 0);
}

/** Build the error in scratch, from `source` to dst, and send it. */
function sendError(
  ctx: ShardContext,
  family: 4 | 6,
  dst: Uint32Array,
  d: number,
  type: number,
  code: number,
  info: number,
  quotedAt: number,
  quotableBytes: number,
): void {
  const ipAt = ctx.guest.scratchAt;
  const ipBytes = ipHeaderBytes(family);
  const room = (family === 4 ? MAX_ERROR_BYTES_V4 : MAX_ERROR_BYTES_V6) - ipBytes - ICMP_BYTES;
  const quotedBytes = Math.min(quotableBytes, room);
  const icmpAt = ipAt + ipBytes;
  const bytes = icmpErrorWrite(ctx.u8, icmpAt, type, code, info, quotedAt, quotedBytes);
  ipWrite(
    ctx.u8,
    ipAt,
    family,
    family === 4 ? IpProtocol.icmp : IpProtocol.icmpv6,
    source,
    0,
    dst,
    d,
    DEFAULT_TTL,
    bytes,
  );
  if (family === 4) icmpChecksumWrite(ctx.u8, icmpAt, bytes);
  else icmp6ChecksumWrite(ctx.u8, ipAt, icmpAt, bytes);
  const etherType = family === 4 ? EtherType.ipv4 : EtherType.ipv6;
  ctx.guest.send(ipAt, ipBytes + bytes, etherType, -1, 0, VnetGso.none, 0, 0, 0, 0);
  ctx.counters[Counter.icmpErrorsToGuest]!++;
}
