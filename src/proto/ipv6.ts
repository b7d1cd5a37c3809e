/**
 * IPv6 header codec, RFC 8200 sections 3 and 4.
 *
 *      0               8               16              24            31
 *  +0 |version| traffic class |             flowLabel                 |
 *  +4 |           payloadLen          |  nextHeader   |   hopLimit    |
 *  +8 src, 16 bytes    +24 dst, 16 bytes    +40 extension headers, upper layer
 *
 * Invariant: once ipv6HeaderBytes() > 0, the 40 bytes may be read unchecked; once ipv6Upper() === 0, so may
 * the bytes up to the upper header. `at` is the offset of the version byte throughout.
 */
import { readU16, readU32, writeU16, writeU32 } from './be.ts';
import { Drop } from './drop.ts';

export const IPV6_BYTES = 40;
/** Offsets from the version byte. */
export const IPV6_NEXT_HEADER = 6;
export const IPV6_SRC = 8;
export const IPV6_DST = 24;
/** RFC 8200 section 5: every link carries this much. */
export const IPV6_MIN_MTU = 1280;

/** Extension headers, by next header number. */
export const Ipv6Next = { hopByHop: 0, routing: 43, fragment: 44, none: 59, destination: 60 } as const;

export const IPV6_FRAGMENT_BYTES = 8;

/** More headers or bytes than any honest packet has: the walk stays inside the first piece of a frame. */
const MAX_EXTENSION_HEADERS = 8;
const MAX_EXTENSION_BYTES = 512;

/** Indices into ipv6Upper's `out`. */
export const Ipv6Out = {
  /** Upper protocol (next header number). */
  protocol: 0,
  /** Offset of the upper header (or of the fragment's data) from `at`. */
  upperAt: 1,
  /** Offset of the fragment header from `at`, -1 without one. */
  fragmentAt: 2,
  /** Fragment offset in bytes. */
  fragmentOffset: 3,
  /** 1 when more fragments follow. */
  moreFragments: 4,
  /** Identification of the fragmented packet, as a signed 32-bit number. */
  ident: 5,
  /**
   * Offset from `at` of the next-header byte that names the fragment header, or the upper header without one.
   */
  nextHeaderAt: 6,
} as const;
export const IPV6_OUT_WORDS = 7;

/** ::ffff:0:0/96: our notation for IPv4, never right on the wire (RFC 4038 section 4.2). */
function isMappedAt(pool: Uint8Array, at: number): boolean {
  return readU32(pool, at + 8) === 0xffff && readU32(pool, at) === 0 && readU32(pool, at + 4) === 0;
}

/**
 * Check a fixed header in place.
 * @param availBytes  bytes of the frame from `at` on; only 40 are read, so the rest may lie elsewhere
 * @returns 40, or Drop.short | ipVersion | ipv6PayloadLen | ipv6Address
 */
export function ipv6HeaderBytes(pool: Uint8Array, at: number, availBytes: number): number {
  if (availBytes < IPV6_BYTES) return Drop.short;
  if (pool[at]! >>> 4 !== 6) return Drop.ipVersion;
  const payloadBytes = readU16(pool, at + 4);
  // 0 with a hop-by-hop header announces a jumbogram (RFC 2675); 0 with anything else carries nothing we could use
  // but is legal ("no next header").
  if (payloadBytes > availBytes - IPV6_BYTES) return Drop.ipv6PayloadLen;
  if (payloadBytes === 0 && pool[at + IPV6_NEXT_HEADER] === Ipv6Next.hopByHop) return Drop.ipv6PayloadLen;
  // Unchecked, a guest could name the host's IPv4 loopback through the address words that the flow table
  // uses.
  if (isMappedAt(pool, at + IPV6_SRC) || isMappedAt(pool, at + IPV6_DST)) return Drop.ipv6Address;
  if (pool[at + IPV6_SRC] === 0xff) return Drop.ipv6Address; // RFC 4291 section 2.7: no multicast source
  return IPV6_BYTES;
}

/** Bytes after the fixed header, extension headers included. */
export function ipv6PayloadLen(pool: Uint8Array, at: number): number {
  return readU16(pool, at + 4);
}

/** Next Header of the fixed header: an extension header or the upper protocol. */
export function ipv6NextHeader(pool: Uint8Array, at: number): number {
  return pool[at + IPV6_NEXT_HEADER]!;
}

/** Hop limit. */
export function ipv6HopLimit(pool: Uint8Array, at: number): number {
  return pool[at + 7]!;
}

/**
 * Walk the extension headers to the upper layer, or to a fragment's data.
 *
 * Stops at the first fragment header: what it announces lies in the reassembled packet. Bounded by 8 headers
 * and 512 bytes; nothing past 40 + payloadLen is read.
 * @param availBytes  as given to ipv6HeaderBytes, which has accepted the header
 * @param out  caller's words, filled by Ipv6Out; undefined content after a Drop
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
        // RFC 8200 section 4.1: only right after the fixed header.
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
        // RFC 8200 section 4.5: all but the last are multiples of 8; reassembled payload fits in 16 bits.
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

/** Hop-by-hop options header with nothing but the Jumbo Payload option (RFC 2675 section 2). */
export const IPV6_JUMBO_BYTES = 8;

/**
 * Write that header at `at`, right behind the fixed one, whose payloadLen is 0 and whose nextHeader is
 * hop-by-hop then.
 * @param payloadBytes  everything behind the fixed header, this one included; more than 65,535
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
