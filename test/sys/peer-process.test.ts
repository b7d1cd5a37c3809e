// @vitest: beside
/** What is read of threads of other processes: here of our own and of a child. */
import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { afterAll, describe, expect, it } from 'vitest';
import { EPOLLIN, O_CLOEXEC } from '../../src/sys/constants.ts';
import { epollAdd, epollCreate } from '../../src/sys/epoll.ts';
import { close, dupAbove, eventfd, setCloexec } from '../../src/sys/io.ts';
import { isSameFile, MOST_SEARCHED, Threads } from '../../src/sys/peer-process.ts';

const threads = new Threads();

describe('descriptors of a thread', () => {
  it('duplicated, again and again; a number that is not open; a thread that has ended', async () => {
    const child = spawn('sleep', ['60'], { stdio: ['ignore', 'ignore', 'ignore'] });
    const pid = child.pid!;
    for (let i = 0; i < 3; i++) {
      const fd = threads.duplicate(pid, 1);
      expect(fd).toBeGreaterThan(2);
      close(fd);
    }
    expect(threads.duplicate(pid, 1000)).toBe(-9); // EBADF
    const ended = new Promise((resolve) => child.on('exit', resolve));
    child.kill('SIGKILL');
    await ended;
    expect(threads.duplicate(pid, 1)).toBe(-3); // ESRCH
  });

  it('close-on-exec is seen', () => {
    const fd = openSync('/dev/null', 'r');
    for (const closes of [true, false, true]) {
      setCloexec(fd, closes);
      expect(threads.closeOnExec(process.pid, fd)).toBe(closes ? O_CLOEXEC : 0);
    }
    closeSync(fd);
    expect(threads.closeOnExec(process.pid, 1000)).toBe(0);
  });
});

describe('files of /proc', () => {
  it('a whole one', () => {
    expect(threads.read(`${process.pid}/status`)).toContain(`Pid:\t${process.pid}\n`);
    // Longer than one read.
    expect(threads.read('kallsyms').split('\n').length).toBeGreaterThan(1000);
    expect(threads.read('0/no/such')).toBe('');
  });

  it('one that is kept open: the same text until the file changes', () => {
    const path = `/proc/${process.pid}/comm`;
    const before = readFileSync(path);
    const file = threads.hold(`${process.pid}/comm`);
    const seen = ['first name', 'firsT name', 'x', 'first name'].map((name) => {
      writeFileSync(path, name);
      const text = file.read();
      expect(file.read()).toBe(text);
      return text;
    });
    expect(seen).toEqual(['first name\n', 'firsT name\n', 'x\n', 'first name\n']);
    file.close();
    writeFileSync(path, before);
  });

  it('one that is kept open and long, one that is missing', () => {
    const routes = threads.hold('kallsyms');
    expect(routes.read().length).toBeGreaterThan(100_000);
    expect(routes.read()).toBe(threads.read('kallsyms'));
    routes.close();
    expect(threads.hold('0/no/such').read()).toBe('');
  });
});

describe('epoll sets', () => {
  const opened: number[] = [];
  const event = (): number => opened[opened.push(eventfd(0, 0)) - 1]!;
  const newSet = (): number => opened[opened.push(epollCreate()) - 1]!;
  afterAll(() => {
    for (const fd of opened) close(fd);
  });

  it('the set of a descriptor is found, by a search or among those that were found before', () => {
    const own = new Threads();
    const [alone, watched, set] = [event(), event(), newSet()];
    epollAdd(set, watched, EPOLLIN, 0, 0);
    close(own.duplicate(process.pid, alone)); // what is found is kept with its descriptor
    for (const made of [undefined, 1, 1, 1]) {
      expect(own.isInEpollSet(process.pid, alone, made)).toBe(false);
      expect(own.isInEpollSet(process.pid, watched, made)).toBe(true);
    }
    // Where no set has been made, none is looked for.
    expect(own.isInEpollSet(process.pid, watched, 0)).toBe(false);
  });

  it('a set that was made since is found, one that was closed is not missed', () => {
    const own = new Threads();
    const [alone, watched] = [event(), event()];
    close(own.duplicate(process.pid, alone));
    expect(own.isInEpollSet(process.pid, alone, 1)).toBe(false);
    const set = epollCreate();
    epollAdd(set, watched, EPOLLIN, 0, 0);
    expect(own.isInEpollSet(process.pid, alone, 2)).toBe(false);
    expect(own.isInEpollSet(process.pid, watched, 2)).toBe(true);
    // The number is no set any more: the thread may have copied it to another.
    const copy = dupAbove(set, set + 1);
    close(set);
    expect(own.isInEpollSet(process.pid, watched, 2)).toBe(true);
    close(copy);
    expect(own.isInEpollSet(process.pid, watched, 2)).toBe(false);
  });

  it('of a thread with very many descriptors it is said that there is one', () => {
    const alone = event();
    for (let i = 0; i < MOST_SEARCHED; i++) opened.push(dupAbove(alone, 3));
    expect(threads.isInEpollSet(process.pid, alone, undefined)).toBe(true);
  });
});

it('tells duplicates from other descriptors', () => {
  const [one, other] = [eventfd(0, 0), eventfd(0, 0)];
  const copy = dupAbove(one, 3);
  expect([isSameFile(one, copy), isSameFile(one, other)]).toEqual([true, false]);
  for (const fd of [one, other, copy]) close(fd);
});
