// @vitest: beside
/** What is read of threads of other processes: here of our own and of a child. */
import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { O_CLOEXEC } from '../../src/sys/constants.ts';
import { close, setCloexec } from '../../src/sys/io.ts';
import { Threads } from '../../src/sys/peer-process.ts';

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
