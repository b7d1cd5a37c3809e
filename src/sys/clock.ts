/**
 * The time of day to the nanosecond, into memory of the caller's: nothing is allocated. The C library asks
 * the vDSO; where the clock of the machine is none that the vDSO can read it is a system call.
 * @syscalls clock_gettime
 */
import { failed, libc } from './libc.ts';
import type { NativeAddress } from './memory.ts';

const CLOCK_REALTIME = 0;

/** struct timespec: two 64-bit words, seconds and nanoseconds. */
export const TIMESPEC_BYTES = 16;
/** Low halves of the two, in 32-bit words. */
export const TIMESPEC_SECONDS_WORD = 0;
export const TIMESPEC_NANOSECONDS_WORD = 2;

const cClockGettime = libc<[number, number]>('clock_gettime', 'int', ['int', 'uintptr_t']);

/** @param address  of a struct timespec @returns 0 or -errno */
export function realTime(address: NativeAddress | number): number {
  const r = cClockGettime(CLOCK_REALTIME, address);
  return r < 0 ? failed() : 0;
}
