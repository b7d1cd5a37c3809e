/**
 * Mounts, the root and the working directory. Cold: arguments may be strings; every function returns a result
 * or
 * -errno.
 *
 * No C library has a function for pivot_root, and older ones have none for open_tree, so they are called
 * through syscall(2).
 * @syscalls mount umount2 open_tree pivot_root chroot chdir fchdir
 */
import { AT_FDCWD, O_CLOEXEC, SYS_pivot_root } from './constants.ts';
import { failed, libc } from './libc.ts';
import { syscallNumber } from './syscall-numbers.ts';

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
const cSyscallPath = libc<[N, N, string, N]>('syscall', 'intptr_t', ['int64_t', 'intptr_t', S, 'uintptr_t']);
const cSyscallPaths = libc<[N, string, string]>('syscall', 'intptr_t', ['int64_t', S, S]);

// <linux/mount.h>, <linux/fcntl.h>
const OPEN_TREE_CLONE = 1;
const AT_RECURSIVE = 0x8000;

/** mount(2). @param flags  MS_* @returns 0 or -errno */
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

/** umount2(2). @param flags  MNT_*, UMOUNT_* @returns 0 or -errno */
export function umount2(target: string, flags: number): number {
  const r = cUmount2(target, flags);
  return r < 0 ? failed() : r;
}

/**
 * Copy a mount and those below it, attached nowhere yet (open_tree, Linux 5.2).
 * @returns a descriptor (close-on-exec) or -errno
 */
export function cloneMount(path: string): number {
  const flags = OPEN_TREE_CLONE | AT_RECURSIVE | O_CLOEXEC;
  const fd = cSyscallPath(syscallNumber('open_tree'), AT_FDCWD, path, flags);
  return fd < 0 ? failed() : fd;
}

/**
 * Make `newRoot` the root and move the old root to `putOld`; with `('.', '.')` the old root is stacked on the
 * new one (man 2 pivot_root). It applies to all threads that share the mount namespace.
 * @returns 0 or -errno
 */
export function pivotRoot(newRoot: string, putOld: string): number {
  const r = cSyscallPaths(SYS_pivot_root, newRoot, putOld);
  return r < 0 ? failed() : r;
}

/**
 * chdir(2), which unlike process.chdir() is also allowed in a worker. It applies to all threads that share
 * the file system state (CLONE_FS).
 * @returns 0 or -errno
 */
export function chdir(path: string): number {
  const r = cChdir(path);
  return r < 0 ? failed() : r;
}

/** Change the root of the whole process; the working directory stays. @returns 0 or -errno */
export function chroot(path: string): number {
  const r = cChroot(path);
  return r < 0 ? failed() : r;
}

/** fchdir(2): chdir() by descriptor. @returns 0 or -errno */
export function fchdir(fd: number): number {
  const r = cFchdir(fd);
  return r < 0 ? failed() : r;
}
