import { describe, expect, it } from 'vitest';
import { COUNTER_WORDS, Counter } from '../../src/ring/counters.ts';
import { Errno } from '../../src/sys/constants.ts';
import { DescriptorShortage } from '../../src/workers/descriptor-shortage.ts';
import { Notices } from '../../src/workers/notices.ts';

/** With a limit of 64 descriptors, and connections of these ages in milliseconds, oldest first. */
function shortage(ages: number[]) {
  const counters = new Float64Array(COUNTER_WORDS);
  const lines: string[] = [];
  const notices = new Notices(
    (_, text) => lines.push(text),
    () => 0,
  );
  const it = new DescriptorShortage(counters, notices, 64);
  it.onGiveWay((minAgeMs) => {
    if (ages.length === 0 || ages[0]! < minAgeMs) return false;
    ages.shift();
    return true;
  });
  return { shortage: it, counters, lines, ages };
}

describe('descriptors are short', () => {
  it('below three quarters of the limit: nothing gives way', () => {
    const s = shortage([5000]);
    s.shortage.opened(47);
    expect(s.ages).toEqual([5000]);
  });

  it('from three quarters on: one connect() older than a second gives way for each, a younger one stays', () => {
    const s = shortage([5000, 1000, 999]);
    for (let i = 0; i < 4; i++) s.shortage.opened(48);
    expect(s.ages).toEqual([999]);
    expect(s.counters[Counter.connectsGaveWay]).toBe(2);
    expect(s.lines.length).toBe(1);
  });

  it('in the last sixteenth: the oldest, however young', () => {
    const s = shortage([3, 2]);
    s.shortage.opened(60);
    expect(s.ages).toEqual([2]);
  });

  it('none left: the call is tried again as long as something gives way; other errors make nothing give way', () => {
    const s = shortage([3]);
    expect(s.shortage.madeRoom(-Errno.EACCES)).toBe(false);
    expect(s.shortage.madeRoom(7)).toBe(false);
    expect(s.shortage.madeRoom(-Errno.EMFILE)).toBe(true);
    expect(s.shortage.madeRoom(-Errno.EMFILE)).toBe(false);
    expect(s.counters[Counter.connectsGaveWay]).toBe(1);
  });
});
