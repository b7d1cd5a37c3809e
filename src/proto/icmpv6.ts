/**
 * ICMPv6, RFC 4443. Same layout as ICMP; the checksum covers the IPv6 pseudo header as well.
 *
 *  +0 type u8   +1 code u8   +2 checksum u16   +4 info u32   +8 data
 *
 * `ipAt` is the offset of the IPv6 header that carries the message: its addresses enter the checksum.
 * Invariant: once icmp6Check() === 0, the 8 bytes may be read unchecked.
 */
import { readU16, readU32, writeU16, writeU32 } from './be.ts';
import { finishSum, onesSum, pseudoSum6At } from './checksum.ts';
import { Drop } from './drop.ts';
import { IpProtocol } from './ipv4.ts';
import { IPV6_DST, IPV6_SRC } from './ipv6.ts';

export const ICMP6_BYTES = 8;

export const Icmp6Type = {
  unreachable: 1,
  packetTooBig: 2,
  timeExceeded: 3,
  parameterProblem: 4,
  echoRequest: 128,
  echoReply: 129,
  mldQuery: 130,
  mldReport: 131,
  mldDone: 132,
  routerSolicitation: 133,
  routerAdvertisement: 134,
  neighbourSolicitation: 135,
  neighbourAdvertisement: 136,
  redirect: 137,
  mld2Report: 143,
} as const;

/** Codes of Icmp6Type.unreachable. */
export const Icmp6Unreachable = {
  noRoute: 0,
  prohibited: 1,
  beyondScope: 2,
  address: 3,
  port: 4,
  policy: 5,
  rejectRoute: 6,
} as const;

/** Codes of Icmp6Type.timeExceeded. */
export const Icmp6TimeExceeded = { hopLimit: 0, reassembly: 1 } as const;

/**
 * Check length and checksum of a whole message.
 * @param bytes  message length; all of it is read
 * @returns 0, or Drop.short | icmp6Checksum
 */
export function icmp6Check(pool: Uint8Array, ipAt: number, icmpAt: number, bytes: number): number {
  if (bytes < ICMP6_BYTES) return Drop.short;
  const pseudo = pseudoSum6At(pool, ipAt + IPV6_SRC, ipAt + IPV6_DST, IpProtocol.icmpv6, bytes);
  if (finishSum(onesSum(pool, icmpAt, bytes, pseudo)) !== 0) return Drop.icmp6Checksum;
  return 0;
}

export function icmp6Type(pool: Uint8Array, at: number): number {
  return pool[at]!;
}

export function icmp6Code(pool: Uint8Array, at: number): number {
  return pool[at + 1]!;
}

export function icmp6EchoId(pool: Uint8Array, at: number): number {
  return readU16(pool, at + 4);
}

export function icmp6EchoSeq(pool: Uint8Array, at: number): number {
  return readU16(pool, at + 6);
}

/** The 32 bits after the checksum: the MTU of packetTooBig. */
export function icmp6Info(pool: Uint8Array, at: number): number {
  return readU32(pool, at + 4);
}

/** Compute the checksum over a whole message whose IPv6 addresses are in place. */
export function icmp6ChecksumWrite(pool: Uint8Array, ipAt: number, icmpAt: number, bytes: number): void {
  writeU16(pool, icmpAt + 2, 0);
  const pseudo = pseudoSum6At(pool, ipAt + IPV6_SRC, ipAt + IPV6_DST, IpProtocol.icmpv6, bytes);
  writeU16(pool, icmpAt + 2, finishSum(onesSum(pool, icmpAt, bytes, pseudo)));
}

/**
 * Write an error message that quotes `quotedBytes` of the offending packet, its IPv6 header first.
 * The checksum is left 0: call icmp6ChecksumWrite once the addresses are in place.
 * @param info32  bytes 4..7, e.g. the MTU for packetTooBig
 * @param quotedAt  where the quoted packet lies in the same pool; may overlap the message
 * @returns message bytes, 8 + quotedBytes
 * @source RFC 4443 section 2.4 (c): quote as much as fits in 1280 bytes with the IPv6 header
 */
export function icmp6ErrorWrite(
  pool: Uint8Array,
  at: number,
  type: number,
  code: number,
  info32: number,
  quotedAt: number,
  quotedBytes: number,
): number {
  pool.copyWithin(at + ICMP6_BYTES, quotedAt, quotedAt + quotedBytes);
  pool[at] = type;
  pool[at + 1] = code;
  writeU16(pool, at + 2, 0);
  writeU32(pool, at + 4, info32);
  return ICMP6_BYTES + quotedBytes;
}
