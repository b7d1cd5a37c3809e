/**
 * Follows the host's resolv.conf. It changes when the host moves to another network, and the engine must then
 * ask the new resolvers.
 *
 * In the sandbox (host/sandbox.ts) no path resolves, so the file is read through directories that are held
 * open: those of the file and of each symbolic link on the way to it now, and those where a later link is
 * likely to lead. inotify watches that were set before the sandbox keep working (file-watch.ts).
 */
import { closeSync, readFileSync } from 'node:fs';
import { basename, dirname, resolve } from 'node:path';
import { holdDirectory, openHeld, readHeldLink } from '../../sys/held-directory.ts';
import { close } from '../../sys/io.ts';
import { FILE_CHANGES, type FileWatch } from './file-watch.ts';
import { parseResolvConf, RESOLV_CONF } from './resolv-conf.ts';

/** Writers replace the file or write it in pieces: wait this long, then read it. */
const SETTLE_MS = 100;
/** The kernel follows at most 40 links (path_resolution(7)); no real host has this many here. */
const MAX_LINKS = 8;
/** Where systemd-resolved, NetworkManager, resolvconf and connman keep their resolv.conf. */
const USUAL_DIRECTORIES = [
  '/run/systemd/resolve',
  '/run/NetworkManager',
  '/run/resolvconf',
  '/run/connman',
] as const;

/** A file that is opened through directory descriptors. */
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

  /** The path of the file and those that its symbolic links lead to, in order. */
  get paths(): readonly string[] {
    const paths: string[] = [];
    this.#walk((directory) => this.#directories.get(directory), paths);
    return paths;
  }

  /**
   * Read the file.
   * @returns undefined if the file does not exist, or a link leads to a directory that is not held open
   */
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

  /**
   * Follow symbolic links.
   * @param directoryFd  descriptor of a directory, or undefined if it is not held open
   * @param paths        out: every path on the way
   * @returns where the file is; undefined if a directory is not held open, or there are too many links
   */
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
 * Call `onChange` with the nameservers each time that they have changed.
 * @param files  watches the file. If it cannot, the resolvers of the start stay in use
 * @param known  the nameservers that the caller has read. If the file has others by now, `onChange` is called
 * @param held   out: descriptors of directories in which the sandbox must allow files to be opened
 * @returns a function that stops following
 */
export function followResolvConf(
  files: FileWatch,
  known: readonly string[],
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
  let last = known.join(' ');
  let timer: NodeJS.Timeout | undefined;
  const look = (): void => {
    timer = undefined;
    const now = nameservers();
    if (now === undefined || now.join(' ') === last) return;
    last = now.join(' ');
    onChange(now);
  };
  const lookSoon = (): void => {
    timer ??= setTimeout(look, SETTLE_MS).unref();
  };
  const stops: (() => void)[] = [];
  const watch = (path: string, name: string): void => {
    const stop = files.watch(path, name, FILE_CHANGES, lookSoon);
    if (stop !== undefined) stops.push(stop);
  };
  // The link and the file that it points to may both change, each in its own directory.
  for (const watched of file.paths) watch(dirname(watched), basename(watched));
  // In containers a file is mounted over this one. Writers change the mounted file, whose own directory is
  // elsewhere: so watch the file itself.
  const end = file.paths.at(-1);
  if (end !== undefined) watch(end, basename(end));
  const now = nameservers();
  if (now !== undefined && now.join(' ') !== last) lookSoon(); // changed while we were starting
  return () => {
    clearTimeout(timer);
    for (const stop of stops) stop();
    file.close();
  };
}
