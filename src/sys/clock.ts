/**
 * The time of day in nanoseconds, written to memory of the caller, so that nothing is allocated. The C
 * library reads the clock through the vDSO; it makes a system call when the vDSO cannot read the machine's
 * clock source.
 * @syscalls clock_gettime
 */
import { failed, libc } from './libc.ts';
import type { NativeAddress } from './memory.ts';

const CLOCK_REALTIME = 0;

/** struct timespec: two 64-bit words, seconds and nanoseconds. */
export const TIMESPEC_BYTES = 16;
/** Indices of the low halves of seconds and nanoseconds, in 32-bit words. */
export const TIMESPEC_SECONDS_WORD = 0;
export const TIMESPEC_NANOSECONDS_WORD = 2;

const cClockGettime = libc<[number, number]>('clock_gettime', 'int', ['int', 'uintptr_t']);

/**
 * clock_gettime(2) with CLOCK_REALTIME.
 * @param address  address of a struct timespec, which is filled
 * @returns 0 or -errno
 */
export function realTime(address: NativeAddress | number): number {
  const r = cClockGettime(CLOCK_REALTIME, address);
  return r < 0 ? failed() : 0;
}
