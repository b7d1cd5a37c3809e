// @vitest: beside
import { readFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { droppableMappings, FilePages } from '../../src/sys/file-pages.ts';

/** One mapping as smaps shows it. */
const mapping = (head: string, anonymous = 0, swap = 0): string =>
  `${head}\nSize:               2048 kB\nRss:                1024 kB\nShared_Clean:       1024 kB\nAnonymous:       ${`${anonymous}`.padStart(4)} kB\nLazyFree:              0 kB\nSwap:            ${`${swap}`.padStart(4)} kB\nSwapPss:               0 kB\nVmFlags: rd ex mr mw me\n`;
/** 1 MiB. */
const AT = '7ff84ca00000-7ff84cb00000';
const library = (perms: string): string =>
  `${AT} ${perms} 00026000 fe:01 4242       /usr/lib/x86_64-linux-gnu/libc.so.6`;

describe('mappings that can be dropped', () => {
  const droppable = (...texts: string[]): number => droppableMappings(texts.join('')).length;

  it('code and read-only data of files, with address and size', () => {
    const text =
      mapping('00400000-0082e000 r--p 00000000 fe:01 17   /opt/a program (deleted)') +
      mapping(library('r-xp'));
    expect(droppableMappings(text)).toEqual([
      { address: 0x400000, bytes: 0x42e000 },
      { address: 0x7ff84ca00000, bytes: 0x100000 },
    ]);
  });

  it('not with a private page, in memory or in swap', () => {
    expect(droppable(mapping(library('r--p')))).toBe(1);
    expect(droppable(mapping(library('r--p'), 4))).toBe(0);
    expect(droppable(mapping(library('r--p'), 0, 4))).toBe(0);
  });

  it('not what is small', () => {
    expect(droppable(mapping('7ff84ca00000-7ff84ca0f000 r-xp 00000000 fe:01 4242 /lib/x.so'))).toBe(0);
  });

  it('not what is writable, shared, or of no file', () => {
    expect(droppable(mapping(library('rw-p')), mapping(library('r--s')), mapping(library('---p')))).toBe(0);
    expect(droppable(mapping(`${AT} r-xp 00000000 00:00 0`))).toBe(0);
    expect(droppable(mapping(`${AT} r-xp 00000000 00:00 0          [vdso]`))).toBe(0);
    expect(droppable(mapping(`${AT} r--p 00000000 00:0f 2062       anon_inode:[io_uring]`))).toBe(0);
  });

  it('not where a kernel does not count private pages, or the text is cut', () => {
    expect(droppable(mapping(library('r-xp')).replace(/^Swap: .*\n/m, ''))).toBe(0);
    expect(droppable(mapping(library('r-xp')).slice(0, 120))).toBe(0);
    expect(droppable('')).toBe(0);
  });
});

describe('pages of this process', () => {
  const residentFileKib = (): number =>
    Number(/^RssFile:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'latin1'))?.[1]);

  it('are unmapped, and come back when they are used, in all threads', async () => {
    const sum = `const { parentPort } = require('node:worker_threads');
      parentPort.on('message', (n) => { let sum = 0; for (let i = 0; i < n; i++) sum += i; parentPort.postMessage(sum); });`;
    const worker = new Worker(sum, { eval: true });
    const ask = (n: number): Promise<number> =>
      new Promise((resolve) => {
        worker.once('message', resolve);
        worker.postMessage(n);
      });
    await ask(1);
    const before = residentFileKib();
    new FilePages().drop();
    const after = residentFileKib();
    expect(before - after).toBeGreaterThan(10 * 1024);
    expect(await ask(1e5)).toBe(4_999_950_000);
    expect(JSON.parse(JSON.stringify({ still: ['here'] }))).toEqual({ still: ['here'] });
    await worker.terminate();
  });

  it('a second time, or after close(): nothing happens', () => {
    const pages = new FilePages();
    pages.close();
    pages.drop();
    pages.drop();
    pages.close();
  });
});
