/** How many descriptors this process may have open (RLIMIT_NOFILE). */
import { readFileSync } from 'node:fs';

/** The soft limit, which Node raises to the hard one at its start. */
export function openFilesLimit(): number {
  const line = /^Max open files\s+([0-9]+)/m.exec(readFileSync('/proc/self/limits', 'latin1'));
  return line === null ? Number.POSITIVE_INFINITY : Number(line[1]);
}
