// bundle: rare
/**
 * Which container a network namespace belongs to. Podman and CRI-O start each container under a process
 * conmon, whose command line has the container's name and id, and whose child is in the container's
 * namespaces.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/** Labels are short; a command line may have millions of characters. */
const MAX_TEXT = 128;

export interface Container {
  /** Absent: conmon was given none. */
  readonly name?: string;
  readonly id: string;
}

/**
 * The containers that this user can see.
 * @param proc  /proc
 * @returns by network namespace, as "net:[NUMBER]". Of the containers of a pod, which share one, the first to
 *   start
 */
export function findContainers(proc = '/proc'): ReadonlyMap<string, Container> {
  const found = new Map<string, Container>();
  const host = namespaceOf(proc, 'self');
  const pids = names(proc).filter((name) => /^[0-9]+$/.test(name));
  for (const pid of pids.sort((a, b) => Number(a) - Number(b))) {
    const container = conmonsContainer(read(`${proc}/${pid}/cmdline`).split('\0'));
    if (container === undefined) continue;
    // A program in a container may call itself conmon; the real ones are outside.
    if ((namespaceOf(proc, pid) ?? host) !== host) continue;
    const children = read(`${proc}/${pid}/task/${pid}/children`).trim().split(' ');
    for (const child of children) {
      const namespace = child === '' ? undefined : namespaceOf(proc, child);
      if (namespace !== undefined && namespace !== host && !found.has(namespace))
        found.set(namespace, container);
    }
  }
  return found;
}

/** @param words  of a command line. @returns undefined if it is not that of conmon for a container */
export function conmonsContainer(words: readonly string[]): Container | undefined {
  if (words[0]?.replace(/^.*\//, '') !== 'conmon') return undefined;
  const after = (...options: readonly string[]): string | undefined => {
    const at = words.findIndex((word) => options.includes(word));
    return at < 0 ? undefined : words[at + 1];
  };
  const id = after('-c', '--cid');
  const name = after('-n', '--name');
  if (id === undefined || id === '') return undefined;
  return {
    id: id.slice(0, MAX_TEXT),
    ...(name !== undefined && name !== '' && { name: name.slice(0, MAX_TEXT) }),
  };
}

function namespaceOf(proc: string, pid: string): string | undefined {
  try {
    return readlinkSync(`${proc}/${pid}/ns/net`);
  } catch {
    return undefined; // of another user, or gone
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

function names(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}
