/**
 * Zones of resolvers: `nameserver fe80::1%eth0` (RFC 4007 section 11) names an interface, but sockets need
 * the index of that interface. The index is looked up when the address plan is made, when resolv.conf
 * changes, and when the host's links change: an interface that is plugged in again has another index.
 */
import { addressParse, isLinkLocal, isV4Mapped } from '../../proto/address.ts';
import { SysError } from '../../sys/error.ts';

interface NamedLink {
  readonly index: number;
  readonly name: string;
}

const hasZone = (text: string): boolean => text.includes('%');

/**
 * Nameservers in the form that the engine takes: "fe80::1%eth0" becomes "fe80::1%2". A nameserver behind an
 * interface that does not exist is left out, as no packet could reach it. A zone is removed from an address
 * that is not link-local, since such an address is unambiguous.
 * @param nameservers  as resolv.conf or the command line has them
 * @param links        the host's links
 */
export function withIndexes(nameservers: readonly string[], links: readonly NamedLink[]): readonly string[] {
  const words = new Uint32Array(4);
  return nameservers.flatMap((text) => {
    const [address, zone] = text.split('%', 2) as [string, string?];
    if (zone === undefined) return [text];
    if (!addressParse(address, words, 0) || isV4Mapped(words, 0) || !isLinkLocal(words, 0)) return [address];
    const index = links.find((link) => link.name === zone)?.index ?? Number(/^\d+$/.test(zone) ? zone : 0);
    return index > 0 ? [`${address}%${index}`] : [];
  });
}

/** Keeps the engine's resolvers up to date with resolv.conf and with the host's links. */
export class ResolverZones {
  #nameservers: readonly string[];
  #current: string;
  readonly #links: () => readonly NamedLink[];
  readonly #set: (list: readonly string[]) => void;

  /**
   * @param nameservers  as resolv.conf or the command line has them
   * @param given        the list that the engine was started with
   * @param links        queries the host's links; throws SysError if the query fails
   * @param set          gives the engine another list
   */
  constructor(
    nameservers: readonly string[],
    given: readonly string[],
    links: () => readonly NamedLink[],
    set: (list: readonly string[]) => void,
  ) {
    this.#nameservers = nameservers;
    this.#current = given.join(' ');
    this.#links = links;
    this.#set = set;
  }

  /** resolv.conf has changed. */
  setNameservers(nameservers: readonly string[]): void {
    this.#nameservers = nameservers;
    this.#update(nameservers.some(hasZone) ? this.#linksNow() : []);
  }

  /** The host's network has changed. */
  setLinks(links: readonly NamedLink[]): void {
    if (this.#nameservers.some(hasZone)) this.#update(links);
  }

  #update(links: readonly NamedLink[]): void {
    const list = withIndexes(this.#nameservers, links);
    if (list.join(' ') === this.#current) return;
    this.#current = list.join(' ');
    this.#set(list);
  }

  #linksNow(): readonly NamedLink[] {
    try {
      return this.#links();
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      return []; // the next change of the host's network calls setLinks()
    }
  }
}
