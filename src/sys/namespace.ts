/**
 * Namespaces. unshare and setns change the calling thread only; CLONE_NEWUSER is refused (EINVAL) in a
 * process with several threads, which Node always has. Cold; results or -errno, for `checked()` (error.ts)
 * where the caller wants an exception.
 * @syscalls unshare setns ioctl
 */
import { NS_GET_NSTYPE, NS_GET_USERNS } from './constants.ts';
import { ioctl } from './io.ts';
import { failed, libc } from './libc.ts';

type N = number;
const cUnshare = libc<[N]>('unshare', 'int', ['int']);
const cSetns = libc<[N, N]>('setns', 'int', ['int', 'int']);

/** Give the calling thread namespaces of its own. @param flags  CLONE_NEW* */
export function unshare(flags: number): number {
  const r = cUnshare(flags);
  return r < 0 ? failed() : r;
}

/** Move the calling thread into the namespace that fd stands for. @param type  its CLONE_NEW* or 0 for any */
export function setns(fd: number, type: number): number {
  const r = cSetns(fd, type);
  return r < 0 ? failed() : r;
}

/**
 * The user namespace that owns the namespace fd stands for.
 * @returns a descriptor (close-on-exec) or -errno
 */
export function namespaceOwner(fd: number): number {
  return ioctl(fd, NS_GET_USERNS, 0);
}

/** CLONE_NEW* of the namespace that fd stands for, or -errno (-ENOTTY: no namespace). */
export function namespaceType(fd: number): number {
  return ioctl(fd, NS_GET_NSTYPE, 0);
}
