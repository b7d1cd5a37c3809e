/**
 * The listener of a seccomp filter: system calls that the filter notifies of, and the answers to them
 * (SECCOMP_RET_USER_NOTIF, seccomp_unotify(2), <linux/seccomp.h>). The functions return a result or -errno and
 * allocate nothing.
 *
 *   seccomp_notif        +0 id u64   +8 thread u32   +12 flags u32   +16 seccomp_data                    = 80
 *   seccomp_data         +0 nr i32   +4 arch u32   +8 instruction pointer u64   +16 six arguments u64    = 64
 *   seccomp_notif_resp   +0 id u64   +8 value s64   +16 error s32, negative   +20 flags u32              = 24
 *   seccomp_notif_addfd  +0 id u64   +8 flags u32   +12 ours u32   +16 theirs u32   +20 O_CLOEXEC u32    = 24
 * @syscalls ioctl
 */
import { Errno } from './constants.ts';
import { ioctl } from './io.ts';
import { NativeBuffer } from './memory.ts';

const NOTIF_RECV = 0xc050_2100;
const NOTIF_SEND = 0xc018_2101;
const NOTIF_ID_VALID = 0x4008_2102;
const NOTIF_ADDFD = 0x4018_2103;
const NOTIF_SET_FLAGS = 0x4008_2104;
/** Requests of ioctl(2) on a listener, for a sandbox. */
export const NOTIFY_REQUESTS = [NOTIF_RECV, NOTIF_SEND, NOTIF_ID_VALID, NOTIF_ADDFD, NOTIF_SET_FLAGS];

const USER_NOTIF_FLAG_CONTINUE = 1;
const ADDFD_FLAG_SETFD = 1;
/** Linux 6.6: who waits and who answers run on the same processor. */
const SYNC_WAKE_UP = 1;

const response = new NativeBuffer(24);
const added = new NativeBuffer(24);
const validity = new NativeBuffer(8);

/** A system call that waits for an answer; filled by receive(). */
export class Notification {
  readonly #buffer = new NativeBuffer(80);

  /**
   * Wait for the next call.
   * @param listener  readable, or this blocks
   * @returns 0; -ENOENT: the call was interrupted before it was read
   */
  receive(listener: number): number {
    this.#buffer.u32.fill(0);
    return ioctl(listener, NOTIF_RECV, this.#buffer.address);
  }

  /** The id of the call, in two halves: for answers, also after the next receive(). */
  get idLow(): number {
    return this.#buffer.u32[0]!;
  }
  get idHigh(): number {
    return this.#buffer.u32[1]!;
  }

  /** Thread that made the call, in our PID namespace; 0: it is in none that we see. */
  get thread(): number {
    return this.#buffer.u32[2]!;
  }

  /** Number of the system call in the table of `architecture`. */
  get call(): number {
    return this.#buffer.i32[4]!;
  }

  /** AUDIT_ARCH_*. */
  get architecture(): number {
    return this.#buffer.u32[5]!;
  }

  /** Argument 0 to 5, its low 32 bits as a signed number. */
  int(argument: number): number {
    return this.#buffer.i32[8 + argument * 2]!;
  }

  /** Argument 0 to 5, as an address in the caller's memory: exact below 2^53. */
  address(argument: number): number {
    const word = 8 + argument * 2;
    return this.#buffer.u32[word]! + this.#buffer.u32[word + 1]! * 0x1_0000_0000;
  }
}

/** Let the waiting thread and ourselves run on one processor, where the kernel supports it. */
export function wakeTogether(listener: number): void {
  ioctl(listener, NOTIF_SET_FLAGS, SYNC_WAKE_UP);
}

/**
 * Answer a call.
 * @param result  0, or -errno for the caller
 * @returns 0, or -errno: -ENOENT: the call does not wait any more
 */
export function answer(listener: number, idLow: number, idHigh: number, result: number): number {
  return respond(listener, idLow, idHigh, result, 0);
}

/**
 * Let the kernel carry out a call. It reads the call's memory and descriptor again, and both may have changed:
 * nothing may depend on what was seen of them.
 * @returns as answer()
 */
export function letPass(listener: number, idLow: number, idHigh: number): number {
  return respond(listener, idLow, idHigh, 0, USER_NOTIF_FLAG_CONTINUE);
}

function respond(listener: number, idLow: number, idHigh: number, error: number, flags: number): number {
  const { u32, i32, address } = response;
  u32[0] = idLow;
  u32[1] = idHigh;
  i32[4] = error;
  u32[5] = flags;
  return ioctl(listener, NOTIF_SEND, address);
}

/** Whether a call still waits: then its thread, and what was read of it, is the one that made the call. */
export function stillWaits(listener: number, idLow: number, idHigh: number): boolean {
  validity.u32[0] = idLow;
  validity.u32[1] = idHigh;
  return ioctl(listener, NOTIF_ID_VALID, validity.address) === 0;
}

/**
 * Replace a descriptor of the caller by a copy of one of ours.
 * @param ours    our descriptor
 * @param theirs  number of the caller's descriptor
 * @param flags   O_CLOEXEC or 0, of the caller's new descriptor
 * @returns `theirs`, or -errno
 */
export function replaceDescriptor(
  listener: number,
  idLow: number,
  idHigh: number,
  ours: number,
  theirs: number,
  flags: number,
): number {
  const { u32, address } = added;
  u32[0] = idLow;
  u32[1] = idHigh;
  u32[2] = ADDFD_FLAG_SETFD;
  u32[3] = ours;
  u32[4] = theirs;
  u32[5] = flags;
  return ioctl(listener, NOTIF_ADDFD, address);
}

/** Whether a descriptor is a listener. */
export function isListener(fd: number): boolean {
  validity.u32.fill(0);
  const r = ioctl(fd, NOTIF_ID_VALID, validity.address);
  return r === 0 || r === -Errno.ENOENT; // no call has this id; any other descriptor does not know the request
}
