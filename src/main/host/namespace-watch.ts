/**
 * Notices the end of a network namespace that another program made: its process has ended, or its file has
 * been unlinked, whichever of the two the user named. Other processes may still be inside. The kernel keeps
 * the namespace itself as long as our descriptors are open.
 */
import { readlinkSync, statSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { Errno, O_DIRECTORY, O_PATH } from '../../sys/constants.ts';
import { heldIdentity } from '../../sys/held-directory.ts';
import { openPath } from '../../sys/path.ts';
import { pidfdOpen } from '../../sys/process.ts';
import type { EngineHandle } from '../../workers/engine.ts';
import { type FileWatch, NAME_CHANGES } from './file-watch.ts';

/** Interval at which a name is checked if the kernel offers no way to wait for its end. */
const POLL_MS = 250;

/** A network namespace as the user named it. */
export interface NamedNamespace {
  /** Path of the network namespace. */
  readonly path: string;
  /** The process whose namespace it is, if the user named a process. */
  readonly pid?: number;
}

/**
 * A namespace as it was found before it was entered. Between then and the start of the watch its process may
 * end or its file may be unlinked: only what was taken before tells that.
 */
export interface HeldNamespace extends NamedNamespace {
  /**
   * Device and inode number, as "dev:ino"; undefined: the namespace is gone; 'EACCES': we may not look, which
   * does not mean that it is gone.
   */
  readonly identity: string | undefined;
  /** Descriptor of the directory of the path, or -errno. */
  readonly directory: number;
  /** pidfd of the process that names the namespace; undefined: no process names it, or there is none. */
  readonly processFd: number | undefined;
}

/**
 * Take hold of a namespace before it is entered. The descriptors stay open until the process ends.
 */
export function holdNamespace(target: NamedNamespace): HeldNamespace {
  return {
    ...target,
    processFd: namedByProcess(target) ? processEnd(target) : undefined,
    directory: openPath(dirname(target.path), O_PATH | O_DIRECTORY),
    identity: namespaceIdentity(target.path),
  };
}

/** procfs has no inotify: a path there is watched by its process. */
const namedByProcess = ({ path, pid }: NamedNamespace): boolean =>
  pid !== undefined || path.startsWith('/proc/');

function namespaceIdentity(path: string): string | undefined {
  try {
    const { dev, ino } = statSync(path);
    return `${dev}:${ino}`;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EACCES' ? 'EACCES' : undefined;
  }
}

/**
 * A pidfd for a namespace that is named by a process or by a path below /proc/PID. It becomes readable when
 * the process ends.
 * @returns undefined: the kernel gives none
 */
function processEnd({ path, pid }: NamedNamespace): number | undefined {
  const id = pid ?? Number(/^\/proc\/([0-9]+)\/ns\/net$/.exec(path)?.[1]);
  try {
    // If /proc belongs to another PID namespace, the numbers in it mean other processes.
    if (!Number.isSafeInteger(id) || Number(readlinkSync('/proc/self')) !== process.pid) return undefined;
  } catch {
    return undefined;
  }
  const fd = pidfdOpen(id); // close-on-exec
  return fd < 0 ? undefined : fd; // the process has just ended, or Linux is older than 5.3
}

/**
 * Watches whether a namespace still exists. Three ways: inotify if its name is a file (file-watch.ts); a
 * packet thread that waits for the pidfd if a process names it; otherwise a timer checks whether the name
 * still leads to the namespace. That check goes through the directory of the name, held open, because no path
 * resolves in the sandbox (host/sandbox.ts).
 */
export class NamespaceWatch {
  readonly #name: string;
  readonly #directory: number;
  readonly #onGone: () => void;
  #identity: string | undefined;
  #stopWatching: (() => void) | undefined;
  #timer: NodeJS.Timeout | undefined;
  #ended = false;

  /**
   * Start to watch.
   * @param held      what to watch
   * @param engine    waits for the end of a process
   * @param files     watches the name of a file
   * @param onGone    called once, possibly before the constructor returns
   */
  constructor(
    held: HeldNamespace,
    engine: Pick<EngineHandle, 'watchReadable'>,
    files: FileWatch,
    onGone: () => void,
  ) {
    this.#name = basename(held.path);
    this.#directory = held.directory;
    this.#onGone = onGone;
    this.#identity = held.identity;
    if (namedByProcess(held)) {
      if (held.processFd === undefined) this.#poll();
      else engine.watchReadable(held.processFd, () => this.#end());
    } else {
      const check = (): void => this.#check();
      this.#stopWatching = files.watch(dirname(held.path), this.#name, NAME_CHANGES, check);
      if (this.#stopWatching === undefined) this.#poll();
    }
    this.#check(); // the namespace may have gone while we were starting
  }

  /**
   * The root has been exchanged. The old root is detached, and with it a mount that the name may have led to.
   * From now on the watch compares with what the name leads to now.
   */
  rootChanged(): void {
    const now = this.#now();
    if (now !== undefined) this.#identity = now;
    this.#check();
  }

  /** Whether a timer checks the name, also in the sandbox. */
  get polls(): boolean {
    return this.#timer !== undefined;
  }

  stop(): void {
    this.#ended = true;
    this.#stopWatching?.();
    clearInterval(this.#timer);
  }

  #now(): string | undefined {
    const now = heldIdentity(this.#directory, this.#name);
    if (typeof now === 'string') return now;
    return now === -Errno.EACCES ? 'EACCES' : undefined;
  }

  #check(): void {
    const now = this.#now();
    const differs = now !== this.#identity && now !== 'EACCES' && this.#identity !== 'EACCES';
    if (now === undefined || differs) this.#end();
  }

  #end(): void {
    if (this.#ended) return;
    this.stop();
    this.#onGone();
  }

  #poll(): void {
    this.#timer ??= setInterval(() => this.#check(), POLL_MS);
  }
}
