/**
 * The resolvers that DNS queries of the guest go to, over UDP (dns-forward.ts) and over TCP (tcp/handshake.ts):
 * their order of preference, and which of them failed lately.
 */
import { addressEqual, addressParse, isLinkLocal, isV4Mapped } from '../../proto/address.ts';
import type { AddressPlan } from '../engine-plan.ts';

const MAX_RESOLVERS = 16;
/** A resolver that did not answer is asked last for so long. */
const BAD_MS = 30_000;

/** The host's resolvers in order of preference, and which of them are out of favour. */
export class Resolvers {
  /** Four words each. */
  words: Uint32Array = new Uint32Array(0);
  /** Index of the interface that a link-local one lies behind, 0: the plan's. */
  zones: Uint32Array = new Uint32Array(0);
  count = 0;
  #badUntil = new Float64Array(MAX_RESOLVERS);

  constructor(list: readonly string[]) {
    this.update(list);
  }

  /**
   * Take over a new list (resolv.conf changed); those that stay keep their record. What is no address is left
   * out.
   * @param list  a zone is the number of an interface: "fe80::1%2"
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
   * The resolver for a connection's attempt: the first in favour; when none is, by the number of the attempt.
   * @returns index (its address at words[index * 4], its zone at zones[index]), or -1 when there is none
   */
  pick(now: number, attempt: number): number {
    for (let i = 0; i < this.count; i++) if (this.#badUntil[i]! <= now) return i;
    return this.count === 0 ? -1 : attempt % this.count;
  }

  /** @param tried  bit i: resolver i has been asked @returns index of the best one left, -1: all have been */
  pickUntried(now: number, tried: number): number {
    let outOfFavour = -1;
    for (let i = 0; i < this.count; i++) {
      if (tried & (1 << i)) continue;
      if (this.#badUntil[i]! <= now) return i;
      if (outOfFavour < 0) outOfFavour = i;
    }
    return outOfFavour;
  }

  markBad(index: number, now: number): void {
    if (index >= 0 && index < this.count) this.#badUntil[index] = now + BAD_MS;
  }

  markGood(index: number): void {
    if (index >= 0 && index < this.count) this.#badUntil[index] = 0;
  }
}

/** Whom each family's DNS address leads to: resolvers of its own, or the host's. */
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

  of(family: number): Resolvers {
    return family === 4 ? this.#ipv4 : this.#ipv6;
  }

  /** The host's resolvers have changed. */
  update(list: readonly string[]): void {
    this.#shared.update(list);
  }
}
