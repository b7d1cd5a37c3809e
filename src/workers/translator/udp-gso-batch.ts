/**
 * Coalescing of one flow's datagrams to the guest. Datagrams that host-io received by one recvmmsg are sent
 * by one write, as one GSO_UDP_L4 frame, if they have the same size (the last one may be shorter) and TOS.
 * The guest's kernel splits the frame again at its sockets.
 *
 *   slot A of datagram 0                         slot B, if any     datagram 1 ...
 *   | headroom: vnet eth IP UDP | payload  | --> | payload | -->    | headroom, unused | payload | ...
 *                                 iovec 0          iovec 1                               iovec 2
 *
 * There is one set of headers, in front of the first payload, with the lengths of the whole frame; the kernel
 * corrects UDP's length for each segment (Linux, __udp_gso_segment). Sent singly are: one datagram alone, an
 * empty one, one longer than the guest's MTU, and all on a TAP without USO. flush() is called at the end of
 * every batch of messages, so nothing is delayed to be coalesced.
 *
 * A message with a segment size holds several datagrams that the host's kernel coalesced (UDP_GRO). It is
 * sent as one frame or split here, from front to back, so that headers overwrite only payload that has been
 * sent.
 *
 * Invariant: slots belong to the batch from add() until flush() gives them back.
 */
import { familyOf } from '../../proto/address.ts';
import { IpProtocol } from '../../proto/ipv4.ts';
import { UDP_BYTES, UDP_CHECKSUM, udpWrite } from '../../proto/udp.ts';
import { VnetGso } from '../../proto/vnethdr.ts';
import { Counter } from '../../ring/counters.ts';
import { HEADROOM_BYTES, NO_SLOT } from '../../ring/pool.ts';
import { Errno } from '../../sys/constants.ts';
import { ADDR_WORDS } from '../flow/flow-table.ts';
import { StageDrop } from '../link/stage-drop.ts';
import type { EgressFrame } from '../tap/egress-frame.ts';
import type { ShardContext } from './context.ts';
import { datagramToGuest, ipHeaderBytes, ipWrite } from './to-guest.ts';

/** UDP_MAX_SEGMENTS of kernels before 6.9: the limit for a guest that forwards our frame. */
const MAX_SEGMENTS = 64;
/** IPv4's total length has 16 bits; the larger IPv6 header is subtracted. */
const MAX_BATCH_BYTES = 0xffff - 40 - UDP_BYTES;

export class UdpGsoBatch {
  readonly #ctx: ShardContext;
  readonly #slotA = new Uint32Array(MAX_SEGMENTS);
  readonly #slotB = new Uint32Array(MAX_SEGMENTS);
  /** Offset of the payload in slot A, and its length in both slots. */
  readonly #at = new Uint32Array(MAX_SEGMENTS);
  readonly #bytes = new Uint32Array(MAX_SEGMENTS);
  #flow = -1;
  #tos = 0;
  #count = 0;
  #totalBytes = 0;
  #segmentBytes = 0;
  /** No datagram can be added, as the last one was shorter than the others. */
  #ended = false;

  constructor(ctx: ShardContext) {
    this.#ctx = ctx;
  }

  /**
   * Add one message's payload for the guest. Takes over the slots; losses are counted here.
   * @param at       offset of the payload in slot A, HEADROOM_BYTES or more
   * @param gsoSize  datagram size when the payload is several datagrams, else 0
   * @param tos      TOS or traffic class of all of them
   */
  add(
    flow: number,
    slotA: number,
    slotB: number,
    at: number,
    bytes: number,
    gsoSize: number,
    tos: number,
  ): void {
    const isMany = gsoSize > 0 && gsoSize < bytes;
    this.#ctx.counters[Counter.datagramsToGuest]! += isMany ? Math.ceil(bytes / gsoSize) : 1;
    if (this.#count > 0) {
      const fits =
        flow === this.#flow &&
        tos === this.#tos &&
        !this.#ended &&
        !isMany &&
        bytes > 0 &&
        bytes <= this.#segmentBytes &&
        this.#count < MAX_SEGMENTS &&
        this.#totalBytes + bytes <= MAX_BATCH_BYTES;
      if (!fits) this.flush();
    }
    const i = this.#count++;
    this.#slotA[i] = slotA;
    this.#slotB[i] = slotB;
    this.#at[i] = at;
    this.#bytes[i] = bytes;
    this.#totalBytes += bytes;
    if (i > 0) {
      this.#ended = bytes < this.#segmentBytes;
      return;
    }
    this.#flow = flow;
    this.#tos = tos;
    this.#segmentBytes = isMany ? gsoSize : bytes;
    this.#ended = false;
    // A batch to which nothing can be added is sent at once.
    if (isMany || bytes === 0 || !this.#canSegment()) this.flush();
  }

  /** Send the datagrams that are held, and give their slots back. */
  flush(): void {
    const count = this.#count;
    if (count === 0) return;
    const ctx = this.#ctx;
    const isSingle = count === 1 && this.#totalBytes === this.#segmentBytes;
    if (isSingle || !this.#canSegment() || this.#sendWhole() === -Errno.EINVAL) {
      if (count === 1) this.#cut();
      else for (let i = 0; i < count; i++) this.#sendOne(i);
    }
    for (let i = 0; i < count; i++) ctx.freeHostSlots(this.#slotA[i]!, this.#slotB[i]!);
    this.#count = 0;
    this.#totalBytes = 0;
  }

  #family(): 4 | 6 {
    return familyOf(this.#ctx.flows.addr, this.#flow * ADDR_WORDS);
  }

  #canSegment(): boolean {
    const { guest, addressing } = this.#ctx;
    const packetBytes = ipHeaderBytes(this.#family()) + UDP_BYTES + this.#segmentBytes;
    return guest.uso && packetBytes <= addressing.mtu && this.#totalBytes <= MAX_BATCH_BYTES;
  }

  /**
   * Send all datagrams as one frame.
   * @returns 0 or -errno; -EINVAL: nothing was sent, and the payloads are unchanged
   */
  #sendWhole(): number {
    const { u8, pool, guest } = this.#ctx;
    const firstBytes = this.#bytesInA(0);
    const firstAt = pool.slotAt(this.#slotA[0]!) + this.#at[0]!;
    if (this.#bytes[0]! > firstBytes) {
      guest.addPiece(pool.slotAt(this.#slotB[0]!), this.#bytes[0]! - firstBytes);
    }
    for (let i = 1; i < this.#count; i++) {
      const inA = this.#bytesInA(i);
      guest.addPiece(pool.slotAt(this.#slotA[i]!) + this.#at[i]!, inA);
      if (this.#bytes[i]! > inA) guest.addPiece(pool.slotAt(this.#slotB[i]!), this.#bytes[i]! - inA);
    }
    const f = this.#begin(firstAt, firstBytes, 0, this.#totalBytes - firstBytes);
    f.headerBytes = UDP_BYTES;
    f.gsoType = VnetGso.udpL4;
    f.gsoSize = this.#segmentBytes;
    ipWrite(u8, f);
    return guest.send(f);
  }

  /** Begin the link's frame, with the flow's UDP header in front of a payload. */
  #begin(payloadAt: number, bytesInA: number, moreAt: number, moreBytes: number): EgressFrame {
    const { u8, guest, flows } = this.#ctx;
    const flowAt = this.#flow * ADDR_WORDS;
    const ports = flows.ports[this.#flow]!;
    const bodyAt = payloadAt - UDP_BYTES;
    udpWrite(u8, bodyAt, ports & 0xffff, ports >>> 16, UDP_BYTES + bytesInA + moreBytes);
    const f = guest.frame;
    f.begin(this.#family(), IpProtocol.udp);
    f.tos = this.#tos;
    f.addresses(flows.addr, flowAt + 4, flows.addr, flowAt);
    f.body(bodyAt, UDP_BYTES + bytesInA, moreAt, moreBytes);
    f.checksumField = UDP_CHECKSUM;
    return f;
  }

  #bytesInA(i: number): number {
    const room = this.#ctx.pool.slotBytes(this.#slotA[i]!) - this.#at[i]!;
    return this.#slotB[i] === NO_SLOT || this.#bytes[i]! < room ? this.#bytes[i]! : room;
  }

  #sendOne(i: number): void {
    const { pool } = this.#ctx;
    const inA = this.#bytesInA(i);
    const moreBytes = this.#bytes[i]! - inA;
    const moreAt = moreBytes > 0 ? pool.slotAt(this.#slotB[i]!) : 0;
    this.#send(pool.slotAt(this.#slotA[i]!) + this.#at[i]!, inA, moreAt, moreBytes);
  }

  /** Send the one message that is held, datagram by datagram. */
  #cut(): void {
    const { u8, pool, guest } = this.#ctx;
    const aAt = pool.slotAt(this.#slotA[0]!) + this.#at[0]!;
    const inA = this.#bytesInA(0);
    const bAt = this.#totalBytes > inA ? pool.slotAt(this.#slotB[0]!) : 0;
    let from = 0;
    do {
      const bytes = Math.min(this.#segmentBytes, this.#totalBytes - from);
      if (from < inA || bytes === 0) {
        const piece = Math.min(bytes, inA - from);
        this.#send(aAt + from, piece, bAt, bytes - piece);
      } else {
        let at = bAt + from - inA;
        if (from - inA < HEADROOM_BYTES) {
          // Slot B has no headroom, as another slot precedes it: the first datagrams that begin in it are
          // sent from scratch memory.
          const scratchAt = guest.scratchAt + HEADROOM_BYTES;
          u8.copyWithin(scratchAt, at, at + bytes);
          at = scratchAt;
        }
        this.#send(at, bytes, 0, 0);
      }
      from += bytes;
    } while (from < this.#totalBytes);
  }

  /** Send one datagram; HEADROOM_BYTES in front of payloadAt are overwritten. */
  #send(payloadAt: number, bytesInA: number, moreAt: number, moreBytes: number): void {
    const f = this.#begin(payloadAt, bytesInA, moreAt, moreBytes);
    const sent = datagramToGuest(this.#ctx, f);
    if (sent === StageDrop.tooLong) this.#ctx.drop(sent);
  }
}
