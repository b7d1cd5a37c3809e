// @vitest: beside
/** The supervisor's loop, with real descriptors. */
import { expect, it } from 'vitest';
import { Loop } from '../../src/switch/loop.ts';
import { EPOLLIN } from '../../src/sys/constants.ts';
import { close, eventfd, eventfdDrain, eventfdWrite } from '../../src/sys/io.ts';

it('calls timers in the order of their times, not the cancelled ones', () => {
  const loop = new Loop();
  const calls: string[] = [];
  const now = performance.now();
  loop.at(now + 30, () => loop.stop());
  loop.at(now + 20, () => calls.push('second'));
  const cancel = loop.at(now + 15, () => calls.push('cancelled'));
  loop.at(now + 10, () => calls.push('first'));
  loop.at(now + 20, () => calls.push('third'));
  cancel();
  loop.run();
  expect(calls).toEqual(['first', 'second', 'third']);
  expect(performance.now() - now).toBeGreaterThanOrEqual(30);
});

it('keeps nothing of a cancelled timer', () => {
  const loop = new Loop();
  const now = performance.now();
  let calls = 0;
  const cancels = Array.from({ length: 1000 }, (_, i) => loop.at(now + 86_400_000 + (i % 7), () => calls++));
  loop.at(now, () => cancels[500]!());
  loop.at(now + 5, () => loop.stop());
  for (const cancel of cancels.toReversed()) if (cancel !== cancels[500]) cancel();
  loop.run();
  cancels[500]!();
  expect([loop.timers, calls]).toEqual([0, 0]);
});

it('an event of a descriptor that an earlier event closed is nobody else’s', () => {
  const loop = new Loop();
  const fds = [eventfd(1, 0), eventfd(1, 0)] as const;
  const calls: number[] = [];
  let again = -1;
  const ready = (own: number, other: number): void => {
    calls.push(own);
    eventfdDrain(own);
    loop.unwatch(other);
    close(other);
    // The number is another descriptor's now, which is not ready.
    again = eventfd(0, 0);
    loop.watch(again, EPOLLIN, () => calls.push(-1));
    loop.stop();
  };
  loop.watch(fds[0], EPOLLIN, () => ready(fds[0], fds[1]));
  loop.watch(fds[1], EPOLLIN, () => ready(fds[1], fds[0]));
  loop.run();
  expect(calls).toHaveLength(1);
  expect(again).toBeGreaterThanOrEqual(0);
  close(calls[0]!);
  close(again);
});

it('wakes for a descriptor while a timer is far away', () => {
  const loop = new Loop();
  const fd = eventfd(0, 0);
  loop.at(performance.now() + 60_000, () => {});
  loop.at(performance.now() + 5, () => eventfdWrite(fd));
  loop.watch(fd, EPOLLIN, () => loop.stop());
  const before = performance.now();
  loop.run();
  expect(performance.now() - before).toBeLessThan(10_000);
  close(fd);
});
