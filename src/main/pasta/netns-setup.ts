/**
 * How `pasta` sets up the interface of a namespace. The main thread does it all: the one packet thread
 * that starts with the engine has been started before (../host/netns.ts).
 *
 *   in the host's namespace   dump links, addresses, routes; make the plan
 *   unshare or setns          only the main thread moves
 *   in the target             loopback up, TAP made; with --config-net also: MAC, MTU, up, addresses, routes
 *                             (--splice-only: only loopback up; --fd: the TAP is the caller's, and is
 *                             configured if it is in this namespace)
 *
 * The interface has IFF_NOARP while it comes up: the kernel then assigns the link-local address without
 * duplicate address detection (RFC 4862 section 5.4), so that the address is usable at once. The flag needs
 * no write to /proc/sys, which is read-only in many containers.
 */
import { Errno, RT_SCOPE_LINK } from '../../sys/constants.ts';
import { checked, SysError } from '../../sys/error.ts';
import { adoptFrameSocket } from '../../sys/frame-socket.ts';
import { strerror } from '../../sys/libc.ts';
import { RouteSocket } from '../../sys/netlink.ts';
import type { AddressInfo, LinkInfo } from '../../sys/netlink-messages.ts';
import { openPath } from '../../sys/path.ts';
import { attachTap, tapIsHere } from '../../sys/tap.ts';
import type { TapPlan } from '../../workers/engine-plan.ts';
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
import { readResolvConf } from '../host/resolv-conf.ts';
import { makeTap, tapPlan, withoutQdiscs } from '../host/tap-queues.ts';
import type { TapQueues } from '../host/threads.ts';
import {
  type HostDump,
  type InsideNetwork,
  type PastaNetwork,
  planPasta,
  planSpliceOnly,
  templateName,
} from './address-plan.ts';
import type { PastaConf } from './conf.ts';
import { Message } from './messages.ts';
import { openTables, type TableFds } from './port-scan.ts';

/** What the set-up gets. */
export interface PastaJob extends SocketsInside {
  readonly conf: PastaConf;
  readonly tapQueues: TapQueues;
  readonly target: NetnsTarget;
}

/** What the set-up gives to the main thread, at the step "tap". */
export interface PastaTap {
  /** /proc/net tables of the host's namespace. */
  readonly hostTables: TableFds;
  /** /proc/net tables of the namespace inside. */
  readonly tables: TableFds;
  /** Absent with --splice-only. */
  readonly tap?: TapPlan;
  readonly network: PastaNetwork;
  /**
   * With --config-net: the netlink socket of the namespace. follow.ts uses it, after the step "configured".
   */
  readonly inside?: { readonly fd: number; readonly linkIndex: number };
}

/**
 * Set up the namespace, step by step: the caller does other work at each `yield`.
 * @throws SysError or UsageError
 */
export function* setUpPasta({
  conf,
  target,
  tapQueues,
}: PastaJob): Generator<NetnsStep<PastaTap>, void, void> {
  const notes: string[] = [];
  const given = conf.fd === undefined ? undefined : adoptFrames(conf.fd);
  const hostTables = openTables();
  const network = conf.spliceOnly
    ? planSpliceOnly(conf, dumpHost(conf))
    : planPasta(given ? { ...conf, nsIfname: given.name } : conf, dumpHost(conf), readResolvConf());
  try {
    enterNamespace(target);
  } catch (error) {
    if (target.kind === 'path' && error instanceof SysError)
      throw Object.assign(new UsageError(Message.noNetns(target.path, strerror(error.errno))), {
        code: error.code,
      });
    throw error;
  }
  if (target.kind === 'new') {
    const own = '/proc/thread-self/ns/net';
    yield { kind: 'namespace', fd: checked(openPath(own, 0), 'open', own, 'mount /proc') };
  }
  const route = new RouteSocket();
  if (conf.spliceOnly) {
    try {
      loopbackUp(route);
    } finally {
      route.close();
    }
    yield { kind: 'tap', made: { hostTables, tables: openTables(), network } };
    yield { kind: 'configured', notes };
    return;
  }
  let configures = conf.configNet;
  try {
    const { name, tap } = given ?? makeFrames(route, network.interfaceName, tapQueues, target);
    const isHere = given === undefined || (tap.socket === undefined && tapIsHere(tap.fd));
    const link = isHere ? route.linkByName(name) : undefined;
    if (link === undefined && isHere) throw new SysError('RTM_GETLINK', name, Errno.ENODEV);
    if (link === undefined) configures = false;
    else if (conf.nsMac !== undefined) route.setLink(link.index, { mac: conf.nsMac });
    const guestMac = conf.nsMac ?? link?.mac;
    yield {
      kind: 'tap',
      made: {
        ...{ hostTables, tables: openTables() },
        tap,
        network: {
          ...network,
          addresses: { ...network.addresses, ...(guestMac !== undefined && { guestMac }) },
          warnings: [
            ...network.warnings,
            ...(given ? warningsWithFd(conf, given.name, link !== undefined) : []),
          ],
        },
        ...(configures && { inside: { fd: route.fd, linkIndex: link!.index } }),
      },
    };
    loopbackUp(route);
    if (given === undefined && tap.moreQueues !== undefined) withoutQdiscs(route, link!.index);
    // Group 0 is the only one in COMMAND's user namespace: it may open ping sockets, so ping needs no
    // privileges.
    if (target.kind === 'new') trySysctl('net/ipv4/ping_group_range', '0 0', notes);
    if (configures) configure(route, link!.index, conf, network);
    else if (given === undefined) route.setLink(link!.index, { txQueueLen: TX_QUEUE_FRAMES });
  } catch (error) {
    route.close();
    throw error;
  }
  if (!configures) route.close();
  yield { kind: 'configured', notes };
}

/** A TAP, or a socket that carries frames, and the name of its interface for messages. */
interface Frames {
  readonly name: string;
  readonly tap: TapPlan;
}

/** Check what the descriptor of --fd is, and prepare it. @throws UsageError or SysError */
function adoptFrames(fd: number): Frames {
  const socket = adoptFrameSocket(fd);
  if (socket === 'stream')
    throw new UsageError(Message.fdUnusable(fd, 'a stream does not keep frames apart; use SOCK_SEQPACKET'));
  if (socket === 'unconnected') throw new UsageError(Message.fdUnusable(fd, 'the socket is not connected'));
  if (socket === 'none') {
    try {
      const tap = attachTap(fd);
      return { name: tap.name, tap: tapPlan({ tap }) };
    } catch (error) {
      if (!(error instanceof SysError) || error.errno === Errno.EINVAL) throw error;
      throw new UsageError(Message.fdUnusable(fd, 'neither a TAP nor a socket'));
    }
  }
  return { name: `fd${fd}`, tap: { fd, vnetHdrBytes: 0, uso: false, socket } };
}

/**
 * A warning for each option that has no effect with --fd.
 * @param isHere the interface is in this namespace
 */
function warningsWithFd(conf: PastaConf, name: string, isHere: boolean): readonly string[] {
  const elsewhere = 'its interface is not in this namespace';
  return [
    ...(conf.nsIfname !== undefined && conf.nsIfname !== name
      ? [Message.notWithFd('--ns-ifname', `frames come by ${name}`)]
      : []),
    ...(conf.configNet && !isHere ? [Message.notWithFd('--config-net', elsewhere)] : []),
    ...(conf.nsMac !== undefined && !isHere ? [Message.notWithFd('--ns-mac-addr', elsewhere)] : []),
  ];
}

function loopbackUp(route: RouteSocket): void {
  const loopback = route.linkByName('lo');
  if (loopback !== undefined && !loopback.up) route.setLink(loopback.index, { up: true });
}

function makeFrames(route: RouteSocket, name: string, queues: TapQueues, target: NetnsTarget): Frames {
  try {
    const made = makeTap(route, name, queues, target.kind === 'new');
    return { name: made.tap.name, tap: tapPlan(made) };
  } catch (error) {
    if (error instanceof SysError && error.code === 'EBUSY') throw new UsageError(Message.tapBusy);
    throw error;
  }
}

/**
 * Configure the interface: MTU, up, addresses, routes, and the gateways' neighbour entries.
 * @throws UsageError or SysError
 */
function configure(route: RouteSocket, index: number, conf: PastaConf, network: PastaNetwork): void {
  const { addresses, gateways, routes } = network.inside;
  const with6 = network.addresses.ipv6 !== undefined;
  const mtu = conf.mtu === 0 ? {} : { mtu: conf.mtu };
  route.setLink(index, { ...mtu, txQueueLen: TX_QUEUE_FRAMES, up: true, ...(with6 && { noarp: true }) });
  for (const family of [4, 6] as const) {
    if (family === 6) {
      if (!with6) continue;
      // Added again with IFA_F_NODAD: no duplicate address detection when the interface goes down and up
      // later.
      for (const a of route.addresses()) {
        if (a.index === index && a.family === family && a.scope === RT_SCOPE_LINK)
          route.addAddress(index, family, a.address, a.prefixLen, { nodad: true, scope: a.scope });
      }
      route.setLink(index, { noarp: false });
    }
    addNetwork(route, index, family, { addresses, gateways, routes });
  }
  // Only after IFF_NOARP is cleared: a change of the flag flushes the neighbour table.
  for (const family of [4, 6] as const) {
    if (family === 6 && !(with6 && conf.ndp)) continue;
    const via = [...gateways, ...routes].map((r) => r.gateway).filter((g) => g !== undefined);
    const ofFamily = via.filter((g) => g.includes(':') === (family === 6));
    addNeighbourEntries(route, index, family, [...new Set(ofFamily)], network.addresses.mac);
  }
}

/**
 * Add the addresses, then the routes of one family.
 * @param index  of the interface
 * @throws UsageError with pasta's message
 */
export function addNetwork(
  route: RouteSocket,
  index: number,
  family: 4 | 6,
  { addresses, gateways, routes }: InsideNetwork,
): void {
  withMessage(Message.addressesFailed, family, () => {
    for (const a of addresses.filter((x) => x.family === family)) {
      const { peer, scope } = a;
      route.addAddress(index, family, a.address, a.prefixLen, {
        nodad: true,
        scope,
        ...(peer !== undefined && { peer }),
      });
    }
  });
  withMessage(Message.routesFailed, family, () => {
    copyRoutes(
      route,
      index,
      routes.filter((r) => r.family === family),
    );
    for (const { gateway, onLink } of gateways.filter((g) => g.family === family)) {
      if (onLink) route.addRoute({ family, dst: gateway, prefixLen: family === 4 ? 32 : 128, oif: index });
      route.addRoute({
        family,
        dst: family === 4 ? '0.0.0.0' : '::',
        prefixLen: 0,
        gateway,
        oif: index,
      });
    }
  });
}

/**
 * Errors of a route that are ignored: it exists already, or its gateway is unreachable (yet, or from these
 * addresses).
 */
const TOLERATED: readonly string[] = ['EEXIST', 'ENETUNREACH', 'EHOSTUNREACH'];

/**
 * Copy routes. A route may need one that comes later in the table, so failed ones are tried again as long as
 * each round adds one.
 */
function copyRoutes(route: RouteSocket, index: number, copies: PastaNetwork['inside']['routes']): void {
  let left = copies;
  for (let before = left.length + 1; left.length < before; ) {
    before = left.length;
    left = left.filter((copy) => {
      try {
        route.copyRoute(copy.raw!, index);
        return false;
      } catch (error) {
        if (!(error instanceof SysError) || !TOLERATED.includes(error.code)) throw error;
        return error.code !== 'EEXIST';
      }
    });
  }
}

/** Run a step. @throws UsageError with pasta's message where a system call fails */
function withMessage(message: (family: 4 | 6, why: string) => string, family: 4 | 6, step: () => void): void {
  try {
    step();
  } catch (error) {
    if (error instanceof SysError) throw new UsageError(message(family, strerror(error.errno)));
    throw error;
  }
}

function dumpHost(conf: PastaConf): HostDump {
  const route = new RouteSocket();
  try {
    return dumpNetwork(conf, route, route.links(), route.addresses(), kernelHasIpv6());
  } finally {
    route.close();
  }
}

/** The host's network; `links` and `addresses` have been read. */
export function dumpNetwork(
  conf: PastaConf,
  host: RouteSocket,
  links: LinkInfo[],
  addresses: AddressInfo[],
  hasIpv6: boolean,
): HostDump {
  const bound = { 4: templateName(conf, 4), 6: templateName(conf, 6) };
  return { links, addresses, routes: host.routes(), chosen: chosenRoutes(host, links, bound), hasIpv6 };
}
