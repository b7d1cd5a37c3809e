/**
 * Which flow an ICMP error from the guest is about. Two kinds are evaluated: port unreachable for UDP, after
 * a program in the guest has closed its socket while a peer goes on sending; and "too big" for TCP, from a
 * guest that routes over a link with a smaller MTU. Both quote the start of a packet that we sent to the
 * guest (RFC 792, RFC 1191 section 4, RFC 4443 section 3): its source is the remote, its destination the
 * guest.
 */
import { addressRead, addressSetIpv4 } from '../../proto/address.ts';
import { readU16, readU32 } from '../../proto/be.ts';
import { ICMP_BYTES, IcmpType, IcmpUnreachable, icmpCode, icmpType } from '../../proto/icmp.ts';
import { Icmp6Type, Icmp6Unreachable } from '../../proto/icmpv6.ts';
import { IPV4_MIN_BYTES, IpProtocol } from '../../proto/ipv4.ts';
import { IPV6_BYTES, IPV6_DST, IPV6_SRC } from '../../proto/ipv6.ts';

const IPV4_FRAGMENT = 6;
const IPV4_PROTOCOL = 9;
const IPV4_SRC_AT = 12;
const IPV4_DST_AT = 16;
const IPV6_NEXT_HEADER = 6;
const FRAGMENT_OFFSET_MASK = 0x1fff;

/**
 * IP protocol of the packet that an ICMP message quotes. Only after quotedFlow() returned ports.
 * @param at  offset of the ICMP message
 */
export function quotedProtocol(u8: Uint8Array, at: number, family: 4 | 6): number {
  return u8[at + ICMP_BYTES + (family === 4 ? IPV4_PROTOCOL : IPV6_NEXT_HEADER)]!;
}

/**
 * Sequence number of the TCP segment that an ICMP message quotes. Only after quotedFlow() returned ports.
 * @param at  offset of the ICMP message
 */
export function quotedTcpSeq(u8: Uint8Array, at: number, family: 4 | 6): number {
  return readU32(u8, at + ICMP_BYTES + (family === 4 ? IPV4_MIN_BYTES : IPV6_BYTES) + 4);
}

/**
 * The MTU in a "too big" message (RFC 1191 section 4, RFC 4443 section 3.2).
 * @param at  offset of the ICMP message
 * @returns bytes; 0: the router is older than RFC 1191 and gives none
 */
export function nextHopMtu(u8: Uint8Array, at: number, family: 4 | 6): number {
  return family === 4 ? readU16(u8, at + 6) : readU32(u8, at + 4);
}

/**
 * Find out which flow an ICMP error is about.
 * @param at  offset of the ICMP message
 * @param availBytes  readable bytes from there
 * @param words  out: guest address in words 0..3, remote in 4..7
 * @returns ports, guest << 16 | remote as u32; the 8 bytes behind the quoted IP header may then be read. Or
 *   -1: it is not such an error.
 */
export function quotedFlow(
  u8: Uint8Array,
  at: number,
  availBytes: number,
  family: 4 | 6,
  words: Uint32Array,
): number {
  const headerBytes = family === 4 ? IPV4_MIN_BYTES : IPV6_BYTES;
  if (availBytes < ICMP_BYTES + headerBytes + 8) return -1;
  const proto = quotedProtocolOf(family, icmpType(u8, at), icmpCode(u8, at));
  if (proto < 0) return -1;
  const ipAt = at + ICMP_BYTES;
  // The packets that we send have neither IP options nor extension headers; only a first fragment has the
  // ports.
  if (family === 4) {
    if (u8[ipAt] !== 0x45 || u8[ipAt + IPV4_PROTOCOL] !== proto) return -1;
    if ((readU16(u8, ipAt + IPV4_FRAGMENT) & FRAGMENT_OFFSET_MASK) !== 0) return -1;
    addressSetIpv4(words, 0, readU32(u8, ipAt + IPV4_DST_AT));
    addressSetIpv4(words, 4, readU32(u8, ipAt + IPV4_SRC_AT));
  } else {
    if (u8[ipAt]! >>> 4 !== 6 || u8[ipAt + IPV6_NEXT_HEADER] !== proto) return -1;
    addressRead(u8, ipAt + IPV6_DST, words, 0);
    addressRead(u8, ipAt + IPV6_SRC, words, 4);
  }
  const remotePort = readU16(u8, ipAt + headerBytes);
  const guestPort = readU16(u8, ipAt + headerBytes + 2);
  return ((guestPort << 16) | remotePort) >>> 0;
}

/** @returns the protocol whose flows evaluate an error of that type and code, or -1: none does */
function quotedProtocolOf(family: 4 | 6, type: number, code: number): number {
  if (family === 6) {
    if (type === Icmp6Type.packetTooBig) return IpProtocol.tcp;
    return type === Icmp6Type.unreachable && code === Icmp6Unreachable.port ? IpProtocol.udp : -1;
  }
  if (type !== IcmpType.unreachable) return -1;
  if (code === IcmpUnreachable.fragmentationNeeded) return IpProtocol.tcp;
  return code === IcmpUnreachable.port ? IpProtocol.udp : -1;
}
