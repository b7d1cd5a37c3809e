/**
 * Pages of machine code, for what no JavaScript can do: what runs in threads and processes without an engine.
 * Cold.
 * @syscalls mmap mprotect
 */
import { Errno } from './constants.ts';
import { SysError } from './error.ts';
import { failed, libc } from './libc.ts';
import { NativeBuffer } from './memory.ts';

type N = number;
const W = 'uintptr_t';

const PAGE_BYTES = 4096;
// <asm-generic/mman-common.h>, <linux/mman.h>
const PROT_READ = 1;
const PROT_WRITE = 2;
const PROT_EXEC = 4;
const MAP_PRIVATE = 2;
const MAP_ANONYMOUS = 0x20;

/** By process.arch. */
export type MachineCode = Readonly<Record<string, readonly number[]>>;

/**
 * Make a page that is executable and not writable. It is never unmapped.
 * @param code   for each architecture
 * @param write  writes further bytes into the page before it becomes read-only
 * @param what   for an error message
 * @returns its address
 * @throws SysError, ENOSYS for an architecture without code
 */
export function machineCodePage(
  code: MachineCode,
  what: string,
  write: (page: NativeBuffer) => void = () => {},
): number {
  const bytes = code[process.arch];
  if (bytes === undefined) throw new SysError(what, process.arch, Errno.ENOSYS);
  const content = new NativeBuffer(PAGE_BYTES);
  content.u8.set(bytes);
  write(content);
  const mmap = libc<[N, N, N, N, N, N]>('mmap', 'intptr_t', [W, 'size_t', 'int', 'int', 'int', 'int64_t']);
  const page = mmap(0, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page === -1) throw new SysError('mmap', `${PAGE_BYTES} bytes`, -failed());
  libc<[N, N, N]>('memcpy', 'intptr_t', [W, W, 'size_t'])(page, content.address, PAGE_BYTES);
  const mprotect = libc<[N, N, N]>('mprotect', 'int', [W, 'size_t', 'int']);
  if (mprotect(page, PAGE_BYTES, PROT_READ | PROT_EXEC) < 0)
    throw new SysError('mprotect', 'PROT_READ | PROT_EXEC', -failed());
  return page;
}
