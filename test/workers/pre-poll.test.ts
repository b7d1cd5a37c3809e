// @vitest: beside
import { describe, expect, it } from 'vitest';
import {
  BULK_BYTES,
  LONE_POLL_MS,
  MOST_SKIPPED,
  PrePoll,
  SHORT_POLL_MS,
} from '../../src/workers/thread/pre-poll.ts';

/** @returns how many of `sleeps` sleeps had a poll before them; `paid` gives the result of each poll */
function looks(look: PrePoll, sleeps: number, paid: (nth: number) => boolean): number {
  let n = 0;
  for (let i = 0; i < sleeps; i++) {
    if (!look.shouldPoll(64, 1)) continue;
    look.onResult(paid(n));
    n++;
  }
  return n;
}

describe('poll before sleep', () => {
  it('every poll finds work: one before every sleep', () => {
    expect(looks(new PrePoll(), 1000, () => true)).toBe(1000);
  });

  it('no poll finds work: the maximum number of sleeps between two polls', () => {
    const look = new PrePoll();
    looks(look, 10_000, () => false);
    look.onResult(false);
    expect(looks(look, 100 * (MOST_SKIPPED + 1), () => false)).toBe(100);
  });

  it('few polls in vain: one before nearly every sleep', () => {
    expect(looks(new PrePoll(), 1000, (n) => n % 10 !== 0)).toBeGreaterThan(850);
  });

  it('more polls in vain than not: polls become rare', () => {
    expect(looks(new PrePoll(), 100_000, (n) => n % 3 === 0)).toBeLessThan(4000);
  });

  it('a poll finds work after a long time in vain: polls become frequent', () => {
    const look = new PrePoll();
    looks(look, 10_000, () => false);
    looks(look, 3 * MOST_SKIPPED, () => true);
    expect(looks(look, 100, () => true)).toBe(100);
  });

  it('polls in vain, then sleeps end at once: polls become frequent without a success', () => {
    const look = new PrePoll();
    looks(look, 10_000, () => false);
    for (let i = 0; i < 8; i++) {
      look.shouldPoll(64, 1);
      look.onSleep(LONE_POLL_MS);
    }
    expect(look.shouldPoll(64, 1)).toBe(true);
    expect(look.shouldPoll(64, 1)).toBe(true);
  });

  it('polls in vain, sleeps longer than a poll: polls stay rare', () => {
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

  it('bulk transfer, or only acknowledgements: no poll; a small exchange: polls again', () => {
    const look = new PrePoll();
    expect(look.shouldPoll(BULK_BYTES, 1)).toBe(false);
    expect(look.shouldPoll(0, 1)).toBe(false);
    expect(look.shouldPoll(BULK_BYTES - 1, 1)).toBe(true);
  });

  it('one event since the last sleep: a long poll; several: a short one', () => {
    const look = new PrePoll();
    look.shouldPoll(64, 1);
    expect(look.longestMs).toBe(LONE_POLL_MS);
    look.shouldPoll(64, 2);
    expect(look.longestMs).toBe(SHORT_POLL_MS);
  });
});
