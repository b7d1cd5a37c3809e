/**
 * What packet threads may do beyond an ordinary process, in the user namespace that owns the guest's network
 * namespace:
 *   CAP_NET_BIND_SERVICE  ports below 1024: listeners inside, and on the host where we are its root
 *   CAP_NET_RAW           SO_BINDTODEVICE before Linux 5.7
 *
 * Where the process is to change its user (EnginePlan.changesUser), until it does:
 *   CAP_SETUID, CAP_SETGID  glibc carries setuid() out in every thread, and ends the process where one may and another may not
 */
import { CAP_NET_BIND_SERVICE, CAP_NET_RAW, CAP_SETGID, CAP_SETUID } from '../../sys/constants.ts';
import { kernelAtLeast } from '../../sys/kernel-version.ts';

/** What a thread needs besides to change its user with the others: the change takes all capabilities away. */
export const USER_CHANGE: readonly number[] = [CAP_SETUID, CAP_SETGID];

/** CAP_* numbers. @param kernel  release, 6.10.1-x */
export function flowCapabilities(kernel?: string): readonly number[] {
  const bindsAnyDevice = kernelAtLeast(5, 7, kernel);
  return bindsAnyDevice ? [CAP_NET_BIND_SERVICE] : [CAP_NET_BIND_SERVICE, CAP_NET_RAW];
}
