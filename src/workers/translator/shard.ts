/**
 * One shard of the translator. It takes frames from the reader's link, checks Ethernet and IP headers, and
 * passes each packet to the module of its protocol; it takes host-io's messages and passes them to the module
 * of their flow; it runs the timers.
 *
 * To add a protocol: the constructor makes its module, #onIpv4 and #onIpv6 pass it its packets, #takeMessages
 * its messages, #fire its timers, and describeFlow() asks it for a flow's state.
 */

import { addressRead, addressSetIpv4, isLoopback, isMulticast, isV4Mapped } from '../../proto/address.ts';
import { arpCheck, arpSenderIp } from '../../proto/arp.ts';
import { Drop } from '../../proto/drop.ts';
import { ETH_BYTES, ETH_SRC, EtherType, etherType } from '../../proto/ethernet.ts';
import { Icmp6Type } from '../../proto/icmpv6.ts';
import {
  IpProtocol,
  ipv4ChecksumOk,
  ipv4DontFragment,
  ipv4Dst,
  ipv4HeaderBytes,
  ipv4Protocol,
  ipv4Src,
  ipv4Tos,
  ipv4TotalLen,
  ipv4Ttl,
} from '../../proto/ipv4.ts';
import {
  IPV6_BYTES,
  IPV6_DST,
  IPV6_OUT_WORDS,
  IPV6_SRC,
  Ipv6Out,
  ipv6HeaderBytes,
  ipv6HopLimit,
  ipv6PayloadLen,
  ipv6TrafficClass,
  ipv6Upper,
} from '../../proto/ipv6.ts';
import type { Pref64 } from '../../proto/ndp.ts';
import { Counter, DROP_BASE } from '../../ring/counters.ts';
import { BUCKETS, NEIGHBOUR_WORDS } from '../../ring/layout.ts';
import { type FramePool, NO_SLOT, type Ownership } from '../../ring/pool.ts';
import type { RingConsumer, RingProducer } from '../../ring/spsc.ts';
import { lostBy } from '../capture/drop-comment.ts';
import type { FrameCapture } from '../capture/frame-capture.ts';
import type { EgressPlan, HostChange, TapEnginePlan } from '../engine-plan.ts';
import { Addressing } from '../flow/addressing.ts';
import { Egress } from '../flow/egress.ts';
import type { FlowOwners } from '../flow/flow-owner.ts';
import { describeEntry, FlowField, type FlowSource } from '../flow/flow-report.ts';
import { FlowState } from '../flow/flow-state.ts';
import { groupRulesOf } from '../flow/group-rules.ts';
import { ShardFlows } from '../flow/shard-flows.ts';
import { SocketNames } from '../flow/socket-names.ts';
import { TimerWheel } from '../flow/timer-wheel.ts';
import { linkBytes, linkFlow, linkOp, linkSlotA, linkSlotB, linkSlotOffset } from '../link/descriptor.ts';
import type { LaneReader } from '../link/lane-reader.ts';
import type { ReaderReturns } from '../link/reader-returns.ts';
import { Owner } from '../link/slot-owner.ts';
import { StageDrop } from '../link/stage-drop.ts';
import { freeHostSlotsWrite, refuseWrite, takeOverWrite } from '../link/to-host.ts';
import {
  acceptedHash,
  frameBucket,
  frameGsoSize,
  frameHash,
  frameOffload,
  frameSetForwarded,
  movedBucket,
  movedFlowRead,
  offloadGsoType,
  offloadIsForwarded,
  offloadIsFragment,
  offloadIsReassembled,
  offloadNeedsCsum,
  ToShard,
} from '../link/to-shard.ts';
import type { Lines } from '../shaping/lines.ts';
import { GuestLink } from '../tap/guest-link.ts';
import { GuestNeighbours } from '../tap/guest-neighbours.ts';
import { Notice, type Notices } from '../thread/notices.ts';
import type { Carried, Stage } from '../thread/stage.ts';
import { handleArp } from './arp.ts';
import { chatterKind4, chatterKind6, packetChatter } from './chatter.ts';
import { type ShardContext, TIMER_KINDS } from './context.ts';
import { ShardFlowComments } from './flow-comments.ts';
import { GroupMembership } from './groups.ts';
import { PingTranslator } from './icmp-echo.ts';
import { handleNdp, sendUnsolicitedRa } from './ndp.ts';
import { OtherProtocols } from './other-protocols.ts';
import { type Packet, packetDiscard, packetFree } from './packet.ts';
import { ResolverChoice } from './resolvers.ts';
import { TcpTranslator } from './tcp.ts';
import { UdpTranslator } from './udp.ts';

/** Most frames that are taken in one round, so that host-io's messages are not delayed for long. */
const BATCH_FRAMES = 64;

export interface ShardOptions {
  readonly shard: number;
  readonly plan: TapEnginePlan;
  readonly pool: FramePool;
  readonly ownership: Ownership;
  readonly counters: Float64Array;
  /** A large slot of the shard's own, where headers and short packets are built. */
  readonly scratchSlot: number;
  /** Large slots of the shard's own that hold DNS queries: the first one, how many. */
  readonly dnsSlots: readonly [number, number];
  /**
   * The guest's MAC address, six bytes shared by all shards: the shard that receives a frame from another
   * address writes it.
   */
  readonly guestMac: Uint8Array;
  /** Words of GuestNeighbours, shared by all shards. */
  readonly neighbours?: Uint32Array | undefined;
  /** Addressing.seen, shared by all shards. */
  readonly seen?: Uint32Array | undefined;
  /** Descriptor of the TAP, or of the lane's queue. */
  readonly tapFd: number;
  readonly owners: FlowOwners;
  /** From each reader. */
  readonly fromReaders: readonly RingConsumer[];
  readonly toReaders: ReaderReturns;
  /** From the host-io stage with the shard's sockets, and from the one with the published ports. */
  readonly fromHosts: readonly RingConsumer[];
  readonly toHost: RingProducer;
  /** The lane's reader; absent: there are no lanes. */
  readonly reader?: LaneReader | undefined;
  /** Emulated lines to the guest. */
  readonly lines?: Lines | undefined;
  readonly notices: Notices;
}

/** The stage of one shard. */
export class Shard implements Stage, FlowSource {
  readonly name: string;
  readonly #o: ShardOptions;
  readonly #ctx: ShardContext;
  readonly #u8: Uint8Array;
  readonly #tcp: TcpTranslator;
  readonly #udp: UdpTranslator;
  readonly #ping: PingTranslator;
  readonly #otherProtocols: OtherProtocols;
  /** Only in the first shard, which gets all frames without a flow, and only with multicast. */
  readonly #groups: GroupMembership | null;
  readonly #resolvers: ResolverChoice;
  readonly #fire: (id: number) => void;
  #nextRa = 0;
  /** Free ids at the last #tellRoom(). */
  #toldFree = -1;
  readonly #upper = new Int32Array(IPV6_OUT_WORDS);
  /** Where the frame's sender stands whose address is still to be learnt with its MAC; -1: nothing to learn. */
  #macAt = -1;
  /** By reader: a flow of its lane, of which not all parts may be here yet. */
  readonly #moved: readonly FlowState[];
  #capture: FrameCapture | null = null;
  readonly #packet: Packet = {
    slotA: NO_SLOT,
    slotB: NO_SLOT,
    ipAt: 0,
    transportAt: 0,
    transportBytes: 0,
    transportBytesInA: 0,
    family: 4,
    proto: 0,
    ttl: 0,
    tos: 0,
    dontFragment: false,
    hash: 0,
    ports: 0,
    needsCsum: false,
    gsoType: 0,
    gsoSize: 0,
    addr: new Uint32Array(8),
  };

  constructor(options: ShardOptions) {
    this.#o = options;
    this.name = `shard ${options.shard}`;
    const { plan, pool, counters, toReaders, toHost, ownership } = options;
    this.#u8 = pool.u8;
    this.#moved = options.fromReaders.map(() => new FlowState());
    const addressing = new Addressing(plan.addresses, plan.policy, options.seen);
    const fullText = `flow table of shard ${options.shard} is full (${plan.pool.flows}): new flows wait, or old unanswered ones give way`;
    const neighbours = new GuestNeighbours(
      options.neighbours ?? new Uint32Array(NEIGHBOUR_WORDS),
      options.guestMac,
    );
    const ctx: ShardContext = {
      shard: options.shard,
      plan,
      addressing,
      pool,
      u8: pool.u8,
      counters,
      flows: new ShardFlows(plan.pool.flows, counters, () =>
        options.notices.tell(Notice.tableFull, 'warning', fullText),
      ),
      timers: new TimerWheel(plan.pool.flows * TIMER_KINDS, 4, performance.now()),
      toHost,
      guest: new GuestLink({
        tapFd: options.tapFd,
        isSocket: plan.tap.socket !== undefined,
        vnetHdrBytes: plan.tap.vnetHdrBytes,
        uso: plan.tap.uso,
        bigTcp: plan.tap.bigTcp === true,
        pool,
        scratchSlot: options.scratchSlot,
        counters,
        mac: addressing.mac,
        guestMac: options.guestMac,
        neighbours,
        ipv4: addressing.gateway[3]!,
        linkLocal: addressing.linkLocal,
        impairment: plan.impairment,
        lines: options.lines,
      }),
      neighbours,
      now: performance.now(),
      pref64: [],
      freeReaderSlots: (slotA, slotB) => {
        if (slotA === NO_SLOT && slotB === NO_SLOT) return;
        ownership.check(slotA, Owner.inFlight);
        ownership.check(slotB, Owner.inFlight);
        toReaders.free(slotA, slotB);
      },
      freeHostSlots: (slotA, slotB) => {
        if (slotA === NO_SLOT && slotB === NO_SLOT) return;
        freeHostSlotsWrite(toHost, slotA, slotB);
      },
      drop: (cause) => {
        counters[DROP_BASE - cause]!++;
        this.#capture?.drop(cause);
      },
      dnsSlots: options.dnsSlots,
      owners: options.owners,
      groups: groupRulesOf(plan),
      egress: new Egress(plan.egress, {
        isDue: () => options.notices.isDue(Notice.egressDenied),
        tell: (text) => options.notices.tell(Notice.egressDenied, 'warning', text),
      }),
      notices: options.notices,
    };
    this.#ctx = ctx;
    this.#moved = options.fromReaders.map(() => new FlowState());
    this.#resolvers = new ResolverChoice(plan.addresses);
    this.#tcp = new TcpTranslator(ctx, this.#resolvers);
    this.#udp = new UdpTranslator(ctx, this.#resolvers);
    this.#ping = new PingTranslator(ctx);
    this.#tellRoom();
    this.#otherProtocols = new OtherProtocols(ctx);
    const isFirst = options.shard === 0;
    this.#groups = isFirst && ctx.groups !== null ? new GroupMembership(ctx, ctx.groups) : null;
    this.#fire = (id) => {
      const flow = Math.floor(id / TIMER_KINDS);
      const kind = id % TIMER_KINDS;
      switch (ctx.flows.proto[flow]) {
        case IpProtocol.tcp:
          return this.#tcp.onTimer(flow, kind);
        case IpProtocol.udp:
          return this.#udp.onTimer(flow, kind);
        default:
          return this.#ping.onTimer(flow, kind);
      }
    };
  }

  /** Whether descriptors wait on a link into the shard, or overflow of a link out of it can move. */
  hasInput(): boolean {
    const { fromReaders, fromHosts, toHost, toReaders } = this.#o;
    for (let i = 0; i < fromReaders.length; i++) if (fromReaders[i]!.available() > 0) return true;
    for (let i = 0; i < fromHosts.length; i++) if (fromHosts[i]!.available() > 0) return true;
    return toHost.movable || toReaders.movable;
  }

  /** Add what the shard carried. Stream bytes are not added: host-io counts them, in both directions. */
  addCarried(sum: Carried): void {
    sum.datagrams += this.#ctx.counters[Counter.datagramsToGuest]!;
  }

  /** Milliseconds until a timer or a router advertisement is due. */
  sleepMs(now: number): number {
    const ownMs = Math.min(this.#ctx.timers.nextDeadline(now), this.#nextRa - now);
    return this.#groups === null ? ownMs : Math.min(ownMs, this.#groups.sleepMs(now));
  }

  /** Take over a changed list of the host's resolvers; see Resolvers.update(). */
  setResolvers(list: readonly string[]): void {
    this.#resolvers.update(list);
  }

  /**
   * Take over another egress policy, and end the flows that it denies.
   * @param plan  undefined: none
   * @returns how many flows were ended
   */
  setEgress(plan: EgressPlan | undefined): number {
    const ctx = this.#ctx;
    const { flows } = ctx;
    ctx.egress.set(plan);
    ctx.now = performance.now();
    let ended = 0;
    for (let flow = 0; flow < flows.maxFlows; flow++) {
      if (!flows.isLive(flow)) continue;
      const proto = flows.proto[flow]!;
      const stated = proto === IpProtocol.tcp ? this.#tcp : proto === IpProtocol.udp ? this.#udp : this.#ping;
      if (stated.endIfDenied(flow)) ended++;
    }
    ctx.counters[Counter.policyFlowsEnded]! += ended;
    this.#o.toHost.flush();
    return ended;
  }

  /** Offer other NAT64 prefixes; the first shard sends a router advertisement at once. */
  setPref64(list: readonly Pref64[]): void {
    this.#ctx.pref64 = list;
    if (this.#o.shard === 0) this.#nextRa = 0;
  }

  /** The shard's flows; to be read only. */
  get flows(): ShardFlows {
    return this.#ctx.flows;
  }

  /**
   * Give buckets without flows to other lanes: FlowOwners.give().
   * @returns how many the lane still owns
   */
  giveBuckets(to: readonly number[], share: number): number {
    const { flows } = this.#ctx;
    const { owners, shard } = this.#o;
    const inUse = new Uint8Array(BUCKETS + 1);
    for (let flow = 0; flow < flows.maxFlows; flow++)
      if (flows.isLive(flow))
        inUse[owners.bucketOf(flows.hash[flow]!, flows.proto[flow]!, flows.ports[flow]!)] = 1;
    return owners.give(shard, to, inUse, share);
  }

  /** Take over a change of the host's network. */
  hostChanged(change: HostChange): void {
    this.#ctx.addressing.hostChanged(change);
  }

  /** Places of flowPage(): the ids of TCP, UDP and ping flows. */
  get placeCount(): number {
    return this.#ctx.flows.maxFlows;
  }

  /** FlowSource.describeFlow(). */
  describeFlow(place: number, rows: Float64Array, at: number): boolean {
    const { flows, now } = this.#ctx;
    if (!flows.isLive(place)) return false;
    const proto = flows.proto[place]!;
    const isTcp = proto === IpProtocol.tcp;
    const stated = isTcp ? this.#tcp : proto === IpProtocol.udp ? this.#udp : this.#ping;
    describeEntry(flows, place, rows, at);
    rows[at + FlowField.state] = stated.stateOf(place);
    if (isTcp) this.#tcp.describe(place, rows, at);
    rows[at + FlowField.ageMs] = now - flows.bornMs[place]!;
    return true;
  }

  /**
   * One round: frames, messages, timers, pending output.
   * @param now  monotonic milliseconds
   * @returns how many frames, messages and pending segments were handled
   */
  poll(now: number): number {
    const ctx = this.#ctx;
    ctx.now = now;
    ctx.flows.nowMs = now;
    const { fromReaders, fromHosts } = this.#o;
    let work = 0;
    for (let i = 0; i < fromReaders.length; i++) work += this.#takeFrames(fromReaders[i]!, this.#moved[i]!);
    for (let i = 0; i < fromHosts.length; i++) work += this.#takeMessages(fromHosts[i]!);
    ctx.timers.advance(now, this.#fire);
    if (now >= this.#nextRa) this.#advertise(now);
    this.#groups?.poll(now);
    if (!ctx.guest.waiting.isEmpty) ctx.guest.waiting.send();
    work += this.#tcp.flush();
    this.#tellRoom();
    this.#o.toHost.flush();
    this.#o.toReaders.flush();
    return work;
  }

  /**
   * Send an unsolicited router advertisement at the start and every 200 to 600 s (RFC 4861 section 6.2.4);
   * only the first shard does.
   */
  #advertise(now: number): void {
    this.#nextRa = this.#o.shard === 0 ? now + 1000 * (200 + Math.random() * 400) : Number.POSITIVE_INFINITY;
    if (this.#o.shard === 0) sendUnsolicitedRa(this.#ctx);
  }

  /** @param moved  the flow that the ring's lane is passing on */
  #takeFrames(ring: RingConsumer, moved: FlowState): number {
    let count = ring.available();
    if (count > BATCH_FRAMES) count = BATCH_FRAMES;
    const words = ring.words;
    for (let i = 0; i < count; i++) {
      const at = ring.at(i);
      const op = linkOp(words, at);
      if (op === ToShard.frame) {
        if (this.#capture === null) this.#onFrame(words, at);
        else this.#captureFrame(this.#capture, words, at);
      } else this.#onLaneMessage(op, words, at, moved);
    }
    ring.release(count);
    return count;
  }

  /**
   * Capture frames from now on.
   * @param capture  of the thread; null: no more
   * @param names  memory of SocketNames
   */
  setCapture(capture: FrameCapture | null, names?: SharedArrayBuffer): void {
    this.#capture = capture;
    const { plan, flows, guest } = this.#ctx;
    guest.setCapture(capture);
    if (capture === null || names === undefined) return;
    const { kind } = plan.threads;
    capture.comments = new ShardFlowComments({
      ...{ flows, hashKey: plan.hashKey, tcp: this.#tcp, names: new SocketNames(names, 0) },
      firstGid: this.#o.shard * plan.pool.flows,
      where: kind === 'fused' ? '' : `${kind === 'lanes' ? 'lane' : 'shard'} ${this.#o.shard}`,
    });
  }

  /** onFrame() while frames are captured: those that stay here, and fragments once they are whole and dropped. */
  #captureFrame(capture: FrameCapture, words: Uint32Array, at: number): void {
    const { reader, shard, owners } = this.#o;
    const offload = frameOffload(words, at);
    const isOurs = reader === undefined || owners.keeps(shard, frameBucket(words, at));
    // The reader has captured the fragments.
    if (!isOurs || offloadIsFragment(offload) || offloadIsReassembled(offload))
      return this.#onFrame(words, at);
    const { pool } = this.#ctx;
    const slotA = linkSlotA(words, at);
    const slotB = linkSlotB(words, at);
    const frameAt = linkSlotOffset(words, at);
    const frameBytes = linkBytes(words, at);
    const inA = Math.min(frameBytes, pool.slotBytes(slotA) - frameAt);
    const moreAt = slotB === NO_SLOT ? 0 : pool.slotAt(slotB);
    capture.open(pool.slotAt(slotA) + frameAt, inA, moreAt, frameBytes - inA);
    this.#onFrame(words, at);
    capture.close();
  }

  #takeMessages(ring: RingConsumer): number {
    const count = ring.available();
    const words = ring.words;
    for (let i = 0; i < count; i++) {
      const at = ring.at(i);
      const op = linkOp(words, at);
      if (op === ToShard.accepted) this.#onAccepted(words, at);
      else if (op === ToShard.listenerDatagram || op === ToShard.unsolicitedDatagram)
        this.#udp.onMessage(op, words, at);
      else if (op === ToShard.groupDatagram) this.#groups!.onDatagram(words, at);
      else {
        switch (this.#ctx.flows.proto[linkFlow(words, at)]) {
          case IpProtocol.tcp:
            this.#tcp.onMessage(op, words, at);
            break;
          case IpProtocol.udp:
            this.#udp.onMessage(op, words, at);
            break;
          default:
            this.#ping.onMessage(op, words, at);
        }
      }
    }
    // Send the batches before the descriptors are released and before the thread waits: nothing is delayed to
    // be coalesced.
    this.#udp.flush();
    this.#tcp.flushBatch();
    ring.release(count);
    return count;
  }

  /**
   * Say for how many flows of other lanes there is room. An eighth of the table stays: below a sixteenth, older
   * flows would give way (ShardFlows).
   */
  #tellRoom(): void {
    const { owners, shard } = this.#o;
    const { freeCount, maxFlows } = this.#ctx.flows;
    if (!owners.areLanes || freeCount === this.#toldFree) return;
    this.#toldFree = freeCount;
    owners.setRoom(shard, freeCount - (maxFlows >>> 3));
  }

  /** From another lane, by the ring of its reader. */
  #onLaneMessage(op: number, words: Uint32Array, at: number, moved: FlowState): void {
    if (op === ToShard.accepted) this.#onAccepted(words, at);
    else if (op === ToShard.movedBucket) this.#o.owners.endMove(movedBucket(words, at), this.#o.shard);
    else if (movedFlowRead(words, at, moved.words)) this.#moveIn(moved);
  }

  /** The state of a flow of another lane is complete. */
  #moveIn(state: FlowState): void {
    const { counters, toHost } = this.#o;
    counters[Counter.flowsMoved]!++;
    const flow = this.#tcp.moveIn(state);
    this.#tellRoom();
    this.#o.owners.endReservation(this.#o.shard, 1);
    if (flow >= 0) {
      takeOverWrite(toHost, flow, state.words);
      // The other lane may not have known of the new egress policy yet.
      if (this.#tcp.endIfDenied(flow)) counters[Counter.policyFlowsEnded]!++;
    }
    // No room: the socket is reset, and the guest's next segment is answered by RST.
    else refuseWrite(toHost, state.words[0]!);
  }

  /** Whether a flow may move to another lane, as far as the shard knows. */
  canMove(flow: number): boolean {
    return this.#ctx.flows.proto[flow] === IpProtocol.tcp && this.#tcp.canMove(flow);
  }

  /**
   * Handle what host-io has written, between two rounds: host-io has released sockets, and what it read from
   * them before belongs to their flows here.
   */
  takeReleased(now: number): void {
    this.#ctx.now = now;
    this.#ctx.flows.nowMs = now;
    for (const ring of this.#o.fromHosts) this.#takeMessages(ring);
  }

  /** Whether commands to host-io wait for room in its ring. */
  get isBehind(): boolean {
    return this.#o.toHost.overflowed > 0;
  }

  /** Whether moveOut() may be called, after takeReleased(). */
  mayMoveOut(flow: number): boolean {
    return this.canMove(flow) && this.#tcp.hasSentAll(flow);
  }

  /** Take a flow out whose socket host-io has released. @param state  the shard's part is written to it */
  moveOut(flow: number, state: FlowState): void {
    this.#tcp.moveOut(flow, state);
  }

  /** Give a released socket back to host-io. */
  takeBack(flow: number, state: FlowState): void {
    takeOverWrite(this.#o.toHost, flow, state.words);
    this.#o.toHost.flush();
  }

  /** A connection to a published port was accepted; its bucket may have been given away meanwhile. */
  #onAccepted(words: Uint32Array, at: number): void {
    const { reader, owners, shard } = this.#o;
    if (reader !== undefined) {
      const bucket = owners.bucketOfHash(acceptedHash(words, at));
      if (!owners.keeps(shard, bucket)) return reader.forwardMessage(owners.nextOf(shard, bucket), words, at);
    }
    this.#tcp.onMessage(ToShard.accepted, words, at);
  }

  #onFrame(words: Uint32Array, at: number): void {
    const u8 = this.#u8;
    const p = this.#packet;
    p.slotA = linkSlotA(words, at);
    p.slotB = linkSlotB(words, at);
    const frameAt = linkSlotOffset(words, at);
    const frameBytes = linkBytes(words, at);
    p.hash = frameHash(words, at);
    const offload = frameOffload(words, at);
    const { reader } = this.#o;
    if (reader !== undefined) {
      const { shard } = this.#o;
      const slotsOf = this.#o.toReaders.readerOf(p.slotA);
      if (slotsOf === shard && offloadIsForwarded(offload)) reader.cameBack(p.slotA, p.slotB);
      if (!this.#o.owners.keeps(shard, frameBucket(words, at))) {
        frameSetForwarded(words, at);
        if (reader.forward(slotsOf, words, at)) return;
        if (this.#capture !== null) this.#captureLost(this.#capture, p, frameAt, frameBytes);
        return packetFree(this.#ctx, p);
      }
    }
    p.gsoType = offloadGsoType(offload);
    p.needsCsum = offloadNeedsCsum(offload);
    p.gsoSize = frameGsoSize(words, at);
    if (offloadIsFragment(offload)) {
      reader?.takeFragment(p.slotA, p.slotB, frameAt, frameBytes, this.#ctx.now);
      return packetFree(this.#ctx, p);
    }
    // IPv6 has no DF bit: after reassembly this flag is the only record that the packet was fragmented.
    // IPv4's DF bit replaces this value in #onIpv4.
    p.dontFragment = !offloadIsReassembled(offload);
    const slotAt = this.#ctx.pool.slotAt(p.slotA);
    const ethAt = slotAt + frameAt;
    const inA = Math.min(frameBytes, this.#ctx.pool.slotBytes(p.slotA) - frameAt);
    this.#macAt = this.#unknownSender(ethAt + ETH_SRC);
    const ipAt = ethAt + ETH_BYTES;
    p.ipAt = ipAt;
    const bytes = frameBytes - ETH_BYTES;
    const type = etherType(u8, ethAt);
    if (type === EtherType.ipv4) return this.#onIpv4(p, bytes, inA - ETH_BYTES);
    if (type === EtherType.ipv6) return this.#onIpv6(p, bytes, inA - ETH_BYTES);
    if (type === EtherType.arp) this.#onArp(ipAt, Math.min(bytes, inA - ETH_BYTES));
    else this.#ctx.drop(type === EtherType.vlan ? Drop.vlan : Drop.ethType);
    packetFree(this.#ctx, p);
  }

  /** Capture a frame that could not be handed over to its lane. */
  #captureLost(capture: FrameCapture, p: Packet, frameAt: number, frameBytes: number): void {
    const { pool } = this.#ctx;
    const inA = Math.min(frameBytes, pool.slotBytes(p.slotA) - frameAt);
    const moreAt = p.slotB === NO_SLOT ? 0 : pool.slotAt(p.slotB);
    const cause = lostBy(Counter.handOverFull);
    capture.fromGuest(pool.slotAt(p.slotA) + frameAt, inA, moreAt, frameBytes - inA, cause);
  }

  #onArp(at: number, bytes: number): void {
    if (this.#ctx.addressing.ipv4 && arpCheck(this.#u8, at, bytes) === 0) {
      const { addr } = this.#packet;
      const sender = arpSenderIp(this.#u8, at);
      addressSetIpv4(addr, 0, sender);
      const isGuest = this.#macAt < 0 || this.#learnSender(addr);
      // A guest that only asks for neighbours so far can be connected to.
      if (isGuest && sender >>> 24 !== 127 && sender >>> 29 !== 7)
        this.#ctx.addressing.learnGuestAddress4(sender);
    }
    handleArp(this.#ctx, at, bytes);
  }

  /** @returns whether the sender is the guest itself, that is, its first MAC */
  #learnSender(address: Uint32Array): boolean {
    const { neighbours, addressing, guest } = this.#ctx;
    // What claims an address of ours is not believed: the guest would get no answer about that address.
    if (addressing.isOurs(address, 0, isV4Mapped(address, 0) ? 4 : 6)) return false;
    neighbours.learn(address, 0, this.#u8, this.#macAt, addressing.seen, addressing.spoken);
    if (!neighbours.inUse) return true;
    const at = this.#macAt;
    for (let i = 0; i < 6; i++) if (guest.guestMac[i] !== this.#u8[at + i]) return addressing.isSeen(address);
    return true;
  }

  /**
   * Whether a frame's sender has to be learnt: one that is not the guest's one MAC, and any while several are
   * known.
   * @returns `at`, or -1
   */
  #unknownSender(at: number): number {
    const mac = this.#o.guestMac;
    const u8 = this.#u8;
    // The group bit is set: not the address of an interface.
    if (u8[at]! & 1) return -1;
    for (let i = 0; i < 6; i++) if (mac[i] !== u8[at + i]) return at;
    return this.#ctx.neighbours.inUse ? at : -1;
  }

  #onIpv4(p: Packet, bytes: number, inA: number): void {
    const ctx = this.#ctx;
    const u8 = this.#u8;
    const ipAt = p.ipAt;
    if (!ctx.addressing.ipv4) return this.#notHere(p, chatterKind4(u8, ipAt, inA));
    const headerBytes = ipv4HeaderBytes(u8, ipAt, bytes);
    if (headerBytes < 0) return packetDiscard(ctx, p, headerBytes);
    if (headerBytes > inA) return packetDiscard(ctx, p, Drop.short);
    if (!ipv4ChecksumOk(u8, ipAt, headerBytes)) return packetDiscard(ctx, p, Drop.ipv4Checksum);
    const total = ipv4TotalLen(u8, ipAt);
    p.family = 4;
    p.proto = ipv4Protocol(u8, ipAt);
    p.ttl = ipv4Ttl(u8, ipAt);
    p.tos = ipv4Tos(u8, ipAt);
    p.dontFragment = ipv4DontFragment(u8, ipAt);
    p.transportAt = ipAt + headerBytes;
    p.transportBytes = total - headerBytes;
    p.transportBytesInA = Math.min(p.transportBytes, inA - headerBytes);
    const src = ipv4Src(u8, ipAt);
    const a = p.addr;
    addressSetIpv4(a, 0, src);
    addressSetIpv4(a, 4, ipv4Dst(u8, ipAt));
    // 127/8 and 224/3 (multicast, reserved, broadcast) are no valid source. 0.0.0.0 is one for DHCP only.
    if (src >>> 24 === 127 || src >>> 29 === 7) return packetDiscard(ctx, p, StageDrop.ipSource);
    if (this.#macAt < 0 || this.#learnSender(a)) ctx.addressing.learnGuestAddress4(src);
    switch (p.proto) {
      case IpProtocol.tcp:
        if (!ctx.plan.policy.tcp) return packetDiscard(ctx, p, StageDrop.switchedOff);
        return this.#tcp.onPacket(p);
      case IpProtocol.udp:
        return this.#udp.onPacket(p);
      case IpProtocol.icmp:
        if (this.#onGuestError(p)) return packetFree(ctx, p);
        return this.#ping.onPacket(p);
      case IpProtocol.igmp: {
        const cause = this.#groups === null ? 0 : this.#groups.onIgmp(p);
        return cause < 0 ? packetDiscard(ctx, p, cause) : packetChatter(ctx, p, Counter.groupReports);
      }
      default:
        return this.#otherProtocols.refuse(p, 0);
    }
  }

  /**
   * Count and free a packet of an IP version that the plan does not have.
   * @param kind  chatterKind4() or chatterKind6() of the packet
   */
  #notHere(p: Packet, kind: number): void {
    if (kind >= 0) packetChatter(this.#ctx, p, kind);
    else packetDiscard(this.#ctx, p, StageDrop.ipProtocol);
  }

  #onIpv6(p: Packet, bytes: number, inA: number): void {
    const ctx = this.#ctx;
    const u8 = this.#u8;
    const ipAt = p.ipAt;
    if (!ctx.addressing.ipv6) return this.#notHere(p, chatterKind6(u8, ipAt, inA));
    const ok = ipv6HeaderBytes(u8, ipAt, bytes);
    if (ok < 0) return packetDiscard(ctx, p, ok);
    const total = IPV6_BYTES + ipv6PayloadLen(u8, ipAt);
    const upper = ipv6Upper(u8, ipAt, Math.min(total, inA), this.#upper);
    if (upper < 0) return packetDiscard(ctx, p, upper);
    p.family = 6;
    p.proto = this.#upper[Ipv6Out.protocol]!;
    p.ttl = ipv6HopLimit(u8, ipAt);
    p.tos = ipv6TrafficClass(u8, ipAt);
    p.transportAt = ipAt + this.#upper[Ipv6Out.upperAt]!;
    p.transportBytes = total - this.#upper[Ipv6Out.upperAt]!;
    p.transportBytesInA = Math.min(p.transportBytes, inA - this.#upper[Ipv6Out.upperAt]!);
    addressRead(u8, ipAt + IPV6_SRC, p.addr, 0);
    addressRead(u8, ipAt + IPV6_DST, p.addr, 4);
    const a = p.addr;
    // ::ffff:0:0/96 means IPv4 in the flow tables; no IPv6 packet has such a source (RFC 4291 section
    // 2.5.5.2).
    if (isV4Mapped(a, 0) || isMulticast(a, 0) || isLoopback(a, 0))
      return packetDiscard(ctx, p, StageDrop.ipSource);
    if (this.#macAt < 0 || this.#learnSender(a)) ctx.addressing.learnGuestAddress6(a, 0);
    switch (p.proto) {
      case IpProtocol.tcp:
        if (!ctx.plan.policy.tcp) return packetDiscard(ctx, p, StageDrop.switchedOff);
        return this.#tcp.onPacket(p);
      case IpProtocol.udp:
        return this.#udp.onPacket(p);
      case IpProtocol.icmpv6:
        return this.#onIcmpv6(p);
      default:
        return this.#otherProtocols.refuse(p, this.#upper[Ipv6Out.nextHeaderAt]!);
    }
  }

  /**
   * @returns whether the ICMP packet is an error about a packet that we sent to the guest, and was handled
   */
  #onGuestError(p: Packet): boolean {
    return this.#udp.onUnreachable(p) || this.#tcp.onTooBig(p);
  }

  #onIcmpv6(p: Packet): void {
    if (p.transportBytesInA < 4) return packetDiscard(this.#ctx, p, Drop.short);
    const type = this.#u8[p.transportAt]!;
    if (this.#onGuestError(p)) return packetFree(this.#ctx, p);
    if ((type >= Icmp6Type.mldQuery && type <= Icmp6Type.mldDone) || type === Icmp6Type.mld2Report) {
      const cause = this.#groups === null ? 0 : this.#groups.onMld(p);
      if (cause < 0) packetDiscard(this.#ctx, p, cause);
      else packetChatter(this.#ctx, p, Counter.groupReports);
      return;
    }
    // The types of RFC 4861 section 4, which are consecutive numbers.
    const isNdp = type >= Icmp6Type.routerSolicitation && type <= Icmp6Type.redirect;
    if (!isNdp) return this.#ping.onPacket(p);
    handleNdp(this.#ctx, p);
    packetFree(this.#ctx, p);
  }

  close(): void {}
}
