/**
 * The address plan of `pasta`: the namespace gets the addresses and routes of one interface of the host,
 * unless options say otherwise. Pure: the dumps of netlink are arguments.
 *
 * For each family, the template interface is that of --interface, else of --outbound-if4/6, else the one that
 * the kernel takes to a public address (host/chosen-route.ts), else that of the first default route in the main
 * table, else of the first other route in it. The interface must have a global
 * address, and for IPv6 also a link-local one. The global address with the longest prefix becomes the guest's
 * address in the plan; all global addresses and the routes are copied. A family without template is in local
 * mode: it has the addresses below and a default route, so that traffic flows as soon as the host gets a
 * network.
 *
 *               guest             gateway
 *   IPv4        169.254.2.1/16    169.254.2.2
 *   IPv6        (link-local)      fe80::1
 */
import { IFA_F_DEPRECATED, RT_SCOPE_LINK, RT_TABLE_MAIN, RTN_UNICAST } from '../../sys/constants.ts';
import type { AddressInfo, LinkInfo, RouteInfo } from '../../sys/netlink-messages.ts';
import type { AddressPlan, Ipv4Plan, Ipv6Plan } from '../../workers/engine-plan.ts';
import { type Family, UsageError } from '../cli/values.ts';
import type { ChosenRoute, ChosenRoutes } from '../host/chosen-route.ts';
import { isLinkLocal, samePrefix } from '../host/prefix.ts';
import type { ResolvConf } from '../host/resolv-conf.ts';
import { withIndexes } from '../host/resolver-zones.ts';
import type { PastaConf } from './conf.ts';
import { Message } from './messages.ts';

export const LOCAL4 = { guest: '169.254.2.1', prefixLen: 16, gateway: '169.254.2.2' } as const;
export const LOCAL6 = { gateway: 'fe80::1' } as const;
/** MTU of a new Ethernet device, <linux/if_ether.h> ETH_DATA_LEN; with --mtu 0 our interface keeps it. */
const KERNEL_MTU = 1500;
/**
 * Guest address in the plan of a guest without a global IPv6 address: the engine learns its link-local one.
 */
const NO_IPV6_ADDRESS = '::';

/** The state of the host's network, from netlink dumps. */
export interface HostDump {
  readonly links: readonly LinkInfo[];
  readonly addresses: readonly AddressInfo[];
  readonly routes: readonly RouteInfo[];
  /** The routes to the internet, by the template interface if an option names it. */
  readonly chosen?: ChosenRoutes;
  readonly hasIpv6: boolean;
}

/** An address for the interface inside. `scope` is an RT_SCOPE_ constant. */
export interface InsideAddress {
  readonly family: Family;
  readonly address: string;
  readonly prefixLen: number;
  readonly peer?: string;
  readonly scope: number;
}

/** What to configure in the namespace with --config-net. */
export interface InsideNetwork {
  readonly addresses: readonly InsideAddress[];
  /** Routes to copy (as RouteInfo.raw), in the order of the host's table. */
  readonly routes: readonly RouteInfo[];
  /** Default routes of the families whose routes are not copied. */
  readonly gateways: readonly {
    readonly family: Family;
    readonly gateway: string;
    /** The gateway needs a host route of its own: it is in no prefix of the addresses inside. */
    readonly onLink: boolean;
  }[];
}

/** The plan, for the engine, for the set-up of the namespace and for the log. */
export interface PastaNetwork {
  readonly addresses: AddressPlan;
  /** AddressPlan.resolvers as resolv.conf has them: zones are interface names, not indexes. */
  readonly nameservers: readonly string[];
  readonly interfaceName: string;
  readonly inside: InsideNetwork;
  /** Whether the guest has an IPv4 gateway, which DHCP can offer. */
  readonly hasGateway4: boolean;
  /** Best address of each template interface. */
  readonly templates: { readonly address4?: string; readonly address6?: string };
  readonly summary: string;
  readonly info: readonly string[];
  readonly warnings: readonly string[];
}

/** The template interface of a family. */
interface Template {
  readonly link: LinkInfo;
  readonly best: AddressInfo;
  readonly linkLocal?: string;
  readonly gateway?: string;
  /** The main table has no default route by the interface, but another one has: it cannot be copied. */
  readonly isElsewhere: boolean;
}

/**
 * Plan the addresses, the names and the interface inside.
 * @param resolv  the host's resolv.conf; undefined: it could not be read
 * @throws UsageError with pasta's message
 */
export function planPasta(conf: PastaConf, host: HostDump, resolv: ResolvConf | undefined): PastaNetwork {
  const info: string[] = [];
  const warnings: string[] = [];
  checkInterfaces(conf, host, warnings);
  if (conf.ipv6 && !host.hasIpv6) {
    if (!conf.ipv4) throw new UsageError('IPv6 not supported by kernel');
    warnings.push(Message.noIpv6Kernel);
  }
  const with6 = conf.ipv6 && host.hasIpv6;
  const template4 = conf.ipv4 ? findTemplate(conf, host, 4, info) : undefined;
  const template6 = with6 ? findTemplate(conf, host, 6, info) : undefined;
  if (conf.ipv4 && template4 === undefined) info.push(Message.localMode(4));
  if (with6 && template6 === undefined) info.push(Message.localMode(6));

  const nameservers = resolv?.nameservers ?? [];
  const names = planNames(conf, resolv, {
    loopback4: conf.ipv4 ? hostLoopbackOf(conf, 4, template4) : undefined,
    loopback6: with6 ? hostLoopbackOf(conf, 6, template6) : undefined,
  });
  if (names.offered.length === 0 && conf.dns?.length !== 0) warnings.push(Message.noNameservers);

  const ipv4 = conf.ipv4 ? planIpv4(conf, template4, names.forward4) : undefined;
  const ipv6 = with6 ? planIpv6(conf, template6, names.forward6) : undefined;
  const interfaceName = conf.nsIfname ?? template4?.link.name ?? template6?.link.name ?? 'tap0';
  const inside = planInside(conf, host, { template4, template6, ipv4, ipv6 });
  return {
    addresses: {
      mtu: conf.mtu === 0 ? KERNEL_MTU : conf.mtu,
      mac: conf.mac,
      ...(ipv4 && { ipv4 }),
      ...(ipv6 && { ipv6 }),
      resolvers: withIndexes(nameservers, host.links),
      offeredDns: names.offered,
      searchDomains: conf.search ?? resolv?.search ?? [],
    },
    nameservers,
    interfaceName,
    inside,
    hasGateway4: (conf.gateway4 ?? template4?.gateway) !== undefined || template4 === undefined,
    templates: {
      ...(template4 && { address4: template4.best.address }),
      ...(template6 && { address6: template6.best.address }),
    },
    summary: [ipv4, ipv6].flatMap((f) => (f ? [`${f.guest} via ${f.gateway}`] : [])).join(', '),
    info: [...info, ...describe({ interfaceName, template4, template6, ipv4, ipv6, names, conf })],
    warnings,
  };
}

/**
 * The plan with --splice-only: no interface, and nothing inside can be reached except over loopback.
 * @throws UsageError with pasta's message
 */
export function planSpliceOnly(conf: PastaConf, host: HostDump): PastaNetwork {
  const warnings: string[] = [];
  checkInterfaces(conf, host, warnings);
  return {
    addresses: { mtu: KERNEL_MTU, mac: conf.mac, resolvers: [], offeredDns: [], searchDomains: [] },
    nameservers: [],
    interfaceName: '',
    inside: { addresses: [], routes: [], gateways: [] },
    hasGateway4: false,
    templates: {},
    summary: 'loopback only',
    info: [],
    warnings,
  };
}

/**
 * Check that the interfaces that options name exist.
 * @param warnings  gets one for a missing --outbound-if4 or --outbound-if6
 * @throws UsageError for a missing --interface
 */
function checkInterfaces(conf: PastaConf, host: HostDump, warnings: string[]): void {
  for (const name of [conf.interface, conf.outboundIf4, conf.outboundIf6]) {
    if (name === undefined || host.links.some((l) => l.name === name)) continue;
    if (name === conf.interface) throw new UsageError(Message.noSuchInterface(name));
    warnings.push(`No such interface yet: ${name}`);
  }
}

// ---- template -----------------------------------------------------------------------------------------------------

/**
 * Find the template interface of a family.
 * @param info  gets a line when the choice is not clear or there is no usable route
 * @returns undefined in local mode
 */
function findTemplate(conf: PastaConf, host: HostDump, family: Family, info: string[]): Template | undefined {
  const wanted = templateName(conf, family);
  const routes = host.routes.filter((r) => isCandidate(r, host, family));
  const defaults = routes.filter((r) => r.prefixLen === 0);
  if (wanted === undefined && new Set(defaults.map(routeLink)).size > 1)
    info.push(Message.severalDefaults(family));
  const chosen = host.chosen?.[family];
  const byKernel = chosen && templateOf(host, family, chosen.linkIndex, chosen);
  if (byKernel !== undefined) return byKernel;
  let link: LinkInfo | undefined;
  if (wanted !== undefined) {
    link = host.links.find((l) => l.name === wanted);
  } else {
    const route = defaults[0] ?? routes[0];
    link = host.links.find((l) => route !== undefined && l.index === routeLink(route));
    if (route === undefined) info.push(`No interfaces with usable IPv${family} routes`);
  }
  return link && templateOf(host, family, link.index);
}

/** The interface that an option names as the template of a family. */
export const templateName = (conf: PastaConf, family: Family): string | undefined =>
  conf.interface ?? (family === 4 ? conf.outboundIf4 : conf.outboundIf6);

/**
 * The template that an interface is.
 * @param chosen  the kernel's route to the internet, if it leads there
 * @returns undefined when the interface has no usable address
 */
function templateOf(
  host: HostDump,
  family: Family,
  index: number,
  chosen?: ChosenRoute,
): Template | undefined {
  const link = host.links.find((l) => l.index === index);
  if (link === undefined || link.loopback) return undefined;
  const own = host.addresses.filter((a) => a.family === family && a.index === index);
  const linkLocal = own.find((a) => family === 6 && a.scope === RT_SCOPE_LINK)?.address;
  const global = own.filter((a) => a.scope < RT_SCOPE_LINK && (a.flags & IFA_F_DEPRECATED) === 0);
  const longest = global.toSorted((a, b) => b.prefixLen - a.prefixLen)[0];
  if (longest === undefined) return undefined;
  const route = host.routes.find(
    (r) => isCandidate(r, host, family) && r.prefixLen === 0 && routeLink(r) === index,
  );
  // A tunnel has no link-local address: our own one takes its place.
  if (family === 6 && linkLocal === undefined && (chosen === undefined || chosen.isMain)) return undefined;
  const isElsewhere = route === undefined && chosen !== undefined && !chosen.isMain;
  // The original takes the longest prefix; for IPv6 nearly all have 64 bits, so the kernel's choice decides: a
  // global address before a unique local one.
  const source = family === 6 || isElsewhere ? global.find((a) => a.address === chosen?.source) : undefined;
  const local = family === 4 ? LOCAL4.gateway : LOCAL6.gateway;
  const gateway = route ? routeGateway(route, family) : isElsewhere ? (chosen.gateway ?? local) : undefined;
  return {
    link,
    best: source ?? longest,
    ...(linkLocal !== undefined && { linkLocal }),
    ...(gateway !== undefined && { gateway }),
    isElsewhere,
  };
}

const routeLink = (route: RouteInfo): number | undefined => route.oif ?? route.hops?.[0]?.oif;

/** Whether a template can have this route: unicast, in the main table, not link-local, not by loopback. */
function isCandidate(route: RouteInfo, host: HostDump, family: Family): boolean {
  if (route.family !== family || route.table !== RT_TABLE_MAIN || route.type !== RTN_UNICAST) return false;
  if (route.prefixLen > 0 && isLinkLocal(route.dst)) return false;
  const link = host.links.find((l) => l.index === routeLink(route));
  return link !== undefined && !link.loopback;
}

/**
 * The gateway of a route; of a multipath route, that of the hop with the highest weight.
 * @returns undefined without a gateway, and for one of the other family (RFC 5549), which the guest cannot
 *   use
 */
function routeGateway(route: RouteInfo, family: Family): string | undefined {
  const heaviest = [...(route.hops ?? [])].sort((a, b) => b.weight - a.weight)[0];
  const gateway = route.gateway ?? heaviest?.gateway;
  return gateway !== undefined && gateway.includes(':') === (family === 6) ? gateway : undefined;
}

// ---- addresses ----------------------------------------------------------------------------------------------------

/** @param template  undefined in local mode. @returns the guest's gateway; undefined where the template has none */
function gatewayOf(conf: PastaConf, family: Family, template: Template | undefined): string | undefined {
  const chosen = family === 4 ? conf.gateway4 : conf.gateway6;
  if (chosen !== undefined) return chosen;
  if (template !== undefined) return template.gateway;
  return family === 4 ? LOCAL4.gateway : LOCAL6.gateway;
}

/** The address inside that is mapped to the host's loopback; undefined: none. */
function hostLoopbackOf(conf: PastaConf, family: Family, template: Template | undefined): string | undefined {
  const chosen = family === 4 ? conf.mapHostLoopback4 : conf.mapHostLoopback6;
  return chosen ?? (conf.mapGateway ? gatewayOf(conf, family, template) : undefined);
}

function planIpv4(conf: PastaConf, template: Template | undefined, dns: string | undefined): Ipv4Plan {
  const guest = conf.address4 ?? template?.best.address ?? LOCAL4.guest;
  const hostLoopback = hostLoopbackOf(conf, 4, template);
  const fromTemplate = conf.address4 === undefined ? template?.best.prefixLen : undefined;
  const local = conf.address4 === undefined && template === undefined ? LOCAL4.prefixLen : undefined;
  return {
    guest,
    prefixLen: conf.prefixLen4 ?? fromTemplate ?? local ?? classPrefix(guest),
    // Without a gateway the engine still needs an address of its own, which DHCP does not offer.
    gateway: gatewayOf(conf, 4, template) ?? LOCAL4.gateway,
    ...(hostLoopback !== undefined && { hostLoopback }),
    ...(conf.mapGuestAddr4 !== undefined && { mapGuestAddr: conf.mapGuestAddr4 }),
    ...(dns !== undefined && { dns }),
    ...(conf.dnsHost4 !== undefined && { dnsHosts: [conf.dnsHost4] }),
  };
}

function planIpv6(conf: PastaConf, template: Template | undefined, dns: string | undefined): Ipv6Plan {
  const gateway = gatewayOf(conf, 6, template) ?? LOCAL6.gateway;
  const hostLoopback = hostLoopbackOf(conf, 6, template);
  const linkLocal = template?.linkLocal ?? LOCAL6.gateway;
  return {
    guest: conf.address6 ?? template?.best.address ?? NO_IPV6_ADDRESS,
    prefixLen: 64,
    gateway,
    linkLocal: isLinkLocal(gateway) ? gateway : linkLocal,
    ...(template !== undefined && { linkLocalScope: template.link.index }),
    ...(hostLoopback !== undefined && { hostLoopback }),
    ...(conf.mapGuestAddr6 !== undefined && { mapGuestAddr: conf.mapGuestAddr6 }),
    ...(dns !== undefined && { dns }),
    ...(conf.dnsHost6 !== undefined && { dnsHosts: [conf.dnsHost6] }),
  };
}

/** Prefix length of an address of class A, B or C (RFC 791 section 3.2); 32 for others. */
function classPrefix(address: string): number {
  const first = Number(address.slice(0, address.indexOf('.')));
  return first < 128 ? 8 : first < 192 ? 16 : first < 224 ? 24 : 32;
}

// ---- names --------------------------------------------------------------------------------------------------------

interface Names {
  /** Resolvers that DHCP, DHCPv6 and router advertisements offer to the guest. */
  readonly offered: readonly string[];
  readonly forward4?: string;
  readonly forward6?: string;
}

/**
 * Plan which resolvers the guest is offered. The guest cannot reach a resolver on the host's loopback at its
 * own address. It is offered the DNS forwarding address instead, or the address that is mapped to the host's
 * loopback, which then becomes the forwarding address. Without either, the resolver is not offered.
 */
function planNames(
  conf: PastaConf,
  resolv: ResolvConf | undefined,
  loopback: { readonly loopback4: string | undefined; readonly loopback6: string | undefined },
): Names {
  let { dnsForward4: forward4, dnsForward6: forward6 } = conf;
  const offered: string[] = [...(conf.dns ?? [])];
  const isGiven = (v6: boolean): boolean =>
    conf.dns !== undefined && (conf.dns.length === 0 || conf.dns.some((a) => a.includes(':') === v6));
  for (const text of resolv?.nameservers ?? []) {
    const address = text.replace(/%.*$/, '');
    const v6 = address.includes(':');
    if ((v6 ? !conf.ipv6 : !conf.ipv4) || isGiven(v6)) continue;
    const name = v6 ? loopback.loopback6 : loopback.loopback4;
    let offer: string | undefined = address;
    if (address === '::1' || address.startsWith('127.') || address === name) {
      offer = (v6 ? forward6 : forward4) ?? name;
      if (v6) forward6 ??= name;
      else forward4 ??= name;
    }
    if (offer !== undefined && !offered.includes(offer)) offered.push(offer);
  }
  return {
    offered,
    ...(conf.ipv4 && forward4 !== undefined && { forward4 }),
    ...(conf.ipv6 && forward6 !== undefined && { forward6 }),
  };
}

// ---- inside -------------------------------------------------------------------------------------------------------

/** Template interface and engine plan, by family. */
interface Families {
  readonly template4: Template | undefined;
  readonly template6: Template | undefined;
  readonly ipv4: Ipv4Plan | undefined;
  readonly ipv6: Ipv6Plan | undefined;
}

/** Plan what --config-net configures. */
function planInside(conf: PastaConf, host: HostDump, families: Families): InsideNetwork {
  const addresses: InsideAddress[] = [];
  const routes: RouteInfo[] = [];
  const gateways: InsideNetwork['gateways'][number][] = [];
  for (const family of [4, 6] as const) {
    const plan = family === 4 ? families.ipv4 : families.ipv6;
    const template = family === 4 ? families.template4 : families.template6;
    if (plan === undefined) continue;
    const single = family === 4 ? conf.address4 : conf.address6;
    const own: InsideAddress[] = [];
    if (single !== undefined || !conf.copyAddrs || template === undefined) {
      if (plan.guest !== NO_IPV6_ADDRESS)
        own.push({ family, address: plan.guest, prefixLen: plan.prefixLen, scope: 0 });
    } else {
      for (const a of host.addresses) {
        if (a.family !== family || a.index !== template.link.index) continue;
        if (a.scope >= RT_SCOPE_LINK || (a.flags & IFA_F_DEPRECATED) !== 0) continue;
        const { address, prefixLen, peer, scope } = a;
        own.push({ family, address, prefixLen, scope, ...(peer !== undefined && { peer }) });
      }
    }
    addresses.push(...own);
    const chosen = family === 4 ? conf.gateway4 : conf.gateway6;
    if (chosen === undefined && conf.copyRoutes && template !== undefined) {
      routes.push(...host.routes.filter((r) => isOfTemplate(r, family, template.link.index)));
      if (!template.isElsewhere) continue;
    }
    const gateway = gatewayOf(conf, family, template);
    if (gateway === undefined) continue;
    const isLinkLocalGateway = isLinkLocal(gateway) && family === 6;
    const inPrefix = own.some((a) => samePrefix(gateway, a.address, a.prefixLen));
    gateways.push({ family, gateway, onLink: !isLinkLocalGateway && !inPrefix });
  }
  return { addresses, routes, gateways };
}

/** Whether a route is in the main table and each of its hops leaves by the interface with this index. */
function isOfTemplate(route: RouteInfo, family: number, index: number): boolean {
  if (route.family !== family || route.table !== RT_TABLE_MAIN) return false;
  if (route.hops !== undefined) return route.hops.every((hop) => hop.oif === index);
  return route.oif === index;
}

// ---- log output ---------------------------------------------------------------------------------------------------

/** The plan as lines of the log, as passt's pasta prints it. */
function describe(
  all: Families & { readonly interfaceName: string; readonly names: Names; readonly conf: PastaConf },
): string[] {
  const { template4, template6, ipv4, ipv6, names, conf } = all;
  const templates = [
    ...(template4 ? [`${template4.link.name} (IPv4)`] : []),
    ...(template6 ? [`${template6.link.name} (IPv6)`] : []),
  ];
  const lines: string[] = [];
  if (templates.length > 0) lines.push(`Template interface: ${templates.join(', ')}`);
  const outbound = [conf.outboundIf4 ?? conf.outbound4, conf.outboundIf6 ?? conf.outbound6];
  if (outbound.some((o) => o !== undefined))
    lines.push(`Outbound: ${outbound.filter((o) => o !== undefined).join(', ')}`);
  lines.push(`Namespace interface: ${all.interfaceName}`, 'MAC:', `    host: ${conf.mac}`);
  const offered = (v6: boolean): string[] =>
    names.offered.filter((a) => a.includes(':') === v6).map((a) => `    ${a}`);
  if (ipv4) {
    if (ipv4.hostLoopback) lines.push(`    NAT to host 127.0.0.1: ${ipv4.hostLoopback}`);
    if (ipv4.mapGuestAddr) lines.push(`    NAT to guest assigned address: ${ipv4.mapGuestAddr}`);
    if (conf.dhcp)
      lines.push('DHCP:', `    assign: ${ipv4.guest}/${ipv4.prefixLen}`, `    router: ${ipv4.gateway}`);
    const dns = offered(false);
    if (dns.length > 0) lines.push('DNS:', ...dns);
  }
  if (ipv6) {
    if (ipv6.hostLoopback) lines.push(`    NAT to host ::1: ${ipv6.hostLoopback}`);
    if (ipv6.mapGuestAddr) lines.push(`    NAT to guest assigned address: ${ipv6.mapGuestAddr}`);
    const assign = ipv6.guest === NO_IPV6_ADDRESS ? [] : [`    assign: ${ipv6.guest}`];
    lines.push(
      'NDP/DHCPv6:',
      ...assign,
      `    router: ${ipv6.gateway}`,
      `    our link-local: ${ipv6.linkLocal}`,
    );
    const dns = offered(true);
    if (dns.length > 0) lines.push('DNS:', ...dns);
  }
  return lines;
}
