/**
 * The set-up of a network namespace by one thread, on the main thread or in netns-worker.ts (netns.ts
 * explains which):
 *
 *   in the host's namespace     read links, addresses and routes; make the address plan
 *   unshare or setns            only this thread moves; the others still open sockets in the host's namespace
 *   in the target               TAP made, loopback up, sysctls, MAC, MTU, queues, up, addresses, routes
 *
 * The process owns the resulting descriptors (TAP, namespace), so they outlive the thread. All calls are
 * synchronous: the runtime makes asynchronous ones on threads of its own, which are still in the host's
 * namespace, and /proc/sys/net shows the namespace of the calling thread.
 */
import { readFileSync } from 'node:fs';
import {
  Errno,
  IFA_F_DEPRECATED,
  IFA_F_TEMPORARY,
  IFA_F_TENTATIVE,
  RT_SCOPE_LINK,
  RT_TABLE_MAIN,
  RTN_UNICAST,
} from '../../sys/constants.ts';
import { checked, SysError } from '../../sys/error.ts';
import { RouteSocket } from '../../sys/netlink.ts';
import { openPath } from '../../sys/path.ts';
import type { Ipv4Plan, TapPlan } from '../../workers/engine-plan.ts';
import { UsageError } from '../cli/values.ts';
import { chosenRoutes } from '../host/chosen-route.ts';
import type { NetnsStep, SocketsInside } from '../host/netns.ts';
import {
  addNeighbourEntries,
  enterNamespace,
  kernelHasIpv6,
  type NetnsTarget,
  TX_QUEUE_FRAMES,
  trySysctl,
} from '../host/netns-steps.ts';
import { isLinkLocal, samePrefix } from '../host/prefix.ts';
import { readResolvConf } from '../host/resolv-conf.ts';
import { makeTap, SingleQueueError, type TapWithQueues, tapPlan, withoutQdiscs } from '../host/tap-queues.ts';
import type { TapQueues } from '../host/threads.ts';
import { type HostNetwork, type PlannedNetwork, planNetwork } from './address-plan.ts';
import type { Settings } from './options.ts';

/** The input of the engine. The interface may still be down. */
export interface NetnsTap {
  readonly tap: TapPlan;
  readonly network: PlannedNetwork;
}

/** The input of setUpNetns(). */
export interface NetnsJob extends SocketsInside {
  readonly settings: Settings;
  readonly target: NetnsTarget;
  readonly tapQueues: TapQueues;
}

/**
 * Make the interface and configure it, step by step.
 * @throws SysError or UsageError. The kernel removes what was made when the thread and the descriptors are
 *   gone
 */
export function* setUpNetns({
  settings,
  target,
  tapQueues,
}: NetnsJob): Generator<NetnsStep<NetnsTap>, void, void> {
  const notes: string[] = [];
  const network = planNetwork(settings, readHostNetwork(settings), readResolvConf());
  enterNamespace(target);
  if (target.kind === 'new') yield { kind: 'namespace', fd: openOwnNetns() };
  const route = new RouteSocket();
  try {
    const made = makeQueues(route, network.interfaceName, tapQueues, target, settings.threads);
    const { tap } = made;
    const link = route.linkByName(tap.name);
    if (link === undefined) throw new SysError('RTM_GETLINK', tap.name, Errno.ENODEV);
    yield {
      kind: 'tap',
      made: {
        tap: tapPlan(made),
        network: { ...network, addresses: { ...network.addresses, guestMac: link.mac } },
      },
    };
    const loopback = route.linkByName('lo');
    if (loopback !== undefined && !loopback.up) route.setLink(loopback.index, { up: true });
    if (target.kind === 'new') {
      // Group 0 is the only group in our user namespace: programs inside can ping without privileges.
      trySysctl('net/ipv4/ping_group_range', '0 0', notes);
    }
    if (made.moreQueues !== undefined) withoutQdiscs(route, link.index);
    configureLink(route, link.index, tap.name, settings, network, target, notes);
  } finally {
    route.close();
  }
  yield { kind: 'configured', notes };
}

function openOwnNetns(): number {
  const own = '/proc/thread-self/ns/net';
  return checked(openPath(own, 0), 'open', own, 'mount /proc');
}

/** Numbers of lanes as --threads has them: N or MIN-MAX. */
function lanesText(threads: Settings['threads']): string {
  if (threads.kind !== 'lanes') return '';
  return threads.first === undefined ? `${threads.lanes}` : `${threads.first}-${threads.lanes}`;
}

/** @throws UsageError or SysError with the remedy */
function makeQueues(
  route: RouteSocket,
  name: string,
  queues: TapQueues,
  target: NetnsTarget,
  threads: Settings['threads'],
): TapWithQueues {
  try {
    return makeTap(route, name, queues, target.kind === 'new');
  } catch (error) {
    if (error instanceof SingleQueueError)
      throw new UsageError(
        `--threads lanes=${lanesText(threads)}: ${error.message}; write --interface-name NAME, or --threads fused`,
      );
    if (target.kind !== 'path' || !(error instanceof SysError) || error.code !== 'EBUSY') throw error;
    const remedy = 'the namespace has an interface of that name; write --interface-name NAME';
    throw new SysError(error.call, error.args, error.errno, remedy);
  }
}

function configureLink(
  route: RouteSocket,
  index: number,
  name: string,
  settings: Settings,
  network: PlannedNetwork,
  target: NetnsTarget,
  notes: string[],
): void {
  const { ipv4, ipv6, mtu, mac } = network.addresses;
  if (!settings.configure) {
    route.setLink(index, { mtu, txQueueLen: TX_QUEUE_FRAMES });
    return;
  }
  if (ipv6 !== undefined) {
    // A new namespace may have inherited disable_ipv6=1 from the host. In a namespace of another program,
    // that value may be intended, so it stays.
    if (target.kind === 'new') {
      for (const scope of ['all', 'default', name])
        setIfDifferent(`net/ipv6/conf/${scope}/disable_ipv6`, '0', notes);
    }
    // Without duplicate address detection, all addresses are usable at once, also the link-local one. A
    // router advertisement must not change anything.
    trySysctl(`net/ipv6/conf/${name}/accept_dad`, '0', notes);
    trySysctl(`net/ipv6/conf/${name}/accept_ra`, '0', notes);
  } else {
    trySysctl(`net/ipv6/conf/${name}/disable_ipv6`, '1', []);
  }
  route.setLink(index, { mtu, txQueueLen: TX_QUEUE_FRAMES, up: true });
  const foreign = target.kind !== 'new';
  if (ipv4 !== undefined) addDefaultRoute(route, index, 4, ipv4, mac, foreign, notes);
  if (ipv6 === undefined) return;
  try {
    addDefaultRoute(route, index, 6, ipv6, mac, foreign, notes);
  } catch (error) {
    // IPv6 may be disabled in a namespace of another program: go on with IPv4 alone.
    if (ipv4 === undefined || !(error instanceof SysError)) throw error;
    notes.push(`no IPv6 inside: ${error.message}`);
  }
}

/**
 * Add the address, the default route and neighbour entries.
 * @param foreign  another program made the namespace, which may have a default route already
 */
function addDefaultRoute(
  route: RouteSocket,
  index: number,
  family: 4 | 6,
  plan: Pick<Ipv4Plan, 'guest' | 'prefixLen' | 'gateway' | 'dns'>,
  mac: string,
  foreign: boolean,
  notes: string[],
): void {
  const { guest, prefixLen, gateway, dns } = plan;
  route.addAddress(index, family, guest, prefixLen, { nodad: true });
  // The kernel accepts a gateway only if a route to it exists. An IPv6 link-local gateway needs none.
  const reachable = samePrefix(gateway, guest, prefixLen) || (family === 6 && isLinkLocal(gateway));
  if (!reachable) {
    route.addRoute({ family, dst: gateway, prefixLen: family === 4 ? 32 : 128, oif: index });
  }
  const preferred = foreign ? preferredMetric(route, family) : undefined;
  if (preferred !== undefined) {
    notes.push(`the namespace has an IPv${family} default route: it stays, and ours goes in front of it`);
  }
  route.addRoute({
    family,
    dst: family === 4 ? '0.0.0.0' : '::',
    prefixLen: 0,
    gateway,
    oif: index,
    ...(preferred !== undefined && { priority: preferred }),
  });
  const onLink = dns !== undefined && samePrefix(dns, guest, prefixLen) ? [gateway, dns] : [gateway];
  addNeighbourEntries(route, index, family, onLink, mac);
}

/**
 * The metric for a default route that has precedence over the existing ones. With an equal metric, Linux
 * would merge two IPv6 routes into one with two next hops, and send a part of the connections through each.
 * Of two IPv4 routes with equal metric, the newest has precedence.
 * @returns undefined if there is no default route
 */
function preferredMetric(route: RouteSocket, family: 4 | 6): number | undefined {
  const metrics = route
    .routes()
    .filter(
      (r) => r.family === family && r.table === RT_TABLE_MAIN && r.type === RTN_UNICAST && r.prefixLen === 0,
    )
    .map((r) => r.priority);
  if (metrics.length === 0) return undefined;
  return Math.max(Math.min(...metrics) - 1, family === 4 ? 0 : 1);
}

/**
 * Read the network of the calling thread's namespace. If no interface has IPv6, IPv6 is still available on
 * request: connections get an "unreachable" error, and published ports work on addresses that the host gets
 * later.
 */
function readHostNetwork(settings: Settings): HostNetwork {
  const asked = settings.ipv6 && (settings.address6 !== undefined || !settings.ipv4);
  const route = new RouteSocket();
  try {
    const ipv6 = hasIpv6() || (asked && kernelHasIpv6());
    return readNetwork(route, route.links(), ipv6, settings.outboundInterface);
  } finally {
    route.close();
  }
}

/**
 * Read the host's network by a socket.
 * @param bound  the interface that all sockets will be bound to, undefined: any
 */
export function readNetwork(
  host: RouteSocket,
  links: ReturnType<RouteSocket['links']>,
  ipv6: boolean,
  bound: string | undefined,
): HostNetwork {
  const chosen = chosenRoutes(host, links, { 4: bound, 6: bound });
  return { ...hostNetwork(links, host.addresses(), host.routes(), ipv6), chosen };
}

/** Convert netlink's dumps into the input of the address plan. */
export function hostNetwork(
  links: ReturnType<RouteSocket['links']>,
  addresses: ReturnType<RouteSocket['addresses']>,
  routes: ReturnType<RouteSocket['routes']>,
  ipv6: boolean,
): HostNetwork {
  const unusable = IFA_F_DEPRECATED | IFA_F_TENTATIVE;
  return {
    links,
    addresses: addresses.map((a) => ({
      family: a.family,
      linkIndex: a.index,
      address: a.address,
      prefixLen: a.prefixLen,
      // For IPv4 the same bit means IFA_F_SECONDARY, and such an address is as usable as any other.
      usable:
        a.scope < RT_SCOPE_LINK &&
        (a.flags & unusable) === 0 &&
        (a.family !== 6 || (a.flags & IFA_F_TEMPORARY) === 0),
    })),
    routes: routes.flatMap((r) => {
      const hop = r.hops?.[0];
      const linkIndex = r.oif ?? hop?.oif;
      if (r.table !== RT_TABLE_MAIN || r.type !== RTN_UNICAST || linkIndex === undefined) return [];
      const gateway = r.gateway ?? hop?.gateway;
      return [
        {
          family: r.family,
          linkIndex,
          destination: r.dst,
          prefixLen: r.prefixLen,
          metric: r.priority,
          // An IPv4 guest cannot use an IPv6 gateway of an IPv4 route (RFC 5549).
          ...(gateway !== undefined && gateway.includes(':') === (r.family === 6) && { gateway }),
        },
      ];
    }),
    hasIpv6: ipv6,
  };
}

/** Whether an interface has IPv6: every IPv6 address has a line in that file, also loopback's ::1. */
export function hasIpv6(): boolean {
  try {
    return readFileSync('/proc/net/if_inet6', 'utf8') !== '';
  } catch {
    return false;
  }
}

function setIfDifferent(path: string, value: string, notes: string[]): void {
  try {
    if (readFileSync(`/proc/sys/${path}`, 'utf8').trim() === value) return;
  } catch {
    return; // this kernel does not have the sysctl
  }
  trySysctl(path, value, notes);
}
