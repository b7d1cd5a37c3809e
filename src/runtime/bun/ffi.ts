/**
 * Calls into C libraries on Bun: bun:ffi, through small pieces of machine code of our own.
 *
 * bun:ffi has no errno, and the JavaScript engine may make system calls of its own between the return of a
 * call and the next line of JavaScript. So each C function is called through a trampoline: machine code that
 * calls the function and, if it returned -1, copies errno to a word of this thread before it returns. All
 * trampolines are alike; each takes its function's address from a table. So the code is written once and is
 * never writable and executable at the same time.
 *
 * Numbers travel in registers: `u64_fast` and `i64_fast` take and give plain numbers while these are safe
 * integers, which addresses are. Measured with Bun 1.4.5 on a 2-core x86-64 VM: read(-1) 105 ns, of which the
 * system call takes 100 and the trampoline none that could be measured.
 */

import { CFunction, CString, dlopen, ptr, toArrayBuffer } from 'bun:ffi';
import { writeSync } from 'node:fs';
import type { ArgumentType, NativeFunction, ResultType } from '../node/ffi.ts';
import {
  CALL_SLOTS,
  CODE_BYTES,
  ERRNO_AT,
  ERRNO_FUNCTION_AT,
  FUNCTIONS_AT,
  SLOT_BYTES,
  SLOTS,
  systemCalls,
  TRAMPOLINE_BYTES,
  writeTrampolineCode,
} from './trampoline-code.ts';

export type { ArgumentType, NativeFunction, ResultType };

/** C types by the names that bun:ffi has for them. */
const TYPES = {
  int: 'i32',
  uint32_t: 'u32',
  uintptr_t: 'u64_fast',
  size_t: 'u64_fast',
  'unsigned long': 'u64_fast',
  int64_t: 'i64_fast',
  intptr_t: 'i64_fast',
  'const char *': 'ptr',
} as const satisfies Record<ArgumentType, string>;

const { isMainThread } = (globalThis as unknown as { readonly Bun: { readonly isMainThread: boolean } }).Bun;

/**
 * Both calling conventions pass six integers in registers (x86-64; AArch64 eight), and no call here has more.
 */
const MAX_ARGUMENTS = 6;

/**
 * Bun is linked with this library. Before glibc 2.34 it is the one that has dlsym(), and later it still does.
 * glibc: Bun's packages without "musl" in their name need it, too.
 */
const { dlsym } = openLibrary();

function openLibrary(): ReturnType<typeof dlopen>['symbols'] {
  try {
    return dlopen('libdl.so.2', { dlsym: { args: ['u64_fast', 'ptr'], returns: 'u64_fast' } }).symbols;
  } catch (error) {
    throw refused(error as Error);
  }
}

/**
 * bun:ffi cannot be used: nothing of ours can work. Ends the process with one line where this is its main
 * thread, as Bun would print lines of its own source.
 */
function refused(cause: Error): Error {
  const text = cause.message.includes('JIT')
    ? 'memory cannot be made executable here: systemd (MemoryDenyWriteExecute=), prctl (PR_SET_MDWE) or a limit of address space (ulimit -v) forbids it'
    : cause.message;
  if (isMainThread) {
    writeSync(2, `bucatini: ${text}\n`);
    process.exit(1);
  }
  return new Error(text, { cause });
}

/** NUL-terminated UTF-8. */
const cString = (text: string): Uint8Array => Buffer.from(`${text}\0`);

/** @returns the address of a function or 0 */
function addressOfFunction(name: string): number {
  const text = cString(name);
  return dlsym!(0, ptr(text)); // 0: RTLD_DEFAULT, <dlfcn.h>
}

/** A C function without our checks: takes numbers, and null for NULL. */
type Raw = (...args: (number | null)[]) => number;

/** Make the C function at an address callable. Takes about 8 us. */
const callable = (address: number, result: ResultType, args: readonly ArgumentType[]): Raw =>
  new CFunction({ ptr: address, args: args.map((type) => TYPES[type]), returns: TYPES[result] });

const PROT_READ_WRITE = 3;
const PROT_READ_EXEC = 5;
const MAP_PRIVATE_ANONYMOUS = 0x22;

const { base, words, errnoCopy } = writeTrampolines();
/** The address of each function that has a trampoline, by slot. */
const slots: number[] = [];
/** The number of each system call that has one, by slot from SLOTS on. */
const callSlots: number[] = [];

/**
 * Map memory for all trampolines of this thread and write them.
 * @throws Error where there is no memory, or no code may be made at run time
 */
function writeTrampolines(): {
  /** Address of the mapping. */
  readonly base: number;
  /** The whole mapping; code must not be written any more. */
  readonly words: BigUint64Array;
  readonly errnoCopy: Int32Array;
} {
  const mmapTypes = ['uintptr_t', 'size_t', 'int', 'int', 'int', 'int64_t'] as const;
  const mmap = callable(addressOfFunction('mmap'), 'intptr_t', mmapTypes);
  const mprotect = callable(addressOfFunction('mprotect'), 'int', ['uintptr_t', 'size_t', 'int']);
  const base = mmap(0, TRAMPOLINE_BYTES, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0);
  if (base < 0) throw new Error('mmap: no memory for calls into the C library');
  const memory = toArrayBuffer(base, 0, TRAMPOLINE_BYTES);
  writeTrampolineCode(process.arch, memory);
  const words = new BigUint64Array(memory);
  words[ERRNO_FUNCTION_AT / 8] = BigInt(addressOfFunction('__errno_location'));
  // The kernel makes the processors' caches of instructions see the code when a page becomes executable for
  // the first time.
  if (mprotect(base, CODE_BYTES, PROT_READ_EXEC) !== 0)
    throw new Error('mprotect: this host forbids code made at run time; use BUCATINI_RUNTIME=node');
  return { base, words, errnoCopy: new Int32Array(memory, ERRNO_AT, 1) };
}

/** @returns the address of the trampoline of the function at `address` */
function trampoline(address: number): number {
  let slot = slots.indexOf(address);
  if (slot < 0) {
    if (slots.length === SLOTS) throw new Error(`more than ${SLOTS} C functions`);
    slot = slots.push(address) - 1;
    words[FUNCTIONS_AT / 8 + slot] = BigInt(address);
  }
  return base + slot * SLOT_BYTES;
}

/** @returns the address of the trampoline of a system call */
function callTrampoline(number: number): number {
  let slot = callSlots.indexOf(number);
  if (slot < 0) {
    if (callSlots.length === CALL_SLOTS) throw new Error(`more than ${CALL_SLOTS} system calls`);
    slot = callSlots.push(number) - 1;
    words[FUNCTIONS_AT / 8 + SLOTS + slot] = BigInt(number);
  }
  return base + (SLOTS + slot) * SLOT_BYTES;
}

/** Numbers of the system calls that are made without the C library, by name. */
const SYSTEM_CALLS = systemCalls(process.arch);

/** Make a C function callable by its trampoline. */
const link = (address: number, result: ResultType, args: readonly ArgumentType[]): Raw =>
  callable(trampoline(address), result, args);

/**
 * Declare a C function. It is linked at its first call: most processes use few of them. Other threads than
 * the main thread link the calls of the packet path (SYSTEM_CALLS) at once: then each is a constant, which
 * the optimising compiler calls directly. All functions of withNumbers() with the same number of arguments
 * share one code, which looks up its callee at each call. System calls without the C library, linked at once:
 * 115 → 87 ns for a call that fails.
 * @returns a function whose result is a number
 * @throws Error when the library does not have the function, RangeError for more than six arguments. The
 *   returned function throws TypeError for a string with a NUL character, which C would take for its end
 */
export function nativeFunction<Args extends readonly (number | string | null)[]>(
  name: string,
  result: ResultType,
  args: readonly ArgumentType[],
): NativeFunction<Args> {
  if (args.length > MAX_ARGUMENTS) throw new RangeError(`${name}: more than ${MAX_ARGUMENTS} arguments`);
  return declared(name, result, args) as unknown as NativeFunction<Args>;
}

/** The function of nativeFunction(), of whichever of the three kinds. */
function declared(name: string, result: ResultType, args: readonly ArgumentType[]): unknown {
  const number = SYSTEM_CALLS[name];
  if (number !== undefined) {
    const linked = (): Raw => callable(callTrampoline(number), result, args);
    return isMainThread ? withNumbers(args.length, linked) : linked();
  }
  const address = addressOfFunction(name);
  if (address === 0) throw new Error(`the C library has no ${name}()`);
  if (args.includes('const char *')) return withStrings(name, address, result, args);
  return withNumbers(args.length, () => link(address, result, args));
}

/**
 * A function of numbers only. A call makes no array of its arguments.
 * @param count   of arguments
 * @param linked  makes the function that is called; runs at the first call
 */
function withNumbers(count: number, linked: () => Raw): Raw {
  let raw: Raw = (...given) => {
    raw = linked();
    return raw(...given);
  };
  switch (count) {
    case 0:
      return () => raw();
    case 1:
      return (a) => raw(a!);
    case 2:
      return (a, b) => raw(a!, b!);
    case 3:
      return (a, b, c) => raw(a!, b!, c!);
    case 4:
      return (a, b, c, d) => raw(a!, b!, c!, d!);
    case 5:
      return (a, b, c, d, e) => raw(a!, b!, c!, d!, e!);
    default:
      return (a, b, c, d, e, f) => raw(a!, b!, c!, d!, e!, f!);
  }
}

/** The strings of the last call, which the callee may read until it returns. */
let strings: Uint8Array[] = [];

/** A function with strings among its arguments. Cold: each call copies them to memory, NUL-terminated. */
function withStrings(
  name: string,
  address: number,
  result: ResultType,
  args: readonly ArgumentType[],
): (...given: (number | string | null)[]) => number {
  let raw: Raw | undefined;
  return (...given) => {
    raw ??= link(address, result, args);
    strings = [];
    const numbers = given.map((value) => {
      if (typeof value !== 'string') return value;
      if (value.includes('\0')) throw new TypeError(`${name}(): NUL character in ${JSON.stringify(value)}`);
      const text = cString(value);
      strings.push(text);
      return ptr(text);
    });
    return raw(...numbers);
  };
}

/** errno of the last call on this thread that returned -1. */
export const lastErrno = (): number => errnoCopy[0]!;

/**
 * The address of the first byte of a view. Cold. The bytes of a small typed array lie in JavaScriptCore's
 * heap and move out of it when the array's `.buffer` is read for the first time, so it is read here.
 * @throws TypeError for a view of an empty buffer
 */
export function nativeAddress(view: ArrayBufferView): number {
  if (view.buffer.byteLength === 0) throw new TypeError('a view without bytes has no address');
  return ptr(view);
}

const cStrerror = nativeFunction<[number]>('strerror', 'intptr_t', ['int']);
/** The C library's text for a positive errno. Cold. */
export const strerror = (errno: number): string => String(new CString(cStrerror(errno)));

/**
 * libuv's text for a positive errno. Cold.
 * @returns undefined where libuv has no text
 */
export function uvStrerror(errno: number): string | undefined {
  const { getSystemErrorMap } = process.getBuiltinModule('node:util');
  return getSystemErrorMap().get(-errno)?.[1];
}
