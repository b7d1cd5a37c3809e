/**
 * Which multicast groups and broadcast addresses of the guest are carried (MulticastPlan), and on which ports
 * datagrams to a group are received before the guest has said anything about ports: a report of a membership
 * names a group, but a socket of the host needs a port too.
 */

import { addressEqual, addressParse, addressSetIpv4, isV4Mapped } from '../../proto/address.ts';
import { ipv4Parse } from '../../proto/ipv4.ts';
import type { EnginePlan, MulticastPlan } from '../engine-plan.ts';

/** What a destination is. */
export const GroupKind = { none: 0, multicast: 1, broadcast: 2 } as const;

/** Ports of well-known groups: the protocol of each, and where its groups are assigned. */
const KNOWN: readonly (readonly [string, readonly number[]])[] = [
  ['224.0.0.251', [5353]], // mDNS, RFC 6762
  ['ff02::fb', [5353]],
  ['ff05::fb', [5353]],
  ['224.0.0.252', [5355]], // LLMNR, RFC 4795
  ['ff02::1:3', [5355]],
  ['239.255.255.250', [1900, 3702, 1982]], // SSDP, WS-Discovery, and SSDP of Yeelight
  ['ff02::c', [1900, 3702]],
  ['ff05::c', [1900, 3702]],
  ['ff08::c', [1900]],
  ['224.0.1.187', [5683]], // CoAP, RFC 7252 section 12.8
  ['ff02::fd', [5683]],
  ['ff05::fd', [5683]],
  ['ff12::8384', [21027]], // Syncthing
  ['224.0.23.12', [3671]], // KNXnet/IP
];

const LIMITED_BROADCAST = 0xffff_ffff;
const IPV6_MULTICAST = 0xff;
const LINK_SCOPE = 2;
const GLOBAL_SCOPE = 14;

/**
 * Groups of the protocols between a host and its router, which the engine answers itself: all nodes, all
 * routers, reports of memberships, solicited nodes, DHCPv6.
 */
function isOfLink(words: Uint32Array, w: number): boolean {
  const last = words[w + 3]!;
  if (isV4Mapped(words, w)) return last === 0xe000_0001 || last === 0xe000_0002 || last === 0xe000_0016;
  if (words[w] !== 0xff020000 || words[w + 1] !== 0) return false;
  if (words[w + 2] === 0) return last === 1 || last === 2 || last === 0x16 || last === 0x0001_0002;
  return words[w + 2] === 1 && last >>> 24 === 0xff;
}

interface Entry {
  readonly words: Uint32Array;
  /** 0: any. */
  readonly port: number;
}

function entry(address: string, port: number): Entry {
  const words = new Uint32Array(4);
  if (!addressParse(address, words, 0)) throw new Error(`multicast plan: ${address} is not an address`);
  return { words, port };
}

export class GroupRules {
  /** Most groups of each family that the guest is a member of. */
  readonly maxGroups: number;
  readonly #all: boolean;
  readonly #entries: readonly Entry[];
  readonly #known: readonly Entry[];
  /** Broadcast address of the guest's subnet as u32; 0: none. */
  readonly directedBroadcast: number;

  /**
   * @param directedBroadcast  directedBroadcastOf() the guest's subnet
   * @throws Error for a group of the plan that is not an address
   */
  constructor(plan: MulticastPlan, directedBroadcast: number) {
    this.maxGroups = plan.maxGroups;
    this.#all = plan.all;
    this.directedBroadcast = directedBroadcast;
    this.#entries = plan.groups.map(({ address, port = 0 }) => entry(address, port));
    this.#known = KNOWN.flatMap(([address, ports]) => ports.map((port) => entry(address, port)));
  }

  /**
   * @param words,w  a destination of the guest
   * @returns a GroupKind; `none` also for groups of interface-local and reserved scope
   */
  kindOf(words: Uint32Array, w: number): number {
    if (isV4Mapped(words, w)) {
      const address = words[w + 3]!;
      if (address >>> 28 === 14) return GroupKind.multicast;
      const isBroadcast = address === LIMITED_BROADCAST || address === this.directedBroadcast;
      return isBroadcast && address !== 0 ? GroupKind.broadcast : GroupKind.none;
    }
    if (words[w]! >>> 24 !== IPV6_MULTICAST) return GroupKind.none;
    const scope = (words[w]! >>> 16) & 0xf;
    return scope >= LINK_SCOPE && scope <= GLOBAL_SCOPE ? GroupKind.multicast : GroupKind.none;
  }

  /** Whether the guest may send to a port of a group or broadcast address. */
  maySend(words: Uint32Array, w: number, port: number): boolean {
    if (this.kindOf(words, w) === GroupKind.none) return false;
    return (
      this.#all || this.#entries.some((e) => this.#isFor(e, words, w) && (e.port === 0 || e.port === port))
    );
  }

  /** Whether the guest may become a member of a group. */
  mayJoin(words: Uint32Array, w: number): boolean {
    if (this.kindOf(words, w) !== GroupKind.multicast || isOfLink(words, w)) return false;
    return this.#all || this.#entries.some((e) => this.#isFor(e, words, w));
  }

  /** An entry for 255.255.255.255 is for the broadcast address of the subnet too. */
  #isFor(e: Entry, words: Uint32Array, w: number): boolean {
    if (addressEqual(e.words, 0, words, w)) return true;
    return e.words[3] === LIMITED_BROADCAST && this.kindOf(words, w) === GroupKind.broadcast;
  }

  /**
   * Ports on which a group's datagrams are received from the start: those of the plan and well-known ones.
   */
  portsOf(words: Uint32Array, w: number): number[] {
    const planned = this.#entries.filter((e) => e.port !== 0 && this.#isFor(e, words, w)).map((e) => e.port);
    const known = this.#known.filter((e) => addressEqual(e.words, 0, words, w)).map((e) => e.port);
    const allowed = this.#all ? known : known.filter((port) => this.maySend(words, w, port));
    return [...new Set([...planned, ...allowed])];
  }

  /** Ports of the plan on which broadcast datagrams are received. */
  broadcastPorts(): number[] {
    const words = new Uint32Array(4);
    addressSetIpv4(words, 0, LIMITED_BROADCAST);
    return this.portsOf(words, 0);
  }
}

/** @returns the rules of a plan; null: it carries no multicast */
export function groupRulesOf({ addresses, policy }: EnginePlan): GroupRules | null {
  const { multicast, udp } = policy;
  if (multicast === undefined || !udp) return null;
  const { ipv4 } = addresses;
  const broadcast = ipv4 === undefined ? 0 : directedBroadcastOf(ipv4Parse(ipv4.guest), ipv4.prefixLen);
  return new GroupRules(multicast, broadcast);
}

/**
 * The broadcast address of a subnet as u32; 0: it has none, as a /31 and a /32 (RFC 3021).
 * @param address  an address in it, as u32
 */
export function directedBroadcastOf(address: number, prefixLen: number): number {
  if (prefixLen > 30) return 0;
  return (address | (2 ** (32 - prefixLen) - 1)) >>> 0;
}
