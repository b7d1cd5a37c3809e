// @vitest: beside
/** Calls into the C library: arguments, results and errno are the same on both runtimes. */
import { describe, expect, it } from 'vitest';
import {
  type ArgumentType,
  lastErrno,
  nativeAddress,
  nativeFunction,
  type ResultType,
  strerror,
  uvStrerror,
} from '#runtime/ffi';
import { SLOTS } from '../../src/runtime/bun/trampoline-code.ts';
import { Errno } from '../../src/sys/constants.ts';
import { NativeBuffer } from '../../src/sys/memory.ts';
import { ON_BUN } from '../support/runtime.ts';
import { ERRNO_CASES, type ErrnoReport, errnoLoop } from './errno-loop.ts';
import type { ErrnoTask } from './errno-loop.worker.ts';
import { collectGarbage, reportsOf } from './thread-reports.ts';

type N = number;
const P = 'uintptr_t';
const S = 'const char *';

const getpid = nativeFunction<[]>('getpid', 'int', []);
const strlen = nativeFunction<[string]>('strlen', 'intptr_t', [S]);
/** memcpy() of no bytes returns its first argument. */
const echo = nativeFunction<[N, N, N]>('memcpy', 'intptr_t', [P, P, 'size_t']);

/**
 * What snprintf() makes of three arguments behind its format: they are the fourth to the sixth of the call.
 */
function printed(
  format: string,
  types: [ArgumentType, ArgumentType, ArgumentType],
  ...values: [N, N, N]
): string {
  const text = new NativeBuffer(256);
  const snprintf = nativeFunction<[N, N, string, N, N, N]>('snprintf', 'int', [P, 'size_t', S, ...types]);
  const length = snprintf(text.address, 256, format, ...values);
  return Buffer.from(text.u8.subarray(0, length)).toString();
}

describe('arguments and results', () => {
  it('0 to 6 arguments: each arrives in its place', () => {
    expect(getpid()).toBe(process.pid);
    expect(nativeFunction<[N]>('abs', 'int', ['int'])(-5)).toBe(5);
    expect(nativeFunction<[N, N]>('getpriority', 'int', ['int', 'int'])(7, 0)).toBe(-1); // no such kind
    expect(echo(123, 456, 0)).toBe(123);
    const bytes = new NativeBuffer(64);
    const memccpy = nativeFunction<[N, N, N, N]>('memccpy', 'intptr_t', [P, P, 'int', 'size_t']);
    bytes.u8.set([1, 2, 3, 4]);
    expect(memccpy(bytes.address + 32, bytes.address, 3, 8)).toBe(bytes.address + 35);
    expect([...bytes.u8.subarray(32, 37)]).toEqual([1, 2, 3, 0, 0]);
    const bsearch = nativeFunction<[N, N, N, N, N]>('bsearch', 'intptr_t', [P, P, 'size_t', 'size_t', P]);
    expect(bsearch(bytes.address, bytes.address, 0, 1, 0)).toBe(0);
    expect(printed('%d|%ld|%lu', ['int', 'int64_t', P], -7, -(2 ** 40), 2 ** 47 - 8)).toBe(
      '-7|-1099511627776|140737488355320',
    );
    expect(
      printed('%u|%zu|%lx', ['uint32_t', 'size_t', 'unsigned long'], 2 ** 32 - 1, 2 ** 52, 2 ** 40),
    ).toBe('4294967295|4503599627370496|10000000000');
  });

  it('addresses and sizes to 2^53 - 1 and their negatives: arrive and return exact', () => {
    for (const value of [
      0,
      1,
      2 ** 31,
      2 ** 32,
      2 ** 32 + 5,
      2 ** 47 - 1,
      2 ** 47,
      2 ** 53 - 1,
      -1,
      -5,
      1 - 2 ** 53,
    ])
      expect(echo(value, 0, 0)).toBe(value);
  });

  it('int and uint32_t: the low 32 bits, with and without sign', () => {
    const abs = nativeFunction<[N]>('abs', 'int', ['int']);
    expect([abs(-1), abs(-(2 ** 31)), abs(2 ** 32 - 1)]).toEqual([1, -(2 ** 31), 1]);
    const htonl = nativeFunction<[N]>('htonl', 'uint32_t', ['uint32_t']);
    expect([htonl(1), htonl(0x80), htonl(-1)]).toEqual([0x0100_0000, 0x8000_0000, 0xffff_ffff]);
  });

  it('an address that no process has: EFAULT, not a crash', () => {
    const read = nativeFunction<[N, N, N]>('read', 'intptr_t', ['int', P, 'size_t']);
    const open = nativeFunction<[string, N]>('open', 'int', [S, 'int']);
    const close = nativeFunction<[N]>('close', 'int', ['int']);
    const zero = open('/dev/zero', 0);
    for (const address of [2 ** 47 - 4096, 2 ** 47, 2 ** 52, 2 ** 53 - 1, -4096])
      expect([address, read(zero, address, 8), lastErrno()]).toEqual([address, -1, Errno.EFAULT]);
    close(zero);
  });

  it('strings: UTF-8; null is NULL; one with NUL inside is refused', () => {
    expect(['', 'a', 'é', '😀', 'é'.repeat(5000)].map((text) => strlen(text))).toEqual([0, 1, 2, 4, 10_000]);
    expect(strlen('\ud800')).toBe(3); // as U+FFFD
    const strcmp = nativeFunction<[string, string]>('strcmp', 'int', [S, S]);
    expect(strcmp('ä😀', 'ä😀')).toBe(0);
    expect(strcmp('b', 'a')).toBeGreaterThan(0);
    const access = nativeFunction<[string | null, N]>('access', 'int', [S, 'int']);
    expect([access(null, 0), lastErrno()]).toEqual([-1, Errno.EFAULT]);
    expect(() => access('/dev/null\0.txt', 0)).toThrow('access(): NUL character in "/dev/null\\u0000.txt"');
  });

  it('strings of a call that collects garbage meanwhile: stay', () => {
    const openat = nativeFunction<[N, string, N]>('openat', 'int', ['int', S, 'int']);
    for (let i = 0; i < 2000; i++) {
      if (i % 100 === 0) collectGarbage();
      expect([openat(-1, `no/such/file/${i}`, 0), lastErrno()]).toEqual([-1, Errno.EBADF]);
    }
  });

  it('a function that is missing, more than six arguments: refused', () => {
    expect(() => nativeFunction('no_such_function', 'int', [])).toThrow(
      'the C library has no no_such_function()',
    );
    expect(() => nativeFunction('syscall', 'int', [P, P, P, P, P, P, P])).toThrow(
      new RangeError('syscall: more than 6 arguments'),
    );
  });
});

describe('addresses of views', () => {
  it.each([1, 8, 10, 100, 999, 1001, 100_000])('%i bytes: what C writes there is in the view', (bytes) => {
    const view = new Uint8Array(bytes);
    const memset = nativeFunction<[N, N, N]>('memset', 'intptr_t', [P, 'int', 'size_t']);
    const address = nativeAddress(view);
    expect(memset(address, 7, bytes)).toBe(address);
    collectGarbage();
    expect(view.every((byte) => byte === 7)).toBe(true);
    expect(nativeAddress(new Uint8Array(view.buffer))).toBe(address - view.byteOffset);
    expect(nativeAddress(view)).toBe(address);
    if (bytes > 1) expect(nativeAddress(view.subarray(1))).toBe(address + 1);
  });

  it('shared memory: as other memory; a view without bytes: refused', () => {
    const shared = new Int32Array(new SharedArrayBuffer(64), 16);
    expect(nativeAddress(shared)).toBe(nativeAddress(new Uint8Array(shared.buffer)) + 16);
    expect(() => nativeAddress(new Uint8Array(0))).toThrow(TypeError);
  });
});

describe('errno', () => {
  it.each<[ResultType, string, string]>([
    ['int', 'close', 'access'],
    ['uint32_t', 'close', 'access'],
    ['intptr_t', 'read', 'readlink'], // ssize_t
  ])('result of type %s: errno of the call that failed', (result, onNumber, onPath) => {
    const failure = result === 'uint32_t' ? 2 ** 32 - 1 : -1;
    const descriptor = nativeFunction<[N, N, N]>(onNumber, result, ['int', P, 'size_t']);
    const path = nativeFunction<[string, N, N]>(onPath, result, [S, P, 'size_t']);
    expect([descriptor(-1, 0, 0), lastErrno()]).toEqual([failure, Errno.EBADF]);
    expect([path('/no/such/file', 0, 1), lastErrno()]).toEqual([failure, Errno.ENOENT]);
    expect([descriptor(-1, 0, 0), lastErrno()]).toEqual([failure, Errno.EBADF]);
  });

  // With collections between a call and the look at errno: only on Bun, where trampolines keep it.
  describe.each(ON_BUN ? [false, true] : [false])('collections in between: %s', (between) => {
    it('a million failing calls among allocations: each has its errno', () => {
      expect(errnoLoop(1_000_000, between)).toEqual<ErrnoReport>({ calls: 1_000_000, wrong: 0 });
    }, 120_000);

    it('threads that fail in different ways at the same time: none sees the errno of another', async () => {
      const program = new URL('./errno-loop.worker.ts', import.meta.url);
      const calls = 100_000;
      const tasks = [0, 1, 2, 3, 4, 5, 6, 7].map(
        (i): ErrnoTask => ({ which: i % ERRNO_CASES, calls, between }),
      );
      const reports = await reportsOf<ErrnoReport>(program, tasks);
      expect(reports).toEqual(tasks.map(() => ({ calls, wrong: 0 })));
    }, 120_000);
  });
});

describe('texts of errno', () => {
  it('the C library has one for each, libuv for those that it knows: the same on both runtimes', () => {
    const texts = Array.from(
      { length: 135 },
      (_, errno) => `${errno} ${strerror(errno)} | ${uvStrerror(errno)}`,
    );
    expect(texts.slice(0, 3)).toEqual([
      '0 Success | undefined',
      '1 Operation not permitted | operation not permitted',
      '2 No such file or directory | no such file or directory',
    ]);
    expect(texts.join('\n')).toMatchSnapshot();
  });
});

describe.runIf(ON_BUN)('trampolines', () => {
  const program = new URL('./trampolines.worker.ts', import.meta.url);

  it('their code is not writable, their data not executable, and no other memory became both', async () => {
    const [rights] = await reportsOf(program, ['rights']);
    expect(rights).toEqual({ trampolines: ['r-xp', 'rw-p'], madeWritableAndExecutable: 0 });
  });

  it('more functions than places: an error, and the others still work', async () => {
    // Some functions have two names and one address.
    const [report] = await reportsOf<{ readonly linked: number }>(program, ['exhaust']);
    expect(report).toEqual({
      linked: expect.any(Number),
      error: `more than ${SLOTS} C functions`,
      works: true,
    });
    expect(report!.linked).toBeGreaterThanOrEqual(SLOTS);
  });

  it('a function that is declared again and again: takes one place', async () => {
    expect(await reportsOf(program, ['repeat'])).toEqual([{ linked: 1000, works: true }]);
  });
});
