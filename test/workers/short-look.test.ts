import { describe, expect, it } from 'vitest';
import { MOST_SKIPPED, ShortLook } from '../../src/workers/short-look.ts';

/** How many of `sleeps` sleeps had a look before them, each of which ends as `paid` says. */
function looks(look: ShortLook, sleeps: number, paid: (nth: number) => boolean): number {
  let n = 0;
  for (let i = 0; i < sleeps; i++) {
    if (!look.due()) continue;
    look.ended(paid(n));
    n++;
  }
  return n;
}

describe('a look before sleep', () => {
  it('pays every time: every sleep has one', () => {
    expect(looks(new ShortLook(), 1000, () => true)).toBe(1000);
  });

  it('never pays: a thousand sleeps between two looks', () => {
    const look = new ShortLook();
    looks(look, 10_000, () => false);
    expect(looks(look, 100 * (MOST_SKIPPED + 1), () => false)).toBe(100);
  });

  it('a few in vain among many that pay: nearly every sleep has one', () => {
    expect(looks(new ShortLook(), 1000, (n) => n % 10 !== 0)).toBeGreaterThan(850);
  });

  it('more in vain than pay: looks become rare', () => {
    expect(looks(new ShortLook(), 100_000, (n) => n % 3 === 0)).toBeLessThan(500);
  });

  it('pays again after a long time in vain: looks come back', () => {
    const look = new ShortLook();
    looks(look, 10_000, () => false);
    looks(look, 3 * MOST_SKIPPED, () => true);
    expect(looks(look, 100, () => true)).toBe(100);
  });
});
