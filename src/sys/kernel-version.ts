/**
 * The version of the running kernel, for features that no system call reports.
 * @syscalls (none)
 */
import { release } from 'node:os';

/**
 * Whether a kernel has version `major`.`minor` or a later one.
 * @param kernel  release as printed by `uname -r`: "6.12.41-amd64". A release that does not begin with two
 *   numbers counts as older than any version.
 */
export function kernelAtLeast(major: number, minor: number, kernel = release()): boolean {
  const [, a = '0', b = '0'] = /^(\d+)\.(\d+)/.exec(kernel) ?? [];
  return Number(a) > major || (Number(a) === major && Number(b) >= minor);
}
