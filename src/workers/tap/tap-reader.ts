/**
 * The TAP reader: reads each frame by one readv into [small slot, large slot], computes its flow hash, and
 * passes it to the shard of that flow.
 *
 * A pair of slots stays prepared between reads: a frame that fits in the small slot uses up only that one,
 * and a read that finds no frame uses up none. When no slots are free the reader stops reading; then the
 * kernel's TAP queue delays or drops frames, as a NIC's would. Fragments have no ports, so the reader
 * reassembles datagrams first (reassembly.ts).
 *
 * Nothing in a frame is trusted: its length is what readv returned, the vnet header is checked before its
 * fields are used, and headers are read only inside the small slot.
 */

import { addressRead, addressSetIpv4 } from '../../proto/address.ts';
import { readU16, readU32 } from '../../proto/be.ts';
import { Drop } from '../../proto/drop.ts';
import { ETH_BYTES, EtherType, etherType } from '../../proto/ethernet.ts';
import { IcmpType } from '../../proto/icmp.ts';
import { Icmp6Type } from '../../proto/icmpv6.ts';
import {
  IpProtocol,
  ipv4Dst,
  ipv4FragOffset,
  ipv4HeaderBytes,
  ipv4MoreFragments,
  ipv4Protocol,
  ipv4Src,
} from '../../proto/ipv4.ts';
import { IPV6_DST, IPV6_OUT_WORDS, IPV6_SRC, Ipv6Out, ipv6HeaderBytes, ipv6Upper } from '../../proto/ipv6.ts';
import { UDP_BYTES } from '../../proto/udp.ts';
import {
  VNET_BYTES,
  VnetFlag,
  VnetGso,
  vnetCheck,
  vnetCsumStart,
  vnetFinishChecksum,
  vnetFlags,
  vnetGsoSize,
  vnetGsoType,
} from '../../proto/vnethdr.ts';
import { Counter, DROP_BASE, recordHistogram } from '../../ring/counters.ts';
import { Histogram } from '../../ring/histograms.ts';
import {
  type FramePool,
  LARGE_SLOT_BYTES,
  NO_SLOT,
  type Ownership,
  type SlotStack,
  SMALL_SLOT_BYTES,
} from '../../ring/pool.ts';
import type { RingConsumer, RingProducer } from '../../ring/spsc.ts';
import { Errno, errnoName } from '../../sys/constants.ts';
import { read, readv } from '../../sys/io.ts';
import { copyBytes, NativeBuffer } from '../../sys/memory.ts';
import { IOVEC_BYTES, IOVEC_WORDS, iovecWrite } from '../../sys/socket.ts';
import { lostBy } from '../capture/drop-comment.ts';
import type { FrameCapture } from '../capture/frame-capture.ts';
import type { TapEnginePlan } from '../engine-plan.ts';
import { flowHash, type HashKey } from '../flow/flow-hash.ts';
import { FIRST_LANE, type FlowOwners } from '../flow/flow-owner.ts';
import { GroupKind, type GroupRules, groupRulesOf } from '../flow/group-rules.ts';
import { quotedFlow, quotedProtocol } from '../flow/quoted-flow.ts';
import { descriptorCopy, linkBytes, linkSlotA, linkSlotB, linkSlotOffset } from '../link/descriptor.ts';
import type { LaneReader } from '../link/lane-reader.ts';
import { Owner } from '../link/slot-owner.ts';
import { FrameFlag, frameBucket, frameClearForwarded, frameWrite } from '../link/to-shard.ts';
import type { SlotCounts } from '../placement.ts';
import { MAX_FRAME_BYTES } from '../shaping/line.ts';
import { Lines } from '../shaping/lines.ts';
import { isLinkFrame } from '../shaping/link-frames.ts';
import { Notice, type Notices } from '../thread/notices.ts';
import type { Stage } from '../thread/stage.ts';
import { FRAME_PEER_GONE } from './frame-peer.ts';
import { Impairment } from './impairment.ts';
import { Reassembler } from './reassembly.ts';
import { WaitingFrames } from './waiting-frames.ts';

/**
 * Most frames per round, and bytes after which a round ends: enough to amortise a round, few enough that ACKs
 * and other flows do not wait long. That is 16 full TSO frames, or as many small datagrams as one send call
 * takes (UDP_MAX_SEGMENTS).
 */
const BATCH_FRAMES = 64;
const BATCH_BYTES = 15 * 65536;
/**
 * A round with frames of at least so many flows takes twice the bytes: a program's write is two full frames,
 * so 16 frames are those of 8 flows. More frames of few flows would only be evicted from the cache before
 * they are sent (perf/notes.md). Flows are counted by five bits of the flow hash, so a few are missed.
 */
const MANY_FLOWS = 6;
const BATCH_BYTES_MANY = 31 * 65536;
/**
 * If the first frame after a sleep has at most so many bytes, the round ends with it: a request need not wait
 * for another read that finds no frame.
 */
const LONE_FRAME_BYTES = 1024;
/**
 * When no large slot was free for so long the reader goes on with small slots only: longer frames are lost
 * then, but ACKs and other small frames keep connections alive. Usually large slots come back sooner, as the
 * queues may not hold all of them (receive-buffers.ts, out-of-order.ts).
 */
const SMALL_ONLY_MS = 100;
/** When no slots were free for so long the log gets a line. */
const DRY_REPORT_MS = 1000;
/**
 * How often expired datagrams are looked for; the thread wakes for it only while there is an unfinished one.
 */
const EXPIRY_INTERVAL_MS = 1000;

/**
 * Most of its slots that a lane's reader has given to other lanes at a time: those lanes' budgets are for the
 * slots of their own readers, and queues there must not hold up this reader's frames. Further frames of other
 * lanes wait in this one, as long as it has plenty of free slots, and no longer than HAND_OVER_WAIT_MS.
 */
export const foreignLimit = (small: number, large: number): SlotCounts => ({
  small: small >> 3,
  large: large >> 5,
});

/** When other lanes have given no slot back for so long, the frames that wait for that are dropped. */
const HAND_OVER_WAIT_MS = 100;

function bitCount(bits: number): number {
  let n = 0;
  for (let rest = bits; rest !== 0; rest &= rest - 1) n++;
  return n;
}

/** TapReader.#udpPort of a frame whose destination is a multicast group or broadcast address. */
const TO_GROUP = -2;

export interface TapReaderOptions {
  readonly plan: TapEnginePlan;
  /** Number of the reader. The first one reassembles fragments, those of other readers too. */
  readonly reader: number;
  /** Descriptor of the TAP, or of its queue. */
  readonly tapFd: number;
  readonly owners: FlowOwners;
  readonly pool: FramePool;
  readonly ownership: Ownership;
  readonly counters: Float64Array;
  readonly smallSlots: SlotStack;
  readonly largeSlots: SlotStack;
  /** To each shard. */
  readonly toShards: readonly RingProducer[];
  /** Slots that come back from each shard and, last, from each host-io stage. */
  readonly freed: readonly RingConsumer[];
  readonly notices: Notices;
  /** Called with an error text when the TAP cannot be read any more: the engine must end. */
  onFatal(text: string): void;
}

export class TapReader implements Stage, LaneReader {
  readonly name = 'tap-reader';
  readonly #o: TapReaderOptions;
  readonly #u8: Uint8Array;
  readonly #vnetBytes: number;
  readonly #iov = new NativeBuffer(2 * IOVEC_BYTES);
  readonly #words = new Uint32Array(8);
  readonly #upper = new Int32Array(IPV6_OUT_WORDS);
  readonly #impairment: Impairment | null;
  #capture: FrameCapture | null = null;
  readonly #reassembler: Reassembler;
  readonly #hashKey: HashKey;
  /** Emulated lines of what the guest sends; null: there are none. */
  readonly #lines: Lines | null;
  #readable = true;
  /** The next frame is the first one after the TAP was empty. */
  #woken = false;
  #slotA = NO_SLOT;
  #slotB = NO_SLOT;
  /** No pair of slots is free, since #drySince. */
  #dry = false;
  #drySince = 0;
  /** The reader reads into small slots only, as no large one has come back for SMALL_ONLY_MS. */
  #smallOnly = false;
  /** The log has a line about #dry. */
  #reportedDry = false;
  /** ImpairmentPlan.wrongLaneEvery, and frames so far. */
  readonly #wrongLaneEvery: number;
  #pushed = 0;
  /** Slots of this reader that other lanes have, and the most that they may have. */
  #foreignSmall = 0;
  #foreignLarge = 0;
  readonly #maxForeign: SlotCounts;
  readonly #waiting = new WaitingFrames();
  /** When a frame went on from #waiting, or began to wait in it while it was empty. */
  #waitingSince = 0;
  /** Time of the round, monotonic milliseconds. */
  #now = 0;
  /** The frame that was hashed last is a fragment. */
  #fragment = false;
  /** Lanes only: which destinations are groups, whose flows are all in the first lane; null: no multicast. */
  readonly #groups: GroupRules | null;
  /** Guest's port of the UDP flow of that frame, -1: it belongs to none, TO_GROUP: its flow is to a group. */
  #udpPort = -1;
  /** Offset in that frame of its transport header, -1: it has none. */
  #transport = -1;
  /** Flows of this round: one bit for each value of the flow hash's lowest five bits. */
  #flowBits = 0;
  #nextExpiry = 0;

  constructor(options: TapReaderOptions) {
    this.#o = options;
    this.#u8 = options.pool.u8;
    this.#vnetBytes = options.plan.tap.vnetHdrBytes;
    const loss = options.plan.impairment;
    this.#impairment = loss ? new Impairment(loss.seed, loss.lossFromGuest, loss.crashAfterFrames) : null;
    this.#reassembler = new Reassembler({
      pool: options.pool,
      slots: options.largeSlots,
      counters: options.counters,
    });
    this.#hashKey = options.plan.hashKey;
    this.#groups = options.owners.areLanes ? groupRulesOf(options.plan) : null;
    const { shaping } = options.plan;
    this.#lines =
      shaping === undefined ? null : new Lines(shaping, 'fromGuest', options.counters, this.#vnetBytes);
    this.#wrongLaneEvery = loss?.wrongLaneEvery ?? 0;
    this.#maxForeign = foreignLimit(options.smallSlots.capacity, options.largeSlots.capacity);
  }

  /**
   * Capture frames from now on; null: no more. Shards capture those that they get, the reader the others:
   * fragments, and what it drops.
   */
  setCapture(capture: FrameCapture | null): void {
    this.#capture = capture;
  }

  /** Capture what was read into the prepared slots, as dropped. @param bytes  with the vnet header */
  #captureRead(bytes: number, cause: number): void {
    if (this.#capture === null || bytes < this.#vnetBytes) return;
    const { pool } = this.#o;
    const inA = Math.min(bytes, SMALL_SLOT_BYTES) - this.#vnetBytes;
    const more = bytes - this.#vnetBytes - inA;
    const moreAt = more > 0 ? pool.slotAt(this.#slotB) : 0;
    this.#capture.fromGuest(pool.slotAt(this.#slotA) + this.#vnetBytes, inA, moreAt, more, cause);
  }

  /** Capture a frame that could not be handed over. */
  #captureLost(slotA: number, slotB: number, frameAt: number, frameBytes: number): void {
    if (this.#capture === null) return;
    const { pool } = this.#o;
    const inA = Math.min(frameBytes, pool.slotBytes(slotA) - frameAt);
    const moreAt = slotB === NO_SLOT ? 0 : pool.slotAt(slotB);
    const cause = lostBy(Counter.handOverFull);
    this.#capture.fromGuest(pool.slotAt(slotA) + frameAt, inA, moreAt, frameBytes - inA, cause);
  }

  /** Only with EnginePlan.shaping. */
  get lines(): Lines | null {
    return this.#lines;
  }

  /** No slots are free, so nothing is taken from the lines. */
  get isDry(): boolean {
    return this.#dry;
  }

  /** epoll said that the TAP has frames. */
  onReadable(): void {
    this.#woken = !this.#readable;
    this.#readable = true;
  }

  hasInput(): boolean {
    // After a full round there is no new edge for the frames that are left.
    if (this.#readable && (!this.#dry || this.#smallOnly)) return true;
    for (let i = 0; i < this.#o.freed.length; i++) if (this.#o.freed[i]!.available() > 0) return true;
    for (let i = 0; i < this.#o.toShards.length; i++) if (this.#o.toShards[i]!.movable) return true;
    return false;
  }

  sleepMs(now: number): number {
    let expiry = this.#reassembler.busy > 0 ? this.#nextExpiry - now : Number.POSITIVE_INFINITY;
    if (this.#waiting.count > 0) expiry = Math.min(expiry, this.#waitingSince + HAND_OVER_WAIT_MS - now);
    if (!this.#dry || !this.#readable || this.#reportedDry) return expiry;
    const waitMs = this.#slotA === NO_SLOT ? DRY_REPORT_MS : SMALL_ONLY_MS;
    return Math.min(expiry, Math.max(1, this.#drySince + waitMs - now));
  }

  poll(now: number): number {
    this.#now = now;
    // Slots that came back do not count as work: they matter only when no slots were free, and then the reads
    // below count.
    this.#takeFreed();
    if (this.#waiting.count > 0) this.#sendWaiting(now);
    if (now >= this.#nextExpiry) this.#expire(now);
    if (this.#lines !== null) return this.#pollLines(this.#lines, now);
    let frames = 0;
    let bytes = 0;
    this.#flowBits = 0;
    for (; this.#readable && frames < BATCH_FRAMES; frames++) {
      if (bytes > BATCH_BYTES && (bytes > BATCH_BYTES_MANY || bitCount(this.#flowBits) < MANY_FLOWS)) break;
      const pieces = this.#arm(now);
      if (pieces === 0) break;
      const n = readv(this.#o.tapFd, this.#iov.address, pieces);
      this.#o.counters[Counter.tapReads]!++;
      if (n <= 0) {
        if (n === 0 && this.#o.plan.tap.socket === 'datagram') {
          this.#drop(Drop.short); // an empty datagram is not the end of the stream
          continue;
        }
        this.#onReadError(-n);
        break;
      }
      bytes += n;
      if (pieces === 1) {
        this.#o.counters[Counter.tapSmallReads]!++;
        // The kernel cuts off a frame that is longer, and returns the bytes that it copied.
        if (n === SMALL_SLOT_BYTES) {
          this.#o.counters[Counter.tapCutShort]!++;
          this.#captureRead(n, lostBy(Counter.tapCutShort));
          continue;
        }
      }
      this.#onFrame(n, now);
      if (this.#woken && n <= LONE_FRAME_BYTES) {
        frames++;
        break;
      }
      this.#woken = false;
    }
    this.#woken = false;
    if (frames > 0) recordHistogram(this.#o.counters, Histogram.tapBatch, frames);
    for (let i = 0; i < this.#o.toShards.length; i++) this.#o.toShards[i]!.flush();
    return frames;
  }

  /** A round with emulated lines: from the TAP to the line, and what arrives there into slots. */
  #pollLines(lines: Lines, now: number): number {
    const { counters, tapFd, toShards } = this.#o;
    const { u8, address } = lines.frame;
    const vnetBytes = this.#vnetBytes;
    let frames = 0;
    for (let bytes = 0; this.#readable && frames < BATCH_FRAMES && bytes < BATCH_BYTES; frames++) {
      const n = read(tapFd, address, MAX_FRAME_BYTES);
      counters[Counter.tapReads]!++;
      if (n <= 0) {
        this.#onReadError(-n);
        break;
      }
      bytes += n;
      if (isLinkFrame(u8, vnetBytes, n - vnetBytes)) this.#onCopied(address, n, now);
      else lines.enter(n, now);
    }
    let arrived = 0;
    for (; arrived < BATCH_FRAMES; arrived++) {
      const line = lines.due(now);
      if (line === null || !this.#onCopied(line.frameAddress, line.frameBytes, now)) break;
      line.release();
    }
    for (let i = 0; i < toShards.length; i++) toShards[i]!.flush();
    return frames + arrived;
  }

  /** A frame outside of the pool: copied to slots, then as one that was read. @returns false: no slot is free */
  #onCopied(address: number, bytes: number, now: number): boolean {
    const { counters, pool } = this.#o;
    const slots = this.#arm(now);
    if (slots === 0) return false;
    const inA = Math.min(bytes, SMALL_SLOT_BYTES);
    if (slots === 1 && bytes > inA) {
      counters[Counter.tapCutShort]!++;
      return true;
    }
    copyBytes(pool.slotAddress(this.#slotA), address, inA);
    if (bytes > inA) copyBytes(pool.slotAddress(this.#slotB), address + inA, bytes - inA);
    this.#onFrame(bytes, now);
    return true;
  }

  #expire(now: number): void {
    this.#nextExpiry = now + EXPIRY_INTERVAL_MS;
    this.#reassembler.expire(now);
  }

  #onReadError(errno: number): void {
    if (errno === Errno.EAGAIN) {
      this.#readable = false;
      this.#o.counters[Counter.tapEagain]!++;
    } else if (errno !== Errno.EINTR) {
      this.#readable = false;
      // 0: the peer closed the socket. ECONNRESET: it did so with frames to it unread.
      if (this.#o.plan.tap.socket !== undefined && (errno === 0 || errno === Errno.ECONNRESET))
        return this.#o.onFatal(FRAME_PEER_GONE);
      // EBADFD: the interface was deleted, as happens when its namespace ends.
      this.#o.onFatal(`the TAP device is gone: read: ${errnoName(errno)}`);
    }
  }

  #takeFreed(): void {
    const { freed, ownership, reader, owners } = this.#o;
    // With lanes there are as many host-io stages as shards; their links follow in the same order.
    const { shards, areLanes: lanes } = owners;
    for (let r = 0; r < freed.length; r++) {
      const ring = freed[r]!;
      const count = ring.available();
      if (count === 0) continue;
      const isForeign = lanes && r % shards !== reader;
      for (let i = 0; i < count; i++) {
        const at = ring.at(i);
        const a = linkSlotA(ring.words, at);
        const b = linkSlotB(ring.words, at);
        ownership.claim(a, Owner.inFlight, Owner.reader);
        ownership.claim(b, Owner.inFlight, Owner.reader);
        this.#free(a);
        this.#free(b);
        if (isForeign) this.#count(a, b, -1);
      }
      ring.release(count);
    }
  }

  /** Count slots that are given to another lane, or come back. */
  #count(slotA: number, slotB: number, sign: 1 | -1): void {
    const { pool } = this.#o;
    const cost = pool.slotCost(slotA) + pool.slotCost(slotB);
    this.#foreignSmall += sign * (cost & 0xffff);
    this.#foreignLarge += sign * (cost >>> 16);
  }

  #free(slot: number): void {
    if (slot === NO_SLOT) return;
    if (this.#o.pool.isSmall(slot)) this.#o.smallSlots.push(slot);
    else this.#o.largeSlots.push(slot);
  }

  /**
   * Prepare a pair of slots for the next read.
   * @returns number of slots to read into; 0: none is free
   */
  #arm(now: number): number {
    if (this.#slotA !== NO_SLOT && this.#slotB !== NO_SLOT) return 2;
    const { pool, smallSlots, largeSlots } = this.#o;
    if (this.#slotA === NO_SLOT) {
      this.#slotA = smallSlots.pop();
      if (this.#slotA !== NO_SLOT)
        iovecWrite(this.#iov.u32, 0, pool.slotAddress(this.#slotA), SMALL_SLOT_BYTES);
    }
    if (this.#slotB === NO_SLOT) {
      this.#slotB = largeSlots.pop();
      if (this.#slotB !== NO_SLOT)
        iovecWrite(this.#iov.u32, IOVEC_WORDS, pool.slotAddress(this.#slotB), LARGE_SLOT_BYTES);
    }
    if (this.#slotA !== NO_SLOT && this.#slotB !== NO_SLOT) {
      this.#dry = false;
      this.#smallOnly = false;
      if (this.#reportedDry) {
        this.#reportedDry = false;
        const text = 'frame slots are free again: the guest is read from as before';
        this.#o.notices.tell(Notice.slotsBack, 'warning', text);
      }
      return 2;
    }
    if (!this.#dry) {
      this.#dry = true;
      this.#drySince = now;
      this.#o.counters[Counter.poolDry]!++;
    }
    if (!this.#reportedDry && now - this.#drySince >= DRY_REPORT_MS) {
      this.#reportedDry = true;
      this.#o.notices.tell(
        Notice.slotsOut,
        'warning',
        `no free frame slots for ${DRY_REPORT_MS / 1000} s: large frames of the guest are lost`,
      );
    }
    this.#smallOnly = this.#slotA !== NO_SLOT && now - this.#drySince >= SMALL_ONLY_MS;
    return this.#smallOnly ? 1 : 0;
  }

  #drop(cause: number): void {
    this.#o.counters[DROP_BASE - cause]!++;
  }

  /** A frame of `bytes`, vnet header included, was read into the prepared slots. */
  #onFrame(bytes: number, now: number): void {
    const counters = this.#o.counters;
    counters[Counter.framesFromGuest]!++;
    counters[Counter.bytesFromGuest]! += bytes;
    if (this.#impairment?.loses()) {
      counters[Counter.lostFromGuest]!++;
      return this.#captureRead(bytes, lostBy(Counter.lostFromGuest));
    }
    const pool = this.#o.pool;
    const u8 = this.#u8;
    const slotAt = pool.slotAt(this.#slotA);
    const ethAt = slotAt + this.#vnetBytes;
    const frameBytes = bytes - this.#vnetBytes;
    if (frameBytes < ETH_BYTES) {
      this.#captureRead(bytes, Drop.short);
      return this.#drop(Drop.short);
    }
    let gsoType: number = VnetGso.none;
    let needsCsum = 0;
    let gsoSize = 0;
    if (this.#vnetBytes === VNET_BYTES) {
      const bad = vnetCheck(u8, slotAt, frameBytes);
      if (bad < 0) {
        this.#captureRead(bytes, bad);
        return this.#drop(bad);
      }
      // The ecn bit is dropped: the engine's TCP does not negotiate ECN (RFC 3168 section 6.1).
      gsoType = vnetGsoType(u8, slotAt) & ~VnetGso.ecn;
      if (vnetFlags(u8, slotAt) & VnetFlag.needsCsum) needsCsum = FrameFlag.needsCsum;
      gsoSize = vnetGsoSize(u8, slotAt);
    }
    const inA = Math.min(frameBytes, SMALL_SLOT_BYTES - this.#vnetBytes);
    const hash = this.#hash(ethAt, frameBytes, inA);
    if (needsCsum !== 0 && this.#transport !== vnetCsumStart(u8, slotAt)) {
      if (!this.#finishInner(slotAt, inA, frameBytes, gsoType)) {
        this.#captureRead(bytes, Drop.vnetCsum);
        return this.#drop(Drop.vnetCsum);
      }
      needsCsum = 0;
    }
    if (this.#fragment && this.#o.reader === 0)
      return this.#onFragment(ethAt, frameBytes, inA, frameBytes > inA ? this.#slotB : NO_SLOT, now);
    const fragment = this.#fragment ? FrameFlag.fragment : 0;
    const slotB = frameBytes > inA ? this.#slotB : NO_SLOT;
    const offload = gsoType | needsCsum | fragment;
    this.#push(this.#slotA, slotB, this.#vnetBytes, frameBytes, hash, offload, gsoSize);
    this.#slotA = NO_SLOT;
    if (slotB !== NO_SLOT) this.#slotB = NO_SLOT;
  }

  /**
   * Complete a partial checksum that does not belong to the transport header that the engine translates, but
   * to a packet inside it (VXLAN, Geneve, IP in IP): no later step would complete it. The outer checksum, if
   * there is one, is complete already, and was computed for a correct inner one.
   *
   * The bytes that were hashed must not change, or two shards would open the same flow: they are all in the
   * first 8 bytes of the transport header. A kernel never sends fragments with a partial checksum, and sends
   * segments of a tunnel only to a TAP with TUN_F_UDP_TUNNEL_GSO, which this one has not set.
   * @returns false: no kernel makes such a frame, drop it
   */
  #finishInner(slotAt: number, inA: number, frameBytes: number, gsoType: number): boolean {
    if (this.#fragment || gsoType !== VnetGso.none) return false;
    // A frame without a known transport header is not translated, so its checksum does not matter.
    if (this.#transport < 0) return true;
    if (vnetCsumStart(this.#u8, slotAt) < this.#transport + UDP_BYTES) return false;
    return vnetFinishChecksum(this.#u8, slotAt, inA, this.#o.pool.slotAt(this.#slotB), frameBytes - inA);
  }

  /** LaneReader.takeFragment(). */
  takeFragment(slotA: number, slotB: number, frameAt: number, frameBytes: number, now: number): void {
    const inA = Math.min(frameBytes, this.#o.pool.slotBytes(slotA) - frameAt);
    this.#onFragment(this.#o.pool.slotAt(slotA) + frameAt, frameBytes, inA, slotB, now);
    for (let i = 0; i < this.#o.toShards.length; i++) this.#o.toShards[i]!.flush();
  }

  #onFragment(ethAt: number, frameBytes: number, inA: number, slotB: number, now: number): void {
    const more = slotB === NO_SLOT ? 0 : frameBytes - inA;
    this.#capture?.fromGuest(ethAt, inA, more > 0 ? this.#o.pool.slotAt(slotB) : 0, more, 0);
    const family = etherType(this.#u8, ethAt) === EtherType.ipv6 ? 6 : 4;
    const r = this.#reassembler;
    const whole = r.push(ethAt + ETH_BYTES, inA - ETH_BYTES, frameBytes - ETH_BYTES, slotB, family, now);
    if (whole === NO_SLOT) return;
    const at = this.#o.pool.slotAt(whole) + r.frameAt;
    const hash = this.#hash(at, r.frameBytes, r.frameBytes);
    if (this.#fragment) {
      // Still a fragment after reassembly: its chain of extension headers is malformed.
      this.#o.largeSlots.push(whole);
      return this.#drop(Drop.fragment);
    }
    this.#push(whole, NO_SLOT, r.frameAt, r.frameBytes, hash, FrameFlag.reassembled, 0);
  }

  #push(
    slotA: number,
    slotB: number,
    frameAt: number,
    frameBytes: number,
    hash: number,
    offload: number,
    gsoSize: number,
  ): void {
    this.#flowBits |= 1 << (hash & 31);
    const shards = this.#o.toShards;
    const { owners, ownership, reader } = this.#o;
    let bucket = 0;
    let owner = 0;
    if (owners.areLanes) {
      if (this.#udpPort >= 0) bucket = owners.bucketOfUdp(this.#udpPort);
      else bucket = this.#udpPort === TO_GROUP ? FIRST_LANE : owners.bucketOfHash(hash);
      owner = owners.laneOf(bucket);
      if (this.#wrongLaneEvery > 0 && ++this.#pushed % this.#wrongLaneEvery === 0)
        owner = (owner + 1) % shards.length;
      if (owner !== reader && !this.#handOver(slotA, slotB)) {
        if (this.#mayWait()) {
          ownership.claim(slotA, Owner.reader, Owner.inFlight);
          ownership.claim(slotB, Owner.reader, Owner.inFlight);
          frameWrite(this.#waiting, slotA, slotB, frameAt, frameBytes, hash, offload, gsoSize, bucket);
          return;
        }
        this.#captureLost(slotA, slotB, frameAt, frameBytes);
        this.#free(slotA);
        this.#free(slotB);
        return;
      }
    } else if (shards.length > 1) owner = owners.ofHash(hash);
    ownership.claim(slotA, Owner.reader, Owner.inFlight);
    ownership.claim(slotB, Owner.reader, Owner.inFlight);
    frameWrite(shards[owner]!, slotA, slotB, frameAt, frameBytes, hash, offload, gsoSize, bucket);
  }

  /** Links to all shards. */
  get toShards(): readonly RingProducer[] {
    return this.#o.toShards;
  }

  /** LaneReader.forward(). */
  forward(slotsOf: number, words: Uint32Array, at: number): boolean {
    const { owners, reader } = this.#o;
    const owner = owners.nextOf(reader, frameBucket(words, at));
    if (slotsOf === reader && !this.#handOver(linkSlotA(words, at), linkSlotB(words, at))) {
      if (!this.#mayWait()) return false;
      const to = this.#waiting.reserve();
      descriptorCopy(words, at, this.#waiting.words, to);
      // It has not left this lane, so it cannot come back to it (cameBack()).
      frameClearForwarded(this.#waiting.words, to);
      this.#waiting.commit();
      return true;
    }
    this.forwardMessage(owner, words, at);
    return true;
  }

  /** LaneReader.forwardMessage(). */
  forwardMessage(owner: number, words: Uint32Array, at: number): void {
    const out = this.#o.toShards[owner]!;
    const to = out.reserve();
    descriptorCopy(words, at, out.words, to);
    out.commit();
    out.flush();
  }

  /** LaneReader.cameBack(). */
  cameBack(slotA: number, slotB: number): void {
    this.#count(slotA, slotB, -1);
  }

  /**
   * A frame goes to another lane.
   * @returns false: it does not, as others wait or the other lanes have too many slots
   */
  #handOver(slotA: number, slotB: number): boolean {
    this.#o.counters[Counter.handedOver]!++;
    return this.#waiting.count === 0 && this.#takeRoom(slotA, slotB);
  }

  /** Count slots as another lane's, if it may have them. */
  #takeRoom(slotA: number, slotB: number): boolean {
    const { small, large } = this.#maxForeign;
    const needsLarge = slotB !== NO_SLOT || !this.#o.pool.isSmall(slotA);
    if (this.#foreignSmall >= small || (needsLarge && this.#foreignLarge >= large)) return false;
    this.#count(slotA, slotB, 1);
    return true;
  }

  /** Whether a frame that could not be handed over waits; else it is lost, and counted here. */
  #mayWait(): boolean {
    if (this.#isPlenty() && !this.#waiting.isFull) {
      if (this.#waiting.count === 0) this.#waitingSince = this.#now;
      return true;
    }
    this.#o.counters[Counter.handOverFull]!++;
    return false;
  }

  /** How many of the reader's slots are not free. */
  get slotsUsed(): { readonly small: number; readonly large: number } {
    const { smallSlots, largeSlots } = this.#o;
    return { small: smallSlots.used, large: largeSlots.used };
  }

  /** Half of the reader's slots of both kinds are free: frames that wait hold up no others. */
  #isPlenty(): boolean {
    const { smallSlots, largeSlots } = this.#o;
    return smallSlots.free >= smallSlots.capacity >>> 1 && largeSlots.free >= largeSlots.capacity >>> 1;
  }

  /** Hand over frames that wait, as far as the other lanes have room now. */
  #sendWaiting(now: number): void {
    const { owners, reader, ownership, counters, toShards } = this.#o;
    const waiting = this.#waiting;
    while (waiting.count > 0) {
      const { words, oldest } = waiting;
      const [slotA, slotB, bucket] = [
        linkSlotA(words, oldest),
        linkSlotB(words, oldest),
        frameBucket(words, oldest),
      ];
      const owner = owners.keeps(reader, bucket) ? reader : owners.nextOf(reader, bucket);
      if (owner === reader || this.#takeRoom(slotA, slotB)) {
        const out = toShards[owner]!;
        const to = out.reserve();
        descriptorCopy(words, oldest, out.words, to);
        out.commit();
        this.#waitingSince = now;
      } else if (now - this.#waitingSince < HAND_OVER_WAIT_MS && this.#isPlenty()) return;
      else {
        counters[Counter.handOverFull]!++;
        this.#captureLost(slotA, slotB, linkSlotOffset(words, oldest), linkBytes(words, oldest));
        ownership.claim(slotA, Owner.inFlight, Owner.reader);
        ownership.claim(slotB, Owner.inFlight, Owner.reader);
        this.#free(slotA);
        this.#free(slotB);
      }
      waiting.shift();
    }
  }

  /**
   * Flow hash of the frame, by which its shard will look up the flow. The hash of a frame without a flow
   * (ARP, NDP, malformed ones) is 0: it goes to the first shard. Sets #fragment, #udpPort and #transport.
   */
  #hash(ethAt: number, frameBytes: number, inA: number): number {
    this.#fragment = false;
    this.#udpPort = -1;
    this.#transport = -1;
    const u8 = this.#u8;
    const ipAt = ethAt + ETH_BYTES;
    const ipBytes = frameBytes - ETH_BYTES;
    const ipInA = inA - ETH_BYTES;
    const type = etherType(u8, ethAt);
    const words = this.#words;
    let proto: number;
    let transport: number;
    if (type === EtherType.ipv4) {
      const headerBytes = ipv4HeaderBytes(u8, ipAt, ipBytes);
      if (headerBytes < 0) return 0;
      if (ipv4MoreFragments(u8, ipAt) || ipv4FragOffset(u8, ipAt) !== 0) {
        this.#fragment = true;
        return 0;
      }
      proto = ipv4Protocol(u8, ipAt);
      transport = headerBytes;
      addressSetIpv4(words, 0, ipv4Src(u8, ipAt));
      addressSetIpv4(words, 4, ipv4Dst(u8, ipAt));
    } else if (type === EtherType.ipv6) {
      if (ipv6HeaderBytes(u8, ipAt, ipBytes) < 0) return 0;
      if (ipv6Upper(u8, ipAt, ipInA, this.#upper) < 0) return 0;
      if (this.#upper[Ipv6Out.fragmentAt]! >= 0) {
        this.#fragment = true;
        return 0;
      }
      proto = this.#upper[Ipv6Out.protocol]!;
      transport = this.#upper[Ipv6Out.upperAt]!;
      addressRead(u8, ipAt + IPV6_SRC, words, 0);
      addressRead(u8, ipAt + IPV6_DST, words, 4);
    } else return 0;
    this.#transport = ETH_BYTES + transport;
    let ports: number;
    if (proto === IpProtocol.tcp || proto === IpProtocol.udp) {
      if (transport + 4 > ipInA) return 0;
      ports = readU32(u8, ipAt + transport);
      if (proto === IpProtocol.udp) {
        const isGroup = this.#groups !== null && this.#groups.kindOf(words, 4) !== GroupKind.none;
        this.#udpPort = isGroup ? TO_GROUP : ports >>> 16;
      }
    } else if (proto === IpProtocol.icmp || proto === IpProtocol.icmpv6) {
      if (transport + 8 > ipInA) return 0;
      const icmpType = u8[ipAt + transport]!;
      if (icmpType !== (proto === IpProtocol.icmp ? IcmpType.echoRequest : Icmp6Type.echoRequest)) {
        // An ICMP error about a flow goes to the shard of that flow; neighbour discovery and all other
        // messages go to the first shard.
        const family = proto === IpProtocol.icmp ? 4 : 6;
        const icmpAt = ipAt + transport;
        const quoted = quotedFlow(u8, icmpAt, ipInA - transport, family, words);
        if (quoted < 0) return 0;
        const quotedProto = quotedProtocol(u8, icmpAt, family);
        if (quotedProto === IpProtocol.udp) this.#udpPort = quoted >>> 16;
        return flowHash(this.#hashKey, words, 0, words, 4, quoted, quotedProto);
      }
      // Echo flows hash by identifier.
      ports = (readU16(u8, ipAt + transport + 4) << 16) >>> 0;
    } else return 0;
    return flowHash(this.#hashKey, words, 0, words, 4, ports, proto);
  }

  close(): void {}
}
