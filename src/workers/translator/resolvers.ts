/**
 * The resolvers to which DNS queries of the guest are sent, over UDP (dns-forward.ts) and over TCP
 * (tcp/handshake.ts): their order of preference, and which of them failed lately.
 */
import { addressEqual, addressParse, isLinkLocal, isV4Mapped } from '../../proto/address.ts';
import type { AddressPlan } from '../engine-plan.ts';

/** Further resolvers of a list are ignored. */
const MAX_RESOLVERS = 16;
/** A resolver that did not answer is asked last for so long. */
const BAD_MS = 30_000;

/** A list of resolvers in order of preference. One that did not answer is avoided for BAD_MS. */
export class Resolvers {
  /** Addresses, four words each. */
  words: Uint32Array = new Uint32Array(0);
  /**
   * By resolver: index of the interface through which a link-local one is reached; 0: the plan's interface.
   */
  zones: Uint32Array = new Uint32Array(0);
  count = 0;
  #badUntil = new Float64Array(MAX_RESOLVERS);

  constructor(list: readonly string[]) {
    this.update(list);
  }

  /**
   * Take over a new list (resolv.conf changed). A resolver that was in the old list is avoided as long as
   * before. A text that is not an address is left out.
   * @param list  addresses; a zone is the index of an interface: "fe80::1%2"
   */
  update(list: readonly string[]): void {
    const words = new Uint32Array(MAX_RESOLVERS * 4);
    const zones = new Uint32Array(MAX_RESOLVERS);
    const badUntil = new Float64Array(MAX_RESOLVERS);
    let count = 0;
    for (const text of list) {
      if (count === MAX_RESOLVERS) break;
      const [address, zone] = text.split('%', 2) as [string, string?];
      if (!addressParse(address, words, count * 4)) continue;
      const hasZone = isLinkLocal(words, count * 4) && !isV4Mapped(words, count * 4);
      zones[count] = hasZone ? Number(zone ?? 0) : 0;
      for (let i = 0; i < this.count; i++) {
        const same = addressEqual(this.words, i * 4, words, count * 4) && this.zones[i] === zones[count];
        if (same) badUntil[count] = this.#badUntil[i]!;
      }
      count++;
    }
    this.words = words;
    this.zones = zones;
    this.count = count;
    this.#badUntil = badUntil;
  }

  /**
   * The resolver for a connection attempt: the first that is not avoided; when all are, one by the attempt's
   * number.
   * @param now  monotonic milliseconds
   * @param attempt  from 0 on
   * @returns index (its address at words[index * 4], its zone at zones[index]), or -1: the list is empty
   */
  pick(now: number, attempt: number): number {
    for (let i = 0; i < this.count; i++) if (this.#badUntil[i]! <= now) return i;
    return this.count === 0 ? -1 : attempt % this.count;
  }

  /**
   * The next resolver for a query: the first untried one that is not avoided, else the first untried one.
   * @param now  monotonic milliseconds
   * @param tried  bit i: resolver i has been asked
   * @returns its index, or -1: all have been asked
   */
  pickUntried(now: number, tried: number): number {
    let outOfFavour = -1;
    for (let i = 0; i < this.count; i++) {
      if (tried & (1 << i)) continue;
      if (this.#badUntil[i]! <= now) return i;
      if (outOfFavour < 0) outOfFavour = i;
    }
    return outOfFavour;
  }

  /** The resolver failed: avoid it for BAD_MS. An index outside the list is ignored. */
  markBad(index: number, now: number): void {
    if (index >= 0 && index < this.count) this.#badUntil[index] = now + BAD_MS;
  }

  /** The resolver answered: avoid it no longer. An index outside the list is ignored. */
  markGood(index: number): void {
    if (index >= 0 && index < this.count) this.#badUntil[index] = 0;
  }
}

/** The resolvers of each family's DNS address: a fixed list of its own, or the host's. */
export class ResolverChoice {
  readonly #shared: Resolvers;
  readonly #ipv4: Resolvers;
  readonly #ipv6: Resolvers;

  constructor(plan: AddressPlan) {
    this.#shared = new Resolvers(plan.resolvers);
    const own = (hosts: readonly string[] | undefined): Resolvers =>
      hosts === undefined ? this.#shared : new Resolvers(hosts);
    this.#ipv4 = own(plan.ipv4?.dnsHosts);
    this.#ipv6 = own(plan.ipv6?.dnsHosts);
  }

  /**
   * The resolvers for queries to a family's DNS address.
   * @param family  4 or 6
   */
  of(family: number): Resolvers {
    return family === 4 ? this.#ipv4 : this.#ipv6;
  }

  /** Take over a changed list of the host's resolvers; see Resolvers.update(). */
  update(list: readonly string[]): void {
    this.#shared.update(list);
  }
}
