// @vitest: beside
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { addressText } from '../../src/proto/address.ts';
import { Drop } from '../../src/proto/drop.ts';
import { groupMac } from '../../src/proto/ethernet.ts';
import {
  GroupRecord,
  groupRecordAddress,
  groupRecordBytes,
  groupRecordSources,
  groupRecordType,
} from '../../src/proto/group-record.ts';
import {
  IgmpType,
  igmpCheck,
  igmpGroup,
  igmpQueryWrite,
  igmpRecords,
  igmpRecordsAt,
  igmpType,
} from '../../src/proto/igmp.ts';
import { ipv4ChecksumOk, ipv4HeaderBytes } from '../../src/proto/ipv4.ts';
import { FRAME_AT as AT, poolWith, readsOnlyItsFrame, slice, u32, wire } from './vector.ts';

const report2 = wire(`
  16 00 09 04   // type: version 2 report, max response 0, checksum
  e0 00 00 fb   // group 224.0.0.251
`);
const leave = wire(`
  17 00 08 04   // type: leave, checksum
  e0 00 00 fb   // group 224.0.0.251
`);
const report1 = wire(`
  12 00 fe f4   // type: version 1 report, checksum
  ef 00 00 0a   // group 239.0.0.10
`);
const report3 = wire(`
  22 00 5c 59 00 00 00 02   // type: version 3 report, checksum, 2 records
  04 00 00 00               // to exclude, no auxiliary data, no sources
  e0 00 00 fb               // group 224.0.0.251
  01 01 00 02               // is include, 4 bytes of auxiliary data, 2 sources
  e8 01 02 03               // group 232.1.2.3
  0a 00 00 01 0a 00 00 02   // sources 10.0.0.1 and 10.0.0.2
  de ad be ef               // auxiliary data
`);

/** All that a check allows to read, as texts. */
function readRecords(pool: Uint8Array, first: number, count: number, addressBytes: 4 | 16): string[] {
  const words = new Uint32Array(4);
  const texts: string[] = [];
  let at = first;
  for (let i = 0; i < count; i++) {
    const addresses: string[] = [];
    for (let k = 0; k <= groupRecordSources(pool, at); k++) {
      groupRecordAddress(pool, at, addressBytes, k, words, 0);
      addresses.push(addressText(words, 0));
    }
    texts.push(`${groupRecordType(pool, at)} ${addresses.join(' ')}`);
    at += groupRecordBytes(pool, at, addressBytes);
  }
  return texts;
}

describe('igmpCheck', () => {
  it.each([
    ['a version 2 report', report2, IgmpType.report2, 0xe00000fb],
    ['a leave', leave, IgmpType.leave, 0xe00000fb],
    ['a version 1 report', report1, IgmpType.report1, 0xef00000a],
  ])('accepts %s', (_name, message, type, group) => {
    const pool = poolWith(message);
    expect(igmpCheck(pool, AT, message.length)).toBe(0);
    expect([igmpType(pool, AT), igmpGroup(pool, AT)]).toEqual([type, group]);
  });

  it('accepts a version 3 report with sources and auxiliary data', () => {
    const pool = poolWith(report3);
    expect(igmpCheck(pool, AT, report3.length)).toBe(0);
    expect(igmpRecords(pool, AT)).toBe(2);
    expect(readRecords(pool, igmpRecordsAt(AT), 2, 4)).toEqual([
      `${GroupRecord.toExclude} 224.0.0.251`,
      `${GroupRecord.isInclude} 232.1.2.3 10.0.0.1 10.0.0.2`,
    ]);
  });

  it.each<[string, Uint8Array, number, number]>([
    ['7 bytes', report2, 7, Drop.short],
    ['a changed byte', Uint8Array.from([...report2.subarray(0, 7), 0xfc]), 8, Drop.igmpChecksum],
    // Of 3 records, the last one is missing. The checksum is the one of the changed message.
    ['a missing record', recount(3), report3.length, Drop.groupRecord],
    ['65535 records', recount(0xffff), report3.length, Drop.groupRecord],
  ])('drops %s', (_name, message, bytes, drop) => {
    expect(igmpCheck(poolWith(message), AT, bytes)).toBe(drop);
  });
});

/** report3 with another number of records, and the checksum for it. */
function recount(records: number): Uint8Array {
  const message = Uint8Array.from(report3);
  message[6] = records >>> 8;
  message[7] = records;
  message[2] = 0;
  message[3] = 0;
  let sum = 0;
  for (let i = 0; i < message.length; i += 2) sum += (message[i]! << 8) | message[i + 1]!;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  message[2] = (~sum >>> 8) & 0xff;
  message[3] = ~sum & 0xff;
  return message;
}

it('never reads outside its frame', () => {
  readsOnlyItsFrame([report1, report2, leave, report3, recount(3)], (pool, at, bytes) => {
    const result = igmpCheck(pool, at, bytes);
    if (result < 0) return result;
    if (igmpType(pool, at) !== IgmpType.report3) return igmpGroup(pool, at);
    return readRecords(pool, igmpRecordsAt(at), igmpRecords(pool, at), 4);
  });
});

describe('igmpQueryWrite', () => {
  it('writes a general query with Router Alert', () => {
    const pool = poolWith(new Uint8Array(36));
    expect(igmpQueryWrite(pool, AT, 0x0a000202, 0, 100, 125)).toBe(36);
    expect(slice(pool, AT, 36)).toEqual(
      wire(`
        46 00 00 24 00 00 00 00   // version 4, ihl 6, totalLen 36
        01 02 38 d1               // ttl 1, IGMP, checksum
        0a 00 02 02 e0 00 00 01   // 10.0.2.2 to 224.0.0.1
        94 04 00 00               // Router Alert
        11 64 ec 1e 00 00 00 00   // query, 10 s, checksum, no group
        02 7d 00 00               // robustness 2, every 125 s, no sources
      `),
    );
  });

  it('a query for a group goes to that group, with correct checksums', () => {
    fc.assert(
      fc.property(u32, u32, (src, low) => {
        const group = (0xe0000000 | (low >>> 4) | 1) >>> 0;
        const pool = poolWith(new Uint8Array(36));
        const bytes = igmpQueryWrite(pool, AT, src, group, 10, 125);
        expect(ipv4HeaderBytes(pool, AT, bytes)).toBe(24);
        expect(ipv4ChecksumOk(pool, AT, 24)).toBe(true);
        expect(igmpCheck(pool, AT + 24, bytes - 24)).toBe(0);
        expect(igmpGroup(pool, AT + 24)).toBe(group);
        expect(slice(pool, AT + 16, 4)).toEqual(slice(pool, AT + 28, 4));
      }),
    );
  });
});

it.each([
  ['224.128.2.3', [0, 0, 0xffff, 0xe0800203], '01 00 5e 00 02 03'], // the 24th bit is not part of the MAC
  ['239.255.255.250', [0, 0, 0xffff, 0xeffffffa], '01 00 5e 7f ff fa'],
  ['ff02::1:3', [0xff020000, 0, 0, 0x00010003], '33 33 00 01 00 03'],
  ['255.255.255.255', [0, 0, 0xffff, 0xffffffff], 'ff ff ff ff ff ff'],
  ['10.0.0.255', [0, 0, 0xffff, 0x0a0000ff], 'ff ff ff ff ff ff'],
])('groupMac of %s', (_name, words, mac) => {
  const out = new Uint8Array(6);
  groupMac(Uint32Array.from(words), 0, out);
  expect(out).toEqual(wire(mac));
});
