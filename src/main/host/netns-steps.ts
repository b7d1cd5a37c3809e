/** Steps that the namespace set-up of every front end takes (netns.ts). */
import { writeFileSync } from 'node:fs';
import { AF_INET6, CLONE_NEWNET, Errno, O_NONBLOCK, SOCK_CLOEXEC, SOCK_DGRAM } from '../../sys/constants.ts';
import { checked, SysError } from '../../sys/error.ts';
import { close } from '../../sys/io.ts';
import { setns, unshare } from '../../sys/namespace.ts';
import type { RouteSocket } from '../../sys/netlink.ts';
import { openPath } from '../../sys/path.ts';
import { socket } from '../../sys/socket.ts';

/** Make a new network namespace, or enter an existing one: `path` is below /proc or a bind mount. */
export type NetnsTarget = { readonly kind: 'new' } | { readonly kind: 'path'; readonly path: string };

/**
 * Length of the TAP's transmit queue. The kernel's default of 500 frames is one window of a fast download at
 * MTU 1500.
 */
export const TX_QUEUE_FRAMES = 4096;

/**
 * Move the calling thread into a network namespace: a new one, or an existing one.
 * @throws SysError with the remedy
 */
export function enterNamespace(target: NetnsTarget): void {
  if (target.kind === 'new') {
    checked(
      unshare(CLONE_NEWNET),
      'unshare',
      'CLONE_NEWNET',
      'the caller needs CAP_SYS_ADMIN in its user namespace',
    );
    return;
  }
  const fd = checked(
    openPath(target.path, O_NONBLOCK), // do not wait for a writer if the path is a FIFO
    'open',
    target.path,
    /^\/proc\/[0-9]+\//.test(target.path)
      ? "the process is another user's, or has more rights than this user"
      : 'it must exist and be readable by this user',
  );
  const r = setns(fd, CLONE_NEWNET);
  close(fd);
  if (r === -Errno.EINVAL)
    throw new SysError('setns', target.path, Errno.EINVAL, 'it is no network namespace');
  checked(
    r,
    'setns',
    target.path,
    'its user namespace must be ours or below ours; attach by PID enters it first',
  );
}

/**
 * Add neighbour entries for the addresses of ours that the first packets go to. While the kernel resolves a
 * MAC address, it queues at most 256 small packets (unres_qlen_bytes) and drops all others silently. A
 * program that sends more than that at its start, before the engine answers, would lose them.
 * @param index      of the interface
 * @param addresses  of this family, all at `mac`
 */
export function addNeighbourEntries(
  route: RouteSocket,
  index: number,
  family: 4 | 6,
  addresses: readonly string[],
  mac: string,
): void {
  for (const address of addresses) {
    try {
      route.addNeighbour(index, family, address, mac);
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      return; // the kernel then resolves the address when it needs it
    }
  }
}

/** Whether the kernel supports IPv6, even if no interface has an IPv6 address: a socket can be made. */
export function kernelHasIpv6(): boolean {
  const fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  close(fd);
  return true;
}

/**
 * Set a sysctl of the calling thread's network namespace.
 * @param path   below /proc/sys
 * @param notes  receives a line if the sysctl cannot be set
 */
export function trySysctl(path: string, value: string, notes: string[]): void {
  try {
    writeFileSync(`/proc/sys/${path}`, value);
  } catch (error) {
    notes.push(`cannot set ${path.replaceAll('/', '.')} inside: ${(error as Error).message}`);
  }
}
