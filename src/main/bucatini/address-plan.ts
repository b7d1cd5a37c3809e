/**
 * The address plan of `bucatini run` and `bucatini attach`: addresses, routes and resolvers of the namespace.
 * Pure: the host's network comes in as data.
 *
 * Per family, the *template* is the host interface that connections will leave through: --outbound-interface,
 * else the one that the kernel takes to a public address (host/chosen-route.ts), else the interface of the
 * default route with the lowest metric, else the first interface that is up and has an address and a route. The
 * namespace gets the template's address, prefix length and gateway, so that programs inside show the address
 * that the outside sees. Nothing on the wire depends on it: every connection
 * is a socket of the host.
 *
 * Without a template (local mode) the namespace gets our own addresses below, and always a default route. So
 * if the host gets its network later, the namespace works at once; until then programs get a correct
 * "unreachable" error.
 *
 *            guest                  gateway              forwards DNS
 *   IPv4     169.254.2.1/16         169.254.2.2          169.254.1.1
 *   IPv6     fd9a:559a:559a::2/64   fe80::1              fd9a:559a:559a::53
 */
import type { AddressPlan, Ipv4Plan, Ipv6Plan } from '../../workers/engine-plan.ts';
import { type Family, UsageError } from '../cli/values.ts';
import type { ChosenRoutes } from '../host/chosen-route.ts';
import { isLinkLocal, samePrefix } from '../host/prefix.ts';
import type { ResolvConf } from '../host/resolv-conf.ts';
import { withIndexes } from '../host/resolver-zones.ts';
import type { Settings } from './options.ts';

/** MAC address of the gateway and the DNS forwarder, that is, of the engine. */
export const OUR_MAC = '9a:55:9a:55:9a:55';
/** Addresses in local mode. */
export const LOCAL4 = { guest: '169.254.2.1', prefixLen: 16, gateway: '169.254.2.2' } as const;
export const LOCAL6 = { guest: 'fd9a:559a:559a::2', prefixLen: 64, gateway: 'fe80::1' } as const;
const DNS4 = '169.254.1.1';
export const DNS6 = 'fd9a:559a:559a::53';

/** The host's network, both families: the part of netlink's dumps that is used here. */
export interface HostNetwork {
  readonly links: readonly {
    readonly index: number;
    readonly name: string;
    readonly up: boolean;
    readonly loopback: boolean;
  }[];
  readonly addresses: readonly HostAddress[];
  readonly routes: readonly HostRoute[];
  /** The routes to the internet, with --outbound-interface for sockets that are bound to it. */
  readonly chosen?: ChosenRoutes;
  /** False when the kernel has no IPv6, or it is switched off everywhere. */
  readonly hasIpv6: boolean;
}

/** An address of a host interface. */
export interface HostAddress {
  readonly family: Family;
  readonly linkIndex: number;
  readonly address: string;
  readonly prefixLen: number;
  /** The scope is universe or site, and the address is not deprecated, temporary or tentative. */
  readonly usable: boolean;
}

/** A unicast route of the main table; those of other tables count as `chosen` only. */
export interface HostRoute {
  readonly family: Family;
  readonly linkIndex: number;
  readonly destination: string;
  readonly prefixLen: number;
  readonly gateway?: string;
  readonly metric: number;
}

/** The host interface whose addresses the namespace gets. */
export interface Template {
  readonly linkName: string;
  readonly linkIndex: number;
  readonly address: string;
  readonly prefixLen: number;
  readonly gateway?: string;
}

/** The plan for a namespace. */
export interface PlannedNetwork {
  readonly addresses: AddressPlan;
  /** AddressPlan.resolvers as the user or resolv.conf wrote them, with zones as interface names. */
  readonly nameservers: readonly string[];
  readonly interfaceName: string;
  /** One line for people, at log level info. */
  readonly summary: string;
}

/**
 * Make the plan.
 * @param settings  the command line
 * @param host      the host's network as it is now
 * @param resolv    the host's resolv.conf; undefined if it has none
 * @throws UsageError if this host cannot do what an option asks for
 */
export function planNetwork(
  settings: Settings,
  host: HostNetwork,
  resolv: ResolvConf | undefined,
): PlannedNetwork {
  const outbound = settings.outboundInterface;
  if (outbound !== undefined && !host.links.some((link) => link.name === outbound)) {
    const names = host.links.filter((l) => !l.loopback).map((l) => l.name);
    throw new UsageError(
      `--outbound-interface ${outbound}: no such interface; write one of ${names.join(', ') || '(this host has none)'}`,
    );
  }
  if (settings.ipv6 && !settings.ipv4 && !host.hasIpv6) {
    throw new UsageError(
      '--ipv6-only: this host has no IPv6; leave it out, or switch IPv6 on (net.ipv6.conf.all.disable_ipv6)',
    );
  }
  const template4 = settings.ipv4 ? findTemplate(host, 4, outbound) : undefined;
  const template6 = settings.ipv6 && host.hasIpv6 ? findTemplate(host, 6, outbound) : undefined;
  const nameservers = settings.dns ?? resolv?.nameservers ?? [];
  const offeredDns = forwarders(settings);
  const forwardsDns = offeredDns.length > 0;
  const ipv4 = settings.ipv4 ? planIpv4(settings, template4, forwardsDns) : undefined;
  const ipv6 = settings.ipv6 && host.hasIpv6 ? planIpv6(settings, template6, forwardsDns) : undefined;
  return {
    addresses: {
      mtu: settings.mtu,
      mac: OUR_MAC,
      ...(ipv4 && { ipv4 }),
      ...(ipv6 && { ipv6 }),
      resolvers: withIndexes(nameservers, host.links),
      offeredDns,
      searchDomains: resolv?.search ?? [],
    },
    nameservers,
    interfaceName: settings.interfaceName ?? template4?.linkName ?? template6?.linkName ?? 'tap0',
    summary: summary(ipv4, ipv6, offeredDns),
  };
}

/**
 * The nameservers in the namespace's resolv.conf. One is enough: it forwards to the host's resolvers over
 * either family.
 * @returns an empty list with --dns none
 */
export function forwarders(settings: Settings): readonly string[] {
  if (settings.dns?.length === 0) return [];
  return [settings.ipv4 ? DNS4 : DNS6];
}

/**
 * The host interface that connections of a family leave through.
 * @param outbound  name of the only permitted interface; undefined: any
 * @returns undefined if no interface has a usable address and a route
 */
export function findTemplate(host: HostNetwork, family: Family, outbound?: string): Template | undefined {
  const chosen = chosenTemplate(host, family);
  if (chosen !== undefined) return chosen;
  const routes = host.routes.filter((route) => {
    const link = host.links.find((l) => l.index === route.linkIndex);
    if (route.family !== family || link === undefined || link.loopback) return false;
    return outbound === undefined || link.name === outbound;
  });
  const defaults = routes.filter((route) => route.prefixLen === 0).sort((a, b) => a.metric - b.metric);
  const others = routes.filter((route) => route.prefixLen > 0 && !isLinkLocal(route.destination));
  for (const route of [...defaults, ...others]) {
    const link = host.links.find((l) => l.index === route.linkIndex)!;
    const address = addressOf(host, family, link.index);
    if (!link.up || address === undefined) continue;
    return template(link, address, route.prefixLen === 0 ? route.gateway : undefined);
  }
  return undefined;
}

/**
 * The template of the route that the kernel takes to the internet. With a socket bound to a VRF it leaves by
 * one of the VRF's interfaces.
 */
function chosenTemplate(host: HostNetwork, family: Family): Template | undefined {
  const chosen = host.chosen?.[family];
  const link = host.links.find((l) => l.index === chosen?.linkIndex);
  if (chosen === undefined || link === undefined || link.loopback || !link.up) return undefined;
  const address = addressOf(host, family, link.index, chosen.source);
  return address && template(link, address, chosen.gateway);
}

function template(link: HostNetwork['links'][number], address: HostAddress, gateway?: string): Template {
  return {
    linkName: link.name,
    linkIndex: link.index,
    address: address.address,
    prefixLen: address.prefixLen,
    ...(gateway !== undefined && { gateway }),
  };
}

/**
 * The address that a host interface lends to the namespace.
 * @param source  the kernel's own choice, which counts if it is usable; a temporary one (RFC 8981) is not, and
 *   the usable address of its prefix has its place
 */
function addressOf(
  host: HostNetwork,
  family: Family,
  linkIndex: number,
  source?: string,
): HostAddress | undefined {
  const usable = host.addresses.filter((a) => a.family === family && a.usable);
  // The source may be on another interface: a router's own address on lo, for an interface without address.
  const own = usable.find((a) => a.address === source);
  if (own !== undefined) return own;
  const ofLink = usable.filter((a) => a.linkIndex === linkIndex);
  if (source !== undefined) {
    const beside = ofLink.find((a) => samePrefix(a.address, source, a.prefixLen));
    if (beside !== undefined) return beside;
  }
  // The longest prefix says most precisely which network this host is in. Among equal ones the first is the
  // primary address.
  return ofLink.sort((a, b) => b.prefixLen - a.prefixLen)[0];
}

function planIpv4(settings: Settings, template: Template | undefined, forwardsDns: boolean): Ipv4Plan {
  const chosen = settings.address4;
  const guest = chosen?.address ?? template?.address ?? LOCAL4.guest;
  const gateway = settings.gateway4 ?? template?.gateway ?? LOCAL4.gateway;
  refuseEqual(guest, gateway);
  const hostLoopback =
    settings.hostLoopback4 ?? (settings.hostLoopbackGateway === true ? gateway : undefined);
  return {
    guest,
    prefixLen: chosen !== undefined ? (chosen.prefixLen ?? 24) : (template?.prefixLen ?? LOCAL4.prefixLen),
    gateway,
    ...(hostLoopback !== undefined && { hostLoopback }),
    ...(forwardsDns && { dns: DNS4 }),
  };
}

function planIpv6(settings: Settings, template: Template | undefined, forwardsDns: boolean): Ipv6Plan {
  const chosen = settings.address6;
  const guest = chosen?.address ?? template?.address ?? LOCAL6.guest;
  const gateway = settings.gateway6 ?? template?.gateway ?? LOCAL6.gateway;
  refuseEqual(guest, gateway);
  const hostLoopback =
    settings.hostLoopback6 ?? (settings.hostLoopbackGateway === true ? gateway : undefined);
  return {
    guest,
    prefixLen: chosen !== undefined ? (chosen.prefixLen ?? 64) : (template?.prefixLen ?? LOCAL6.prefixLen),
    gateway,
    // Router advertisements are sent from a link-local address: the gateway's, if it is link-local.
    linkLocal: isLinkLocal(gateway) ? gateway : LOCAL6.gateway,
    ...(template !== undefined && { linkLocalScope: template.linkIndex }),
    ...(hostLoopback !== undefined && { hostLoopback }),
    ...(forwardsDns && { dns: DNS6 }),
  };
}

function refuseEqual(guest: string, gateway: string): void {
  if (guest !== gateway) return;
  throw new UsageError(
    `--address ${guest}: is also the gateway's address; add --gateway with another address`,
  );
}

function summary(ipv4: Ipv4Plan | undefined, ipv6: Ipv6Plan | undefined, dns: readonly string[]): string {
  const families = [ipv4, ipv6].flatMap((f) => (f ? [`${f.guest}/${f.prefixLen} via ${f.gateway}`] : []));
  return `${families.join(', ')}, DNS ${dns.join(', ') || 'not forwarded'}`;
}
