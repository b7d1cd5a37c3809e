/**
 * Which way the host itself takes to the internet: what the kernel answers for a public address, after all of
 * its policy rules and tables. So a default route that is only in another table is found (wg-quick and
 * Tailscale with a rule, a VRF), and of several default routes the one in use.
 */
import { RT_TABLE_MAIN, RT_TABLE_UNSPEC, RTN_UNICAST } from '../../sys/constants.ts';
import type { RouteSocket } from '../../sys/netlink.ts';
import type { Family } from '../../sys/netlink-messages.ts';

/**
 * The addresses that are looked up; nothing is sent to them. a.root-servers.net: hosts have no routes of their
 * own to it, as they often have to public resolvers.
 */
const PUBLIC_ADDRESS = { 4: '198.41.0.4', 6: '2001:503:ba3e::2:30' } as const;

/** A route to the internet. */
export interface ChosenRoute {
  readonly linkIndex: number;
  /** Absent on a point-to-point link, and where an IPv4 route has an IPv6 gateway. */
  readonly gateway?: string;
  /** The source address that the kernel gives to a socket which is not bound. */
  readonly source?: string;
  /** The route is in the main table. */
  readonly isMain: boolean;
}

/** By family; absent: no route. */
export interface ChosenRoutes {
  readonly 4?: ChosenRoute;
  readonly 6?: ChosenRoute;
}

/**
 * Ask the kernel for the route of a family.
 * @param links  to find the interface by its name
 * @param bound  name of the interface that sockets are bound to; undefined: any
 */
export function chosenRoute(
  host: Pick<RouteSocket, 'routeTo'>,
  family: Family,
  links: readonly { readonly index: number; readonly name: string }[],
  bound?: string,
): ChosenRoute | undefined {
  const oif = links.find((link) => link.name === bound)?.index;
  if (bound !== undefined && oif === undefined) return undefined;
  const route = host.routeTo(family, PUBLIC_ADDRESS[family], oif);
  // Without a route, IPv4 takes a bound socket's destination for one on the link: then the table is 0.
  if (route?.oif === undefined || route.type !== RTN_UNICAST || route.table === RT_TABLE_UNSPEC)
    return undefined;
  const { gateway, prefSrc, table } = route;
  return {
    linkIndex: route.oif,
    ...(gateway !== undefined && gateway.includes(':') === (family === 6) && { gateway }),
    ...(prefSrc !== undefined && { source: prefSrc }),
    isMain: table === RT_TABLE_MAIN,
  };
}

/** chosenRoute() of both families. @param bound  the interface of each family */
export function chosenRoutes(
  host: RouteSocket,
  links: readonly { readonly index: number; readonly name: string }[],
  bound: { readonly 4?: string | undefined; readonly 6?: string | undefined },
): ChosenRoutes {
  const four = chosenRoute(host, 4, links, bound[4]);
  const six = chosenRoute(host, 6, links, bound[6]);
  return { ...(four && { 4: four }), ...(six && { 6: six }) };
}
