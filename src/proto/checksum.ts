/**
 * The Internet checksum, RFC 1071, and its incremental update, RFC 1624.
 *
 * A sum is a number below 2^32. One call's result is the next call's `sum`; each call adds less than 2^20, so
 * no realistic chain of calls overflows. The pieces of one message may be summed one after the other when all
 * but the last have an even length. An odd last byte counts as the high half of a word padded with zero.
 */
import { readU16 } from './be.ts';

/** The pool summed last, and a view of it: a thread has one pool, so the view is made once. */
let viewedPool: Uint8Array | null = null;
let view: DataView = new DataView(new ArrayBuffer(0));

/**
 * Add `bytes` bytes at `at` to a one's complement sum.
 * @param bytes  at most 128 KiB, so that `low` and `high` stay below 2^31
 * @param sum  an earlier result, a pseudo header sum, or 0
 * @returns the new sum, for onesSum, foldSum or finishSum
 */
export function onesSum(pool: Uint8Array, at: number, bytes: number, sum: number): number {
  if (pool !== viewedPool) {
    viewedPool = pool;
    view = new DataView(pool.buffer, pool.byteOffset, pool.byteLength);
  }
  // The words are read as little-endian, at any alignment: a one's complement sum does not depend on the byte
  // order (RFC 1071 section 2 (B)) except that the folded sum has to be swapped at the end. 3 times as fast
  // as byte pairs at 1460 bytes, 4 times at 64 KiB: bench/proto-checksum.bench.ts
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

/** Fold a sum to 16 bits: add the carries back in. */
export function foldSum(sum: number): number {
  const once = (sum & 0xffff) + (sum >>> 16);
  return (once & 0xffff) + (once >>> 16);
}

/**
 * The value of a checksum field: the complement of the folded sum. It is 0 for a sum over data that includes
 * a correct checksum.
 */
export function finishSum(sum: number): number {
  return ~foldSum(sum) & 0xffff;
}

/**
 * Sum of the IPv4 pseudo header (RFC 9293 section 3.1).
 * @param src,dst  addresses as u32
 * @param upperBytes  length of the upper-layer header and data
 */
export function pseudoSum4(src: number, dst: number, protocol: number, upperBytes: number): number {
  return (src >>> 16) + (src & 0xffff) + (dst >>> 16) + (dst & 0xffff) + protocol + upperBytes;
}

/**
 * Sum of the IPv6 pseudo header (RFC 8200 section 8.1).
 * @param srcAt,dstAt  offsets of the 16-byte addresses
 * @param upperBytes  length of the upper-layer header and data
 */
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
 * The new checksum after one of the 16-bit words it covers changed from `oldWord` to `newWord`.
 * @source RFC 1624 equation 3: HC' = ~(~HC + ~m + m'), which is correct also where RFC 1141's gives 0xffff
 *   for 0
 */
export function checksumUpdate16(oldChecksum: number, oldWord: number, newWord: number): number {
  return finishSum((~oldChecksum & 0xffff) + (~oldWord & 0xffff) + newWord);
}

/**
 * Add one message that lies in two pieces to a one's complement sum. When the second piece begins at an odd
 * offset of the message, the bytes of its sum are swapped (RFC 1071 section 2 (B)).
 * @param at,bytes  the first piece
 * @param moreAt,moreBytes  the second piece; 0 bytes for none
 * @param sum  an earlier result, a pseudo header sum, or 0
 * @returns the new sum
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
