/**
 * Reads standard input to its end and prints {bytes, sha256, maxGapMs, ms}; maxGapMs: the longest time
 * without a byte.
 */
import { createHash } from 'node:crypto';
import { readSync } from 'node:fs';

const hash = createHash('sha256');
const buffer = Buffer.allocUnsafe(1 << 20);
const startedAt = performance.now();
let lastAt = startedAt;
let maxGapMs = 0;
let bytes = 0;
for (;;) {
  const got = readSync(0, buffer);
  const now = performance.now();
  // The time before the first byte is the start of the program, not a gap.
  if (bytes > 0 && now - lastAt > maxGapMs) maxGapMs = now - lastAt;
  lastAt = now;
  if (got === 0) break;
  hash.update(buffer.subarray(0, got));
  bytes += got;
}
const ms = Math.round(performance.now() - startedAt);
console.log(JSON.stringify({ bytes, sha256: hash.digest('hex'), maxGapMs: Math.round(maxGapMs), ms }));
