// @vitest: beside
import { describe, expect, it } from 'vitest';
import { addressParse, addressRead, addressText } from '../../src/proto/address.ts';
import { Drop } from '../../src/proto/drop.ts';
import {
  GroupRecord,
  groupRecordAddress,
  groupRecordBytes,
  groupRecordSources,
  groupRecordType,
} from '../../src/proto/group-record.ts';
import { icmp6Check } from '../../src/proto/icmpv6.ts';
import { MLD_GROUP, mldCheck, mldQueryWrite, mldRecords, mldRecordsAt } from '../../src/proto/mld.ts';
import { FRAME_AT as AT, poolWith, readsOnlyItsFrame, slice, wire } from './vector.ts';

const words = (text: string): Uint32Array => {
  const out = new Uint32Array(4);
  expect(addressParse(text, out, 0), text).toBe(true);
  return out;
};

const report1 = wire(`
  83 00 00 00 00 00 00 00                           // type 131: version 1 report; the checksum is another layer's
  ff 02 00 00 00 00 00 00 00 00 00 00 00 00 00 fb   // group ff02::fb
`);
const report2 = wire(`
  8f 00 00 00 00 00 00 02                           // type 143: version 2 report, 2 records
  04 00 00 00                                       // to exclude, no sources
  ff 02 00 00 00 00 00 00 00 00 00 00 00 00 00 fb   // group ff02::fb
  05 01 00 01                                       // allow, 4 bytes of auxiliary data, 1 source
  ff 35 00 00 00 00 00 00 00 00 00 00 00 00 00 01   // group ff35::1
  fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 02   // source fd00::2
  00 00 00 00
`);

const records = (pool: Uint8Array, first: number, count: number): string[] => {
  const address = new Uint32Array(4);
  const texts: string[] = [];
  let at = first;
  for (let i = 0; i < count; i++) {
    let text = `${groupRecordType(pool, at)}`;
    for (let k = 0; k <= groupRecordSources(pool, at); k++) {
      groupRecordAddress(pool, at, 16, k, address, 0);
      text += ` ${addressText(address, 0)}`;
    }
    texts.push(text);
    at += groupRecordBytes(pool, at, 16);
  }
  return texts;
};

describe('mldCheck', () => {
  it('accepts a version 1 report', () => {
    const pool = poolWith(report1);
    const group = new Uint32Array(4);
    expect(mldCheck(pool, AT, 24)).toBe(0);
    addressRead(pool, AT + MLD_GROUP, group, 0);
    expect(addressText(group, 0)).toBe('ff02::fb');
  });

  it('accepts a version 2 report with a source', () => {
    const pool = poolWith(report2);
    expect(mldCheck(pool, AT, report2.length)).toBe(0);
    expect(records(pool, mldRecordsAt(AT), mldRecords(pool, AT))).toEqual([
      `${GroupRecord.toExclude} ff02::fb`,
      `${GroupRecord.allowNew} ff35::1 fd00::2`,
    ]);
  });

  it.each<[string, Uint8Array, number, number]>([
    ['a version 1 report of 23 bytes', report1, 23, Drop.short],
    ['a version 2 report of 7 bytes', report2, 7, Drop.short],
    ['a record cut short', report2, report2.length - 1, Drop.groupRecord],
    ['a record without its group', report2, 27, Drop.groupRecord],
  ])('drops %s', (_name, message, bytes, drop) => {
    expect(mldCheck(poolWith(message), AT, bytes)).toBe(drop);
  });
});

it('never reads outside its frame', () => {
  readsOnlyItsFrame([report1, report2], (pool, at, bytes) => {
    if (bytes < 4) return 'short'; // icmp6Check() accepts no such message
    const result = mldCheck(pool, at, bytes);
    if (result < 0) return result;
    return pool[at] === 143
      ? records(pool, mldRecordsAt(at), mldRecords(pool, at))
      : [...slice(pool, at, 24)];
  });
});

describe('mldQueryWrite', () => {
  it('writes a general query with Router Alert', () => {
    const pool = poolWith(new Uint8Array(76));
    expect(mldQueryWrite(pool, AT, words('fe80::1'), words('::'), 0, 10000, 125)).toBe(76);
    expect(icmp6Check(pool, AT, AT + 48, 28)).toBe(0);
    pool[AT + 50] = 0; // the checksum, which is checked above
    pool[AT + 51] = 0;
    expect(slice(pool, AT, 76)).toEqual(
      wire(`
        60 00 00 00 00 24 00 01                           // version 6, 36 bytes, hop-by-hop, hop limit 1
        fe 80 00 00 00 00 00 00 00 00 00 00 00 00 00 01   // fe80::1
        ff 02 00 00 00 00 00 00 00 00 00 00 00 00 00 01   // ff02::1
        3a 00 05 02 00 00 01 00                           // ICMPv6 next, 8 bytes, Router Alert MLD, PadN
        82 00 00 00 27 10 00 00                           // type 130, 10000 ms
        00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00   // no group
        02 7d 00 00                                       // robustness 2, every 125 s, no sources
      `),
    );
  });

  it('a query for a group goes to that group', () => {
    const pool = poolWith(new Uint8Array(76));
    const bytes = mldQueryWrite(pool, AT, words('fe80::1'), words('ff05::1:3'), 0, 1000, 125);
    expect(icmp6Check(pool, AT, AT + 48, bytes - 48)).toBe(0);
    expect(mldCheck(pool, AT + 48, 28)).toBe(0);
    expect(slice(pool, AT + 24, 16)).toEqual(slice(pool, AT + 56, 16));
  });
});
