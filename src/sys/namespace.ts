/**
 * Namespaces, mounts, processes, capabilities, limits. Cold: strings are welcome; results or -errno, for
 * `checked()` (error.ts) where the caller wants an exception.
 *
 * What is per thread and what per process: setns, unshare, prctl(PR_SET_NAME), capset and no_new_privs change the
 * calling thread only (CLONE_NEWUSER is refused, EINVAL, in a process with several threads, which Node always is);
 * pivot_root reaches all threads that share the mount namespace; limits, process group and dumpability are the
 * process's.
 *
 * Calls that some C library has no function for go through syscall(2).
 * @syscalls unshare setns open openat write close mkdirat unlinkat mount umount2 pivot_root chdir fchdir chroot pidfd_open pidfd_getfd
 *           pidfd_send_signal prctl seccomp getpgrp getpgid tgkill setsid kill ioctl capget capset prlimit64 gettid rt_sigaction
 *           exit_group
 */
import {
  AT_FDCWD,
  F_GETFD,
  LINUX_CAPABILITY_VERSION_3,
  NS_GET_NSTYPE,
  NS_GET_OWNER_UID,
  NS_GET_USERNS,
  O_CLOEXEC,
  O_WRONLY,
  PR_SET_NAME,
  RLIMIT_NOFILE,
  SYS_capget,
  SYS_capset,
  SYS_gettid,
  SYS_pidfd_getfd,
  SYS_pidfd_open,
  SYS_pidfd_send_signal,
  SYS_pivot_root,
  SYS_seccomp,
} from './constants.ts';
import { SysError } from './error.ts';
import { close, fcntl, ioctl, ioctlReadInt, write } from './io.ts';
import { failed, libc } from './libc.ts';
import { NativeBuffer } from './memory.ts';

type N = number;
const S = 'const char *';
const W = 'uintptr_t';
const cUnshare = libc<[N]>('unshare', 'int', ['int']);
const cSetns = libc<[N, N]>('setns', 'int', ['int', 'int']);
const cOpenat = libc<[N, string, N, N]>('openat', 'int', ['int', S, 'int', 'uint32_t']);
const cMkdirat = libc<[N, string, N]>('mkdirat', 'int', ['int', S, 'uint32_t']);
const cUnlinkat = libc<[N, string, N]>('unlinkat', 'int', ['int', S, 'int']);
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
const cPrctl = libc<[N, N, N, N, N]>('prctl', 'int', ['int', W, W, W, W]);
const cExit = libc<[N]>('_exit', 'int', ['int']);
const cGetpgrp = libc<[]>('getpgrp', 'int', []);
const cGetpgid = libc<[N]>('getpgid', 'int', ['int']);
const cRaise = libc<[N]>('raise', 'int', ['int']);
const cSetsid = libc<[]>('setsid', 'int', []);
const cTcgetpgrp = libc<[N]>('tcgetpgrp', 'int', ['int']);
const cTcsetpgrp = libc<[N, N]>('tcsetpgrp', 'int', ['int', 'int']);
const cKill = libc<[N, N]>('kill', 'int', ['int', 'int']);
const cSignal = libc<[N, N]>('signal', 'intptr_t', ['int', W]);
const cGetrlimit = libc<[N, N]>('getrlimit', 'int', ['int', W]);
const cSetrlimit = libc<[N, N]>('setrlimit', 'int', ['int', W]);
const cSyscall = libc<[N, N, N, N, N]>('syscall', 'intptr_t', ['int64_t', W, W, W, W]);
const cSyscallPaths = libc<[N, string, string]>('syscall', 'intptr_t', ['int64_t', S, S]);

// ---- namespaces ---------------------------------------------------------------------------------------------------

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

/** The user namespace that owns the namespace fd stands for. @returns a descriptor (close-on-exec) or -errno */
export function namespaceOwner(fd: number): number {
  return ioctl(fd, NS_GET_USERNS, 0);
}

/** CLONE_NEW* of the namespace that fd stands for, or -errno (-ENOTTY: no namespace). */
export function namespaceType(fd: number): number {
  return ioctl(fd, NS_GET_NSTYPE, 0);
}

/** User id, in the caller's user namespace, of the maker of the user namespace fd stands for, or -errno. */
export function namespaceOwnerUid(fd: number): number {
  const r = ioctlReadInt(fd, NS_GET_OWNER_UID);
  // The uid is a u32: 2^31 and above come back negative, and no errno is that large.
  return r < -4095 ? r >>> 0 : r;
}

// ---- paths --------------------------------------------------------------------------------------------------------

/** open(2) with O_CLOEXEC added. @returns a descriptor or -errno */
export function openPath(path: string, flags: number, mode = 0): number {
  return openat(AT_FDCWD, path, flags, mode);
}

/** openat(2) with O_CLOEXEC added. @returns a descriptor or -errno */
export function openat(dirFd: number, path: string, flags: number, mode = 0): number {
  const r = cOpenat(dirFd, path, flags | O_CLOEXEC, mode);
  return r < 0 ? failed() : r;
}

/** @returns 0 or -errno */
export function mkdirat(dirFd: number, path: string, mode: number): number {
  const r = cMkdirat(dirFd, path, mode);
  return r < 0 ? failed() : r;
}

/** @param flags  0 for a file, AT_REMOVEDIR for a directory */
export function unlinkat(dirFd: number, path: string, flags: number): number {
  const r = cUnlinkat(dirFd, path, flags);
  return r < 0 ? failed() : r;
}

/** chdir(2): unlike process.chdir() it is also allowed in a worker; it moves all threads that share the fs state. */
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

// ---- mounts -------------------------------------------------------------------------------------------------------

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

/** Any system call without a function of its own here. @returns its result or -errno */
export function syscall4(call: number, a: number, b: number, c: number, d: number): number {
  const r = cSyscall(call, a, b, c, d);
  return r < 0 ? failed() : r;
}

// ---- processes ----------------------------------------------------------------------------------------------------

/** @returns a descriptor (close-on-exec) that is readable when the process has ended, or -errno */
export function pidfdOpen(pid: number, flags = 0): number {
  const r = cSyscall(SYS_pidfd_open, pid, flags, 0, 0);
  return r < 0 ? failed() : r;
}

/** Duplicate descriptor `targetFd` of another process; needs what ptrace needs. @returns ours (close-on-exec) or -errno */
export function pidfdGetfd(pidFd: number, targetFd: number): number {
  const r = cSyscall(SYS_pidfd_getfd, pidFd, targetFd, 0, 0);
  return r < 0 ? failed() : r;
}

/** @returns 0 or -errno */
export function pidfdSendSignal(pidFd: number, signal: number): number {
  const r = cSyscall(SYS_pidfd_send_signal, pidFd, signal, 0, 0);
  return r < 0 ? failed() : r;
}

/** @returns 0 or -errno */
export function kill(pid: number, signal: number): number {
  const r = cKill(pid, signal);
  return r < 0 ? failed() : r;
}

/** Set a signal back to its default action, which a shell's `&` took away for SIGINT and SIGQUIT. */
export function signalDefault(signal: number): number {
  const r = cSignal(signal, 0);
  return r === -1 ? failed() : 0;
}

/** Ignore a signal in the whole process; children that Node starts get the default action back. */
export function signalIgnore(signal: number): number {
  const r = cSignal(signal, 1); // SIG_IGN
  return r === -1 ? failed() : 0;
}

/**
 * End the process at once, all threads with it, without V8's and libuv's tidying: 20 to 40 ms that nobody needs who has closed
 * what is his. Nothing that is still buffered in JavaScript is written.
 */
export function exitNow(status: number): never {
  cExit(status);
  throw new SysError('_exit', String(status), 0);
}

/** Thread id of the caller: the name of its directory under /proc/self/task. */
export function gettid(): number {
  return cSyscall(SYS_gettid, 0, 0, 0, 0);
}

/** The caller's process group. */
export function getpgrp(): number {
  return cGetpgrp();
}

/** The process group of a process, or -errno. */
export function getpgid(pid: number): number {
  const r = cGetpgid(pid);
  return r < 0 ? failed() : r;
}

/** Send a signal to ourselves. raise(3) is tgkill(2), which is left to us where kill(2) is not. */
export function raise(signal: number): number {
  return cRaise(signal);
}

/** A session and a process group of its own. @returns its id or -errno */
export function setsid(): number {
  const r = cSetsid();
  return r < 0 ? failed() : r;
}

/** Foreground process group of the terminal, or -errno (-ENOTTY: no terminal). */
export function tcgetpgrp(ttyFd: number): number {
  const r = cTcgetpgrp(ttyFd);
  return r < 0 ? failed() : r;
}

/** From a background group it sends us SIGTTOU unless that is ignored. */
export function tcsetpgrp(ttyFd: number, group: number): number {
  const r = cTcsetpgrp(ttyFd, group);
  return r < 0 ? failed() : r;
}

/** prctl(2) with numbers or addresses. */
export function prctl(option: number, arg2 = 0, arg3 = 0, arg4 = 0, arg5 = 0): number {
  const r = cPrctl(option, arg2, arg3, arg4, arg5);
  return r < 0 ? failed() : r;
}

/** seccomp(2). @param argsAddress  address of what the operation takes, or 0 */
export function seccomp(operation: number, flags: number, argsAddress: number): number {
  const r = cSyscall(SYS_seccomp, operation, flags, argsAddress, 0);
  return r < 0 ? failed() : r;
}

const nameBuffer = new NativeBuffer(16);

/** Name the calling thread, at most 15 bytes of UTF-8, as `ps -L` shows it. */
export function setThreadName(name: string): number {
  nameBuffer.u8.fill(0);
  new TextEncoder().encodeInto(name, nameBuffer.u8.subarray(0, 15));
  return prctl(PR_SET_NAME, nameBuffer.address);
}

/**
 * Name the calling thread, and with it the process as ps and pgrep show it (which is the main thread's name).
 * @returns 0 or -errno; without /proc only the main thread can name the process
 */
export function setProcessName(name: string): number {
  const r = setThreadName(name);
  if (r < 0) return r;
  const fd = openPath('/proc/self/comm', O_WRONLY);
  if (fd < 0) return fd;
  const written = write(fd, nameBuffer.address, nameBuffer.u8.indexOf(0));
  close(fd);
  return Math.min(written, 0);
}

// ---- capabilities -------------------------------------------------------------------------------------------------

/** Capability sets, bit n is capability n (CAP_*). */
export interface Capabilities {
  effective: bigint;
  permitted: bigint;
  inheritable: bigint;
}

/** struct __user_cap_header (8 bytes) and two struct __user_cap_data (12 bytes each): <linux/capability.h>. */
const capHeader = new NativeBuffer(8);
const capData = new NativeBuffer(24);

/** Capabilities of the calling thread. */
export function capget(): Capabilities {
  capHeader.u32[0] = LINUX_CAPABILITY_VERSION_3;
  capHeader.u32[1] = 0;
  if (cSyscall(SYS_capget, capHeader.address, capData.address, 0, 0) < 0) {
    throw new SysError('capget', 'calling thread', -failed());
  }
  const set = (word: number): bigint => BigInt(capData.u32[word]!) | (BigInt(capData.u32[word + 3]!) << 32n);
  return { effective: set(0), permitted: set(1), inheritable: set(2) };
}

/** Set the capabilities of the calling thread. @returns 0 or -errno */
export function capset(capabilities: Capabilities): number {
  capHeader.u32[0] = LINUX_CAPABILITY_VERSION_3;
  capHeader.u32[1] = 0;
  const sets = [capabilities.effective, capabilities.permitted, capabilities.inheritable];
  sets.forEach((set, word) => {
    capData.u32[word] = Number(set & 0xffff_ffffn);
    capData.u32[word + 3] = Number(set >> 32n);
  });
  const r = cSyscall(SYS_capset, capHeader.address, capData.address, 0, 0);
  return r < 0 ? failed() : r;
}

/**
 * Drop all capabilities of the calling thread but these; of what it has not got it gets nothing.
 * @returns 0 or -errno
 */
export function keepCapabilities(kept: readonly number[]): number {
  const { permitted } = capget();
  const left = permitted & kept.reduce((set, capability) => set | (1n << BigInt(capability)), 0n);
  return capset({ effective: left, permitted: left, inheritable: 0n });
}

/** Whether a set has a capability. */
export const hasCapability = (set: bigint, capability: number): boolean =>
  ((set >> BigInt(capability)) & 1n) === 1n;

// ---- limits -------------------------------------------------------------------------------------------------------

/** struct rlimit: cur u64, max u64. All ones is no limit: Infinity here. */
export interface ResourceLimit {
  soft: number;
  hard: number;
}

const limitBuffer = new NativeBuffer(16);
const NO_LIMIT = 0xffff_ffff_ffff_ffffn;

/** @param resource  RLIMIT_* @throws SysError */
export function getrlimit(resource: number): ResourceLimit {
  if (cGetrlimit(resource, limitBuffer.address) < 0)
    throw new SysError('getrlimit', `${resource}`, -failed());
  const limit = (at: number): number => {
    const value = limitBuffer.dv.getBigUint64(at, true);
    return value === NO_LIMIT ? Number.POSITIVE_INFINITY : Number(value);
  };
  return { soft: limit(0), hard: limit(8) };
}

/** @returns 0 or -errno */
export function setrlimit(resource: number, limit: ResourceLimit): number {
  const store = (at: number, value: number): void =>
    limitBuffer.dv.setBigUint64(at, value === Number.POSITIVE_INFINITY ? NO_LIMIT : BigInt(value), true);
  store(0, limit.soft);
  store(8, limit.hard);
  const r = cSetrlimit(resource, limitBuffer.address);
  return r < 0 ? failed() : r;
}

/**
 * Raise the soft limit of open descriptors towards the hard one. Children inherit it.
 * @param wanted  no more than so many
 * @returns the soft limit now in force
 */
export function raiseOpenFiles(wanted = Number.POSITIVE_INFINITY): number {
  const limit = getrlimit(RLIMIT_NOFILE);
  const soft = Math.min(limit.hard, wanted);
  if (soft <= limit.soft) return limit.soft;
  return setrlimit(RLIMIT_NOFILE, { soft, hard: limit.hard }) === 0 ? soft : limit.soft;
}

/** Whether a descriptor is open in this process. */
export const isOpen = (fd: number): boolean => fcntl(fd, F_GETFD, 0) >= 0;
