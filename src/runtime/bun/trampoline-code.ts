/**
 * Machine code that calls a C function and keeps errno: runtime/bun/ffi.ts says why. It is written into one
 * mapping, code first, because it refers to its data by their distance:
 *
 *      +0                     SLOTS trampolines of SLOT_BYTES each
 *      +SLOTS * SLOT_BYTES    CALL_SLOTS trampolines that make system calls without the C library
 *      +CODE_BYTES            address of __errno_location(), u64
 *      +ERRNO_AT              errno of the last call that returned -1, i32
 *      +FUNCTIONS_AT          of each trampoline the address of its function or the number of its system
 *                             call, u64 each
 *
 * A trampoline compares the low 32 bits of a result with -1: a longer result that ends in 32 one bits costs a
 * read of errno, no more.
 */

/** A multiple of the page size, which on AArch64 may be 64 KiB. The rest of these pages is never touched. */
export const CODE_BYTES = 64 * 1024;
/** Room of one trampoline. */
export const SLOT_BYTES = 64;
/** Functions that one thread can call. */
export const SLOTS = 128;
/** System calls that one thread can make without the C library. */
export const CALL_SLOTS = 16;
export const ERRNO_FUNCTION_AT = CODE_BYTES;
export const ERRNO_AT = CODE_BYTES + 8;
export const FUNCTIONS_AT = CODE_BYTES + 16;
/** The whole mapping. */
export const TRAMPOLINE_BYTES = CODE_BYTES + 4096;

/**
 * The system calls of the packet path, which are made without the C library, by number: x86-64
 * <asm/unistd_64.h>, AArch64 <asm-generic/unistd.h>. The library's functions of these names make the call
 * inside a section in which the thread may be cancelled, and do no more: 3 % of the time of a UDP transfer.
 * None may be declared with fewer arguments than the call has.
 * @param arch  as process.arch
 * @returns numbers by name
 */
export const systemCalls = (arch: string): Readonly<Record<string, number>> =>
  arch === 'arm64'
    ? {
        ...{ read: 63, write: 64, readv: 65, writev: 66, splice: 76, epoll_ctl: 21 },
        ...{ sendto: 206, recvfrom: 207, sendmsg: 211, recvmsg: 212, sendmmsg: 269, recvmmsg: 243 },
      }
    : {
        ...{ read: 0, write: 1, readv: 19, writev: 20, splice: 275, epoll_ctl: 233, epoll_wait: 232 },
        ...{ sendto: 44, recvfrom: 45, sendmsg: 46, recvmsg: 47, sendmmsg: 307, recvmmsg: 299 },
      };

/**
 * Write all trampolines.
 * @param arch    as process.arch
 * @param memory  TRAMPOLINE_BYTES
 */
export function writeTrampolineCode(arch: string, memory: ArrayBuffer): void {
  const code = arch === 'arm64' ? codeArm64 : codeX64;
  code(new Uint8Array(memory), new Int32Array(memory));
}

/**
 * Code for x86-64 (System V ABI). The three distances are counted from the end of the instruction that has
 * them: they differ from slot to slot, all else is copied. They lie at multiples of 4.
 * @param bytes  the whole mapping
 * @param words  the same as 32-bit words
 */
function codeX64(bytes: Uint8Array, words: Int32Array): void {
  const code = [
    ...[0x48, 0x83, 0xec, 0x18], //        sub rsp, 24     the stack stays aligned to 16
    ...[0x31, 0xc0], //                    xor eax, eax    variadic functions: no vector registers
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
  const call = [
    ...[0x49, 0x89, 0xca], //              mov r10, rcx    the fourth argument; the others are in place
    ...[0x0f, 0x1f, 0x00], //              nop of three bytes
    ...[0x8b, 0x05, 0, 0, 0, 0], //        mov eax, [rip + number]
    ...[0x0f, 0x05], //                    syscall
    ...[0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff], // cmp rax, -4096
    ...[0x77, 0x01], //                    ja failed
    0xc3, //                               ret
    ...[0xf7, 0xd8], // failed:            neg eax
    ...[0x0f, 0x1f, 0x44, 0x00, 0x00], //  nop of five bytes
    ...[0x89, 0x05, 0, 0, 0, 0], //        mov [rip + copy], eax
    ...[0x48, 0x83, 0xc8, 0xff], //        or rax, -1
    0xc3, //                               ret
  ];
  for (let slot = SLOTS; slot < SLOTS + CALL_SLOTS; slot++) {
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
  for (let slot = 0; slot < SLOTS; slot++) {
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
  for (let slot = SLOTS; slot < SLOTS + CALL_SLOTS; slot++) {
    const at = slot * SLOT_BYTES;
    const call = [
      load(FUNCTIONS_AT + slot * 8 - at),
      0xaa1003e8, //                                                     mov x8, x16
      0xd4000001, //                                                     svc #0
      0xb13ffc1f, //                                                     cmn x0, #4095
      0x54000002 | (2 << 5), //                                          b.hs failed
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
