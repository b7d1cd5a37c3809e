/**
 * ICMP for IPv4, RFC 792; next-hop MTU of RFC 1191.
 *
 *  +0 type u8   +1 code u8   +2 checksum u16   +4 info u32   +8 data
 *
 *  info   echo:        ident u16 | sequence u16
 *         unreachable: 0 | next-hop MTU u16 (code 4)        time exceeded: 0
 *  data   errors quote the IP header and the first bytes of the packet that they are about
 *
 * ICMPv6 has the same layout: what reads and writes fields here serves both.
 *
 * Invariant: once icmpCheck() === 0, the 8 bytes may be read unchecked.
 */
import { readU16, writeU16, writeU32 } from './be.ts';
import { checksumUpdate16, finishSum, onesSum } from './checksum.ts';
import { Drop } from './drop.ts';

export const ICMP_BYTES = 8;

export const IcmpType = {
  echoReply: 0,
  unreachable: 3,
  redirect: 5,
  echoRequest: 8,
  timeExceeded: 11,
  parameterProblem: 12,
} as const;

/** Codes of IcmpType.unreachable. */
export const IcmpUnreachable = {
  network: 0,
  host: 1,
  protocol: 2,
  port: 3,
  fragmentationNeeded: 4,
  sourceRouteFailed: 5,
  networkProhibited: 9,
  hostProhibited: 10,
  adminProhibited: 13,
} as const;

/**
 * Check length and checksum of a whole message.
 * @param bytes  message length; all of it is read
 * @returns 0, or Drop.short | icmpChecksum
 */
export function icmpCheck(pool: Uint8Array, at: number, bytes: number): number {
  if (bytes < ICMP_BYTES) return Drop.short;
  if (finishSum(onesSum(pool, at, bytes, 0)) !== 0) return Drop.icmpChecksum;
  return 0;
}

/** IcmpType or Icmp6Type value. */
export function icmpType(pool: Uint8Array, at: number): number {
  return pool[at]!;
}

/** Code, by type. */
export function icmpCode(pool: Uint8Array, at: number): number {
  return pool[at + 1]!;
}

/** Identifier of an echo message. */
export function icmpEchoId(pool: Uint8Array, at: number): number {
  return readU16(pool, at + 4);
}

/** Sequence number of an echo message. */
export function icmpEchoSeq(pool: Uint8Array, at: number): number {
  return readU16(pool, at + 6);
}

/** Give an echo message another ident, checksum adjusted (RFC 1624): ping sockets choose their own. */
export function icmpEchoIdWrite(pool: Uint8Array, at: number, ident: number): void {
  const checksum = checksumUpdate16(readU16(pool, at + 2), readU16(pool, at + 4), ident);
  writeU16(pool, at + 2, checksum);
  writeU16(pool, at + 4, ident);
}

/** Recompute the checksum over a whole message. */
export function icmpChecksumWrite(pool: Uint8Array, at: number, bytes: number): void {
  writeU16(pool, at + 2, 0);
  writeU16(pool, at + 2, finishSum(onesSum(pool, at, bytes, 0)));
}

/**
 * Turn an echo request, of ICMP or ICMPv6, into its reply where it lies. The checksum is adjusted, not
 * recomputed (RFC 1624), so the data is not read and a message that was corrupt stays detectably so. ICMPv6
 * counts the addresses in: right as long as the reply's are the request's swapped, which leaves their sum
 * alone; if not, call icmp6ChecksumWrite.
 * @param replyType  IcmpType.echoReply or Icmp6Type.echoReply
 * @returns bytes, or Drop.short
 */
export function icmpEchoReplyInPlace(pool: Uint8Array, at: number, bytes: number, replyType: number): number {
  if (bytes < ICMP_BYTES) return Drop.short;
  const typeCode = readU16(pool, at);
  const reply = (replyType << 8) | (typeCode & 0xff);
  writeU16(pool, at + 2, checksumUpdate16(readU16(pool, at + 2), typeCode, reply));
  pool[at] = replyType;
  return bytes;
}

/**
 * Write an error message, of ICMP or ICMPv6, that quotes `quotedBytes` of the offending packet, its IP header
 * first. The checksum is left 0: icmpChecksumWrite, or icmp6ChecksumWrite once the addresses are in place.
 * @param info32  bytes 4..7, e.g. the MTU for fragmentationNeeded and packetTooBig
 * @param quotedAt  where the quoted packet lies in the same pool; may overlap the message
 * @returns message bytes, 8 + quotedBytes
 * @source RFC 792, RFC 4443 section 3. How much to quote: as much as fits with the IP header in 576 bytes
 *   (RFC 1812 section 4.3.2.3),
 *         in 1280 with IPv6 (RFC 4443 section 2.4 (c))
 */
export function icmpErrorWrite(
  pool: Uint8Array,
  at: number,
  type: number,
  code: number,
  info32: number,
  quotedAt: number,
  quotedBytes: number,
): number {
  pool.copyWithin(at + ICMP_BYTES, quotedAt, quotedAt + quotedBytes);
  pool[at] = type;
  pool[at + 1] = code;
  writeU16(pool, at + 2, 0);
  writeU32(pool, at + 4, info32);
  return ICMP_BYTES + quotedBytes;
}
