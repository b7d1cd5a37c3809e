// @vitest: beside
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import * as k from '../../src/sys/constants.ts';
import {
  INOTIFY_EVENT_BYTES,
  INOTIFY_LEN_AT,
  type InotifyEvent,
  inotifyAddWatch,
  inotifyEvents,
  inotifyInit,
} from '../../src/sys/inotify.ts';
import { close, read } from '../../src/sys/io.ts';
import { NativeBuffer } from '../../src/sys/memory.ts';

/** As the kernel writes them: names with one to `padding` zeros. */
function encode(events: readonly InotifyEvent[], padding = 16): Uint8Array {
  const parts = events.map(({ wd, mask, name }) => {
    const bytes = Buffer.from(name);
    const len = bytes.length === 0 ? 0 : (Math.floor(bytes.length / padding) + 1) * padding;
    const part = Buffer.alloc(INOTIFY_EVENT_BYTES + len);
    part.writeInt32LE(wd, 0);
    part.writeUInt32LE(mask, 4);
    part.writeUInt32LE(len, 12);
    bytes.copy(part, INOTIFY_EVENT_BYTES);
    return part;
  });
  return Uint8Array.from(Buffer.concat(parts));
}

const anyEvent = fc.record({
  wd: fc.integer({ min: -1, max: 0x7fff_ffff }),
  mask: fc.integer({ min: 0, max: 0xffff_ffff }),
  name: fc.string({ unit: 'grapheme', maxLength: 60 }).map((name) => name.replaceAll('\0', '')),
});

describe('event codec', () => {
  it('a name with padding, an event of the watched file itself, an overflow: parsed', () => {
    const bytes = Uint8Array.from([
      ...[1, 0, 0, 0], // wd 1
      ...[0x00, 0x01, 0, 0], // IN_CREATE
      ...[0, 0, 0, 0], // cookie
      ...[16, 0, 0, 0], // len
      ...[0x61, 0x62, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], // "ab"
      ...[2, 0, 0, 0], // wd 2
      ...[0x00, 0x80, 0, 0], // IN_IGNORED
      ...[0, 0, 0, 0],
      ...[0, 0, 0, 0],
      ...[0xff, 0xff, 0xff, 0xff], // wd -1
      ...[0x00, 0x40, 0, 0], // IN_Q_OVERFLOW
      ...[0, 0, 0, 0],
      ...[0, 0, 0, 0],
    ]);
    expect(inotifyEvents(bytes, bytes.length)).toEqual([
      { wd: 1, mask: k.IN_CREATE, name: 'ab' },
      { wd: 2, mask: k.IN_IGNORED, name: '' },
      { wd: -1, mask: k.IN_Q_OVERFLOW, name: '' },
    ]);
  });

  it('any events: parsed as they were written', () => {
    fc.assert(
      fc.property(fc.array(anyEvent, { maxLength: 8 }), (events) => {
        const bytes = encode(events);
        expect(inotifyEvents(bytes, bytes.length)).toEqual(events);
      }),
    );
  });

  it('an error or nothing was read: no events', () => {
    const bytes = encode([{ wd: 1, mask: 2, name: 'x' }]);
    for (const length of [-11, 0, 1, 15]) expect(inotifyEvents(bytes, length)).toEqual([]);
  });

  it('events cut at any byte, any bytes behind: the whole events before, nothing of what is behind', () => {
    fc.assert(
      fc.property(
        fc.array(anyEvent, { minLength: 1, maxLength: 4 }),
        fc.nat(),
        fc.nat(255),
        (events, n, fill) => {
          const whole = encode(events);
          const cut = n % whole.length;
          const bytes = whole.slice().fill(fill, cut);
          const ends = events.map((_, i) => encode(events.slice(0, i + 1)).length);
          expect(inotifyEvents(bytes, cut)).toEqual(events.filter((_, i) => ends[i]! <= cut));
        },
      ),
    );
  });

  it('a length beyond what was read: ends the list', () => {
    for (const len of [17, 1000, 0x7fff_ffff, 0xffff_fff0, 0xffff_ffff]) {
      const bytes = encode([{ wd: 1, mask: 2, name: 'x' }]);
      new DataView(bytes.buffer).setUint32(INOTIFY_LEN_AT, len, true);
      expect(inotifyEvents(bytes, bytes.length)).toEqual([]);
      expect(inotifyEvents(bytes, 10_000)).toEqual([]);
    }
  });

  it('a name without a zero: the whole length', () => {
    const bytes = encode([{ wd: 1, mask: 2, name: 'abc' }], 4);
    bytes[INOTIFY_EVENT_BYTES + 3] = 0x64;
    expect(inotifyEvents(bytes, bytes.length)).toEqual([{ wd: 1, mask: 2, name: 'abcd' }]);
  });
});

describe("the kernel's events", () => {
  const buffer = new NativeBuffer(4096);
  let dir = '';
  let fd = -1;
  beforeEach(() => {
    dir = mkdtempSync(`${tmpdir()}/inotify-`);
    fd = inotifyInit();
  });
  afterEach(() => {
    close(fd);
    rmSync(dir, { recursive: true, force: true });
  });
  const events = (): InotifyEvent[] => inotifyEvents(buffer.u8, read(fd, buffer.address, 4096));

  it('nothing has happened: read gives EAGAIN', () => {
    expect(read(fd, buffer.address, 4096)).toBe(-k.Errno.EAGAIN);
  });

  it('files are created, renamed, written and removed: an event for each, with the name', () => {
    const wd = inotifyAddWatch(
      fd,
      dir,
      k.IN_CREATE | k.IN_MOVED_FROM | k.IN_MOVED_TO | k.IN_MODIFY | k.IN_DELETE,
    );
    const long = 'n'.repeat(255);
    writeFileSync(`${dir}/ä`, 'x');
    renameSync(`${dir}/ä`, `${dir}/${long}`);
    rmSync(`${dir}/${long}`);
    expect(events()).toEqual([
      { wd, mask: k.IN_CREATE, name: 'ä' },
      { wd, mask: k.IN_MODIFY, name: 'ä' },
      { wd, mask: k.IN_MOVED_FROM, name: 'ä' },
      { wd, mask: k.IN_MOVED_TO, name: long },
      { wd, mask: k.IN_DELETE, name: long },
    ]);
  });

  it('the watched directory is removed: IN_DELETE_SELF, then IN_IGNORED without having asked for it', () => {
    mkdirSync(`${dir}/sub`);
    const wd = inotifyAddWatch(fd, `${dir}/sub`, k.IN_DELETE_SELF);
    rmSync(`${dir}/sub`, { recursive: true });
    expect(events()).toEqual([
      { wd, mask: k.IN_DELETE_SELF, name: '' },
      { wd, mask: k.IN_IGNORED, name: '' },
    ]);
  });

  it('one path twice, IN_MASK_ADD: one watch with both masks', () => {
    const wd = inotifyAddWatch(fd, dir, k.IN_CREATE | k.IN_MASK_ADD);
    expect(inotifyAddWatch(fd, dir, k.IN_DELETE | k.IN_MASK_ADD)).toBe(wd);
    mkdirSync(`${dir}/a`);
    rmSync(`${dir}/a`, { recursive: true });
    expect(events().map(({ mask }) => mask & (k.IN_CREATE | k.IN_DELETE))).toEqual([
      k.IN_CREATE,
      k.IN_DELETE,
    ]);
  });

  it('no such path: -ENOENT', () => {
    expect(inotifyAddWatch(fd, `${dir}/none`, k.IN_CREATE)).toBe(-k.Errno.ENOENT);
  });
});
