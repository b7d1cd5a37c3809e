// @vitest: beside
/** Memory of lines that change: fifos are used again, and their pages go back to the kernel. */
import { expect, it } from 'vitest';
import { COUNTER_WORDS } from '../../../src/ring/counters.ts';
import { FifoStore, type FrameFifo } from '../../../src/workers/shaping/frame-fifo.ts';
import { Lines } from '../../../src/workers/shaping/lines.ts';
import { OPEN_LINE } from './line-plan.ts';

it('a fifo that was given back is empty, has no pages, and is the next one that is taken', () => {
  const store = new FifoStore();
  const fifo = store.take(3 << 20);
  fifo.u8.fill(7);
  for (let n = 0; n < 100; n++) {
    fifo.room(1500);
    fifo.push(1500, 1500, 1, n, 0, 0);
  }
  store.give(fifo);
  expect([fifo.head, fifo.tail]).toEqual([0, 0]);
  expect(fifo.u8.subarray(1 << 20, 2 << 20).every((byte) => byte === 0)).toBe(true);
  expect(store.take(4 << 20)).toBe(fifo);
  expect(store.take(1 << 20)).not.toBe(fifo);
});

it('the smallest fifo that suffices is taken; at most 40 are kept, the largest ones', () => {
  const store = new FifoStore();
  const large = store.take(8 << 20);
  const small = Array.from({ length: 60 }, () => store.take(1 << 20));
  for (const fifo of [large, ...small]) store.give(fifo);
  const again = Array.from({ length: 45 }, () => store.take(1 << 20));
  expect(again.filter((fifo) => small.includes(fifo))).toHaveLength(39);
  expect(again[39]).toBe(large);
});

it('lines whose settings change a hundred times have the fifos of twice as many lines at the most', () => {
  const made = new Set<FrameFifo>();
  const take = FifoStore.prototype.take;
  FifoStore.prototype.take = function (least) {
    const fifo = take.call(this, least);
    made.add(fifo);
    return fifo;
  };
  try {
    const plan = (rules: number, delayMs: number) => {
      const line = { ...OPEN_LINE, bytesPerSecond: 1e8, delayMs };
      const both = { fromGuest: line, toGuest: line };
      const networks = [{ address: '192.0.2.0', prefixLen: 24 }];
      return { seed: 1, rest: both, rules: Array.from({ length: rules }, () => ({ ...both, networks })) };
    };
    const lines = new Lines(plan(0, 0), 'toGuest', new Float64Array(COUNTER_WORDS), 0);
    for (let i = 0; i < 100; i++) lines.configure(plan((i * 7) % 9, (i * 31) % 400), i);
    expect(made.size).toBeLessThanOrEqual(2 * 4 * 9); // of four sizes
  } finally {
    FifoStore.prototype.take = take;
  }
});
