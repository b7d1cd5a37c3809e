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
/** The last trampolines make system calls. */
const FIRST_CALL_SLOT = 112;
/**
 * Offsets in the data: address of __errno_location(), the copy of errno, then for each trampoline the address
 * of its function or the number of its system call.
 */
const ERRNO_FUNCTION_AT = CODE_BYTES;
const ERRNO_AT = CODE_BYTES + 8;
const FUNCTIONS_AT = CODE_BYTES + 16;

const PROT_READ_WRITE = 3;
const PROT_READ_EXEC = 5;
const MAP_PRIVATE_ANONYMOUS = 0x22;

const { base, words, errnoCopy } = writeTrampolines();
let slotsUsed = 0;
let callSlotsUsed = FIRST_CALL_SLOT;

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
  for (let slot = 0; slot < FIRST_CALL_SLOT; slot++) {
    const at = slot * SLOT_BYTES;
    bytes.set(code, at);
    for (const [hole, to] of [
      [8, FUNCTIONS_AT + slot * 8],
      [24, ERRNO_FUNCTION_AT],
      [36, ERRNO_AT],
    ] as const)
      words[(at + hole) >> 2] = to - (at + hole + 4);
  }
  const call = [
    ...[0x49, 0x89, 0xca], //              mov r10, rcx    the fourth argument; the others are in place
    ...[0x66, 0x66, 0x90], //              nop of three bytes
    ...[0x8b, 0x05, 0, 0, 0, 0], //        mov eax, [rip + number]
    ...[0x0f, 0x05], //                    syscall
    ...[0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff], // cmp rax, -4096
    ...[0x77, 0x01], //                    ja failed
    0xc3, //                               ret
    ...[0xf7, 0xd8], // failed:            neg eax
    ...[0x90, 0x90, 0x90, 0x66, 0x90], //  nops of five bytes
    ...[0x89, 0x05, 0, 0, 0, 0], //        mov [rip + copy], eax
    ...[0x48, 0x83, 0xc8, 0xff], //        or rax, -1
    0xc3, //                               ret
  ];
  for (let slot = FIRST_CALL_SLOT; slot < SLOTS; slot++) {
    const at = slot * SLOT_BYTES;
    bytes.set(call, at);
    words[(at + 8) >> 2] = FUNCTIONS_AT + slot * 8 - (at + 12);
    words[(at + 32) >> 2] = ERRNO_AT - (at + 36);
  }
}

/** The same for AArch64 (AAPCS64). */
function codeArm64(_bytes: Uint8Array, words: Int32Array): void {
  /** ldr x16, [pc + distance] */
  const load = (distance: number): number => 0x58000010 | ((distance >> 2) << 5);
  /** adr x2, pc + distance */
  const address = (distance: number): number =>
    0x10000002 | ((distance & 3) << 29) | (((distance >> 2) & 0x7ffff) << 5);
  for (let slot = 0; slot < FIRST_CALL_SLOT; slot++) {
    const at = slot * SLOT_BYTES;
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
      address(ERRNO_AT - (at + 36)), //                                  adr x2, copy
      0xb9000041, //                                                     str w1, [x2]
      0xf9400be0, //                                                     ldr x0, [sp, #16]
      0xa8c27bfd, //                                              done:  ldp x29, x30, [sp], #32
      0xd65f03c0, //                                                     ret
    ];
    words.set(code, at >> 2);
  }
  for (let slot = FIRST_CALL_SLOT; slot < SLOTS; slot++) {
    const at = slot * SLOT_BYTES;
    const call = [
      load(FUNCTIONS_AT + slot * 8 - at),
      0xaa1003e8, //                                                     mov x8, x16
      0xd4000001, //                                                     svc #0
      0xb13ffc1f, //                                                     cmn x0, #4095
      0x54000042, //                                                     b.hs failed
      0xd65f03c0, //                                                     ret
      0x4b0003e0, //                                            failed:  neg w0, w0
      address(ERRNO_AT - (at + 28)), //                                  adr x2, copy
      0xb9000040, //                                                     str w0, [x2]
      0x92800000, //                                                     mov x0, #-1
      0xd65f03c0, //                                                     ret
    ];
    words.set(call, at >> 2);
  }
}

/**
 * The system calls of the packet path, which are made without the C library, by number: x86-64
 * <asm/unistd_64.h>, AArch64 <asm-generic/unistd.h>. The library's functions of these names do nothing but
 * the call, inside a section in which the thread may be cancelled (3 % of the time of a UDP transfer). All
 * arguments are declared, as the registers of the others would have any contents: so send(2) is not here.
 */
const SYSTEM_CALLS: Readonly<Record<string, number>> =
  process.arch === 'arm64'
    ? {
        ...{ read: 63, write: 64, readv: 65, writev: 66, splice: 76, epoll_ctl: 21 },
        ...{ sendto: 206, recvfrom: 207, sendmsg: 211, recvmsg: 212, sendmmsg: 269, recvmmsg: 243 },
      }
    : {
        ...{ read: 0, write: 1, readv: 19, writev: 20, splice: 275, epoll_ctl: 233, epoll_wait: 232 },
        ...{ sendto: 44, recvfrom: 45, sendmsg: 46, recvmsg: 47, sendmmsg: 307, recvmmsg: 299 },
      };

type Raw = (...args: (number | null)[]) => number;

/** Make the code at a trampoline callable. Takes about 8 us. */
function link(slot: number, content: number, result: ResultType, args: readonly ArgumentType[]): Raw {
  words[FUNCTIONS_AT / 8 + slot] = BigInt(content);
  const types = args.map((type) => TYPES[type]);
  return new CFunction({ ptr: base + slot * SLOT_BYTES, args: types, returns: TYPES[result] });
}

/** Make a C function callable. */
function linkFunction(address: number, result: ResultType, args: readonly ArgumentType[]): Raw {
  if (slotsUsed === FIRST_CALL_SLOT) throw new Error('too many C functions');
  return link(slotsUsed++, address, result, args);
}

/** Make a system call callable. */
function linkCall(number: number, result: ResultType, args: readonly ArgumentType[]): Raw {
  if (callSlotsUsed === SLOTS) throw new Error('too many system calls');
  return link(callSlotsUsed++, number, result, args);
}

const { isMainThread } = (globalThis as unknown as { readonly Bun: { readonly isMainThread: boolean } }).Bun;

/**
 * Declare a C function. It is linked at its first call, as most processes use few of them. In packet threads
 * the calls of the packet path are linked at once: then each is a constant, which the optimising compiler
 * calls directly, where all of withNumbers()' functions with as many arguments are one to it (10 ns a call).
 * @returns a function whose result is a number
 * @throws Error when the library does not have the function
 */
export function nativeFunction<Args extends readonly (number | string | null)[]>(
  name: string,
  result: ResultType,
  args: readonly ArgumentType[],
): NativeFunction<Args> {
  if (args.length > MAX_ARGUMENTS) throw new RangeError(`${name}: more than ${MAX_ARGUMENTS} arguments`);
  const number = SYSTEM_CALLS[name];
  if (number !== undefined) {
    const made = isMainThread
      ? withNumbers(args.length, () => linkCall(number, result, args))
      : linkCall(number, result, args);
    return made as unknown as NativeFunction<Args>;
  }
  const address = addressOfFunction(name);
  if (address === 0) throw new Error(`the C library has no ${name}()`);
  const made = args.includes('const char *')
    ? withStrings(address, result, args)
    : withNumbers(args.length, () => linkFunction(address, result, args));
  return made as unknown as NativeFunction<Args>;
}

/** A function of numbers only, linked at its first call. No array is made in a call. */
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

function withStrings(
  address: number,
  result: ResultType,
  args: readonly ArgumentType[],
): (...given: (number | string | null)[]) => number {
  let raw: Raw | undefined;
  return (...given) => {
    raw ??= linkFunction(address, result, args);
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
