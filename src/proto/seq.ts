/**
 * TCP sequence numbers: arithmetic and order modulo 2^32, RFC 9293 section 3.4.
 *
 * Two numbers can be compared if they are less than 2^31 apart. Arguments may be signed or unsigned 32-bit
 * values.
 */

/** a is before b. */
export function seqLt(a: number, b: number): boolean {
  return ((a - b) | 0) < 0;
}

/** a is before b or equal to it. */
export function seqLeq(a: number, b: number): boolean {
  return ((a - b) | 0) <= 0;
}

/** a is after b. */
export function seqGt(a: number, b: number): boolean {
  return ((a - b) | 0) > 0;
}

/** a is after b or equal to it. */
export function seqGeq(a: number, b: number): boolean {
  return ((a - b) | 0) >= 0;
}

/** Signed distance from b to a: positive when a is later. */
export function seqDiff(a: number, b: number): number {
  return (a - b) | 0;
}

/** a advanced by `count` (may be negative), as u32. */
export function seqAdd(a: number, count: number): number {
  return (a + count) >>> 0;
}
