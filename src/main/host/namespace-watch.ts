/**
 * Tells when a network namespace that someone else made is gone: the process that was named has ended, or the
 * file that was named has been unlinked. Other processes may still be inside. The namespace itself does not
 * end while our descriptors are open.
 */
import { type FSWatcher, readlinkSync, statSync, watch } from 'node:fs';
import { basename, dirname } from 'node:path';
import { Errno, O_DIRECTORY, O_PATH } from '../../sys/constants.ts';
import { heldIdentity } from '../../sys/held-directory.ts';
import { openPath } from '../../sys/path.ts';
import { pidfdOpen } from '../../sys/process.ts';
import type { EngineHandle } from '../../workers/engine.ts';

/** How soon the end is noticed of what cannot be waited for. */
const POLL_MS = 250;

export interface NamedNamespace {
  /** Of the network namespace. */
  readonly path: string;
  /** The process whose namespace it is, where one was named. */
  readonly pid?: number;
}

/**
 * Device and inode name a namespace. undefined: gone. Not being allowed to look is no sign that it is gone.
 */
export function namespaceIdentity(path: string): string | undefined {
  try {
    const { dev, ino } = statSync(path);
    return `${dev}:${ino}`;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EACCES' ? 'EACCES' : undefined;
  }
}

/**
 * For a process by whose name in /proc a namespace goes: readable once it has ended. undefined: to be had for
 * none.
 */
function processEnd({ path, pid }: NamedNamespace): number | undefined {
  const id = pid ?? Number(/^\/proc\/([0-9]+)\/ns\/net$/.exec(path)?.[1]);
  try {
    // A /proc of another PID namespace means other processes.
    if (!Number.isSafeInteger(id) || Number(readlinkSync('/proc/self')) !== process.pid) return undefined;
  } catch {
    return undefined;
  }
  const fd = pidfdOpen(id); // close-on-exec
  return fd < 0 ? undefined : fd; // it has just ended, or Linux is older than 5.3
}

/**
 * Watches whether a namespace is still there: by inotify where its name is a file's, by a packet thread that
 * waits for the end of the process whose name it is, else by looking again and again whether the name still
 * leads to it. That goes through the name's directory, as the name itself leads nowhere in the sandbox
 * (host/sandbox.ts).
 */
export class NamespaceWatch {
  readonly #name: string;
  readonly #directory: number;
  readonly #onGone: () => void;
  #identity: string | undefined;
  #watcher: FSWatcher | undefined;
  #timer: NodeJS.Timeout | undefined;
  #ended = false;

  /** Calls `onGone` once, maybe at once. @param identity  of the namespace that is meant */
  constructor(
    target: NamedNamespace,
    engine: Pick<EngineHandle, 'watchReadable'>,
    onGone: () => void,
    identity = namespaceIdentity(target.path),
  ) {
    this.#name = basename(target.path);
    this.#directory = openPath(dirname(target.path), O_PATH | O_DIRECTORY);
    this.#onGone = onGone;
    this.#identity = identity;
    if (target.pid !== undefined || target.path.startsWith('/proc/')) {
      const fd = processEnd(target);
      if (fd === undefined)
        this.#poll(); // procfs has no inotify
      else engine.watchReadable(fd, () => this.#end());
    } else {
      try {
        this.#watcher = watch(dirname(target.path), (_event, name) => {
          if (name === null || name === this.#name) this.#look();
        });
        this.#watcher.on('error', () => this.#poll());
      } catch {
        this.#poll();
      }
    }
    this.#look(); // it may have gone while we were starting
  }

  /**
   * The old root has been let go of, and with it a mount that the name may have led to: from now on it counts
   * whether the name is there.
   */
  rootChanged(): void {
    const now = this.#now();
    if (now !== undefined) this.#identity = now;
    this.#look();
  }

  /** It looks where the name leads to, in the sandbox too. */
  get polls(): boolean {
    return this.#timer !== undefined;
  }

  stop(): void {
    this.#ended = true;
    this.#watcher?.close();
    clearInterval(this.#timer);
  }

  #now(): string | undefined {
    const now = heldIdentity(this.#directory, this.#name);
    if (typeof now === 'string') return now;
    return now === -Errno.EACCES ? 'EACCES' : undefined;
  }

  #look(): void {
    const now = this.#now();
    if (now !== this.#identity && now !== 'EACCES') this.#end();
  }

  #end(): void {
    if (this.#ended) return;
    this.stop();
    this.#onGone();
  }

  #poll(): void {
    this.#timer ??= setInterval(() => this.#look(), POLL_MS);
  }
}
