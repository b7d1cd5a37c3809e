/**
 * Descriptors: reading, writing, pipes, eventfds, flags; and sched_yield. Hot: every function takes numbers,
 * allocates nothing, and returns the call's result or -errno.
 * @syscalls read write readv writev pread64 lseek ftruncate close fcntl dup3 pipe2 splice eventfd2 ioctl
 *   sched_yield
 */
import { F_DUPFD_CLOEXEC, F_GETFD, F_GETFL, F_SETFD, F_SETFL, FD_CLOEXEC, O_NONBLOCK } from './constants.ts';
import { failed, libc } from './libc.ts';
import { type NativeAddress, NativeBuffer } from './memory.ts';

type N = number;
const cRead = libc<[N, N, N]>('read', 'int', ['int', 'uintptr_t', 'size_t']);
const cWrite = libc<[N, N, N]>('write', 'int', ['int', 'uintptr_t', 'size_t']);
const cReadv = libc<[N, N, N]>('readv', 'int', ['int', 'uintptr_t', 'int']);
const cWritev = libc<[N, N, N]>('writev', 'int', ['int', 'uintptr_t', 'int']);
const cPread = libc<[N, N, N, N]>('pread', 'intptr_t', ['int', 'uintptr_t', 'size_t', 'int64_t']);
const cFtruncate = libc<[N, N]>('ftruncate', 'int', ['int', 'int64_t']);
const cLseek = libc<[N, N, N]>('lseek', 'intptr_t', ['int', 'int64_t', 'int']);
const cClose = libc<[N]>('close', 'int', ['int']);
const cFcntl = libc<[N, N, N]>('fcntl', 'int', ['int', 'int', 'uintptr_t']);
const cDup3 = libc<[N, N, N]>('dup3', 'int', ['int', 'int', 'int']);
const cPipe2 = libc<[N, N]>('pipe2', 'int', ['uintptr_t', 'int']);
const cSplice = libc<[N, N, N, N, N, N]>('splice', 'int', [
  'int',
  'uintptr_t',
  'int',
  'uintptr_t',
  'size_t',
  'uint32_t',
]);
const cEventfd = libc<[N, N]>('eventfd', 'int', ['uint32_t', 'int']);
const cIoctl = libc<[N, N, N]>('ioctl', 'int', ['int', 'unsigned long', 'uintptr_t']);
const cSchedYield = libc<[]>('sched_yield', 'int', []);

/**
 * Words 0-1: the number that eventfdWrite adds, 1. Words 2-3: eventfdDrain reads into them. Words 4-5: int
 * arguments and results of ioctl and pipe2.
 */
const scratch = new NativeBuffer(32);
scratch.u32[0] = 1;
const EVENTFD_READ_AT = 8;
const INT_AT = 16;
const INT_WORD = INT_AT >> 2;

/** read(2). @returns bytes read, 0 at the end, or -errno */
export function read(fd: number, address: NativeAddress | number, bytes: number): number {
  const r = cRead(fd, address, bytes);
  return r < 0 ? failed() : r;
}

/** write(2). @returns bytes written or -errno */
export function write(fd: number, address: NativeAddress | number, bytes: number): number {
  const r = cWrite(fd, address, bytes);
  return r < 0 ? failed() : r;
}

/** @param iovAddress  of `iovCount` struct iovec (socket.ts: iovecWrite) @returns bytes read or -errno */
export function readv(fd: number, iovAddress: NativeAddress | number, iovCount: number): number {
  const r = cReadv(fd, iovAddress, iovCount);
  return r < 0 ? failed() : r;
}

/** @param iovAddress  of `iovCount` struct iovec (socket.ts: iovecWrite) @returns bytes written or -errno */
export function writev(fd: number, iovAddress: NativeAddress | number, iovCount: number): number {
  const r = cWritev(fd, iovAddress, iovCount);
  return r < 0 ? failed() : r;
}

/** @param fileAt  offset in the file @returns bytes read, 0 at the end of the file, or -errno */
export function pread(fd: number, address: NativeAddress | number, bytes: number, fileAt: number): number {
  const r = cPread(fd, address, bytes, fileAt);
  return r < 0 ? failed() : r;
}

/** Remove the last `bytes` bytes of a file. @returns 0 or -errno; -ESPIPE: fd is not a regular file */
export function cutEnd(fd: number, bytes: number): number {
  const SEEK_END = 2;
  const size = cLseek(fd, 0, SEEK_END);
  if (size < 0) return failed();
  return cFtruncate(fd, size - bytes) < 0 ? failed() : 0;
}

/** ftruncate(2). @returns 0 or -errno */
export function truncate(fd: number, bytes: number): number {
  return cFtruncate(fd, bytes) < 0 ? failed() : 0;
}

/**
 * close(2). Do not repeat it after an error: also after -EINTR the descriptor is closed (man 2 close).
 * @returns 0 or -errno
 */
export function close(fd: number): number {
  const r = cClose(fd);
  return r < 0 ? failed() : r;
}

/** File status flags (O_NONBLOCK and so on), or -errno. */
export function fcntlGetFlags(fd: number): number {
  const r = cFcntl(fd, F_GETFL, 0);
  return r < 0 ? failed() : r;
}

/** @param flags  file status flags, O_* @returns 0 or -errno */
function fcntlSetFlags(fd: number, flags: number): number {
  const r = cFcntl(fd, F_SETFL, flags);
  return r < 0 ? failed() : r;
}

/** Any other fcntl(2) command with an integer argument. @returns its result or -errno */
export function fcntl(fd: number, command: number, arg: number): number {
  const r = cFcntl(fd, command, arg);
  return r < 0 ? failed() : r;
}

/** Whether a descriptor is open in this process. */
export const isOpen = (fd: number): boolean => fcntl(fd, F_GETFD, 0) >= 0;

/**
 * Set or clear O_NONBLOCK, a flag of the open file description, not of the descriptor.
 * @returns 0 or -errno
 */
export function setNonBlocking(fd: number, on = true): number {
  const flags = fcntlGetFlags(fd);
  if (flags < 0) return flags;
  return fcntlSetFlags(fd, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
}

/** Set or clear FD_CLOEXEC. @returns 0 or -errno */
export function setCloexec(fd: number, on = true): number {
  const flags = fcntl(fd, F_GETFD, 0);
  if (flags < 0) return flags;
  return fcntl(fd, F_SETFD, on ? flags | FD_CLOEXEC : flags & ~FD_CLOEXEC);
}

/**
 * Duplicate fd to the lowest free descriptor >= minFd, close-on-exec.
 * @returns the new descriptor or -errno
 */
export function dupAbove(fd: number, minFd: number): number {
  return fcntl(fd, F_DUPFD_CLOEXEC, minFd);
}

/**
 * Grow the process's descriptor table in one step, before many descriptors are opened. In a process with
 * several threads every doubling of the table waits for an RCU grace period, about 10 ms. If a limit or a
 * filter forbids this step, the table grows as usual.
 * @param fd  any open descriptor
 * @param count  number of descriptors that the table should hold
 * @source expand_fdtable(), fs/file.c
 */
export function reserveDescriptors(fd: number, count: number): void {
  const last = dupAbove(fd, count);
  if (last >= 0) close(last);
}

/** dup3(2). @returns newFd or -errno */
export function dup3(oldFd: number, newFd: number, flags: number): number {
  const r = cDup3(oldFd, newFd, flags);
  return r < 0 ? failed() : r;
}

/** pipe2(2). @param fds  filled: read end in [0], write end in [1] @returns 0 or -errno */
export function pipe2(fds: Int32Array, flags: number): number {
  const r = cPipe2(scratch.address + INT_AT, flags);
  if (r < 0) return failed();
  fds[0] = scratch.i32[INT_WORD]!;
  fds[1] = scratch.i32[INT_WORD + 1]!;
  return 0;
}

/**
 * splice(2): move up to `bytes` bytes between two descriptors, at least one of them a pipe, at their current
 * offsets.
 * @param flags  SPLICE_F_*
 * @returns bytes moved, 0 at the end, or -errno
 */
export function splice(fromFd: number, toFd: number, bytes: number, flags: number): number {
  const r = cSplice(fromFd, 0, toFd, 0, bytes, flags);
  return r < 0 ? failed() : r;
}

/** eventfd(2). @param flags  EFD_* @returns a descriptor or -errno */
export function eventfd(initialValue: number, flags: number): number {
  const r = cEventfd(initialValue, flags);
  return r < 0 ? failed() : r;
}

/**
 * Add 1 to an eventfd.
 * @returns 8 or -errno; -EAGAIN: the counter is at its maximum, so its reader wakes anyway
 */
export function eventfdWrite(fd: number): number {
  const r = cWrite(fd, scratch.address, 8);
  return r < 0 ? failed() : r;
}

/** Reset the counter of an eventfd by reading it. @returns 8, or -errno; -EAGAIN: it was 0 */
export function eventfdDrain(fd: number): number {
  const r = cRead(fd, scratch.address + EVENTFD_READ_AT, 8);
  return r < 0 ? failed() : r;
}

/** ioctl(2) with a number or an address as its argument. @returns the call's result or -errno */
export function ioctl(fd: number, request: number, arg: NativeAddress | number): number {
  const r = cIoctl(fd, request, arg);
  return r < 0 ? failed() : r;
}

/**
 * ioctl(2) that fills an int, such as SIOCOUTQ or FIONREAD.
 * @returns the int, which must not be negative, or -errno
 */
export function ioctlReadInt(fd: number, request: number): number {
  const r = cIoctl(fd, request, scratch.address + INT_AT);
  return r < 0 ? failed() : scratch.i32[INT_WORD]!;
}

/** ioctl(2) that reads an int, such as TUNSETVNETHDRSZ. @returns the call's result or -errno */
export function ioctlWriteInt(fd: number, request: number, value: number): number {
  scratch.i32[INT_WORD] = value;
  const r = cIoctl(fd, request, scratch.address + INT_AT);
  return r < 0 ? failed() : r;
}

/** sched_yield(2): let other threads run on this processor. It does not fail on Linux. */
export function schedYield(): void {
  cSchedYield();
}
