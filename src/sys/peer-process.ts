/**
 * What a supervisor reads of the threads that it supervises: their memory, descriptors and entries in /proc.
 * Needs the rights of ptrace(2) over them: CAP_SYS_PTRACE in their user namespace, or to be its owner. The functions
 * return a result or -errno.
 *
 * A thread may end at any time, and its id may be given to another: what was read is valid if its call still
 * waits afterwards (seccomp-notify.ts).
 * @syscalls pidfd_open pidfd_getfd process_vm_readv kcmp openat read readlinkat getdents64 close
 */
import { Errno, O_CLOEXEC, O_DIRECTORY, O_PATH, O_RDONLY } from './constants.ts';
import { close, read } from './io.ts';
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
/** KCMP_FILE and KCMP_EPOLL_TFD, <linux/kcmp.h>. */
const KCMP_FILE = 0;
const KCMP_EPOLL_TFD = 7;
/** Descriptors among which epoll sets are searched for: each takes a microsecond or more, and all others wait. */
export const MOST_SEARCHED = 2048;
const TEXT_BYTES = 4096;
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

/** What is read of threads through a descriptor of /proc, which stays usable in an empty root. */
export class Threads {
  readonly #proc: number;

  /** @throws nothing: without /proc all functions return -errno */
  constructor() {
    this.#proc = openPath('/proc', O_PATH | O_DIRECTORY);
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
    let pidfd = pidfdOpen(thread, PIDFD_THREAD);
    if (pidfd === -Errno.EINVAL) pidfd = pidfdOpen(this.#processOf(thread)); // before Linux 6.9
    if (pidfd < 0) return pidfd;
    const r = syscall4(syscallNumber('pidfd_getfd'), pidfd, descriptor, 0, 0);
    close(pidfd);
    return r;
  }

  #processOf(thread: number): number {
    return Number(/^Tgid:\t(\d+)$/m.exec(this.read(`${thread}/status`))?.[1] ?? thread);
  }

  /** Whether the thread has capability `capability` (CAP_*) in effect. */
  hasCapability(thread: number, capability: number): boolean {
    const mask = /^CapEff:\t([0-9a-f]+)$/m.exec(this.read(`${thread}/status`))?.[1] ?? '0';
    return ((BigInt(`0x${mask}`) >> BigInt(capability)) & 1n) === 1n;
  }

  /** O_CLOEXEC if a descriptor of the thread has it, else 0. */
  closeOnExec(thread: number, descriptor: number): number {
    const flags = /^flags:\s+0*([0-7]+)$/m.exec(this.read(`${thread}/fdinfo/${descriptor}`))?.[1];
    return flags !== undefined && (Number.parseInt(flags, 8) & O_CLOEXEC) !== 0 ? O_CLOEXEC : 0;
  }

  /** The thread's network namespace, as "net:[inode]"; empty: not known. */
  networkNamespace(thread: number): string {
    const r = cReadlinkat(this.#proc, `${thread}/ns/net`, text.address, TEXT_BYTES);
    return r < 0 ? '' : latin1(r);
  }

  /**
   * Whether a descriptor of the thread is registered in an epoll set that the thread has open. A set watches
   * what is open under a number, so it would not notice a replacement.
   * @returns true also if that cannot be known, or the thread has more than MOST_SEARCHED descriptors
   */
  isInEpollSet(thread: number, descriptor: number): boolean {
    let searched = 0;
    return this.#hasEntry(
      `${thread}/fd`,
      (set) => ++searched > MOST_SEARCHED || (set !== descriptor && this.#isInSet(thread, set, descriptor)),
      true,
    );
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

  #isInSet(thread: number, set: number, descriptor: number): boolean {
    slot.u32[0] = set;
    slot.u32[1] = descriptor;
    slot.u32[2] = 0;
    const r = cSyscall(...[syscallNumber('kcmp'), thread, thread, KCMP_EPOLL_TFD, descriptor], slot.address);
    // EINVAL: not an epoll set. ENOENT: not in it. EBADF: closed meanwhile.
    if (r >= 0) return true;
    const error = failed();
    return error !== -Errno.EINVAL && error !== -Errno.ENOENT && error !== -Errno.EBADF;
  }

  /** A file below /proc, whole; empty if it cannot be read. */
  read(path: string): string {
    const fd = openat(this.#proc, path, O_RDONLY);
    if (fd < 0) return '';
    let whole = '';
    for (;;) {
      const bytes = read(fd, text.address, TEXT_BYTES);
      if (bytes > 0) whole += latin1(bytes);
      // Small files come whole; of others each read returns whole lines.
      if (bytes <= 0 || whole.length > 1024 * 1024) break;
    }
    close(fd);
    return whole;
  }
}

const latin1 = (bytes: number): string => Buffer.from(text.u8.buffer, 0, bytes).toString('latin1');

/** The decimal number at a byte of `entries`; -1 for other names. */
function numberAt(at: number): number {
  let value = 0;
  for (let i = at; entries.u8[i] !== 0; i++) {
    const digit = entries.u8[i]! - 0x30;
    if (digit < 0 || digit > 9) return -1;
    value = value * 10 + digit;
  }
  return value;
}
