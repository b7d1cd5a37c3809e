/**
 * Runs a capture filter over an Ethernet frame. A filter is a program of tests with jumps, as classic BPF has
 * them, in words of an Int32Array; main/cli/capture-filter.ts makes it from an expression. Pure; allocates
 * nothing.
 *
 *   instruction   op | next if true | next if false | A | B | C | D | E       FILTER_WORDS words
 *
 * `next` is the number of an instruction; ACCEPT and REJECT end the program. Jumps lead forwards only, so that
 * a program ends.
 */
import { addressRead, addressSetIpv4 } from './address.ts';
import { ARP_BYTES } from './arp.ts';
import { readU16, readU32 } from './be.ts';
import { ETH_BYTES, EtherType, etherType } from './ethernet.ts';
import { IcmpType } from './icmp.ts';
import { Icmp6Type } from './icmpv6.ts';
import { IPV4_DST, IPV4_MIN_BYTES, IPV4_SRC, IpProtocol, ipv4FragOffset, ipv4Protocol } from './ipv4.ts';
import { IPV6_BYTES, IPV6_DST, IPV6_OUT_WORDS, IPV6_SRC, Ipv6Out, ipv6Upper } from './ipv6.ts';

export const FILTER_WORDS = 8;
export const ACCEPT = -1;
export const REJECT = -2;

/** Tests, and what A to E mean. */
export const FilterOp = {
  /** EtherType A. */
  etherType: 0,
  /** IP protocol A. */
  protocol: 1,
  /** Source or destination port from A to B; fragments have none. */
  sourcePort: 2,
  destinationPort: 3,
  /**
   * Source or destination address is in the network A..D, with E bits; IPv4 as v4-mapped, also those of ARP.
   */
  source: 4,
  destination: 5,
  /** Length of the frame from A to B. */
  length: 6,
  /** 1: the guest sent the frame, 0: it was sent to the guest. */
  fromGuest: 7,
  /** The engine dropped the frame. */
  dropped: 8,
  /** Always, or never: A. */
  constant: 9,
} as const;

const ARP_SENDER_IP = 14;
const ARP_TARGET_IP = 24;
/** Offset of the byte with the flags in a TCP header. */
const TCP_FLAGS = 13;

/** What the headers of a frame say, as far as they can be read. One object for many frames. */
export class FrameHeaders {
  /** EtherType; -1: the frame is too short to have one. */
  etherType = -1;
  /** IP protocol; -1: none. */
  protocol = -1;
  hasAddresses = false;
  /** Source in words 0..3, destination in 4..7, IPv4 as v4-mapped. */
  readonly addresses = new Uint32Array(8);
  /** Source port << 16 | destination port, of echo messages the identifier << 16; -1: none. */
  ports = -1;
  /** Of TCP, else 0. */
  tcpFlags = 0;
  frameBytes = 0;
  fromGuest = false;
  readonly #upper = new Int32Array(IPV6_OUT_WORDS);

  /**
   * @param u8,at  the frame, from its Ethernet header on
   * @param bytes  readable bytes from `at` on
   * @param frameBytes  length of the frame
   */
  read(u8: Uint8Array, at: number, bytes: number, frameBytes: number, fromGuest: boolean): void {
    this.frameBytes = frameBytes;
    this.fromGuest = fromGuest;
    this.protocol = -1;
    this.hasAddresses = false;
    this.ports = -1;
    this.tcpFlags = 0;
    this.etherType = bytes < ETH_BYTES ? -1 : etherType(u8, at);
    const ipAt = at + ETH_BYTES;
    const ipBytes = bytes - ETH_BYTES;
    if (this.etherType === EtherType.ipv4) this.#readIpv4(u8, ipAt, ipBytes);
    else if (this.etherType === EtherType.ipv6) this.#readIpv6(u8, ipAt, ipBytes);
    else if (this.etherType === EtherType.arp && ipBytes >= ARP_BYTES) {
      addressSetIpv4(this.addresses, 0, readU32(u8, ipAt + ARP_SENDER_IP));
      addressSetIpv4(this.addresses, 4, readU32(u8, ipAt + ARP_TARGET_IP));
      this.hasAddresses = true;
    }
  }

  #readIpv4(u8: Uint8Array, at: number, bytes: number): void {
    // Not ipv4HeaderBytes(): a malformed packet, or one beyond 64 KiB, has addresses too.
    if (bytes < IPV4_MIN_BYTES) return;
    this.protocol = ipv4Protocol(u8, at);
    addressSetIpv4(this.addresses, 0, readU32(u8, at + IPV4_SRC));
    addressSetIpv4(this.addresses, 4, readU32(u8, at + IPV4_DST));
    this.hasAddresses = true;
    const headerBytes = (u8[at]! & 0xf) * 4;
    if (ipv4FragOffset(u8, at) === 0) this.#readTransport(u8, at + headerBytes, bytes - headerBytes);
  }

  #readIpv6(u8: Uint8Array, at: number, bytes: number): void {
    if (bytes < IPV6_BYTES) return;
    addressRead(u8, at + IPV6_SRC, this.addresses, 0);
    addressRead(u8, at + IPV6_DST, this.addresses, 4);
    this.hasAddresses = true;
    const upper = this.#upper;
    if (ipv6Upper(u8, at, bytes, upper) < 0) return;
    this.protocol = upper[Ipv6Out.protocol]!;
    if (upper[Ipv6Out.fragmentOffset] !== 0) return;
    const upperAt = upper[Ipv6Out.upperAt]!;
    this.#readTransport(u8, at + upperAt, bytes - upperAt);
  }

  #readTransport(u8: Uint8Array, at: number, bytes: number): void {
    const { protocol } = this;
    if (protocol === IpProtocol.tcp || protocol === IpProtocol.udp) {
      if (bytes < 4) return;
      this.ports = readU32(u8, at);
      if (protocol === IpProtocol.tcp && bytes > TCP_FLAGS) this.tcpFlags = u8[at + TCP_FLAGS]!;
    } else if (protocol === IpProtocol.icmp || protocol === IpProtocol.icmpv6) {
      const isEcho =
        protocol === IpProtocol.icmp
          ? u8[at] === IcmpType.echoRequest || u8[at] === IcmpType.echoReply
          : u8[at] === Icmp6Type.echoRequest || u8[at] === Icmp6Type.echoReply;
      if (isEcho && bytes >= 8) this.ports = (readU16(u8, at + 4) << 16) >>> 0;
    }
  }
}

export class FrameFilter {
  readonly #program: Int32Array;
  /** Whether the program asks for what is known only after the frame was handled. */
  readonly asksForDrops: boolean;

  constructor(program: Int32Array) {
    this.#program = program;
    let asks = false;
    for (let at = 0; at < program.length; at += FILTER_WORDS)
      if (program[at] === FilterOp.dropped) asks = true;
    this.asksForDrops = asks;
  }

  /** Whether a frame passes. @param dropped  the engine dropped it */
  matches(headers: FrameHeaders, dropped: boolean): boolean {
    const program = this.#program;
    let next = 0;
    while (next >= 0) {
      const at = next * FILTER_WORDS;
      next = this.#test(at, headers, dropped) ? program[at + 1]! : program[at + 2]!;
    }
    return next === ACCEPT;
  }

  #test(at: number, h: FrameHeaders, dropped: boolean): boolean {
    const program = this.#program;
    const a = program[at + 3]!;
    const b = program[at + 4]!;
    switch (program[at]) {
      case FilterOp.etherType:
        return h.etherType === a;
      case FilterOp.protocol:
        return h.protocol === a;
      case FilterOp.sourcePort:
        return hasPorts(h) && h.ports >>> 16 >= a && h.ports >>> 16 <= b;
      case FilterOp.destinationPort:
        return hasPorts(h) && (h.ports & 0xffff) >= a && (h.ports & 0xffff) <= b;
      case FilterOp.source:
        return h.hasAddresses && this.#isIn(h.addresses, 0, at + 3);
      case FilterOp.destination:
        return h.hasAddresses && this.#isIn(h.addresses, 4, at + 3);
      case FilterOp.length:
        return h.frameBytes >= a && h.frameBytes <= b;
      case FilterOp.fromGuest:
        return h.fromGuest;
      case FilterOp.dropped:
        return dropped;
      default:
        return a !== 0;
    }
  }

  /** @param words,w  an address @param at  of the network and its length in the program */
  #isIn(words: Uint32Array, w: number, at: number): boolean {
    const program = this.#program;
    let bits = program[at + 4]!;
    for (let i = 0; i < 4 && bits > 0; i++, bits -= 32) {
      const mask = bits >= 32 ? -1 : -1 << (32 - bits);
      if (((words[w + i]! ^ program[at + i]!) & mask) !== 0) return false;
    }
    return true;
  }
}

const hasPorts = ({ protocol, ports }: FrameHeaders): boolean =>
  ports >= 0 && (protocol === IpProtocol.tcp || protocol === IpProtocol.udp);
