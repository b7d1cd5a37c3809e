/**
 * Cuts a GSO frame, which is many packets of one flow in one frame (virtio 1.2 section 5.1.6), into frames of a
 * single packet or of several: TCP segments, or UDP datagrams of equal size.
 *
 *     | vnet 12 | eth 14 | IP | TCP or UDP | payload of packet 0 | of packet 1 | ... | of the last one, shorter |
 *      ^ at
 *      <------------ headBytes ----------->  gsoSize bytes each
 *
 * Transport checksums stay partial: the field has the sum of the pseudo header.
 */

import { readU32, writeU16, writeU32 } from '../../proto/be.ts';
import { finishSum, foldSum, onesSum, pseudoSum4, pseudoSum6At } from '../../proto/checksum.ts';
import { ETH_BYTES, EtherType, etherType } from '../../proto/ethernet.ts';
import { IPV4_CHECKSUM, IPV4_MIN_BYTES, IpProtocol, ipv4Dst, ipv4Ident, ipv4Src } from '../../proto/ipv4.ts';
import { IPV6_BYTES, IPV6_DST, IPV6_SRC } from '../../proto/ipv6.ts';
import { TCP_CHECKSUM, TCP_MIN_BYTES, TcpFlag } from '../../proto/tcp.ts';
import { UDP_BYTES, UDP_CHECKSUM } from '../../proto/udp.ts';
import {
  VNET_BYTES,
  VnetFlag,
  VnetGso,
  vnetCsumStart,
  vnetFlags,
  vnetGsoSize,
  vnetGsoType,
  vnetWrite,
} from '../../proto/vnethdr.ts';

/** More packets than a kernel puts in a frame: 64 KiB of segments of 48 bytes. */
const MOST_PACKETS = 2048;
const IPV4_TOTAL_LEN = 2;
const IPV4_IDENT = 4;
const IPV6_PAYLOAD_LEN = 4;
const UDP_LENGTH = 4;
const TCP_SEQ = 4;
const TCP_FLAGS = 13;

export class SuperFrame {
  /** Bytes of the headers, vnet header included, and of the payload. */
  headBytes = 0;
  payloadBytes = 0;
  /** Payload bytes of each packet but the last. */
  gsoSize = 0;
  packets = 0;
  #gsoType: number = VnetGso.none;
  /** Of the transport header from the Ethernet header. */
  #csumStart = 0;
  #isV6 = false;

  /**
   * Read the headers of a frame.
   * @param at,bytes  the frame from its vnet header on, contiguous in u8
   * @returns false: it is a single packet, or malformed
   */
  parse(u8: Uint8Array, at: number, bytes: number): boolean {
    if (bytes < VNET_BYTES + ETH_BYTES) return false;
    const gsoType = vnetGsoType(u8, at) & ~VnetGso.ecn;
    const isTcp = gsoType === VnetGso.tcpv4 || gsoType === VnetGso.tcpv6;
    if (!isTcp && gsoType !== VnetGso.udpL4) return false;
    if ((vnetFlags(u8, at) & VnetFlag.needsCsum) === 0) return false;
    const ethAt = at + VNET_BYTES;
    const type = etherType(u8, ethAt);
    const csumStart = vnetCsumStart(u8, at);
    const upperAt = ethAt + csumStart;
    const leastUpper = isTcp ? TCP_MIN_BYTES : UDP_BYTES;
    if (VNET_BYTES + csumStart + leastUpper > bytes) return false;
    const isV6 = type === EtherType.ipv6;
    if (!isV6) {
      if (type !== EtherType.ipv4 || csumStart < ETH_BYTES + IPV4_MIN_BYTES) return false;
      if (csumStart !== ETH_BYTES + (u8[ethAt + ETH_BYTES]! & 15) * 4) return false;
    } else if (csumStart < ETH_BYTES + IPV6_BYTES) return false;
    if (isTcp && isV6 !== (gsoType === VnetGso.tcpv6)) return false;
    const upperBytes = isTcp ? (u8[upperAt + 12]! >>> 4) * 4 : UDP_BYTES;
    const headBytes = VNET_BYTES + csumStart + upperBytes;
    const gsoSize = vnetGsoSize(u8, at);
    const payloadBytes = bytes - headBytes;
    if (upperBytes < leastUpper || payloadBytes <= 0 || gsoSize === 0) return false;
    const packets = Math.ceil(payloadBytes / gsoSize);
    if (packets > MOST_PACKETS) return false;
    this.headBytes = headBytes;
    this.payloadBytes = payloadBytes;
    this.gsoSize = gsoSize;
    this.packets = packets;
    this.#gsoType = gsoType;
    this.#csumStart = csumStart;
    this.#isV6 = isV6;
    return true;
  }

  /** Payload bytes of some packets. */
  payloadOf(first: number, packets: number): number {
    return Math.min(packets * this.gsoSize, this.payloadBytes - first * this.gsoSize);
  }

  /** Bytes of some packets on a line, from the Ethernet header on. */
  lineBytes(first: number, packets: number): number {
    return packets * (this.headBytes - VNET_BYTES) + this.payloadOf(first, packets);
  }

  /**
   * Complete the headers of a frame with some of the packets.
   * @param at  the frame in u8: a copy of the headers, the payload need not be there
   * @param first,packets  which packets
   */
  writeHeaders(u8: Uint8Array, at: number, first: number, packets: number): void {
    const csumStart = this.#csumStart;
    const ethAt = at + VNET_BYTES;
    const ipAt = ethAt + ETH_BYTES;
    const upperAt = ethAt + csumStart;
    const upperBytes = this.headBytes - VNET_BYTES - csumStart + this.payloadOf(first, packets);
    const isTcp = this.#gsoType !== VnetGso.udpL4;
    const field = isTcp ? TCP_CHECKSUM : UDP_CHECKSUM;
    if (packets === 1) vnetWrite(u8, at, VnetFlag.needsCsum, VnetGso.none, 0, 0, csumStart, field);
    else {
      const hdrLen = this.headBytes - VNET_BYTES;
      vnetWrite(u8, at, VnetFlag.needsCsum, this.#gsoType, hdrLen, this.gsoSize, csumStart, field);
    }
    const protocol = isTcp ? IpProtocol.tcp : IpProtocol.udp;
    let sum: number;
    if (this.#isV6) {
      writeU16(u8, ipAt + IPV6_PAYLOAD_LEN, upperAt - ipAt - IPV6_BYTES + upperBytes);
      sum = pseudoSum6At(u8, ipAt + IPV6_SRC, ipAt + IPV6_DST, protocol, upperBytes);
    } else {
      writeU16(u8, ipAt + IPV4_TOTAL_LEN, upperAt - ipAt + upperBytes);
      writeU16(u8, ipAt + IPV4_IDENT, ipv4Ident(u8, ipAt) + first);
      writeU16(u8, ipAt + IPV4_CHECKSUM, 0);
      writeU16(u8, ipAt + IPV4_CHECKSUM, finishSum(onesSum(u8, ipAt, upperAt - ipAt, 0)));
      sum = pseudoSum4(ipv4Src(u8, ipAt), ipv4Dst(u8, ipAt), protocol, upperBytes);
    }
    writeU16(u8, upperAt + field, foldSum(sum));
    if (!isTcp) {
      writeU16(u8, upperAt + UDP_LENGTH, upperBytes);
      return;
    }
    writeU32(u8, upperAt + TCP_SEQ, (readU32(u8, upperAt + TCP_SEQ) + first * this.gsoSize) >>> 0);
    if (first > 0) u8[upperAt + TCP_FLAGS]! &= ~TcpFlag.cwr;
    if (first + packets < this.packets) u8[upperAt + TCP_FLAGS]! &= ~(TcpFlag.fin | TcpFlag.psh);
  }
}
