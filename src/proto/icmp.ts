/**
 * ICMP for IPv4, RFC 792, with the next-hop MTU of RFC 1191.
 *
 *  +0 type u8   +1 code u8   +2 checksum u16   +4 info u32   +8 data
 *
 *  info   echo:        ident u16 | sequence u16
 *         unreachable: 0 | next-hop MTU u16 (code 4)        time exceeded: 0
 *  data   an error message quotes the IP header and the first bytes of the offending packet
 *
 * ICMPv6 has the same layout: the functions here that read and write single fields serve both protocols.
 *
 * Invariant: once icmpCheck() === 0, the first 8 bytes may be read unchecked.
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

/** Code; its meaning depends on the type. */
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

/**
 * Replace the identifier of an echo message and adjust the checksum (RFC 1624). Needed because the kernel
 * chooses the identifiers of ping sockets.
 */
export function icmpEchoIdWrite(pool: Uint8Array, at: number, ident: number): void {
  const checksum = checksumUpdate16(readU16(pool, at + 2), readU16(pool, at + 4), ident);
  writeU16(pool, at + 2, checksum);
  writeU16(pool, at + 4, ident);
}

/** Compute the checksum of a whole message of `bytes` bytes and write it. */
export function icmpChecksumWrite(pool: Uint8Array, at: number, bytes: number): void {
  writeU16(pool, at + 2, 0);
  writeU16(pool, at + 2, finishSum(onesSum(pool, at, bytes, 0)));
}

/**
 * Turn an ICMP or ICMPv6 echo request into its reply in place. The checksum is adjusted, not recomputed (RFC
 * 1624): the data is not read, and the checksum of a corrupt message stays wrong. The ICMPv6 checksum covers
 * the addresses too. It is correct when the reply has the request's addresses swapped, because swapping does
 * not change their sum; otherwise call icmp6ChecksumWrite.
 * @param bytes  message length
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
 * Write an ICMP or ICMPv6 error message that quotes the first `quotedBytes` of the offending packet, IP
 * header included. The checksum is left 0: call icmpChecksumWrite, or icmp6ChecksumWrite once the addresses
 * are written.
 * @param info32  bytes 4..7, e.g. the MTU for fragmentationNeeded and packetTooBig
 * @param quotedAt  offset of the quoted packet in the same pool; may overlap the message
 * @param quotedBytes  as many as fit, with the IP header of the message, into 576 bytes (RFC 1812 section
 *   4.3.2.3), for IPv6 into 1280 (RFC 4443 section 2.4 (c))
 * @returns message bytes, 8 + quotedBytes
 * @source RFC 792, RFC 4443 section 3
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
