/**
 * IPv4 addresses in IPv6 addresses (RFC 6052), and how a NAT64 prefix is found by a DNS query (RFC 7050).
 *
 *     bits  0      32     40     48     56     64     72     80     88     96    104         128
 *     /32   prefix | IPv4 address               | 0    | suffix
 *     /40   prefix        | IPv4 address        | 0    | IPv4 | suffix
 *     /48   prefix               | IPv4 address | 0    | IPv4        | suffix
 *     /56   prefix                      | IPv4  | 0    | IPv4               | suffix
 *     /64   prefix                              | 0    | IPv4 address              | suffix
 *     /96   prefix                                                   | IPv4 address
 */

/** A NAT64 prefix. `words` has no bits behind the first `bits`. */
export interface Nat64Prefix {
  readonly words: readonly [number, number, number, number];
  /** 32, 40, 48, 56, 64 or 96. */
  readonly bits: number;
}

/** All lengths of a NAT64 prefix (RFC 6052 section 2.2). */
export const NAT64_BITS: readonly number[] = [32, 40, 48, 56, 64, 96];

/** 64:ff9b::/96, the well-known prefix (RFC 6052 section 2.1). */
export const NAT64_WELL_KNOWN: Nat64Prefix = { words: [0x0064ff9b, 0, 0, 0], bits: 96 };

/** 192.0.0.170 and 192.0.0.171: the addresses of ipv4only.arpa (RFC 7050 section 8.2). */
const IPV4ONLY = [0xc00000aa, 0xc00000ab] as const;

/**
 * The IPv4 address in an IPv6 address. Bits 64 to 71 and the suffix are ignored.
 * @param words,w  the IPv6 address, words[w..w + 3]
 * @param bits  length of the NAT64 prefix, one of NAT64_BITS
 */
export function nat64Ipv4(words: Uint32Array, w: number, bits: number): number {
  const b = words[w + 1]!;
  const c = words[w + 2]!;
  switch (bits) {
    case 32:
      return b;
    case 40:
      return ((b << 8) | ((c >>> 16) & 0xff)) >>> 0;
    case 48:
      return ((b << 16) | ((c >>> 8) & 0xffff)) >>> 0;
    case 56:
      return ((b << 24) | (c & 0xffffff)) >>> 0;
    case 64:
      return ((c << 8) | (words[w + 3]! >>> 24)) >>> 0;
    default:
      return words[w + 3]!;
  }
}

/** The word of a mask of `bits` of 128 that covers address word `i`. */
function maskWord(bits: number, i: number): number {
  const left = bits - 32 * i;
  return left <= 0 ? 0 : left >= 32 ? 0xffffffff : (0xffffffff << (32 - left)) >>> 0;
}

/**
 * Whether an address has a NAT64 prefix.
 * @param prefix,p  the prefix's words, prefix[p..p + 3], of which those behind `bits` are 0
 */
export function nat64Matches(
  words: Uint32Array,
  w: number,
  prefix: ArrayLike<number>,
  p: number,
  bits: number,
): boolean {
  for (let i = 0; i < 4; i++) if (((words[w + i]! ^ prefix[p + i]!) & maskWord(bits, i)) !== 0) return false;
  return true;
}

/** The prefix of an address. @param bits  one of NAT64_BITS */
export function nat64PrefixOf(words: Uint32Array, w: number, bits: number): Nat64Prefix {
  const word = (i: number): number => (words[w + i]! & maskWord(bits, i)) >>> 0;
  return { words: [word(0), word(1), word(2), word(3)], bits };
}

/** Whether two prefixes are the same. */
export const nat64Equal = (a: Nat64Prefix, b: Nat64Prefix): boolean =>
  a.bits === b.bits && a.words.every((word, i) => word === b.words[i]);

/**
 * Whether a prefix can be that of a translator: in 2000::/3, fc00::/7, or one of the two well-known ranges
 * 64:ff9b::/96 and 64:ff9b:1::/48 (RFC 8215). Not multicast, link-local, loopback or v4-mapped addresses.
 */
export function nat64IsUsable({ words: [a, b], bits }: Nat64Prefix): boolean {
  if (a === 0x0064ff9b) return b >>> 16 === 1 ? bits >= 48 : b === 0 && bits === 96;
  return a >>> 29 === 1 || a >>> 25 === 0xfc >>> 1;
}

/**
 * The NAT64 prefixes in the AAAA records of ipv4only.arpa (RFC 7050 section 3). Its two IPv4 addresses are
 * looked for in every place that RFC 6052 allows. A prefix may contain one of them itself: where an address
 * has several of these places, those count for which another record has the other IPv4 address behind the
 * same prefix; an address that is still ambiguous is left out.
 * @param addresses  four words each
 * @returns each prefix once, in the order of the records
 */
export function nat64Find(addresses: Uint32Array): Nat64Prefix[] {
  const found: Nat64Prefix[] = [];
  const isPlace = (w: number, bits: number, ipv4: readonly number[]): boolean =>
    ipv4.includes(nat64Ipv4(addresses, w, bits)) &&
    // Bits 64 to 71 are 0 (RFC 6052 section 2.2). Of /96 they are the prefix's: networks use others, too.
    (bits === 96 || addresses[w + 2]! >>> 24 === 0) &&
    nat64IsUsable(nat64PrefixOf(addresses, w, bits));
  for (let w = 0; w + 4 <= addresses.length; w += 4) {
    let places = NAT64_BITS.filter((bits) => isPlace(w, bits, IPV4ONLY));
    if (places.length > 1)
      places = places.filter((bits) => {
        const other = IPV4ONLY.filter((ipv4) => ipv4 !== nat64Ipv4(addresses, w, bits));
        const prefix = nat64PrefixOf(addresses, w, bits).words;
        for (let v = 0; v + 4 <= addresses.length; v += 4)
          if (isPlace(v, bits, other) && nat64Matches(addresses, v, prefix, 0, bits)) return true;
        return false;
      });
    if (places.length !== 1) continue;
    const prefix = nat64PrefixOf(addresses, w, places[0]!);
    if (!found.some((known) => nat64Equal(known, prefix))) found.push(prefix);
  }
  return found;
}
