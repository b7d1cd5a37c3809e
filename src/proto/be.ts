/**
 * Big-endian (network order) access: the only module in which packet bytes become numbers wider than a byte.
 *
 * No bounds are checked: the caller has validated that the bytes exist.
 */

/** The big-endian u16 at `at`. */
export function readU16(pool: Uint8Array, at: number): number {
  return (pool[at]! << 8) | pool[at + 1]!;
}

/** The big-endian u32 at `at`, 0 to 2^32 - 1. */
export function readU32(pool: Uint8Array, at: number): number {
  return ((pool[at]! << 24) | (pool[at + 1]! << 16) | (pool[at + 2]! << 8) | pool[at + 3]!) >>> 0;
}

/** Write the low 16 bits of `value` at `at`, big-endian. */
export function writeU16(pool: Uint8Array, at: number, value: number): void {
  pool[at] = value >>> 8;
  pool[at + 1] = value;
}

/** Write the low 32 bits of `value`, signed or unsigned, at `at`, big-endian. */
export function writeU32(pool: Uint8Array, at: number, value: number): void {
  pool[at] = value >>> 24;
  pool[at + 1] = value >>> 16;
  pool[at + 2] = value >>> 8;
  pool[at + 3] = value;
}
