/**
 * Processes: signals, groups, terminals and limits. Cold; every function returns a result or -errno.
 * PR_SET_NO_NEW_PRIVS changes the calling thread only; limits, process group and PR_SET_DUMPABLE apply to the
 * process.
 *
 * System calls for which some C library has no function go through syscall(2).
 * @syscalls pidfd_open kill tgkill rt_sigaction rt_sigprocmask exit_group gettid getpgrp getpgid setsid ioctl prctl
 *           prlimit64
 */
import { RLIMIT_NOFILE, SYS_gettid, SYS_pidfd_open } from './constants.ts';
import { SysError } from './error.ts';
import { failed, libc, syscall4 } from './libc.ts';
import { NativeBuffer } from './memory.ts';

type N = number;
const W = 'uintptr_t';
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
const cSigmask = libc<[N, N, N]>('pthread_sigmask', 'int', ['int', W, W]);
const cGetrlimit = libc<[N, N]>('getrlimit', 'int', ['int', W]);
const cSetrlimit = libc<[N, N]>('setrlimit', 'int', ['int', W]);

/**
 * pidfd_open(2).
 * @returns a descriptor (close-on-exec) that becomes readable when the process ends, or -errno
 */
export function pidfdOpen(pid: number, flags = 0): number {
  return syscall4(SYS_pidfd_open, pid, flags, 0, 0);
}

/** kill(2). @returns 0 or -errno */
export function kill(pid: number, signal: number): number {
  const r = cKill(pid, signal);
  return r < 0 ? failed() : r;
}

/**
 * Set a signal back to its default action. A shell's `&` makes the process ignore SIGINT and SIGQUIT.
 * @returns 0 or -errno
 */
export function signalDefault(signal: number): number {
  const r = cSignal(signal, 0);
  return r === -1 ? failed() : 0;
}

const SIG_UNBLOCK = 1; // <asm-generic/signal-defs.h>
const SIGSET_BYTES = 128; // sigset_t of <signal.h>

/** Unblock a signal in the calling thread, and in threads that it starts from now on. @returns 0 or -errno */
export function signalUnblock(signal: number): number {
  const set = new NativeBuffer(SIGSET_BYTES);
  set.u32[0] = 1 << (signal - 1);
  return -cSigmask(SIG_UNBLOCK, set.address, 0); // returns the errno itself
}

/**
 * Ignore a signal in the whole process. Children of spawnProcess() (spawn.ts) get the default action all the
 * same.
 * @returns 0 or -errno
 */
export function signalIgnore(signal: number): number {
  const r = cSignal(signal, 1); // SIG_IGN
  return r === -1 ? failed() : 0;
}

/**
 * End the process with all its threads at once, without the runtime's clean-up, which takes 20 to 40 ms on
 * Node and is not needed once the program has closed its own resources. Data still buffered in JavaScript is
 * lost.
 */
export function exitNow(status: number): never {
  cExit(status);
  throw new SysError('_exit', String(status), 0);
}

/** Thread id of the calling thread: the name of its directory in /proc/self/task. */
export function gettid(): number {
  return syscall4(SYS_gettid, 0, 0, 0, 0);
}

/** Process group of this process. */
export function getpgrp(): number {
  return cGetpgrp();
}

/** Process group of a process, or -errno. */
export function getpgid(pid: number): number {
  const r = cGetpgid(pid);
  return r < 0 ? failed() : r;
}

/**
 * Send a signal to the calling thread. raise(3) uses tgkill(2), which the sandbox allows; it forbids kill(2).
 */
export function raise(signal: number): number {
  return cRaise(signal);
}

/** Start a new session and process group. @returns the id of both, or -errno */
export function setsid(): number {
  const r = cSetsid();
  return r < 0 ? failed() : r;
}

/** Foreground process group of the terminal, or -errno (-ENOTTY: no terminal). */
export function tcgetpgrp(ttyFd: number): number {
  const r = cTcgetpgrp(ttyFd);
  return r < 0 ? failed() : r;
}

/**
 * Set the foreground process group of the terminal. In a background group the kernel sends SIGTTOU unless the
 * process ignores it.
 * @returns 0 or -errno
 */
export function tcsetpgrp(ttyFd: number, group: number): number {
  const r = cTcsetpgrp(ttyFd, group);
  return r < 0 ? failed() : r;
}

/** prctl(2) with numbers or addresses as arguments. @returns its result or -errno */
export function prctl(option: number, arg2 = 0, arg3 = 0, arg4 = 0, arg5 = 0): number {
  const r = cPrctl(option, arg2, arg3, arg4, arg5);
  return r < 0 ? failed() : r;
}

// ---- limits -----------------------------------------------------------------------------------------------

/** struct rlimit: cur u64, max u64. RLIM_INFINITY (all ones) is Infinity here. */
export interface ResourceLimit {
  soft: number;
  hard: number;
}

const limitBuffer = new NativeBuffer(16);
const NO_LIMIT = 0xffff_ffff_ffff_ffffn;

/** getrlimit(2). @param resource  RLIMIT_* @throws SysError */
export function getrlimit(resource: number): ResourceLimit {
  if (cGetrlimit(resource, limitBuffer.address) < 0)
    throw new SysError('getrlimit', `${resource}`, -failed());
  const limit = (at: number): number => {
    const value = limitBuffer.dv.getBigUint64(at, true);
    return value === NO_LIMIT ? Number.POSITIVE_INFINITY : Number(value);
  };
  return { soft: limit(0), hard: limit(8) };
}

/** setrlimit(2). @param resource  RLIMIT_* @returns 0 or -errno */
export function setrlimit(resource: number, limit: ResourceLimit): number {
  const store = (at: number, value: number): void =>
    limitBuffer.dv.setBigUint64(at, value === Number.POSITIVE_INFINITY ? NO_LIMIT : BigInt(value), true);
  store(0, limit.soft);
  store(8, limit.hard);
  const r = cSetrlimit(resource, limitBuffer.address);
  return r < 0 ? failed() : r;
}

/**
 * Raise the soft limit of open descriptors to the hard limit. Children inherit it.
 * @param wanted  upper bound for the new soft limit
 * @returns the soft limit now in force
 * @throws SysError when the limit cannot be read
 */
export function raiseOpenFiles(wanted = Number.POSITIVE_INFINITY): number {
  const limit = getrlimit(RLIMIT_NOFILE);
  const soft = Math.min(limit.hard, wanted);
  if (soft <= limit.soft) return limit.soft;
  return setrlimit(RLIMIT_NOFILE, { soft, hard: limit.hard }) === 0 ? soft : limit.soft;
}
