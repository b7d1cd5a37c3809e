/**
 * Waits for children by wait4(2), whose struct rusage has the processor time of a child and of all
 * descendants that were waited for. This process becomes the reaper of its orphans (PR_SET_CHILD_SUBREAPER),
 * so that nothing a tool leaves behind is missed.
 */
import koffi from 'koffi';
import { NativeBuffer } from '../../src/sys/memory.ts';
import { prctl } from '../../src/sys/process.ts';

const PR_SET_CHILD_SUBREAPER = 36;
const RUSAGE_BYTES = 144;
const WNOHANG = 1;
const cWait4 = koffi.load(null).func('wait4', 'int', ['int', 'uintptr_t', 'int', 'uintptr_t']);

/** A child that has ended. */
export interface Ended {
  /** 0: there is none that has ended; negative: there is no child at all. */
  readonly pid: number;
  /** As a shell gives it: 128 + n for signal n. */
  readonly status: number;
  /** User and system time, with that of its descendants that were waited for. */
  readonly cpuMs: number;
}

/** Become the parent of descendants whose own parent ends: prctl(2). */
export const becomeSubreaper = (): void => void prctl(PR_SET_CHILD_SUBREAPER, 1);

/** Wait for a child. @param pid  -1: any */
export function waitFor(pid: number, block = true): Ended {
  const status = new NativeBuffer(8);
  const usage = new NativeBuffer(RUSAGE_BYTES);
  const got: number = cWait4(pid, status.address, block ? 0 : WNOHANG, usage.address);
  const word = status.u32[0]!;
  const times = new DataView(usage.u8.buffer, usage.u8.byteOffset, RUSAGE_BYTES);
  const ms = (at: number): number =>
    Number(times.getBigInt64(at, true)) * 1000 + Number(times.getBigInt64(at + 8, true)) / 1000;
  return {
    pid: got,
    status: (word & 0x7f) === 0 ? (word >> 8) & 0xff : 128 + (word & 0x7f),
    cpuMs: ms(0) + ms(16),
  };
}
