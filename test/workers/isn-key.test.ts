// @vitest: beside
import { describe, expect, it } from 'vitest';
import { ISN_PER_MS, isnKeyOfThread } from '../../src/workers/flow/isn-key.ts';

const KEY = [1, 2, 0xfedcba98, 0xf1234567] as const;
const START_MS = 1_795_930_312_432.1;

describe('isnKeyOfThread', () => {
  it.each([0, 21.6, 3_600_000, 86_400_000 * 60])(
    'a thread that started %f ms later has the same clocks',
    (later) => {
      const now = later + 5000;
      const clocks = (origin: number): number[] => {
        const [, , c, d] = isnKeyOfThread(KEY, origin);
        const own = START_MS + now - origin;
        return [(Math.floor(own * ISN_PER_MS) + (c ^ d)) >>> 0, (Math.floor(own) + d) >>> 0];
      };
      const [first, second] = [clocks(START_MS), clocks(START_MS + later)];
      expect(Math.abs((first[0]! - second[0]!) | 0)).toBeLessThanOrEqual(2);
      expect(Math.abs((first[1]! - second[1]!) | 0)).toBeLessThanOrEqual(1);
    },
  );

  it('keeps the key of the hash', () => {
    expect(isnKeyOfThread(KEY, START_MS).slice(0, 2)).toEqual([1, 2]);
  });
});
