/**
 * The byte stream of all transfer tests: pseudo-random, the same in every process, of any length. Its period
 * is a prime number of bytes: no slot, window or segment size divides the period, and a piece that is lost,
 * duplicated or misplaced changes the checksum.
 *
 * As a program it writes the stream to its standard output: `pattern.ts BYTES > file`.
 */
import { createCipheriv, createHash } from 'node:crypto';
import { writeSync } from 'node:fs';

/** The largest prime below 2^23. */
export const PERIOD_BYTES = 8_388_593;

let period: Buffer | undefined;

function onePeriod(): Buffer {
  period ??= createCipheriv('aes-128-ctr', Buffer.alloc(16, 0x62), Buffer.alloc(16)).update(
    Buffer.alloc(PERIOD_BYTES),
  );
  return period;
}

/**
 * @returns a part of the stream, from offset `from`, 1 to `maxBytes` bytes; borrowed: do not write to it
 */
export function patternSlice(from: number, maxBytes: number): Buffer {
  const at = from % PERIOD_BYTES;
  return onePeriod().subarray(at, Math.min(PERIOD_BYTES, at + maxBytes));
}

const digests = new Map<number, string>();

/** SHA-256 of the first `bytes` bytes, hexadecimal. */
export function patternSha256(bytes: number): string {
  const known = digests.get(bytes);
  if (known !== undefined) return known;
  const hash = createHash('sha256');
  for (let at = 0; at < bytes; ) {
    const piece = patternSlice(at, bytes - at);
    hash.update(piece);
    at += piece.length;
  }
  const digest = hash.digest('hex');
  digests.set(bytes, digest);
  return digest;
}

if (import.meta.main) {
  const bytes = Number(process.argv[2]);
  for (let at = 0; at < bytes; ) at += writeSync(1, patternSlice(at, bytes - at));
}
