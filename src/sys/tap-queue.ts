/**
 * Queues of a multi-queue TAP: the kernel gives frames only to queues that are attached.
 * <linux/if_tun.h>, drivers/net/tun.c (tun_set_queue).
 * @syscalls ioctl
 */
import { IFF_ATTACH_QUEUE, IFF_DETACH_QUEUE, TUNSETQUEUE } from './constants.ts';
import { ioctl } from './io.ts';
import { NativeBuffer } from './memory.ts';

/** struct ifreq, <linux/if.h>: ifr_flags i16 at +16, 40 bytes in all. */
const ifreq = new NativeBuffer(40);
const FLAGS_WORD = 8;

/** @param fd  of the queue @returns 0 or -errno; -EINVAL when it is attached already */
export const attachQueue = (fd: number): number => setQueue(fd, IFF_ATTACH_QUEUE);

/** Frames in the queue are lost. @param fd  of the queue @returns 0 or -errno */
export const detachQueue = (fd: number): number => setQueue(fd, IFF_DETACH_QUEUE);

function setQueue(fd: number, flag: number): number {
  ifreq.u16[FLAGS_WORD] = flag;
  return ioctl(fd, TUNSETQUEUE, ifreq.address);
}
