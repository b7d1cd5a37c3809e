// @vitest: beside
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { addressParse, addressWrite } from '../../src/proto/address.ts';
import { Drop } from '../../src/proto/drop.ts';
import {
  IPV6_BYTES,
  IPV6_DST,
  IPV6_OUT_WORDS,
  IPV6_SRC,
  Ipv6Out,
  ipv6HeaderBytes,
  ipv6HopLimit,
  ipv6JumboWrite,
  ipv6NextHeader,
  ipv6PayloadLen,
  ipv6TrafficClass,
  ipv6TrafficClassWrite,
  ipv6Upper,
  ipv6Write,
} from '../../src/proto/ipv6.ts';
import { ipv6FlowLabel } from './fields.ts';
import { FRAME_AT as AT, poolWith, readsOnlyItsFrame, slice, u8, wire } from './vector.ts';

const addresses = `
  fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 64   // src fd00::64
  20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01   // dst 2001:db8::1
`;
const udp = wire(`
  60 0a bc de        // version 6, traffic class 0, flowLabel 0xabcde
  00 08 11 40        // payloadLen 8, nextHeader 17 (UDP), hopLimit 64
  ${addresses}
  00 35 04 00 00 08 00 00
`);
const extended = wire(`
  60 00 00 00
  00 30 00 ff        // payloadLen 48, nextHeader 0 (hop-by-hop), hopLimit 255
  ${addresses}
  3c 00 05 02 00 00 01 00    // next 60 (destination options), 8 bytes: router alert, PadN
  2b 01 01 0c                // next 43 (routing), 16 bytes: PadN 12
  00 00 00 00 00 00 00 00 00 00 00 00
  06 00 00 00 00 00 00 00    // next 6 (TCP), 8 bytes, routing type 0, segments left 0
  11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff 00    // upper layer
`);
const fragmented = wire(`
  60 00 00 00
  00 20 3c 40        // payloadLen 32, nextHeader 60 (destination options)
  ${addresses}
  2c 00 01 04 00 00 00 00    // next 44 (fragment), 8 bytes
  11 00 05 a9 de ad be ef    // next 17 (UDP), offset 0x5a8 = 1448, more fragments, ident 0xdeadbeef
  00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f
`);

function read(pool: Uint8Array, at: number, bytes: number): unknown {
  const headerBytes = ipv6HeaderBytes(pool, at, bytes);
  if (headerBytes < 0) return headerBytes;
  const out = new Int32Array(IPV6_OUT_WORDS);
  const result = ipv6Upper(pool, at, bytes, out);
  return [
    headerBytes,
    ipv6PayloadLen(pool, at),
    ipv6NextHeader(pool, at),
    ipv6HopLimit(pool, at),
    ipv6FlowLabel(pool, at),
    result,
    result < 0 ? null : Array.from(out),
  ];
}

describe('ipv6HeaderBytes', () => {
  it('accepts a header, also with padding after the payload', () => {
    expect(ipv6HeaderBytes(poolWith(udp), AT, 48)).toBe(IPV6_BYTES);
    expect(ipv6HeaderBytes(poolWith(udp), AT, 60)).toBe(IPV6_BYTES);
  });

  it.each<[string, (p: Uint8Array) => void, number, number]>([
    ['39 bytes', () => {}, 39, Drop.short],
    ['version 4', (p) => (p[0] = 0x45), 48, Drop.ipVersion],
    ['payloadLen beyond the frame', () => {}, 47, Drop.ipv6PayloadLen],
    ['a jumbogram', (p) => p.set([0, 0, 0], 4), 48, Drop.ipv6PayloadLen],
    [
      'a v4-mapped destination',
      (p) => p.set(wire('00000000 00000000 0000ffff 7f000001'), IPV6_DST),
      48,
      Drop.ipv6Address,
    ],
    [
      'a v4-mapped source',
      (p) => p.set(wire('00000000 00000000 0000ffff 7f000001'), IPV6_SRC),
      48,
      Drop.ipv6Address,
    ],
    ['a multicast source', (p) => (p[IPV6_SRC] = 0xff), 48, Drop.ipv6Address],
  ])('drops %s', (_name, spoil, avail, drop) => {
    const spoilt = Uint8Array.from(udp);
    spoil(spoilt);
    expect(ipv6HeaderBytes(poolWith(spoilt), AT, avail)).toBe(drop);
  });

  it('accepts the unspecified source, as of duplicate address detection', () => {
    const probe = Uint8Array.from(udp).fill(0, IPV6_SRC, IPV6_DST);
    expect(ipv6HeaderBytes(poolWith(probe), AT, 48)).toBe(IPV6_BYTES);
  });
});

it('ipv6TrafficClassWrite: flow label and the rest stay', () => {
  const pool = new Uint8Array(100);
  ipv6Write(pool, AT, 100, 17, 64, 0xabcde);
  ipv6TrafficClassWrite(pool, AT, 0xb9);
  expect(Array.from(pool.subarray(AT, AT + 8))).toEqual([0x6b, 0x9a, 0xbc, 0xde, 0, 100, 17, 64]);
  expect(ipv6TrafficClass(pool, AT)).toBe(0xb9);
  ipv6TrafficClassWrite(pool, AT, 0);
  expect(ipv6TrafficClass(pool, AT)).toBe(0);
});

it('ipv6JumboWrite: hop-by-hop options header with the Jumbo Payload option alone', () => {
  const pool = new Uint8Array(10).fill(0xee);
  ipv6JumboWrite(pool, 1, 6, 0x0003f0a8);
  expect([...pool]).toEqual([
    0xee,
    ...wire(`
      06 00         // next header 6 (TCP), 8 bytes in all
      c2 04         // RFC 2675 section 2: type 194, 4 bytes
      00 03 f0 a8   // 258,216 bytes behind the fixed header
    `),
    0xee,
  ]);
});

describe('ipv6Upper', () => {
  const upper = (frame: Uint8Array): number | Record<string, number> => {
    const out = new Int32Array(IPV6_OUT_WORDS).fill(77);
    const result = ipv6Upper(poolWith(frame), AT, frame.length, out);
    return result < 0
      ? result
      : Object.fromEntries(Object.entries(Ipv6Out).map(([name, i]) => [name, out[i]!]));
  };
  const plain = { fragmentAt: -1, fragmentOffset: 0, moreFragments: 0, ident: 0 };

  it('no extension header', () => {
    expect(upper(udp)).toEqual({ ...plain, protocol: 17, upperAt: 40, nextHeaderAt: 6 });
  });

  it('hop-by-hop, destination options and routing', () => {
    expect(upper(extended)).toEqual({ ...plain, protocol: 6, upperAt: 72, nextHeaderAt: 64 });
  });

  it('a fragment header: its offset and that of the next-header byte before it', () => {
    expect(upper(fragmented)).toEqual({
      protocol: 17,
      upperAt: 56,
      fragmentAt: 48,
      fragmentOffset: 1448,
      moreFragments: 1,
      ident: 0xdeadbeef | 0,
      nextHeaderAt: 40,
    });
  });

  it.each<[string, Uint8Array, (p: Uint8Array) => void, number]>([
    ['an extension header past the payload', extended, (p) => (p[41] = 200), Drop.ipv6Extension],
    ['an extension header cut by the payload length', extended, (p) => (p[5] = 12), Drop.ipv6Extension],
    [
      'an upper header that would begin past the payload',
      extended,
      (p) => p.set([6, 20], 40),
      Drop.ipv6Extension,
    ],
    ['hop-by-hop that is not first', extended, (p) => (p[48] = 0), Drop.ipv6Extension],
    ['no next header', udp, (p) => (p[6] = 59), Drop.ipv6Extension],
    ['a fragment header cut short', fragmented, (p) => (p[5] = 15), Drop.ipv6Extension],
    ['a middle fragment of 15 bytes', fragmented, (p) => (p[5] = 31), Drop.fragment],
    ['a fragment past 65535', fragmented, (p) => p.set([0xff, 0xf1], 50), Drop.fragment],
  ])('drops %s', (_name, frame, spoil, drop) => {
    const spoilt = Uint8Array.from(frame);
    spoil(spoilt);
    expect(upper(spoilt)).toBe(drop);
  });

  const chain = (count: number, units: number): Uint8Array => {
    const frame = new Uint8Array(40 + count * 8 * (units + 1) + 8);
    frame.set(udp.subarray(0, 40));
    new DataView(frame.buffer).setUint16(4, frame.length - 40);
    frame[6] = 60;
    for (let i = 0; i < count; i++) {
      frame[40 + i * 8 * (units + 1)] = i === count - 1 ? 17 : 60;
      frame[41 + i * 8 * (units + 1)] = units;
    }
    return frame;
  };

  it('eight extension headers: accepted; nine: dropped', () => {
    expect(upper(chain(8, 0))).toMatchObject({ protocol: 17, upperAt: 104, nextHeaderAt: 96 });
    expect(upper(chain(9, 0))).toBe(Drop.ipv6Extension);
  });

  it('512 bytes of extension headers: accepted; more: dropped', () => {
    expect(upper(chain(2, 31))).toMatchObject({ protocol: 17, upperAt: 552 });
    expect(upper(chain(1, 64))).toBe(Drop.ipv6Extension);
  });

  it('any packet: an accepted upper header lies within the payload', () => {
    const out = new Int32Array(IPV6_OUT_WORDS);
    readsOnlyItsFrame([extended, fragmented, chain(3, 2)], (pool, at, bytes) => {
      if (ipv6HeaderBytes(pool, at, bytes) < 0 || ipv6Upper(pool, at, bytes, out) < 0) return null;
      const upperAt = out[Ipv6Out.upperAt]!;
      expect(upperAt).toBeGreaterThanOrEqual(IPV6_BYTES);
      expect(upperAt).toBeLessThanOrEqual(IPV6_BYTES + ipv6PayloadLen(pool, at));
      expect(out[Ipv6Out.nextHeaderAt]!).toBeLessThan(upperAt);
      return Array.from(out);
    });
  });
});

it('ipv6Write and the addresses write the vector', () => {
  const pool = poolWith(new Uint8Array(40));
  const words = new Uint32Array(8);
  addressParse('fd00::64', words, 0);
  addressParse('2001:db8::1', words, 4);
  ipv6Write(pool, AT, 8, 17, 64, 0xabcde);
  addressWrite(pool, AT + IPV6_SRC, words, 0);
  addressWrite(pool, AT + IPV6_DST, words, 4);
  expect(slice(pool, AT, 40)).toEqual(udp.subarray(0, 40));
});

it('decode(encode(x)) = x', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 65535 }),
      u8,
      u8,
      fc.nat(0xfffff),
      (payloadLen, next, hopLimit, label) => {
        const pool = poolWith(udp);
        ipv6Write(pool, AT, payloadLen, next, hopLimit, label);
        expect(ipv6HeaderBytes(pool, AT, 40 + payloadLen)).toBe(IPV6_BYTES);
        expect([
          ipv6PayloadLen(pool, AT),
          ipv6NextHeader(pool, AT),
          ipv6HopLimit(pool, AT),
          ipv6FlowLabel(pool, AT),
        ]).toEqual([payloadLen, next, hopLimit, label]);
        expect(slice(pool, AT + 8, 32)).toEqual(udp.slice(8, 40));
      },
    ),
  );
});

it('never reads outside its frame', () => {
  const endsInChain = extended.slice(0, 48); // hop-by-hop header whose options are missing
  endsInChain[5] = 8;
  readsOnlyItsFrame([udp, extended, fragmented, endsInChain], read);
});
