/**
 * Follow the host's resolv.conf: it changes when the host changes networks, and the engine must ask the new
 * resolvers.
 *
 * In the sandbox (host/sandbox.ts) paths lead nowhere, so the file is read through directories that are held
 * open: those it lies in now, link by link, and those where a later link may well lead. inotify goes on
 * seeing what was watched before.
 */
import { closeSync, type FSWatcher, readFileSync, watch } from 'node:fs';
import { basename, dirname, resolve } from 'node:path';
import { holdDirectory, openHeld, readHeldLink } from '../../sys/held-directory.ts';
import { close } from '../../sys/io.ts';
import { parseResolvConf, RESOLV_CONF } from './resolv-conf.ts';

/** Writers replace the file or write it in pieces: look when they are done. */
const SETTLE_MS = 100;
/** As many links as the kernel follows at most (path_resolution(7)) are more than anybody has here. */
const MAX_LINKS = 8;
/** Where systemd-resolved, NetworkManager, resolvconf and connman keep theirs. */
const USUAL_DIRECTORIES = [
  '/run/systemd/resolve',
  '/run/NetworkManager',
  '/run/resolvconf',
  '/run/connman',
] as const;

/** A file that is found through directories held open. */
class HeldFile {
  readonly #path: string;
  readonly #directories = new Map<string, number>();

  constructor(path: string, usual: readonly string[]) {
    this.#path = path;
    for (const directory of usual) this.#hold(directory);
    this.#walk((directory) => this.#hold(directory));
  }

  /** Descriptors of the directories. */
  get descriptors(): readonly number[] {
    return [...this.#directories.values()];
  }

  /** The file's own path and those of the links to it, in order. */
  get paths(): readonly string[] {
    const paths: string[] = [];
    this.#walk((directory) => this.#directories.get(directory), paths);
    return paths;
  }

  /** undefined: it is not there, or has gone where we do not see it. */
  read(): string | undefined {
    const end = this.#walk((directory) => this.#directories.get(directory));
    if (end === undefined) return undefined;
    const fd = openHeld(end.fd, end.name);
    if (fd < 0) return undefined;
    try {
      return readFileSync(fd, 'utf8');
    } catch {
      return undefined; // a directory of that name
    } finally {
      closeSync(fd);
    }
  }

  close(): void {
    for (const fd of this.#directories.values()) close(fd);
    this.#directories.clear();
  }

  #hold(directory: string): number | undefined {
    const held = this.#directories.get(directory);
    if (held !== undefined) return held;
    const fd = holdDirectory(directory);
    if (fd < 0) return undefined;
    this.#directories.set(directory, fd);
    return fd;
  }

  /** From link to link. @returns where it ends; undefined: out of our reach, or in a circle */
  #walk(
    directoryFd: (directory: string) => number | undefined,
    paths: string[] = [],
  ): { readonly fd: number; readonly name: string } | undefined {
    let path = resolve(this.#path);
    for (let links = 0; links <= MAX_LINKS; links++) {
      paths.push(path);
      const fd = directoryFd(dirname(path));
      if (fd === undefined) return undefined;
      const target = readHeldLink(fd, basename(path));
      if (target === undefined) return { fd, name: basename(path) };
      path = resolve(dirname(path), target);
    }
    return undefined;
  }
}

/**
 * @param held  out: descriptors of directories that it must be possible to open files in
 * @returns a function that stops following
 */
export function followResolvConf(
  onChange: (nameservers: readonly string[]) => void,
  path = RESOLV_CONF,
  held: number[] = [],
): () => void {
  const file = new HeldFile(path, USUAL_DIRECTORIES);
  held.push(...file.descriptors);
  const nameservers = (): readonly string[] | undefined => {
    const text = file.read();
    return text === undefined ? undefined : parseResolvConf(text).nameservers;
  };
  let last = nameservers()?.join(' ');
  let timer: NodeJS.Timeout | undefined;
  const look = (): void => {
    timer = undefined;
    const now = nameservers();
    if (now === undefined || now.join(' ') === last) return;
    last = now.join(' ');
    onChange(now);
  };
  const watchers = new Set<FSWatcher>();
  const watchName = (path: string, seen: string): void => {
    try {
      const watcher = watch(path, { persistent: false }, (_event, name) => {
        if (name === null || name === seen) timer ??= setTimeout(look, SETTLE_MS).unref();
      });
      watcher.on('error', () => watcher.close());
      watchers.add(watcher);
    } catch {
      // No inotify instance left, or nothing of that name: the resolvers of the start stay in use.
    }
  };
  // The link and what it points to may change, each in its own directory.
  for (const watched of file.paths) watchName(dirname(watched), basename(watched));
  // Where a file is mounted over it, as in containers, that one is written to, and its directory is
  // elsewhere.
  const end = file.paths.at(-1);
  if (end !== undefined) watchName(end, basename(end));
  return () => {
    clearTimeout(timer);
    for (const watcher of watchers) watcher.close();
    file.close();
  };
}
