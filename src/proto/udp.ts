/**
 * UDP header codec, RFC 768.
 *
 *  +0 srcPort u16   +2 dstPort u16   +4 length u16, header included   +6 checksum u16, 0: none (IPv4 only)
 *
 * Invariant: once udpHeaderBytes() > 0, the 8 bytes may be read unchecked and `length` lies within the
 * datagram.
 */
import { readU16, writeU16, writeU32 } from './be.ts';
import { finishSum } from './checksum.ts';
import { Drop } from './drop.ts';

export const UDP_BYTES = 8;
/** Offset of the checksum field from the start of the header; also virtio's csumOffset. */
export const UDP_CHECKSUM = 6;

/**
 * Check a header in place.
 * @param availBytes bytes of the IP payload from `at` on. Only the header is read, so the data may lie
 *   elsewhere.
 * @returns 8, or Drop.short | udpLength. Bytes past the length field's value are padding, not data.
 */
export function udpHeaderBytes(pool: Uint8Array, at: number, availBytes: number): number {
  if (availBytes < UDP_BYTES) return Drop.short;
  const length = readU16(pool, at + 4);
  if (length < UDP_BYTES || length > availBytes) return Drop.udpLength;
  return UDP_BYTES;
}

/** Source port. */
export function udpSrcPort(pool: Uint8Array, at: number): number {
  return readU16(pool, at);
}

/** Destination port. */
export function udpDstPort(pool: Uint8Array, at: number): number {
  return readU16(pool, at + 2);
}

/** Length of header and data, in bytes. */
export function udpLength(pool: Uint8Array, at: number): number {
  return readU16(pool, at + 4);
}

/** The checksum field. 0: the sender computed no checksum, which only IPv4 allows (RFC 8200 section 8.1). */
export function udpChecksum(pool: Uint8Array, at: number): number {
  return readU16(pool, at + UDP_CHECKSUM);
}

/** Write a header, 8 bytes, with the checksum 0. `length` counts header and data. */
export function udpWrite(
  pool: Uint8Array,
  at: number,
  srcPort: number,
  dstPort: number,
  length: number,
): void {
  writeU16(pool, at, srcPort);
  writeU16(pool, at + 2, dstPort);
  writeU32(pool, at + 4, (length << 16) >>> 0);
}

/** The checksum field for a complete sum. A computed 0 is sent as 0xffff, because 0 means "no checksum". */
export function udpFinishSum(sum: number): number {
  const checksum = finishSum(sum);
  return checksum === 0 ? 0xffff : checksum;
}
