/**
 * Which destinations a socket of the host may be connected to in place of the container's: addresses beyond the
 * host, that the container reaches through its TAP. All others stay inside, where nothing has changed for them.
 */
import {
  addressParse,
  addressText,
  isLinkLocal,
  isMulticast,
  isV4Mapped,
  sharesPrefix,
} from '../proto/address.ts';
import { RTN_UNICAST } from '../sys/constants.ts';
import { RouteMonitor, RouteSocket } from '../sys/netlink.ts';
import type { RoutesInside } from './routes-inside.ts';

/** How to reach a destination from the host. */
export interface HostRoute {
  /** Interface that the host's route takes. */
  readonly device: string;
  /** The destination is on that interface's link: no gateway. */
  readonly isOnLink: boolean;
}

/** Interface and source address for all connections, by family; absent: what the route says. */
export interface Outbound {
  readonly device4?: string | undefined;
  readonly device6?: string | undefined;
  /** The family that the container has not got, whatever routes its programs make. */
  readonly without?: 4 | 6 | undefined;
}

/** Routes that are kept: all are forgotten when the host's network changes, or there are more. */
const KEPT_ROUTES = 4096;

/** An address range: the first `length` bits of an address in four words, IPv4 as v4-mapped. */
export interface Range {
  readonly words: Uint32Array;
  readonly length: number;
}

/**
 * Parse "ADDRESS" or "ADDRESS/LENGTH".
 * @throws Error without the option's name
 */
export function parseRange(text: string): Range {
  const [address = '', length, more] = text.split('/');
  const words = new Uint32Array(4);
  if (more !== undefined || !addressParse(address, words, 0))
    throw new Error('write an address or ADDRESS/LENGTH, such as 10.0.0.0/8 or fd00::/8');
  const most = isV4Mapped(words, 0) && !address.includes(':') ? 32 : 128;
  if (length !== undefined && (!/^\d{1,3}$/.test(length) || Number(length) > most))
    throw new Error(`the length after / must be 0 to ${most}`);
  return { words, length: 128 - most + Number(length ?? most) };
}

const NO_WAY: HostRoute = { device: '', isOnLink: false };

export class Destinations {
  readonly #excluded: readonly Range[];
  readonly #outbound: Outbound;
  readonly #host = new RouteSocket();
  readonly #monitor = new RouteMonitor();
  readonly #routes = new Map<string, HostRoute>();
  /** Names by index. */
  #links = new Map<number, string>();

  /**
   * Opens sockets in the network namespace of the calling thread: the host's.
   * @param excluded  ranges that stay inside, as parseRange() reads them
   * @throws SysError
   */
  constructor(excluded: readonly string[], outbound: Outbound) {
    this.#excluded = excluded.map(parseRange);
    this.#outbound = outbound;
  }

  /** Descriptor that is readable when the host's network has changed; changed() then has to be called. */
  get monitorFd(): number {
    return this.#monitor.fd;
  }

  /** Forget what the host's network was, if it has changed. */
  changed(): void {
    if (!this.#monitor.drain()) return;
    this.#routes.clear();
    this.#links.clear();
  }

  /**
   * The way to a destination, if a socket of the host may take it.
   * @param address  four words, IPv4 as v4-mapped
   * @param routes   of the container
   * @returns why it may not, in words
   */
  routeTo(address: Uint32Array, routes: RoutesInside): HostRoute | string {
    const family = isV4Mapped(address, 0) ? 4 : 6;
    if (family === this.#outbound.without) return `the container has no IPv${family}`;
    if (isSpecial(address)) return 'not a unicast address beyond this machine and its links';
    if (this.#excluded.some(({ words, length }) => sharesPrefix(words, address, length)))
      return 'excluded by --no-switch, or an address of the interface inside';
    this.changed(); // notifications that the loop has not seen yet
    const text = addressText(address, 0);
    let route = this.#routes.get(text);
    if (route === undefined) {
      route = this.#lookUp(text, family) ?? NO_WAY;
      if (this.#routes.size >= KEPT_ROUTES) this.#routes.clear();
      this.#routes.set(text, route);
    }
    if (route === NO_WAY) return "the host's own address, or the host has no route to it";
    const inside = routes.routeTo(address);
    if (inside === undefined) return 'inside, it is not beyond the interface of the default route';
    // Without a gateway inside, it is a neighbour of the container. If it is the host's neighbour too, the container
    // has a copy of the host's addresses (pasta); else it is on a network inside, such as a bridge.
    if (inside.isOnLink && !route.isOnLink) return 'a neighbour on a network inside';
    return route;
  }

  /** After all policy rules and tables. Not to an address of the host's own, which has a local route. */
  #lookUp(text: string, family: 4 | 6): HostRoute | undefined {
    const wanted = family === 4 ? this.#outbound.device4 : this.#outbound.device6;
    if (this.#links.size === 0)
      for (const { index, name } of this.#host.links()) this.#links.set(index, name);
    let oif: number | undefined;
    if (wanted !== undefined) {
      oif = [...this.#links].find(([, name]) => name === wanted)?.[0];
      if (oif === undefined) return undefined;
    }
    // First without the interface: with it, the kernel takes addresses of other interfaces for remote ones.
    if (oif !== undefined && this.#host.routeTo(family, text)?.type !== RTN_UNICAST) return undefined;
    const route = this.#host.routeTo(family, text, oif);
    if (route?.type !== RTN_UNICAST || route.oif === undefined) return undefined;
    const device = this.#links.get(route.oif);
    if (device === undefined || device === 'lo') return undefined;
    return { device, isOnLink: route.gateway === undefined };
  }
}

/** Addresses that name something else on each machine, or no machine. */
function isSpecial(words: Uint32Array): boolean {
  if (isMulticast(words, 0)) return true;
  if (!isV4Mapped(words, 0)) {
    // ::/80 has the unspecified and the loopback address, and IPv4 addresses in other forms.
    if (words[0] === 0 && words[1] === 0 && words[2]! >>> 16 === 0) return true;
    return isLinkLocal(words, 0);
  }
  const v4 = words[3]!;
  const first = v4 >>> 24;
  return first === 0 || first === 127 || first >= 224 || v4 >>> 16 === 0xa9fe;
}
