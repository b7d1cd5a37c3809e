// @vitest: beside
/** What is read of other threads, tried on our own. */
import { afterAll, expect, it } from 'vitest';
import { EPOLLIN } from '../../src/sys/constants.ts';
import { epollAdd, epollCreate } from '../../src/sys/epoll.ts';
import { close, dupAbove, eventfd } from '../../src/sys/io.ts';
import { isSameFile, MOST_SEARCHED, Threads } from '../../src/sys/peer-process.ts';

const threads = new Threads();
const opened: number[] = [];
const event = (): number => opened[opened.push(eventfd(0, 0)) - 1]!;
afterAll(() => {
  for (const fd of opened) close(fd);
});

it('finds the epoll set of a descriptor; of too many descriptors it says that there is one', () => {
  const [alone, watched, set] = [event(), event(), epollCreate()];
  opened.push(set);
  epollAdd(set, watched, EPOLLIN, 0, 0);
  expect(threads.isInEpollSet(process.pid, watched)).toBe(true);
  expect(threads.isInEpollSet(process.pid, alone)).toBe(false);
  for (let i = 0; i < MOST_SEARCHED; i++) opened.push(dupAbove(alone, 3));
  expect(threads.isInEpollSet(process.pid, alone)).toBe(true);
});

it('tells duplicates from other descriptors', () => {
  const [one, other] = [event(), event()];
  opened.push(dupAbove(one, 3));
  expect([isSameFile(one, opened.at(-1)!), isSameFile(one, other)]).toEqual([true, false]);
});
