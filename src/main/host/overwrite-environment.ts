/**
 * The environment that our caller gave us, out of memory once it has been read: it holds what is not ours to
 * keep (keys, tokens), and whoever takes over a packet thread reads all of our memory. /proc/PID/environ is
 * the same memory.
 *
 * Only the block that execve() laid out is ours to overwrite; what JavaScript read of it lies on V8's heap
 * until that is collected.
 */
import { closeSync, openSync, readFileSync, readSync, writeSync } from 'node:fs';
import { LAUNCHER_VARIABLES } from '../process/launcher-env.ts';

/** Fields of /proc/PID/stat, proc_pid_stat(5): the first and the last + 1 byte of the environment. */
const ENV_START = 50;
const ENV_END = 51;
/** The fields behind the program's name, which may hold anything, begin with this one. */
const FIRST_AFTER_NAME = 3;
/** Variables that we, Node and libc read later; BUCATINI_KEPT has values of the caller's. */
const STAYS: ReadonlySet<string> = new Set(
  [...Object.keys(LAUNCHER_VARIABLES), 'NODE_COMPILE_CACHE', 'TZ'].filter((name) => name !== 'BUCATINI_KEPT'),
);

/**
 * Fill the caller's variables with zeros, in all threads that share the environment; getenv(3) finds them no
 * more. Needs /proc.
 * @returns undefined, or why they are still there
 */
export function overwriteEnvironment(): string | undefined {
  let fd = -1;
  try {
    const stat = readFileSync('/proc/self/stat', 'latin1');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const start = Number(fields[ENV_START - FIRST_AFTER_NAME]);
    const bytes = Number(fields[ENV_END - FIRST_AFTER_NAME]) - start;
    if (!(bytes > 0)) return 'its place is not known';
    fd = openSync('/proc/self/mem', 'r+');
    const block = Buffer.alloc(bytes);
    if (readSync(fd, block, 0, bytes, start) !== bytes) return 'it was read in part only';
    if (writeSync(fd, withoutCallers(block), 0, bytes, start) !== bytes) return 'it was written in part only';
    return undefined;
  } catch (error) {
    return (error as Error).message;
  } finally {
    if (fd >= 0) closeSync(fd);
  }
}

/** @param block  entries, each with a zero behind it; changed in place, every entry that stays keeps its place */
function withoutCallers(block: Buffer): Buffer {
  for (let at = 0; at < block.length; ) {
    const zeroAt = block.indexOf(0, at);
    const end = zeroAt < 0 ? block.length : zeroAt;
    const [name = ''] = block.toString('latin1', at, end).split('=', 1);
    if (!STAYS.has(name)) block.fill(0, at, end);
    at = end + 1;
  }
  return block;
}
