/**
 * Calls into the C library through koffi. Internal to src/sys: the other modules here declare their functions
 * with
 * `libc()` and turn a failure into -errno with `failed()`.
 *
 * The library is the one that this process is linked with (`koffi.load(null)`), so neither glibc nor musl
 * needs a file name. Pointers are declared as `uintptr_t` and passed as numbers (see memory.ts): no
 * conversion, no allocation. Variadic functions (ioctl, fcntl, open, prctl, syscall) are declared with the
 * fixed prototype of their use: on x86-64 and AArch64 Linux the arguments are passed in the same registers
 * either way, and koffi's own variadic path is slow.
 *
 * Measured with Node 26.10 on a 2-core x86-64 VM: 220-330 ns per call, kernel entry included; errno 27 ns.
 */
import { createRequire } from 'node:module';
import type * as Koffi from 'koffi';
import { Errno, errnoName } from './constants.ts';

/** A C function. Hot calls pass numbers only; strings are for the cold path (koffi copies them as UTF-8). */
export type NativeFunction<Args extends readonly (number | string | null)[]> = (...args: Args) => number;

const koffi = loadKoffi();
const library = koffi.load(null);

/**
 * Load koffi's binary directly from its package. koffi's JavaScript detects the platform, reads Node's ELF
 * header and wraps functions that are not used here, which takes 8 of the 15 ms in each thread that loads it.
 * If the binary is elsewhere (musl, another architecture, built from source), that JavaScript is loaded and
 * finds it.
 */
function loadKoffi(): typeof Koffi {
  const require = createRequire(import.meta.url);
  try {
    return require(`@koromix/koffi-linux-${process.arch}/linux_${process.arch}/koffi.node`);
  } catch {
    return require('koffi');
  }
}

/**
 * Declare a C function.
 * @param result,args  C types in koffi's syntax
 * @returns a function whose result is a number
 * @throws Error when the library does not have the function
 */
export function libc<Args extends readonly (number | string | null)[]>(
  name: string,
  result: 'int' | 'intptr_t' | 'uint32_t',
  args: readonly string[],
): NativeFunction<Args> {
  return library.func(name, result, [...args]) as unknown as NativeFunction<Args>;
}

/** Declare a C function that not every C library has; undefined where it is missing. */
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
 * The -errno of a call that has just returned -1. Always negative: -EIO if something has cleared errno since.
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

/** Make a system call for which some C library has no function. @returns its result or -errno */
export function syscall4(call: number, a: number, b: number, c: number, d: number): number {
  const r = cSyscall(call, a, b, c, d);
  return r < 0 ? failed() : r;
}

/** The address of the first byte of a view. Cold: koffi returns a BigInt, which is converted. */
export function nativeAddress(view: ArrayBufferView): number {
  return Number(koffi.address(view));
}

const cStrerror = library.func('strerror', 'const char *', ['int']) as unknown as (errno: number) => string;

/**
 * The C library's text for a positive errno: `Address already in use`. For messages that callers of this
 * program match on. Cold.
 */
export const strerror = (errno: number): string => cStrerror(errno);

const cUvStrerror = library.func('uv_strerror', 'const char *', ['int']) as unknown as (
  error: number,
) => string;

/**
 * libuv's text for a positive errno, which Node's errors have too: `connection refused` for 111. The errno's
 * name where libuv has no text. Cold. node:util's getSystemErrorMessage() is not used: importing node:util
 * makes Node load a dozen more modules, 1 ms of each thread's start.
 */
export function errnoText(errno: number): string {
  const text = cUvStrerror(-errno);
  return text.startsWith('Unknown system error') ? errnoName(errno) : text;
}
