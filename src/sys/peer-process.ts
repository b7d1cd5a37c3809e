/**
 * What a supervisor reads of the threads that it supervises: their memory, descriptors and entries in /proc.
 * Needs the rights of ptrace(2) over them: CAP_SYS_PTRACE in their user namespace, or to be its owner. The functions
 * return a result or -errno.
 *
 * A thread may end at any time, and its id may be given to another: what was read is valid if its call still
 * waits afterwards (seccomp-notify.ts).
 * @syscalls pidfd_open pidfd_getfd process_vm_readv kcmp openat read pread64 readlinkat getdents64 close
 */
import { fstatSync } from 'node:fs';
import { Errno, O_CLOEXEC, O_DIRECTORY, O_PATH, O_RDONLY } from './constants.ts';
import { close, pread, read } from './io.ts';
import { failed, libc, syscall4 } from './libc.ts';
import { type NativeAddress, NativeBuffer } from './memory.ts';
import { openat, openPath } from './path.ts';
import { pidfdOpen } from './process.ts';
import { iovecWrite } from './socket.ts';
import { syscallNumber } from './syscall-numbers.ts';

type N = number;
const W = 'uintptr_t';
const cReadMemory = libc<[N, N, N, N, N, N]>('process_vm_readv', 'intptr_t', [
  ...(['int', W, 'unsigned long', W, 'unsigned long', 'unsigned long'] as const),
]);
const cSyscall = libc<[N, N, N, N, N, N]>('syscall', 'intptr_t', ['int64_t', W, W, W, W, W]);
const cReadlinkat = libc<[N, string, N, N]>('readlinkat', 'intptr_t', ['int', 'const char *', W, 'size_t']);

/** PIDFD_THREAD, <linux/pidfd.h>; Linux 6.9. */
const PIDFD_THREAD = 0x80;
/** Device 10:229, <linux/miscdevice.h>, as stat(2) gives it. */
const FUSE_DEVICE = (10 << 8) | 229;
/** KCMP_FILE and KCMP_EPOLL_TFD, <linux/kcmp.h>. */
const KCMP_FILE = 0;
const KCMP_EPOLL_TFD = 7;
/** Descriptors among which epoll sets are searched for: each takes a microsecond or more, and all others wait. */
export const MOST_SEARCHED = 4096;
const TEXT_BYTES = 4096;
/** Longer than a line of the files that are read. */
const LONG_LINE = 512;
const KEPT_PIDFDS = 64;
const LINE_END = 0x0a;
const DIGIT_0 = 0x30;
const PIDFD_GETFD = syscallNumber('pidfd_getfd');
const ENTRIES_BYTES = 16_384;
/** struct linux_dirent64: d_reclen u16 at +16, d_name at +19. */
const RECLEN_AT = 16;
const NAME_AT = 19;

const vectors = new NativeBuffer(32);
/** struct kcmp_epoll_slot: efd u32, tfd u32, toff u32. */
const slot = new NativeBuffer(16);
const text = new NativeBuffer(TEXT_BYTES);
const entries = new NativeBuffer(ENTRIES_BYTES);

/**
 * Copy memory of another process.
 * @param to  address of our memory
 * @param from  address in the memory of the thread
 * @returns bytes copied, fewer where a page is missing, or -errno
 */
export function readMemoryOf(
  thread: number,
  to: NativeAddress | number,
  from: number,
  bytes: number,
): number {
  iovecWrite(vectors.u32, 0, to, bytes);
  iovecWrite(vectors.u32, 4, from, bytes);
  const r = cReadMemory(thread, vectors.address, 1, vectors.address + 16, 1, 0);
  return r < 0 ? failed() : r;
}

/** Whether two descriptors of this process are duplicates of each other. */
export function isSameFile(a: number, b: number): boolean {
  const { pid } = process;
  return cSyscall(syscallNumber('kcmp'), pid, pid, KCMP_FILE, a, b) === 0;
}

/** Whether a descriptor is in an epoll set. */
type InSet = typeof NO_SET | typeof NOT_IN_SET | typeof IN_SET;
const NO_SET = 0;
const NOT_IN_SET = 1;
const IN_SET = 2;

/** A thread whose calls have been served. */
interface KnownThread {
  readonly pidfd: number;
  /** How many epoll sets its container had made when `sets`, its own, were looked for; undefined: never. */
  setsMade: number | undefined;
  sets: readonly number[];
}

/** What is read of threads through a descriptor of /proc, which stays usable in an empty root. */
export class Threads {
  readonly #proc: number;
  readonly #ownUserNamespace: string;
  /** Of the threads that were asked about last, by their numbers. */
  readonly #pidfds = new Map<number, KnownThread>();

  /** @throws nothing: without /proc all functions return -errno */
  constructor() {
    this.#proc = openPath('/proc', O_PATH | O_DIRECTORY);
    this.#ownUserNamespace = this.#namespace('self/ns/user');
  }

  /** Descriptor of /proc. */
  get directory(): number {
    return this.#proc;
  }

  /**
   * Duplicate a descriptor of a thread.
   * @returns our descriptor, close-on-exec, or -errno; -EBADF: the thread has none of that number
   */
  duplicate(thread: number, descriptor: number): number {
    const kept = this.#pidfds.get(thread);
    if (kept !== undefined) {
      const r = syscall4(PIDFD_GETFD, kept.pidfd, descriptor, 0, 0);
      if (r !== -Errno.ESRCH) return r;
      // It is still about the thread that had the number before.
      this.#pidfds.delete(thread);
      close(kept.pidfd);
    }
    const pidfd = pidfdOpen(thread, PIDFD_THREAD);
    if (pidfd === -Errno.EINVAL) return this.#duplicateOfProcess(thread, descriptor);
    if (pidfd < 0) return pidfd;
    this.#keep(thread, pidfd);
    return syscall4(PIDFD_GETFD, pidfd, descriptor, 0, 0);
  }

  #keep(thread: number, pidfd: number): void {
    if (this.#pidfds.size >= KEPT_PIDFDS)
      for (const [oldest, { pidfd: old }] of this.#pidfds) {
        this.#pidfds.delete(oldest);
        close(old);
        break;
      }
    this.#pidfds.set(thread, { pidfd, setsMade: undefined, sets: [] });
  }

  /**
   * Before Linux 6.9. Not kept: the process may have outlived the thread, whose number another process's thread
   * then has.
   */
  #duplicateOfProcess(thread: number, descriptor: number): number {
    const pidfd = pidfdOpen(this.#processOf(thread));
    if (pidfd < 0) return pidfd;
    const r = syscall4(PIDFD_GETFD, pidfd, descriptor, 0, 0);
    close(pidfd);
    return r;
  }

  #processOf(thread: number): number {
    return Number(/^Tgid:\t(\d+)$/m.exec(this.read(`${thread}/status`))?.[1] ?? thread);
  }

  /**
   * Whether the thread has capability `capability` (CAP_*) in effect, in our user namespace: one in a user namespace
   * below has all capabilities there.
   */
  hasCapability(thread: number, capability: number): boolean {
    if (this.#namespace(`${thread}/ns/user`) !== this.#ownUserNamespace) return false;
    const mask = /^CapEff:\t([0-9a-f]+)$/m.exec(this.read(`${thread}/status`))?.[1] ?? '0';
    return ((BigInt(`0x${mask}`) >> BigInt(capability)) & 1n) === 1n;
  }

  /** O_CLOEXEC if a descriptor of the thread has it, else 0. */
  closeOnExec(thread: number, descriptor: number): number {
    const fd = openat(this.#proc, `${thread}/fdinfo/${descriptor}`, O_RDONLY);
    if (fd < 0) return 0;
    const bytes = read(fd, text.address, TEXT_BYTES);
    close(fd);
    // "pos:\t0\nflags:\t02000002\n": octal.
    const { u8 } = text;
    let at = 0;
    while (at < bytes && u8[at] !== LINE_END) at++;
    while (at < bytes && (u8[at]! < DIGIT_0 || u8[at]! > DIGIT_0 + 7)) at++;
    let flags = 0;
    for (; at < bytes && u8[at] !== LINE_END; at++) flags = flags * 8 + u8[at]! - DIGIT_0;
    return flags & O_CLOEXEC;
  }

  /**
   * Whether the thread's root has /dev/fuse: then its programs can make memory that the kernel waits for as long as they
   * like.
   * @returns true also if that cannot be known
   */
  hasFuse(thread: number): boolean {
    const fd = openat(this.#proc, `${thread}/root/dev/fuse`, O_PATH);
    if (fd < 0) return fd !== -Errno.ENOENT && fd !== -Errno.ENOTDIR;
    try {
      return fstatSync(fd).rdev === FUSE_DEVICE;
    } finally {
      close(fd);
    }
  }

  /** The thread's network namespace, as "net:[inode]"; empty: not known. */
  networkNamespace(thread: number): string {
    return this.#namespace(`${thread}/ns/net`);
  }

  #namespace(path: string): string {
    const r = cReadlinkat(this.#proc, path, text.address, TEXT_BYTES);
    return r < 0 ? '' : latin1(r);
  }

  /**
   * Whether a descriptor of the thread is registered in an epoll set that the thread has open. A set watches
   * what is open under a number, so it would not notice a replacement.
   * @param made  how many sets the thread's container has made: as long as it is the same, only the sets that were found
   *   before are looked at; undefined: not known
   * @returns true also if that cannot be known, or the thread has more than MOST_SEARCHED descriptors
   */
  isInEpollSet(thread: number, descriptor: number, made: number | undefined): boolean {
    if (made === 0) return false;
    const known = this.#pidfds.get(thread);
    if (made !== undefined && known?.setsMade === made) {
      const answers = known.sets.map((set) => this.#inSet(thread, set, descriptor));
      if (answers.includes(IN_SET)) return true;
      // Not a set any more: the thread may have it under another number.
      if (answers.every((answer) => answer === NOT_IN_SET)) return false;
    }
    const sets: number[] = [];
    let searched = 0;
    const isIn = this.#hasEntry(
      `${thread}/fd`,
      (set) => {
        if (++searched > MOST_SEARCHED) return true;
        if (set === descriptor) return false;
        const answer = this.#inSet(thread, set, descriptor);
        if (answer !== NO_SET) sets.push(set);
        return answer === IN_SET;
      },
      true,
    );
    if (known !== undefined && !isIn) {
      known.setsMade = made;
      known.sets = sets;
    }
    return isIn;
  }

  /**
   * Look for sockets among the descriptors of all processes that we have rights over.
   * @param inodes  of the sockets
   * @param found  called for each descriptor that is one of them
   */
  findSockets(
    inodes: ReadonlySet<number>,
    found: (process: number, descriptor: number, inode: number) => void,
  ): void {
    const processes: number[] = [];
    this.#hasEntry('.', (process) => processes.push(process) < 0, false);
    for (const process of processes) {
      const visit = (descriptor: number): boolean => {
        const r = cReadlinkat(this.#proc, `${process}/fd/${descriptor}`, text.address, TEXT_BYTES);
        const inode = r < 0 ? undefined : /^socket:\[(\d+)\]$/.exec(latin1(r))?.[1];
        if (inode !== undefined && inodes.has(Number(inode))) found(process, descriptor, Number(inode));
        return false;
      };
      this.#hasEntry(`${process}/fd`, visit, false);
    }
  }

  /**
   * Whether `visit` returns true for one of the numbers that are names in a directory below /proc.
   * @param unknown  the result if it cannot be read
   */
  #hasEntry(path: string, visit: (name: number) => boolean, unknown: boolean): boolean {
    const directory = openat(this.#proc, path, O_RDONLY | O_DIRECTORY);
    if (directory < 0) return unknown;
    try {
      for (;;) {
        const bytes = syscall4(syscallNumber('getdents64'), directory, entries.address, ENTRIES_BYTES, 0);
        if (bytes <= 0) return bytes < 0 && unknown;
        for (let at = 0; at < bytes; at += entries.u16[(at + RECLEN_AT) >> 1]!) {
          const name = numberAt(at + NAME_AT);
          if (name >= 0 && visit(name)) return true;
        }
      }
    } finally {
      close(directory);
    }
  }

  /** @returns IN_SET also if that cannot be known */
  #inSet(thread: number, set: number, descriptor: number): InSet {
    slot.u32[0] = set;
    slot.u32[1] = descriptor;
    slot.u32[2] = 0;
    const r = cSyscall(...[syscallNumber('kcmp'), thread, thread, KCMP_EPOLL_TFD, descriptor], slot.address);
    const error = r >= 0 ? 0 : failed();
    if (error === -Errno.ENOENT) return NOT_IN_SET;
    // EBADF: closed meanwhile.
    return error === -Errno.EINVAL || error === -Errno.EBADF ? NO_SET : IN_SET;
  }

  /** A file below /proc, whole; empty if it cannot be read. */
  read(path: string): string {
    const fd = openat(this.#proc, path, O_RDONLY);
    if (fd < 0) return '';
    let whole = '';
    for (;;) {
      const bytes = read(fd, text.address, TEXT_BYTES);
      if (bytes > 0) whole += latin1(bytes);
      // The kernel fills the room with whole lines: with room for a further one, it has none.
      if (bytes < TEXT_BYTES - LONG_LINE || whole.length > 1024 * 1024) break;
    }
    close(fd);
    return whole;
  }

  /** Keep a file below /proc open, to be read again and again. */
  hold(path: string): HeldFile {
    return new HeldFile(openat(this.#proc, path, O_RDONLY));
  }
}

/**
 * A file of /proc that is kept open. It is about the process, or the namespace, that it was opened of; the
 * namespace stays as long as the file is open.
 */
export class HeldFile {
  readonly #fd: number;
  #words = new Uint32Array(0);
  #bytes = 0;
  #text = '';

  /** @param fd  or -errno: then the file is empty */
  constructor(fd: number) {
    this.#fd = fd;
  }

  /** What the file has now: one and the same text as long as that does not change. */
  read(): string {
    const bytes = pread(this.#fd, text.address, TEXT_BYTES, 0);
    if (bytes >= TEXT_BYTES - LONG_LINE) return this.#readOn(bytes);
    for (let at = bytes; at > 0 && (at & 3) !== 0; at++) text.u8[at] = 0;
    if (bytes !== this.#bytes || !this.#isSame()) {
      this.#bytes = bytes;
      this.#text = bytes > 0 ? latin1(bytes) : '';
      this.#words = text.u32.slice(0, (Math.max(bytes, 0) + 3) >> 2);
    }
    return this.#text;
  }

  /** Whether `text` has the words of the last time. */
  #isSame(): boolean {
    const words = this.#words;
    for (let i = 0; i < words.length; i++) if (text.u32[i] !== words[i]) return false;
    return true;
  }

  #readOn(first: number): string {
    let whole = latin1(first);
    for (let bytes = first; bytes > 0 && whole.length < 1024 * 1024; ) {
      bytes = pread(this.#fd, text.address, TEXT_BYTES, whole.length);
      if (bytes > 0) whole += latin1(bytes);
    }
    this.#bytes = 0;
    if (whole !== this.#text) this.#text = whole;
    return this.#text;
  }

  close(): void {
    if (this.#fd >= 0) close(this.#fd);
  }
}

const latin1 = (bytes: number): string => Buffer.from(text.u8.buffer, 0, bytes).toString('latin1');

/** The decimal number at a byte of `entries`; -1 for other names. */
function numberAt(at: number): number {
  let value = 0;
  for (let i = at; entries.u8[i] !== 0; i++) {
    const digit = entries.u8[i]! - DIGIT_0;
    if (digit < 0 || digit > 9) return -1;
    value = value * 10 + digit;
  }
  return value;
}
