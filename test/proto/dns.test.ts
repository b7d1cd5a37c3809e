// @vitest: beside
import { describe, expect, it } from 'vitest';
import {
  DnsRcode,
  dnsCheck,
  dnsErrorWrite,
  dnsId,
  dnsIsQuery,
  dnsQuestionBytes,
  dnsRcode,
  dnsSameQuestion,
  dnsShouldFailOver,
} from '../../src/proto/dns.ts';
import { Drop } from '../../src/proto/drop.ts';
import { FRAME_AT as AT, poolWith, readsOnlyItsFrame, slice, wire } from './vector.ts';

const query = wire(`
  be ef 01 20                                  // id, flags: RD AD
  00 01 00 00 00 00 00 01                      // one question, one additional record
  07 65 78 61 6d 70 6c 65 03 6f 72 67 00       // example.org
  00 01 00 01                                  // A, IN
  00 00 29 04 d0 00 00 00 00 00 00             // OPT: 1232 bytes
`);
const QUESTION_END = 29;

const answer = wire(`
  be ef 83 83                                  // id, flags: QR TC RD RA, rcode 3
  00 01 00 00 00 00 00 00
  07 45 58 61 6d 70 6c 65 03 6f 52 67 00       // EXample.oRg
  00 01 00 01
`);

function read(pool: Uint8Array, at: number, bytes: number): unknown {
  const result = dnsCheck(pool, at, bytes);
  if (result < 0) return result;
  return [dnsId(pool, at), dnsIsQuery(pool, at), dnsRcode(pool, at), dnsQuestionBytes(pool, at, bytes)];
}

describe('reading', () => {
  it('a query: accepted, with its question', () => {
    expect(read(poolWith(query), AT, query.length)).toEqual([0xbeef, true, 0, 17]);
  });

  it('an answer: accepted, with its question', () => {
    expect(read(poolWith(answer), AT, answer.length)).toEqual([0xbeef, false, DnsRcode.nxDomain, 17]);
  });

  it('the root name: accepted', () => {
    const root = wire('0001 0100 0001 0000 0000 0000 00 0002 0001');
    expect(dnsQuestionBytes(poolWith(root), AT, root.length)).toBe(5);
  });

  it.each<[string, (p: Uint8Array) => void, number, number]>([
    ['11 bytes', () => {}, 11, Drop.short],
    ['no question', (p) => (p[5] = 0), query.length, Drop.dnsQuestion],
    ['two questions', (p) => (p[5] = 2), query.length, Drop.dnsQuestion],
    ['a header alone', () => {}, 12, Drop.dnsQuestion],
    ['a question cut in its name', () => {}, 20, Drop.dnsQuestion],
    ['a question cut in its class', () => {}, QUESTION_END - 1, Drop.dnsQuestion],
    ['a compressed name', (p) => (p[12] = 0xc0), query.length, Drop.dnsQuestion],
    ['a label past the end', (p) => (p[12] = 63), query.length, Drop.dnsQuestion],
  ])('drops %s', (_name, spoil, bytes, drop) => {
    const spoilt = Uint8Array.from(query);
    spoil(spoilt);
    expect(dnsCheck(poolWith(spoilt), AT, bytes)).toBe(drop);
  });

  it('a name of 255 bytes passes, one of 256 does not', () => {
    const withName = (lastLabel: number): Uint8Array => {
      const labels = [63, 63, 63, lastLabel].flatMap((n) => [n, ...new Array<number>(n).fill(0x61)]);
      return Uint8Array.from([...query.subarray(0, 12), ...labels, 0, 0, 1, 0, 1]);
    };
    const longest = withName(61);
    expect(longest.length - 12 - 4).toBe(255);
    expect(dnsCheck(longest, 0, longest.length)).toBe(0);
    const longer = withName(62);
    expect(dnsCheck(longer, 0, longer.length)).toBe(Drop.dnsQuestion);
  });

  it('never reads outside its frame', () => {
    readsOnlyItsFrame([query, answer], read);
  });
});

it('fail-over: for SERVFAIL, NOTIMP and REFUSED, not for other result codes', () => {
  const pool = poolWith(answer);
  const rcodes = Array.from({ length: 16 }, (_, rcode) => {
    pool[AT + 3] = 0x80 | rcode;
    return dnsShouldFailOver(pool, AT);
  });
  expect(rcodes.flatMap((yes, rcode) => (yes ? [rcode] : []))).toEqual([
    DnsRcode.servFail,
    DnsRcode.notImp,
    DnsRcode.refused,
  ]);
});

describe('dnsSameQuestion', () => {
  const same = (other: Uint8Array): boolean => {
    const pool = new Uint8Array(400);
    pool.set(query);
    pool.set(other, 200);
    return dnsSameQuestion(pool, 0, query.length, 200, other.length);
  };

  it('names equal but for letter case: the same question', () => {
    expect(same(answer)).toBe(true);
  });

  it.each<[string, number, number]>([
    ['another name', 14, 0x79],
    ['a name that differs in bit 5 of no letter', 12, 0x27],
    ['another type', 26, 28],
    ['another class', 28, 3],
    ['a longer question', 20, 4],
  ])('not %s', (_name, index, value) => {
    const other = Uint8Array.from(query);
    other[index] = value;
    expect(same(other)).toBe(false);
  });

  it('types that differ only in bit 5: not the same question', () => {
    const other = Uint8Array.from(query);
    other[26] = 0x21;
    expect(same(other)).toBe(false);
  });

  // Bytes that differ in bit 5 alone: in a name case is folded for letters only, in type and class never.
  it.each<[string, number, number, number]>([
    ['a type that would be a letter, 65 against 97', 26, 0x41, 0x61],
    ['a class that would be a letter', 28, 0x41, 0x61],
    ['[ against { in a name', 14, 0x5b, 0x7b],
    ['- against CR in a name', 14, 0x2d, 0x0d],
    ['@ against ` in a name', 14, 0x40, 0x60],
  ])('%s: another question', (_name, index, one, two) => {
    const pool = poolWith(new Uint8Array(300));
    pool.set(query, AT);
    pool.set(query, AT + 100);
    pool[AT + index] = one;
    pool[AT + 100 + index] = one;
    expect(dnsSameQuestion(pool, AT, query.length, AT + 100, query.length)).toBe(true);
    pool[AT + 100 + index] = two;
    expect(dnsSameQuestion(pool, AT, query.length, AT + 100, query.length)).toBe(false);
  });
});

describe('answers without records', () => {
  it('SERVFAIL carries id and question, copies RD, drops the additional record', () => {
    const pool = poolWith(new Uint8Array(300));
    pool.set(query, AT + 100);
    expect(dnsErrorWrite(pool, AT, AT + 100, query.length, DnsRcode.servFail)).toBe(QUESTION_END);
    expect(slice(pool, AT, QUESTION_END)).toEqual(
      wire(`
        be ef 81 82                              // QR RD RA, rcode 2
        00 01 00 00 00 00 00 00                  // one question
        07 65 78 61 6d 70 6c 65 03 6f 72 67 00
        00 01 00 01
      `),
    );
    expect(pool[AT + QUESTION_END]).toBe(0);
  });

  it('written over the query with another result code: well-formed', () => {
    const pool = poolWith(query);
    expect(dnsErrorWrite(pool, AT, AT, query.length, DnsRcode.refused)).toBe(QUESTION_END);
    expect([dnsIsQuery(pool, AT), dnsRcode(pool, AT)]).toEqual([false, DnsRcode.refused]);
    expect(dnsCheck(pool, AT, QUESTION_END)).toBe(0);
  });

  it('a malformed question: left out', () => {
    const pool = poolWith(query);
    expect(dnsErrorWrite(pool, AT, AT, 20, DnsRcode.formErr)).toBe(12);
    expect(slice(pool, AT, 12)).toEqual(wire('be ef 81 81 00 00 00 00 00 00 00 00'));
  });

  it('opcode: copied', () => {
    const pool = poolWith(query);
    pool[AT + 2] = 0x28; // UPDATE
    dnsErrorWrite(pool, AT, AT, query.length, DnsRcode.notImp);
    expect((pool[AT + 2]! >>> 3) & 15).toBe(5);
  });
});
