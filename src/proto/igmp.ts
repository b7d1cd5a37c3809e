/**
 * IGMP: version 1 (RFC 1112 appendix I), 2 (RFC 2236) and 3 (RFC 3376). `at` is the offset of the type byte.
 *
 *  query, v1 and v2 report, leave   +0 type u8   +1 max response, 1/10 s   +2 checksum u16   +4 group
 *  version 3 query, in addition     +8 |S|QRV|   +9 QQIC   +10 number of sources u16
 *  version 3 report                 +0 type u8   +1 reserved   +2 checksum u16   +4 reserved u16
 *                                   +6 number of records u16   +8 records (group-record.ts)
 *
 * Invariant: once igmpCheck() === 0, the fields of the message's type may be read unchecked.
 */
import { readU16, readU32, writeU16, writeU32 } from './be.ts';
import { finishSum, onesSum } from './checksum.ts';
import { Drop } from './drop.ts';
import { groupRecordsCheck } from './group-record.ts';
import { IpProtocol, ipv4Write } from './ipv4.ts';

export const IgmpType = { query: 0x11, report1: 0x12, report2: 0x16, leave: 0x17, report3: 0x22 } as const;

/** 224.0.0.1, all hosts of the link. */
export const IGMP_ALL_HOSTS = 0xe000_0001;
const IGMP_BYTES = 8;
const IGMP3_QUERY_BYTES = 12;
const IGMP3_RECORDS_AT = 8;

/**
 * Check a whole message in place: length, checksum and the records of a version 3 report.
 * @param bytes  message length; all of it is read
 * @returns 0, or Drop.short | igmpChecksum | groupRecord
 */
export function igmpCheck(pool: Uint8Array, at: number, bytes: number): number {
  if (bytes < IGMP_BYTES) return Drop.short;
  if (finishSum(onesSum(pool, at, bytes, 0)) !== 0) return Drop.igmpChecksum;
  if (pool[at] !== IgmpType.report3) return 0;
  return groupRecordsCheck(pool, at + IGMP3_RECORDS_AT, bytes - IGMP3_RECORDS_AT, igmpRecords(pool, at), 4);
}

/** An IgmpType value or any other number. */
export function igmpType(pool: Uint8Array, at: number): number {
  return pool[at]!;
}

/** Group of a version 1 or 2 report, a leave or a query, as u32. */
export function igmpGroup(pool: Uint8Array, at: number): number {
  return readU32(pool, at + 4);
}

/** Number of records of a version 3 report. */
export function igmpRecords(pool: Uint8Array, at: number): number {
  return readU16(pool, at + 6);
}

/** Offset of the first record of a version 3 report. */
export const igmpRecordsAt = (at: number): number => at + IGMP3_RECORDS_AT;

/** IPv4 header with the Router Alert option (RFC 2113): every IGMP message from version 2 on has it. */
const ALERT_HEADER_BYTES = 24;

/**
 * Write an IPv4 packet with a version 3 query; hosts of versions 1 and 2 read its first 8 bytes.
 * @param src  the querier's address as u32
 * @param group  the group as u32; 0: a general query
 * @param maxResponse  time within which hosts answer, 1 to 127 in units of 1/10 s
 * @param intervalS  query interval, 1 to 127 s
 * @returns packet bytes
 * @source RFC 3376 section 4.1
 */
export function igmpQueryWrite(
  pool: Uint8Array,
  at: number,
  src: number,
  group: number,
  maxResponse: number,
  intervalS: number,
): number {
  const bytes = ALERT_HEADER_BYTES + IGMP3_QUERY_BYTES;
  ipv4Write(pool, at, bytes, IpProtocol.igmp, src, group === 0 ? IGMP_ALL_HOSTS : group, 1, 0, 0);
  pool[at] = 0x46; // 6 words
  writeU32(pool, at + 20, 0x94040000); // Router Alert: copied, class 0, option 20, 4 bytes, value 0
  writeU16(pool, at + 10, 0);
  writeU16(pool, at + 10, finishSum(onesSum(pool, at, ALERT_HEADER_BYTES, 0)));
  const igmpAt = at + ALERT_HEADER_BYTES;
  writeU32(pool, igmpAt, (IgmpType.query << 24) | (maxResponse << 16));
  writeU32(pool, igmpAt + 4, group);
  pool[igmpAt + 8] = ROBUSTNESS;
  pool[igmpAt + 9] = intervalS;
  writeU16(pool, igmpAt + 10, 0);
  writeU16(pool, igmpAt + 2, finishSum(onesSum(pool, igmpAt, IGMP3_QUERY_BYTES, 0)));
  return bytes;
}

/** Robustness variable of queries (RFC 3376 section 8.1, RFC 3810 section 9.1). */
export const ROBUSTNESS = 2;
