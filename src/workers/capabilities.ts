/**
 * What packet threads may do beyond an ordinary process, in the user namespace that owns the guest's network namespace:
 *   CAP_NET_BIND_SERVICE  ports below 1024: listeners inside, and on the host where we are its root
 *   CAP_NET_RAW           SO_BINDTODEVICE before Linux 5.7
 */
import { release } from 'node:os';
import { CAP_NET_BIND_SERVICE, CAP_NET_RAW } from '../sys/constants.ts';

/** CAP_* numbers. @param kernel  release, 6.10.1-x */
export function flowCapabilities(kernel = release()): readonly number[] {
  const [major = 0, minor = 0] = kernel.split('.').map(Number);
  const bindsAnyDevice = major > 5 || (major === 5 && minor >= 7);
  return bindsAnyDevice ? [CAP_NET_BIND_SERVICE] : [CAP_NET_BIND_SERVICE, CAP_NET_RAW];
}
