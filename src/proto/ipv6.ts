/**
 * IPv6 header codec, RFC 8200 sections 3 and 4.
 *
 *      0               8               16              24            31
 *  +0 |version| traffic class |             flowLabel                 |
 *  +4 |           payloadLen          |  nextHeader   |   hopLimit    |
 *  +8 src, 16 bytes    +24 dst, 16 bytes    +40 extension headers, upper layer
 *
 * `at` is the offset of the version byte throughout.
 *
 * Invariant: once ipv6HeaderBytes() > 0, the 40 bytes of the fixed header may be read unchecked; once
 * ipv6Upper() === 0, the bytes up to the upper-layer header may be read unchecked too.
 */
import { readU16, readU32, writeU16, writeU32 } from './be.ts';
import { Drop } from './drop.ts';

export const IPV6_BYTES = 40;
/** Offsets from the version byte. */
export const IPV6_NEXT_HEADER = 6;
export const IPV6_SRC = 8;
export const IPV6_DST = 24;
/** RFC 8200 section 5: every link has at least this MTU. */
export const IPV6_MIN_MTU = 1280;

/** Next header values of the extension headers, and "no next header". */
export const Ipv6Next = { hopByHop: 0, routing: 43, fragment: 44, none: 59, destination: 60 } as const;

export const IPV6_FRAGMENT_BYTES = 8;

/**
 * Limits of the walk over extension headers, more than a normal packet has. The walk stays inside the first
 * piece of a frame.
 */
const MAX_EXTENSION_HEADERS = 8;
const MAX_EXTENSION_BYTES = 512;

/** Indices into ipv6Upper's `out`. */
export const Ipv6Out = {
  /** Upper-layer protocol (next header value). */
  protocol: 0,
  /** Offset of the upper-layer header, or of the fragment's data, from `at`. */
  upperAt: 1,
  /** Offset of the fragment header from `at`, -1 if there is none. */
  fragmentAt: 2,
  /** Fragment offset in bytes. */
  fragmentOffset: 3,
  /** M flag: 1 when more fragments follow. */
  moreFragments: 4,
  /** Identification of the fragmented packet as a signed 32-bit number. */
  ident: 5,
  /**
   * Offset from `at` of the next header byte that names the fragment header or, without one, the upper layer.
   */
  nextHeaderAt: 6,
} as const;
export const IPV6_OUT_WORDS = 7;

/**
 * Whether the address at `at` lies in ::ffff:0:0/96. address.ts keeps IPv4 addresses in this form; on the
 * wire it is invalid (RFC 4038 section 4.2).
 */
function isMappedAt(pool: Uint8Array, at: number): boolean {
  return readU32(pool, at + 8) === 0xffff && readU32(pool, at) === 0 && readU32(pool, at + 4) === 0;
}

/**
 * Check a fixed header in place.
 * @param availBytes bytes of the packet from `at` on. Only the first 40 are read, so the rest may lie
 *   elsewhere.
 * @returns 40, or Drop.short | ipVersion | ipv6PayloadLen | ipv6Address
 */
export function ipv6HeaderBytes(pool: Uint8Array, at: number, availBytes: number): number {
  if (availBytes < IPV6_BYTES) return Drop.short;
  if (pool[at]! >>> 4 !== 6) return Drop.ipVersion;
  const payloadBytes = readU16(pool, at + 4);
  // A length of 0 with a hop-by-hop header means a jumbogram (RFC 2675), which is refused. A length of 0 with
  // another next header is legal ("no next header"), although the packet carries nothing.
  if (payloadBytes > availBytes - IPV6_BYTES) return Drop.ipv6PayloadLen;
  if (payloadBytes === 0 && pool[at + IPV6_NEXT_HEADER] === Ipv6Next.hopByHop) return Drop.ipv6PayloadLen;
  // Without this check a guest could address the host's IPv4 loopback: the flow table takes a v4-mapped
  // address for an IPv4 address.
  if (isMappedAt(pool, at + IPV6_SRC) || isMappedAt(pool, at + IPV6_DST)) return Drop.ipv6Address;
  if (pool[at + IPV6_SRC] === 0xff) return Drop.ipv6Address; // RFC 4291 section 2.7: no multicast source
  return IPV6_BYTES;
}

/** Payload length: bytes after the fixed header, extension headers included. */
export function ipv6PayloadLen(pool: Uint8Array, at: number): number {
  return readU16(pool, at + 4);
}

/**
 * Next header of the fixed header: an extension header (Ipv6Next) or an upper-layer protocol (IpProtocol).
 */
export function ipv6NextHeader(pool: Uint8Array, at: number): number {
  return pool[at + IPV6_NEXT_HEADER]!;
}

/** Traffic class: DSCP in the upper six bits, ECN in the lower two (RFC 2474, RFC 3168). */
export function ipv6TrafficClass(pool: Uint8Array, at: number): number {
  return ((pool[at]! & 0x0f) << 4) | (pool[at + 1]! >>> 4);
}

/** Replace the traffic class. */
export function ipv6TrafficClassWrite(pool: Uint8Array, at: number, trafficClass: number): void {
  pool[at] = 0x60 | (trafficClass >>> 4);
  pool[at + 1] = ((trafficClass & 0x0f) << 4) | (pool[at + 1]! & 0x0f);
}

/** Hop limit. */
export function ipv6HopLimit(pool: Uint8Array, at: number): number {
  return pool[at + 7]!;
}

/**
 * Walk the extension headers to the upper-layer header, or to a fragment's data.
 *
 * The walk stops at the first fragment header, because the header it names lies in the reassembled packet.
 * The walk ends after 8 headers or 512 bytes. Nothing past 40 + payloadLen is read.
 * @param availBytes  as passed to ipv6HeaderBytes, which has accepted the header
 * @param out  filled, IPV6_OUT_WORDS words indexed by Ipv6Out; its content is undefined after a Drop
 * @returns 0, or Drop.ipv6Extension | fragment
 */
export function ipv6Upper(pool: Uint8Array, at: number, availBytes: number, out: Int32Array): number {
  const payloadEnd = IPV6_BYTES + readU16(pool, at + 4);
  const end = Math.min(payloadEnd, availBytes);
  let nextHeaderAt = IPV6_NEXT_HEADER;
  let next = pool[at + IPV6_NEXT_HEADER]!;
  let offset = IPV6_BYTES;
  out[Ipv6Out.fragmentAt] = -1;
  out[Ipv6Out.fragmentOffset] = 0;
  out[Ipv6Out.moreFragments] = 0;
  out[Ipv6Out.ident] = 0;
  for (let count = 0; count <= MAX_EXTENSION_HEADERS; count++) {
    switch (next) {
      case Ipv6Next.hopByHop:
        // RFC 8200 section 4.1: allowed only immediately after the fixed header.
        if (count !== 0) return Drop.ipv6Extension;
        break;
      case Ipv6Next.routing:
      case Ipv6Next.destination:
        break;
      case Ipv6Next.fragment: {
        if (offset + IPV6_FRAGMENT_BYTES > end) return Drop.ipv6Extension;
        const offsetFlags = readU16(pool, at + offset + 2);
        const fragmentOffset = offsetFlags & 0xfff8;
        const moreFragments = offsetFlags & 1;
        const dataBytes = payloadEnd - offset - IPV6_FRAGMENT_BYTES;
        // RFC 8200 section 4.5: the length of every fragment but the last is a multiple of 8, and the length
        // of the reassembled payload fits in 16 bits.
        if (moreFragments !== 0 && (dataBytes & 7) !== 0) return Drop.fragment;
        if (fragmentOffset + dataBytes > 0xffff) return Drop.fragment;
        out[Ipv6Out.protocol] = pool[at + offset]!;
        out[Ipv6Out.upperAt] = offset + IPV6_FRAGMENT_BYTES;
        out[Ipv6Out.fragmentAt] = offset;
        out[Ipv6Out.fragmentOffset] = fragmentOffset;
        out[Ipv6Out.moreFragments] = moreFragments;
        out[Ipv6Out.ident] = readU32(pool, at + offset + 4) | 0;
        out[Ipv6Out.nextHeaderAt] = nextHeaderAt;
        return 0;
      }
      case Ipv6Next.none:
        return Drop.ipv6Extension;
      default:
        out[Ipv6Out.protocol] = next;
        out[Ipv6Out.upperAt] = offset;
        out[Ipv6Out.nextHeaderAt] = nextHeaderAt;
        return 0;
    }
    if (offset + 8 > end) return Drop.ipv6Extension;
    const extensionBytes = (pool[at + offset + 1]! + 1) << 3;
    nextHeaderAt = offset;
    next = pool[at + offset]!;
    offset += extensionBytes;
    if (offset > end || offset - IPV6_BYTES > MAX_EXTENSION_BYTES) return Drop.ipv6Extension;
  }
  return Drop.ipv6Extension;
}

/** Length of a hop-by-hop options header that has only the Jumbo Payload option (RFC 2675 section 2). */
export const IPV6_JUMBO_BYTES = 8;

/**
 * Write a hop-by-hop options header with the Jumbo Payload option at `at`, immediately after a fixed header
 * whose payloadLen is 0 and whose next header is hop-by-hop.
 * @param nextHeader  the header that follows
 * @param payloadBytes  everything after the fixed header, this header included; more than 65,535
 */
export function ipv6JumboWrite(pool: Uint8Array, at: number, nextHeader: number, payloadBytes: number): void {
  pool[at] = nextHeader;
  pool[at + 1] = 0; // 8 bytes in all
  pool[at + 2] = 0xc2;
  pool[at + 3] = 4;
  writeU32(pool, at + 4, payloadBytes);
}

/** Write the first 8 bytes of the fixed header; the caller writes the addresses at IPV6_SRC and IPV6_DST. */
export function ipv6Write(
  pool: Uint8Array,
  at: number,
  payloadLen: number,
  nextHeader: number,
  hopLimit: number,
  flowLabel: number,
): void {
  writeU32(pool, at, 0x60000000 | (flowLabel & 0xfffff));
  writeU16(pool, at + 4, payloadLen);
  pool[at + IPV6_NEXT_HEADER] = nextHeader;
  pool[at + 7] = hopLimit;
}
