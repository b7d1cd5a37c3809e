/**
 * IP packets to the guest: the IP header is written in front of an EgressFrame's transport header, in place.
 * A datagram that is longer than the MTU is sent in fragments.
 *
 *     slot A                                                        slot B
 *     | link headroom | IP | transport header | payload ... |      | ... payload |
 *                          ^ at                bytes               ^ moreAt, moreBytes
 *
 * A fragment's headers are built in the link's scratch memory, and its data is sent from its slot; only of
 * the fragment that extends over both slots the part in slot A is copied.
 */

import { addressWrite } from '../../proto/address.ts';
import { writeU16, writeU32 } from '../../proto/be.ts';
import { foldSum, onesSumPieces, pseudoSum4 } from '../../proto/checksum.ts';
import { IPV4_MIN_BYTES, Ipv4Flag, ipv4TosWrite, ipv4Write } from '../../proto/ipv4.ts';
import {
  IPV6_BYTES,
  IPV6_DST,
  IPV6_FRAGMENT_BYTES,
  IPV6_JUMBO_BYTES,
  IPV6_SRC,
  Ipv6Next,
  ipv6JumboWrite,
  ipv6TrafficClassWrite,
  ipv6Write,
} from '../../proto/ipv6.ts';
import { StageDrop } from '../link/stage-drop.ts';
import type { EgressFrame } from '../tap/egress-frame.ts';
import type { ShardContext } from './context.ts';

/** Greatest value of IP's 16-bit length fields. */
export const IP_MAX_BYTES = 0xffff;

/**
 * Identification of the next fragmented datagram: a counter with a random start (RFC 6864 section 4 requires
 * unique values only for fragments).
 */
let nextIdent = Math.floor(Math.random() * 0x1_0000_0000);

/**
 * Sum of the pseudo header (RFC 9293 section 3.1, RFC 8200 section 8.1) for two addresses of one family, four
 * words each.
 * @param upperBytes  transport header and payload
 * @returns sum of 16-bit words, not folded
 */
export function pseudoSumWords(
  family: 4 | 6,
  src: Uint32Array,
  s: number,
  dst: Uint32Array,
  d: number,
  protocol: number,
  upperBytes: number,
): number {
  if (family === 4) return pseudoSum4(src[s + 3]!, dst[d + 3]!, protocol, upperBytes);
  let sum = protocol + (upperBytes >>> 16) + (upperBytes & 0xffff);
  for (let i = 0; i < 4; i++) {
    const a = src[s + i]!;
    const b = dst[d + i]!;
    sum += (a >>> 16) + (a & 0xffff) + (b >>> 16) + (b & 0xffff);
  }
  return sum;
}

/**
 * Length of an IP header as we write it: without options, and without extension headers except for a
 * jumbogram's (RFC 2675).
 * @param upperBytes  transport header and payload
 */
export function ipHeaderBytes(family: 4 | 6, upperBytes = 0): number {
  if (family === 4) return IPV4_MIN_BYTES;
  return upperBytes > IP_MAX_BYTES ? IPV6_BYTES + IPV6_JUMBO_BYTES : IPV6_BYTES;
}

/**
 * Write the IP header in front of a frame's transport header; the frame's at and bytes then include it. If
 * f.checksumField is set, the pseudo header's sum is written there. A frame longer than IP_MAX_BYTES must be
 * a GSO frame: IPv4's total length is then 0, IPv6 gets a jumbo option.
 */
export function ipWrite(u8: Uint8Array, f: EgressFrame): void {
  const { family, protocol, src, srcAt, dst, dstAt } = f;
  const transportAt = f.at;
  const upperBytes = f.bytes + f.moreBytes;
  if (f.checksumField >= 0) {
    const pseudo = pseudoSumWords(family, src, srcAt, dst, dstAt, protocol, upperBytes);
    writeU16(u8, transportAt + f.checksumField, foldSum(pseudo));
  }
  const ipBytes = ipHeaderBytes(family, upperBytes);
  const at = transportAt - ipBytes;
  if (family === 4) {
    // A total length of 0 stands for one above 16 bits: Linux accepts that in a GSO frame (iph_totlen).
    const totalLen = IPV4_MIN_BYTES + upperBytes > IP_MAX_BYTES ? 0 : IPV4_MIN_BYTES + upperBytes;
    const flags = Ipv4Flag.dontFragment;
    ipv4Write(u8, at, totalLen, protocol, src[srcAt + 3]!, dst[dstAt + 3]!, f.ttl, 0, flags);
    if (f.tos !== 0) ipv4TosWrite(u8, at, f.tos);
  } else {
    if (ipBytes > IPV6_BYTES) {
      ipv6Write(u8, at, 0, Ipv6Next.hopByHop, f.ttl, 0);
      ipv6JumboWrite(u8, at + IPV6_BYTES, protocol, IPV6_JUMBO_BYTES + upperBytes);
    } else ipv6Write(u8, at, upperBytes, protocol, f.ttl, 0);
    if (f.tos !== 0) ipv6TrafficClassWrite(u8, at, f.tos);
    addressWrite(u8, at + IPV6_SRC, src, srcAt);
    addressWrite(u8, at + IPV6_DST, dst, dstAt);
  }
  f.transportAt = transportAt;
  f.at = at;
  f.bytes += ipBytes;
}

/**
 * Send one datagram to the guest, in fragments if it exceeds the MTU.
 * @param f its body begins with the transport header; the memory in front of that is overwritten by IP's and
 *   the link's headers. A checksumField of -1 says that the checksum is written already (ICMPv4)
 * @returns 0; -errno of the TAP; or StageDrop.tooLong
 */
export function datagramToGuest(ctx: ShardContext, f: EgressFrame): number {
  const { u8 } = ctx;
  const upperBytes = f.bytes + f.moreBytes;
  const ipBytes = ipHeaderBytes(f.family);
  if ((f.family === 4 ? ipBytes : 0) + upperBytes > IP_MAX_BYTES) return StageDrop.tooLong;
  if (ipBytes + upperBytes > ctx.addressing.mtu) {
    if (f.checksumField >= 0) {
      const at = f.at + f.checksumField;
      const pseudo = pseudoSumWords(f.family, f.src, f.srcAt, f.dst, f.dstAt, f.protocol, upperBytes);
      writeU16(u8, at, 0);
      const csum = ~foldSum(onesSumPieces(u8, f.at, f.bytes, f.moreAt, f.moreBytes, pseudo)) & 0xffff;
      // UDP uses zero for "no checksum"; for other protocols 0 and 0xffff are equivalent.
      writeU16(u8, at, csum === 0 ? 0xffff : csum);
      f.checksumField = -1;
    }
    return fragmentsToGuest(ctx, f);
  }
  ipWrite(u8, f);
  return ctx.guest.send(f);
}

function fragmentsToGuest(ctx: ShardContext, f: EgressFrame): number {
  const { u8, guest } = ctx;
  const headBytes = f.family === 4 ? IPV4_MIN_BYTES : IPV6_BYTES + IPV6_FRAGMENT_BYTES;
  const unit = (ctx.addressing.mtu - headBytes) & ~7;
  if (unit < 8) return StageDrop.tooLong;
  const bodyAt = f.at;
  const bodyBytes = f.bytes;
  const moreAt = f.moreAt;
  const total = bodyBytes + f.moreBytes;
  const ident = nextIdent;
  nextIdent = (nextIdent + 1) >>> 0;
  const headAt = guest.scratchAt;
  let result = 0;
  for (let offset = 0; offset < total; offset += unit) {
    const bytes = Math.min(unit, total - offset);
    fragmentHeaderWrite(u8, headAt, f, ident, offset, bytes, offset + bytes < total);
    let frontBytes = headBytes;
    let dataAt = bodyAt + offset;
    let dataBytes = bytes;
    if (offset >= bodyBytes) dataAt = moreAt + offset - bodyBytes;
    else if (offset + bytes > bodyBytes) {
      const inA = bodyBytes - offset;
      u8.copyWithin(headAt + headBytes, dataAt, dataAt + inA);
      frontBytes += inA;
      dataAt = moreAt;
      dataBytes -= inA;
    }
    f.body(headAt, frontBytes, dataAt, dataBytes);
    const r = guest.send(f);
    if (r < 0) result = r;
  }
  return result;
}

/**
 * Write a fragment's IP header, for IPv6 with the fragment header behind it.
 * @param offset,bytes  the fragment's part of the datagram
 */
function fragmentHeaderWrite(
  u8: Uint8Array,
  at: number,
  f: EgressFrame,
  ident: number,
  offset: number,
  bytes: number,
  hasMore: boolean,
): void {
  const { protocol, src, srcAt, dst, dstAt, ttl } = f;
  if (f.family === 4) {
    const totalLen = IPV4_MIN_BYTES + bytes;
    const flagsFrag = (hasMore ? Ipv4Flag.moreFragments : 0) | (offset >>> 3);
    ipv4Write(u8, at, totalLen, protocol, src[srcAt + 3]!, dst[dstAt + 3]!, ttl, ident & 0xffff, flagsFrag);
    if (f.tos !== 0) ipv4TosWrite(u8, at, f.tos);
    return;
  }
  ipv6Write(u8, at, IPV6_FRAGMENT_BYTES + bytes, Ipv6Next.fragment, ttl, 0);
  if (f.tos !== 0) ipv6TrafficClassWrite(u8, at, f.tos);
  addressWrite(u8, at + IPV6_SRC, src, srcAt);
  addressWrite(u8, at + IPV6_DST, dst, dstAt);
  const headerAt = at + IPV6_BYTES;
  u8[headerAt] = protocol;
  u8[headerAt + 1] = 0;
  writeU16(u8, headerAt + 2, offset | (hasMore ? 1 : 0));
  writeU32(u8, headerAt + 4, ident);
}
