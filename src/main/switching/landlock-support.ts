// bundle: rare
/** Whether this kernel can confine a COMMAND with --switch-sockets, and if not, why: for the command and for `doctor`. */
import { Errno } from '../../sys/constants.ts';
import { close } from '../../sys/io.ts';
import { tcpDenyingRuleset } from '../../sys/landlock.ts';
import { errnoText } from '../../sys/libc.ts';

/** @returns why `bucatini run --switch-sockets` is refused here; undefined: Landlock denies TCP connects */
export function whyNotSwitched(): string | undefined {
  const ruleset = tcpDenyingRuleset();
  if (ruleset < 0) return whyNoLock(-ruleset);
  close(ruleset);
  return undefined;
}

/** @param errno  of tcpDenyingRuleset, positive */
export function whyNoLock(errno: number): string {
  if (errno === Errno.EINVAL || errno === Errno.E2BIG)
    return 'this kernel cannot deny TCP connects to a process (Landlock, Linux 6.7)';
  if (errno === Errno.ENOSYS || errno === Errno.EOPNOTSUPP)
    return 'Landlock is not enabled in this kernel (CONFIG_SECURITY_LANDLOCK, and "landlock" in lsm=)';
  return `landlock_create_ruleset: ${errnoText(errno)}`;
}
