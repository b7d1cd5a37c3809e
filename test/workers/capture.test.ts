// @vitest: beside
import { execFileSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, readFileSync, readSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { captureFilter } from '../../src/main/cli/capture-filter.ts';
import { Counter } from '../../src/ring/counters.ts';
import { pipe2 } from '../../src/sys/io.ts';
import { NativeBuffer } from '../../src/sys/memory.ts';
import { IOVEC_WORDS, iovecWrite } from '../../src/sys/socket.ts';
import { RING_BYTES } from '../../src/workers/capture/capture-memory.ts';
import {
  type CaptureSink,
  FileSink,
  RingSink,
  type SinkFile,
  StreamSink,
  type Taken,
} from '../../src/workers/capture/capture-sink.ts';
import { lostBy } from '../../src/workers/capture/drop-comment.ts';
import { StageDrop } from '../../src/workers/link/stage-drop.ts';
import { CaptureRig, type RigOptions } from '../support/capture-rig.ts';
import { framesOf, readPcap, readPcapng } from '../support/pcapng-reader.ts';

const dir = mkdtempSync(join(tmpdir(), 'capture-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
let files = 0;
const open = (): { fd: number; name: string } => {
  const name = join(dir, `${files++}.pcapng`);
  return { fd: openSync(name, 'a'), name };
};

/** Run a capture to one file. @returns the file, and the rig */
async function captured(
  work: (rig: CaptureRig) => void | Promise<void>,
  options: RigOptions = {},
): Promise<{ bytes: Buffer; rig: CaptureRig }> {
  const file = open();
  const rig = new CaptureRig(new FileSink('--pcap x', [file]), options);
  await work(rig);
  await rig.capture.end();
  return { bytes: readFileSync(file.name), rig };
}

it('time stamps: wall clock in nanoseconds, ascending, finer than a millisecond', async () => {
  const beforeMs = Date.now();
  const { bytes } = await captured((rig) => {
    for (let i = 0; i < 200; i++) rig.send(60);
  });
  const stamps = framesOf(bytes).map(({ time }) => time);
  expect(stamps.length).toBe(200);
  expect(stamps).toEqual([...stamps].sort((a, b) => (a < b ? -1 : 1)));
  expect(stamps[0]!).toBeGreaterThanOrEqual(BigInt(beforeMs) * 1_000_000n);
  expect(stamps.at(-1)!).toBeLessThanOrEqual(BigInt(Date.now() + 1) * 1_000_000n);
  expect(new Set(stamps).size).toBeGreaterThan(100);
  expect(stamps.filter((stamp) => stamp % 1_000_000n === 0n).length).toBeLessThan(20);
});

it('pcap: the same frames, as records of two pieces, with times in nanoseconds', async () => {
  const { bytes } = await captured(
    (rig) => {
      rig.pool.u8.fill(7);
      for (const size of [14, 61, 100, 101, 1500]) rig.send(size);
    },
    { format: 'pcap', snapBytes: 1000 },
  );
  const frames = readPcap(bytes);
  expect(frames.map(({ captured, original }) => [captured.length, original])).toEqual([
    ...[14, 61, 100, 101].map((size) => [size, size]),
    [1000, 1500],
  ]);
  expect(frames[4]!.captured.subarray(4)).toEqual(Buffer.alloc(996, 7));
  expect(Number(frames[0]!.time / 1_000_000n)).toBeCloseTo(Date.now(), -5);
});

describe('what a block says', () => {
  it('direction, kind of destination, drop cause, lane', async () => {
    const { bytes } = await captured(
      (rig) => {
        const [capture] = rig.threads;
        const { u8 } = rig.pool;
        rig.send(60); // 00...: a unicast address
        u8[0] = 1;
        capture!.fromGuest(0, 60, 0, 0, StageDrop.egressPolicy);
        u8.fill(0xff, 0, 6);
        capture!.stamp();
        capture!.toGuest(0, 60, new Uint32Array(4), 0, 0, 0, 0);
        u8.fill(0, 0, 6);
        rig.threads[1]!.fromGuest(0, 60, 0, 0, lostBy(Counter.handOverFull));
      },
      { threads: 2, areLanes: true },
    );
    const frames = framesOf(bytes);
    expect(frames.map(({ flags }) => [flags & 3, (flags >> 2) & 7])).toEqual([
      [2, 1],
      [2, 2],
      [1, 3],
      [2, 1],
    ]);
    expect(frames.map(({ queue }) => queue)).toEqual([0, 0, 0, 1]);
    expect(frames.map(({ comments }) => comments.join())).toEqual([
      '',
      'dropped: drop.egressPolicy',
      '',
      'dropped: handOverFull',
    ]);
  });

  it('a frame that is handled: its drop and its comments, also those that come after it was answered', async () => {
    const { bytes, rig } = await captured((rig) => {
      const [capture] = rig.threads;
      capture!.comments = {
        flowOf: () => 7,
        of: ({ fromGuest }, before) => (fromGuest ? `flow ${before}` : 'answer'),
      };
      capture!.drop(StageDrop.dhcp); // no frame is open
      for (const drops of [false, true]) {
        capture!.open(0, 60, 100, 40);
        for (let answers = 0; answers < (drops ? 2 : 0); answers++) {
          capture!.stamp();
          capture!.toGuest(0, 61 + answers, new Uint32Array(4), 0, 0, 0, 0);
        }
        if (drops) capture!.drop(StageDrop.echo);
        if (drops) capture!.drop(StageDrop.dhcp); // the first cause counts
        capture!.close();
      }
      rig.send(62);
    });
    expect(framesOf(bytes).map(({ captured, comments }) => [captured.length, ...comments])).toEqual([
      [100, 'flow 7'],
      [100, 'dropped: drop.echo', 'flow 7'],
      [61, 'answer'],
      [62, 'answer'],
      [62, 'flow -1'],
    ]);
    expect(rig.counters[Counter.pcapFrames]).toBe(5);
  });

  it('frames to the guest of many pieces, cut off at any place', async () => {
    const pieces = fc.array(fc.integer({ min: 1, max: 300 }), { maxLength: 5 });
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 14, max: 200 }),
        pieces,
        fc.integer({ min: 14, max: 900 }),
        async (first, more, snapBytes) => {
          const all = [...Array(first).keys()].map((i) => i & 0xff);
          const { bytes } = await captured(
            ({ threads: [capture], pool }) => {
              pool.u8.set(all);
              const iov = new Uint32Array(IOVEC_WORDS * (more.length + 1));
              let at = 1000;
              more.forEach((size, i) => {
                pool.u8.fill(i + 1, at, at + size);
                all.push(...Array(size).fill(i + 1));
                iovecWrite(iov, (i + 1) * IOVEC_WORDS, pool.address + at, size);
                at += size;
              });
              capture!.stamp();
              capture!.toGuest(0, first, iov, IOVEC_WORDS, more.length, at - 1000, 0);
            },
            { snapBytes },
          );
          const [frame] = framesOf(bytes);
          expect([...frame!.captured]).toEqual(all.slice(0, snapBytes));
          expect(frame!.original).toBe(all.length);
        },
      ),
      { numRuns: 20 },
    );
  });

  it('the interface, and counters at the end', async () => {
    const { bytes } = await captured((rig) => rig.send(60), {
      filter: { text: 'not arp', program: captureFilter('not arp') },
    });
    const [section, description, , statistics] = readPcapng(bytes);
    const text = (block: typeof section, code: number): string =>
      block!.options.find(([c]) => c === code)![1].toString();
    expect(text(section, 4)).toBe('test 1');
    expect([text(description, 2), text(description, 3), text(description, 11)]).toEqual([
      't0',
      'of a test',
      '\0not arp',
    ]);
    const number = (code: number): bigint =>
      statistics!.options.find(([c]) => c === code)![1].readBigUInt64LE(0);
    expect([4, 5, 6, 7, 8].map(number)).toEqual([1n, 0n, 1n, 0n, 1n]);
    expect(text(statistics, 1)).toContain('\nframesFromGuest 1\ndrop.short 3');
  });
});

it('filter: dropped decides when the frame was handled', async () => {
  const filter = { text: 'dropped', program: captureFilter('dropped') };
  const { bytes } = await captured(
    ({ threads: [capture] }) => {
      for (let i = 0; i < 6; i++) {
        capture!.open(0, 60 + i, 0, 0);
        if (i % 3 === 1) {
          capture!.stamp();
          capture!.toGuest(0, 99, new Uint32Array(4), 0, 0, 0, i === 4 ? lostBy(Counter.tapWriteErrors) : 0);
        }
        if (i % 2 === 1) capture!.drop(StageDrop.dhcp);
        capture!.close();
      }
    },
    { filter },
  );
  expect(framesOf(bytes).map(({ captured }) => captured.length)).toEqual([61, 63, 99, 65]);
});

it('any sequence of frames, over many times the length of a ring: all, in order', async () => {
  const { bytes, rig } = await captured(async (rig) => {
    for (let i = 0; i < 400; i++) {
      const [capture] = rig.threads;
      const size = [60, 1514, 65_549, 150_001][i & 3]!;
      if (i % 5 === 0) {
        rig.pool.dv.setUint32(0, i);
        capture!.open(0, 100, 100, size - 100);
        capture!.stamp();
        capture!.toGuest(0, 64, new Uint32Array(4), 0, 0, 0, 0);
        capture!.close();
      } else rig.send(size);
      if (i % 40 === 39) await new Promise((resolve) => setTimeout(resolve, 12));
    }
  });
  expect(bytes.length).toBeGreaterThan(2 * RING_BYTES);
  expect([rig.lost, rig.warned]).toEqual([0, []]);
  const sizes = framesOf(bytes).map(({ original }) => original);
  expect(sizes.length).toBe(480);
});

it('several threads: the file is in the order of time', async () => {
  const { bytes } = await captured(
    async (rig) => {
      for (let i = 0; i < 300; i++) {
        rig.send(60, (i * 7) % 3);
        if (i % 50 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
      }
    },
    { threads: 3 },
  );
  expect(framesOf(bytes).map(({ captured }) => captured.readUInt32BE(0))).toEqual([...Array(300).keys()]);
});

/** A reader that stands still until it is told. */
class SlowSink implements CaptureSink {
  readonly name = '--pcap slow';
  readonly hasFailed = false;
  readonly failure = undefined;
  readonly waitMs: number;
  isOpen = false;
  records = 0;
  constructor(waitMs: number) {
    this.waitMs = waitMs;
  }
  take(_file: unknown, _address: number, starts: readonly number[], from: number): Taken {
    const records = this.isOpen ? starts.length - 1 - from : 0;
    this.records += records;
    return { records, bytes: 0 };
  }
  end(): void {}
}

describe('a ring that is full', () => {
  it('a reader that stands still delays no packet thread; what it loses is counted, once in the log', async () => {
    const sink = new SlowSink(0);
    const rig = new CaptureRig(sink);
    const before = performance.now();
    for (let i = 0; i < 1000; i++) rig.send(65_000);
    expect(performance.now() - before).toBeLessThan(1000);
    const { lost } = rig;
    expect(lost).toBeGreaterThan(700);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(rig.warned).toEqual([
      '--pcap slow: frames come faster than they can be written: frames are missing from it',
    ]);
    sink.isOpen = true;
    await rig.capture.end();
    expect(sink.records).toBe(1000 - lost);
  });

  it('a file: a packet thread waits for the disk, but only once', () => {
    const rig = new CaptureRig(new SlowSink(30));
    const before = performance.now();
    for (let i = 0; i < 300; i++) rig.send(65_000);
    expect(performance.now() - before).toBeGreaterThanOrEqual(29);
    expect(performance.now() - before).toBeLessThan(300);
    expect(rig.lost).toBeGreaterThan(0);
    void rig.capture.end();
  });

  it('the next frame says how many are missing before it', async () => {
    const { bytes, rig } = await captured(async (rig) => {
      for (let i = 0; i < 200; i++) rig.send(65_000); // without a pause the main thread writes nothing
      await new Promise((resolve) => setTimeout(resolve, 50));
      rig.send(60);
    });
    expect(rig.lost).toBeGreaterThan(0);
    const last = framesOf(bytes).at(-1)!;
    expect([last.original, last.dropCount]).toEqual([60, BigInt(rig.lost)]);
    const statistics = readPcapng(bytes).at(-1)!;
    expect(statistics.options.find(([code]) => code === 7)![1].readBigUInt64LE(0)).toBe(BigInt(rig.lost));
  });
});

describe('rotation', () => {
  it('by size: each file is whole, within the size, and has its counters; the first is written again', async () => {
    const many = [open(), open(), open()];
    const rig = new CaptureRig(new FileSink('--pcap x', many, { bytes: 70_000, seconds: 0 }));
    for (let i = 0; i < 200; i++) {
      rig.send(1000);
      if (i % 20 === 0) await new Promise((resolve) => setTimeout(resolve, 2));
    }
    await rig.capture.end();
    const numbers = many.map(({ name }) =>
      framesOf(readFileSync(name)).map(({ captured }) => captured.readUInt32BE(0)),
    );
    expect(numbers.flat().length).toBeGreaterThan(130);
    // 66 to a file: the first file has the last frames.
    const inOrder = [...numbers.slice(1), numbers[0]!].flat();
    expect(inOrder).toEqual(Array.from(inOrder, (_, i) => 200 - inOrder.length + i));
    for (const { name } of many) {
      const blocks = readPcapng(readFileSync(name));
      expect(blocks.at(-1)!.type).toBe(5);
      expect(readFileSync(name).length).toBeLessThan(71_000);
      const delivered = blocks
        .at(-1)!
        .options.find(([code]) => code === 8)![1]
        .readBigUInt64LE(0);
      expect(delivered).toBe(BigInt(blocks.filter(({ type }) => type === 6).length));
    }
  });

  it('by time: once a file has frames; files that are not reached are captures without frames', async () => {
    const many = [open(), open(), open()];
    const rig = new CaptureRig(new FileSink('--pcap x', many, { bytes: 0, seconds: 0.05 }));
    await new Promise((resolve) => setTimeout(resolve, 80));
    rig.send(60);
    await new Promise((resolve) => setTimeout(resolve, 80));
    rig.send(61);
    await rig.capture.end();
    expect(many.map(({ name }) => framesOf(readFileSync(name)).map(({ original }) => original))).toEqual([
      [60],
      [61],
      [],
    ]);
  });
});

it('ring in memory: frames that packet threads lose meanwhile are not among those that were written', () => {
  const ring = new RingSink(new FileSink('--pcap x', [open()]), 1_000_000);
  const stage = new NativeBuffer(64);
  let lost = 0;
  const nothing = new Uint8Array(0);
  const file: SinkFile = {
    ...{
      now: () => [0, 0],
      wrote: () => {},
      lost: () => {},
      header: () => nothing,
      statistics: () => nothing,
    },
    totals: () => ({ received: 0, drops: 0, accepted: 0, lost: (lost += 1000) }),
  };
  ring.take(file, stage.address, [0, 32, 64], 0);
  expect(ring.dump(file)).toMatch(/: 2 frames written$/);
});

it('ring in memory: the last frames, each time they are asked for, in the next file', async () => {
  const many = [open(), open()];
  const rig = new CaptureRig(new RingSink(new FileSink('--pcap x', many), 1_000_000));
  for (let i = 0; i < 3000; i++) {
    rig.send(1000);
    if (i % 500 === 0) await new Promise((resolve) => setTimeout(resolve, 15));
  }
  expect(rig.capture.dump()).toBe(`${many[0]!.name}: 935 frames written`);
  rig.send(77);
  expect(rig.capture.dump()).toMatch(/: 9[0-9]{2} frames written$/);
  rig.send(78);
  await rig.capture.end();
  const [first, second] = many.map(({ name }) => framesOf(readFileSync(name)));
  expect(first!.map(({ captured }) => captured.readUInt32BE(0))).toEqual(
    [...Array(935).keys()].map((i) => 2065 + i),
  );
  expect(second!.at(-1)!.original).toBe(77);
  expect(many.map(({ name }) => readPcapng(readFileSync(name)).at(-1)!.type)).toEqual([5, 5]);
});

describe('a pipe', () => {
  const fds = new Int32Array(2);
  const readSome = (fd: number, bytes: number): Buffer => {
    const buffer = Buffer.alloc(bytes);
    try {
      return buffer.subarray(0, readSync(fd, buffer));
    } catch {
      return Buffer.alloc(0); // EAGAIN
    }
  };

  it('a reader that reads slowly gets whole blocks', async () => {
    pipe2(fds, constants.O_NONBLOCK);
    const sink = new StreamSink('--pcap -', fds[1]!);
    const rig = new CaptureRig(sink);
    const parts: Buffer[] = [];
    for (let i = 0; i < 100; i++) rig.send(30_000);
    let complete = false;
    const ended = rig.capture.end().then(() => {
      complete = true;
    });
    for (let wasComplete = false; ; wasComplete = complete) {
      const part = readSome(fds[0]!, 50_000);
      parts.push(part);
      if (part.length === 0 && wasComplete) break;
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    await ended;
    closeSync(fds[0]!);
    expect(framesOf(Buffer.concat(parts)).map(({ captured }) => captured.readUInt32BE(0))).toEqual([
      ...Array(100).keys(),
    ]);
    expect(readPcapng(Buffer.concat(parts)).at(-1)!.type).toBe(5);
  });

  it('a reader that has gone: one line, and the packet threads write nothing more', async () => {
    pipe2(fds, constants.O_NONBLOCK);
    const rig = new CaptureRig(new StreamSink('--pcap -', fds[1]!));
    closeSync(fds[0]!);
    rig.send(60);
    await new Promise((resolve) => setTimeout(resolve, 40));
    rig.send(60);
    await rig.capture.end();
    expect(rig.warned).toEqual(['--pcap -: its reader has gone: the capture ends']);
    expect([rig.counters[Counter.pcapFrames], rig.capture.lostByWriting]).toEqual([1, 1]);
  });

  it('a reader that stands still does not hold up the end, and what it did not get is counted', async () => {
    pipe2(fds, constants.O_NONBLOCK);
    const rig = new CaptureRig(new StreamSink('--pcap -', fds[1]!));
    for (let i = 0; i < 100; i++) rig.send(30_000);
    const before = performance.now();
    await rig.capture.end();
    expect(performance.now() - before).toBeLessThan(1500);
    const got = Math.floor((100 - rig.capture.lostByWriting) * 30_000);
    expect(got).toBeLessThan(1_100_000);
    closeSync(fds[0]!);
  });
});

/** Results of a capture whose file is limited to `limit` bytes. */
function limited(limit: number, file: string, frames: readonly number[]): object {
  const fixture = fileURLToPath(new URL('./fixtures/short-capture.ts', import.meta.url));
  const args = [`--fsize=${limit}`, process.execPath, fixture, file, ...frames.map(String)];
  const env = { ...process.env, NODE_OPTIONS: '' };
  return JSON.parse(execFileSync('prlimit', args, { encoding: 'utf8', env }));
}

describe('a full disk', () => {
  it('a record written in part is removed and counted; a shorter one behind it has room', () => {
    const file = join(dir, 'short.pcap');
    expect(limited(1000, file, [400, 400, 400, 50])).toEqual({
      lost: 1,
      warned: ['--pcap FILE: no space left on device: frames are missing from it'],
    });
    expect(readPcap(readFileSync(file)).map(({ original }) => original)).toEqual([400, 400, 50]);
  });

  it('a file header written in part: an error', () => {
    expect(limited(10, join(dir, 'header.pcap'), [])).toEqual({
      error: '--pcap FILE: cannot be written: no space left on device',
    });
  });
});
