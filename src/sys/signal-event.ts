/**
 * Signals as events of a descriptor, for a program that does not run the runtime's event loop. signalfd(2) would
 * need the signals blocked in all threads, also in those that the runtime has started before. So a handler of
 * machine code, which any thread can run, writes to an eventfd. Cold.
 *
 *   the handler's page   +0 code   +64 the number 1, u64   +72 the eventfd, u32
 * @syscalls eventfd2 rt_sigaction write close
 */
import { EFD_CLOEXEC, EFD_NONBLOCK } from './constants.ts';
import { checked, SysError } from './error.ts';
import { eventfd } from './io.ts';
import { failed, libc } from './libc.ts';
import { type MachineCode, machineCodePage } from './machine-code.ts';

const ONE_AT = 64;
const EVENTFD_AT = 72;

/** write(eventfd, &one, 8) */
const CODE: MachineCode = {
  x64: [
    ...[0xb8, 0x01, 0x00, 0x00, 0x00], //             mov eax, SYS_write
    ...[0x8b, 0x3d, 0x3d, 0x00, 0x00, 0x00], //       mov edi, [rip + 61]: +72
    ...[0x48, 0x8d, 0x35, 0x2e, 0x00, 0x00, 0x00], // lea rsi, [rip + 46]: +64
    ...[0xba, 0x08, 0x00, 0x00, 0x00], //             mov edx, 8
    ...[0x0f, 0x05], //                               syscall
    0xc3, //                                          ret
  ],
  arm64: [
    ...[0x08, 0x08, 0x80, 0x52], // mov w8, SYS_write
    ...[0x20, 0x02, 0x00, 0x18], // ldr w0, pc + 68: +72
    ...[0xc1, 0x01, 0x00, 0x10], // adr x1, pc + 56: +64
    ...[0x02, 0x01, 0x80, 0x52], // mov w2, 8
    ...[0x01, 0x00, 0x00, 0xd4], // svc 0
    ...[0xc0, 0x03, 0x5f, 0xd6], // ret
  ],
};

/**
 * From now on these signals make a descriptor readable, and do nothing else.
 * @param signals  numbers
 * @returns an eventfd, non-blocking and close-on-exec; it counts the signals
 * @throws SysError
 */
export function signalEvent(signals: readonly number[]): number {
  const fd = checked(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), 'eventfd', '');
  const handler = machineCodePage(CODE, 'signal', ({ u32 }) => {
    u32[ONE_AT >> 2] = 1;
    u32[EVENTFD_AT >> 2] = fd;
  });
  // Of the C library, which adds the code that returns from a handler.
  const signal = libc<[number, number]>('signal', 'intptr_t', ['int', 'uintptr_t']);
  for (const number of signals)
    if (signal(number, handler) === -1) throw new SysError('signal', `${number}`, -failed());
  return fd;
}
