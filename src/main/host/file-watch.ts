/**
 * Notices changes of names and files by inotify. A packet thread waits for the descriptor, as for a netlink
 * socket (decision 083), and the main thread reads it: node:fs's watcher is not loaded.
 *
 * The process has one inotify instance, however much it watches: a user may have 128 of them
 * (fs.inotify.max_user_instances). Watches must be set before the process enters the sandbox
 * (host/sandbox.ts), which forbids inotify_add_watch(2). They keep working inside. The kernel removes them
 * when the process ends.
 */
import {
  Errno,
  IN_ATTRIB,
  IN_CREATE,
  IN_DELETE,
  IN_DELETE_SELF,
  IN_IGNORED,
  IN_MASK_ADD,
  IN_MODIFY,
  IN_MOVE_SELF,
  IN_MOVED_FROM,
  IN_MOVED_TO,
  IN_Q_OVERFLOW,
} from '../../sys/constants.ts';
import { inotifyAddWatch, inotifyEvents, inotifyInit } from '../../sys/inotify.ts';
import { close, read } from '../../sys/io.ts';
import { NativeBuffer } from '../../sys/memory.ts';
import type { EngineHandle } from '../../workers/engine.ts';

/** The name appears, disappears or leads to another file; the directory itself is removed or moved. */
export const NAME_CHANGES =
  IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF;
/** Also: the file of that name is written, or its permissions change. */
export const FILE_CHANGES = NAME_CHANGES | IN_MODIFY | IN_ATTRIB;

/**
 * Room for the events of one read: a hundred with short names. With a name of 255 bytes one has 272 bytes.
 */
const BUFFER_BYTES = 4096;
/** Time between two reads while events follow one another: each read wakes two threads. */
const GAP_MS = 10;

/** A name in a watched directory. */
interface Watched {
  readonly name: string;
  readonly onChange: () => void;
}

/** Watches names in directories, and files. */
export class FileWatch {
  readonly #engine: Pick<EngineHandle, 'watchReadable'>;
  readonly #buffer = new NativeBuffer(BUFFER_BYTES);
  /** By watch descriptor. */
  readonly #watched = new Map<number, Set<Watched>>();
  /** The inotify instance, or -errno; undefined: not created yet. */
  #fd: number | undefined;
  #armAgain = (): void => {};
  #timer: NodeJS.Timeout | undefined;
  #readAt = Number.NEGATIVE_INFINITY;

  /** @param engine  its host-io thread waits for the inotify instance */
  constructor(engine: Pick<EngineHandle, 'watchReadable'>) {
    this.#engine = engine;
  }

  /**
   * Watch a name in a directory, or a file. Nothing is reported any more once the directory or the file
   * itself is gone.
   * @param path      of the directory or the file; symbolic links are followed
   * @param name      the name in the directory; of no importance if `path` is a file
   * @param changes   NAME_CHANGES or FILE_CHANGES; of several watches of one path, each gets the changes of
   *   all
   * @param onChange  called when something may have changed, also when events were lost. It must look
   * @returns a function that ends the calls; undefined: no inotify instance or watch is left, or the path
   *   does not exist, or this user may not read it
   */
  watch(path: string, name: string, changes: number, onChange: () => void): (() => void) | undefined {
    const fd = this.#open();
    if (fd < 0) return undefined;
    const wd = inotifyAddWatch(fd, path, changes | IN_MASK_ADD);
    if (wd < 0) return undefined;
    const watched: Watched = { name, onChange };
    const others = this.#watched.get(wd);
    if (others === undefined) this.#watched.set(wd, new Set([watched]));
    else others.add(watched);
    return () => this.#watched.get(wd)?.delete(watched);
  }

  /** No more calls. The descriptor stays open, as a packet thread may be about to wait for it. */
  stop(): void {
    clearTimeout(this.#timer);
    this.#watched.clear();
    this.#armAgain = () => {};
  }

  /** Stop, and close the inotify instance. To be called after the engine has stopped. */
  close(): void {
    this.stop();
    if (this.#fd !== undefined && this.#fd >= 0) close(this.#fd);
    this.#fd = -Errno.EBADF;
  }

  #open(): number {
    if (this.#fd === undefined) {
      this.#fd = inotifyInit();
      if (this.#fd >= 0) this.#armAgain = this.#engine.watchReadable(this.#fd, () => this.#readable());
    }
    return this.#fd;
  }

  #readable(): void {
    this.#read();
    const now = performance.now();
    const quiet = now - this.#readAt > GAP_MS;
    this.#readAt = now;
    if (quiet) this.#armAgain();
    else this.#timer = setTimeout(() => this.#armAgain(), GAP_MS).unref();
  }

  /** Read once: if more events are left, the descriptor is readable when it is armed again. */
  #read(): void {
    const bytes = read(this.#fd!, this.#buffer.address, BUFFER_BYTES);
    for (const { wd, mask, name } of inotifyEvents(this.#buffer.u8, bytes)) {
      if ((mask & IN_Q_OVERFLOW) !== 0) this.#eventsLost();
      else this.#changed(wd, name);
      if ((mask & IN_IGNORED) !== 0) this.#watched.delete(wd);
    }
  }

  /** @param name  empty: the directory or the file itself */
  #changed(wd: number, name: string): void {
    for (const watched of this.#watched.get(wd) ?? [])
      if (name === '' || name === watched.name) watched.onChange();
  }

  #eventsLost(): void {
    for (const wd of this.#watched.keys()) this.#changed(wd, '');
  }
}
