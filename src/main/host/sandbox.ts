/**
 * The sandbox that the process enters once everything is set up: an empty root, only the capabilities that
 * running flows need, a list of permitted system calls, no core dumps and no tracing. An attacker who takes
 * over a packet thread finds no file, no program, no namespace and no way to gain privileges. Cold.
 * host/start.ts calls detachFromHost(), lets the front end do its own steps (change the user, detach from the
 * caller), then calls enterSandbox().
 *
 * Descriptors that were opened before keep working. Files are opened later only through directories that
 * SandboxPlan names. COMMAND is started before, so the sandbox does not apply to it. A violation ends the
 * process by SIGSYS, and the kernel's audit log names the call. The reasons for the list are in
 * docs/decisions/052-sandbox.md.
 */
import { readlinkSync } from 'node:fs';
import { RUNTIME_CALLS as CALLS_OF_RUNTIME } from '#runtime/system-calls';
import { keepCapabilities } from '../../sys/capability.ts';
import {
  AF_INET,
  AF_INET6,
  CAP_KILL,
  CAP_NET_ADMIN,
  CAP_SYS_PTRACE,
  CLONE_NEWCGROUP,
  CLONE_NEWIPC,
  CLONE_NEWNET,
  CLONE_NEWNS,
  CLONE_NEWPID,
  CLONE_NEWUSER,
  CLONE_NEWUTS,
  Errno,
  F_GETFD,
  F_GETFL,
  F_GETPIPE_SZ,
  F_SETFD,
  F_SETFL,
  F_SETPIPE_SZ,
  FIONBIO,
  FIONREAD,
  IPPROTO_ICMP,
  IPPROTO_ICMPV6,
  IPPROTO_UDP,
  MNT_DETACH,
  MS_NODEV,
  MS_NOEXEC,
  MS_NOSUID,
  MS_RDONLY,
  MS_REC,
  MS_REMOUNT,
  MS_SLAVE,
  O_CREAT,
  O_PATH,
  O_RDWR,
  O_TRUNC,
  O_WRONLY,
  PR_SET_DUMPABLE,
  SIOCOUTQNSD,
  SOCK_DGRAM,
  SOCK_STREAM,
  TIOCOUTQ,
  TUNSETQUEUE,
} from '../../sys/constants.ts';
import { checked, SysError } from '../../sys/error.ts';
import { findEventRings } from '../../sys/event-rings.ts';
import { close } from '../../sys/io.ts';
import { scopeAbstractSockets } from '../../sys/landlock.ts';
import { chdir, chroot, mount, pivotRoot, umount2 } from '../../sys/mount.ts';
import { prctl } from '../../sys/process.ts';
import { FIOCLEX, runtimeRules, SOCK_TYPE_MASK, TCGETS, THREAD } from '../../sys/runtime-rules.ts';
import { type Filter, installFilter, type Rule } from '../../sys/seccomp.ts';
import type { SyscallName } from '../../sys/syscall-numbers.ts';
import {
  dropCapabilitiesElsewhere,
  dropUntilNoThreadHasMore,
  openTasks,
} from '../../sys/thread-capabilities.ts';
import { flowCapabilities } from '../../workers/thread/capabilities.ts';
import { closeInherited } from '../process/inherited-descriptors.ts';
import { launcherVariable } from '../process/launcher-env.ts';
import { forgetCommandDirectory } from '../process/working-directory.ts';
import type { Log } from './log.ts';
import { overwriteEnvironment } from './overwrite-environment.ts';

/** Whether no other process uses our mount namespace: only then may its root be exchanged. */
function ownMounts(env: NodeJS.ProcessEnv): boolean {
  if (launcherVariable('BUCATINI_OWN_MOUNTS', env) !== '1') return false;
  try {
    // The variable may come from a caller that started us without a launcher: compare with the parent's
    // namespace.
    return readlinkSync('/proc/self/ns/mnt') !== readlinkSync(`/proc/${process.ppid}/ns/mnt`);
  } catch {
    return true; // we may not look at the parent, so its namespaces are not ours
  }
}

/**
 * Give all threads an empty, read-only root. Needs CAP_SYS_ADMIN, so call it before the user is changed.
 * @param chrootFallback  use chroot if pivot_root fails; pivot_root fails with EINVAL on an initramfs
 * @returns undefined, or the reason why the root is still the host's
 * @throws SysError
 */
export function emptyRoot(chrootFallback = false, env: NodeJS.ProcessEnv = process.env): string | undefined {
  if (!ownMounts(env)) return 'no mount namespace of our own';
  // The launchers have already made the mounts slaves. Repeat it here: a mistake in a launcher must not
  // unmount anything on the host.
  checked(mount(null, '/', null, MS_REC | MS_SLAVE, null), 'mount', '/, MS_REC | MS_SLAVE');
  const at = '/proc'; // exists: the start so far has needed /proc
  const flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
  checked(mount('bucatini', at, 'tmpfs', flags, 'nr_inodes=2,nr_blocks=2,mode=555'), 'mount', `tmpfs, ${at}`);
  checked(chdir(at), 'chdir', at);
  const r = pivotRoot('.', '.');
  if (r >= 0) {
    // pivot_root(2) with both arguments ".": the old root is now mounted on top of the new one.
    checked(umount2('.', MNT_DETACH), 'umount2', 'the old root, MNT_DETACH');
  } else if (chrootFallback) {
    checked(chroot('.'), 'chroot', '.');
  } else {
    const remedy = 'if the root is an initramfs, use pasta with --chroot-fallback';
    throw new SysError('pivot_root', '., .', -r, remedy);
  }
  checked(chdir('/'), 'chdir', '/');
  // May fail: the tmpfs has no room for a file anyway.
  mount(null, '/', null, flags | MS_REMOUNT | MS_RDONLY, null);
  return undefined;
}

/** What detachFromHost() needs to know. */
export interface Leaving {
  /** EngineHandle.eventRings. undefined: search for them in /proc. */
  readonly eventRings: readonly number[] | undefined;
  readonly log: Log;
  /** Inherited descriptors that options name: they stay open. */
  readonly keepOpen?: readonly number[];
  /** Watches something by its path, so it must be informed when the root is exchanged. */
  readonly watched?: { rootChanged(): void } | undefined;
  readonly chrootFallback?: boolean;
  /**
   * Change to an ordinary user in all threads; this takes the threads' capabilities away. The threads must
   * still have them before: if one thread cannot change its user, glibc ends the process.
   */
  readonly changeUser?: (() => void) | undefined;
}

/** What enterSandbox() needs, and could not open itself: /proc is not accessible any more. */
export interface Detached {
  /**
   * Descriptors of the io_uring instances that libuv uses for changes of epoll sets: they may be entered
   * (docs/decisions/052-sandbox.md).
   */
  readonly eventRings: readonly number[];
  /** A descriptor of openTasks(), which enterSandbox() closes. */
  readonly tasks: number;
}

/**
 * Give up what the host and the caller gave us: inherited descriptors, the environment, the capabilities of
 * threads that run nothing of ours, the root. All packet threads must run and have dropped their own
 * capabilities.
 * @returns for enterSandbox()
 * @throws SysError
 */
export function detachFromHost(leaving: Leaving): Detached {
  const { eventRings, log, keepOpen, watched, chrootFallback, changeUser } = leaving;
  closeInherited(keepOpen);
  forgetCommandDirectory();
  const whyKept = overwriteEnvironment();
  if (whyKept !== undefined) log('debug', `the caller's environment stays in memory: ${whyKept}`);
  // These need /proc, so they come before the root is exchanged.
  const tasks = openTasks();
  const waitForDrop = changeUser ?? dropCapabilitiesElsewhere(tasks, flowCapabilities());
  const rings = eventRings ?? findEventRings();
  const whyHostRoot = emptyRoot(chrootFallback);
  // The filter refuses calls with paths nevertheless.
  if (whyHostRoot !== undefined) log('debug', `the root stays the host's: ${whyHostRoot}`);
  watched?.rootChanged();
  waitForDrop?.();
  return { eventRings: rings, tasks };
}

/** What stays possible in the sandbox. */
export interface SandboxPlan {
  /** Descriptors of directories in which files may be opened for reading. */
  readonly readable: readonly number[];
  /** Descriptors of directories that may be listed, nothing else. */
  readonly listable?: readonly number[];
  /** Descriptors of directories in which names may be removed: socket files at the end. */
  readonly removable: readonly number[];
  /**
   * Ids of processes that may be sent signals: COMMAND and the head of its chain (Command.signalled). They
   * may have changed their user, so this keeps CAP_KILL.
   */
  readonly signals: readonly number[];
  /**
   * Whether to look which namespace another user's process is in. This keeps CAP_SYS_PTRACE; tracing itself
   * is not among the permitted calls.
   */
  readonly watchesProcess: boolean;
  /**
   * An address or a default route that the host gets late is configured in the namespace (decision 060). This
   * keeps CAP_NET_ADMIN.
   */
  readonly configuresNetwork?: boolean;
}

/**
 * Capabilities that the main thread keeps. Packet threads have chosen theirs themselves
 * (workers/thread/capabilities.ts); all other threads keep none.
 */
function mainCapabilities(plan: SandboxPlan): readonly number[] {
  return [
    ...(plan.signals.length > 0 ? [CAP_KILL] : []),
    ...(plan.watchesProcess ? [CAP_SYS_PTRACE] : []),
    ...(plan.configuresNetwork ? [CAP_NET_ADMIN] : []),
  ];
}

const ALLOW = 'allow' as const;
const FAIL_ENOENT = { errno: Errno.ENOENT } as const;

// <asm-generic/ioctls.h>, <linux/sockios.h>
const TIOCGPGRP = 0x540f;
const TIOCSPGRP = 0x5410;
const TIOCGWINSZ = 0x5413;
const NEW_NAMESPACES =
  CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;
const IORING_ENTER_GETEVENTS = 1; // <linux/io_uring.h>

/**
 * Calls of the engine itself, allowed with any arguments and declared by src/sys (`@syscalls`). Kernels that
 * keep a bitmap of such calls (Linux 5.11) do not run the filter for any packet.
 */
export const ENGINE_CALLS: readonly SyscallName[] = [
  'read',
  'write',
  'readv',
  'writev',
  'pread64',
  'splice',
  'lseek',
  'ftruncate',
  'close',
  'bind',
  'listen',
  'connect',
  'accept4',
  'shutdown',
  'getsockname',
  'getpeername',
  'setsockopt',
  'getsockopt',
  'sendto',
  'recvfrom',
  'sendmsg',
  'recvmsg',
  'sendmmsg',
  'recvmmsg',
  'epoll_create1',
  'epoll_ctl',
  'epoll_wait',
  'epoll_pwait',
  'epoll_pwait2',
  'poll',
  'eventfd2',
  'pipe2',
  'mmap',
  'mprotect',
  'madvise',
  'rt_sigaction',
  'rt_sigprocmask',
  'rt_sigreturn',
  'wait4',
  'exit_group',
  'sched_yield',
  'clock_gettime',
  'newfstatat',
  'getpgrp',
  'getpgid',
  'gettid',
  'capget',
];

/** Calls of the runtime itself (src/runtime). */
export const RUNTIME_CALLS: Readonly<Record<string, readonly SyscallName[]>> = CALLS_OF_RUNTIME;

/**
 * Calls with paths, and getcwd, unless the runtime needs it. They fail with ENOENT, as an empty root has no
 * such file, and as libraries that look for optional files expect.
 */
const PATH_CALLS: readonly SyscallName[] = [
  'open',
  'openat2',
  'creat',
  'stat',
  'lstat',
  'access',
  'faccessat',
  'faccessat2',
  'readlink',
  'unlink',
  'getcwd',
  'getdents64',
  'statfs',
  'rename',
  'renameat',
  'renameat2',
  'mkdir',
  'mkdirat',
  'inotify_add_watch',
];

/**
 * The rule for each permitted call.
 * @param eventRings  as in Detached
 */
export function sandboxFilter(plan: SandboxPlan, eventRings: readonly number[], pid = process.pid): Filter {
  const rules = new Map<SyscallName, Rule>();
  const put = (name: SyscallName, rule: Rule): Map<SyscallName, Rule> => rules.set(name, rule);
  for (const name of PATH_CALLS) put(name, FAIL_ENOENT);
  for (const name of ENGINE_CALLS) put(name, ALLOW);
  for (const [name, rule] of runtimeRules(pid)) put(name, rule);
  const inDirectories = (fds: readonly number[], ...when: Extract<Rule, { when: unknown }>['when']): Rule =>
    fds.length === 0 ? FAIL_ENOENT : { when: [{ arg: 0, oneOf: fds }, ...when], otherwise: Errno.ENOENT };
  const forReading = { arg: 2, mask: O_WRONLY | O_RDWR | O_CREAT | O_TRUNC | O_PATH, equals: 0 };
  put('openat', inDirectories(plan.readable, forReading));
  put('readlinkat', inDirectories(plan.readable));
  put('unlinkat', inDirectories(plan.removable));
  put('getdents64', inDirectories(plan.listable ?? []));
  const sockets = (domains: readonly number[], type: number, protocols: readonly number[]) => [
    { arg: 0, oneOf: domains },
    { arg: 1, mask: SOCK_TYPE_MASK, equals: type },
    { arg: 2, oneOf: protocols },
  ];
  // TCP, UDP and ping. Not the other protocols of the same socket types (MPTCP, UDP-Lite, SCTP).
  put('socket', {
    anyOf: [
      sockets([AF_INET, AF_INET6], SOCK_STREAM, [0]),
      sockets([AF_INET, AF_INET6], SOCK_DGRAM, [0, IPPROTO_UDP]),
      sockets([AF_INET], SOCK_DGRAM, [IPPROTO_ICMP]),
      sockets([AF_INET6], SOCK_DGRAM, [IPPROTO_ICMPV6]),
    ],
  });
  put('ioctl', {
    when: [
      {
        arg: 1,
        oneOf: [
          ...[FIONREAD, TIOCOUTQ, SIOCOUTQNSD, FIONBIO, FIOCLEX],
          ...[TCGETS, TIOCGWINSZ, TIOCGPGRP, TIOCSPGRP],
          TUNSETQUEUE, // lanes that open and close (sys/tap-queue.ts)
        ],
      },
    ],
    otherwise: Errno.ENOTTY,
  });
  put('fcntl', {
    when: [
      {
        arg: 1,
        oneOf: [F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_GETPIPE_SZ, F_SETPIPE_SZ],
      },
    ],
    otherwise: Errno.EINVAL,
  });
  // Existing io_uring instances may be entered, only to wait for events; none can be made.
  put('io_uring_enter', {
    when: [
      { arg: 0, oneOf: eventRings },
      { arg: 3, mask: ~IORING_ENTER_GETEVENTS, equals: 0 },
    ],
  });
  put('clone', {
    when: [
      { arg: 0, mask: THREAD, equals: THREAD },
      { arg: 0, mask: NEW_NAMESPACES, equals: 0 },
    ],
  });
  // Permitted by process id. A reused id cannot be hit: when COMMAND ends, its chain and this process end
  // too.
  if (plan.signals.length > 0) put('kill', { when: [{ arg: 0, oneOf: plan.signals }] });
  return rules;
}

/**
 * Enter the sandbox. From here on nothing of the host can be reached.
 * @throws SysError
 */
export function enterSandbox(plan: SandboxPlan, { eventRings, tasks }: Detached): void {
  // No process may read our memory; the files of /proc/PID become root's. This must come before the filter,
  // which refuses the call.
  checked(prctl(PR_SET_DUMPABLE, 0), 'prctl', 'PR_SET_DUMPABLE, 0');
  const kept = mainCapabilities(plan);
  checked(keepCapabilities(kept), 'capset', 'main thread');
  // JavaScriptCore may have started a thread from this one meanwhile, with all capabilities. From here on no
  // thread has more than a packet thread or this one, and so no new thread gets more.
  const allowed = [...flowCapabilities(), ...kept];
  dropUntilNoThreadHasMore(tasks, allowed);
  close(tasks);
  // Packet threads have done this themselves. A scoped thread may not look which namespace a process outside
  // is in.
  if (!plan.watchesProcess) scopeAbstractSockets();
  installFilter(sandboxFilter(plan, eventRings));
}
