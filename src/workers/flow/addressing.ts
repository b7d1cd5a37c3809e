/**
 * The address plan in binary form, and the only place that translates an address on the TAP to one on the
 * host and back.
 *
 * Addresses are four u32 words, most significant first, IPv4 as ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2).
 */
import {
  addressCopy,
  addressEqual,
  addressParse,
  addressSetIpv4,
  addressSetLoopback,
  familyAt,
  familyOf,
  isLinkLocal,
  isLoopback,
  isMulticast,
  isUnspecified,
  isV4Mapped,
} from '../../proto/address.ts';
import { macParse } from '../../proto/ethernet.ts';
import { ipv4Parse } from '../../proto/ipv4.ts';
import { SEEN_WORDS } from '../../ring/layout.ts';
import type { AddressPlan, HostChange, ServicePolicy } from '../engine-plan.ts';
import { directedBroadcastOf } from './group-rules.ts';

/** What a destination address on the TAP means. */
export const Destination = {
  /** No address of the plan's: the host's socket connects to the same address. */
  world: 0,
  /** An address of ours that is mapped to nothing: ping is answered, everything else is refused. */
  gateway: 1,
  /** The host's loopback. */
  hostLoopback: 2,
  /** The plan's DNS address, on one of the policy's ports: the resolvers. */
  dns: 3,
  /** mapGuestAddr: the address of the host that the guest's own is a copy of. */
  hostGuest: 5,
  /** Never routable from the guest: loopback, unspecified, reserved. */
  invalid: 4,
} as const;

/** Index of each family's address in the arrays of Addressing. */
const V4_AT = familyAt(4);
const V6_AT = familyAt(6);
/**
 * Words in Addressing.seen: the guest's link-local address; non-zero once the guest has used the plan's
 * address.
 */
const LINK_LOCAL = 8;
const USES_IPV4 = 12;
const USES_IPV6 = 13;

/** The address plan of one thread, and what the guest and the host change in it while the engine runs. */
export class Addressing {
  /** Our MAC address. */
  readonly mac: Uint8Array;
  /** MTU of the TAP in bytes. */
  readonly mtu: number;
  /** Words 0..3 IPv4 (mapped), 4..7 IPv6; all zero where the plan has no such family. */
  readonly guest = new Uint32Array(8);
  /** The host address that mapGuestAddr stands for: the guest's address, as long as the host has it too. */
  readonly hostSelf = new Uint32Array(8);
  /** Our address as the guest's router. */
  readonly gateway = new Uint32Array(8);
  /** The address on the TAP that means the host's loopback. */
  readonly hostLoopback = new Uint32Array(8);
  /**
   * The guest's addresses, to which connections from outside are sent: the plan's, until the guest sends from
   * others (SLAAC, its own choice) and never from the plan's. IPv4 in words 0..3, IPv6 in 4..7, link-local in
   * 8..11. All packet threads share the words, and the shard that receives a packet writes them with plain
   * stores: a reader that meets a half-written address sends one connection to a wrong address, at most.
   */
  readonly seen: Uint32Array;
  /** The address on the TAP that means `hostSelf`. */
  readonly mapGuestAddr = new Uint32Array(8);
  /** The address on the TAP that means the resolvers. */
  readonly dns = new Uint32Array(8);
  /** Our IPv4 address as DHCP server and as the router that DHCP announces; 0: DHCP is off. */
  dhcpServer = 0;
  /** Directed broadcast address of the guest's IPv4 subnet, as u32; 0: the subnet has none. */
  readonly broadcast4: number;
  /** Our IPv6 link-local address. */
  readonly linkLocal = new Uint32Array(4);
  readonly ipv4: boolean;
  readonly ipv6: boolean;
  readonly plan: AddressPlan;
  readonly #dnsPorts: readonly number[];
  readonly #refusesOwn: boolean;

  constructor(plan: AddressPlan, policy: ServicePolicy, seen: Uint32Array = new Uint32Array(SEEN_WORDS)) {
    this.plan = plan;
    this.#dnsPorts = policy.dnsPorts;
    this.#refusesOwn = policy.gateway === 'ours';
    this.mtu = plan.mtu;
    const mac = macParse(plan.mac);
    if (mac === null) throw new Error(`address plan: mac ${plan.mac} is not a MAC address`);
    this.mac = mac;
    this.ipv4 = plan.ipv4 !== undefined;
    this.ipv6 = plan.ipv6 !== undefined;
    const set = (words: Uint32Array, at: number, text: string | undefined, name: string): void => {
      if (text === undefined) return;
      if (!addressParse(text, words, at)) throw new Error(`address plan: ${name} ${text} is not an address`);
    };
    set(this.guest, V4_AT, plan.ipv4?.guest, 'ipv4.guest');
    set(this.gateway, V4_AT, plan.ipv4?.gateway, 'ipv4.gateway');
    set(this.hostLoopback, V4_AT, plan.ipv4?.hostLoopback, 'ipv4.hostLoopback');
    set(this.mapGuestAddr, V4_AT, plan.ipv4?.mapGuestAddr, 'ipv4.mapGuestAddr');
    set(this.mapGuestAddr, V6_AT, plan.ipv6?.mapGuestAddr, 'ipv6.mapGuestAddr');
    set(this.dns, V4_AT, plan.ipv4?.dns, 'ipv4.dns');
    set(this.guest, V6_AT, plan.ipv6?.guest, 'ipv6.guest');
    set(this.gateway, V6_AT, plan.ipv6?.gateway, 'ipv6.gateway');
    set(this.linkLocal, 0, plan.ipv6?.linkLocal, 'ipv6.linkLocal');
    set(this.hostLoopback, V6_AT, plan.ipv6?.hostLoopback, 'ipv6.hostLoopback');
    set(this.dns, V6_AT, plan.ipv6?.dns, 'ipv6.dns');
    this.hostSelf.set(this.guest);
    if (policy.dhcp) this.dhcpServer = this.gateway[V4_AT + 3]!;
    this.broadcast4 = directedBroadcastOf(this.guest[V4_AT + 3]!, plan.ipv4?.prefixLen ?? 32);
    this.seen = seen;
    for (const at of [V4_AT, V6_AT]) if (isZero(seen, at)) addressCopy(this.guest, at, seen, at);
  }

  /**
   * The host's network has changed.
   * @throws Error when a text is not an address
   */
  hostChanged(change: HostChange): void {
    for (const [at, text] of [
      [V4_AT, change.self4],
      [V6_AT, change.self6],
    ] as const) {
      if (text === undefined) continue;
      if (!addressParse(text, this.hostSelf, at)) throw new Error(`host change: ${text} is not an address`);
    }
    if (change.dhcpGateway !== undefined) this.dhcpServer = ipv4Parse(change.dhcpGateway);
    // DHCPv6 and router advertisements offer addressing.guest: set it if the host had no address at the
    // start.
    if (this.ipv6 && isZero(this.guest, V6_AT)) addressCopy(this.hostSelf, V6_AT, this.guest, V6_AT);
  }

  /**
   * Note the source address of an IPv4 packet of the guest, in `seen`.
   * @param address  as u32
   */
  learnGuestAddress4(address: number): void {
    const { seen } = this;
    if (seen[USES_IPV4] !== 0 || address === 0) return;
    if (address === this.guest[V4_AT + 3]) seen[USES_IPV4] = 1;
    else if (address === seen[V4_AT + 3]) return;
    addressSetIpv4(seen, V4_AT, address);
  }

  /**
   * Note the source address of an IPv6 packet of the guest, in `seen`.
   * @param words,w  address at words[w..w+3]
   */
  learnGuestAddress6(words: Uint32Array, w: number): void {
    const { seen } = this;
    if (isLinkLocal(words, w)) {
      if (!equalsSet(words, w, seen, LINK_LOCAL)) addressCopy(words, w, seen, LINK_LOCAL);
      return;
    }
    if (seen[USES_IPV6] !== 0 || isZero(words, w)) return;
    if (equalsSet(words, w, this.guest, V6_AT)) seen[USES_IPV6] = 1;
    else if (equalsSet(words, w, seen, V6_AT)) return;
    addressCopy(words, w, seen, V6_AT);
  }

  /** Which of the three addresses in `seen` the guest has sent from, one bit each; the others are the plan's. */
  get spoken(): number {
    const { seen, guest } = this;
    const v4 = seen[USES_IPV4] !== 0 || !addressEqual(seen, V4_AT, guest, V4_AT);
    const v6 = seen[USES_IPV6] !== 0 || !addressEqual(seen, V6_AT, guest, V6_AT);
    return (v4 ? 1 : 0) | (v6 ? 2 : 0) | (isZero(seen, LINK_LOCAL) ? 0 : 4);
  }

  /** Whether an address of four words is the guest's: the plan's, or one that was seen. */
  isSeen(words: Uint32Array): boolean {
    for (const at of [V4_AT, V6_AT])
      if (addressEqual(words, 0, this.seen, at) || addressEqual(words, 0, this.guest, at)) return true;
    return false;
  }

  /**
   * Write the guest's address that a peer's connection is sent to into out[o..o+3]: one of the peer's family,
   * and of the peer's scope if the guest has one.
   * @param words,w  the peer's address on the TAP
   * @returns false when the guest has no address of that family
   */
  guestFor(words: Uint32Array, w: number, out: Uint32Array, o: number): boolean {
    const { seen } = this;
    if (isV4Mapped(words, w)) {
      if (!this.ipv4 || seen[V4_AT + 3] === 0) return false;
      addressCopy(seen, V4_AT, out, o);
      return true;
    }
    if (!this.ipv6) return false;
    const wantsLinkLocal = isLinkLocal(words, w) || isZero(seen, V6_AT);
    const at = wantsLinkLocal && !isZero(seen, LINK_LOCAL) ? LINK_LOCAL : V6_AT;
    if (isZero(seen, at)) return false;
    addressCopy(seen, at, out, o);
    return true;
  }

  /**
   * What a destination of the guest's means.
   * @param words,w  address at words[w..w+3]
   * @param port  destination port, 0 for protocols without ports
   * @returns a Destination
   */
  classify(words: Uint32Array, w: number, port: number): number {
    const family = familyOf(words, w);
    const at = familyAt(family);
    if (equalsSet(words, w, this.dns, at)) {
      if (this.#dnsPorts.includes(port)) return Destination.dns;
      if (this.#dnsPorts.length === 0 && port !== 0) return Destination.world;
    }
    if (equalsSet(words, w, this.hostLoopback, at)) return Destination.hostLoopback;
    if (equalsSet(words, w, this.mapGuestAddr, at)) return Destination.hostGuest;
    if (this.#refusesOwn && this.isOurs(words, w, family)) return Destination.gateway;
    if (family === 4) {
      const a = words[w + 3]!;
      // 240/4 is reserved and ends with the broadcast address. The caller checks for multicast.
      if (a >>> 24 === 127 || a >>> 24 === 0 || a >>> 28 === 15) return Destination.invalid;
      return Destination.world;
    }
    if (isLoopback(words, w) || isUnspecified(words, w)) return Destination.invalid;
    // v4-mapped addresses never appear on a link (RFC 4291 section 2.5.5.2: they are for APIs).
    return Destination.world;
  }

  /**
   * Whether the guest can send to a host-side peer that it has not sent to before: to the host's loopback
   * only if the plan maps that.
   */
  isReachableFromGuest(words: Uint32Array, w: number): boolean {
    if (isUnspecified(words, w)) return false;
    return !isLoopback(words, w) || !isZero(this.hostLoopback, familyAt(familyOf(words, w)));
  }

  /**
   * Whether a destination of the guest's is not one host: multicast, reserved (240/4), or broadcast.
   * @param words,w  address at words[w..w+3]
   */
  isGroup(words: Uint32Array, w: number): boolean {
    if (!isV4Mapped(words, w)) return isMulticast(words, w);
    const address = words[w + 3]!;
    return address >>> 28 >= 14 || (this.broadcast4 !== 0 && address === this.broadcast4);
  }

  /** Whether an address is one of the plan's own on the TAP. */
  isOurs(words: Uint32Array, w: number, family: 4 | 6): boolean {
    const at = familyAt(family);
    return (
      equalsSet(words, w, this.gateway, at) ||
      equalsSet(words, w, this.dns, at) ||
      equalsSet(words, w, this.hostLoopback, at) ||
      equalsSet(words, w, this.mapGuestAddr, at) ||
      (family === 6 && equalsSet(words, w, this.linkLocal, 0))
    );
  }

  /**
   * Write the host-side address of a destination into out[o..o+3].
   * @param destination  what classify() said: Destination.world, hostLoopback or hostGuest
   */
  toHost(words: Uint32Array, w: number, destination: number, out: Uint32Array, o: number): void {
    if (destination === Destination.hostLoopback) addressSetLoopback(out, o, familyOf(words, w));
    else if (destination === Destination.hostGuest)
      addressCopy(this.hostSelf, familyAt(familyOf(words, w)), out, o);
    else addressCopy(words, w, out, o);
  }

  /**
   * Write the address under which a host-side peer appears on the TAP into out[o..o+3]. The host's loopback,
   * the wildcard and the guest's own address become the plan's address for them or, without one, the gateway;
   * any other address stays the same.
   */
  fromHost(words: Uint32Array, w: number, out: Uint32Array, o: number): void {
    const at = familyAt(familyOf(words, w));
    const local = isLoopback(words, w) || isUnspecified(words, w);
    // A peer on this host may have the address that the guest copied: its packets must not have the guest's
    // own address as source.
    if (local || equalsSet(words, w, this.guest, at) || equalsSet(words, w, this.seen, at)) {
      const mapping = local ? this.hostLoopback : this.mapGuestAddr;
      addressCopy(isZero(mapping, at) ? this.gateway : mapping, at, out, o);
    } else addressCopy(words, w, out, o);
  }
}

/** Whether two addresses are equal and b[bt..bt+3] is set: the plan need not have every address. */
function equalsSet(a: Uint32Array, at: number, b: Uint32Array, bt: number): boolean {
  return addressEqual(a, at, b, bt) && !isZero(b, bt);
}

/** Whether no address is set there; 0.0.0.0 is one, as ::ffff:0.0.0.0. */
function isZero(a: Uint32Array, at: number): boolean {
  return a[at] === 0 && a[at + 1] === 0 && a[at + 2] === 0 && a[at + 3] === 0;
}
