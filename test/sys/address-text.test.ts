// @vitest: beside
import { isIP, SocketAddress } from 'node:net';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { addressFormat, addressParse, familyOf } from '../../src/sys/address-text.ts';
import { AF_INET, AF_INET6 } from '../../src/sys/constants.ts';

const canonical = (text: string): string => addressFormat(addressParse(text), 0, familyOf(text));

describe('address text', () => {
  it('IPv4', () => {
    expect([...addressParse('192.0.2.255')]).toEqual([192, 0, 2, 255]);
    expect(canonical('10.0.2.100')).toBe('10.0.2.100');
    expect(familyOf('1.2.3.4')).toBe(AF_INET);
  });

  it('IPv6, every form of writing (RFC 4291 section 2.2)', () => {
    expect([...addressParse('2001:db8::8:800:200c:417a')]).toEqual([
      0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 8, 8, 0, 0x20, 0x0c, 0x41, 0x7a,
    ]);
    expect([...addressParse('::')]).toEqual(new Array(16).fill(0));
    expect([...addressParse('::1')]).toEqual([...new Array(15).fill(0), 1]);
    expect([...addressParse('fe80::')].slice(0, 3)).toEqual([0xfe, 0x80, 0]);
    expect([...addressParse('::ffff:129.144.52.38')].slice(10)).toEqual([0xff, 0xff, 129, 144, 52, 38]);
    expect([...addressParse('64:ff9b::192.0.2.33')].slice(-4)).toEqual([192, 0, 2, 33]);
  });

  it('the canonical text (RFC 5952 section 4)', () => {
    expect(canonical('2001:0DB8:0:0:0:0:2:1')).toBe('2001:db8::2:1');
    expect(canonical('2001:db8:0:1:1:1:1:1')).toBe('2001:db8:0:1:1:1:1:1');
    expect(canonical('2001:0:0:1:0:0:0:1')).toBe('2001:0:0:1::1');
    expect(canonical('2001:db8:0:0:1:0:0:1')).toBe('2001:db8::1:0:0:1');
    expect(canonical('0:0:0:0:0:0:0:0')).toBe('::');
    expect(canonical('::ffff:7f00:1')).toBe('::ffff:127.0.0.1');
    expect(canonical('1:0:0:0:0:0:0:0')).toBe('1::');
  });

  it('refuses what is no address', () => {
    for (const text of ['', '1.2.3', '256.1.1.1', '::g', '1::2::3', 'fe80::1%eth0', 'localhost']) {
      expect(() => addressParse(text)).toThrow(RangeError);
    }
  });

  it('takes what Node takes, whatever is written', () => {
    const piece = fc.constantFrom(
      ':',
      '::',
      '.',
      '0',
      '1',
      '01',
      '255',
      '256',
      'fFff',
      '12345',
      'g',
      '1.2.3.4',
      '',
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 17 }), (pieces) => {
        const text = pieces.join('');
        const family = isIP(text);
        if (family === 0) expect(() => familyOf(text)).toThrow(RangeError);
        else expect(familyOf(text)).toBe(family === 4 ? AF_INET : AF_INET6);
      }),
      { numRuns: 2000 },
    );
  });

  it('agrees with Node on any bytes, and round trips', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), fc.nat(0xffff), (bytes, holes) => {
        for (let i = 0; i < 16; i++) if ((holes >> i) & 1) bytes[i] = 0;
        const text = addressFormat(bytes, 0, AF_INET6);
        expect(addressParse(text)).toEqual(bytes);
        const node = new SocketAddress({ family: 'ipv6', address: text }).address;
        expect(addressParse(node)).toEqual(bytes);
      }),
    );
  });
});
