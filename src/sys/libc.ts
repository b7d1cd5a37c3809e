/**
 * The C library, as koffi sees it. Internal to src/sys: the other modules here declare their functions with
 * `libc()` and turn a failure into -errno with `failed()`.
 *
 * The library is the one this process already runs on (`koffi.load(null)`), so glibc and musl need no file
 * name. Pointers are declared `uintptr_t` and passed as JS numbers (see memory.ts): no conversion, no
 * allocation. Variadic functions (ioctl, fcntl, open, prctl, syscall) are declared with the fixed prototype
 * they are used with: on x86-64 and on AArch64 Linux both are passed in the same registers, and koffi's own
 * variadic path is slow.
 *
 * Measured with Node 26.10 on a 2-core x86-64 VM: 220-330 ns per call, kernel entry included; errno 27 ns.
 */
import { createRequire } from 'node:module';
import type * as Koffi from 'koffi';
import { Errno, errnoName } from './constants.ts';

/**
 * Native calls only ever take numbers here; strings are for the cold path (koffi copies them in, as UTF-8).
 */
export type NativeFunction<Args extends readonly (number | string | null)[]> = (...args: Args) => number;

const koffi = loadKoffi();
const library = koffi.load(null);

/**
 * Koffi's binary straight from its package: its JavaScript finds out the platform, reads Node's ELF header
 * and wraps names that are not used here, 8 of 15 ms in each thread that loads it. Where the binary does not
 * lie there (musl, another architecture, one built from source), koffi finds it by itself.
 */
function loadKoffi(): typeof Koffi {
  const require = createRequire(import.meta.url);
  try {
    return require(`@koromix/koffi-linux-${process.arch}/linux_${process.arch}/koffi.node`);
  } catch {
    return require('koffi');
  }
}

/** Declare a C function; `int` and `intptr_t` results come back as numbers. */
export function libc<Args extends readonly (number | string | null)[]>(
  name: string,
  result: 'int' | 'intptr_t' | 'uint32_t',
  args: readonly string[],
): NativeFunction<Args> {
  return library.func(name, result, [...args]) as unknown as NativeFunction<Args>;
}

/** The same for a function that not every C library has; undefined where it is missing. */
export function optionalLibc<Args extends readonly (number | string | null)[]>(
  ...declaration: Parameters<typeof libc>
): NativeFunction<Args> | undefined {
  try {
    return libc<Args>(...declaration);
  } catch {
    return undefined;
  }
}

/**
 * The result of a call that has just returned -1: always negative, also if something between the call and
 * here had cleared errno.
 */
export function failed(): number {
  const errno = koffi.errno();
  return errno > 0 ? -errno : -Errno.EIO;
}

const W = 'uintptr_t';
const cSyscall = libc<[number, number, number, number, number]>('syscall', 'intptr_t', [
  'int64_t',
  W,
  W,
  W,
  W,
]);

/** A system call that some C library has no function for. @returns its result or -errno */
export function syscall4(call: number, a: number, b: number, c: number, d: number): number {
  const r = cSyscall(call, a, b, c, d);
  return r < 0 ? failed() : r;
}

/** Where the bytes of a view are. Cold: goes through a BigInt. */
export function nativeAddress(view: ArrayBufferView): number {
  return Number(koffi.address(view));
}

const cStrerror = library.func('strerror', 'const char *', ['int']) as unknown as (errno: number) => string;

/**
 * The C library's text for a positive errno: `Address already in use`. For messages that callers match on.
 * Cold.
 */
export const strerror = (errno: number): string => cStrerror(errno);

const cUvStrerror = library.func('uv_strerror', 'const char *', ['int']) as unknown as (
  error: number,
) => string;

/**
 * `connection refused` for 111, libuv's text as Node has it; the errno's name where there is none. Cold. Not by way of node:util:
 * importing that makes Node load a dozen modules more, 1 ms of each thread's start.
 */
export function errnoText(errno: number): string {
  const text = cUvStrerror(-errno);
  return text.startsWith('Unknown system error') ? errnoName(errno) : text;
}
