/**
 * The rings of io_uring by which libuv hands its changes of epoll sets to the kernel: one for each event
 * loop, made with the loop. libuv tells their descriptors to nobody; /proc does.
 */
import { readdirSync, readlinkSync } from 'node:fs';

const RING_NAMES = ['anon_inode:[io_uring]', 'anon_inode:io_uring'];

/**
 * Looks at every descriptor of the process, some microseconds each: before thousands of ports are listened
 * on, if possible.
 * @returns descriptors of all threads' rings
 */
export function findEventRings(): readonly number[] {
  return readdirSync('/proc/self/fd')
    .map(Number)
    .filter((fd) => {
      try {
        return RING_NAMES.includes(readlinkSync(`/proc/self/fd/${fd}`));
      } catch {
        return false; // the one that the directory was read through
      }
    });
}
