/**
 * What every sandbox of ours answers to the system calls of the JavaScript runtime: that of an engine
 * (main/host/sandbox.ts) and that of a supervisor (switch/sandbox.ts). Cold.
 * @syscalls (none)
 */
import { REFUSED_CALLS, RUNTIME_CALLS } from '#runtime/system-calls';
import { Errno, PR_GET_DUMPABLE, PR_GET_NAME, PR_SET_NAME } from './constants.ts';
import type { Rule } from './seccomp.ts';
import type { SyscallName } from './syscall-numbers.ts';

/** PR_SET_VMA, <linux/prctl.h>: V8 and glibc name their mappings. */
const PR_SET_VMA = 0x5356_4d41;
/** <linux/net.h>: the type in the second argument of socket(2), without flags. */
export const SOCK_TYPE_MASK = 0xf;
// <asm-generic/ioctls.h>
export const TCGETS = 0x5401;
export const FIOCLEX = 0x5451;
/** <linux/sched.h>: clone flags of a thread, which shares memory, signal handlers and thread group. */
export const THREAD = 0x100 | 0x800 | 0x1_0000; // CLONE_VM, CLONE_SIGHAND, CLONE_THREAD

/**
 * The rules that do not depend on what the process is for. clone(2), ioctl(2) and fcntl(2) do.
 * @param pid  of this process
 */
export function runtimeRules(pid: number): [SyscallName, Rule][] {
  const calls = (
    lists: Readonly<Record<string, readonly SyscallName[]>>,
    rule: Rule,
  ): [SyscallName, Rule][] =>
    Object.values(lists)
      .flat()
      .map((name) => [name, rule]);
  return [
    ...calls(RUNTIME_CALLS, 'allow'),
    ...calls(REFUSED_CALLS, { errno: Errno.ENOSYS }),
    // Its flags are in memory, where the filter cannot read them; the C library then uses clone.
    ['clone3', { errno: Errno.ENOSYS }],
    [
      'prctl',
      {
        when: [{ arg: 0, oneOf: [PR_SET_NAME, PR_GET_NAME, PR_SET_VMA, PR_GET_DUMPABLE] }],
        otherwise: Errno.EINVAL,
      },
    ],
    ['prlimit64', { when: [{ arg: 2, isNull: true }], otherwise: Errno.EPERM }], // limits may be read
    ...(['sched_setscheduler', 'setpriority', 'sched_setaffinity', 'sched_setparam'] as const).map(
      (name): [SyscallName, Rule] => [name, { errno: Errno.EPERM }],
    ),
    ['tgkill', { when: [{ arg: 0, oneOf: [pid] }] }], // abort(3)
  ];
}
