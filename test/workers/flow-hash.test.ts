// @vitest: beside
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { flowHash, halfSipHash13, shardOf } from '../../src/workers/flow/flow-hash.ts';

/**
 * HalfSipHash-1-3, 32 bits out, key 00 01 .. 07, message 00 01 .. n-1, for n = 0 .. 63: the Linux kernel's
 * self-test vectors (test_vectors_hsiphash of a 32-bit build).
 */
const VECTORS = [
  0x5814c896, 0xe7e864ca, 0xbc4b0e30, 0x01539939, 0x7e059ea6, 0x88e3d89b, 0xa0080b65, 0x9d38d9d6, 0x577999b1,
  0xc839caed, 0xe4fa32cf, 0x959246ee, 0x6b28096c, 0x66dd9cd6, 0x16658a7c, 0xd0257b04, 0x8b31d501, 0x2b1cd04b,
  0x06712339, 0x522aca67, 0x911bb605, 0x90a65f0e, 0xf826ef7b, 0x62512deb, 0x57150ad7, 0x5d473507, 0x1ec47442,
  0xab64afd3, 0x0a4100d0, 0x6d2ce652, 0x2331b6a3, 0x08d8791a, 0xbc6dda8d, 0xe0f6c934, 0xb0652033, 0x9b9851cc,
  0x7c46fb7f, 0x732ba8cb, 0xf142997a, 0xfcc9aa1b, 0x05327eb2, 0xe110131c, 0xf9e5e7c0, 0xa7d708a6, 0x11795ab1,
  0x65671619, 0x9f5fff91, 0xd89c5267, 0x007783eb, 0x95766243, 0xab639262, 0x9c7e1390, 0xc368dda6, 0x38ddc455,
  0xfa13d379, 0x979ea4e8, 0x53ecd77e, 0x2ee80657, 0x33dbb66a, 0xae3f0577, 0x88b4c4cc, 0x3e7f480b, 0x74c1ebf8,
  0x87178304,
];
const K0 = 0x03020100;
const K1 = 0x07060504;

/** The little-endian word of message bytes i .. i+3. */
const messageWord = (i: number): number => (i | ((i + 1) << 8) | ((i + 2) << 16) | ((i + 3) << 24)) >>> 0;

describe('halfSipHash13', () => {
  it.each(VECTORS.map((expected, n) => [n, expected]))('vector of %i bytes', (n, expected) => {
    const words = new Int32Array(16);
    const wordCount = n >>> 2;
    for (let i = 0; i < wordCount; i++) words[i] = messageWord(i * 4);
    let last = n << 24;
    for (let i = wordCount * 4, shift = 0; i < n; i++, shift += 8) last |= i << shift;
    expect(halfSipHash13(K0, K1, words, wordCount, last)).toBe(expected);
  });
});

describe('flowHash', () => {
  it('IPv4: equals the 13-byte vector', () => {
    const a = Uint32Array.of(0, 0, 0xffff, messageWord(0));
    const b = Uint32Array.of(0, 0, 0xffff, messageWord(4));
    expect(flowHash([K0, K1], a, 0, b, 0, messageWord(8), 12)).toBe(VECTORS[13]);
  });

  it('IPv6: equals the 37-byte vector', () => {
    const words = Uint32Array.from({ length: 8 }, (_, i) => messageWord(i * 4));
    expect(flowHash([K0, K1], words, 0, words, 4, messageWord(32), 36)).toBe(VECTORS[37]);
  });

  it('one address v4-mapped, the other IPv6: hashed as IPv6', () => {
    const v4 = Uint32Array.of(0, 0, 0xffff, 0x0a000001);
    const v6 = Uint32Array.of(0, 1, 0xffff, 0x0a000001);
    expect(flowHash([1, 2], v4, 0, v6, 0, 80, 6)).not.toBe(flowHash([1, 2], v4, 0, v4, 0, 80, 6));
    expect(flowHash([1, 2], v6, 0, v4, 0, 80, 6)).not.toBe(flowHash([1, 2], v4, 0, v4, 0, 80, 6));
  });

  it('any word of key or flow changed: another hash', () => {
    const u32 = fc.nat(0xffffffff);
    fc.assert(
      fc.property(fc.array(u32, { minLength: 11, maxLength: 11 }), fc.nat(11), u32, (w, which, delta) => {
        const hashOf = (x: number[]): number =>
          flowHash([x[8]!, x[9]!], Uint32Array.from(x), 0, Uint32Array.from(x), 4, x[10]!, x[11] ?? 6);
        const other = [...w, 17];
        if (which < 11) other[which] = (other[which]! ^ (delta | 1)) >>> 0;
        if (which < 11) other[11] = 6;
        expect(hashOf(other)).not.toBe(hashOf(w)); // 2^-32 a run to be wrong
      }),
      { numRuns: 300 },
    );
  });
});

describe('shardOf', () => {
  it('any hash: a shard in range; many hashes: evenly spread', () => {
    for (const shards of [1, 2, 3, 7, 64]) {
      expect(shardOf(0, shards)).toBe(0);
      expect(shardOf(0xffffffff, shards)).toBe(shards - 1);
    }
    const guest = Uint32Array.of(0, 0, 0xffff, 0x0a000002);
    const remote = Uint32Array.of(0, 0, 0xffff, 0xc0000201);
    const counts = [0, 0, 0];
    for (let port = 0; port < 30_000; port++) {
      counts[shardOf(flowHash([7, 11], guest, 0, remote, 0, ((port << 16) | 443) >>> 0, 6), 3)]!++;
    }
    for (const count of counts) expect(Math.abs(count - 10_000)).toBeLessThan(500);
  });
});
