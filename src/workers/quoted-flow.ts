/**
 * Which UDP flow an ICMP "port unreachable" of the guest's is about: a program inside has closed its socket, and the world goes on
 * sending. It quotes the head of a datagram of ours (RFC 792, RFC 4443 section 3.1), whose source is the remote.
 */
import { addressRead } from '../proto/address.ts';
import { readU16, readU32 } from '../proto/be.ts';
import { ICMP_BYTES, IcmpType, IcmpUnreachable, icmpCode, icmpType } from '../proto/icmp.ts';
import { Icmp6Type, Icmp6Unreachable } from '../proto/icmpv6.ts';
import { IPV4_MIN_BYTES, IpProtocol } from '../proto/ipv4.ts';
import { IPV6_BYTES, IPV6_DST, IPV6_SRC } from '../proto/ipv6.ts';

const IPV4_FRAGMENT = 6;
const IPV4_PROTOCOL = 9;
const IPV4_SRC_AT = 12;
const IPV4_DST_AT = 16;
const IPV6_NEXT_HEADER = 6;
const FRAGMENT_OFFSET_MASK = 0x1fff;

/**
 * @param at  offset of the ICMP message
 * @param availBytes  readable bytes from there
 * @param words  out: guest address in words 0..3, remote in 4..7
 * @returns ports, guest << 16 | remote as u32, or -1: it is something else
 */
export function unreachableUdpFlow(
  u8: Uint8Array,
  at: number,
  availBytes: number,
  family: 4 | 6,
  words: Uint32Array,
): number {
  const headerBytes = family === 4 ? IPV4_MIN_BYTES : IPV6_BYTES;
  if (availBytes < ICMP_BYTES + headerBytes + 4) return -1;
  const type = family === 4 ? IcmpType.unreachable : Icmp6Type.unreachable;
  const code = family === 4 ? IcmpUnreachable.port : Icmp6Unreachable.port;
  if (icmpType(u8, at) !== type || icmpCode(u8, at) !== code) return -1;
  const ipAt = at + ICMP_BYTES;
  // Our datagrams have neither options nor extension headers, and fragments after the first name no ports.
  if (family === 4) {
    if (u8[ipAt] !== 0x45 || u8[ipAt + IPV4_PROTOCOL] !== IpProtocol.udp) return -1;
    if ((readU16(u8, ipAt + IPV4_FRAGMENT) & FRAGMENT_OFFSET_MASK) !== 0) return -1;
    for (let w = 0; w < 8; w++) words[w] = w % 4 === 2 ? 0xffff : 0;
    words[3] = readU32(u8, ipAt + IPV4_DST_AT);
    words[7] = readU32(u8, ipAt + IPV4_SRC_AT);
  } else {
    if (u8[ipAt]! >>> 4 !== 6 || u8[ipAt + IPV6_NEXT_HEADER] !== IpProtocol.udp) return -1;
    addressRead(u8, ipAt + IPV6_DST, words, 0);
    addressRead(u8, ipAt + IPV6_SRC, words, 4);
  }
  const remotePort = readU16(u8, ipAt + headerBytes);
  const guestPort = readU16(u8, ipAt + headerBytes + 2);
  return ((guestPort << 16) | remotePort) >>> 0;
}
