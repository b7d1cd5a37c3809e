/**
 * Namespaces. unshare and setns change the calling thread only. The kernel refuses CLONE_NEWUSER (EINVAL) in
 * a process with several threads, and the runtimes always have several. Cold; every function returns a result
 * or -errno, which `checked()` (error.ts) turns into an exception.
 * @syscalls unshare setns ioctl
 */
import { NS_GET_NSTYPE, NS_GET_USERNS } from './constants.ts';
import { ioctl } from './io.ts';
import { failed, libc } from './libc.ts';

type N = number;
const cUnshare = libc<[N]>('unshare', 'int', ['int']);
const cSetns = libc<[N, N]>('setns', 'int', ['int', 'int']);

/** Move the calling thread into new namespaces. @param flags  CLONE_NEW* @returns 0 or -errno */
export function unshare(flags: number): number {
  const r = cUnshare(flags);
  return r < 0 ? failed() : r;
}

/**
 * Move the calling thread into the namespace that fd refers to.
 * @param type  CLONE_NEW* that the namespace has to be of, or 0 for any
 * @returns 0 or -errno
 */
export function setns(fd: number, type: number): number {
  const r = cSetns(fd, type);
  return r < 0 ? failed() : r;
}

/**
 * Open the user namespace that owns the namespace fd refers to.
 * @returns a descriptor (close-on-exec) or -errno
 */
export function namespaceOwner(fd: number): number {
  return ioctl(fd, NS_GET_USERNS, 0);
}

/** Type of the namespace that fd refers to: CLONE_NEW*, or -errno (-ENOTTY: fd is not a namespace). */
export function namespaceType(fd: number): number {
  return ioctl(fd, NS_GET_NSTYPE, 0);
}
