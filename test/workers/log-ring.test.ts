// @vitest: beside
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { planLayout } from '../../src/ring/layout.ts';
import { LogLevel, LogReader, LogWriter } from '../../src/workers/thread/log-ring.ts';

const layout = planLayout({
  smallSlots: 0,
  largeSlots: 0,
  rings: 0,
  ringDescriptors: 2,
  counterBlocks: 3,
  logBytes: 256,
});

function makeRings(): { sab: SharedArrayBuffer; reader: LogReader } {
  const sab = new SharedArrayBuffer(layout.totalBytes);
  return { sab, reader: new LogReader(sab, layout) };
}

function drain(reader: LogReader): string[] {
  const lines: string[] = [];
  reader.drain((level, text, thread) => lines.push(`${thread}:${level}:${text}`));
  return lines;
}

describe('log ring', () => {
  it('lines: read once, with level and thread, over many wraps of the ring', () => {
    const { sab, reader } = makeRings();
    const writer = new LogWriter(sab, layout, 1, LogLevel.debug);
    const other = new LogWriter(sab, layout, 2, LogLevel.debug);
    for (let i = 0; i < 300; i++) {
      const text = `flow ${i}: ${'é'.repeat(i % 40)}`; // UTF-8 across the end of the ring
      writer.log(LogLevel.info, text);
      other.log(LogLevel.error, '');
      expect(drain(reader)).toEqual([`1:2:${text}`, '2:0:']);
    }
    expect(drain(reader)).toEqual([]);
  });

  it('levels above the limit: not written', () => {
    const { sab, reader } = makeRings();
    const writer = new LogWriter(sab, layout, 0, LogLevel.warning);
    writer.log(LogLevel.info, 'no');
    writer.log(LogLevel.warning, 'yes');
    expect(drain(reader)).toEqual(['0:1:yes']);
  });

  it('full ring: later lines are dropped, their number is reported', () => {
    const { sab, reader } = makeRings();
    const writer = new LogWriter(sab, layout, 0);
    for (let i = 0; i < 10; i++) writer.log(LogLevel.error, 'x'.repeat(61)); // 64 bytes each: 4 fit
    const lines = drain(reader);
    expect(lines).toHaveLength(5);
    expect(lines[4]).toBe('0:1:6 log lines were dropped: the log ring was full');
    writer.log(LogLevel.error, 'again');
    expect(drain(reader)).toEqual(['0:0:again']);
  });

  it('a text too long: cut, not lost', () => {
    const wide = planLayout({ ...layout, logBytes: 4096, skewBytes: 0 });
    const sab = new SharedArrayBuffer(wide.totalBytes);
    new LogWriter(sab, wide, 0).log(LogLevel.error, 'y'.repeat(5000));
    expect(drain(new LogReader(sab, wide))).toEqual([`0:0:${'y'.repeat(1000)}`]);
  });

  it('a thread that never returns to its event loop writes a line: wait() ends', async () => {
    const { sab, reader } = makeRings();
    const worker = new Worker(new URL('./log-ring.worker.ts', import.meta.url), {
      workerData: { sab, layout },
    });
    try {
      const lines: string[] = [];
      const began = performance.now();
      while (lines.length < 3 && performance.now() - began < 10_000) {
        await reader.wait(10_000);
        lines.push(...drain(reader));
      }
      expect(lines).toEqual(['2:2:line 0', '2:2:line 1', '2:2:line 2']);
      expect(performance.now() - began).toBeLessThan(9_000);
    } finally {
      await worker.terminate();
    }
  });
});
