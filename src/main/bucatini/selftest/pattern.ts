// bundle: rare
/**
 * Test data that both sides generate instead of transferring it: any byte range of an endless stream with a
 * period of 1 MiB.
 */

const PERIOD = 1 << 20;
const block = Buffer.alloc(PERIOD);
let state = 0x2545_f491;
for (let i = 0; i < PERIOD; i += 4) {
  // xorshift32, Marsaglia 2003
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  block.writeInt32LE(state | 0, i);
}

/**
 * Bytes `at` to `at + bytes` of the stream, up to the end of the period: the result may be shorter. Borrowed,
 * do not write.
 */
export function patternSlice(at: number, bytes: number): Buffer {
  const from = at % PERIOD;
  return block.subarray(from, Math.min(from + bytes, PERIOD));
}
