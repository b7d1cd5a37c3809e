/** Steps that every front end's set-up of a namespace takes (netns.ts). */
import { writeFileSync } from 'node:fs';
import { AF_INET6, CLONE_NEWNET, Errno, O_NONBLOCK, SOCK_CLOEXEC, SOCK_DGRAM } from '../../sys/constants.ts';
import { checked, SysError } from '../../sys/error.ts';
import { close } from '../../sys/io.ts';
import { setns, unshare } from '../../sys/namespace.ts';
import type { RouteSocket } from '../../sys/netlink.ts';
import { openPath } from '../../sys/path.ts';
import { socket } from '../../sys/socket.ts';

/** Make a namespace, or enter the one at a path under /proc or a bind mount. */
export type NetnsTarget = { readonly kind: 'new' } | { readonly kind: 'path'; readonly path: string };

/** Frames that wait in the TAP for us; the kernel's 500 are one window of a fast download at MTU 1500. */
export const TX_QUEUE_FRAMES = 4096;

/** Move the calling thread into a network namespace, made or found. @throws SysError with the remedy */
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
    openPath(target.path, O_NONBLOCK), // a FIFO is told, not waited for
    'open',
    target.path,
    'it must exist and be readable by this user',
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
 * Our addresses that the first packets go to. While the kernel asks for a MAC address it keeps 256 small
 * packets at most (unres_qlen_bytes) and drops the others without a word: a program that sends more at once
 * as it starts, to an engine that is slow to answer as it starts too, would lose them.
 */
export function introduce(
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
      return; // it asks, then
    }
  }
}

/** Whether the kernel has IPv6, even if no interface does: a socket can be made. */
export function kernelHasIpv6(): boolean {
  const fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  close(fd);
  return true;
}

/** Set a sysctl of the namespace. @param path  below /proc/sys @param notes  gets a line when it cannot be */
export function trySysctl(path: string, value: string, notes: string[]): void {
  try {
    writeFileSync(`/proc/sys/${path}`, value);
  } catch (error) {
    notes.push(`cannot set ${path.replaceAll('/', '.')} inside: ${(error as Error).message}`);
  }
}
