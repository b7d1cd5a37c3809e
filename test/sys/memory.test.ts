// @vitest: beside
import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { Errno, errnoName, O_RDONLY } from '../../src/sys/constants.ts';
import { checked, SysError } from '../../src/sys/error.ts';
import { close, read } from '../../src/sys/io.ts';
import { errnoText } from '../../src/sys/libc.ts';
import { addressOf, NativeBuffer, writeAddress } from '../../src/sys/memory.ts';
import { openPath } from '../../src/sys/path.ts';
import { ON_BUN } from '../support/runtime.ts';

describe('memory', () => {
  it('the address of a view: includes the offset of the view', () => {
    const shared = new SharedArrayBuffer(4096);
    const base = addressOf(new Uint8Array(shared));
    expect(Number.isSafeInteger(base)).toBe(true);
    expect(addressOf(new Uint32Array(shared, 16))).toBe(base + 16);
    expect(addressOf(new DataView(shared, 100))).toBe(base + 100);
  });

  it('a small array in the V8 heap: does not move once its address was taken', () => {
    const small = new Uint8Array(16);
    const address = addressOf(small);
    const litter: unknown[] = [];
    for (let i = 0; i < 200_000; i++) litter.push([i, `${i}`]);
    expect(litter.length).toBe(200_000);
    expect(addressOf(small)).toBe(address);
    // The kernel writes to the current address of the array.
    small.fill(0xff);
    const zero = openPath('/dev/zero', O_RDONLY);
    expect(read(zero, address, 16)).toBe(16);
    close(zero);
    expect([...small]).toEqual(new Array(16).fill(0));
  });

  it('an empty array: no address', () => {
    expect(() => addressOf(new Uint8Array(0))).toThrow(RangeError);
  });

  it('a native buffer: zeroed, aligned, all views share its bytes', () => {
    const buffer = new NativeBuffer(13);
    expect(buffer.u8.length).toBe(16);
    expect(buffer.address % 8).toBe(0);
    buffer.u32[1] = 0x8899aabb;
    expect(buffer.i32[1]).toBe(0x8899aabb | 0);
    expect(buffer.u16[2]).toBe(0xaabb);
    expect(buffer.dv.getUint8(7)).toBe(0x88);
  });

  it('a pointer: two little-endian words, up to the largest exact integer', () => {
    const words = new Uint32Array(4);
    writeAddress(words, 1, 0x7fff_1234_5678);
    expect([...words]).toEqual([0, 0x1234_5678, 0x7fff, 0]);
    writeAddress(words, 2, Number.MAX_SAFE_INTEGER);
    expect([words[2], words[3]]).toEqual([0xffff_ffff, 0x1f_ffff]);
    writeAddress(words, 0, 0x8000_0000);
    expect([words[0], words[1]]).toEqual([0x8000_0000, 0]);
  });
});

describe('large arrays', () => {
  it('pages that were not written: take no memory', () => {
    const module = JSON.stringify(new URL('../../src/sys/memory.ts', import.meta.url));
    const program = `
      import { readFileSync } from 'node:fs';
      import { mapLargeArrays } from ${module};
      const residentKib = () => Number(/^VmRSS:\\s+(\\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))[1]);
      mapLargeArrays();
      const before = residentKib();
      const arrays = Array.from({ length: 150 }, () => new Int32Array(32768));
      console.log(residentKib() - before, arrays.length);
    `;
    const { stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
      encoding: 'utf8',
    });
    const [grownKib, arrays] = stdout.split(' ').map(Number);
    expect(arrays).toBe(150);
    // Of 19,200; 9,000 and more where calloc clears what glibc had put by. Bun loads code of its own meanwhile.
    expect(grownKib).toBeLessThan(ON_BUN ? 7000 : 4096);
  });
});

describe('errors', () => {
  it('error numbers: names and texts', () => {
    expect(errnoName(Errno.ECONNREFUSED)).toBe('ECONNREFUSED');
    expect(errnoText(Errno.ECONNREFUSED)).toBe('connection refused');
    expect(errnoName(999)).toBe('errno 999');
    expect(errnoText(999)).toBe('errno 999');
  });

  it('a failed call: the message has call, arguments, errno and remedy', () => {
    expect(checked(7, 'open', 'x')).toBe(7);
    const error = new SysError('open', '/dev/net/tun', Errno.EACCES, 'chmod it');
    expect(error.message).toBe('open(/dev/net/tun): EACCES (permission denied); chmod it');
    expect(error.code).toBe('EACCES');
    expect(() => checked(openPath('/does/not/exist', O_RDONLY), 'open', '/does/not/exist')).toThrow(
      'open(/does/not/exist): ENOENT (no such file or directory)',
    );
  });
});
