// @vitest: beside
import { describe, expect, it } from 'vitest';
import {
  COUNTER_WORDS,
  COUNTERS,
  Counter,
  countersSum,
  countersView,
  DROP_BASE,
  DROP_MAX,
  HISTOGRAM_BASE,
} from '../../src/ring/counters.ts';
import { HISTOGRAM_WORDS } from '../../src/ring/histograms.ts';
import { planLayout } from '../../src/ring/layout.ts';

const layout = planLayout({
  smallSlots: 0,
  largeSlots: 0,
  rings: 0,
  ringDescriptors: 2,
  counterBlocks: 3,
  logBytes: 256,
});

describe('counters', () => {
  it('the table has each index once', () => {
    expect(COUNTERS.map((info) => Counter[info.name as keyof typeof Counter])).toEqual(
      COUNTERS.map((_, i) => i),
    );
    for (const { name, help } of COUNTERS) {
      expect(name).toMatch(/^[a-z][A-Za-z]+$/);
      expect(help.length).toBeGreaterThan(10);
    }
    expect(DROP_BASE).toBe(COUNTERS.length);
    expect(DROP_BASE + DROP_MAX + 1).toBe(HISTOGRAM_BASE);
    expect(HISTOGRAM_BASE + HISTOGRAM_WORDS).toBe(COUNTER_WORDS);
  });

  it('blocks do not overlap; the sum is over all blocks', () => {
    const sab = new SharedArrayBuffer(layout.totalBytes);
    for (let block = 0; block < 3; block++) {
      const counters = countersView(sab, layout, block);
      expect(counters.every((value) => value === 0)).toBe(true);
      counters.fill(10 ** block);
      counters[Counter.tapReads]! += 1;
      counters[DROP_BASE + 96]! += 2; // drop cause -96, the last one
    }
    const sum = countersSum(sab, layout);
    expect(sum[Counter.framesFromGuest]).toBe(111);
    expect(sum[Counter.tapReads]).toBe(114);
    expect(sum[DROP_BASE + 96]).toBe(117);
    expect(() => countersView(sab, layout, 3)).toThrow('the layout has 3');
  });
});
