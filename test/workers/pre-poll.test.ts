// @vitest: beside
import { describe, expect, it } from 'vitest';
import {
  BULK_BYTES,
  LONE_POLL_MS,
  MOST_SKIPPED,
  PrePoll,
  SHORT_POLL_MS,
} from '../../src/workers/thread/pre-poll.ts';

/** How many of `sleeps` sleeps had a look before them, each of which ends as `paid` says. */
function looks(look: PrePoll, sleeps: number, paid: (nth: number) => boolean): number {
  let n = 0;
  for (let i = 0; i < sleeps; i++) {
    if (!look.shouldPoll(64, 1)) continue;
    look.onResult(paid(n));
    n++;
  }
  return n;
}

describe('a look before sleep', () => {
  it('pays every time: every sleep has one', () => {
    expect(looks(new PrePoll(), 1000, () => true)).toBe(1000);
  });

  it('never pays: as many sleeps as may be between two looks', () => {
    const look = new PrePoll();
    looks(look, 10_000, () => false);
    look.onResult(false);
    expect(looks(look, 100 * (MOST_SKIPPED + 1), () => false)).toBe(100);
  });

  it('a few in vain among many that pay: nearly every sleep has one', () => {
    expect(looks(new PrePoll(), 1000, (n) => n % 10 !== 0)).toBeGreaterThan(850);
  });

  it('more in vain than pay: looks become rare', () => {
    expect(looks(new PrePoll(), 100_000, (n) => n % 3 === 0)).toBeLessThan(4000);
  });

  it('pays again after a long time in vain: looks come back', () => {
    const look = new PrePoll();
    looks(look, 10_000, () => false);
    looks(look, 3 * MOST_SKIPPED, () => true);
    expect(looks(look, 100, () => true)).toBe(100);
  });

  it('never paid, then sleeps end at once: looks come back without one that pays', () => {
    const look = new PrePoll();
    looks(look, 10_000, () => false);
    for (let i = 0; i < 8; i++) {
      look.shouldPoll(64, 1);
      look.onSleep(LONE_POLL_MS);
    }
    expect(look.shouldPoll(64, 1)).toBe(true);
    expect(look.shouldPoll(64, 1)).toBe(true);
  });

  it('never paid, then sleeps longer than a look: looks stay rare', () => {
    const look = new PrePoll();
    looks(look, 10_000, () => false);
    let due = 0;
    for (let i = 0; i < MOST_SKIPPED / 2; i++) {
      if (look.shouldPoll(64, 1)) {
        due++;
        look.onResult(false);
      } else look.onSleep(LONE_POLL_MS * 2);
    }
    expect(due).toBeLessThanOrEqual(1);
  });

  it('bulk transfer: none, nor while only acknowledgements come; a small exchange has one again', () => {
    const look = new PrePoll();
    expect(look.shouldPoll(BULK_BYTES, 1)).toBe(false);
    expect(look.shouldPoll(0, 1)).toBe(false);
    expect(look.shouldPoll(BULK_BYTES - 1, 1)).toBe(true);
  });

  it('one event since the last sleep: a long look; several: a short one', () => {
    const look = new PrePoll();
    look.shouldPoll(64, 1);
    expect(look.longestMs).toBe(LONE_POLL_MS);
    look.shouldPoll(64, 2);
    expect(look.longestMs).toBe(SHORT_POLL_MS);
  });
});
