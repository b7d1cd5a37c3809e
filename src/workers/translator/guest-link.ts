/**
 * The way to the guest: puts vnet and Ethernet headers in front of an IP packet and writes the frame to the TAP.
 *
 *   ... | vnet 12 | eth 14 | IP header | transport | payload ...
 *                            ^ ipAt: the caller built everything from here on
 *
 * The bytes in front of `ipAt` (LINK_HEADROOM of them) belong to this module. The write is synchronous and the kernel copies, so
 * a frame's memory is free again when send() returns. Frames for the guest that carry no received payload (ACKs, ARP, ICMP
 * errors) are built in `scratch`.
 *
 * Checksums: the transport checksum field holds the folded, not complemented pseudo-header sum (what Linux calls
 * CHECKSUM_PARTIAL); with a vnet header the guest's kernel takes it as it is, without one the sum is finished here.
 */
import { writeU16 } from '../../proto/be.ts';
import { finishSum, onesSumPieces } from '../../proto/checksum.ts';
import { ETH_BYTES, etherWrite } from '../../proto/ethernet.ts';
import { udpChecksumAt, udpFinishSum } from '../../proto/udp.ts';
import { VNET_BYTES, VnetFlag, VnetGso, vnetWrite } from '../../proto/vnethdr.ts';
import { Counter } from '../../ring/counters.ts';
import { type FramePool, HEADROOM_BYTES } from '../../ring/pool.ts';
import { Errno } from '../../sys/constants.ts';
import { write, writev } from '../../sys/io.ts';
import { NativeBuffer } from '../../sys/memory.ts';
import { IOVEC_BYTES, IOVEC_WORDS, iovecWrite } from '../../sys/socket.ts';
import type { ImpairmentPlan } from '../engine-plan.ts';
import { Impairment } from '../impairment.ts';
import type { PcapWriter } from '../pcap.ts';
import { FrameRoom } from './frame-room.ts';

const LINK_HEADROOM = VNET_BYTES + ETH_BYTES;
/** IEEE 802.3 section 3.2.7, without the frame check sequence: what Linux calls ETH_ZLEN. */
const ETH_MIN_FRAME_BYTES = 60;
/** Pieces that one frame may have besides its first: two slots for each of 64 datagrams. */
export const MAX_PIECES = 128;

export interface GuestLinkOptions {
  readonly tapFd: number;
  readonly vnetHdrBytes: 0 | 12;
  /** A socket in the place of a TAP. */
  readonly isSocket?: boolean | undefined;
  /** The TAP takes GSO_UDP_L4 frames. */
  readonly uso: boolean;
  /** The guest's kernel takes TCP frames beyond 64 KiB (sys/tap.ts). */
  readonly bigTcp: boolean;
  readonly pool: FramePool;
  /** A large slot of the shard's own, for frames built here. */
  readonly scratchSlot: number;
  readonly counters: Float64Array;
  readonly mac: Uint8Array;
  readonly guestMac: Uint8Array;
  readonly impairment?: ImpairmentPlan | undefined;
  readonly pcap?: PcapWriter | undefined;
}

export class GuestLink {
  /** Offset in u8 where an IP packet may be built for send(): a large slot but for its headroom is free from there on. */
  readonly scratchAt: number;
  /** The guest's MAC, six bytes that all shards share: learnt from its frames (shard.ts). */
  readonly guestMac: Uint8Array;
  /** Ours. */
  readonly mac: Uint8Array;
  /** The TAP takes a virtio-net header, and with it GSO frames and open checksums. */
  readonly hasVnet: boolean;
  /** GSO_UDP_L4 frames are taken; false for good once one was refused. */
  uso: boolean;
  /** TCP frames beyond 64 KiB are taken; false for good once one was refused. */
  bigTcp: boolean;
  readonly #fd: number;
  readonly #pool: FramePool;
  readonly #u8: Uint8Array;
  readonly #counters: Float64Array;
  readonly #impairment: Impairment | null;
  readonly #pcap: PcapWriter | null;
  readonly #iov = new NativeBuffer((1 + MAX_PIECES) * IOVEC_BYTES);
  readonly #room: FrameRoom | null;
  readonly #zeros = new NativeBuffer(ETH_MIN_FRAME_BYTES);
  #pieces = 0;
  #pieceBytes = 0;

  constructor(o: GuestLinkOptions) {
    this.#fd = o.tapFd;
    this.#pool = o.pool;
    this.#u8 = o.pool.u8;
    this.#counters = o.counters;
    this.mac = o.mac;
    this.guestMac = o.guestMac;
    this.hasVnet = o.vnetHdrBytes === 12;
    this.uso = o.uso && this.hasVnet;
    this.bigTcp = o.bigTcp && this.hasVnet;
    this.scratchAt = o.pool.slotAt(o.scratchSlot) + HEADROOM_BYTES;
    this.#impairment = o.impairment
      ? new Impairment(o.impairment.seed ^ 0x746f, o.impairment.lossToGuest)
      : null;
    this.#pcap = o.pcap ?? null;
    this.#room = o.isSocket ? new FrameRoom(o.tapFd) : null;
  }

  /**
   * Send one IP packet to the guest.
   * @param ipAt     offset of its first byte; LINK_HEADROOM bytes before it are overwritten
   * @param bytes    contiguous bytes from ipAt on
   * @param etherType  EtherType.ipv4 | ipv6 | arp
   * @param csumAt   offset from ipAt where the transport checksum starts to cover, -1: nothing to finish
   * @param csumField  offset of the checksum field from there (TCP 16, UDP 6)
   * @param gsoType  VnetGso.none, or the type with gsoSize payload bytes a segment; needs hasVnet
   * @param hdrLen   link to transport header bytes from ipAt on (GSO only)
   * @param moreAt   second piece's offset in u8, with moreBytes > 0
   * @returns 0, or -errno: the frame is lost as on a wire
   */
  send(
    ipAt: number,
    bytes: number,
    etherType: number,
    csumAt: number,
    csumField: number,
    gsoType: number,
    gsoSize: number,
    hdrLen: number,
    moreAt: number,
    moreBytes: number,
  ): number {
    const ethAt = ipAt - ETH_BYTES;
    etherWrite(this.#u8, ethAt, this.guestMac, this.mac, etherType);
    let at = ethAt;
    let frameBytes = ETH_BYTES + bytes;
    if (this.hasVnet) {
      at -= VNET_BYTES;
      frameBytes += VNET_BYTES;
      if (csumAt >= 0) {
        vnetWrite(
          this.#u8,
          at,
          VnetFlag.needsCsum,
          gsoType,
          gsoType === VnetGso.none ? 0 : ETH_BYTES + hdrLen,
          gsoSize,
          ETH_BYTES + csumAt,
          csumField,
        );
      } else vnetWrite(this.#u8, at, 0, VnetGso.none, 0, 0, 0, 0);
    } else if (csumAt >= 0) this.#finishChecksum(ipAt, bytes, csumAt, csumField, moreAt, moreBytes);
    this.#pcap?.frame(ethAt, ETH_BYTES + bytes, moreAt, moreBytes);
    if (this.#impairment?.loses()) {
      this.#counters[Counter.lostToGuest]!++;
      return 0;
    }
    let r: number;
    if (this.#room !== null) r = this.#sendBySocket(this.#room, at, frameBytes, moreAt, moreBytes);
    else if (moreBytes === 0) r = write(this.#fd, this.#pool.baseAddress + at, frameBytes);
    else {
      iovecWrite(this.#iov.u32, 0, this.#pool.baseAddress + at, frameBytes);
      iovecWrite(this.#iov.u32, IOVEC_WORDS, this.#pool.baseAddress + moreAt, moreBytes);
      r = writev(this.#fd, this.#iov.address, 2);
    }
    this.#counters[Counter.tapWrites]!++;
    if (r < 0) {
      this.#counters[Counter.tapWriteErrors]!++;
      return r;
    }
    this.#counters[Counter.framesToGuest]!++;
    this.#counters[Counter.bytesToGuest]! += bytes + moreBytes;
    return 0;
  }

  /** Without a virtio header. Filled up to the least that Ethernet knows: emulated cards drop what is shorter. */
  #sendBySocket(room: FrameRoom, at: number, bytes: number, moreAt: number, moreBytes: number): number {
    const iov = this.#iov.u32;
    const padBytes = Math.max(0, ETH_MIN_FRAME_BYTES - bytes - moreBytes);
    iovecWrite(iov, 0, this.#pool.baseAddress + at, bytes);
    iovecWrite(iov, IOVEC_WORDS, this.#pool.baseAddress + moreAt, moreBytes);
    iovecWrite(iov, 2 * IOVEC_WORDS, this.#zeros.address, padBytes);
    const r = writev(this.#fd, this.#iov.address, 3);
    return r === -Errno.EAGAIN && room.wait() ? writev(this.#fd, this.#iov.address, 3) : r;
  }

  /** Add a piece to the frame that the next sendPieces() sends; MAX_PIECES at the most. */
  addPiece(at: number, bytes: number): void {
    iovecWrite(this.#iov.u32, ++this.#pieces * IOVEC_WORDS, this.#pool.baseAddress + at, bytes);
    this.#pieceBytes += bytes;
  }

  /**
   * Send one GSO frame of several pieces: headers and the first payload from ipAt on, the rest in the pieces added before. Parameters as for
   * send(); `uso` must hold for GSO_UDP_L4, `bigTcp` for a TCP packet beyond 64 KiB.
   * @returns 0; -EINVAL: the kernel takes no such frame, `uso` or `bigTcp` is false now and nothing was sent; another -errno: lost
   */
  sendPieces(
    ipAt: number,
    bytes: number,
    etherType: number,
    csumAt: number,
    csumField: number,
    gsoType: number,
    gsoSize: number,
    hdrLen: number,
  ): number {
    const u8 = this.#u8;
    const pieces = this.#pieces;
    const moreBytes = this.#pieceBytes;
    this.#pieces = 0;
    this.#pieceBytes = 0;
    const ethAt = ipAt - ETH_BYTES;
    const at = ethAt - VNET_BYTES;
    etherWrite(u8, ethAt, this.guestMac, this.mac, etherType);
    vnetWrite(
      u8,
      at,
      VnetFlag.needsCsum,
      gsoType,
      ETH_BYTES + hdrLen,
      gsoSize,
      ETH_BYTES + csumAt,
      csumField,
    );
    this.#pcap?.framePieces(ethAt, ETH_BYTES + bytes, this.#iov.u32, IOVEC_WORDS, pieces, moreBytes);
    if (this.#impairment?.loses()) {
      this.#counters[Counter.lostToGuest]!++;
      return 0;
    }
    iovecWrite(this.#iov.u32, 0, this.#pool.baseAddress + at, LINK_HEADROOM + bytes);
    const r = writev(this.#fd, this.#iov.address, 1 + pieces);
    this.#counters[Counter.tapWrites]!++;
    if (r < 0) {
      if (r === -Errno.EINVAL) {
        if (gsoType === VnetGso.udpL4) this.uso = false;
        else this.bigTcp = false;
      }
      this.#counters[Counter.tapWriteErrors]!++;
      return r;
    }
    this.#counters[Counter.framesToGuest]!++;
    this.#counters[Counter.bytesToGuest]! += bytes + moreBytes;
    return 0;
  }

  #finishChecksum(
    ipAt: number,
    bytes: number,
    csumAt: number,
    csumField: number,
    moreAt: number,
    moreBytes: number,
  ): void {
    const u8 = this.#u8;
    const sum = onesSumPieces(u8, ipAt + csumAt, bytes - csumAt, moreAt, moreBytes, 0);
    const csum = csumField === udpChecksumAt ? udpFinishSum(sum) : finishSum(sum);
    writeU16(u8, ipAt + csumAt + csumField, csum);
  }
}
