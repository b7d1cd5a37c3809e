/**
 * The version of the running kernel, for what no call tells.
 * @syscalls (none)
 */
import { release } from 'node:os';

/**
 * Whether a kernel is of a version or later.
 * @param kernel its release, as `uname -r` has it: "6.12.41-amd64"; one that begins otherwise is older than
 *   any
 */
export function kernelAtLeast(major: number, minor: number, kernel = release()): boolean {
  const [, a = '0', b = '0'] = /^(\d+)\.(\d+)/.exec(kernel) ?? [];
  return Number(a) > major || (Number(a) === major && Number(b) >= minor);
}
