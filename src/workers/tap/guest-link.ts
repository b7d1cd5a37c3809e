/**
 * Writes frames to the TAP: puts vnet and Ethernet headers in front of an IP packet.
 *
 *   ... | vnet 12 | eth 14 | IP header | transport | payload ...
 *                            ^ EgressFrame.at: the caller built everything from here on
 *
 * This module overwrites the VNET_BYTES + ETH_BYTES in front of the packet. The write is synchronous and the
 * kernel copies, so a frame's memory is free again when send() returns. Frames without received payload
 * (ACKs, ARP, ICMP errors) are built in a scratch slot (`scratchAt`).
 *
 * Checksums: the transport checksum field holds the folded, not complemented sum of the pseudo-header (what
 * Linux calls CHECKSUM_PARTIAL). With a vnet header the guest's kernel accepts that, without one this module
 * completes the checksum.
 */
import { addressRead, addressSetIpv4 } from '../../proto/address.ts';
import { ARP_TARGET_MAC } from '../../proto/arp.ts';
import { readU16, readU32, writeU16 } from '../../proto/be.ts';
import { finishSum, onesSumPieces } from '../../proto/checksum.ts';
import { DHCP_CLIENT_MAC, DHCP_CLIENT_PORT, DHCP_SERVER_PORT } from '../../proto/dhcp.ts';
import { ETH_BYTES, EtherType, etherWrite, groupMac, MAC_BYTES } from '../../proto/ethernet.ts';
import { IPV4_DST, IPV4_MIN_BYTES, IpProtocol, ipv4Protocol } from '../../proto/ipv4.ts';
import { IPV6_DST } from '../../proto/ipv6.ts';
import { UDP_BYTES, UDP_CHECKSUM, udpFinishSum } from '../../proto/udp.ts';
import { VNET_BYTES, VnetFlag, VnetGso, vnetWrite } from '../../proto/vnethdr.ts';
import { Counter } from '../../ring/counters.ts';
import { type FramePool, HEADROOM_BYTES } from '../../ring/pool.ts';
import { Errno } from '../../sys/constants.ts';
import { write, writev } from '../../sys/io.ts';
import { copyBytes, NativeBuffer } from '../../sys/memory.ts';
import { IOVEC_BYTES, IOVEC_WORDS, iovecWrite } from '../../sys/socket.ts';
import { lostBy } from '../capture/drop-comment.ts';
import type { FrameCapture } from '../capture/frame-capture.ts';
import type { ImpairmentPlan } from '../engine-plan.ts';
import type { Lines } from '../shaping/lines.ts';
import { isLinkFrame } from '../shaping/link-frames.ts';
import { EgressFrame } from './egress-frame.ts';
import { FrameRoom } from './frame-room.ts';
import type { GuestNeighbours } from './guest-neighbours.ts';
import { Impairment } from './impairment.ts';
import { WaitingForMac } from './waiting-for-mac.ts';

/** IEEE 802.3 section 3.2.7, without the frame check sequence: what Linux calls ETH_ZLEN. */
const ETH_MIN_FRAME_BYTES = 60;
/** Ethernet, IPv6 and TCP headers with timestamps. */
const MAX_HEADER_BYTES = ETH_BYTES + 40 + 32;
/** Pieces that one frame may have after its first: two slots for each of 64 datagrams. */
export const MAX_PIECES = 128;

export interface GuestLinkOptions {
  readonly tapFd: number;
  readonly vnetHdrBytes: 0 | 12;
  /** The descriptor is a socket in the place of a TAP. */
  readonly isSocket?: boolean | undefined;
  /** The TAP takes GSO_UDP_L4 frames. */
  readonly uso: boolean;
  /** The guest's kernel takes TCP frames beyond 64 KiB (sys/tap.ts). */
  readonly bigTcp: boolean;
  readonly pool: FramePool;
  /** A large slot that belongs to the shard, for frames that it builds. */
  readonly scratchSlot: number;
  readonly counters: Float64Array;
  readonly mac: Uint8Array;
  readonly guestMac: Uint8Array;
  readonly neighbours: GuestNeighbours;
  /** Our addresses, with which MACs are asked for: IPv4 as u32, link-local four words. */
  readonly ipv4?: number;
  readonly linkLocal?: Uint32Array;
  readonly impairment?: ImpairmentPlan | undefined;
  /** Emulated lines to the guest: frames go to them, and not to the TAP. */
  readonly lines?: Lines | undefined;
}

export class GuestLink {
  /** Offset in u8 where an IP packet may be built for send(): behind the headroom of the scratch slot. */
  readonly scratchAt: number;
  /** The guest's MAC, six bytes that all shards share and learn from its frames (shard.ts). */
  readonly guestMac: Uint8Array;
  /** The engine's MAC. */
  readonly mac: Uint8Array;
  /** The TAP takes a virtio-net header, and with it GSO frames and partial checksums. */
  readonly hasVnet: boolean;
  /** GSO_UDP_L4 frames are accepted; stays false once one was refused. */
  uso: boolean;
  /** TCP frames beyond 64 KiB are accepted; stays false once one was refused. */
  bigTcp: boolean;
  /** The object to fill for send(), for one frame after the other. */
  readonly frame = new EgressFrame();
  readonly #fd: number;
  readonly #pool: FramePool;
  readonly #u8: Uint8Array;
  readonly #counters: Float64Array;
  readonly #impairment: Impairment | null;
  #capture: FrameCapture | null = null;
  readonly #iov = new NativeBuffer((1 + MAX_PIECES) * IOVEC_BYTES);
  readonly #room: FrameRoom | null;
  /** Where frames go: `guestMac`, or what sendTo() has set. */
  #destination: Uint8Array;
  readonly #neighbours: GuestNeighbours;
  /** Frames to addresses whose MAC is not known yet. */
  readonly waiting: WaitingForMac;
  readonly #lookedUp = new Uint8Array(MAC_BYTES);
  readonly #address = new Uint32Array(4);
  readonly #lines: Lines | null;
  readonly #zeros = new NativeBuffer(ETH_MIN_FRAME_BYTES);
  /** Number of pieces after the first one, in #iov from its second entry on. */
  #pieces = 0;

  constructor(o: GuestLinkOptions) {
    this.#fd = o.tapFd;
    this.#pool = o.pool;
    this.#u8 = o.pool.u8;
    this.#counters = o.counters;
    this.mac = o.mac;
    this.guestMac = o.guestMac;
    this.#destination = o.guestMac;
    this.#neighbours = o.neighbours;
    this.waiting = new WaitingForMac({
      mac: o.mac,
      ipv4: o.ipv4 ?? 0,
      linkLocal: o.linkLocal ?? new Uint32Array(4),
      vnetBytes: o.vnetHdrBytes,
      neighbours: o.neighbours,
      guestMac: o.guestMac,
      write: (address, bytes) => {
        write(this.#fd, address, bytes);
        this.#counters[Counter.tapWrites]!++;
      },
      nowMs: () => performance.now(),
    });
    this.hasVnet = o.vnetHdrBytes === 12;
    this.uso = o.uso && this.hasVnet;
    this.bigTcp = o.bigTcp && this.hasVnet && o.lines === undefined;
    this.scratchAt = o.pool.slotAt(o.scratchSlot) + HEADROOM_BYTES;
    this.#impairment = o.impairment
      ? new Impairment(o.impairment.seed ^ 0x746f, o.impairment.lossToGuest)
      : null;
    this.#lines = o.lines ?? null;
    this.#room = o.isSocket ? new FrameRoom(o.tapFd) : null;
  }

  /**
   * Send one frame to the guest. The guest's kernel segments a GSO frame. A GSO_UDP_L4 frame requires `uso`,
   * a TCP packet beyond 64 KiB `bigTcp`.
   * @param f  complete from the IP (or ARP) header on; VNET_BYTES + ETH_BYTES before it are overwritten
   * @returns 0, or -errno: the frame is lost as on a wire. After -EINVAL for a frame of such a kind
   *   nothing was sent, and `uso` or `bigTcp` is false: the link takes no more of that kind
   */
  send(f: EgressFrame): number {
    const { bytes, moreBytes } = f;
    if (this.#pieces === 0 && moreBytes > 0) this.addPiece(f.moreAt, moreBytes);
    const pieces = this.#pieces;
    this.#pieces = 0;
    const ethAt = f.at - ETH_BYTES;
    let destination = this.#destination;
    let waits = false;
    if (this.#neighbours.inUse && destination === this.guestMac) {
      destination = this.#lookUp(f);
      waits = destination === this.guestMac && this.#neighbours.isUnknown;
    }
    etherWrite(this.#u8, ethAt, destination, this.mac, f.etherType);
    let at = ethAt;
    let frontBytes = ETH_BYTES + bytes;
    if (this.hasVnet) {
      at -= VNET_BYTES;
      frontBytes += VNET_BYTES;
      this.#vnetWrite(at, f);
    } else if (f.checksumField >= 0) this.#finishChecksum(f);
    if (this.#capture === null) return this.#deliver(f, waits, at, frontBytes, pieces, moreBytes);
    return this.#captured(this.#capture, f, waits, at, frontBytes, pieces, moreBytes);
  }

  /** deliver() while frames are captured. */
  #captured(
    capture: FrameCapture,
    f: EgressFrame,
    waits: boolean,
    at: number,
    frontBytes: number,
    pieces: number,
    moreBytes: number,
  ): number {
    capture.stamp();
    const lost = this.#counters[Counter.lostToGuest]!;
    const r = this.#deliver(f, waits, at, frontBytes, pieces, moreBytes);
    let cause = r < 0 ? lostBy(Counter.tapWriteErrors) : 0;
    if (this.#counters[Counter.lostToGuest]! > lost) cause = lostBy(Counter.lostToGuest);
    const { bytes } = f;
    capture.toGuest(
      f.at - ETH_BYTES,
      ETH_BYTES + bytes,
      this.#iov.u32,
      IOVEC_WORDS,
      pieces,
      moreBytes,
      cause,
    );
    return r;
  }

  /** Capture frames from now on; null: no more. */
  setCapture(capture: FrameCapture | null): void {
    this.#capture = capture;
  }

  /**
   * @param at,frontBytes  where the frame begins, with its virtio header, and length of the first piece
   * @returns as send()
   */
  #deliver(
    f: EgressFrame,
    waits: boolean,
    at: number,
    frontBytes: number,
    pieces: number,
    moreBytes: number,
  ): number {
    if (this.#impairment?.loses()) {
      this.#counters[Counter.lostToGuest]!++;
      return 0;
    }
    if (waits && moreBytes === 0 && this.waiting.keep(this.#address, this.#u8, at, frontBytes)) return 0;
    if (this.#lines !== null && !isLinkFrame(this.#u8, f.at - ETH_BYTES, ETH_BYTES + f.bytes))
      return this.#toLine(this.#lines, at, frontBytes, pieces, moreBytes);
    const r = this.#write(at, frontBytes, pieces, moreBytes);
    this.#counters[Counter.tapWrites]!++;
    if (r < 0) {
      if (r === -Errno.EINVAL) this.#onRefused(f, pieces);
      this.#counters[Counter.tapWriteErrors]!++;
      return r;
    }
    this.#counters[Counter.framesToGuest]!++;
    this.#counters[Counter.bytesToGuest]! += f.bytes + moreBytes;
    return 0;
  }

  /** Send frames to this Ethernet address from now on. @param mac  six bytes, borrowed; null: the guest's */
  sendTo(mac: Uint8Array | null): void {
    this.#destination = mac ?? this.guestMac;
  }

  /** The MAC of the address to which a complete packet goes, where there are several; borrowed. */
  #lookUp(f: EgressFrame): Uint8Array {
    const u8 = this.#u8;
    const { at } = f;
    const mac = this.#lookedUp;
    const address = this.#address;
    if (f.etherType === EtherType.arp) return this.#copyMac(at + ARP_TARGET_MAC);
    if (f.etherType === EtherType.ipv6) {
      addressRead(u8, at + IPV6_DST, address, 0);
      if (address[0]! >>> 24 === 0xff) {
        groupMac(address, 0, mac);
        return mac;
      }
    } else {
      const udpAt = at + IPV4_MIN_BYTES;
      // The client has no address yet.
      if (
        ipv4Protocol(u8, at) === IpProtocol.udp &&
        readU16(u8, udpAt) === DHCP_SERVER_PORT &&
        readU16(u8, udpAt + 2) === DHCP_CLIENT_PORT
      )
        return this.#copyMac(udpAt + UDP_BYTES + DHCP_CLIENT_MAC);
      const dst = readU32(u8, at + IPV4_DST);
      addressSetIpv4(address, 0, dst);
      if (dst >>> 28 >= 14) {
        groupMac(address, 0, mac);
        return mac;
      }
    }
    if (this.#neighbours.macOf(address, 0, mac)) return mac;
    // The first MAC is a guess; the answer will say, and whoever sends will send again.
    this.waiting.ask(address);
    return this.guestMac;
  }

  #copyMac(at: number): Uint8Array {
    for (let i = 0; i < MAC_BYTES; i++) this.#lookedUp[i] = this.#u8[at + i]!;
    return this.#lookedUp;
  }

  /**
   * Whether TCP segments fit in the queue of their emulated line; true without one.
   * @param words,w  the address outside
   * @param bytes    payload
   * @param mss      payload of each segment
   */
  hasRoom(words: Uint32Array, w: number, bytes: number, mss: number): boolean {
    if (this.#lines === null) return true;
    const packets = Math.ceil(bytes / mss);
    const lineBytes = bytes + packets * MAX_HEADER_BYTES;
    return this.#lines.hasRoom(words, w, lineBytes, packets, performance.now());
  }

  /**
   * Most bytes of a GSO frame that its emulated line is to get at once; Infinity without one.
   * @param words,w  the address outside
   */
  mostFrameBytes(words: Uint32Array, w: number): number {
    return this.#lines === null ? Number.POSITIVE_INFINITY : this.#lines.mostFrameBytes(words, w);
  }

  /**
   * Add a piece to the frame of the next send(): up to MAX_PIECES, all of which the frame's moreBytes counts.
   * @param at,bytes  where the piece lies in u8
   */
  addPiece(at: number, bytes: number): void {
    iovecWrite(this.#iov.u32, ++this.#pieces * IOVEC_WORDS, this.#pool.baseAddress + at, bytes);
  }

  #vnetWrite(at: number, f: EgressFrame): void {
    if (f.checksumField < 0) {
      vnetWrite(this.#u8, at, 0, VnetGso.none, 0, 0, 0, 0);
      return;
    }
    const csumStart = ETH_BYTES + f.transportAt - f.at;
    const hdrLen = f.gsoType === VnetGso.none ? 0 : csumStart + f.headerBytes;
    vnetWrite(this.#u8, at, VnetFlag.needsCsum, f.gsoType, hdrLen, f.gsoSize, csumStart, f.checksumField);
  }

  /** Copy the frame to its line, whose stage writes it to the TAP later (shaping/line-to-guest.ts). */
  #toLine(lines: Lines, at: number, frontBytes: number, pieces: number, moreBytes: number): 0 {
    let to: number = lines.frame.address;
    copyBytes(to, this.#pool.baseAddress + at, frontBytes);
    to += frontBytes;
    const words = this.#iov.u32;
    for (let w = IOVEC_WORDS; w <= pieces * IOVEC_WORDS; w += IOVEC_WORDS) {
      copyBytes(to, words[w]! + words[w + 1]! * 0x1_0000_0000, words[w + 2]!);
      to += words[w + 2]!;
    }
    lines.enter(frontBytes + moreBytes, performance.now());
    return 0;
  }

  /** @returns bytes written or -errno */
  #write(at: number, frontBytes: number, pieces: number, moreBytes: number): number {
    const address = this.#pool.baseAddress + at;
    if (this.#room === null && pieces === 0) return write(this.#fd, address, frontBytes);
    iovecWrite(this.#iov.u32, 0, address, frontBytes);
    if (this.#room === null) return writev(this.#fd, this.#iov.address, 1 + pieces);
    return this.#writeToSocket(this.#room, pieces, frontBytes + moreBytes);
  }

  /**
   * Write a frame without virtio header, padded to Ethernet's minimum: emulated cards drop shorter frames.
   */
  #writeToSocket(room: FrameRoom, pieces: number, frameBytes: number): number {
    const padBytes = Math.max(0, ETH_MIN_FRAME_BYTES - frameBytes);
    iovecWrite(this.#iov.u32, (1 + pieces) * IOVEC_WORDS, this.#zeros.address, padBytes);
    const r = writev(this.#fd, this.#iov.address, 2 + pieces);
    return r === -Errno.EAGAIN && room.wait() ? writev(this.#fd, this.#iov.address, 2 + pieces) : r;
  }

  /**
   * The kernel refused the frame: send no more of its kind. Besides GSO_UDP_L4 frames only TCP packets beyond
   * 64 KiB have several pieces.
   */
  #onRefused(f: EgressFrame, pieces: number): void {
    if (f.gsoType === VnetGso.udpL4) this.uso = false;
    else if (f.gsoType !== VnetGso.none && pieces > 0) this.bigTcp = false;
  }

  #finishChecksum(f: EgressFrame): void {
    const u8 = this.#u8;
    const at = f.transportAt;
    const sum = onesSumPieces(u8, at, f.bytes - (at - f.at), f.moreAt, f.moreBytes, 0);
    const csum = f.checksumField === UDP_CHECKSUM ? udpFinishSum(sum) : finishSum(sum);
    writeU16(u8, at + f.checksumField, csum);
  }
}
