// @vitest: beside
import { isIP, SocketAddress } from 'node:net';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  addressCopy,
  addressEqual,
  addressParse,
  addressRead,
  addressSetIpv4,
  addressText,
  addressWrite,
  ipv6Text,
  isLinkLocal,
  isLoopback,
  isMulticast,
  isUnspecified,
  isV4Mapped,
} from '../../src/proto/address.ts';
import { FRAME_AT as AT, poolWith, u32, words4 } from './vector.ts';

const parse = (text: string): number[] | null => {
  const words = new Uint32Array(6).fill(0x5a5a5a5a);
  if (!addressParse(text, words, 1)) {
    expect(Array.from(words)).toEqual(new Array(6).fill(0x5a5a5a5a));
    return null;
  }
  expect([words[0], words[5]]).toEqual([0x5a5a5a5a, 0x5a5a5a5a]);
  return Array.from(words.subarray(1, 5));
};

/** Words that look like real addresses: runs of zero groups. */
const sparse = fc.array(fc.oneof(fc.constant(0), fc.nat(0xffff)), { minLength: 8, maxLength: 8 });

describe('packet bytes', () => {
  it('read(write(x)) = x', () => {
    fc.assert(
      fc.property(words4, (words) => {
        const pool = poolWith(new Uint8Array(16));
        const back = new Uint32Array(5);
        addressWrite(pool, AT, words, 0);
        addressRead(pool, AT, back, 1);
        expect(Array.from(back.subarray(1))).toEqual(Array.from(words));
        expect([pool[AT - 1], pool[AT + 16]]).toEqual([0xa5, 0xa5]);
        expect(addressEqual(words, 0, back, 1)).toBe(true);
        const copy = new Uint32Array(4);
        addressCopy(back, 1, copy, 0);
        expect(copy).toEqual(words);
        for (let i = 0; i < 4; i++) {
          copy[i]! ^= 1;
          expect(addressEqual(words, 0, copy, 0)).toBe(false);
          copy[i]! ^= 1;
        }
      }),
    );
  });
});

describe('addressParse', () => {
  it.each<[string, number[]]>([
    ['10.0.2.15', [0, 0, 0xffff, 0x0a00020f]],
    ['::', [0, 0, 0, 0]],
    ['::1', [0, 0, 0, 1]],
    ['fe80::', [0xfe800000, 0, 0, 0]],
    ['2001:db8::a:0:0:1', [0x20010db8, 0, 0x000a0000, 0x00000001]],
    ['2001:DB8:1:2:3:4:5:6', [0x20010db8, 0x00010002, 0x00030004, 0x00050006]],
    ['::ffff:192.0.2.1', [0, 0, 0xffff, 0xc0000201]],
    ['64:ff9b::192.0.2.1', [0x0064ff9b, 0, 0, 0xc0000201]],
    ['2001:db8::8:800:200c:417a', [0x20010db8, 0, 0x00080800, 0x200c417a]],
    ['1:2:3:4:5:6:7::', [0x00010002, 0x00030004, 0x00050006, 0x00070000]],
  ])('%s', (text, words) => {
    expect(parse(text)).toEqual(words);
  });

  it.each([
    '',
    ':',
    ':::',
    '1',
    '::1::',
    'fe80::1%eth0',
    '2001:db8::/64',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '1:2:3:4:5:6:7:8::',
    '12345::',
    '::g',
    '::1.2.3',
    '1.2.3.4::',
    '::1.2.3.4:5',
    ' ::1',
    '::1 ',
    '1:2:3:4:5:6:7:1.2.3.4',
    '[::1]',
  ])('refuses "%s"', (text) => {
    expect(parse(text)).toBeNull();
  });

  it('any text: accepted exactly when node:net accepts it, zones aside', () => {
    const piece = fc.constantFrom(
      '0',
      '1',
      'ff',
      'abcd',
      ':',
      '::',
      '.',
      '127.0.0.1',
      '255',
      '256',
      '00',
      'g',
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
        const text = pieces.join('');
        expect(parse(text) !== null, text).toBe(isIP(text) !== 0);
      }),
      { numRuns: 2000 },
    );
  });
});

describe('addressText', () => {
  it.each([
    '10.0.2.15',
    '::',
    '::1',
    '1::',
    'fe80::1',
    '2001:db8::1:0:0:1',
    '2001:db8:0:1:1:1:1:1',
    '2001:0:0:1::2',
    'ff02::1:ff00:1',
    '::fffe:0:0',
  ])('%s is canonical (RFC 5952)', (text) => {
    const words = new Uint32Array(4);
    expect(addressParse(text, words, 0)).toBe(true);
    expect(addressText(words, 0)).toBe(text);
  });

  it.each([
    ['2001:0DB8:0:0:0:0:2:1', '2001:db8::2:1'],
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'],
    ['0:0:0:0:0:0:0:0', '::'],
    ['1:0:0:0:0:0:0:0', '1::'],
    ['::ffff:7f00:1', '::ffff:127.0.0.1'],
    ['127.0.0.1', '::ffff:127.0.0.1'],
  ])('%s as IPv6 is %s', (written, text) => {
    const words = new Uint32Array(4);
    expect(addressParse(written, words, 0)).toBe(true);
    expect(ipv6Text(words, 0)).toBe(text);
  });

  it('any IPv6 text: the value that SocketAddress gives', () => {
    fc.assert(
      fc.property(sparse, (groups) => {
        const node = new SocketAddress({
          family: 'ipv6',
          address: groups.map((g) => g.toString(16)).join(':'),
        });
        const words = Uint32Array.from(parse(node.address)!);
        expect(parse(ipv6Text(words, 0))).toEqual(Array.from(words));
        expect(Array.from(words)).toEqual(
          [0, 2, 4, 6].map((i) => ((groups[i]! << 16) | groups[i + 1]!) >>> 0),
        );
      }),
    );
  });

  it('parse(text(x)) = x', () => {
    fc.assert(
      fc.property(sparse, (groups) => {
        const words = Uint32Array.from(
          [0, 1, 2, 3],
          (i) => ((groups[2 * i]! << 16) | groups[2 * i + 1]!) >>> 0,
        );
        expect(parse(addressText(words, 0))).toEqual(Array.from(words));
      }),
    );
  });

  it('an IPv4 address: dotted decimal text', () => {
    fc.assert(
      fc.property(u32, (ipv4) => {
        const words = new Uint32Array(4).fill(9);
        addressSetIpv4(words, 0, ipv4);
        return isV4Mapped(words, 0) && isIP(addressText(words, 0)) === 4;
      }),
    );
  });
});

describe('kinds', () => {
  it.each<[string, string]>([
    ['127.0.0.1', 'loopback'],
    ['127.255.0.9', 'loopback'],
    ['::1', 'loopback'],
    ['224.0.0.251', 'multicast'],
    ['239.255.255.250', 'multicast'],
    ['ff02::1', 'multicast'],
    ['0.0.0.0', 'unspecified'],
    ['::', 'unspecified'],
    ['169.254.1.2', 'link-local'],
    ['fe80::1', 'link-local'],
    ['febf::1', 'link-local'],
    ['fec0::1', ''],
    ['128.0.0.1', ''],
    ['240.0.0.1', ''],
    ['169.255.0.1', ''],
    ['::2', ''],
    ['1::1', ''],
    ['::127.0.0.1', ''],
    ['8.8.8.8', ''],
  ])('%s is %s', (text, kind) => {
    const words = new Uint32Array(6);
    addressParse(text, words, 2);
    expect({
      loopback: isLoopback(words, 2),
      multicast: isMulticast(words, 2),
      unspecified: isUnspecified(words, 2),
      linkLocal: isLinkLocal(words, 2),
    }).toEqual({
      loopback: kind === 'loopback',
      multicast: kind === 'multicast',
      unspecified: kind === 'unspecified',
      linkLocal: kind === 'link-local',
    });
  });
});
