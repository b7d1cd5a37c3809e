/**
 * ICMPv6, RFC 4443. The layout is that of ICMP, whose field readers serve both (icmp.ts). The checksum also
 * covers the IPv6 pseudo header.
 *
 *  +0 type u8   +1 code u8   +2 checksum u16   +4 info u32   +8 data
 *
 * `ipAt` is the offset of the IPv6 header in front of the message: its addresses are part of the checksum.
 *
 * Invariant: once icmp6Check() === 0, the first 8 bytes may be read unchecked.
 */
import { writeU16 } from './be.ts';
import { finishSum, onesSum, pseudoSum6At } from './checksum.ts';
import { Drop } from './drop.ts';
import { ICMP_BYTES } from './icmp.ts';
import { IpProtocol } from './ipv4.ts';
import { IPV6_DST, IPV6_SRC } from './ipv6.ts';

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

/** Codes of Icmp6Type.parameterProblem; the message's info word is the offset of the field. */
export const Icmp6Parameter = { field: 0, nextHeader: 1, option: 2 } as const;

/**
 * Check length and checksum of a whole message.
 * @param bytes  message length; all of it is read
 * @returns 0, or Drop.short | icmp6Checksum
 */
export function icmp6Check(pool: Uint8Array, ipAt: number, icmpAt: number, bytes: number): number {
  if (bytes < ICMP_BYTES) return Drop.short;
  const pseudo = pseudoSum6At(pool, ipAt + IPV6_SRC, ipAt + IPV6_DST, IpProtocol.icmpv6, bytes);
  if (finishSum(onesSum(pool, icmpAt, bytes, pseudo)) !== 0) return Drop.icmp6Checksum;
  return 0;
}

/** Compute the checksum of a whole message, whose IPv6 addresses are already written, and write it. */
export function icmp6ChecksumWrite(pool: Uint8Array, ipAt: number, icmpAt: number, bytes: number): void {
  writeU16(pool, icmpAt + 2, 0);
  const pseudo = pseudoSum6At(pool, ipAt + IPV6_SRC, ipAt + IPV6_DST, IpProtocol.icmpv6, bytes);
  writeU16(pool, icmpAt + 2, finishSum(onesSum(pool, icmpAt, bytes, pseudo)));
}
