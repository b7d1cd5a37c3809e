/**
 * landlock(7), for one thing that no filter of system calls can tell: which socket an address in memory
 * means. Cold.
 *
 * A thread that is scoped can neither connect to nor send to an abstract UNIX socket that was made outside,
 * by whatever descriptor: a datagram socket (the system log's, a TAP's that our caller made) can otherwise
 * send to any of them. Sockets with paths are out of reach with the root.
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
const SCOPED_WORD = 4;
/** LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET, <linux/landlock.h>; Linux 6.12. */
const SCOPE_ABSTRACT_UNIX_SOCKET = 1;

/**
 * For the calling thread and what it starts, for good.
 * @returns 0, or -errno: -E2BIG, -ENOSYS or -EOPNOTSUPP where the kernel cannot
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
