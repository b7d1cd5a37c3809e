/**
 * onesSum compared with other ways to add 16-bit words, for the sizes that occur: a header, a small segment,
 * a full frame at MTU 1500, a GSO frame. Compare results only within one size.
 */
import Benchmark from 'benchmark';
import { finishSum, foldSum, onesSum } from '../src/proto/checksum.ts';
import { ops, sink } from './ops.ts';

type Sum = (pool: Uint8Array, at: number, bytes: number, sum: number) => number;

/** RFC 1071 implemented literally, pair of bytes by pair of bytes. onesSum's comment refers to it. */
const bytePairs: Sum = (pool, at, bytes, sum) => {
  const end = at + (bytes & ~1);
  let words = 0;
  for (let i = at; i < end; i += 2) words += (pool[i]! << 8) | pool[i + 1]!;
  if (bytes & 1) words += pool[end]! << 8;
  return sum + foldSum(words);
};

/** The same through a DataView, one u16 at a time. */
let view = new DataView(new ArrayBuffer(0) as ArrayBufferLike);
const dataView16: Sum = (pool, at, bytes, sum) => {
  if (view.buffer !== pool.buffer) view = new DataView(pool.buffer);
  const end = at + (bytes & ~1);
  let words = 0;
  for (let i = at; i < end; i += 2) words += view.getUint16(i);
  if (bytes & 1) words += pool[end]! << 8;
  return sum + foldSum(words);
};

/** u32 words added as float64: exact below 2^53, so the loop does not split them into halves. */
const floatWords: Sum = (pool, at, bytes, sum) => {
  if (view.buffer !== pool.buffer) view = new DataView(pool.buffer);
  const wordsEnd = at + (bytes & ~7);
  let a = 0;
  let b = 0;
  let i = at;
  for (; i < wordsEnd; i += 8) {
    a += view.getUint32(i, true);
    b += view.getUint32(i + 4, true);
  }
  const total = a + b;
  const swapped = foldSum(foldSum(total >>> 0) + foldSum(Math.floor(total / 0x1_0000_0000)));
  return bytePairs(pool, i, at + bytes - i, sum + (((swapped & 0xff) << 8) | (swapped >>> 8)));
};

export const SIZES: readonly number[] = [20, 64, 576, 1460, 16384, 65160];

export function build(): Benchmark.Suite {
  const pool = new Uint8Array(new SharedArrayBuffer(1 << 20));
  let state = 1;
  for (let i = 0; i < pool.length; i++) {
    state = Math.imul(state, 1103515245) + 12345;
    pool[i] = state >>> 16;
  }
  const contenders: Record<string, Sum> = {
    onesSum,
    'byte pairs': bytePairs,
    'DataView 16': dataView16,
    'float64 words': floatWords,
  };
  for (const [name, sum] of Object.entries(contenders)) {
    for (const bytes of [...SIZES, 1459]) {
      if (finishSum(sum(pool, 54, bytes, 9)) !== finishSum(bytePairs(pool, 54, bytes, 9))) {
        throw new Error(`${name} is wrong for ${bytes} bytes`);
      }
    }
  }
  const suite = new Benchmark.Suite('proto-checksum');
  for (const bytes of SIZES) {
    for (const [name, sum] of Object.entries(contenders)) {
      const sums = Math.ceil(65536 / bytes);
      let frame = 0;
      suite.add(
        `${bytes} B: ${name}`,
        () => {
          let x = 0;
          for (let i = 0; i < sums; i++) {
            frame = (frame + 2066) & 0x7ffff; // another frame each time, at an even, unaligned offset
            x ^= sum(pool, frame, bytes, i);
          }
          sink.value ^= x;
        },
        ops(sums),
      );
    }
  }
  return suite;
}
