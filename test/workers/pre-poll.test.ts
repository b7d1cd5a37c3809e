// @vitest: beside
import { describe, expect, it } from 'vitest';
import {
  BULK_BYTES,
  LONE_POLL_MS,
  MOST_SKIPPED,
  PrePoll,
  SHORT_POLL_MS,
} from '../../src/workers/thread/pre-poll.ts';

/** How many of `sleeps` sleeps had a poll before them, each of which ends as `paid` says. */
function polls(prePoll: PrePoll, sleeps: number, paid: (nth: number) => boolean): number {
  let n = 0;
  for (let i = 0; i < sleeps; i++) {
    if (!prePoll.shouldPoll(64, 1)) continue;
    prePoll.onResult(paid(n));
    n++;
  }
  return n;
}

describe('a poll before sleep', () => {
  it('pays every time: every sleep has one', () => {
    expect(polls(new PrePoll(), 1000, () => true)).toBe(1000);
  });

  it('never pays: as many sleeps as may be between two polls', () => {
    const prePoll = new PrePoll();
    polls(prePoll, 10_000, () => false);
    prePoll.onResult(false);
    expect(polls(prePoll, 100 * (MOST_SKIPPED + 1), () => false)).toBe(100);
  });

  it('a few in vain among many that pay: nearly every sleep has one', () => {
    expect(polls(new PrePoll(), 1000, (n) => n % 10 !== 0)).toBeGreaterThan(850);
  });

  it('more in vain than pay: polls become rare', () => {
    expect(polls(new PrePoll(), 100_000, (n) => n % 3 === 0)).toBeLessThan(4000);
  });

  it('pays again after a long time in vain: polls come back', () => {
    const prePoll = new PrePoll();
    polls(prePoll, 10_000, () => false);
    polls(prePoll, 3 * MOST_SKIPPED, () => true);
    expect(polls(prePoll, 100, () => true)).toBe(100);
  });

  it('never paid, then sleeps end at once: polls come back without one that pays', () => {
    const prePoll = new PrePoll();
    polls(prePoll, 10_000, () => false);
    for (let i = 0; i < 8; i++) {
      prePoll.shouldPoll(64, 1);
      prePoll.onSleep(LONE_POLL_MS);
    }
    expect(prePoll.shouldPoll(64, 1)).toBe(true);
    expect(prePoll.shouldPoll(64, 1)).toBe(true);
  });

  it('never paid, then sleeps longer than a poll: polls stay rare', () => {
    const prePoll = new PrePoll();
    polls(prePoll, 10_000, () => false);
    let due = 0;
    for (let i = 0; i < MOST_SKIPPED / 2; i++) {
      if (prePoll.shouldPoll(64, 1)) {
        due++;
        prePoll.onResult(false);
      } else prePoll.onSleep(LONE_POLL_MS * 2);
    }
    expect(due).toBeLessThanOrEqual(1);
  });

  it('bulk transfer: none, nor while only acknowledgements come; a small exchange has one again', () => {
    const prePoll = new PrePoll();
    expect(prePoll.shouldPoll(BULK_BYTES, 1)).toBe(false);
    expect(prePoll.shouldPoll(0, 1)).toBe(false);
    expect(prePoll.shouldPoll(BULK_BYTES - 1, 1)).toBe(true);
  });

  it('one event since the last sleep: a long poll; several: a short one', () => {
    const prePoll = new PrePoll();
    prePoll.shouldPoll(64, 1);
    expect(prePoll.longestMs).toBe(LONE_POLL_MS);
    prePoll.shouldPoll(64, 2);
    expect(prePoll.longestMs).toBe(SHORT_POLL_MS);
  });
});
