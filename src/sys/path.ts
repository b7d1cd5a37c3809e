/**
 * Files and directories by path. Cold: arguments may be strings; every function returns a result or -errno.
 * @syscalls openat mkdirat unlinkat
 */
import { AT_FDCWD, O_CLOEXEC } from './constants.ts';
import { failed, libc } from './libc.ts';

type N = number;
const S = 'const char *';
const cOpenat = libc<[N, string, N, N]>('openat', 'int', ['int', S, 'int', 'uint32_t']);
const cMkdirat = libc<[N, string, N]>('mkdirat', 'int', ['int', S, 'uint32_t']);
const cUnlinkat = libc<[N, string, N]>('unlinkat', 'int', ['int', S, 'int']);

/** open(2) with O_CLOEXEC added. @returns a descriptor or -errno */
export function openPath(path: string, flags: number, mode = 0): number {
  return openat(AT_FDCWD, path, flags, mode);
}

/** openat(2) with O_CLOEXEC added. @returns a descriptor or -errno */
export function openat(dirFd: number, path: string, flags: number, mode = 0): number {
  const r = cOpenat(dirFd, path, flags | O_CLOEXEC, mode);
  return r < 0 ? failed() : r;
}

/** mkdirat(2). @returns 0 or -errno */
export function mkdirat(dirFd: number, path: string, mode: number): number {
  const r = cMkdirat(dirFd, path, mode);
  return r < 0 ? failed() : r;
}

/** unlinkat(2). @param flags  0 for a file, AT_REMOVEDIR for a directory @returns 0 or -errno */
export function unlinkat(dirFd: number, path: string, flags: number): number {
  const r = cUnlinkat(dirFd, path, flags);
  return r < 0 ? failed() : r;
}
