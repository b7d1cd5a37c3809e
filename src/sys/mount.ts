/**
 * Mounts, the root and the working directory. Cold: strings are welcome; results or -errno. pivot_root
 * reaches all threads that share the mount namespace.
 *
 * pivot_root has no function in any C library and goes through syscall(2).
 * @syscalls mount umount2 pivot_root chroot chdir fchdir
 */
import { SYS_pivot_root } from './constants.ts';
import { failed, libc } from './libc.ts';

type N = number;
const S = 'const char *';
const cMount = libc<[string | null, string, string | null, N, string | null]>('mount', 'int', [
  S,
  S,
  S,
  'unsigned long',
  S,
]);
const cUmount2 = libc<[string, N]>('umount2', 'int', [S, 'int']);
const cChdir = libc<[string]>('chdir', 'int', [S]);
const cChroot = libc<[string]>('chroot', 'int', [S]);
const cFchdir = libc<[N]>('fchdir', 'int', ['int']);
const cSyscallPaths = libc<[N, string, string]>('syscall', 'intptr_t', ['int64_t', S, S]);

/** @param flags  MS_* @returns 0 or -errno */
export function mount(
  source: string | null,
  target: string,
  fsType: string | null,
  flags: number,
  data: string | null,
): number {
  const r = cMount(source, target, fsType, flags, data);
  return r < 0 ? failed() : r;
}

/** @param flags  MNT_*, UMOUNT_* @returns 0 or -errno */
export function umount2(target: string, flags: number): number {
  const r = cUmount2(target, flags);
  return r < 0 ? failed() : r;
}

/** Make `newRoot` the root and move the old one to `putOld`; `('.', '.')` stacks them (man 2 pivot_root). */
export function pivotRoot(newRoot: string, putOld: string): number {
  const r = cSyscallPaths(SYS_pivot_root, newRoot, putOld);
  return r < 0 ? failed() : r;
}

/**
 * chdir(2): unlike process.chdir() it is also allowed in a worker; it moves all threads that share the fs
 * state.
 */
export function chdir(path: string): number {
  const r = cChdir(path);
  return r < 0 ? failed() : r;
}

/** The whole process's root, by path; it does not move the working directory. */
export function chroot(path: string): number {
  const r = cChroot(path);
  return r < 0 ? failed() : r;
}

/** chdir() by descriptor. @returns 0 or -errno */
export function fchdir(fd: number): number {
  const r = cFchdir(fd);
  return r < 0 ? failed() : r;
}
