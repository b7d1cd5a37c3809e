// @vitest: beside
import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, it } from 'vitest';
import { Errno } from '../../src/sys/constants.ts';
import { NativeBuffer } from '../../src/sys/memory.ts';
import { PcapWriter } from '../../src/workers/tap/pcap.ts';

const dir = mkdtempSync(join(tmpdir(), 'pcap-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const FILE_HEADER_BYTES = 24;
const RECORD_HEADER_BYTES = 16;
const FRAME_BYTES = 60;

it('time stamps: wall clock in nanoseconds, ascending, finer than a millisecond', () => {
  const file = join(dir, 'stamps.pcap');
  const fd = openSync(file, 'a');
  const pool = new NativeBuffer(4096);
  pool.u8.fill(0xab);
  expect(PcapWriter.begin(fd)).toBe(0);
  const writer = new PcapWriter(fd, pool.address);
  const beforeMs = Date.now();
  const frames = 200;
  for (let i = 0; i < frames; i++) writer.frame(0, FRAME_BYTES - 10, 100, 10);
  const afterMs = Date.now() + 1;
  closeSync(fd);

  const bytes = readFileSync(file);
  expect(bytes.readUInt32LE(0)).toBe(0xa1b23c4d); // the magic number of nanoseconds
  expect(bytes.length).toBe(FILE_HEADER_BYTES + frames * (RECORD_HEADER_BYTES + FRAME_BYTES));
  const stamps: bigint[] = [];
  for (let at = FILE_HEADER_BYTES; at < bytes.length; at += RECORD_HEADER_BYTES + FRAME_BYTES) {
    const nanoseconds = bytes.readUInt32LE(at + 4);
    expect(nanoseconds).toBeLessThan(1e9);
    stamps.push(BigInt(bytes.readUInt32LE(at)) * 1_000_000_000n + BigInt(nanoseconds));
    expect(bytes.readUInt32LE(at + 8)).toBe(FRAME_BYTES);
    expect(bytes.readUInt32LE(at + 12)).toBe(FRAME_BYTES);
  }
  expect(stamps).toEqual([...stamps].sort((a, b) => (a < b ? -1 : 1)));
  expect(stamps[0]!).toBeGreaterThanOrEqual(BigInt(beforeMs) * 1_000_000n);
  expect(stamps.at(-1)!).toBeLessThanOrEqual(BigInt(afterMs) * 1_000_000n);
  // Frames written one after another have different time stamps.
  expect(new Set(stamps).size).toBeGreaterThan(frames / 2);
  expect(stamps.filter((stamp) => stamp % 1_000_000n === 0n).length).toBeLessThan(frames / 10);
});

/** Results of a writer whose file is limited to `limit` bytes. */
function limited(limit: number, file: string, frames: readonly number[]): { begun: number; lost: number[] } {
  const fixture = fileURLToPath(new URL('./fixtures/short-pcap.ts', import.meta.url));
  const args = [`--fsize=${limit}`, process.execPath, fixture, file, ...frames.map(String)];
  const env = { ...process.env, NODE_OPTIONS: '' };
  return JSON.parse(execFileSync('prlimit', args, { encoding: 'utf8', env }));
}

it('a record written in part: removed and reported; the next record follows the last whole one', () => {
  const file = join(dir, 'short.pcap');
  expect(limited(1000, file, [400, 400, 400, 50])).toEqual({ begun: 0, lost: [Errno.ENOSPC] });
  const bytes = readFileSync(file);
  const kept: number[] = [];
  let at = FILE_HEADER_BYTES;
  for (; at < bytes.length; at += RECORD_HEADER_BYTES + kept.at(-1)!) kept.push(bytes.readUInt32LE(at + 8));
  expect(kept).toEqual([400, 400, 50]);
  expect(at).toBe(bytes.length);
});

it('a file header written in part: an error', () => {
  expect(limited(10, join(dir, 'header.pcap'), []).begun).toBe(-Errno.ENOSPC);
});
