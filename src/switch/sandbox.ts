/**
 * The sandbox of a supervisor. It can do more to its containers than the engine may (read their memory, duplicate
 * and replace their descriptors), so it is a process of its own, and it can do less to the rest: it has no TAP, starts
 * no process, writes and makes no file, and opens files below /proc only, for reading. Decision 137 has the list with
 * its reasons.
 */
import { keepCapabilities } from '../sys/capability.ts';
import {
  AF_INET,
  AF_INET6,
  CAP_NET_BIND_SERVICE,
  CAP_SYS_PTRACE,
  Errno,
  F_GETFD,
  F_GETFL,
  F_SETFD,
  F_SETFL,
  FIONBIO,
  O_CREAT,
  O_RDWR,
  O_TRUNC,
  O_WRONLY,
  PR_SET_DUMPABLE,
  SOCK_STREAM,
} from '../sys/constants.ts';
import { checked } from '../sys/error.ts';
import { close } from '../sys/io.ts';
import { prctl } from '../sys/process.ts';
import { FIOCLEX, runtimeRules, SOCK_TYPE_MASK, TCGETS, THREAD } from '../sys/runtime-rules.ts';
import { type Filter, installFilter, type Rule } from '../sys/seccomp.ts';
import { NOTIFY_REQUESTS } from '../sys/seccomp-notify.ts';
import type { SyscallName } from '../sys/syscall-numbers.ts';
import { dropUntilNoThreadHasMore, openTasks } from '../sys/thread-capabilities.ts';

/** Over the containers' processes, and for ports below 1024 inside; in the user namespace of the containers. */
const KEPT_CAPABILITIES = [CAP_SYS_PTRACE, CAP_NET_BIND_SERVICE];

const ALLOWED: readonly SyscallName[] = [
  ...(['read', 'pread64', 'write', 'close', 'recvmsg', 'recvfrom', 'sendto', 'sendmsg', 'lseek'] as const),
  ...([
    'connect',
    'bind',
    'listen',
    'shutdown',
    'getsockname',
    'getpeername',
    'getsockopt',
    'setsockopt',
  ] as const),
  ...(['epoll_ctl', 'epoll_wait', 'epoll_pwait', 'epoll_pwait2'] as const),
  ...(['pidfd_open', 'pidfd_getfd', 'process_vm_readv', 'kcmp', 'getdents64'] as const),
  ...(['capget', 'capset', 'exit_group', 'gettid', 'clock_gettime', 'sched_yield'] as const),
  ...(['mmap', 'mprotect', 'madvise', 'rt_sigaction', 'rt_sigprocmask', 'rt_sigreturn'] as const),
];
const NO_FILE: readonly SyscallName[] = [
  ...(['open', 'openat2', 'stat', 'lstat', 'access', 'faccessat', 'faccessat2', 'readlink'] as const),
  ...(['getcwd', 'newfstatat', 'statx', 'statfs', 'unlink', 'unlinkat', 'mkdir', 'mkdirat'] as const),
];
/** From then on the pages of the start's code are not needed (sys/file-pages.ts), as in an engine. */
export const DROP_PAGES_MS = 2000;

/** What a supervisor of its own needs beyond that. */
export interface MorePermissions {
  /** Allowed with any arguments. */
  readonly calls?: readonly SyscallName[];
  /** Descriptors of directories in which names may be removed: a socket file at the end. */
  readonly removable?: readonly number[];
}

/** The rule for each permitted call. @param proc  descriptor of /proc */
export function supervisorFilter(
  proc: number,
  { calls = [], removable = [] }: MorePermissions = {},
  pid = process.pid,
): Filter {
  const rules = new Map<SyscallName, Rule>();
  for (const name of NO_FILE) rules.set(name, { errno: Errno.ENOENT });
  for (const name of [...ALLOWED, ...calls]) rules.set(name, 'allow');
  for (const [name, rule] of runtimeRules(pid)) rules.set(name, rule);
  const forReading = { arg: 2, mask: O_WRONLY | O_RDWR | O_CREAT | O_TRUNC, equals: 0 };
  rules.set('openat', { when: [{ arg: 0, oneOf: [proc] }, forReading], otherwise: Errno.ENOENT });
  rules.set('readlinkat', { when: [{ arg: 0, oneOf: [proc] }], otherwise: Errno.ENOENT });
  if (removable.length > 0)
    rules.set('unlinkat', { when: [{ arg: 0, oneOf: removable }], otherwise: Errno.ENOENT });
  rules.set('socket', {
    when: [
      { arg: 0, oneOf: [AF_INET, AF_INET6] },
      { arg: 1, mask: SOCK_TYPE_MASK, equals: SOCK_STREAM },
      { arg: 2, oneOf: [0] },
    ],
    otherwise: Errno.EACCES,
  });
  rules.set('ioctl', {
    when: [{ arg: 1, oneOf: [...NOTIFY_REQUESTS, FIONBIO, FIOCLEX, TCGETS] }],
    otherwise: Errno.ENOTTY,
  });
  rules.set('fcntl', {
    when: [{ arg: 1, oneOf: [F_GETFD, F_SETFD, F_GETFL, F_SETFL] }],
    otherwise: Errno.EINVAL,
  });
  rules.set('clone', { when: [{ arg: 0, mask: THREAD, equals: THREAD }], otherwise: Errno.EPERM });
  return rules;
}

/**
 * Enter it, in all threads.
 * @param proc  descriptor of /proc
 * @throws SysError
 */
export function enterSupervisorSandbox(proc: number, more?: MorePermissions): void {
  const tasks = openTasks();
  checked(prctl(PR_SET_DUMPABLE, 0), 'prctl', 'PR_SET_DUMPABLE, 0');
  checked(keepCapabilities(KEPT_CAPABILITIES), 'capset', 'main thread');
  dropUntilNoThreadHasMore(tasks, KEPT_CAPABILITIES);
  close(tasks);
  installFilter(supervisorFilter(proc, more));
}
