/**
 * Builds packets as a guest's kernel does, and decodes packets to the guest. Independent of the writers in
 * src; only the text forms of addresses come from src, and test/proto/address.test.ts compares these with
 * Node's.
 */
import { addressParse, addressRead, addressWrite, ipv6Text } from '../../src/proto/address.ts';
import { readU32 } from '../../src/proto/be.ts';
import { ipv4Text } from '../../src/proto/ipv4.ts';

/** An address of either family as four words, IPv4 v4-mapped. @throws RangeError for anything else */
export function addressWords(text: string): Uint32Array {
  const words = new Uint32Array(4);
  if (!addressParse(text, words, 0)) throw new RangeError(`"${text}" is not an address`);
  return words;
}

/** IPv6 text to 16 bytes. */
export function ip6(text: string): number[] {
  const bytes = new Uint8Array(16);
  addressWrite(bytes, 0, addressWords(text), 0);
  return Array.from(bytes);
}

/** IPv4 text to 4 bytes: the end of the v4-mapped address. */
export const ip4 = (text: string): number[] => ip6(text).slice(12);

/** Checksum of RFC 1071: 16-bit one's complement sum, complemented. */
export function checksum(bytes: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) {
    sum += (bytes[i]! << 8) | (bytes[i + 1] ?? 0);
    if (sum > 0xffff) sum = (sum & 0xffff) + 1;
  }
  return ~sum & 0xffff;
}

const be16 = (n: number): number[] => [(n >>> 8) & 0xff, n & 0xff];
const be32 = (n: number): number[] => [n >>> 24, (n >>> 16) & 0xff, (n >>> 8) & 0xff, n & 0xff];

const isV6 = (address: string): boolean => address.includes(':');

export interface IpOptions {
  readonly ttl?: number;
  /** TOS or traffic class. */
  readonly tos?: number;
  readonly ident?: number;
  /** Raw flags and fragment offset field (IPv4). */
  readonly flagsFrag?: number;
  readonly options?: readonly number[];
}

/** An IPv4 or IPv6 packet around an upper-layer message. */
export function ipPacket(
  src: string,
  dst: string,
  protocol: number,
  upper: ArrayLike<number>,
  o: IpOptions = {},
): Uint8Array {
  const ttl = o.ttl ?? 64;
  if (isV6(src)) {
    const tos = o.tos ?? 0;
    const head = [
      0x60 | (tos >> 4),
      (tos & 15) << 4,
      0,
      0,
      ...be16(upper.length),
      protocol,
      ttl,
      ...ip6(src),
      ...ip6(dst),
    ];
    return Uint8Array.from([...head, ...Array.from(upper)]);
  }
  const options = o.options ?? [];
  const headerBytes = 20 + options.length;
  const head = [
    0x40 | (headerBytes >> 2),
    o.tos ?? 0,
    ...be16(headerBytes + upper.length),
    ...be16(o.ident ?? 0x1234),
    ...be16(o.flagsFrag ?? 0x4000),
    ttl,
    protocol,
    0,
    0,
    ...ip4(src),
    ...ip4(dst),
    ...options,
  ];
  const sum = checksum(head);
  head[10] = sum >>> 8;
  head[11] = sum & 0xff;
  return Uint8Array.from([...head, ...Array.from(upper)]);
}

export function pseudoHeader(src: string, dst: string, protocol: number, bytes: number): number[] {
  return isV6(src)
    ? [...ip6(src), ...ip6(dst), ...be32(bytes), 0, 0, 0, protocol]
    : [...ip4(src), ...ip4(dst), 0, protocol, ...be16(bytes)];
}

/** A UDP datagram with a right checksum in an IP packet. */
export function udpPacket(
  src: string,
  srcPort: number,
  dst: string,
  dstPort: number,
  payload: ArrayLike<number>,
  o: IpOptions = {},
): Uint8Array {
  const length = 8 + payload.length;
  const udp = [...be16(srcPort), ...be16(dstPort), ...be16(length), 0, 0, ...Array.from(payload)];
  const sum = checksum([...pseudoHeader(src, dst, 17, length), ...udp]) || 0xffff;
  udp[6] = sum >>> 8;
  udp[7] = sum & 0xff;
  return ipPacket(src, dst, 17, udp, o);
}

/** An echo message (type 8, 0, 128 or 129) in an IP packet. */
export function echoPacket(
  src: string,
  dst: string,
  type: number,
  id: number,
  seq: number,
  data: ArrayLike<number>,
  o: IpOptions = {},
): Uint8Array {
  return ipPacket(src, dst, isV6(src) ? 58 : 1, echoMessage(src, dst, type, id, seq, data), o);
}

export function echoMessage(
  src: string,
  dst: string,
  type: number,
  id: number,
  seq: number,
  data: ArrayLike<number>,
): number[] {
  const message = [type, 0, 0, 0, ...be16(id), ...be16(seq), ...Array.from(data)];
  const pseudo = isV6(src) ? pseudoHeader(src, dst, 58, message.length) : [];
  const sum = checksum([...pseudo, ...message]);
  message[2] = sum >>> 8;
  message[3] = sum & 0xff;
  return message;
}

/** An ICMPv6 message in an IPv6 packet, with its checksum computed. */
export function icmp6Packet(
  src: string,
  dst: string,
  message: readonly number[],
  hopLimit = 255,
): Uint8Array {
  const m = [...message];
  m[2] = 0;
  m[3] = 0;
  const sum = checksum([...pseudoHeader(src, dst, 58, m.length), ...m]);
  m[2] = sum >>> 8;
  m[3] = sum & 0xff;
  return ipPacket(src, dst, 58, m, { ttl: hopLimit });
}

export interface Ip {
  readonly family: 4 | 6;
  readonly src: string;
  readonly dst: string;
  readonly protocol: number;
  readonly ttl: number;
  /** IPv4: flags and offset field; IPv6: offset and M of a fragment header, -1 without one. */
  readonly fragment: number;
  readonly ident: number;
  readonly upper: Uint8Array;
}

/** Text of 16 bytes. */
export function text6(bytes: Uint8Array): string {
  const words = new Uint32Array(4);
  addressRead(bytes, 0, words, 0);
  return ipv6Text(words, 0);
}

/** Decode an IP packet. @throws Error for a wrong length or IPv4 header checksum */
export function readIp(packet: Uint8Array): Ip {
  const u16 = (at: number): number => (packet[at]! << 8) | packet[at + 1]!;
  if (packet[0]! >>> 4 === 6) {
    if (u16(4) !== packet.length - 40)
      throw new Error(`IPv6 payload length ${u16(4)}, packet has ${packet.length - 40}`);
    const isFragment = packet[6] === 44;
    return {
      family: 6,
      src: text6(packet.subarray(8, 24)),
      dst: text6(packet.subarray(24, 40)),
      protocol: isFragment ? packet[40]! : packet[6]!,
      ttl: packet[7]!,
      fragment: isFragment ? u16(42) : -1,
      ident: isFragment ? ((u16(44) << 16) | u16(46)) >>> 0 : 0,
      upper: packet.slice(isFragment ? 48 : 40),
    };
  }
  const headerBytes = (packet[0]! & 15) * 4;
  if (u16(2) !== packet.length) throw new Error(`IPv4 total length ${u16(2)}, packet has ${packet.length}`);
  if (checksum(packet.subarray(0, headerBytes)) !== 0) throw new Error('IPv4 header checksum is wrong');
  return {
    family: 4,
    src: ipv4Text(readU32(packet, 12)),
    dst: ipv4Text(readU32(packet, 16)),
    protocol: packet[9]!,
    ttl: packet[8]!,
    fragment: u16(6),
    ident: u16(4),
    upper: packet.slice(headerBytes),
  };
}

export interface Udp {
  readonly srcPort: number;
  readonly dstPort: number;
  readonly payload: Uint8Array;
}

/** Decode the UDP datagram of an IP packet. @throws Error for a wrong length or checksum */
export function readUdp(ip: Ip): Udp {
  const u16 = (at: number): number => (ip.upper[at]! << 8) | ip.upper[at + 1]!;
  if (ip.protocol !== 17) throw new Error(`protocol ${ip.protocol} is not UDP`);
  if (u16(4) !== ip.upper.length) throw new Error(`UDP length ${u16(4)}, packet has ${ip.upper.length}`);
  const sum = checksum([...pseudoHeader(ip.src, ip.dst, 17, ip.upper.length), ...ip.upper]);
  if (sum !== 0) throw new Error('UDP checksum is wrong');
  return { srcPort: u16(0), dstPort: u16(2), payload: ip.upper.slice(8) };
}

/** Whether the ICMP or ICMPv6 checksum of a packet is right. */
export function icmpChecksumOk(ip: Ip): boolean {
  const pseudo = ip.family === 6 ? pseudoHeader(ip.src, ip.dst, 58, ip.upper.length) : [];
  return checksum([...pseudo, ...ip.upper]) === 0;
}

/** Bytes 0, 1, 2 ... modulo 251: no power of two, so that a shifted copy is noticed. */
export function pattern(bytes: number, seed = 0): Uint8Array {
  return Uint8Array.from({ length: bytes }, (_, i) => (i + seed) % 251);
}
