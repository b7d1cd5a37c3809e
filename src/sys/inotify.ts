/**
 * inotify(7): the kernel reports changes of directories and files. Cold; every function returns a result or
 * -errno.
 * @syscalls inotify_init1 inotify_add_watch
 *
 * struct inotify_event, <linux/inotify.h>, in the byte order of the machine:
 *
 *   +0 wd s32   +4 mask u32   +8 cookie u32   +12 len u32   +16 name, `len` bytes, padded with zeros
 *
 * `len` is 0 for an event of the watched file or directory itself. One read(2) returns whole events only.
 */
import { IN_CLOEXEC, IN_NONBLOCK } from './constants.ts';
import { failed, libc } from './libc.ts';

export const INOTIFY_WD_AT = 0;
export const INOTIFY_MASK_AT = 4;
export const INOTIFY_LEN_AT = 12;
/** Size of an event without its name. */
export const INOTIFY_EVENT_BYTES = 16;

const cInit = libc<[number]>('inotify_init1', 'int', ['int']);
const cAddWatch = libc<[number, string, number]>('inotify_add_watch', 'int', [
  'int',
  'const char *',
  'uint32_t',
]);

/**
 * Create an inotify instance: non-blocking, close-on-exec.
 * @returns a descriptor or -errno; -EMFILE: the user has fs.inotify.max_user_instances of them already
 */
export function inotifyInit(): number {
  const r = cInit(IN_NONBLOCK | IN_CLOEXEC);
  return r < 0 ? failed() : r;
}

/**
 * Watch a file or directory. Symbolic links are followed.
 * @param mask  IN_*
 * @returns the watch descriptor, or -errno. A file that the instance watches already keeps its watch
 *   descriptor; `mask` replaces the mask of that watch, or with IN_MASK_ADD is added to it
 */
export function inotifyAddWatch(fd: number, path: string, mask: number): number {
  const r = cAddWatch(fd, path, mask);
  return r < 0 ? failed() : r;
}

/** One event. */
export interface InotifyEvent {
  /** The watch descriptor; -1 with IN_Q_OVERFLOW. */
  readonly wd: number;
  /** IN_*. */
  readonly mask: number;
  /** The name in the watched directory; empty for an event of the watched file or directory itself. */
  readonly name: string;
}

/**
 * Parse what read(2) returned.
 * @param bytes  a buffer, borrowed
 * @param length  the number of bytes in it that were read
 * @returns the events in the order in which they occurred. An event that does not fit into `length` ends the
 *   list
 */
export function inotifyEvents(bytes: Uint8Array, length: number): InotifyEvent[] {
  const end = Math.min(length, bytes.length);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const events: InotifyEvent[] = [];
  for (let at = 0; at + INOTIFY_EVENT_BYTES <= end; ) {
    const nameAt = at + INOTIFY_EVENT_BYTES;
    const next = nameAt + view.getUint32(at + INOTIFY_LEN_AT, true);
    if (next > end) break;
    const padded = bytes.subarray(nameAt, next);
    const nameEnd = padded.indexOf(0);
    events.push({
      wd: view.getInt32(at + INOTIFY_WD_AT, true),
      mask: view.getUint32(at + INOTIFY_MASK_AT, true),
      name: new TextDecoder().decode(nameEnd < 0 ? padded : padded.subarray(0, nameEnd)),
    });
    at = next;
  }
  return events;
}
