/**
 * Datagrams on their way to the guest: the IP header goes in front of what was received, in place; what is longer than the MTU
 * leaves as fragments.
 *
 *     slot A                                                        slot B
 *     | link headroom | IP | transport header | payload ... |      | ... payload |
 *                     ^      ^ bodyAt          bodyBytes                 moreBytes
 *
 * A fragment's headers are built in the link's scratch memory and its data is sent from where it lies; only the one fragment that
 * straddles the two slots is copied.
 */

import { addressWrite } from '../../proto/address.ts';
import { writeU16, writeU32 } from '../../proto/be.ts';
import { foldSum, onesSumPieces, pseudoSum4 } from '../../proto/checksum.ts';
import { EtherType } from '../../proto/ethernet.ts';
import { IPV4_MIN_BYTES, Ipv4Flag, ipv4Write } from '../../proto/ipv4.ts';
import {
  IPV6_BYTES,
  IPV6_DST,
  IPV6_FRAGMENT_BYTES,
  IPV6_SRC,
  Ipv6Next,
  ipv6Write,
} from '../../proto/ipv6.ts';
import { VnetGso } from '../../proto/vnethdr.ts';
import { StageDrop } from '../link/stage-drop.ts';
import type { ShardContext } from './context.ts';

/** TTL and hop limit where nothing better is known (RFC 1700's default, and Linux's). */
export const DEFAULT_TTL = 64;

/** Identification of fragmented datagrams; a start that cannot be guessed, then counting (RFC 6864 asks for no more). */
let nextIdent = Math.floor(Math.random() * 0x1_0000_0000);

/** Sum of the pseudo header for two addresses of one family, four words each. */
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

/** Write the IP header of an unfragmented packet; returns its bytes. */
export function ipWrite(
  u8: Uint8Array,
  at: number,
  family: 4 | 6,
  protocol: number,
  src: Uint32Array,
  s: number,
  dst: Uint32Array,
  d: number,
  ttl: number,
  upperBytes: number,
): number {
  if (family === 4) {
    const totalLen = IPV4_MIN_BYTES + upperBytes;
    ipv4Write(u8, at, totalLen, protocol, src[s + 3]!, dst[d + 3]!, ttl, 0, Ipv4Flag.dontFragment);
    return IPV4_MIN_BYTES;
  }
  ipv6Write(u8, at, upperBytes, protocol, ttl, 0);
  addressWrite(u8, at + IPV6_SRC, src, s);
  addressWrite(u8, at + IPV6_DST, dst, d);
  return IPV6_BYTES;
}

/** Bytes of an IP header as we write it: without options or extension headers. */
export const ipHeaderBytes = (family: 4 | 6): number => (family === 4 ? IPV4_MIN_BYTES : IPV6_BYTES);

/**
 * Send one datagram to the guest.
 * @param src,dst  addresses as the guest sees them, four words each
 * @param bodyAt   offset in u8 of the transport header; the IP header and the link's headroom in front of it are overwritten
 * @param bodyBytes  contiguous bytes from there, transport header included
 * @param moreAt,moreBytes  the rest, or 0 bytes
 * @param csumField  where from bodyAt the checksum over pseudo header and body belongs, or -1: it is in place (ICMPv4)
 * @returns 0; -errno of the TAP; or StageDrop.tooLong
 */
export function datagramToGuest(
  ctx: ShardContext,
  family: 4 | 6,
  protocol: number,
  src: Uint32Array,
  s: number,
  dst: Uint32Array,
  d: number,
  ttl: number,
  bodyAt: number,
  bodyBytes: number,
  moreAt: number,
  moreBytes: number,
  csumField: number,
): number {
  const upperBytes = bodyBytes + moreBytes;
  const ipBytes = ipHeaderBytes(family);
  if ((family === 4 ? ipBytes : 0) + upperBytes > 0xffff) return StageDrop.tooLong;
  const pseudo = csumField < 0 ? 0 : pseudoSumWords(family, src, s, dst, d, protocol, upperBytes);
  if (ipBytes + upperBytes > ctx.addressing.mtu) {
    if (csumField >= 0) {
      writeU16(ctx.u8, bodyAt + csumField, 0);
      const csum = ~foldSum(onesSumPieces(ctx.u8, bodyAt, bodyBytes, moreAt, moreBytes, pseudo)) & 0xffff;
      // Zero means "none" to UDP; for the others both notations of zero are the same.
      writeU16(ctx.u8, bodyAt + csumField, csum === 0 ? 0xffff : csum);
    }
    return fragmentsToGuest(ctx, family, protocol, src, s, dst, d, ttl, bodyAt, bodyBytes, moreAt, moreBytes);
  }
  const ipAt = bodyAt - ipBytes;
  ipWrite(ctx.u8, ipAt, family, protocol, src, s, dst, d, ttl, upperBytes);
  if (csumField >= 0) writeU16(ctx.u8, bodyAt + csumField, foldSum(pseudo));
  return ctx.guest.send(
    ipAt,
    ipBytes + bodyBytes,
    family === 4 ? EtherType.ipv4 : EtherType.ipv6,
    csumField < 0 ? -1 : ipBytes,
    Math.max(csumField, 0),
    VnetGso.none,
    0,
    0,
    moreAt,
    moreBytes,
  );
}

function fragmentsToGuest(
  ctx: ShardContext,
  family: 4 | 6,
  protocol: number,
  src: Uint32Array,
  s: number,
  dst: Uint32Array,
  d: number,
  ttl: number,
  bodyAt: number,
  bodyBytes: number,
  moreAt: number,
  moreBytes: number,
): number {
  const u8 = ctx.u8;
  const headBytes = family === 4 ? IPV4_MIN_BYTES : IPV6_BYTES + IPV6_FRAGMENT_BYTES;
  const unit = (ctx.addressing.mtu - headBytes) & ~7;
  if (unit < 8) return StageDrop.tooLong;
  const total = bodyBytes + moreBytes;
  const ident = nextIdent;
  nextIdent = (nextIdent + 1) >>> 0;
  const headAt = ctx.guest.scratchAt;
  let result = 0;
  for (let offset = 0; offset < total; offset += unit) {
    const bytes = Math.min(unit, total - offset);
    const hasMore = offset + bytes < total;
    if (family === 4) {
      const flagsFrag = (hasMore ? Ipv4Flag.moreFragments : 0) | (offset >>> 3);
      ipv4Write(
        u8,
        headAt,
        headBytes + bytes,
        protocol,
        src[s + 3]!,
        dst[d + 3]!,
        ttl,
        ident & 0xffff,
        flagsFrag,
      );
    } else {
      ipv6Write(u8, headAt, IPV6_FRAGMENT_BYTES + bytes, Ipv6Next.fragment, ttl, 0);
      addressWrite(u8, headAt + IPV6_SRC, src, s);
      addressWrite(u8, headAt + IPV6_DST, dst, d);
      const at = headAt + IPV6_BYTES;
      u8[at] = protocol;
      u8[at + 1] = 0;
      writeU16(u8, at + 2, offset | (hasMore ? 1 : 0));
      writeU32(u8, at + 4, ident);
    }
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
    const type = family === 4 ? EtherType.ipv4 : EtherType.ipv6;
    const r = ctx.guest.send(headAt, frontBytes, type, -1, 0, VnetGso.none, 0, 0, dataAt, dataBytes);
    if (r < 0) result = r;
  }
  return result;
}
