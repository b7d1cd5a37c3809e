/** The limit of open descriptors of this process (RLIMIT_NOFILE), read without a foreign-function call. */
import { readFileSync } from 'node:fs';

/**
 * The soft limit. The runtime raises it to the hard limit when it starts.
 * @returns descriptors; Infinity when /proc/self/limits does not name a number
 */
export function openFilesLimit(): number {
  const line = /^Max open files\s+([0-9]+)/m.exec(readFileSync('/proc/self/limits', 'latin1'));
  return line === null ? Number.POSITIVE_INFINITY : Number(line[1]);
}
