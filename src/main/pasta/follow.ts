/**
 * What a change of the host's network means to `pasta` (decision 060):
 *
 *   engine    the interface behind link-local destinations, the host's address behind --map-guest-addr, sources of UDP flows, DHCPv4
 *             where it was off for want of a gateway
 *   inside    with --config-net, and once: an address or a default route that a family lacked at the start, because the host did
 *
 * Nothing inside is ever taken away or replaced: connections of the guest's hang on its addresses, and
 * whatever those are, sockets leave by the host's of the moment.
 */
import { RT_SCOPE_LINK, RT_TABLE_MAIN, RTN_UNICAST } from '../../sys/constants.ts';
import { SysError } from '../../sys/error.ts';
import { RouteSocket } from '../../sys/netlink.ts';
import type { AddressInfo, LinkInfo, RouteInfo } from '../../sys/netlink-messages.ts';
import type { EngineHandle } from '../../workers/engine.ts';
import type { HostChange } from '../../workers/engine-plan.ts';
import type { Family } from '../cli/values.ts';
import type { Following } from '../host/follow.ts';
import type { Log } from '../host/log.ts';
import { readResolvConf } from '../host/resolv-conf.ts';
import { type HostDump, type InsideNetwork, type PastaNetwork, planPasta } from './address-plan.ts';
import type { PastaConf } from './conf.ts';
import { addNetwork } from './netns-setup.ts';

/** What a family lacks inside. */
export interface MissingConfig {
  readonly family: Family;
  address: boolean;
  route: boolean;
}

/** What the plan of the start could not give. */
export function missingConfig({ inside, addresses }: PastaNetwork): MissingConfig[] {
  const lacks: MissingConfig[] = [];
  for (const family of [4, 6] as const) {
    if ((family === 4 ? addresses.ipv4 : addresses.ipv6) === undefined) continue;
    const address = !inside.addresses.some((a) => a.family === family);
    const route = !hasDefault(inside.routes, family) && !inside.gateways.some((g) => g.family === family);
    if (address || route) lacks.push({ family, address, route });
  }
  return lacks;
}

const hasDefault = (routes: readonly RouteInfo[], family: Family): boolean =>
  routes.some(
    (r) => r.family === family && r.prefixLen === 0 && r.table === RT_TABLE_MAIN && r.type === RTN_UNICAST,
  );

/**
 * What of a new plan is to be added for a family.
 * @param lack  updated: what the guest has got meanwhile, from here or of itself, it lacks no more
 */
export function additions(
  lack: MissingConfig,
  plan: InsideNetwork,
  now: { readonly addresses: readonly AddressInfo[]; readonly routes: readonly RouteInfo[] },
): InsideNetwork {
  const { family } = lack;
  if (now.addresses.some((a) => a.family === family && a.scope < RT_SCOPE_LINK)) lack.address = false;
  if (hasDefault(now.routes, family)) lack.route = false;
  const routes = plan.routes.filter((r) => r.family === family);
  const gateways = plan.gateways.filter((g) => g.family === family);
  const hasRoute = gateways.length > 0 || hasDefault(routes, family);
  return {
    addresses: lack.address ? plan.addresses.filter((a) => a.family === family) : [],
    routes: lack.route && hasRoute ? routes : [],
    gateways: lack.route ? gateways : [],
  };
}

/**
 * What the engine has to know. The host's address behind the mapping stays the guest's own for as long as the
 * host has it.
 */
export function engineChange(
  conf: PastaConf,
  start: PastaNetwork,
  host: HostDump,
  now: PastaNetwork,
): HostChange {
  const self = (chosen: string | undefined, was: string | undefined, best: string | undefined) => {
    if (chosen !== undefined) return undefined;
    return was !== undefined && host.addresses.some((a) => a.address === was) ? was : best;
  };
  const self4 = self(conf.address4, start.addresses.ipv4?.guest, now.templates.address4);
  const self6 = self(conf.address6, start.addresses.ipv6?.guest, now.templates.address6);
  const scope = now.addresses.ipv6?.linkLocalScope;
  const gateway =
    conf.dhcp && !start.hasGateway4 && now.hasGateway4 ? now.addresses.ipv4?.gateway : undefined;
  return {
    ...(gateway !== undefined && { dhcpGateway: gateway }),
    ...(scope !== undefined && { linkLocalScope: scope }),
    ...(self4 !== undefined && { self4 }),
    ...(self6 !== undefined && { self6 }),
  };
}

export interface PastaFollowing {
  readonly conf: PastaConf;
  readonly start: PastaNetwork;
  readonly engine: EngineHandle;
  readonly log: Log;
  /**
   * The namespace's own netlink socket, which nobody else uses any more; absent: nothing inside is touched.
   */
  readonly inside?: { readonly fd: number; readonly linkIndex: number } | undefined;
}

/** Call it while resolv.conf can be read. */
export function following({ conf, start, engine, log, inside }: PastaFollowing): Following {
  let lacks = inside === undefined ? [] : missingConfig(start);
  const target = inside === undefined || lacks.length === 0 ? undefined : new RouteSocket(inside.fd);
  const resolvConf = readResolvConf(); // not to be had later, and only names of the first plan hang on it
  const hostChanged = (host: RouteSocket, links: LinkInfo[]): void => {
    const addresses = host.addresses();
    const dump: HostDump = {
      ...{ links, addresses, routes: host.routes() },
      // The kernel has the family, or an interface could not have got an address of it since.
      hasIpv6: start.addresses.ipv6 !== undefined || addresses.some((a) => a.family === 6),
    };
    if (conf.interface !== undefined && !links.some((l) => l.name === conf.interface)) {
      engine.hostChanged({});
      return;
    }
    if (!conf.ipv4 && !dump.hasIpv6) return;
    const now = planPasta(conf, dump, resolvConf);
    engine.hostChanged(engineChange(conf, start, dump, now));
    if (target === undefined || inside === undefined || lacks.length === 0) return;
    try {
      lacks = lacks.filter((lack) => give(lack, target, inside.linkIndex, now, log));
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      // What the guest has made of its interface may forbid it; the next change is another chance.
      log('warning', `the host's network has come, but not into the namespace: ${error.message}`);
    }
  };
  return {
    nameservers: start.nameservers,
    resolvers: start.addresses.resolvers,
    followsFile: true,
    boundInterfaces: [conf.outboundIf4, conf.outboundIf6],
    hostChanged,
    configuresNetwork: target !== undefined,
  };
}

/** @returns whether the family still lacks something */
function give(lack: MissingConfig, target: RouteSocket, index: number, now: PastaNetwork, log: Log): boolean {
  const before = () => ({
    addresses: target.addresses().filter((a) => a.index === index),
    routes: target.routes(),
  });
  const added = additions(lack, now.inside, before());
  if (added.addresses.length + added.routes.length + added.gateways.length > 0) {
    addNetwork(target, index, lack.family, added);
    const texts = [
      ...added.addresses.map((a) => `${a.address}/${a.prefixLen}`),
      ...(added.routes.length + added.gateways.length > 0 ? ['default route'] : []),
    ];
    log('info', `the host's network has come, added inside: ${texts.join(', ')}`);
    additions(lack, now.inside, before());
  }
  return lack.address || lack.route;
}
