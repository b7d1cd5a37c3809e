/**
 * landlock(7), for restrictions that a system call filter cannot express: a filter does not see which
 * socket an address in memory names. Cold.
 *
 * Of COMMAND with --switch-sockets: it can neither connect nor bind a TCP socket itself, whichever descriptor,
 * instruction or table of system calls it uses; its supervisor does that for it (src/switch/supervisor.ts). Not
 * covered: TCP Fast Open, which connects without the hook of connect(2).
 *
 * Of our own threads:
 * A scoped thread can neither connect nor send to an abstract UNIX socket that was created outside its scope,
 * whichever descriptor it uses. Without the scope a datagram socket (that of the system log, or one that the
 * caller passed instead of a TAP) could send to any abstract socket. Sockets with a path cannot be reached
 * because the sandbox has an empty root.
 *
 *   struct landlock_ruleset_attr   +0 handled_access_fs u64   +8 handled_access_net u64   +16 scoped u64
 * @syscalls landlock_create_ruleset landlock_restrict_self prctl close
 */
import { PR_SET_NO_NEW_PRIVS } from './constants.ts';
import { close } from './io.ts';
import { syscall4 } from './libc.ts';
import { NativeBuffer } from './memory.ts';
import { prctl } from './process.ts';

// <asm-generic/unistd.h>, the same on x86-64
const SYS_landlock_create_ruleset = 444;
const SYS_landlock_restrict_self = 446;
const ATTR_BYTES = 24;
const NETWORK_WORD = 2;
const SCOPED_WORD = 4;
/** LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET, <linux/landlock.h>; Linux 6.12. */
const SCOPE_ABSTRACT_UNIX_SOCKET = 1;
/** LANDLOCK_ACCESS_NET_BIND_TCP and LANDLOCK_ACCESS_NET_CONNECT_TCP, <linux/landlock.h>; Linux 6.7. */
const NET_BIND_AND_CONNECT = 3;

/**
 * Scope the calling thread, and every thread and process that it starts, permanently.
 * @returns 0, or -errno: -E2BIG, -ENOSYS or -EOPNOTSUPP where the kernel does not support it
 */
export function scopeAbstractSockets(): number {
  const attr = new NativeBuffer(ATTR_BYTES);
  attr.u32[SCOPED_WORD] = SCOPE_ABSTRACT_UNIX_SOCKET;
  const ruleset = syscall4(SYS_landlock_create_ruleset, attr.address, ATTR_BYTES, 0, 0);
  if (ruleset < 0) return ruleset;
  const nnp = prctl(PR_SET_NO_NEW_PRIVS, 1);
  const r = nnp < 0 ? nnp : syscall4(SYS_landlock_restrict_self, ruleset, 0, 0, 0);
  close(ruleset);
  return r;
}

/**
 * A ruleset that denies bind(2) and connect(2) of TCP sockets, for Supervision.ruleset (spawn.ts).
 * @returns a descriptor (close-on-exec), or -errno: -EINVAL before Linux 6.7, -ENOSYS or -EOPNOTSUPP where
 *   Landlock is not built in or not enabled
 */
export function tcpDenyingRuleset(): number {
  const attr = new NativeBuffer(ATTR_BYTES);
  attr.u32[NETWORK_WORD] = NET_BIND_AND_CONNECT;
  // Two of the three words: kernels before 6.12 do not know the third.
  return syscall4(SYS_landlock_create_ruleset, attr.address, 16, 0, 0);
}
