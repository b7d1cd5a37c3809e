/**
 * The io_uring rings through which libuv (Node) submits epoll_ctl requests: one for each event loop, created
 * with the loop. libuv has no function that returns their descriptors, so they are found in /proc. Bun has no
 * such rings.
 */
import { readdirSync, readlinkSync } from 'node:fs';

const RING_NAMES = ['anon_inode:[io_uring]', 'anon_inode:io_uring'];

/**
 * Find the rings of all threads. Every descriptor of the process is examined, which takes some microseconds
 * each: call it before thousands of ports are listened on, if possible.
 * @returns descriptors of the rings
 */
export function findEventRings(): readonly number[] {
  return readdirSync('/proc/self/fd')
    .map(Number)
    .filter((fd) => {
      try {
        return RING_NAMES.includes(readlinkSync(`/proc/self/fd/${fd}`));
      } catch {
        return false; // the descriptor through which the directory was read: it is closed now
      }
    });
}
