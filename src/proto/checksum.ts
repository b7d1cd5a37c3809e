/**
 * The Internet checksum, RFC 1071, and its incremental update, RFC 1624.
 *
 * A sum is a number below 2^32 that may be passed on from call to call; each call adds less than 2^20 to it,
 * so no realistic chain overflows. Pieces of one message may be summed one after the other when all but the
 * last have an even length; an odd last byte counts as the high half of a word (padding with zero).
 */
import { readU16 } from './be.ts';

/** The view of the pool summed last: a thread has one pool, so this is made once. It changes no result. */
let viewedPool: Uint8Array | null = null;
let view: DataView = new DataView(new ArrayBuffer(0));

/**
 * Add `bytes` bytes at `at` to a one's complement sum.
 * @param bytes  up to 128 KiB: the two halves' sums then stay below 2^31
 * @param sum  an earlier result, a pseudo header sum, or 0
 * @returns the new sum, for onesSum, foldSum or finishSum
 */
export function onesSum(pool: Uint8Array, at: number, bytes: number, sum: number): number {
  if (pool !== viewedPool) {
    viewedPool = pool;
    view = new DataView(pool.buffer, pool.byteOffset, pool.byteLength);
  }
  // Little-endian words, at any alignment: one's complement sums do not care about byte order until the end
  // (RFC 1071 section 2 (B)), where the folded sum is swapped. 3x over byte pairs at 1460 B, 4x at 64 KiB:
  // bench/proto-checksum.bench.ts
  const wordsEnd = at + (bytes & ~7);
  let low = 0;
  let high = 0;
  let i = at;
  for (; i < wordsEnd; i += 8) {
    const a = view.getUint32(i, true);
    const b = view.getUint32(i + 4, true);
    low = (low + (a & 0xffff) + (b & 0xffff)) | 0;
    high = (high + (a >>> 16) + (b >>> 16)) | 0;
  }
  const swapped = foldSum(foldSum(low) + foldSum(high));
  let rest = 0;
  const pairsEnd = at + (bytes & ~1);
  for (; i < pairsEnd; i += 2) rest += (pool[i]! << 8) | pool[i + 1]!;
  if (bytes & 1) rest += pool[pairsEnd]! << 8;
  return sum + (((swapped & 0xff) << 8) | (swapped >>> 8)) + rest;
}

/** Carry back to 16 bits. */
export function foldSum(sum: number): number {
  const once = (sum & 0xffff) + (sum >>> 16);
  return (once & 0xffff) + (once >>> 16);
}

/**
 * The value of the checksum field: the folded sum's complement. Over data that includes a right checksum it
 * is 0.
 */
export function finishSum(sum: number): number {
  return ~foldSum(sum) & 0xffff;
}

/**
 * Sum of the IPv4 pseudo header (RFC 9293 section 3.1): addresses as u32, upper protocol, upper length in
 * bytes.
 */
export function pseudoSum4(src: number, dst: number, protocol: number, upperBytes: number): number {
  return (src >>> 16) + (src & 0xffff) + (dst >>> 16) + (dst & 0xffff) + protocol + upperBytes;
}

/** Sum of the IPv6 pseudo header (RFC 8200 section 8.1); 16-byte addresses at `srcAt` and `dstAt`. */
export function pseudoSum6At(
  pool: Uint8Array,
  srcAt: number,
  dstAt: number,
  protocol: number,
  upperBytes: number,
): number {
  let sum = protocol + (upperBytes >>> 16) + (upperBytes & 0xffff);
  for (let i = 0; i < 16; i += 2) sum += readU16(pool, srcAt + i) + readU16(pool, dstAt + i);
  return sum;
}

/**
 * The checksum after one 16-bit word that it covers changed from `oldWord` to `newWord`.
 * @source RFC 1624 equation 3: HC' = ~(~HC + ~m + m'), right also where the older equation gave 0xffff for 0
 */
export function checksumUpdate16(oldChecksum: number, oldWord: number, newWord: number): number {
  return finishSum((~oldChecksum & 0xffff) + (~oldWord & 0xffff) + newWord);
}

/**
 * One's complement sum of two pieces of one message.
 *
 * A second piece that begins at an odd offset of the message has its sum's bytes swapped (RFC 1071 section
 * 2B).
 */
export function onesSumPieces(
  pool: Uint8Array,
  at: number,
  bytes: number,
  moreAt: number,
  moreBytes: number,
  sum: number,
): number {
  const first = onesSum(pool, at, bytes, sum);
  if (moreBytes === 0) return first;
  if ((bytes & 1) === 0) return onesSum(pool, moreAt, moreBytes, first);
  const part = foldSum(onesSum(pool, moreAt, moreBytes, 0));
  return first + (((part & 0xff) << 8) | (part >>> 8));
}
