/** Makes the TAP of a namespace with the queues that the lanes need, in the namespace of the calling thread. */
import { Errno } from '../../sys/constants.ts';
import { checked, SysError } from '../../sys/error.ts';
import { close } from '../../sys/io.ts';
import type { RouteSocket } from '../../sys/netlink.ts';
import { openTap, type Tap } from '../../sys/tap.ts';
import { detachQueue } from '../../sys/tap-queue.ts';
import type { TapPlan } from '../../workers/engine-plan.ts';
import type { TapQueues } from './threads.ts';

/** Why a TAP that exists cannot be opened with several queues. */
export class SingleQueueError extends Error {
  override readonly name = 'SingleQueueError';
}

/** A TAP, and the descriptors of its further queues. */
export interface TapWithQueues {
  readonly tap: Tap;
  /** Descriptors of queues 1, 2 ...; absent: it has one queue. */
  readonly moreQueues?: readonly number[];
}

/**
 * Make the TAP, or open one that exists and that no process uses.
 * @param name    interface name; the kernel replaces `%d` by a number
 * @param wanted  from 2 queues on the TAP has IFF_MULTI_QUEUE
 * @param isNew   the namespace was made for this TAP: it has no interface of that name
 * @throws SysError or SingleQueueError, with no queue left open
 */
export function makeTap(
  route: RouteSocket,
  name: string,
  { queues, attached, orOne }: TapQueues,
  isNew: boolean,
): TapWithQueues {
  if (queues === 1) return { tap: openTap({ name }) };
  if (!orOne) return makeTapWithQueues(route, name, queues, attached, isNew);
  // An interface that exists has the queues that its maker gave it.
  if (!isNew && route.linkByName(name) !== undefined) return { tap: openTap({ name }) };
  try {
    return makeTapWithQueues(route, name, queues, attached, true);
  } catch {
    return { tap: openTap({ name }) };
  }
}

function makeTapWithQueues(
  route: RouteSocket,
  name: string,
  count: number,
  attached: number,
  isNew: boolean,
): TapWithQueues {
  if (!isNew) requireFreeQueues(route, name);
  const first = openTap({ name, multiQueue: true });
  const moreQueues: number[] = [];
  try {
    while (moreQueues.length < count - 1) {
      const tap = openTap({ name: first.name, multiQueue: true });
      moreQueues.push(tap.fd);
      // The kernel has one value of each for the whole interface. A frame that one queue cannot carry must not
      // be sent to any.
      if (tap.vnetHdrBytes !== first.vnetHdrBytes || tap.uso !== first.uso || tap.bigTcp !== first.bigTcp)
        throw new Error(`TAP "${first.name}": queue ${moreQueues.length} has other offloads than queue 0`);
    }
    for (const fd of moreQueues.slice(attached - 1)) checked(detachQueue(fd), 'ioctl', 'TUNSETQUEUE');
    return { tap: first, moreQueues };
  } catch (error) {
    for (const fd of [first.fd, ...moreQueues]) close(fd);
    throw error;
  }
}

/**
 * The kernel would add our queues to those of another process, and would divide the frames among all.
 * @throws SysError when the namespace has a TAP of this name that is in use, SingleQueueError when it has one
 *   queue
 */
function requireFreeQueues(route: RouteSocket, name: string): void {
  const link = route.linkByName(name);
  if (link?.kind !== 'tun' || link.tunQueues === 0) return;
  if (link.tunQueues !== undefined) throw new SysError('ioctl', `TUNSETIFF, "${name}"`, Errno.EBUSY);
  throw new SingleQueueError(`the namespace has an interface "${name}" with a single queue`);
}

/** The engine's description of a TAP. */
export const tapPlan = ({ tap, moreQueues }: TapWithQueues): TapPlan => ({
  fd: tap.fd,
  ...(moreQueues && { moreQueues }),
  vnetHdrBytes: tap.vnetHdrBytes,
  uso: tap.uso,
  bigTcp: tap.bigTcp,
});

/**
 * Give a TAP with IFF_MULTI_QUEUE no queueing disciplines. When it goes up, the kernel would make a pfifo_fast
 * for each of the 256 queues that it may get, each with three arrays of TX_QUEUE_FRAMES words: 25 MiB and 7 ms
 * (measured on Linux 6.18; so 0.04 MiB and 0.2 ms). None of them would ever hold a frame for long: a TAP does
 * not stop its queues, but drops frames when a queue is full. To be called before the interface goes up.
 */
export function withoutQdiscs(route: RouteSocket, index: number): void {
  try {
    route.setQdisc(index, 'noqueue');
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    // A kernel without CONFIG_NET_SCHED.
  }
}
