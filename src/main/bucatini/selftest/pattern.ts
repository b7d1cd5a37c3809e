// bundle: rare
/**
 * Test data that can be made anywhere without being sent: any byte range of an endless stream with a long
 * period.
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

/** Bytes `at` to `at + bytes` of the stream, at most one period; borrowed. */
export function patternSlice(at: number, bytes: number): Buffer {
  const from = at % PERIOD;
  return block.subarray(from, Math.min(from + bytes, PERIOD));
}
