/**
 * Zones of resolvers: `nameserver fe80::1%eth0` (RFC 4007 section 11) names an interface, and sockets want
 * its index. The name is looked up when the plan is made, when resolv.conf changes, and when the host's links
 * do: an interface that is plugged in again has another index.
 */
import { addressParse, isLinkLocal, isV4Mapped } from '../../proto/address.ts';
import { SysError } from '../../sys/error.ts';

interface NamedLink {
  readonly index: number;
  readonly name: string;
}

const hasZone = (text: string): boolean => text.includes('%');

/**
 * As the engine takes them: "fe80::1%eth0" as "fe80::1%2". One behind an interface that is not there is left
 * out, as nothing sent to it could go the right way. Addresses of other scopes are unambiguous, and go
 * without their zone.
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

/** Keeps the engine's resolvers up to date with both their names and the host's links. */
export class ResolverZones {
  #nameservers: readonly string[];
  #given: string;
  readonly #links: () => readonly NamedLink[];
  readonly #set: (list: readonly string[]) => void;

  /**
   * @param nameservers  as resolv.conf or the command line has them
   * @param given        what the engine was started with
   * @param links        asks for the host's; SysError: it cannot be told now
   * @param set          gives the engine others
   */
  constructor(
    nameservers: readonly string[],
    given: readonly string[],
    links: () => readonly NamedLink[],
    set: (list: readonly string[]) => void,
  ) {
    this.#nameservers = nameservers;
    this.#given = given.join(' ');
    this.#links = links;
    this.#set = set;
  }

  /** resolv.conf has changed. */
  use(nameservers: readonly string[]): void {
    this.#nameservers = nameservers;
    this.#give(nameservers.some(hasZone) ? this.#linksNow() : []);
  }

  /** The host's network has changed. */
  look(links: readonly NamedLink[]): void {
    if (this.#nameservers.some(hasZone)) this.#give(links);
  }

  #give(links: readonly NamedLink[]): void {
    const list = withIndexes(this.#nameservers, links);
    if (list.join(' ') === this.#given) return;
    this.#given = list.join(' ');
    this.#set(list);
  }

  #linksNow(): readonly NamedLink[] {
    try {
      return this.#links();
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      return []; // the next change of the host's is another chance
    }
  }
}
