/**
 * IPv4 header codec, RFC 791 section 3.1.
 *
 *      0               8               16              24            31
 *  +0 |version|  ihl  |    dscp   |ecn|            totalLen           |
 *  +4 |             ident             |0|D|M|        fragOffset       |
 *  +8 |      ttl      |    protocol   |            checksum           |
 *  +12 src u32    +16 dst u32    +20 options, (ihl - 5) * 4 bytes
 *
 * `at` is the offset of the version byte throughout.
 *
 * Invariant: once ipv4HeaderBytes() > 0, all fields and options below that length may be read unchecked.
 */
import { readU16, readU32, writeU16, writeU32 } from './be.ts';
import { checksumUpdate16, finishSum, onesSum } from './checksum.ts';
import { Drop } from './drop.ts';

export const IPV4_MIN_BYTES = 20;
/** Offsets from the version byte. */
export const IPV4_CHECKSUM = 10;
export const IPV4_SRC = 12;
export const IPV4_DST = 16;

/** IP protocol numbers (IANA), which are also the next header values of IPv6. */
export const IpProtocol = { icmp: 1, igmp: 2, tcp: 6, udp: 17, icmpv6: 58 } as const;

/**
 * Flag bits of ipv4Write's `flagsFrag`; the 13 bits below them are the fragment offset in units of 8 bytes.
 */
export const Ipv4Flag = { moreFragments: 0x2000, dontFragment: 0x4000 } as const;

/**
 * Check a header in place. The checksum is left to ipv4ChecksumOk.
 * @param availBytes bytes of the packet from `at` on. Only the header is read, so the payload may lie
 *   elsewhere.
 * @returns header bytes, 20..60, or Drop.short | ipVersion | ipv4Ihl | ipv4TotalLen
 */
export function ipv4HeaderBytes(pool: Uint8Array, at: number, availBytes: number): number {
  if (availBytes < IPV4_MIN_BYTES) return Drop.short;
  const verIhl = pool[at]!;
  if (verIhl >>> 4 !== 4) return Drop.ipVersion;
  const headerBytes = (verIhl & 0x0f) << 2;
  if (headerBytes < IPV4_MIN_BYTES) return Drop.ipv4Ihl;
  const totalBytes = readU16(pool, at + 2);
  // Frames may have padding behind totalLen (Ethernet's minimum size) but must not end before it.
  if (totalBytes < headerBytes || totalBytes > availBytes) return Drop.ipv4TotalLen;
  return headerBytes;
}

/** TOS: DSCP in the upper six bits, ECN in the lower two (RFC 2474, RFC 3168). */
export function ipv4Tos(pool: Uint8Array, at: number): number {
  return pool[at + 1]!;
}

/** Replace the TOS and adjust the header checksum (RFC 1624). */
export function ipv4TosWrite(pool: Uint8Array, at: number, tos: number): void {
  const before = readU16(pool, at);
  pool[at + 1] = tos;
  const checksum = checksumUpdate16(readU16(pool, at + IPV4_CHECKSUM), before, readU16(pool, at));
  writeU16(pool, at + IPV4_CHECKSUM, checksum);
}

/** Total length: header and payload, in bytes. */
export function ipv4TotalLen(pool: Uint8Array, at: number): number {
  return readU16(pool, at + 2);
}

/** Identification, which all fragments of a datagram share. */
export function ipv4Ident(pool: Uint8Array, at: number): number {
  return readU16(pool, at + 4);
}

/** DF flag. */
export function ipv4DontFragment(pool: Uint8Array, at: number): boolean {
  return (pool[at + 6]! & 0x40) !== 0;
}

/** MF flag. */
export function ipv4MoreFragments(pool: Uint8Array, at: number): boolean {
  return (pool[at + 6]! & 0x20) !== 0;
}

/** Fragment offset in bytes (the field counts units of 8). */
export function ipv4FragOffset(pool: Uint8Array, at: number): number {
  return (readU16(pool, at + 6) & 0x1fff) << 3;
}

/** Whether the packet is a fragment: MF is set or the fragment offset is not 0. */
export function ipv4IsFragment(pool: Uint8Array, at: number): boolean {
  return (readU16(pool, at + 6) & 0x3fff) !== 0;
}

/** Time to live, in hops. */
export function ipv4Ttl(pool: Uint8Array, at: number): number {
  return pool[at + 8]!;
}

/** Protocol: an IpProtocol value or any other number. */
export function ipv4Protocol(pool: Uint8Array, at: number): number {
  return pool[at + 9]!;
}

/** Source address as a u32. */
export function ipv4Src(pool: Uint8Array, at: number): number {
  return readU32(pool, at + IPV4_SRC);
}

/** Destination address as a u32. */
export function ipv4Dst(pool: Uint8Array, at: number): number {
  return readU32(pool, at + IPV4_DST);
}

/** Whether the header checksum is correct. @param headerBytes  result of ipv4HeaderBytes */
export function ipv4ChecksumOk(pool: Uint8Array, at: number, headerBytes: number): boolean {
  return finishSum(onesSum(pool, at, headerBytes, 0)) === 0;
}

/**
 * Write a 20-byte header without options, checksum included. Each of the nine parameters is a field of the
 * header; callers have them in different places, so no object holds them.
 * @param totalLen  header and payload, bytes
 * @param src,dst  addresses as u32
 * @param flagsFrag  Ipv4Flag bits | fragment offset in units of 8 bytes
 */
export function ipv4Write(
  pool: Uint8Array,
  at: number,
  totalLen: number,
  protocol: number,
  src: number,
  dst: number,
  ttl: number,
  ident: number,
  flagsFrag: number,
): void {
  pool[at] = 0x45;
  pool[at + 1] = 0;
  writeU16(pool, at + 2, totalLen);
  writeU16(pool, at + 4, ident);
  writeU16(pool, at + 6, flagsFrag);
  pool[at + 8] = ttl;
  pool[at + 9] = protocol;
  writeU32(pool, at + IPV4_SRC, src);
  writeU32(pool, at + IPV4_DST, dst);
  // The sum is taken from the arguments, which is cheaper than reading back the bytes just written.
  const sum =
    0x4500 +
    (totalLen & 0xffff) +
    (ident & 0xffff) +
    (flagsFrag & 0xffff) +
    (((ttl & 0xff) << 8) | (protocol & 0xff)) +
    (src >>> 16) +
    (src & 0xffff) +
    (dst >>> 16) +
    (dst & 0xffff);
  writeU16(pool, at + IPV4_CHECKSUM, finishSum(sum));
}

/** Parse a dotted quad to a u32; -1 for any other text, also with leading zeros or fewer parts. Cold path. */
export function ipv4Parse(text: string): number {
  const parts = text.split('.');
  if (parts.length !== 4) return -1;
  let value = 0;
  for (const part of parts) {
    if (!/^(0|[1-9][0-9]{0,2})$/.test(part)) return -1;
    const byte = Number(part);
    if (byte > 255) return -1;
    value = value * 256 + byte;
  }
  return value;
}

/** An address (u32) as a dotted quad. Cold path. */
export function ipv4Text(address: number): string {
  return `${address >>> 24}.${(address >>> 16) & 0xff}.${(address >>> 8) & 0xff}.${address & 0xff}`;
}
