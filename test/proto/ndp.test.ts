// @vitest: beside
import { describe, expect, it } from 'vitest';
import { addressParse } from '../../src/proto/address.ts';
import { Drop } from '../../src/proto/drop.ts';
import {
  NdpNaFlag,
  NdpOption,
  ndpCheck,
  ndpNaWrite,
  ndpNsWrite,
  ndpRaWrite,
  type RouterAdvertisement,
} from '../../src/proto/ndp.ts';
import { ndpOptionAt } from './fields.ts';
import { FRAME_AT as AT, poolWith, readsOnlyItsFrame, slice, wire } from './vector.ts';

const ours = wire('9a 55 9a 55 9a 55');
const address = (text: string): Uint32Array => {
  const words = new Uint32Array(4);
  expect(addressParse(text, words, 0), text).toBe(true);
  return words;
};

const solicitation = wire(`
  87 00 00 00 00 00 00 00                           // type 135, code 0, checksum, reserved
  fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 02   // target fd00::2
  01 01 02 00 5e 10 00 00                           // source link-layer option, 8 bytes
`);
const routerSolicitation = wire(`
  85 00 00 00 00 00 00 00                           // type 133, code 0, checksum, reserved
  01 01 02 00 5e 10 00 00                           // source link-layer option
`);

describe('ndpCheck', () => {
  it('accepts NS with and without option, and RS', () => {
    const pool = poolWith(solicitation);
    expect(ndpCheck(pool, AT, 32, 255)).toBe(0);
    expect(ndpCheck(pool, AT, 24, 255)).toBe(0);
    expect(ndpCheck(poolWith(routerSolicitation), AT, 16, 255)).toBe(0);
    expect(ndpCheck(poolWith(routerSolicitation), AT, 8, 255)).toBe(0);
  });

  it.each<[string, (p: Uint8Array) => void, number, number, number]>([
    ['hop limit 254', () => {}, 32, 254, Drop.ndpHopLimit],
    ['7 bytes', () => {}, 7, 255, Drop.short],
    ['an NS of 23 bytes', () => {}, 23, 255, Drop.short],
    ['code 1', (p) => (p[1] = 1), 32, 255, Drop.ndpCode],
    ['an echo request', (p) => (p[0] = 128), 32, 255, Drop.ndpCode],
    ['a multicast target', (p) => (p[8] = 0xff), 32, 255, Drop.ndpTarget],
    ['an option of length 0', (p) => (p[25] = 0), 32, 255, Drop.ndpOption],
    ['an option past the end', (p) => (p[25] = 2), 32, 255, Drop.ndpOption],
    ['an option cut short', () => {}, 31, 255, Drop.ndpOption],
  ])('drops %s', (_name, spoil, bytes, hopLimit, drop) => {
    const spoilt = Uint8Array.from(solicitation);
    spoil(spoilt);
    expect(ndpCheck(poolWith(spoilt), AT, bytes, hopLimit)).toBe(drop);
  });
});

it('ndpOptionAt: finds an option after others; returns 0 if there is none', () => {
  const message = Uint8Array.from([...solicitation, ...wire('0e 01 01 02 03 04 05 06')]);
  const pool = poolWith(message);
  expect(ndpOptionAt(pool, AT, 40, NdpOption.sourceLinkLayer)).toBe(24);
  expect(ndpOptionAt(pool, AT, 40, 14)).toBe(32);
  expect(ndpOptionAt(pool, AT, 32, 14)).toBe(0);
  expect(ndpOptionAt(pool, AT, 40, NdpOption.mtu)).toBe(0);
  expect(slice(pool, AT + 24 + 2, 6)).toEqual(wire('02 00 5e 10 00 00'));
});

it('never reads outside its frame', () => {
  readsOnlyItsFrame([solicitation, routerSolicitation], (pool, at, bytes) => {
    const result = ndpCheck(pool, at, bytes, 255);
    return result < 0 ? result : [1, 3, 14].map((type) => ndpOptionAt(pool, at, bytes, type));
  });
});

describe('neighbour messages', () => {
  it('ndpNaWrite writes an advertisement', () => {
    const pool = poolWith(new Uint8Array(32));
    const flags = NdpNaFlag.router | NdpNaFlag.solicited | NdpNaFlag.override;
    expect(ndpNaWrite(pool, AT, address('fd00::2'), 0, ours, flags)).toBe(32);
    expect(slice(pool, AT, 32)).toEqual(
      wire(`
        88 00 00 00                                       // type 136, code 0, checksum
        e0 00 00 00                                       // R S O
        fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 02   // target
        02 01 9a 55 9a 55 9a 55                           // target link-layer option
      `),
    );
  });
});

it('ndpNsWrite writes a solicitation', () => {
  const pool = poolWith(new Uint8Array(32));
  expect(ndpNsWrite(pool, AT, address('fd00::2'), 0, wire('02 00 5e 10 00 00'))).toBe(32);
  expect(slice(pool, AT, 32)).toEqual(solicitation);
});

describe('ndpRaWrite', () => {
  const full: RouterAdvertisement = {
    mac: ours,
    hopLimit: 255,
    managed: true,
    other: false,
    routerLifetimeS: 65535,
    mtu: 65520,
    prefix: { words: address('fd00::'), bits: 64, autonomous: true },
    dns: Uint32Array.from([...address('fd00::3'), ...address('2001:db8::53')]),
    search: ['example.org', 'b.c'],
  };

  it('all options: the annotated bytes', () => {
    const pool = poolWith(new Uint8Array(400));
    const bytes = ndpRaWrite(pool, AT, full);
    expect(slice(pool, AT, bytes)).toEqual(
      wire(`
        86 00 00 00                                       // type 134, code 0, checksum
        ff 80 ff ff                                       // hop limit 255, M, router lifetime 65535 s
        00 00 00 00 00 00 00 00                           // reachable time, retransmission timer: unspecified
        01 01 9a 55 9a 55 9a 55                           // source link-layer option
        05 01 00 00 00 00 ff f0                           // MTU 65520
        03 04 40 c0 ff ff ff ff ff ff ff ff 00 00 00 00   // prefix /64, L A, infinite lifetimes
        fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00   // fd00::
        19 05 00 00 ff ff ff ff                           // RDNSS, 40 bytes, infinite lifetime
        fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 03
        20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 53
        1f 04 00 00 ff ff ff ff                           // DNSSL, 32 bytes, infinite lifetime
        07 65 78 61 6d 70 6c 65 03 6f 72 67 00            // example.org
        01 62 01 63 00                                    // b.c
        00 00 00 00 00 00                                 // padding
      `),
    );
    expect(ndpCheck(pool, AT, bytes, 255)).toBe(0);
  });

  it('no options: the annotated bytes', () => {
    const pool = poolWith(new Uint8Array(100));
    const bytes = ndpRaWrite(pool, AT, {
      mac: ours,
      hopLimit: 0,
      managed: false,
      other: true,
      routerLifetimeS: 0,
      mtu: 0,
      search: [],
      dns: new Uint32Array(0),
    });
    expect(slice(pool, AT, bytes)).toEqual(
      wire('86 00 00 00 00 40 00 00 00 00 00 00 00 00 00 00 01 01 9a 55 9a 55 9a 55'),
    );
  });

  it('NAT64 prefixes: the annotated bytes', () => {
    const pool = poolWith(new Uint8Array(400));
    const plain = ndpRaWrite(pool, AT, full);
    const of = (text: string, bits: number, lifetimeS: number) => {
      const [a, b, c, d] = address(text) as unknown as [number, number, number, number];
      return { words: [a, b, c, d] as const, bits, lifetimeS };
    };
    const pref64 = [
      of('64:ff9b::', 96, 65_528),
      of('2001:db8:122:344::', 64, 1800),
      of('2001:db8:122:300::', 56, 1),
      of('2001:db8:122::', 48, 0),
      of('2001:db8:100::', 40, 8),
      of('2001:db8::', 32, 1_000_000),
    ];
    const bytes = ndpRaWrite(pool, AT, { ...full, pref64 });
    expect(slice(pool, AT + plain, bytes - plain)).toEqual(
      wire(`
        26 02 ff f8 00 64 ff 9b 00 00 00 00 00 00 00 00   // 16 bytes, 8191 times 8 s, code 0: /96
        26 02 07 09 20 01 0d b8 01 22 03 44 00 00 00 00   // 225 times 8 s, code 1: /64
        26 02 00 0a 20 01 0d b8 01 22 03 00 00 00 00 00   // 1 s rounded up to 8, code 2: /56
        26 02 00 03 20 01 0d b8 01 22 00 00 00 00 00 00   // no longer, code 3: /48
        26 02 00 0c 20 01 0d b8 01 00 00 00 00 00 00 00   // 8 s, code 4: /40
        26 02 ff fd 20 01 0d b8 00 00 00 00 00 00 00 00   // the greatest, code 5: /32
      `),
    );
    expect(ndpCheck(pool, AT, bytes, 255)).toBe(0);
    expect(ndpRaWrite(pool, AT, { ...full, pref64 }, plain + 40), 'as many as fit').toBe(plain + 32);
  });

  it('options do not fit: left out whole, the search list first', () => {
    const pool = poolWith(new Uint8Array(400));
    const found = (limit: number): boolean[] => {
      const bytes = ndpRaWrite(pool, AT, full, limit);
      expect(bytes).toBeLessThanOrEqual(limit);
      return [NdpOption.rdnss, NdpOption.dnssl].map((type) => ndpOptionAt(pool, AT, bytes, type) !== 0);
    };
    expect(found(136)).toEqual([true, true]);
    expect(found(135)).toEqual([true, false]);
    expect(found(104)).toEqual([true, false]);
    expect(found(103)).toEqual([false, true]);
    expect(found(64)).toEqual([false, false]);
  });

  it('malformed names: left out', () => {
    const pool = poolWith(new Uint8Array(1400));
    const { dns: _, ...noDns } = full;
    const search = ['', '.', 'a..b', 'x'.repeat(64), 'white space', `${'a.'.repeat(130)}b`, 'ok.example.'];
    const bytes = ndpRaWrite(pool, AT, { ...noDns, search });
    const option = ndpOptionAt(pool, AT, bytes, NdpOption.dnssl);
    expect(slice(pool, AT + option + 8, 12)).toEqual(wire('02 6f 6b 07 65 78 61 6d 70 6c 65 00'));
    expect(bytes - option).toBe(24);
  });
});
