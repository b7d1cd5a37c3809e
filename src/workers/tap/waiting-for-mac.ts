/**
 * Asks for the MAC of an address of the guest's (ARP, RFC 826; neighbour solicitation, RFC 4861 section 7.2),
 * and keeps what goes to it meanwhile: a virtual machine or a member of a bridge that has not sent a frame yet,
 * and that a peer outside connects to. Cold: it copies and allocates.
 */
import { addressCopy, addressWrite, isV4Mapped } from '../../proto/address.ts';
import { ARP_BYTES, arpRequestWrite } from '../../proto/arp.ts';
import { ETH_BYTES, EtherType, etherWrite, groupMac, MAC_BYTES } from '../../proto/ethernet.ts';
import { icmp6ChecksumWrite } from '../../proto/icmpv6.ts';
import { IpProtocol } from '../../proto/ipv4.ts';
import { IPV6_BYTES, IPV6_DST, IPV6_SRC, ipv6Write } from '../../proto/ipv6.ts';
import { NDP_HOP_LIMIT, ndpNsWrite } from '../../proto/ndp.ts';
import { type NativeAddress, NativeBuffer } from '../../sys/memory.ts';
import type { GuestNeighbours } from './guest-neighbours.ts';

const MAX_FRAMES = 16;
const MAX_FRAME_BYTES = 2048;
/** MAX_MULTICAST_SOLICIT times RETRANS_TIMER (RFC 4861 section 10): then a frame is discarded. */
const KEEP_MS = 3000;
/** Least time between two questions, whatever they ask for. */
const ASK_GAP_MS = 100;
const ASK_BYTES = 128;
/** IEEE 802.3: shortest frame, for a link without virtio header. */
const MIN_FRAME_BYTES = 60;
const BROADCAST = new Uint8Array(MAC_BYTES).fill(0xff);

interface WaitingFrame {
  readonly buffer: NativeBuffer;
  readonly bytes: number;
  readonly sinceMs: number;
  readonly address: Uint32Array;
}

/** What the questions are asked with, and where frames go. */
export interface WaitingOptions {
  readonly mac: Uint8Array;
  /** Our IPv4 address as the guest's router, as u32. */
  readonly ipv4: number;
  /** Our link-local address, four words. */
  readonly linkLocal: Uint32Array;
  /** Bytes of the virtio header in front of a frame. */
  readonly vnetBytes: number;
  readonly neighbours: GuestNeighbours;
  readonly guestMac: Uint8Array;
  /** Writes bytes to the TAP. */
  readonly write: (address: NativeAddress, bytes: number) => void;
  readonly nowMs: () => number;
}

export class WaitingForMac {
  readonly #o: WaitingOptions;
  readonly #question = new NativeBuffer(ASK_BYTES);
  readonly #mac = new Uint8Array(MAC_BYTES);
  readonly #waiting: WaitingFrame[] = [];
  #askedMs = Number.NEGATIVE_INFINITY;

  constructor(options: WaitingOptions) {
    this.#o = options;
  }

  /** Whether frames wait. */
  get isEmpty(): boolean {
    return this.#waiting.length === 0;
  }

  /** Ask for the MAC of an address, unless the last question was sent a moment ago. */
  ask(address: Uint32Array): void {
    const { mac, ipv4, linkLocal, vnetBytes, nowMs, write } = this.#o;
    const now = nowMs();
    if (now - this.#askedMs < ASK_GAP_MS) return;
    this.#askedMs = now;
    const { u8 } = this.#question;
    u8.fill(0);
    const at = vnetBytes + ETH_BYTES;
    let bytes = ARP_BYTES;
    if (isV4Mapped(address, 0)) {
      etherWrite(u8, vnetBytes, BROADCAST, mac, EtherType.arp);
      arpRequestWrite(u8, at, mac, ipv4, address[3]!);
    } else {
      // The solicited-node group (RFC 4291 section 2.7.1).
      const group = Uint32Array.of(0xff020000, 0, 1, 0xff000000 | (address[3]! & 0xffffff));
      groupMac(group, 0, this.#mac);
      etherWrite(u8, vnetBytes, this.#mac, mac, EtherType.ipv6);
      bytes = ndpNsWrite(u8, at + IPV6_BYTES, address, 0, mac);
      ipv6Write(u8, at, bytes, IpProtocol.icmpv6, NDP_HOP_LIMIT, 0);
      addressWrite(u8, at + IPV6_SRC, linkLocal, 0);
      addressWrite(u8, at + IPV6_DST, group, 0);
      icmp6ChecksumWrite(u8, at, at + IPV6_BYTES, bytes);
      bytes += IPV6_BYTES;
    }
    const frameBytes = vnetBytes + ETH_BYTES + bytes;
    write(this.#question.address, vnetBytes > 0 ? frameBytes : Math.max(frameBytes, MIN_FRAME_BYTES));
  }

  /**
   * Keep a copy of a frame.
   * @param address  the destination, four words
   * @param u8,at,bytes  the frame with its virtio header
   * @returns false when there is no room for it
   */
  keep(address: Uint32Array, u8: Uint8Array, at: number, bytes: number): boolean {
    if (bytes > MAX_FRAME_BYTES || this.#waiting.length === MAX_FRAMES) return false;
    const buffer = new NativeBuffer(Math.max(bytes, MIN_FRAME_BYTES));
    buffer.u8.set(u8.subarray(at, at + bytes));
    const copy = new Uint32Array(4);
    addressCopy(address, 0, copy, 0);
    const padded = this.#o.vnetBytes > 0 ? bytes : Math.max(bytes, MIN_FRAME_BYTES);
    this.#waiting.push({ buffer, bytes: padded, sinceMs: this.#o.nowMs(), address: copy });
    return true;
  }

  /** Send the frames whose MAC is known by now, and discard those that waited too long. */
  send(): void {
    const { neighbours, guestMac, vnetBytes, write, nowMs } = this.#o;
    const oldest = nowMs() - KEEP_MS;
    for (let i = 0; i < this.#waiting.length; ) {
      const { buffer, bytes, address, sinceMs } = this.#waiting[i]!;
      let mac: Uint8Array | null = null;
      if (neighbours.inUse && neighbours.macOf(address, 0, this.#mac)) mac = this.#mac;
      else if (!neighbours.isUnknown) mac = guestMac;
      if (mac === null && sinceMs > oldest) {
        i++;
        continue;
      }
      this.#waiting.splice(i, 1);
      if (mac === null) continue;
      buffer.u8.set(mac, vnetBytes);
      write(buffer.address, bytes);
    }
  }
}
