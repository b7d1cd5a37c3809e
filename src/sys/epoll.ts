/**
 * epoll(7), as the reactor uses it. Hot; every function returns a result or -errno.
 * @syscalls epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2
 *
 * struct epoll_event, <linux/eventpoll.h>: packed on x86-64, naturally aligned elsewhere.
 *
 *              +0          +4          +8          +12         +16
 *   x86-64     | events u32| data lo   | data hi   |
 *   AArch64    | events u32| (unused)  | data lo   | data hi   |
 */
import { EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, Errno } from './constants.ts';
import { failed, libc } from './libc.ts';
import { type NativeAddress, NativeBuffer } from './memory.ts';
import { syscallNumber } from './syscall-numbers.ts';

const packed = process.arch === 'x64';
export const EPOLL_EVENT_BYTES = packed ? 12 : 16;
export const EPOLL_DATA_AT = packed ? 4 : 8;
const EVENT_WORDS = EPOLL_EVENT_BYTES >> 2;
const DATA_WORD = EPOLL_DATA_AT >> 2;

type N = number;
const cEpollCreate1 = libc<[N]>('epoll_create1', 'int', ['int']);
const cEpollCtl = libc<[N, N, N, N]>('epoll_ctl', 'int', ['int', 'int', 'int', 'uintptr_t']);
/**
 * epoll_pwait2 has one argument more, the size of the signal mask, which the kernel ignores without a mask; Bun's
 * calls have six at the most.
 */
const cSyscall = libc<[N, N, N, N, N, N]>('syscall', 'intptr_t', [
  ...(['int64_t', 'int', 'uintptr_t', 'int', 'uintptr_t', 'uintptr_t'] as const),
]);
const cEpollWait = libc<[N, N, N, N]>('epoll_wait', 'int', ['int', 'uintptr_t', 'int', 'int']);

/** Room for the events of one epollWait. The accessors are valid until the next wait with the same object. */
export class EpollEvents {
  readonly capacity: number;
  readonly address: NativeAddress;
  /** The events as words, for a reactor that reads them directly. */
  readonly u32: Uint32Array;
  /** Keeps the memory at `address` alive. */
  readonly buffer: NativeBuffer;

  constructor(capacity: number) {
    this.capacity = capacity;
    this.buffer = new NativeBuffer(capacity * EPOLL_EVENT_BYTES);
    this.address = this.buffer.address;
    this.u32 = this.buffer.u32;
  }

  /** EPOLL* bits of event i. */
  eventsOf(i: number): number {
    return this.u32[i * EVENT_WORDS]!;
  }

  /** First u32 of the data registered with the descriptor of event i. */
  dataLo(i: number): number {
    return this.u32[i * EVENT_WORDS + DATA_WORD]!;
  }

  /** Second u32 of that data. */
  dataHi(i: number): number {
    return this.u32[i * EVENT_WORDS + DATA_WORD + 1]!;
  }
}

/** The event passed to epoll_ctl; the kernel copies it before the call returns. */
const request = new NativeBuffer(16);

function control(ep: number, op: number, fd: number, events: number, dataLo: number, dataHi: number): number {
  request.u32[0] = events;
  request.u32[DATA_WORD] = dataLo;
  request.u32[DATA_WORD + 1] = dataHi;
  const r = cEpollCtl(ep, op, fd, request.address);
  return r < 0 ? failed() : r;
}

/** Create an epoll instance. @returns a descriptor, close-on-exec, or -errno */
export function epollCreate(): number {
  const r = cEpollCreate1(EPOLL_CLOEXEC);
  return r < 0 ? failed() : r;
}

/**
 * Register a descriptor.
 * @param events  EPOLL* bits
 * @param dataLo,dataHi  two u32 that are returned with every event of fd
 * @returns 0 or -errno
 */
export function epollAdd(ep: number, fd: number, events: number, dataLo: number, dataHi: number): number {
  return control(ep, EPOLL_CTL_ADD, fd, events, dataLo, dataHi);
}

/** Change the events or the data of a registered descriptor. @returns 0 or -errno */
export function epollMod(ep: number, fd: number, events: number, dataLo: number, dataHi: number): number {
  return control(ep, EPOLL_CTL_MOD, fd, events, dataLo, dataHi);
}

/** Remove a descriptor. @returns 0 or -errno */
export function epollDel(ep: number, fd: number): number {
  return control(ep, EPOLL_CTL_DEL, fd, 0, 0, 0);
}

/**
 * Wait for events.
 * @param timeoutMs whole milliseconds; 0 does not wait. -1 waits without limit: not for threads that have to
 *   stop.
 * @returns number of events, 0 after the timeout, or -errno; treat -EINTR as 0
 */
export function epollWait(ep: number, events: EpollEvents, timeoutMs: number): number {
  const r = cEpollWait(ep, events.address, events.capacity, timeoutMs);
  return r < 0 ? failed() : r;
}

const timeout = new NativeBuffer(16);
let hasPwait2 = true;

/**
 * Wait for events with a timeout that need not be whole milliseconds: epoll_pwait2 (Linux 5.11). Where that is
 * missing, or a filter refuses it, the timeout is rounded up.
 * @param timeoutMs  above 0
 * @returns as epollWait()
 */
export function epollWaitPrecise(ep: number, events: EpollEvents, timeoutMs: number): number {
  if (!hasPwait2) return epollWait(ep, events, Math.ceil(timeoutMs));
  const seconds = Math.floor(timeoutMs / 1000);
  timeout.u32[0] = seconds;
  timeout.u32[2] = Math.floor((timeoutMs - seconds * 1000) * 1e6);
  const r = cSyscall(syscallNumber('epoll_pwait2'), ep, events.address, events.capacity, timeout.address, 0);
  if (r >= 0) return r;
  const error = failed();
  if (error !== -Errno.ENOSYS && error !== -Errno.EPERM) return error;
  hasPwait2 = false;
  return epollWait(ep, events, Math.ceil(timeoutMs));
}
