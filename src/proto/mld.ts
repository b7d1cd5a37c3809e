/**
 * MLD: version 1 (RFC 2710) and 2 (RFC 3810). The messages are ICMPv6 messages; `at` is the offset of the
 * type byte.
 *
 *  query, v1 report, done       +0 icmp header, 4   +4 max response u16, ms   +6 reserved u16   +8 group, 16
 *  version 2 query, in addition +24 |S|QRV|   +25 QQIC   +26 number of sources u16
 *  version 2 report             +0 icmp header, 4   +4 reserved u16   +6 number of records u16
 *                               +8 records (group-record.ts)
 *
 * Invariant: once mldCheck() === 0, the fields of the message's type may be read unchecked.
 */
import { addressWrite } from './address.ts';
import { readU16, writeU16, writeU32 } from './be.ts';
import { Drop } from './drop.ts';
import { groupRecordsCheck } from './group-record.ts';
import { Icmp6Type, icmp6ChecksumWrite } from './icmpv6.ts';
import { ROBUSTNESS } from './igmp.ts';
import { IpProtocol } from './ipv4.ts';
import { IPV6_BYTES, IPV6_DST, IPV6_SRC, Ipv6Next, ipv6Write } from './ipv6.ts';

const MLD1_BYTES = 24;
const MLD2_QUERY_BYTES = 28;
const MLD2_RECORDS_AT = 8;
/** Offset of the group of a query, a version 1 report or a done. */
export const MLD_GROUP = 8;

/**
 * Check a whole message in place; icmp6Check() has accepted length and checksum.
 * @param bytes  message length
 * @returns 0, or Drop.short | groupRecord
 */
export function mldCheck(pool: Uint8Array, at: number, bytes: number): number {
  if (pool[at] !== Icmp6Type.mld2Report) return bytes < MLD1_BYTES ? Drop.short : 0;
  if (bytes < MLD2_RECORDS_AT) return Drop.short;
  return groupRecordsCheck(pool, at + MLD2_RECORDS_AT, bytes - MLD2_RECORDS_AT, mldRecords(pool, at), 16);
}

/** Number of records of a version 2 report. */
export function mldRecords(pool: Uint8Array, at: number): number {
  return readU16(pool, at + 6);
}

/** Offset of the first record of a version 2 report. */
export const mldRecordsAt = (at: number): number => at + MLD2_RECORDS_AT;

/** Hop-by-hop header with the Router Alert option for MLD (RFC 2711) and PadN: all MLD messages have it. */
const ALERT_BYTES = 8;
/** ff02::1, all nodes of the link. */
const ALL_NODES = Uint32Array.of(0xff020000, 0, 0, 1);

/**
 * Write an IPv6 packet with a version 2 query; hosts of version 1 read its first 24 bytes.
 * @param src  the querier's link-local address, four words
 * @param group,g  the group, four words group[g..g + 3]; ::: a general query
 * @param maxResponseMs  time within which hosts answer, below 32768
 * @param intervalS  query interval, 1 to 127 s
 * @returns packet bytes
 * @source RFC 3810 section 5.1
 */
export function mldQueryWrite(
  pool: Uint8Array,
  at: number,
  src: Uint32Array,
  group: Uint32Array,
  g: number,
  maxResponseMs: number,
  intervalS: number,
): number {
  const isGeneral = group[g] === 0;
  ipv6Write(pool, at, ALERT_BYTES + MLD2_QUERY_BYTES, Ipv6Next.hopByHop, 1, 0);
  addressWrite(pool, at + IPV6_SRC, src, 0);
  addressWrite(pool, at + IPV6_DST, isGeneral ? ALL_NODES : group, isGeneral ? 0 : g);
  const alertAt = at + IPV6_BYTES;
  pool[alertAt] = IpProtocol.icmpv6;
  pool[alertAt + 1] = 0; // 8 bytes in all
  writeU32(pool, alertAt + 2, 0x05020000); // Router Alert, 2 bytes: MLD
  writeU16(pool, alertAt + 6, 0x0100); // PadN without data
  const mldAt = alertAt + ALERT_BYTES;
  writeU32(pool, mldAt, Icmp6Type.mldQuery << 24);
  writeU16(pool, mldAt + 4, maxResponseMs);
  writeU16(pool, mldAt + 6, 0);
  addressWrite(pool, mldAt + MLD_GROUP, group, g);
  pool[mldAt + 24] = ROBUSTNESS;
  pool[mldAt + 25] = intervalS;
  writeU16(pool, mldAt + 26, 0);
  icmp6ChecksumWrite(pool, at, mldAt, MLD2_QUERY_BYTES);
  return IPV6_BYTES + ALERT_BYTES + MLD2_QUERY_BYTES;
}
