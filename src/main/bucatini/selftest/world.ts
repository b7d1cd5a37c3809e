// bundle: rare
/**
 * The selftest's network. It uses documentation addresses (RFC 5737, RFC 3849), which no real network has.
 *
 *   namespace of COMMAND ── TAP ── engine ┐
 *                                         │ sockets
 *   "host": our own namespace ────────────┘ 192.0.2.2, 2001:db8:2::2
 *        │ veth, default route
 *   "peer": a process of its own ── 192.0.2.1, 2001:db8:2::1; servers on 198.51.100.7 and 2001:db8:7::7
 */
import { writeFileSync } from 'node:fs';
import type { RouteSocket } from '../../../sys/netlink.ts';

/** Addresses of the "host" on the veth. */
export const HOST = { v4: '192.0.2.2', v6: '2001:db8:2::2' } as const;
/** Addresses of the peer on the veth. */
export const PEER = { v4: '192.0.2.1', v6: '2001:db8:2::1' } as const;
/** Addresses of the servers: on the peer's loopback, not on the link, so they need the default route. */
export const OUTSIDE = { v4: '198.51.100.7', v6: '2001:db8:7::7' } as const;
/** The name the peer's DNS server knows. */
export const OUTSIDE_NAME = 'outside.test';
/** Name of each end of the veth. */
export const LINK = 'veth0';
/** Ports of the peer's servers; `published` is a port of the host that leads to COMMAND. */
export const PORT = { http: 80, echo: 7, sink: 9, source: 19, dns: 53, published: 8080 } as const;

/**
 * Settings for a new namespace: no duplicate address detection, which would delay the start, and ping without
 * privileges.
 */
export function tuneNamespace(): void {
  for (const [path, value] of [
    ['net/ipv4/ping_group_range', '0 0'],
    ['net/ipv6/conf/default/accept_dad', '0'],
    ['net/ipv6/conf/all/accept_dad', '0'],
    ['net/ipv6/conf/default/accept_ra', '0'],
  ] as const) {
    try {
      writeFileSync(`/proc/sys/${path}`, value);
    } catch {
      // The kernel has no IPv6 or /proc/sys is covered: the steps that need the setting fail and say so.
    }
  }
}

/**
 * Configure loopback and the end of the veth in the calling thread's namespace.
 * @param ours     addresses for the veth
 * @param outside  also add the servers' addresses to loopback
 */
export function configureEnd(route: RouteSocket, ours: typeof HOST | typeof PEER, outside: boolean): void {
  const loopback = route.linkByName('lo')!.index;
  const link = route.linkByName(LINK)!.index;
  route.setLink(loopback, { up: true });
  route.setLink(link, { up: true });
  route.addAddress(link, 4, ours.v4, 24);
  route.addAddress(link, 6, ours.v6, 64, { nodad: true });
  if (!outside) return;
  route.addAddress(loopback, 4, OUTSIDE.v4, 32);
  route.addAddress(loopback, 6, OUTSIDE.v6, 128, { nodad: true });
}

/** Add default routes through the peer. */
export function addDefaultRoutes(route: RouteSocket): void {
  const oif = route.linkByName(LINK)!.index;
  route.addRoute({ family: 4, dst: '0.0.0.0', prefixLen: 0, gateway: PEER.v4, oif });
  route.addRoute({ family: 6, dst: '::', prefixLen: 0, gateway: PEER.v6, oif });
}
