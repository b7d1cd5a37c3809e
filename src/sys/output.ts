/**
 * Writing to a descriptor that other processes share, without waiting for the reader and without setting
 * O_NONBLOCK: that flag belongs to the open file description, so it would change for the others too. Cold.
 * @syscalls sendto poll write
 */
import { EPOLLERR, EPOLLHUP, EPOLLOUT, Errno, MSG_DONTWAIT, MSG_NOSIGNAL } from './constants.ts';
import { write } from './io.ts';
import { libc } from './libc.ts';
import { NativeBuffer } from './memory.ts';
import { send } from './socket.ts';

/** PIPE_BUF, <linux/limits.h>: a pipe that poll(2) reports as writable has room for this many bytes. */
export const PIPE_BUF = 4096;

const cPoll = libc<[number, number, number]>('poll', 'int', ['uintptr_t', 'unsigned long', 'int']);
/** struct pollfd: fd int, events short, revents short. */
const pollFd = new NativeBuffer(8);
const scratch = new NativeBuffer(PIPE_BUF);

/**
 * Whether a write would return without waiting, with an error or not.
 * @param waitMs  how long to wait for that, in milliseconds
 */
export function isWritable(fd: number, waitMs = 0): boolean {
  pollFd.i32[0] = fd;
  pollFd.u16[2] = EPOLLOUT;
  pollFd.u16[3] = 0;
  const r = cPoll(pollFd.address, 1, waitMs);
  return r > 0 && (pollFd.u16[3]! & (EPOLLOUT | EPOLLERR | EPOLLHUP)) !== 0;
}

/**
 * Write without waiting. It can still wait on a pipe that another process fills between poll(2) and write(2);
 * therefore main/process/output.ts does not use it for pipes and terminals that it can open a second time.
 * @param bytes  at most PIPE_BUF
 * @returns bytes written, or -errno; -EAGAIN: there is no room, because the reader does not read
 */
export function writeAtOnce(fd: number, bytes: Uint8Array): number {
  scratch.u8.set(bytes);
  const sent = send(fd, scratch.address, bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent !== -Errno.ENOTSOCK) return sent;
  if (!isWritable(fd)) return -Errno.EAGAIN;
  return write(fd, scratch.address, bytes.length);
}
