/**
 * Neighbour Discovery, RFC 4861, the DNS options of RFC 8106 and the NAT64 prefix of RFC 8781. The messages are ICMPv6 messages; `at` is
 * the offset of the type byte.
 *
 *  solicitation  +0 icmp header, 4   +4 reserved u32              +8 target, 16   +24 options
 *  advertisement +0 icmp header, 4   +4 |R|S|O| reserved          +8 target, 16   +24 options
 *  router sol.   +0 icmp header, 4   +4 reserved u32              +8 options
 *  router adv.   +0 icmp header, 4   +4 hopLimit u8   +5 |M|O|   +6 lifetime u16   +8 reachable u32
 *                +12 retrans u32     +16 options
 *  option        +0 type u8   +1 length u8 in units of 8 bytes, not 0   +2 content
 *
 * The writers leave the checksum 0: call icmp6ChecksumWrite once the IPv6 header is written. The hop limit of
 * the IPv6 header must be 255. Router advertisements are rare, so their writer takes a plain object.
 */
import { addressWrite } from './address.ts';
import { writeU16, writeU32 } from './be.ts';
import { domainLabels, domainWrite } from './domain-name.ts';
import { Drop } from './drop.ts';
import { MAC_BYTES } from './ethernet.ts';
import { Icmp6Type } from './icmpv6.ts';
import type { Nat64Prefix } from './nat64.ts';

/** Hop limit of every neighbour discovery packet (RFC 4861 section 3.1). */
export const NDP_HOP_LIMIT = 255;
/** Offset of the target address in neighbour solicitations and advertisements. */
export const NDP_TARGET = 8;

export const NdpOption = {
  sourceLinkLayer: 1,
  targetLinkLayer: 2,
  prefixInformation: 3,
  mtu: 5,
  rdnss: 25,
  dnssl: 31,
  pref64: 38,
} as const;

/** Flags of a neighbour advertisement (RFC 4861 section 4.4): the top three bits of the word at +4. */
export const NdpNaFlag = { router: 0x80000000, solicited: 0x40000000, override: 0x20000000 } as const;

const NEIGHBOUR_BYTES = 24;
const ROUTER_SOLICITATION_BYTES = 8;
const ROUTER_ADVERTISEMENT_BYTES = 16;
const LIFETIME_INFINITE = 0xffffffff;

/** Offset of the options in a message of a type, or 0 for a type that is not neighbour discovery. */
function optionsOffset(type: number): number {
  switch (type) {
    case Icmp6Type.neighbourSolicitation:
    case Icmp6Type.neighbourAdvertisement:
      return NEIGHBOUR_BYTES;
    case Icmp6Type.routerSolicitation:
      return ROUTER_SOLICITATION_BYTES;
    case Icmp6Type.routerAdvertisement:
      return ROUTER_ADVERTISEMENT_BYTES;
    default:
      return 0;
  }
}

/**
 * Check an NS, NA, RS or RA in place, options included. icmp6Check has accepted the checksum.
 * @param bytes  ICMPv6 message length
 * @param hopLimit  hop limit of the IPv6 header
 * @returns 0, or Drop.short | ndpHopLimit | ndpCode | ndpTarget | ndpOption
 * @source RFC 4861 sections 6.1 and 7.1
 */
export function ndpCheck(pool: Uint8Array, at: number, bytes: number, hopLimit: number): number {
  if (hopLimit !== NDP_HOP_LIMIT) return Drop.ndpHopLimit;
  if (bytes < ROUTER_SOLICITATION_BYTES) return Drop.short;
  const offset = optionsOffset(pool[at]!);
  if (offset === 0 || pool[at + 1] !== 0) return Drop.ndpCode;
  if (bytes < offset) return Drop.short;
  if (offset === NEIGHBOUR_BYTES && pool[at + NDP_TARGET] === 0xff) return Drop.ndpTarget;
  let i = offset;
  while (i < bytes) {
    if (i + 8 > bytes) return Drop.ndpOption;
    const optionBytes = pool[at + i + 1]! << 3;
    if (optionBytes === 0 || i + optionBytes > bytes) return Drop.ndpOption;
    i += optionBytes;
  }
  return 0;
}

function linkLayerOptionWrite(pool: Uint8Array, at: number, type: number, mac: Uint8Array): number {
  pool[at] = type;
  pool[at + 1] = 1;
  for (let i = 0; i < MAC_BYTES; i++) pool[at + 2 + i] = mac[i]!;
  return 8;
}

/**
 * Write a neighbour advertisement with the target's link-layer address; the checksum is left 0.
 * @param target,w  advertised address, four words target[w..w + 3]
 * @param mac  link-layer address of the target, 6 bytes
 * @param flags  NdpNaFlag bits
 * @returns message bytes, 32
 */
export function ndpNaWrite(
  pool: Uint8Array,
  at: number,
  target: Uint32Array,
  w: number,
  mac: Uint8Array,
  flags: number,
): number {
  writeU32(pool, at, Icmp6Type.neighbourAdvertisement << 24);
  writeU32(pool, at + 4, flags);
  addressWrite(pool, at + NDP_TARGET, target, w);
  return NEIGHBOUR_BYTES + linkLayerOptionWrite(pool, at + NEIGHBOUR_BYTES, NdpOption.targetLinkLayer, mac);
}

/**
 * Write a neighbour solicitation with our source link-layer address (RFC 4861 section 4.3).
 * @param target,w  the address that is asked for: target[w..w+3]
 * @param mac  ours
 * @returns its length
 */
export function ndpNsWrite(
  pool: Uint8Array,
  at: number,
  target: Uint32Array,
  w: number,
  mac: Uint8Array,
): number {
  writeU32(pool, at, Icmp6Type.neighbourSolicitation << 24);
  writeU32(pool, at + 4, 0);
  addressWrite(pool, at + NDP_TARGET, target, w);
  return NEIGHBOUR_BYTES + linkLayerOptionWrite(pool, at + NEIGHBOUR_BYTES, NdpOption.sourceLinkLayer, mac);
}

/** Content of a router advertisement. Addresses are four words each. */
export interface RouterAdvertisement {
  /** The router's MAC address, for the source link-layer address option. */
  readonly mac: Uint8Array;
  /** Cur Hop Limit, for the guest's packets; 0: unspecified. */
  readonly hopLimit: number;
  /** M flag: addresses are available by DHCPv6. */
  readonly managed: boolean;
  /** O flag: other settings are available by DHCPv6. */
  readonly other: boolean;
  /** Lifetime as a default router in seconds, 0..65535; 0: not a default router. */
  readonly routerLifetimeS: number;
  /** 0: no MTU option. */
  readonly mtu: number;
  /** On-link prefix with infinite lifetimes; `autonomous` (A flag) allows autoconfiguration from it. */
  readonly prefix?: { readonly words: Uint32Array; readonly bits: number; readonly autonomous: boolean };
  /** Resolvers, four words each, one after the other. */
  readonly dns?: Uint32Array;
  /** Search domains. A text that is not a domain name is left out. */
  readonly search?: readonly string[];
  /** NAT64 prefixes of the network. */
  readonly pref64?: readonly Pref64[];
}

/** A NAT64 prefix in a router advertisement. */
export interface Pref64 extends Nat64Prefix {
  /** For how long it may be used, at most 65,528 s, rounded up to a multiple of 8 s; 0: no longer. */
  readonly lifetimeS: number;
}

const PREF64_BYTES = 16;
/** 13 bits of it are in units of 8 s. */
const PREF64_LIFETIME_MAX = 0x1fff;
/** The code of each prefix length is its index (RFC 8781 section 4). */
const PREF64_CODES: readonly number[] = [96, 64, 56, 48, 40, 32];

/**
 * Write a PREF64 option (RFC 8781 section 4):
 *
 *  +0 type 38   +1 length 2   +2 | lifetime / 8, 13 | code of the length, 3 |   +4 bits 0 to 95 of the prefix
 */
function pref64Write(pool: Uint8Array, at: number, { words, bits, lifetimeS }: Pref64): number {
  const scaled = Math.min(Math.ceil(lifetimeS / 8), PREF64_LIFETIME_MAX);
  writeU32(pool, at, (NdpOption.pref64 << 24) | (2 << 16) | (scaled << 3) | PREF64_CODES.indexOf(bits));
  for (let i = 0; i < 3; i++) writeU32(pool, at + 4 + 4 * i, words[i]!);
  return PREF64_BYTES;
}

/**
 * Write a router advertisement; the checksum is left 0. Cold path.
 * @param limitBytes room from `at` on. An option for DNS or NAT64 that does not fit completely is left out: NAT64
 *   prefixes first, then the search list, then the resolvers.
 * @returns message bytes
 */
export function ndpRaWrite(
  pool: Uint8Array,
  at: number,
  advertisement: RouterAdvertisement,
  limitBytes = 1200,
): number {
  const { mac, mtu, prefix, dns, search } = advertisement;
  writeU32(pool, at, Icmp6Type.routerAdvertisement << 24);
  pool[at + 4] = advertisement.hopLimit;
  pool[at + 5] = (advertisement.managed ? 0x80 : 0) | (advertisement.other ? 0x40 : 0);
  writeU16(pool, at + 6, advertisement.routerLifetimeS);
  writeU32(pool, at + 8, 0); // reachable time: unspecified
  writeU32(pool, at + 12, 0); // retransmission timer: unspecified
  let bytes = ROUTER_ADVERTISEMENT_BYTES;
  bytes += linkLayerOptionWrite(pool, at + bytes, NdpOption.sourceLinkLayer, mac);
  if (mtu > 0) {
    writeU32(pool, at + bytes, (NdpOption.mtu << 24) | (1 << 16));
    writeU32(pool, at + bytes + 4, mtu);
    bytes += 8;
  }
  if (prefix !== undefined) {
    const option = at + bytes;
    const flags = 0x80 | (prefix.autonomous ? 0x40 : 0); // L: on-link, A: autonomous
    writeU32(pool, option, (NdpOption.prefixInformation << 24) | (4 << 16) | (prefix.bits << 8) | flags);
    writeU32(pool, option + 4, LIFETIME_INFINITE); // valid
    writeU32(pool, option + 8, LIFETIME_INFINITE); // preferred
    writeU32(pool, option + 12, 0);
    addressWrite(pool, option + 16, prefix.words, 0);
    bytes += 32;
  }
  const dnsCount = dns === undefined ? 0 : dns.length >>> 2;
  if (dns !== undefined && dnsCount > 0 && bytes + 8 + dnsCount * 16 <= limitBytes) {
    const option = at + bytes;
    writeU32(pool, option, (NdpOption.rdnss << 24) | ((1 + dnsCount * 2) << 16));
    writeU32(pool, option + 4, LIFETIME_INFINITE);
    for (let i = 0; i < dnsCount; i++) addressWrite(pool, option + 8 + i * 16, dns, i * 4);
    bytes += 8 + dnsCount * 16;
  }
  const domains = (search ?? []).map(domainLabels).filter((labels) => labels !== null);
  const domainBytes = domains.reduce((sum, labels) => labels.reduce((n, l) => n + 1 + l.length, sum + 1), 0);
  const dnsslBytes = (8 + domainBytes + 7) & ~7;
  // The option's length field is one byte: at most 255 units of 8 bytes.
  if (domainBytes > 0 && bytes + dnsslBytes <= limitBytes && dnsslBytes <= 255 * 8) {
    const option = at + bytes;
    writeU32(pool, option, (NdpOption.dnssl << 24) | ((dnsslBytes >>> 3) << 16));
    writeU32(pool, option + 4, LIFETIME_INFINITE);
    let i = option + 8;
    for (const labels of domains) i += domainWrite(pool, i, labels);
    pool.fill(0, i, option + dnsslBytes);
    bytes += dnsslBytes;
  }
  for (const prefix of advertisement.pref64 ?? [])
    if (bytes + PREF64_BYTES <= limitBytes) bytes += pref64Write(pool, at + bytes, prefix);
  return bytes;
}
