/**
 * What `pasta` changes when the host's network changes (decision 060):
 *
 *   engine    the interface for link-local destinations, the host's address for --map-guest-addr, source
 *             addresses of UDP flows, the DHCPv4 server where it was off because there was no gateway
 *   inside    with --config-net, and once: an address or a default route that a family lacked at the start,
 *             because the host lacked it
 *
 * Nothing inside is removed or replaced: the guest's connections depend on its addresses, and host sockets
 * use the host's current addresses whatever the guest's are.
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
import { addNetwork, dumpNetwork } from './netns-setup.ts';

/** What a family lacks inside: a global address, a default route. */
export interface MissingConfig {
  readonly family: Family;
  address: boolean;
  route: boolean;
}

/** @returns each family that has no address or no default route in the plan of the start */
export function missingConfig({ inside, addresses }: PastaNetwork): MissingConfig[] {
  const families: MissingConfig[] = [];
  for (const family of [4, 6] as const) {
    if ((family === 4 ? addresses.ipv4 : addresses.ipv6) === undefined) continue;
    const address = !inside.addresses.some((a) => a.family === family);
    const route = !hasDefault(inside.routes, family) && !inside.gateways.some((g) => g.family === family);
    if (address || route) families.push({ family, address, route });
  }
  return families;
}

/** Whether there is a default route of this family in the main table. */
const hasDefault = (routes: readonly RouteInfo[], family: Family): boolean =>
  routes.some(
    (r) => r.family === family && r.prefixLen === 0 && r.table === RT_TABLE_MAIN && r.type === RTN_UNICAST,
  );

/**
 * What to add inside for a family.
 * @param missing  updated: what the guest has by now, from us or by its own configuration, is not missing
 * @param plan     the network inside of a plan made from the host's current network
 * @param now      addresses and routes that are inside now
 */
export function lateConfig(
  missing: MissingConfig,
  plan: InsideNetwork,
  now: { readonly addresses: readonly AddressInfo[]; readonly routes: readonly RouteInfo[] },
): InsideNetwork {
  const { family } = missing;
  if (now.addresses.some((a) => a.family === family && a.scope < RT_SCOPE_LINK)) missing.address = false;
  if (hasDefault(now.routes, family)) missing.route = false;
  const routes = plan.routes.filter((r) => r.family === family);
  const gateways = plan.gateways.filter((g) => g.family === family);
  const hasRoute = gateways.length > 0 || hasDefault(routes, family);
  return {
    addresses: missing.address ? plan.addresses.filter((a) => a.family === family) : [],
    routes: missing.route && hasRoute ? routes : [],
    gateways: missing.route ? gateways : [],
  };
}

/**
 * What the engine has to change. --map-guest-addr maps to the host address that the guest's was copied from,
 * for as long as the host has that address.
 * @param start  the plan of the start
 * @param now    the plan that `host` gives
 */
export function engineChange(
  conf: PastaConf,
  start: PastaNetwork,
  host: HostDump,
  now: PastaNetwork,
): HostChange {
  const mappedAddress = (chosen: string | undefined, was: string | undefined, best: string | undefined) => {
    if (chosen !== undefined) return undefined;
    return was !== undefined && host.addresses.some((a) => a.address === was) ? was : best;
  };
  const self4 = mappedAddress(conf.address4, start.addresses.ipv4?.guest, now.templates.address4);
  const self6 = mappedAddress(conf.address6, start.addresses.ipv6?.guest, now.templates.address6);
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

/** What following the host's network needs. */
export interface PastaFollowing {
  readonly conf: PastaConf;
  readonly start: PastaNetwork;
  readonly engine: EngineHandle;
  readonly log: Log;
  /**
   * The netlink socket of the namespace, for this module alone; absent: nothing inside is changed.
   */
  readonly inside?: { readonly fd: number; readonly linkIndex: number } | undefined;
}

/** What followHost needs to know about `pasta`. Call it before the sandbox, while resolv.conf can be read. */
export function following({ conf, start, engine, log, inside }: PastaFollowing): Following {
  let stillMissing = inside === undefined ? [] : missingConfig(start);
  const target = inside === undefined || stillMissing.length === 0 ? undefined : new RouteSocket(inside.fd);
  // Read now: the sandbox hides the file. It affects only names, which later plans do not change.
  const resolvConf = readResolvConf();
  const hostChanged = (host: RouteSocket, links: LinkInfo[]): void => {
    const addresses = host.addresses();
    // An IPv6 address shows that the kernel supports IPv6.
    const hasIpv6 = start.addresses.ipv6 !== undefined || addresses.some((a) => a.family === 6);
    const dump = dumpNetwork(conf, host, links, addresses, hasIpv6);
    if (conf.interface !== undefined && !links.some((l) => l.name === conf.interface)) {
      engine.hostChanged({});
      return;
    }
    if (!conf.ipv4 && !dump.hasIpv6) return;
    const now = planPasta(conf, dump, resolvConf);
    engine.hostChanged(engineChange(conf, start, dump, now));
    if (target === undefined || inside === undefined || stillMissing.length === 0) return;
    try {
      stillMissing = stillMissing.filter((missing) =>
        addMissing(missing, target, inside.linkIndex, now, log),
      );
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      // The guest may have changed its interface so that the kernel refuses. The next change tries again.
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

/** Add inside what is missing and now known. @returns whether something is still missing */
function addMissing(
  missing: MissingConfig,
  target: RouteSocket,
  index: number,
  now: PastaNetwork,
  log: Log,
): boolean {
  const before = () => ({
    addresses: target.addresses().filter((a) => a.index === index),
    routes: target.routes(),
  });
  const added = lateConfig(missing, now.inside, before());
  if (added.addresses.length + added.routes.length + added.gateways.length > 0) {
    addNetwork(target, index, missing.family, added);
    const texts = [
      ...added.addresses.map((a) => `${a.address}/${a.prefixLen}`),
      ...(added.routes.length + added.gateways.length > 0 ? ['default route'] : []),
    ];
    log('info', `the host's network has come, added inside: ${texts.join(', ')}`);
    lateConfig(missing, now.inside, before());
  }
  return missing.address || missing.route;
}
