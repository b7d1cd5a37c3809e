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
import { CFunction, dlopen, ptr, toArrayBuffer } from 'bun:ffi';
import type { ArgumentType, NativeFunction, ResultType } from '../node/ffi.ts';

export type { ArgumentType, NativeFunction, ResultType };

/** glibc: Bun's packages without "musl" in their name need it, too. */
const LIBRARY = 'libc.so.6';

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

/** Both calling conventions pass six integers in registers (x86-64; AArch64 eight), and no call here has more. */
const MAX_ARGUMENTS = 6;

const cold = dlopen(LIBRARY, {
  dlsym: { args: ['u64_fast', 'ptr'], returns: 'u64_fast' },
  mmap: { args: ['u64_fast', 'u64_fast', 'i32', 'i32', 'i32', 'i64_fast'], returns: 'i64_fast' },
  mprotect: { args: ['u64_fast', 'u64_fast', 'i32'], returns: 'i32' },
}).symbols;

/** NUL-terminated UTF-8. */
const cString = (text: string): Uint8Array => Buffer.from(`${text}\0`);

/** @returns the address of a function or 0 */
function addressOfFunction(name: string): number {
  const text = cString(name);
  return cold.dlsym!(0, ptr(text)); // 0: RTLD_DEFAULT, <dlfcn.h>
}

/* The memory of the trampolines: pages of code, then pages of data. */
const CODE_BYTES = 16 * 1024; // a multiple of the page size, which on AArch64 may be 16 KiB
const DATA_BYTES = 4096;
/** Room of one trampoline. */
const SLOT_BYTES = 64;
const SLOTS = 128;
/** Offsets in the data: address of __errno_location(), the copy of errno, then an address for each trampoline. */
const ERRNO_FUNCTION_AT = CODE_BYTES;
const ERRNO_AT = CODE_BYTES + 8;
const FUNCTIONS_AT = CODE_BYTES + 16;

const PROT_READ_WRITE = 3;
const PROT_READ_EXEC = 5;
const MAP_PRIVATE_ANONYMOUS = 0x22;

const { base, words, errnoCopy } = writeTrampolines();
let slotsUsed = 0;

function writeTrampolines(): {
  readonly base: number;
  /** The whole mapping; code must not be written any more. */
  readonly words: BigUint64Array;
  readonly errnoCopy: Int32Array;
} {
  const bytes = CODE_BYTES + DATA_BYTES;
  const base = cold.mmap!(0, bytes, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0);
  if (base < 0) throw new Error('mmap: no memory for calls into the C library');
  const memory = toArrayBuffer(base, 0, bytes);
  const code = process.arch === 'arm64' ? codeArm64 : codeX64;
  code(new Uint8Array(memory), new Int32Array(memory));
  const words = new BigUint64Array(memory);
  words[ERRNO_FUNCTION_AT / 8] = BigInt(addressOfFunction('__errno_location'));
  // The kernel makes the processors' caches of instructions see the code when a page becomes executable for
  // the first time.
  if (cold.mprotect!(base, CODE_BYTES, PROT_READ_EXEC) !== 0)
    throw new Error('mprotect: this host forbids code made at run time; use BUCATINI_RUNTIME=node');
  return { base, words, errnoCopy: new Int32Array(memory, ERRNO_AT, 1) };
}

/**
 * Code for x86-64 (System V ABI). The three distances are counted from the end of the instruction that has
 * them: they differ from slot to slot, all else is copied.
 * @param bytes  the whole mapping
 * @param words  the same as 32-bit words
 */
function codeX64(bytes: Uint8Array, words: Int32Array): void {
  const code = [
    ...[0x48, 0x83, 0xec, 0x18], //        sub rsp, 24     the stack stays aligned to 16
    ...[0x90, 0x90], //                    nop, nop        the distances lie at multiples of 4
    ...[0xff, 0x15, 0, 0, 0, 0], //        call [rip + function]
    ...[0x83, 0xf8, 0xff], //              cmp eax, -1
    ...[0x75, 0x1b], //                    jne done
    ...[0x48, 0x89, 0x04, 0x24], //        mov [rsp], rax
    0x90, //                               nop
    ...[0xff, 0x15, 0, 0, 0, 0], //        call [rip + __errno_location]
    ...[0x8b, 0x08], //                    mov ecx, [rax]
    ...[0x66, 0x90], //                    nop of two bytes
    ...[0x90, 0x90], //                    nop, nop
    ...[0x89, 0x0d, 0, 0, 0, 0], //        mov [rip + copy], ecx
    ...[0x48, 0x8b, 0x04, 0x24], //        mov rax, [rsp]
    ...[0x48, 0x83, 0xc4, 0x18], // done:  add rsp, 24
    0xc3, //                               ret
  ];
  for (let slot = 0; slot < SLOTS; slot++) {
    const at = slot * SLOT_BYTES;
    bytes.set(code, at);
    for (const [hole, to] of [
      [8, FUNCTIONS_AT + slot * 8],
      [24, ERRNO_FUNCTION_AT],
      [36, ERRNO_AT],
    ] as const)
      words[(at + hole) >> 2] = to - (at + hole + 4);
  }
}

/** The same for AArch64 (AAPCS64). */
function codeArm64(_bytes: Uint8Array, words: Int32Array): void {
  /** ldr x16, [pc + distance] */
  const load = (distance: number): number => 0x58000010 | ((distance >> 2) << 5);
  for (let slot = 0; slot < SLOTS; slot++) {
    const at = slot * SLOT_BYTES;
    const copy = ERRNO_AT - (at + 36);
    const code = [
      0xa9be7bfd, //                                                     stp x29, x30, [sp, #-32]!
      load(FUNCTIONS_AT + slot * 8 - (at + 4)),
      0xd63f0200, //                                                     blr x16
      0x3100041f, //                                                     cmn w0, #1
      0x54000001 | (8 << 5), //                                          b.ne done
      0xf9000be0, //                                                     str x0, [sp, #16]
      load(ERRNO_FUNCTION_AT - (at + 24)),
      0xd63f0200, //                                                     blr x16
      0xb9400001, //                                                     ldr w1, [x0]
      0x10000002 | ((copy & 3) << 29) | (((copy >> 2) & 0x7ffff) << 5), // adr x2, copy
      0xb9000041, //                                                     str w1, [x2]
      0xf9400be0, //                                                     ldr x0, [sp, #16]
      0xa8c27bfd, //                                              done:  ldp x29, x30, [sp], #32
      0xd65f03c0, //                                                     ret
    ];
    words.set(code, at >> 2);
  }
}

type Raw = (...args: (number | null)[]) => number;

/** Make a C function callable. Takes about 8 us. */
function link(address: number, result: ResultType, args: readonly ArgumentType[]): Raw {
  if (slotsUsed === SLOTS) throw new Error('too many C functions');
  const slot = slotsUsed++;
  words[FUNCTIONS_AT / 8 + slot] = BigInt(address);
  const types = args.map((type) => TYPES[type]);
  return new CFunction({ ptr: base + slot * SLOT_BYTES, args: types, returns: TYPES[result] });
}

/**
 * Declare a C function. It is linked at its first call: most processes use few of them.
 * @returns a function whose result is a number
 * @throws Error when the library does not have the function
 */
export function nativeFunction<Args extends readonly (number | string | null)[]>(
  name: string,
  result: ResultType,
  args: readonly ArgumentType[],
): NativeFunction<Args> {
  if (args.length > MAX_ARGUMENTS) throw new RangeError(`${name}: more than ${MAX_ARGUMENTS} arguments`);
  const address = addressOfFunction(name);
  if (address === 0) throw new Error(`the C library has no ${name}()`);
  const made = args.includes('const char *')
    ? withStrings(address, result, args)
    : withNumbers(address, result, args);
  return made as unknown as NativeFunction<Args>;
}

/** Functions of numbers only. One for each count of arguments: no array is made in a call. */
function withNumbers(address: number, result: ResultType, args: readonly ArgumentType[]): Raw {
  let raw: Raw = (...given) => {
    raw = link(address, result, args);
    return raw(...given);
  };
  switch (args.length) {
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

function withStrings(
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
      const text = cString(value);
      strings.push(text);
      return ptr(text);
    });
    return raw(...numbers);
  };
}

/** errno of the last call on this thread that returned -1. */
export const lastErrno = (): number => errnoCopy[0]!;

/** The address of the first byte of a view. */
export const nativeAddress = (view: ArrayBufferView): number => ptr(view);

let cStrerror: ((errno: number) => unknown) | undefined;
/** The C library's text for a positive errno. Cold. */
export function strerror(errno: number): string {
  cStrerror ??= dlopen(LIBRARY, { strerror: { args: ['i32'], returns: 'cstring' } }).symbols.strerror!;
  return String(cStrerror(errno));
}

/**
 * libuv's text for a positive errno. Cold.
 * @returns undefined where libuv has no text
 */
export function uvStrerror(errno: number): string | undefined {
  const { getSystemErrorMap } = process.getBuiltinModule('node:util');
  return getSystemErrorMap().get(-errno)?.[1];
}
