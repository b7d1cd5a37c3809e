/**
 * Where a destination lies in a container's network namespace: beyond its TAP, or elsewhere, such as on a bridge
 * or in a tunnel inside. Read from /proc/THREAD/net: the main table.
 */
import { addressSetIpv4, addressText, isV4Mapped, sharesPrefix } from '../proto/address.ts';
import type { Threads } from '../sys/peer-process.ts';

/** <linux/route.h>, <linux/ipv6_route.h> */
const RTF_UP = 1;
const RTF_GATEWAY = 2;
const RTF_REJECT = 0x200;
const RTF_LOCAL = 0x8000_0000;

interface Row {
  readonly device: string;
  readonly flags: number;
  readonly length: number;
  readonly metric: number;
}

/** A route through the interface of the default route. */
export interface InsideRoute {
  /** Without a gateway. */
  readonly isOnLink: boolean;
}

const NO_ROUTE: InsideRoute = { isOnLink: false };
/** Routes by destination, as long as the table's text is the same. */
interface KnownRoutes {
  text: string;
  readonly routes: Map<string, InsideRoute>;
}
const KEPT_ROUTES = 1024;

export class RoutesInside {
  readonly #threads: Threads;
  readonly #words = new Uint32Array(4);
  readonly #known4: KnownRoutes = { text: '', routes: new Map() };
  readonly #known6: KnownRoutes = { text: '', routes: new Map() };

  constructor(threads: Threads) {
    this.#threads = threads;
  }

  /**
   * The route to an address in the network namespace of a thread.
   * @param address  four words, IPv4 as v4-mapped
   * @returns undefined: none, or not by the interface of the default route
   */
  routeTo(address: Uint32Array, thread: number): InsideRoute | undefined {
    const isV4 = isV4Mapped(address, 0);
    const text = this.#threads.read(`${thread}/net/${isV4 ? 'route' : 'ipv6_route'}`);
    const known = isV4 ? this.#known4 : this.#known6;
    if (known.text !== text || known.routes.size >= KEPT_ROUTES) {
      known.text = text;
      known.routes.clear();
    }
    const key = addressText(address, 0);
    let route = known.routes.get(key);
    if (route === undefined) {
      route = this.#find(text, address, isV4);
      known.routes.set(key, route);
    }
    return route === NO_ROUTE ? undefined : route;
  }

  #find(text: string, address: Uint32Array, isV4: boolean): InsideRoute {
    let best: Row | undefined;
    let fallback: Row | undefined;
    for (let at = isV4 ? nextLine(text, 0) : 0; at < text.length; at = nextLine(text, at)) {
      const fields = text.slice(at, nextLine(text, at)).trim().split(/\s+/);
      const row = isV4 ? this.#row4(fields) : this.#row6(fields);
      if (row === undefined || (row.flags & RTF_UP) === 0) continue;
      if (row.length === 0) fallback = better(row, fallback);
      if (sharesPrefix(this.#words, address, row.length + (isV4 ? 96 : 0))) best = better(row, best);
    }
    if (best === undefined || fallback === undefined || best.device !== fallback.device) return NO_ROUTE;
    if ((best.flags & (RTF_REJECT | RTF_LOCAL)) !== 0 || best.device === 'lo') return NO_ROUTE;
    // A default route without a gateway leads to what is not on the link.
    return { isOnLink: (best.flags & RTF_GATEWAY) === 0 && best.length > 0 };
  }

  /** Iface Destination Gateway Flags RefCnt Use Metric Mask ...: hexadecimal in the processor's byte order. */
  #row4([device = '', destination = '', , flags = '', , , metric = '', mask = '']: readonly string[]):
    | Row
    | undefined {
    if (mask.length !== 8) return undefined;
    addressSetIpv4(this.#words, 0, swapped(Number.parseInt(destination, 16)));
    const length = Math.clz32(~swapped(Number.parseInt(mask, 16)));
    return { device, flags: Number.parseInt(flags, 16), length, metric: Number(metric) };
  }

  /** destination length source length next-hop metric references use flags device */
  #row6(fields: readonly string[]): Row | undefined {
    const [destination = '', length = '', , , , metric = '', , , flags = '', device = ''] = fields;
    if (destination.length !== 32) return undefined;
    for (let i = 0; i < 4; i++) this.#words[i] = Number.parseInt(destination.slice(i * 8, i * 8 + 8), 16);
    const bits = Number.parseInt(flags, 16);
    // The kernel shows a refusal by default, which is behind all others.
    if (length === '00' && (bits & RTF_REJECT) !== 0) return undefined;
    return { device, flags: bits, length: Number.parseInt(length, 16), metric: Number.parseInt(metric, 16) };
  }
}

const swapped = (word: number): number =>
  ((word >>> 24) | ((word >>> 8) & 0xff00) | ((word << 8) & 0xff_0000) | (word << 24)) >>> 0;

const better = (row: Row, than: Row | undefined): Row =>
  than === undefined || row.length > than.length || (row.length === than.length && row.metric < than.metric)
    ? row
    : than;

function nextLine(text: string, at: number): number {
  const end = text.indexOf('\n', at);
  return end < 0 ? text.length : end + 1;
}
