/**
 * The limit of open descriptors of this process. Not read from /proc/self/limits: packet threads that are
 * started in the sandbox need it too.
 * @syscalls prlimit64
 */
import { RLIMIT_NOFILE } from './constants.ts';
import { SysError } from './error.ts';
import { failed, libc } from './libc.ts';
import { NativeBuffer } from './memory.ts';

const cGetrlimit = libc<[number, number]>('getrlimit', 'int', ['int', 'uintptr_t']);
/** struct rlimit: cur u64, max u64. */
const limit = new NativeBuffer(16);
const NO_LIMIT = 0xffff_ffff_ffff_ffffn;

/**
 * The soft limit. The runtime raises it to the hard limit when it starts.
 * @returns descriptors, or Infinity
 * @throws SysError
 */
export function openFilesLimit(): number {
  if (cGetrlimit(RLIMIT_NOFILE, limit.address) < 0)
    throw new SysError('getrlimit', 'RLIMIT_NOFILE', -failed());
  const soft = limit.dv.getBigUint64(0, true);
  return soft === NO_LIMIT ? Number.POSITIVE_INFINITY : Number(soft);
}
