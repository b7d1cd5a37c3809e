// @vitest: beside
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { addressParse, addressText } from '../../src/proto/address.ts';
import {
  NAT64_BITS,
  type Nat64Prefix,
  nat64Equal,
  nat64Find,
  nat64Ipv4,
  nat64IsUsable,
  nat64Matches,
  nat64PrefixOf,
} from '../../src/proto/nat64.ts';

function addresses(...texts: string[]): Uint32Array {
  const words = new Uint32Array(4 * texts.length);
  texts.forEach((text, i) => {
    expect(addressParse(text, words, 4 * i), text).toBe(true);
  });
  return words;
}
const text = ({ words, bits }: Nat64Prefix): string => `${addressText(Uint32Array.from(words), 0)}/${bits}`;
const found = (...texts: string[]): string[] => nat64Find(addresses(...texts)).map(text);

/** The examples of RFC 6052 section 2.4, for 192.0.2.33. */
const EXAMPLES = [
  ['2001:db8::/32', '2001:db8:c000:221::'],
  ['2001:db8:100::/40', '2001:db8:1c0:2:21::'],
  ['2001:db8:122::/48', '2001:db8:122:c000:2:2100::'],
  ['2001:db8:122:300::/56', '2001:db8:122:3c0:0:221::'],
  ['2001:db8:122:344::/64', '2001:db8:122:344:c0:2:2100::'],
  ['2001:db8:122:344::/96', '2001:db8:122:344::192.0.2.33'],
  ['64:ff9b::/96', '64:ff9b::192.0.2.33'],
] as const;

describe('IPv4 addresses in IPv6 addresses', () => {
  it.each(EXAMPLES)('%s: %s', (prefix, address) => {
    const words = addresses(address);
    const bits = Number(prefix.split('/')[1]);
    expect(nat64Ipv4(words, 0, bits)).toBe(0xc0000221);
    expect(text(nat64PrefixOf(words, 0, bits))).toBe(prefix);
  });
});

/** The address of RFC 6052 section 2.2, written octet by octet. */
function embed(prefix: Uint8Array, bits: number, ipv4: readonly number[]): Uint32Array {
  const octets = new Uint8Array(16);
  octets.set(prefix.subarray(0, bits / 8));
  let at = bits / 8;
  for (const octet of ipv4) {
    if (at === 8) at++;
    octets[at++] = octet;
  }
  const view = new DataView(octets.buffer);
  return Uint32Array.from([0, 4, 8, 12].map((i) => view.getUint32(i)));
}
const prefixes = fc.uint8Array({ minLength: 12, maxLength: 12 }).map((octets) => {
  octets[0] = 0x20 | (octets[0]! & 0x1f);
  octets[8] = 0;
  return octets;
});
const lengths = fc.constantFrom(...NAT64_BITS);
const ipv4s = fc.tuple(fc.nat(255), fc.nat(255), fc.nat(255), fc.nat(255));

it('every IPv4 address comes out of every prefix, which the address matches', () => {
  fc.assert(
    fc.property(prefixes, lengths, ipv4s, (octets, bits, ipv4) => {
      const words = embed(octets, bits, ipv4);
      expect(nat64Ipv4(words, 0, bits)).toBe(new DataView(Uint8Array.from(ipv4).buffer).getUint32(0));
      const prefix = nat64PrefixOf(words, 0, bits);
      expect(nat64Matches(words, 0, prefix.words, 0, bits)).toBe(true);
      const other = Uint32Array.from(words);
      other[Math.floor((bits - 1) / 32)]! ^= 1 << ((128 - bits) % 32);
      expect(nat64Matches(other, 0, prefix.words, 0, bits)).toBe(false);
    }),
  );
});

describe('nat64Find', () => {
  it('prefixes of all lengths, several of them, each once', () => {
    expect(found('64:ff9b::c000:aa', '64:ff9b::c000:ab')).toEqual(['64:ff9b::/96']);
    for (const [prefix, address] of [
      ['2001:db8::/32', '2001:db8:c000:aa::'],
      ['2001:db8:100::/40', '2001:db8:1c0:0:aa::'],
      ['2001:db8:122::/48', '2001:db8:122:c000:0:aa00::'],
      ['2001:db8:122:300::/56', '2001:db8:122:3c0:0:aa::'],
      ['fd00:122:344:1::/64', 'fd00:122:344:1:c0:0:aa00::'],
      ['64:ff9b:1::/48', '64:ff9b:1:c000:0:aa00::'],
    ] as const)
      expect(found(address), prefix).toEqual([prefix]);
    expect(found('64:ff9b::c000:aa', '2001:db8:c000:ab::', '64:ff9b::c000:ab')).toEqual([
      '64:ff9b::/96',
      '2001:db8::/32',
    ]);
  });

  it('the second IPv4 address alone, and a suffix', () => {
    expect(found('64:ff9b::c000:ab')).toEqual(['64:ff9b::/96']);
    expect(found('2001:db8:122:344:c0:0:aa12:3456')).toEqual(['2001:db8:122:344::/64']);
  });

  it.each([
    '2001:db8::1',
    '64:ff9b::c000:ac',
    '::ffff:192.0.0.170',
    'fe80::c000:aa',
    'ff02::c000:aa',
    '::c000:aa',
  ])('none: %s', (address) => {
    expect(found(address)).toEqual([]);
  });

  it('bits 64 to 71 are not 0: only /96 counts', () => {
    expect(found('2001:db8:c000:aa:100::')).toEqual([]);
    expect(found('2001:db8:0:0:100:0:c000:aa')).toEqual(['2001:db8:0:0:100::/96']);
  });

  it('an IPv4 address in the prefix itself: the place where both records differ counts', () => {
    expect(found('2001:db8:c000:aa::c000:aa', '2001:db8:c000:aa::c000:ab')).toEqual([
      '2001:db8:c000:aa::/96',
    ]);
    expect(found('2001:db8:c000:aa::c000:aa'), 'ambiguous').toEqual([]);
  });

  it('the records of any prefix yield it', () => {
    fc.assert(
      fc.property(prefixes, lengths, (octets, bits) => {
        const [first, second] = [170, 171].map((last) => embed(octets, bits, [192, 0, 0, last]));
        const result = nat64Find(Uint32Array.from([...first!, ...second!]));
        const prefix = nat64PrefixOf(first!, 0, bits);
        expect(result.some((one) => nat64Equal(one, prefix))).toBe(true);
      }),
    );
  });

  it('any addresses: usable prefixes that the addresses have', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 16, maxLength: 64 }), (octets) => {
        const words = Uint32Array.from(octets, (octet) => (octet < 128 ? 0xc00000aa : octet << 24) >>> 0);
        for (const prefix of nat64Find(words)) expect(nat64IsUsable(prefix)).toBe(true);
      }),
    );
  });
});
