/**
 * Capabilities that packet threads keep, in the user namespace that owns the guest's network namespace
 * (capabilities(7)):
 *   CAP_NET_BIND_SERVICE    ports below 1024: listeners inside, and on the host where we are its root
 *   CAP_NET_RAW             SO_BINDTODEVICE before Linux 5.7
 *
 * A process that is to change its user (EnginePlan.changesUser) keeps two more until it has done so:
 *   CAP_SETUID, CAP_SETGID  glibc calls setuid() in every thread, and aborts the process if the call succeeds
 *                           in one thread and fails in another
 */
import { CAP_NET_BIND_SERVICE, CAP_NET_RAW, CAP_SETGID, CAP_SETUID } from '../../sys/constants.ts';
import { kernelAtLeast } from '../../sys/kernel-version.ts';

/** What a thread also needs to change its user with the others. The change clears all capabilities. */
export const USER_CHANGE: readonly number[] = [CAP_SETUID, CAP_SETGID];

/**
 * Capabilities that flows need, CAP_* numbers.
 * @param kernel  kernel release such as "6.10.1-x"; absent: that of the running kernel
 */
export function flowCapabilities(kernel?: string): readonly number[] {
  const bindsAnyDevice = kernelAtLeast(5, 7, kernel);
  return bindsAnyDevice ? [CAP_NET_BIND_SERVICE] : [CAP_NET_BIND_SERVICE, CAP_NET_RAW];
}
