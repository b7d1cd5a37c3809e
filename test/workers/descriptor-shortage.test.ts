// @vitest: beside
import { describe, expect, it } from 'vitest';
import { COUNTER_WORDS, Counter } from '../../src/ring/counters.ts';
import { Errno } from '../../src/sys/constants.ts';
import { DescriptorShortage } from '../../src/workers/thread/descriptor-shortage.ts';
import { Notices } from '../../src/workers/thread/notices.ts';

/** A limit of 64 descriptors, and that many unanswered connections. */
function shortage(connecting: number) {
  const counters = new Float64Array(COUNTER_WORDS);
  const lines: string[] = [];
  const notices = new Notices(
    (_, text) => lines.push(text),
    () => 0,
  );
  const it = new DescriptorShortage(counters, notices, 64);
  const state = { shortage: it, counters, lines, connecting, ageMs: 0 };
  it.onGiveWay((minAgeMs) => {
    if (state.connecting === 0 || state.ageMs < minAgeMs) return false;
    state.connecting--;
    return true;
  });
  return state;
}

describe('shortage of descriptors', () => {
  it('up to three quarters of the limit: no flow is ended', () => {
    const s = shortage(48);
    s.shortage.connecting(48);
    expect(s.connecting).toBe(48);
  });

  it('beyond three quarters: each new flow ends the oldest, one log line', () => {
    const s = shortage(48);
    for (let i = 0; i < 1000; i++) s.shortage.connecting(++s.connecting);
    expect(s.connecting).toBe(48);
    expect(s.counters[Counter.connectsGaveWay]).toBe(1000);
    expect(s.lines.length).toBe(1);
  });

  it('EMFILE: an old flow is ended and the call repeated while there is one; other errors: no flow is ended', () => {
    const s = shortage(1);
    expect(s.shortage.madeRoom(-Errno.EMFILE)).toBe(false); // it may be answered yet
    s.ageMs = 300;
    expect(s.shortage.madeRoom(-Errno.EACCES)).toBe(false);
    expect(s.shortage.madeRoom(7)).toBe(false);
    expect(s.shortage.madeRoom(-Errno.EMFILE)).toBe(true);
    expect(s.shortage.madeRoom(-Errno.EMFILE)).toBe(false);
    expect(s.counters[Counter.connectsGaveWay]).toBe(1);
  });
});
