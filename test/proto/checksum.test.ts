// @vitest: beside
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readU16, readU32, writeU16, writeU32 } from '../../src/proto/be.ts';
import {
  checksumUpdate16,
  finishSum,
  foldSum,
  onesSum,
  onesSumPieces,
  pseudoSum4,
  pseudoSum6At,
} from '../../src/proto/checksum.ts';
import { FRAME_AT, poolWith, u16, u32, wire } from './vector.ts';

/** RFC 1071 section 4.1, word by word, the carry added at once. */
function naive(bytes: ArrayLike<number>, sum = 0): number {
  let folded = sum % 65535;
  if (sum > 0 && folded === 0) folded = 65535;
  for (let i = 0; i < bytes.length; i += 2) {
    folded += (bytes[i]! << 8) | (i + 1 < bytes.length ? bytes[i + 1]! : 0);
    if (folded > 0xffff) folded -= 0xffff;
  }
  return folded;
}

describe('big-endian access', () => {
  it('read(write(x)) = x, unsigned, other bytes unchanged', () => {
    fc.assert(
      fc.property(u16, u32, (short, long) => {
        const pool = new Uint8Array(9).fill(0x77);
        writeU16(pool, 1, short);
        writeU32(pool, 4, long);
        return (
          readU16(pool, 1) === short &&
          readU32(pool, 4) === long &&
          pool[0] === 0x77 &&
          pool[3] === 0x77 &&
          pool[8] === 0x77
        );
      }),
    );
    expect(Array.from(wire('80 00 00 01'))).toEqual([0x80, 0, 0, 1]);
    expect(readU32(wire('80 00 00 01'), 0)).toBe(0x80000001);
  });
});

describe('onesSum', () => {
  it('the example of RFC 1071 section 3', () => {
    const pool = wire('00 01 f2 03 f4 f5 f6 f7');
    expect(foldSum(onesSum(pool, 0, 8, 0))).toBe(0xddf2);
    expect(finishSum(onesSum(pool, 0, 8, 0))).toBe(0x220d);
  });

  it('an IPv4 header with its checksum: the sum is 0', () => {
    const header = wire('45 00 00 73 00 00 40 00 40 11 b8 61 c0 a8 00 01 c0 a8 00 c7');
    expect(finishSum(onesSum(header, 0, 20, 0))).toBe(0);
  });

  it('equals the naive sum at any length, alignment and start value', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), u16, fc.nat(9), (bytes, sum, shift) => {
        const pool = new Uint8Array(bytes.length + 20).fill(0xee);
        pool.set(bytes, shift);
        expect(foldSum(onesSum(pool, shift, bytes.length, sum))).toBe(naive(bytes, sum));
      }),
      { numRuns: 500 },
    );
  });

  it.each([65535, 65536, 131072])('exact for %i bytes of 0xff, the largest possible sum', (length) => {
    const pool = new Uint8Array(length + 1).fill(0xff);
    expect(foldSum(onesSum(pool, 1, length, 0))).toBe(naive(pool.subarray(1)));
  });

  it('exact for 64 KiB of random bytes', () => {
    fc.assert(
      fc.property(fc.integer(), (seed) => {
        const pool = new Uint8Array(65536);
        let state = seed | 1;
        for (let i = 0; i < pool.length; i++) {
          state = Math.imul(state, 1664525) + 1013904223;
          pool[i] = state >>> 24;
        }
        return foldSum(onesSum(pool, 0, pool.length, 0)) === naive(pool);
      }),
      { numRuns: 10 },
    );
  });

  it('pieces of even lengths: their sum is that of the whole', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 2, maxLength: 200 }), fc.nat(), (bytes, cut) => {
        const first = (cut % bytes.length) & ~1;
        const pool = poolWith(bytes);
        const sum = onesSum(pool, FRAME_AT, first, 0);
        const pieces = onesSum(pool, FRAME_AT + first, bytes.length - first, sum);
        return finishSum(pieces) === finishSum(onesSum(pool, FRAME_AT, bytes.length, 0));
      }),
    );
  });

  it('onesSumPieces: pieces of any length: their sum is that of the whole', () => {
    let odd = 0;
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 2, maxLength: 200 }), fc.nat(), u16, (bytes, cut, start) => {
        const first = cut % bytes.length;
        odd += first & 1;
        const pool = new Uint8Array(bytes.length + 50);
        pool.set(bytes.subarray(0, first), 1);
        pool.set(bytes.subarray(first), first + 30);
        const sum = onesSumPieces(pool, 1, first, first + 30, bytes.length - first, start);
        expect(foldSum(sum)).toBe(naive(bytes, start));
      }),
    );
    expect(odd).toBeGreaterThan(20);
    const pool = wire('01 02 03 04 05');
    expect(foldSum(onesSumPieces(pool, 0, 1, 3, 2, 0))).toBe(0x0104 + 0x0500); // 01 | 04 05
    expect(foldSum(onesSumPieces(pool, 0, 3, 5, 0, 0))).toBe(0x0102 + 0x0300);
  });

  it('called with another pool: no stale view', () => {
    const ones = new Uint8Array(16).fill(1);
    const twos = new Uint8Array(16).fill(2);
    expect([onesSum(ones, 0, 8, 0), onesSum(twos, 0, 8, 0), onesSum(ones, 0, 8, 0)].map(foldSum)).toEqual([
      0x0404, 0x0808, 0x0404,
    ]);
  });

  it('a pool at an odd offset of its buffer: the same sum', () => {
    const buffer = new SharedArrayBuffer(64);
    new Uint8Array(buffer).fill(0xff);
    const pool = new Uint8Array(buffer, 3, 40);
    pool.set(wire('00 01 f2 03 f4 f5 f6 f7'), 2);
    expect(foldSum(onesSum(pool, 2, 8, 0))).toBe(0xddf2);
  });
});

describe('pseudo headers', () => {
  it('IPv4: equals the sum over the 12 bytes', () => {
    fc.assert(
      fc.property(u32, u32, fc.nat(255), u16, (src, dst, protocol, bytes) => {
        const header = new Uint8Array(12);
        writeU32(header, 0, src);
        writeU32(header, 4, dst);
        header[9] = protocol;
        writeU16(header, 10, bytes);
        return foldSum(pseudoSum4(src, dst, protocol, bytes)) === naive(header);
      }),
    );
  });

  it('IPv6: equals the sum over the 40 bytes', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 32, maxLength: 32 }),
        fc.nat(255),
        fc.nat(0x1ffff),
        (addresses, protocol, bytes) => {
          const header = new Uint8Array(40);
          header.set(addresses);
          writeU32(header, 32, bytes);
          header[39] = protocol;
          const pool = poolWith(addresses);
          return foldSum(pseudoSum6At(pool, FRAME_AT, FRAME_AT + 16, protocol, bytes)) === naive(header);
        },
      ),
    );
  });
});

describe('checksumUpdate16', () => {
  it('the example of RFC 1624 section 4, where equation 2 fails', () => {
    expect(checksumUpdate16(0xdd2f, 0x5555, 0x3285)).toBe(0x0000);
  });

  it('equals a new sum, for data that is not all zero', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 4, maxLength: 64 }), fc.nat(), u16, (bytes, index, word) => {
        const data = Uint8Array.from([...bytes.subarray(0, bytes.length & ~1), 0x12, 0x34]);
        const at = (index % (data.length - 2)) & ~1;
        const before = finishSum(onesSum(data, 0, data.length, 0));
        const old = readU16(data, at);
        writeU16(data, at, word);
        const after = finishSum(onesSum(data, 0, data.length, 0));
        return checksumUpdate16(before, old, word) === after;
      }),
    );
  });
});
