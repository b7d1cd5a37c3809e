// @vitest: beside
/**
 * The loop of a packet thread with a test stage: when it polls epoll before it sleeps, from the counters.
 */
import { describe, expect, it } from 'vitest';
import { COUNTER_WORDS, Counter } from '../../src/ring/counters.ts';
import { Doorbell } from '../../src/ring/doorbell.ts';
import { EFD_CLOEXEC, EFD_NONBLOCK } from '../../src/sys/constants.ts';
import { close, eventfd, eventfdWrite } from '../../src/sys/io.ts';
import { BULK_BYTES, PrePoll } from '../../src/workers/thread/pre-poll.ts';
import { Reactor } from '../../src/workers/thread/reactor.ts';
import type { Carried, Stage } from '../../src/workers/thread/stage.ts';

const SLEEPS = 4;

/**
 * Runs a loop that sleeps four times, each time for a millisecond.
 * @param carries what the stage has carried before a sleep
 */
function looks(carries: (sum: Carried, sleep: number) => void, standsTwice = false): number {
  const fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  const counters = new Float64Array(COUNTER_WORDS);
  const doorbell = new Doorbell(new Int32Array(new SharedArrayBuffer(8)), 0, fd, eventfdWrite);
  const reactor = new Reactor(
    doorbell,
    fd,
    counters,
    () => counters[Counter.sleeps]! >= SLEEPS,
    new PrePoll(),
  );
  const stage: Stage = {
    name: 'test',
    poll: () => 0,
    sleepMs: () => 1,
    hasInput: () => false,
    addCarried: (sum) => carries(sum, counters[Counter.sleeps]!),
    close: () => {},
  };
  reactor.run(standsTwice ? [stage, stage] : [stage]);
  reactor.close();
  close(fd);
  return counters[Counter.shortLooks]!;
}

describe('poll before a sleep', () => {
  it('no traffic: polls, ever fewer as they find nothing', () => {
    expect(looks(() => {})).toBe(2); // polls: the first sleep; one without; the next; two without
  });

  it('datagrams since the last sleep: no poll', () => {
    expect(looks((sum, sleep) => (sum.datagrams += sleep + 1))).toBe(0);
  });

  it('datagrams only before the last sleep: polls as without traffic', () => {
    expect(looks((sum) => (sum.datagrams += 7))).toBe(2);
  });

  it('a bulk transfer: no poll', () => {
    expect(looks((sum, sleep) => (sum.streamBytes += (sleep + 1) * BULK_BYTES))).toBe(0);
  });

  it('a stage that is twice in the order: its traffic counts once', () => {
    const half = (sum: Carried, sleep: number) => (sum.streamBytes += (sleep + 1) * (BULK_BYTES - 1));
    expect(looks(half, true)).toBeGreaterThan(0);
  });
});
