/**
 * Opening a connection (RFC 9293 section 3.5), from either side.
 *
 *   guest ── SYN ──▶ connecting ── opened ──▶ synReceived: SYN,ACK sent ── ACK ──▶ established
 *   peer of a published port ── accepted ──▶ synSent: SYN sent ── SYN,ACK ──▶ established
 *
 * The SYN,ACK is sent once the host's socket is connected, so that the guest sees a refused connection as
 * refused. Connections to the resolvers are tried one after the other, all in the state `connecting`.
 */

import { addressCopy, isUnspecified } from '../../../proto/address.ts';
import { IpProtocol } from '../../../proto/ipv4.ts';
import {
  newTcpOptions,
  TCP_MIN_BYTES,
  TCP_TIMESTAMPS_BYTES,
  TcpFlag,
  tcpAck,
  tcpFlags,
  tcpOptions,
  tcpSeq,
  tcpSynOptionsWrite,
  tcpTimestampsWrite,
  tcpWindow,
} from '../../../proto/tcp.ts';
import { Counter } from '../../../ring/counters.ts';
import { Errno } from '../../../sys/constants.ts';
import { Destination } from '../../flow/addressing.ts';
import { flowHash } from '../../flow/flow-hash.ts';
import { ADDR_WORDS } from '../../flow/flow-table.ts';
import { type FlowTuple, newFlowTuple } from '../../flow/flow-tuple.ts';
import { ISN_PER_MS } from '../../flow/isn-key.ts';
import { Origin } from '../../flow/shard-flows.ts';
import { StageDrop } from '../../link/stage-drop.ts';
import { adoptWrite, openTcpWrite, refuseWrite } from '../../link/to-host.ts';
import {
  acceptedFamily,
  acceptedGuestAt,
  acceptedHash,
  acceptedPeerAt,
  acceptedPeerPort,
  acceptedTargetPort,
  acceptedToken,
} from '../../link/to-shard.ts';
import { isOutOfDescriptors, isShortage } from '../../thread/descriptor-shortage.ts';
import { type ShardContext, TIMER_KINDS, TimerKind } from '../context.ts';
import { icmpFlowErrorToGuest, icmpForErrno, refusalToGuest } from '../icmp-errors.ts';
import { OtherPorts } from '../other-port.ts';
import { type Packet, packetDiscard, packetFree } from '../packet.ts';
import type { ResolverChoice, Resolvers } from '../resolvers.ts';
import { ipHeaderBytes } from '../to-guest.ts';
import type { TcpClosing } from './closing.ts';
import {
  MSS_MIN,
  RTO_INITIAL_MS,
  RTO_MAX_MS,
  TcbFlag,
  TcbState,
  type TcpControlBlocks,
} from './control-blocks.ts';
import type { KeepAlive } from './keep-alive.ts';
import type { OutOfOrderQueues } from './out-of-order.ts';
import type { SegmentOutput } from './output.ts';
import { RCV_WSCALE, type ReceiveBuffers } from './receive-buffers.ts';
import type { Timestamps } from './timestamps.ts';
import type { UnsentSegments } from './unsent-segments.ts';
import type { WaitingAccepts } from './waiting-accepts.ts';

/** SYN or SYN,ACK is repeated so often before the connection is given up. */
const SYN_TRIES = 6;
/**
 * How long an accepted connection waits for an older flow with its addresses and ports: one that is ending,
 * and one that shows no sign of that. The latter's reset may follow the new connection on the link; or it is
 * another connection of the peer, through another published port.
 */
const WAIT_ENDING_MS = 1000;
const WAIT_LIVE_MS = 20;
/** MSS of a SYN without the option (RFC 9293 section 3.7.1). */
const DEFAULT_MSS_V4 = 536;
const DEFAULT_MSS_V6 = 1220;
/** Payload of a packet of 65535 bytes with the smallest headers. */
const MSS_MAX = 65495;

/** The parts of TCP that opening a connection uses. */
export interface HandshakeParts {
  readonly tcb: TcpControlBlocks;
  readonly buffers: ReceiveBuffers;
  readonly outOfOrder: OutOfOrderQueues;
  readonly timestamps: Timestamps;
  readonly output: SegmentOutput;
  readonly pending: UnsentSegments;
  readonly closing: TcpClosing;
  readonly keepAlive: KeepAlive;
  readonly waiting: WaitingAccepts;
}

export class TcpHandshake {
  readonly #ctx: ShardContext;
  readonly #resolvers: ResolverChoice;
  readonly #tcb: TcpControlBlocks;
  readonly #buffers: ReceiveBuffers;
  readonly #outOfOrder: OutOfOrderQueues;
  readonly #timestamps: Timestamps;
  readonly #output: SegmentOutput;
  readonly #pending: UnsentSegments;
  readonly #closing: TcpClosing;
  readonly #keepAlive: KeepAlive;
  readonly #options = newTcpOptions();
  /** Host-side address to connect to. */
  readonly #words = new Uint32Array(4);
  readonly #waiting: WaitingAccepts;
  readonly #otherPorts: OtherPorts;
  readonly #accepted = newFlowTuple(IpProtocol.tcp);

  constructor(ctx: ShardContext, resolvers: ResolverChoice, parts: HandshakeParts) {
    this.#ctx = ctx;
    this.#resolvers = resolvers;
    this.#otherPorts = new OtherPorts(ctx);
    this.#tcb = parts.tcb;
    this.#buffers = parts.buffers;
    this.#outOfOrder = parts.outOfOrder;
    this.#timestamps = parts.timestamps;
    this.#output = parts.output;
    this.#pending = parts.pending;
    this.#closing = parts.closing;
    this.#keepAlive = parts.keepAlive;
    // A flow that gives way sends nothing to the guest: the guest's repeated SYN opens a new connection.
    ctx.flows.onGiveWay(IpProtocol.tcp, (flow) => this.#closing.abortHost(flow));
    this.#waiting = parts.waiting;
  }

  /**
   * Handle a segment of no known connection: a SYN opens one, any other segment is answered as in RFC 9293
   * section 3.10.7.1. Takes over the packet's slots.
   */
  onUnknown(p: Packet, headerBytes: number): void {
    const tcb = this.#tcb;
    const ctx = this.#ctx;
    const u8 = ctx.u8;
    const flags = tcpFlags(u8, p.transportAt);
    const port = p.ports & 0xffff;
    const multicast = p.family === 4 ? p.addr[7]! >>> 28 >= 14 : p.addr[4]! >>> 24 === 0xff;
    const destination = ctx.addressing.classify(p.addr, 4, port);
    // No segment may have such a source, so not even RST is sent.
    if (port === 0 || p.ports >>> 16 === 0 || multicast || destination === Destination.invalid) {
      return packetDiscard(ctx, p, StageDrop.tcpDestination);
    }
    // There is no address to answer to: only DHCP and neighbour discovery have this source.
    if (isUnspecified(p.addr, 0)) return packetDiscard(ctx, p, StageDrop.ipSource);
    if ((flags & (TcpFlag.syn | TcpFlag.ack | TcpFlag.rst | TcpFlag.fin)) !== TcpFlag.syn) {
      if (!(flags & TcpFlag.rst)) this.#output.resetUnknown(p, headerBytes, flags);
      return packetDiscard(ctx, p, StageDrop.tcpNoFlow);
    }
    if (
      destination === Destination.gateway ||
      (destination === Destination.dns && this.#resolvers.of(p.family).count === 0)
    ) {
      if (ctx.plan.policy.refusal === 'network') return refusalToGuest(ctx, p);
      this.#output.resetUnknown(p, headerBytes, flags);
      return packetFree(ctx, p);
    }
    const flow = ctx.flows.admit(Origin.tcp, p);
    if (flow < 0) return packetFree(ctx, p);
    this.#begin(flow, p.family);
    tcb.irs[flow] = tcpSeq(u8, p.transportAt);
    tcb.rcvNxt[flow] = (tcb.irs[flow]! + 1) >>> 0;
    tcb.rcvAdv[flow] = tcb.rcvNxt[flow]!;
    this.#readSynOptions(p, flow, headerBytes);
    tcb.sndWnd[flow] = tcpWindow(u8, p.transportAt);
    tcb.state[flow] = TcbState.connecting;
    ctx.counters[Counter.tcpOpened]!++;
    if (destination === Destination.dns) {
      tcb.flags[flow]! |= TcbFlag.dns;
      tcb.setResolverAttempt(flow, 0);
      this.openResolver(flow);
    } else {
      ctx.addressing.toHost(p.addr, 4, destination, this.#words, 0);
      this.#open(flow, port, 0);
    }
    packetFree(ctx, p);
  }

  /** Initialise a new flow's control block, receive buffer and out-of-order queue. */
  #begin(flow: number, family: 4 | 6): void {
    const ctx = this.#ctx;
    const k = ctx.plan.isnKey;
    // RFC 6528: a keyed hash of the connection plus a clock of 250 ticks per millisecond.
    const salt = flowHash(
      k,
      ctx.flows.addr,
      flow * ADDR_WORDS,
      ctx.flows.addr,
      flow * ADDR_WORDS + 4,
      ctx.flows.ports[flow]!,
      IpProtocol.tcp,
    );
    const iss = (salt + Math.floor(ctx.now * ISN_PER_MS) + (k[2] ^ k[3])) >>> 0;
    this.#tcb.begin(flow, family, iss, ctx.now);
    this.#buffers.begin(flow);
    this.#outOfOrder.begin(flow);
  }

  /** Read MSS, window scale, SACK-permitted and timestamps from the guest's SYN. */
  #readSynOptions(p: Packet, flow: number, headerBytes: number): void {
    const tcb = this.#tcb;
    const o = this.#options;
    tcpOptions(this.#ctx.u8, p.transportAt, headerBytes, o);
    const v6 = tcb.flags[flow]! & TcbFlag.v6;
    const ours = this.#ctx.plan.addresses.mtu - ipHeaderBytes(v6 ? 6 : 4) - TCP_MIN_BYTES;
    const theirs = o.mss === 0 ? (v6 ? DEFAULT_MSS_V6 : DEFAULT_MSS_V4) : Math.max(o.mss, MSS_MIN);
    tcb.mss[flow] = Math.min(ours, theirs, MSS_MAX);
    if (o.wscale >= 0) {
      tcb.flags[flow]! |= TcbFlag.wscaleOk;
      tcb.sndWscale[flow] = o.wscale;
    }
    if (o.sackPermitted) tcb.flags[flow]! |= TcbFlag.sackOk;
    if (o.hasTs) {
      tcb.flags[flow]! |= TcbFlag.tsOk;
      tcb.tsRecent[flow] = o.tsVal;
      // The MSS option's value includes TCP options (RFC 6691): subtract them.
      tcb.mss[flow]! -= TCP_TIMESTAMPS_BYTES;
    }
    // BIG TCP frames only for a guest that is the source itself. Another TTL shows that the guest forwards
    // for a host behind it: over devices that do not take such frames it would have to split each, which
    // costs more than BIG TCP gains.
    const atSource = p.ttl === 64 || p.ttl === 128 || p.ttl === 255;
    if (this.#ctx.guest.bigTcp && atSource) tcb.flags[flow]! |= TcbFlag.big;
  }

  /**
   * Have host-io connect to the address in this.#words.
   * @param zone  index of the interface through which the address is reached; 0: the plan's
   */
  #open(flow: number, port: number, zone: number): void {
    openTcpWrite(this.#ctx.toHost, flow, this.#words, 0, port, zone);
  }

  /**
   * Begin the next attempt to connect to a resolver. host-io must have answered `closed` for the one before:
   * a later `closed` would count as the new attempt's.
   */
  openResolver(flow: number): void {
    const tcb = this.#tcb;
    const resolvers = this.#resolversOf(flow);
    const index = resolvers.pick(this.#ctx.now, tcb.resolverAttempt(flow));
    tcb.setResolverIndex(flow, index);
    const words = resolvers.words;
    for (let i = 0; i < 4; i++) this.#words[i] = words[index * 4 + i]!;
    this.#open(flow, this.#ctx.flows.ports[flow]! & 0xffff, resolvers.zones[index]!);
  }

  #resolversOf(flow: number): Resolvers {
    const tcb = this.#tcb;
    return this.#resolvers.of(tcb.flags[flow]! & TcbFlag.v6 ? 6 : 4);
  }

  /** The host socket is connected: answer the guest's SYN. */
  onOpened(flow: number): void {
    const tcb = this.#tcb;
    if (tcb.state[flow] !== TcbState.connecting) return;
    tcb.flags[flow]! &= ~TcbFlag.dns;
    tcb.eofOffset[flow] = 0;
    tcb.state[flow] = TcbState.synReceived;
    this.#sendSyn(flow);
  }

  /**
   * The host socket could not be connected: send RST or ICMP to the guest, as policy.connectFailure says.
   * @param errno  above zero
   */
  onOpenFailed(flow: number, errno: number): void {
    const tcb = this.#tcb;
    if (tcb.state[flow] !== TcbState.connecting) return;
    const ctx = this.#ctx;
    if (isShortage(errno)) {
      // The peer has refused nothing: the SYN counts as lost, and the guest's timer repeats it.
      tcb.state[flow] = TcbState.awaitingClosed;
      if (isOutOfDescriptors(errno)) ctx.flows.giveDescriptor(flow);
      ctx.counters[Counter.tcpOpensPutOff]!++;
      return;
    }
    if (tcb.flags[flow]! & TcbFlag.dns) {
      const resolvers = this.#resolversOf(flow);
      resolvers.markBad(tcb.resolverIndex(flow), ctx.now);
      // The next attempt begins when `closed` of this one has come (openResolver()).
      const attempt = tcb.resolverAttempt(flow) + 1;
      tcb.setResolverAttempt(flow, attempt);
      if (attempt < resolvers.count) return;
    }
    // host-io has closed the failed socket: its `closed` follows this message.
    tcb.state[flow] = TcbState.awaitingClosed;
    ctx.flows.settle(flow);
    if (errno === Errno.ETIMEDOUT) return; // the guest's own SYN timer reports that
    const v6 = tcb.flags[flow]! & TcbFlag.v6;
    const honest = ctx.plan.policy.connectFailure === 'honest';
    if (honest && (errno === Errno.ENETUNREACH || errno === Errno.EHOSTUNREACH || errno === Errno.ENETDOWN)) {
      icmpFlowErrorToGuest(ctx, flow, icmpForErrno(v6 ? 6 : 4, errno), tcb.irs[flow]!);
      return;
    }
    tcb.flags[flow]! |= TcbFlag.reset;
    this.#output.sendReset(flow, 0);
  }

  /**
   * Keep an accepted connection until an older flow with the same addresses and ports has ended.
   * @param words,at  its message ToShard.accepted
   * @returns whether it waits; false: too many do
   */
  #wait(older: number, words: Uint32Array, at: number): boolean {
    const tcb = this.#tcb;
    const ctx = this.#ctx;
    if (!this.#waiting.add(older, words, at)) return false;
    ctx.counters[Counter.tcpAcceptsHeld]!++;
    const ending =
      tcb.state[older] === TcbState.awaitingClosed ||
      (tcb.flags[older]! & (TcbFlag.guestFin | TcbFlag.hostEof)) !== 0;
    const ms = ending ? WAIT_ENDING_MS : WAIT_LIVE_MS;
    ctx.timers.arm(older * TIMER_KINDS + TimerKind.idle, ctx.now + ms);
    return true;
  }

  /** A flow has ended, or accepted connections have waited for it long enough: open these now. */
  releaseWaiting(flow: number): void {
    const waiting = this.#waiting;
    // Each one opens a flow or is refused; with mayWait false none waits again.
    while (waiting.count > 0 && waiting.take(flow)) this.onAccepted(waiting.taken, 0, false);
  }

  /**
   * Add a flow for `accepted` with a substitute source port (other-port.ts).
   * @returns its id; below zero: none is free
   */
  #insertOther(accepted: FlowTuple): number {
    const { flows } = this.#ctx;
    const other = this.#otherPorts;
    for (let k = 0; k < other.tries; k++) {
      if (!other.at(k, accepted) || flows.find(other.tuple) >= 0) continue;
      return flows.admit(Origin.tcp, other.tuple);
    }
    this.#ctx.counters[Counter.flowTableFull]!++;
    return -1;
  }

  /**
   * A connection to a published port was accepted: send SYN to the guest, or refuse it if no flow is free.
   * @param words,at  ToShard.accepted
   * @param mayWait whether it may wait for an older flow with the same addresses and ports; if not, it gets a
   *   substitute source port
   */
  onAccepted(words: Uint32Array, at: number, mayWait = true): void {
    const tcb = this.#tcb;
    const ctx = this.#ctx;
    const token = acceptedToken(words, at);
    const family = acceptedFamily(words, at);
    // Addresses on the TAP: the guest's, and the peer's. host-io computed the hash of the same tuple.
    const accepted = this.#accepted;
    addressCopy(words, acceptedGuestAt(at), accepted.addr, 0);
    addressCopy(words, acceptedPeerAt(at), accepted.addr, 4);
    accepted.ports = ((acceptedTargetPort(words, at) << 16) | acceptedPeerPort(words, at)) >>> 0;
    accepted.hash = acceptedHash(words, at);
    const older = ctx.flows.find(accepted);
    if (older >= 0 && mayWait && this.#wait(older, words, at)) return;
    const flow = older >= 0 ? this.#insertOther(accepted) : ctx.flows.admit(Origin.tcp, accepted);
    if (flow < 0) return refuseWrite(ctx.toHost, token);
    adoptWrite(ctx.toHost, flow, token);
    this.#begin(flow, family);
    tcb.mss[flow] = DEFAULT_MSS_V4;
    tcb.irs[flow] = 0;
    tcb.rcvNxt[flow] = 0;
    tcb.rcvAdv[flow] = 0;
    tcb.sndWnd[flow] = 0;
    tcb.eofOffset[flow] = 0;
    tcb.state[flow] = TcbState.synSent;
    ctx.counters[Counter.tcpAccepted]!++;
    this.#sendSyn(flow);
  }

  /**
   * Handle a segment in SYN-RECEIVED: our SYN,ACK is not acknowledged yet. Takes over the packet's slots
   * unless it returns true.
   * @returns whether the connection is established now, and the caller has to handle the segment as one of it
   */
  onSynReceived(p: Packet, flow: number): boolean {
    const tcb = this.#tcb;
    const u8 = this.#ctx.u8;
    const flags = tcpFlags(u8, p.transportAt);
    const seq = tcpSeq(u8, p.transportAt);
    if (flags & TcpFlag.rst) {
      if (seq === tcb.rcvNxt[flow]) this.#closing.abortHost(flow);
      packetFree(this.#ctx, p);
      return false;
    }
    if (flags & TcpFlag.syn) {
      if (seq !== tcb.irs[flow]) {
        packetFree(this.#ctx, p);
        return false;
      }
      const ours = (tcb.iss[flow]! + 1) >>> 0;
      if (flags & TcpFlag.ack && tcpAck(u8, p.transportAt) === ours) {
        // Simultaneous open: the guest's SYN,ACK answers our SYN (RFC 9293 figure 7).
        this.#establish(flow, ours, seq, tcpWindow(u8, p.transportAt));
        tcb.sndWnd[flow] = tcpWindow(u8, p.transportAt);
        this.#pending.wantAck(flow);
      } else this.#sendSyn(flow);
      packetFree(this.#ctx, p);
      return false;
    }
    if (!(flags & TcpFlag.ack)) {
      packetFree(this.#ctx, p);
      return false;
    }
    const ack = tcpAck(u8, p.transportAt);
    if (ack !== (tcb.iss[flow]! + 1) >>> 0) {
      // RFC 9293 section 3.10.7.4, fifth check: an unacceptable ACK is answered by RST, and the state stays.
      this.#output.sendReset(flow, ack);
      packetFree(this.#ctx, p);
      return false;
    }
    this.#establish(flow, ack, seq, tcpWindow(u8, p.transportAt));
    return true;
  }

  /**
   * Handle a segment in SYN-SENT: our SYN to the guest, for a published port, is not acknowledged yet. Takes
   * over the packet's slots.
   */
  onSynSent(p: Packet, flow: number, headerBytes: number): void {
    const tcb = this.#tcb;
    const u8 = this.#ctx.u8;
    const flags = tcpFlags(u8, p.transportAt);
    const ack = tcpAck(u8, p.transportAt);
    const ackOk = (flags & TcpFlag.ack) !== 0 && ack === (tcb.iss[flow]! + 1) >>> 0;
    if (flags & TcpFlag.ack && !ackOk) {
      if (!(flags & TcpFlag.rst)) this.#output.sendReset(flow, ack);
      return packetFree(this.#ctx, p);
    }
    if (flags & TcpFlag.rst) {
      if (ackOk) this.#closing.abortHost(flow);
      return packetFree(this.#ctx, p);
    }
    if (flags & TcpFlag.syn) {
      const seq = tcpSeq(u8, p.transportAt);
      tcb.irs[flow] = seq;
      tcb.rcvNxt[flow] = (seq + 1) >>> 0;
      tcb.rcvAdv[flow] = tcb.rcvNxt[flow]!;
      this.#readSynOptions(p, flow, headerBytes);
      if (ackOk) {
        this.#establish(flow, ack, seq, tcpWindow(u8, p.transportAt));
        // The window of a SYN is never scaled (RFC 7323 section 2.2).
        tcb.sndWnd[flow] = tcpWindow(u8, p.transportAt);
        this.#pending.wantAck(flow);
      } else {
        // Simultaneous open (RFC 9293 figure 7).
        tcb.state[flow] = TcbState.synReceived;
        this.#sendSyn(flow);
      }
    }
    packetFree(this.#ctx, p);
  }

  /**
   * Enter ESTABLISHED.
   * @param ack,seq,window  of the segment that completed the handshake; the window field, not scaled
   */
  #establish(flow: number, ack: number, seq: number, window: number): void {
    const tcb = this.#tcb;
    tcb.state[flow] = TcbState.established;
    this.#ctx.flows.settle(flow);
    tcb.sndUna[flow] = ack;
    tcb.sndNxt[flow] = ack;
    tcb.sndMax[flow] = ack;
    tcb.sndWnd[flow] = tcb.flags[flow]! & TcbFlag.wscaleOk ? window << tcb.sndWscale[flow]! : window;
    tcb.sndWl1[flow] = seq;
    tcb.sndWl2[flow] = ack;
    tcb.tries[flow] = 0;
    tcb.rto[flow] = RTO_INITIAL_MS;
    this.#ctx.timers.cancel(flow * TIMER_KINDS + TimerKind.retransmit);
    this.#keepAlive.begin(flow);
    this.#pending.wantCredit(flow);
  }

  /** The retransmission timer has fired before the connection is established: repeat SYN or SYN,ACK. */
  onTimer(flow: number): void {
    const tcb = this.#tcb;
    if (++tcb.tries[flow]! > SYN_TRIES) return this.#closing.abortBoth(flow);
    tcb.rto[flow] = Math.min(tcb.rto[flow]! * 2, RTO_MAX_MS);
    this.#sendSyn(flow);
  }

  /** Send SYN or SYN,ACK to the guest, by state, and arm the timer that repeats it. */
  #sendSyn(flow: number): void {
    const tcb = this.#tcb;
    const ctx = this.#ctx;
    const v6 = tcb.flags[flow]! & TcbFlag.v6;
    const ipBytes = ipHeaderBytes(v6 ? 6 : 4);
    const at = ctx.guest.scratchAt;
    const initial = tcb.state[flow] === TcbState.synSent;
    const mss = Math.min(ctx.plan.addresses.mtu - ipBytes - TCP_MIN_BYTES, 65535);
    const wscale = initial || tcb.flags[flow]! & TcbFlag.wscaleOk ? RCV_WSCALE : -1;
    const sack = initial || (tcb.flags[flow]! & TcbFlag.sackOk) !== 0;
    const optionsAt = at + ipBytes + TCP_MIN_BYTES;
    let optionBytes = tcpSynOptionsWrite(ctx.u8, optionsAt, mss, wscale, sack);
    if (initial || tcb.flags[flow]! & TcbFlag.tsOk) {
      const echo = initial ? 0 : tcb.tsRecent[flow]!;
      optionBytes += tcpTimestampsWrite(ctx.u8, optionsAt + optionBytes, this.#timestamps.now(flow), echo);
    }
    const iss = tcb.iss[flow]!;
    tcb.sndNxt[flow] = (iss + 1) >>> 0;
    tcb.sndMax[flow] = tcb.sndNxt[flow]!;
    this.#output.emit(flow, iss, initial ? TcpFlag.syn : TcpFlag.syn | TcpFlag.ack, at, optionBytes, 0, 0);
    ctx.timers.arm(flow * TIMER_KINDS + TimerKind.retransmit, ctx.now + tcb.rto[flow]!);
  }
}
