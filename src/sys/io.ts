/**
 * Descriptors: reading, writing, pipes, eventfds, flags; and giving the processor up. Hot: every wrapper
 * takes numbers, allocates nothing, and returns the call's result or -errno.
 * @syscalls read write readv writev pread64 lseek ftruncate close fcntl dup3 pipe2 splice eventfd2 ioctl
 *   sched_yield
 */
import { F_DUPFD_CLOEXEC, F_GETFD, F_GETFL, F_SETFD, F_SETFL, FD_CLOEXEC, O_NONBLOCK } from './constants.ts';
import { failed, libc } from './libc.ts';
import { type NativeAddress, NativeBuffer } from './memory.ts';

type N = number;
const cRead = libc<[N, N, N]>('read', 'intptr_t', ['int', 'uintptr_t', 'size_t']);
const cWrite = libc<[N, N, N]>('write', 'intptr_t', ['int', 'uintptr_t', 'size_t']);
const cReadv = libc<[N, N, N]>('readv', 'intptr_t', ['int', 'uintptr_t', 'int']);
const cWritev = libc<[N, N, N]>('writev', 'intptr_t', ['int', 'uintptr_t', 'int']);
const cPread = libc<[N, N, N, N]>('pread', 'intptr_t', ['int', 'uintptr_t', 'size_t', 'int64_t']);
const cFtruncate = libc<[N, N]>('ftruncate', 'int', ['int', 'int64_t']);
const cLseek = libc<[N, N, N]>('lseek', 'intptr_t', ['int', 'int64_t', 'int']);
const cClose = libc<[N]>('close', 'int', ['int']);
const cFcntl = libc<[N, N, N]>('fcntl', 'int', ['int', 'int', 'uintptr_t']);
const cDup3 = libc<[N, N, N]>('dup3', 'int', ['int', 'int', 'int']);
const cPipe2 = libc<[N, N]>('pipe2', 'int', ['uintptr_t', 'int']);
const cSplice = libc<[N, N, N, N, N, N]>('splice', 'intptr_t', [
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
 * Words 0-1: the counter that eventfdWrite adds (1). Words 2-3: where eventfdDrain reads to. Word 4: ioctl
 * result.
 */
const scratch = new NativeBuffer(32);
scratch.u32[0] = 1;
const EVENTFD_READ_AT = 8;
const INT_AT = 16;
const INT_WORD = INT_AT >> 2;

/** @returns bytes read, 0 at the end, or -errno */
export function read(fd: number, address: NativeAddress | number, bytes: number): number {
  const r = cRead(fd, address, bytes);
  return r < 0 ? failed() : r;
}

/** @returns bytes written or -errno */
export function write(fd: number, address: NativeAddress | number, bytes: number): number {
  const r = cWrite(fd, address, bytes);
  return r < 0 ? failed() : r;
}

/** @param iovAddress  address of `iovCount` struct iovec (socket.ts: iovecWrite) */
export function readv(fd: number, iovAddress: NativeAddress | number, iovCount: number): number {
  const r = cReadv(fd, iovAddress, iovCount);
  return r < 0 ? failed() : r;
}

/** @param iovAddress  address of `iovCount` struct iovec (socket.ts: iovecWrite) */
export function writev(fd: number, iovAddress: NativeAddress | number, iovCount: number): number {
  const r = cWritev(fd, iovAddress, iovCount);
  return r < 0 ? failed() : r;
}

/** @returns bytes, 0 at the end of the file, or -errno */
export function pread(fd: number, address: NativeAddress | number, bytes: number, fileAt: number): number {
  const r = cPread(fd, address, bytes, fileAt);
  return r < 0 ? failed() : r;
}

/** Cut the last bytes off a file. @returns 0 or -errno: -ESPIPE, it is no file */
export function cutEnd(fd: number, bytes: number): number {
  const SEEK_END = 2;
  const size = cLseek(fd, 0, SEEK_END);
  if (size < 0) return failed();
  return cFtruncate(fd, size - bytes) < 0 ? failed() : 0;
}

/** Never call it twice for one descriptor: after -EINTR too the descriptor is gone (man 2 close). */
export function close(fd: number): number {
  const r = cClose(fd);
  return r < 0 ? failed() : r;
}

/** Status flags (O_NONBLOCK and so on) or -errno. */
export function fcntlGetFlags(fd: number): number {
  const r = cFcntl(fd, F_GETFL, 0);
  return r < 0 ? failed() : r;
}

/** @param flags  status flags, O_* @returns 0 or -errno */
function fcntlSetFlags(fd: number, flags: number): number {
  const r = cFcntl(fd, F_SETFL, flags);
  return r < 0 ? failed() : r;
}

/** Any other fcntl with an integer argument. */
export function fcntl(fd: number, command: number, arg: number): number {
  const r = cFcntl(fd, command, arg);
  return r < 0 ? failed() : r;
}

/** Whether a descriptor is open in this process. */
export const isOpen = (fd: number): boolean => fcntl(fd, F_GETFD, 0) >= 0;

/** O_NONBLOCK, which belongs to the open file, not to the descriptor. @returns 0 or -errno */
export function setNonBlocking(fd: number, on = true): number {
  const flags = fcntlGetFlags(fd);
  if (flags < 0) return flags;
  return fcntlSetFlags(fd, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
}

/** @returns 0 or -errno */
export function setCloexec(fd: number, on = true): number {
  const flags = fcntl(fd, F_GETFD, 0);
  if (flags < 0) return flags;
  return fcntl(fd, F_SETFD, on ? flags | FD_CLOEXEC : flags & ~FD_CLOEXEC);
}

/** Duplicate to the lowest free descriptor >= minFd, close-on-exec. */
export function dupAbove(fd: number, minFd: number): number {
  return fcntl(fd, F_DUPFD_CLOEXEC, minFd);
}

/**
 * Grow the process's table of descriptors in one step, before many are opened: where threads share the table,
 * each doubling of it waits for an RCU grace period, some 10 ms. Where a limit or a filter forbids it the
 * table grows as it is used.
 * @param fd  any that is open
 * @param count  descriptors to come
 * @source expand_fdtable(), fs/file.c
 */
export function reserveDescriptors(fd: number, count: number): void {
  const last = dupAbove(fd, count);
  if (last >= 0) close(last);
}

/** @returns newFd or -errno */
export function dup3(oldFd: number, newFd: number, flags: number): number {
  const r = cDup3(oldFd, newFd, flags);
  return r < 0 ? failed() : r;
}

/** @param fds  out: read end in [0], write end in [1] @returns 0 or -errno */
export function pipe2(fds: Int32Array, flags: number): number {
  const r = cPipe2(scratch.address + INT_AT, flags);
  if (r < 0) return failed();
  fds[0] = scratch.i32[INT_WORD]!;
  fds[1] = scratch.i32[INT_WORD + 1]!;
  return 0;
}

/**
 * Move up to `bytes` between descriptors, one of them a pipe, both at their own offsets.
 * @returns bytes or -errno
 */
export function splice(fromFd: number, toFd: number, bytes: number, flags: number): number {
  const r = cSplice(fromFd, 0, toFd, 0, bytes, flags);
  return r < 0 ? failed() : r;
}

/** @returns a descriptor or -errno */
export function eventfd(initialValue: number, flags: number): number {
  const r = cEventfd(initialValue, flags);
  return r < 0 ? failed() : r;
}

/** Ring the doorbell: add 1. @returns 8 or -errno; -EAGAIN means the counter is full, so it rings anyway */
export function eventfdWrite(fd: number): number {
  const r = cWrite(fd, scratch.address, 8);
  return r < 0 ? failed() : r;
}

/** Silence the doorbell: read the counter away. @returns 8, or -EAGAIN when it was silent */
export function eventfdDrain(fd: number): number {
  const r = cRead(fd, scratch.address + EVENTFD_READ_AT, 8);
  return r < 0 ? failed() : r;
}

/** ioctl with a plain number or an address as its argument. @returns the call's result or -errno */
export function ioctl(fd: number, request: number, arg: NativeAddress | number): number {
  const r = cIoctl(fd, request, arg);
  return r < 0 ? failed() : r;
}

/**
 * ioctl that fills an int, such as SIOCOUTQ or FIONREAD.
 * @returns that int (must not be negative) or -errno
 */
export function ioctlReadInt(fd: number, request: number): number {
  const r = cIoctl(fd, request, scratch.address + INT_AT);
  return r < 0 ? failed() : scratch.i32[INT_WORD]!;
}

/** ioctl that takes a pointer to an int, such as TUNSETVNETHDRSZ. @returns the call's result or -errno */
export function ioctlWriteInt(fd: number, request: number, value: number): number {
  scratch.i32[INT_WORD] = value;
  const r = cIoctl(fd, request, scratch.address + INT_AT);
  return r < 0 ? failed() : r;
}

/** Let what else wants this processor go first. Never fails on Linux. */
export function schedYield(): void {
  cSchedYield();
}
