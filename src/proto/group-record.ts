/**
 * Group records of IGMPv3 and MLDv2 reports (RFC 3376 section 4.2.4, RFC 3810 section 5.2.5). The two differ
 * only in the length of an address: 4 or 16 bytes.
 *
 *  +0 type u8   +1 auxiliary data u8, in units of 4 bytes   +2 number of sources u16   +4 group
 *  behind it: the sources, then the auxiliary data, which has no meaning in either RFC
 *
 * Invariant: once groupRecordsCheck() === 0, all records may be read unchecked, one after the other.
 */
import { addressRead, addressSetIpv4 } from './address.ts';
import { readU16, readU32 } from './be.ts';
import { Drop } from './drop.ts';

/** Types of a record (RFC 3376 section 4.2.12). Include lists sources to hear, exclude those not to. */
export const GroupRecord = {
  isInclude: 1,
  isExclude: 2,
  toInclude: 3,
  toExclude: 4,
  allowNew: 5,
  blockOld: 6,
} as const;

const RECORD_HEAD_BYTES = 4;

/**
 * Check the records of a report in place.
 * @param at,bytes  the records
 * @param count  how many there are by the report's header
 * @param addressBytes  4 for IGMP, 16 for MLD
 * @returns 0, or Drop.groupRecord: a record extends beyond the message
 */
export function groupRecordsCheck(
  pool: Uint8Array,
  at: number,
  bytes: number,
  count: number,
  addressBytes: 4 | 16,
): number {
  let offset = 0;
  for (let i = 0; i < count; i++) {
    if (offset + RECORD_HEAD_BYTES + addressBytes > bytes) return Drop.groupRecord;
    offset += groupRecordBytes(pool, at + offset, addressBytes);
    if (offset > bytes) return Drop.groupRecord;
  }
  return 0;
}

/** Length of the record at `at`. */
export function groupRecordBytes(pool: Uint8Array, at: number, addressBytes: 4 | 16): number {
  const sources = readU16(pool, at + 2);
  return RECORD_HEAD_BYTES + addressBytes * (1 + sources) + (pool[at + 1]! << 2);
}

/** Type of the record: a GroupRecord value or any other number, which is to be ignored. */
export function groupRecordType(pool: Uint8Array, at: number): number {
  return pool[at]!;
}

/** Number of the record's sources. */
export function groupRecordSources(pool: Uint8Array, at: number): number {
  return readU16(pool, at + 2);
}

/**
 * Read an address of the record into words[w..w + 3].
 * @param index  0: the group; i: source i, from 1 on
 */
export function groupRecordAddress(
  pool: Uint8Array,
  at: number,
  addressBytes: 4 | 16,
  index: number,
  words: Uint32Array,
  w: number,
): void {
  const addressAt = at + RECORD_HEAD_BYTES + index * addressBytes;
  if (addressBytes === 4) addressSetIpv4(words, w, readU32(pool, addressAt));
  else addressRead(pool, addressAt, words, w);
}
