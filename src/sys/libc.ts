/**
 * Calls into the C library. Internal to src/sys: the other modules here declare their functions with `libc()`
 * and turn a failure into -errno with `failed()`.
 *
 * Pointers are declared as `uintptr_t` and passed as numbers (see memory.ts): no conversion, no allocation.
 * Variadic functions (ioctl, fcntl, open, prctl, syscall) are declared with the fixed prototype of their use:
 * on x86-64 and AArch64 Linux the arguments are passed in the same registers either way.
 */
import {
  type ArgumentType,
  lastErrno,
  type NativeFunction,
  nativeFunction,
  type ResultType,
  uvStrerror,
} from '#runtime/ffi';
import { Errno, errnoName } from './constants.ts';

export { nativeAddress, strerror } from '#runtime/ffi';

/**
 * Declare a C function.
 * @returns a function whose result is a number
 * @throws Error when the library does not have the function
 */
export function libc<Args extends readonly (number | string | null)[]>(
  name: string,
  result: ResultType,
  args: readonly ArgumentType[],
): NativeFunction<Args> {
  return nativeFunction(name, result, args);
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
  const errno = lastErrno();
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

/**
 * libuv's text for a positive errno, which the runtimes' errors have too: `connection refused` for 111. The
 * errno's name where libuv has no text. Cold.
 */
export const errnoText = (errno: number): string => uvStrerror(errno) ?? errnoName(errno);
