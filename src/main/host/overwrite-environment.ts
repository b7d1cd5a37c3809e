/**
 * Removes the caller's environment from memory after it has been read. The environment holds secrets that are
 * not ours to keep (keys, tokens), and an attacker who takes over a packet thread reads all of our memory.
 * /proc/PID/environ shows the same memory.
 *
 * Only the block that execve() laid out can be overwritten. Strings that JavaScript read from it stay on the
 * heap of the JavaScript engine until its memory is used again.
 */
import { closeSync, openSync, readFileSync, readSync, writeSync } from 'node:fs';
import { LAUNCHER_VARIABLES } from '../process/launcher-env.ts';

/**
 * Fields of /proc/PID/stat, proc_pid_stat(5): address of the first byte of the environment, and of the byte
 * behind its last.
 */
const ENV_START = 50;
const ENV_END = 51;
/**
 * Number of the first field behind the program's name. The name is skipped, as it may contain blanks and
 * parentheses.
 */
const FIRST_AFTER_NAME = 3;
/**
 * Variables that we, the runtime and libc read later. BUCATINI_KEPT is not among them: it holds the caller's
 * values.
 */
const KEPT_VARIABLES: ReadonlySet<string> = new Set(
  [...Object.keys(LAUNCHER_VARIABLES), 'NODE_COMPILE_CACHE', 'TZ'].filter((name) => name !== 'BUCATINI_KEPT'),
);

/**
 * Fill the caller's variables with zeros. All threads share the environment; getenv(3) no longer finds the
 * variables. Needs /proc.
 * @returns undefined, or the reason why they are still in memory
 */
export function overwriteEnvironment(): string | undefined {
  let fd = -1;
  try {
    const stat = readFileSync('/proc/self/stat', 'latin1');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const start = Number(fields[ENV_START - FIRST_AFTER_NAME]);
    const bytes = Number(fields[ENV_END - FIRST_AFTER_NAME]) - start;
    if (!(bytes > 0)) return 'its address is not known';
    fd = openSync('/proc/self/mem', 'r+');
    const block = Buffer.alloc(bytes);
    if (readSync(fd, block, 0, bytes, start) !== bytes) return 'only a part of it could be read';
    if (writeSync(fd, clearCallersEntries(block), 0, bytes, start) !== bytes)
      return 'only a part of it could be written';
    // What the runtime keeps of its own: Bun holds each value that was read.
    for (const name of Object.keys(process.env)) if (!KEPT_VARIABLES.has(name)) delete process.env[name];
    return undefined;
  } catch (error) {
    return (error as Error).message;
  } finally {
    if (fd >= 0) closeSync(fd);
  }
}

/**
 * @param block  entries, each terminated by a zero byte. Changed in place; every entry that stays keeps its
 *   place.
 * @returns `block`
 */
function clearCallersEntries(block: Buffer): Buffer {
  for (let at = 0; at < block.length; ) {
    const zeroAt = block.indexOf(0, at);
    const end = zeroAt < 0 ? block.length : zeroAt;
    const [name = ''] = block.toString('latin1', at, end).split('=', 1);
    if (!KEPT_VARIABLES.has(name)) block.fill(0, at, end);
    at = end + 1;
  }
  return block;
}
