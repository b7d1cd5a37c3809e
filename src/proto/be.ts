/**
 * Big-endian (network order) access. The only place where packet bytes become numbers wider than a byte.
 *
 * Unchecked: the caller has validated that the bytes exist. Values are unsigned; writers take the low bits of
 * theirs.
 */
export function readU16(pool: Uint8Array, at: number): number {
  return (pool[at]! << 8) | pool[at + 1]!;
}

/** Big-endian, 0 to 2^32 - 1. */
export function readU32(pool: Uint8Array, at: number): number {
  return ((pool[at]! << 24) | (pool[at + 1]! << 16) | (pool[at + 2]! << 8) | pool[at + 3]!) >>> 0;
}

/** Big-endian; the lower 16 bits of `value`. */
export function writeU16(pool: Uint8Array, at: number, value: number): void {
  pool[at] = value >>> 8;
  pool[at + 1] = value;
}

/** Big-endian; `value` may be signed or unsigned. */
export function writeU32(pool: Uint8Array, at: number, value: number): void {
  pool[at] = value >>> 24;
  pool[at + 1] = value >>> 16;
  pool[at + 2] = value >>> 8;
  pool[at + 3] = value;
}
