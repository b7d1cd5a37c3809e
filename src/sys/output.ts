/**
 * Writing to a descriptor that somebody else shares, without waiting for a reader and without a change of its
 * flags: O_NONBLOCK belongs to the open file, which others have too. Cold.
 * @syscalls sendto poll write
 */
import { EPOLLERR, EPOLLHUP, EPOLLOUT, Errno, MSG_DONTWAIT, MSG_NOSIGNAL } from './constants.ts';
import { write } from './io.ts';
import { libc } from './libc.ts';
import { NativeBuffer } from './memory.ts';
import { send } from './socket.ts';

/** PIPE_BUF, <linux/limits.h>: a pipe that poll(2) calls writable has room for so much. */
export const PIPE_BUF = 4096;

const cPoll = libc<[number, number, number]>('poll', 'int', ['uintptr_t', 'unsigned long', 'int']);
/** struct pollfd: fd int, events short, revents short. */
const pollFd = new NativeBuffer(8);
const scratch = new NativeBuffer(PIPE_BUF);

/** Whether a write would not wait, an error included. */
export function isWritable(fd: number, waitMs = 0): boolean {
  pollFd.i32[0] = fd;
  pollFd.u16[2] = EPOLLOUT;
  pollFd.u16[3] = 0;
  const r = cPoll(pollFd.address, 1, waitMs);
  return r > 0 && (pollFd.u16[3]! & (EPOLLOUT | EPOLLERR | EPOLLHUP)) !== 0;
}

/**
 * Write what goes at once. To a pipe that another writer fills between poll(2) and write(2) it waits: for
 * pipes and terminals that can be opened anew (main/process/output.ts) it is not used.
 * @param bytes  no more than PIPE_BUF
 * @returns bytes written or -errno, -EAGAIN: nobody reads
 */
export function writeAtOnce(fd: number, bytes: Uint8Array): number {
  scratch.u8.set(bytes);
  const sent = send(fd, scratch.address, bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent !== -Errno.ENOTSOCK) return sent;
  if (!isWritable(fd)) return -Errno.EAGAIN;
  return write(fd, scratch.address, bytes.length);
}
