// @vitest: beside
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { HISTOGRAM_BUCKETS, histogramBucket, histogramValue } from '../../src/ring/histograms.ts';

describe('log-linear buckets', () => {
  it('small values have a bucket each, then four buckets a power of two', () => {
    expect([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 15, 16].map(histogramBucket)).toEqual([
      0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 10, 11, 11, 12,
    ]);
  });

  it('any value: its bucket exists, and represents it within an eighth', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 ** 27 - 1 }), (value) => {
        const bucket = histogramBucket(value);
        expect(bucket).toBeLessThan(HISTOGRAM_BUCKETS);
        expect(Math.abs(histogramValue(bucket) - value)).toBeLessThanOrEqual(Math.max(value / 8, 0.5));
      }),
    );
  });

  it('a larger value never has a smaller bucket', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 ** 27 }), fc.integer({ min: 0, max: 1000 }), (value, more) => {
        expect(histogramBucket(value + more)).toBeGreaterThanOrEqual(histogramBucket(value));
      }),
    );
  });

  it('negative, fractional and huge values: counted in some bucket', () => {
    for (const value of [-5, 0.4, 1e12, Number.POSITIVE_INFINITY, Number.NaN]) {
      const bucket = histogramBucket(value);
      expect(bucket).toBeGreaterThanOrEqual(0);
      expect(bucket).toBeLessThan(HISTOGRAM_BUCKETS);
    }
  });
});
