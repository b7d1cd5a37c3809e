// @vitest: beside
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Drop } from '../../src/proto/drop.ts';
import {
  IPV4_MIN_BYTES,
  IpProtocol,
  Ipv4Flag,
  ipv4ChecksumOk,
  ipv4DontFragment,
  ipv4Dst,
  ipv4FragOffset,
  ipv4HeaderBytes,
  ipv4Ident,
  ipv4IsFragment,
  ipv4MoreFragments,
  ipv4Parse,
  ipv4Protocol,
  ipv4Src,
  ipv4Text,
  ipv4Tos,
  ipv4TosWrite,
  ipv4TotalLen,
  ipv4Ttl,
  ipv4Write,
} from '../../src/proto/ipv4.ts';
import { FRAME_AT as AT, poolWith, readsOnlyItsFrame, slice, u8, u16, u32, wire } from './vector.ts';

const header = wire(`
  45 00 00 28   // version 4, ihl 5, dscp 0, totalLen 40
  1c 46 40 00   // ident 0x1c46, DF, fragOffset 0
  40 06 b1 fa   // ttl 64, protocol 6 (TCP), checksum
  ac 10 0a 63   // src 172.16.10.99
  ac 10 0a 0c   // dst 172.16.10.12
`);
const packet = Uint8Array.from([...header, ...new Uint8Array(20)]);

const withOptions = wire(`
  46 00 00 18   // version 4, ihl 6, totalLen 24
  00 01 00 00   // ident 1
  01 02 00 00   // ttl 1, protocol 2 (IGMP), checksum filled below
  0a 00 02 64   // src 10.0.2.100
  e0 00 00 16   // dst 224.0.0.22
  94 04 00 00   // option: router alert
`);

const fragment = wire(`
  45 00 00 1c   // totalLen 28
  00 07 20 b9   // ident 7, MF, fragOffset 185 * 8 = 1480
  40 11 00 00   // ttl 64, UDP, checksum not looked at
  0a 00 02 64 0a 00 02 02
  01 02 03 04 05 06 07 08
`);

/** All results of the codec for a frame. */
function read(pool: Uint8Array, at: number, bytes: number): unknown {
  const headerBytes = ipv4HeaderBytes(pool, at, bytes);
  if (headerBytes < 0) return headerBytes;
  return [
    headerBytes,
    ipv4TotalLen(pool, at),
    ipv4Ident(pool, at),
    ipv4DontFragment(pool, at),
    ipv4MoreFragments(pool, at),
    ipv4FragOffset(pool, at),
    ipv4IsFragment(pool, at),
    ipv4Ttl(pool, at),
    ipv4Protocol(pool, at),
    ipv4Src(pool, at),
    ipv4Dst(pool, at),
    ipv4ChecksumOk(pool, at, headerBytes),
  ];
}

describe('ipv4HeaderBytes', () => {
  it('accepts a plain header and one with options', () => {
    expect(ipv4HeaderBytes(poolWith(packet), AT, 40)).toBe(20);
    expect(ipv4HeaderBytes(poolWith(withOptions), AT, 24)).toBe(24);
  });

  it('accepts a frame padded past totalLen', () => {
    expect(ipv4HeaderBytes(poolWith(packet), AT, 46)).toBe(20);
  });

  it.each<[string, (p: Uint8Array) => void, number, number]>([
    ['19 bytes', () => {}, 19, Drop.short],
    ['no bytes', () => {}, 0, Drop.short],
    ['version 6', (p) => (p[0] = 0x65), 40, Drop.ipVersion],
    ['ihl 4', (p) => (p[0] = 0x44), 40, Drop.ipv4Ihl],
    ['totalLen beyond the frame', () => {}, 39, Drop.ipv4TotalLen],
    ['totalLen below the header', (p) => (p[3] = 19), 40, Drop.ipv4TotalLen],
    ['totalLen 0 (a BIG TCP frame)', (p) => (p[3] = 0), 40, Drop.ipv4TotalLen],
    ['ihl 15 with totalLen 40', (p) => (p[0] = 0x4f), 40, Drop.ipv4TotalLen],
  ])('drops %s', (_name, spoil, avail, drop) => {
    const spoilt = Uint8Array.from(packet);
    spoil(spoilt);
    expect(ipv4HeaderBytes(poolWith(spoilt), AT, avail)).toBe(drop);
  });
});

it('fields of the vector', () => {
  expect(read(poolWith(packet), AT, packet.length)).toEqual([
    20,
    40,
    0x1c46,
    true,
    false,
    0,
    false,
    64,
    IpProtocol.tcp,
    0xac100a63,
    0xac100a0c,
    true,
  ]);
});

it('fields of a fragment', () => {
  const pool = poolWith(fragment);
  expect(ipv4MoreFragments(pool, AT)).toBe(true);
  expect(ipv4FragOffset(pool, AT)).toBe(1480);
  expect(ipv4IsFragment(pool, AT)).toBe(true);
  expect(ipv4DontFragment(pool, AT)).toBe(false);
});

it('one flipped bit: the checksum is wrong', () => {
  fc.assert(
    fc.property(fc.nat(IPV4_MIN_BYTES * 8 - 1), (bit) => {
      const pool = poolWith(packet);
      pool[AT + (bit >>> 3)]! ^= 1 << (bit & 7);
      return !ipv4ChecksumOk(pool, AT, IPV4_MIN_BYTES);
    }),
  );
});

it('ipv4Write writes the vector', () => {
  const pool = poolWith(new Uint8Array(20));
  ipv4Write(pool, AT, 40, IpProtocol.tcp, 0xac100a63, 0xac100a0c, 64, 0x1c46, Ipv4Flag.dontFragment);
  expect(slice(pool, AT, 20)).toEqual(header);
});

it('ipv4TosWrite: the TOS is replaced, the checksum right', () => {
  const pool = new Uint8Array(100);
  for (const [dst, tos] of [
    [0xac100a0c, 0xb9],
    [0xffffffff, 0xff],
    [0, 0],
  ] as const) {
    ipv4Write(pool, AT, 40, IpProtocol.tcp, 0xac100a63, dst, 64, 0x1c46, Ipv4Flag.dontFragment);
    ipv4TosWrite(pool, AT, tos);
    expect([ipv4Tos(pool, AT), ipv4Dst(pool, AT), ipv4ChecksumOk(pool, AT, 20)]).toEqual([tos, dst, true]);
  }
});

it('decode(encode(x)) = x with a right checksum', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 20, max: 65535 }),
      u8,
      u32,
      u32,
      u8,
      u16,
      fc.nat(0x7fff),
      (totalLen, protocol, src, dst, ttl, ident, flagsFrag) => {
        const pool = poolWith(new Uint8Array(20));
        ipv4Write(pool, AT, totalLen, protocol, src, dst, ttl, ident, flagsFrag);
        expect(read(pool, AT, 65535)).toEqual([
          20,
          totalLen,
          ident,
          (flagsFrag & Ipv4Flag.dontFragment) !== 0,
          (flagsFrag & Ipv4Flag.moreFragments) !== 0,
          (flagsFrag & 0x1fff) * 8,
          (flagsFrag & 0x3fff) !== 0,
          ttl,
          protocol,
          src,
          dst,
          true,
        ]);
        expect([pool[AT - 1], pool[AT + 20]]).toEqual([0xa5, 0xa5]);
      },
    ),
  );
});

it('never reads outside its frame', () => {
  readsOnlyItsFrame([packet, withOptions, fragment], read);
});

describe('text', () => {
  it('parse(text(x)) = x', () => {
    fc.assert(fc.property(u32, (address) => ipv4Parse(ipv4Text(address)) === address));
    expect(ipv4Text(0xc0000201)).toBe('192.0.2.1');
    expect(ipv4Parse('255.255.255.255')).toBe(0xffffffff);
  });

  it.each([
    '',
    '1.2.3',
    '1.2.3.4.5',
    '1.2.3.256',
    '01.2.3.4',
    '1.2.3.',
    '1.2.3.4 ',
    '-1.2.3.4',
    '1.2.3.4/24',
    '0x1.2.3.4',
    '1e1.0.0.0',
  ])('refuses "%s"', (text) => {
    expect(ipv4Parse(text)).toBe(-1);
  });
});
