/**
 * TCP between the guest and host sockets (RFC 9293). The guest's connection is terminated here; a host
 * socket, which the host-io stage has, carries the stream further. docs/theory.md follows a segment each way.
 *
 *   guest -> host   In-order payload is passed to host-io in the slots in which it was received, and
 *                   acknowledged from then on: it is in the host socket or queued, in order, in slots. Queued
 *                   payload reduces the window. Out-of-order payload is kept here and reported by SACK. Only
 *                   payload that was never acknowledged may be dropped.
 *   host -> guest   host-io peeks: the host kernel's receive queue is the retransmission buffer. `credit`
 *                   says how far host-io may peek (sndUna + min(sndWnd, cwnd)) and which bytes it may drop;
 *                   a loss causes a `rewind`.
 *
 * This file passes segments, messages and timers to the parts in tcp/. Each part is one object per shard and
 * uses the parts above it:
 *
 *   control-blocks    the variables of each connection
 *   receive-buffers   how much may be queued for the host's socket: the receive window
 *   out-of-order      segments received out of order, SACK blocks
 *   timestamps        RFC 7323
 *   output            segments: headers, checksum, frame
 *   unsent-segments   the pending ACK and credit of each flow, sent at the end of a round
 *   closing           FIN, RST, the end of a connection; waiting-accepts: connections that wait for it
 *   keep-alive        probes of idle connections
 *   retransmission    losses, round-trip times, the retransmission timer
 *   gso-batch         frames longer than 64 KiB
 *   handshake         opening from either side
 *   receiver          guest -> host: payload and FIN
 *   sender            host -> guest: payload, and the guest's ACKs
 */

import { readU32 } from '../../proto/be.ts';
import { Drop } from '../../proto/drop.ts';
import { IpProtocol } from '../../proto/ipv4.ts';
import { IPV6_MIN_MTU } from '../../proto/ipv6.ts';
import { seqGeq, seqGt, seqLeq, seqLt } from '../../proto/seq.ts';
import { TCP_MIN_BYTES, TcpFlag, tcpAck, tcpFlags, tcpHeaderBytes, tcpSeq } from '../../proto/tcp.ts';
import { Counter } from '../../ring/counters.ts';
import { EgressProto } from '../flow/egress-policy.ts';
import { FlowField, FlowState as ReportedState } from '../flow/flow-report.ts';
import type { FlowState } from '../flow/flow-state.ts';
import { ADDR_WORDS, type FlowId } from '../flow/flow-table.ts';
import { newFlowTuple } from '../flow/flow-tuple.ts';
import { nextHopMtu, quotedFlow, quotedProtocol, quotedTcpSeq } from '../flow/quoted-flow.ts';
import { Origin } from '../flow/shard-flows.ts';
import { linkFlow } from '../link/descriptor.ts';
import { setTosWrite } from '../link/to-host.ts';
import {
  eofOffset,
  openFailedErrno,
  sentBytes,
  sentFlags,
  sentFreed,
  ToShard,
  urgentOffset,
} from '../link/to-shard.ts';
import { readerSlotsOfShard } from '../placement.ts';
import { type ShardContext, TimerKind } from './context.ts';
import { type Packet, packetChecksumOk, packetDiscard, packetFree } from './packet.ts';
import type { ResolverChoice } from './resolvers.ts';
import { TcpClosing } from './tcp/closing.ts';
import {
  CWND_OF_COPY,
  CWND_OF_LINE,
  DSCP_MASK,
  MSS_MIN,
  TcbFlag,
  TcbState,
  TcpControlBlocks,
} from './tcp/control-blocks.ts';
import { GsoBatch } from './tcp/gso-batch.ts';
import { TcpHandshake } from './tcp/handshake.ts';
import { KeepAlive } from './tcp/keep-alive.ts';
import { NO_ENTRY, OutOfOrderQueues, outOfOrderLimit } from './tcp/out-of-order.ts';
import { SegmentOutput } from './tcp/output.ts';
import { queueBudget, ReceiveBuffers } from './tcp/receive-buffers.ts';
import { TcpReceiver } from './tcp/receiver.ts';
import { Retransmission } from './tcp/retransmission.ts';
import { TcpSender } from './tcp/sender.ts';
import { Timestamps } from './tcp/timestamps.ts';
import { UnsentSegments } from './tcp/unsent-segments.ts';
import { WaitingAccepts } from './tcp/waiting-accepts.ts';
import { ipHeaderBytes, pseudoSumWords } from './to-guest.ts';

/** By TcbState: the state in reports. */
const REPORTED: readonly ReportedState[] = [
  ReportedState.closed,
  ReportedState.connecting,
  ReportedState.synReceived,
  ReportedState.synSent,
  ReportedState.established,
  ReportedState.closed,
];

/** MTU that is used when a router gives none (RFC 1191 section 5, its simplest strategy). */
const IPV4_DEFAULT_MTU = 576;

/** The TCP connections of one shard. */
export class TcpTranslator {
  readonly #ctx: ShardContext;
  readonly #tcb: TcpControlBlocks;
  readonly #timestamps: Timestamps;
  readonly #output: SegmentOutput;
  readonly #pending: UnsentSegments;
  readonly #buffers: ReceiveBuffers;
  readonly #outOfOrder: OutOfOrderQueues;
  readonly #waiting: WaitingAccepts;
  readonly #closing: TcpClosing;
  readonly #keepAlive: KeepAlive;
  readonly #handshake: TcpHandshake;
  readonly #receiver: TcpReceiver;
  readonly #retransmission: Retransmission;
  readonly #batch: GsoBatch;
  readonly #sender: TcpSender;
  /** Key of the flow whose segment an ICMP error quotes. */
  readonly #quoted = newFlowTuple(IpProtocol.tcp);
  /** Key of a flow from another lane. */
  readonly #moved = newFlowTuple(IpProtocol.tcp);

  constructor(ctx: ShardContext, resolvers: ResolverChoice) {
    const { pool, threads } = ctx.plan;
    const slots = readerSlotsOfShard(pool, threads);
    const tcb = new TcpControlBlocks(pool.flows, ctx.plan.shaping ? CWND_OF_LINE : CWND_OF_COPY);
    const buffers = new ReceiveBuffers(ctx, tcb, queueBudget(slots));
    const outOfOrder = new OutOfOrderQueues(ctx, outOfOrderLimit(slots));
    const timestamps = new Timestamps(ctx, tcb);
    const output = new SegmentOutput(ctx, tcb, buffers, timestamps);
    const pending = new UnsentSegments(ctx, tcb, outOfOrder, output);
    const waiting = new WaitingAccepts();
    const closing = new TcpClosing(ctx, tcb, buffers, outOfOrder, output, pending, waiting);
    const keepAlive = new KeepAlive(ctx, tcb, buffers, output, closing);
    const retransmission = new Retransmission(ctx, tcb, output, pending, closing);
    const batch = new GsoBatch(ctx, tcb, output);
    const parts = { tcb, buffers, outOfOrder, timestamps, output, pending, closing, keepAlive, waiting };
    this.#ctx = ctx;
    this.#tcb = tcb;
    this.#timestamps = timestamps;
    this.#output = output;
    this.#pending = pending;
    this.#buffers = buffers;
    this.#outOfOrder = outOfOrder;
    this.#waiting = waiting;
    this.#closing = closing;
    this.#keepAlive = keepAlive;
    this.#handshake = new TcpHandshake(ctx, resolvers, parts);
    this.#receiver = new TcpReceiver(ctx, tcb, buffers, outOfOrder, pending, closing);
    this.#retransmission = retransmission;
    this.#batch = batch;
    this.#sender = new TcpSender(ctx, { tcb, timestamps, output, pending, closing, retransmission, batch });
  }

  /**
   * Handle a segment from the guest. Takes over the packet's slots.
   * @param p  IP header checked; addresses, hash and pieces filled in
   */
  onPacket(p: Packet): void {
    const tcb = this.#tcb;
    const ctx = this.#ctx;
    const u8 = ctx.u8;
    const headerBytes = tcpHeaderBytes(u8, p.transportAt, p.transportBytesInA);
    if (headerBytes < 0) return packetDiscard(ctx, p, headerBytes);
    if (headerBytes > p.transportBytes) return packetDiscard(ctx, p, Drop.tcpOffset);
    if (!p.needsCsum && !this.#checksumOk(p)) return packetDiscard(ctx, p, Drop.tcpChecksum);
    p.ports = readU32(u8, p.transportAt);
    const flow = ctx.flows.find(p);
    if (flow < 0) return this.#handshake.onUnknown(p, headerBytes);
    // An integer, as a number with a fraction would be allocated.
    const quietMs = (ctx.now - tcb.lastSeen[flow]!) | 0;
    tcb.lastSeen[flow] = ctx.now;
    switch (tcb.state[flow]) {
      case TcbState.established:
        return this.#onEstablished(p, flow, headerBytes, quietMs);
      case TcbState.connecting:
        // The guest repeats its SYN while connect() runs, or resets.
        if (tcpFlags(u8, p.transportAt) & TcpFlag.rst) this.#closing.abortHost(flow);
        break;
      case TcbState.synReceived:
        if (this.#handshake.onSynReceived(p, flow)) this.#onEstablished(p, flow, headerBytes, 0);
        return;
      case TcbState.synSent:
        return this.#handshake.onSynSent(p, flow, headerBytes);
      default:
        this.#onAwaitingClosed(p, flow);
    }
    packetFree(ctx, p);
  }

  /**
   * RFC 9293 section 3.10.7.4, for ESTABLISHED and later states.
   * @param quietMs  time since the segment before
   */
  #onEstablished(p: Packet, flow: number, headerBytes: number, quietMs: number): void {
    const tcb = this.#tcb;
    const ctx = this.#ctx;
    const u8 = ctx.u8;
    const flags = tcpFlags(u8, p.transportAt);
    const payloadBytes = p.transportBytes - headerBytes;
    const seq = tcpSeq(u8, p.transportAt);
    const rcvNxt = tcb.rcvNxt[flow]!;

    this.#timestamps.tsEcr = 0;
    if (tcb.flags[flow]! & TcbFlag.tsOk && !this.#timestamps.take(flow, p, headerBytes, seq, flags)) {
      this.#pending.wantAck(flow);
      return packetFree(ctx, p);
    }
    if (flags & (TcpFlag.rst | TcpFlag.syn)) {
      // RFC 5961 section 3.2: only a RST with exactly the next sequence number resets; any other in the
      // window gets a challenge ACK.
      if (flags & TcpFlag.rst) {
        if (seq === rcvNxt) this.#closing.abortHost(flow);
        // The right edge counts as inside: a RST has that number when the guest had filled the window and we
        // dropped some of the payload.
        else if (seqGt(seq, rcvNxt) && seqLeq(seq, tcb.rcvAdv[flow]!)) this.#pending.wantAck(flow);
      } else this.#pending.wantAck(flow);
      return packetFree(ctx, p);
    }
    if (!(flags & TcpFlag.ack)) return packetFree(ctx, p);
    // An old segment, which another one has overtaken, does not count.
    if ((p.tos & DSCP_MASK) !== tcb.tos[flow] && seqGeq(seq, rcvNxt)) this.#changeTos(flow, p);

    if (!this.#sender.onAck(flow, p, headerBytes, seq, payloadBytes, flags)) return packetFree(ctx, p);

    if (payloadBytes <= 1 && seq === (rcvNxt - 1) >>> 0) this.#keepAlive.onGuestProbe(flow, quietMs);
    if (payloadBytes === 0 && !(flags & TcpFlag.fin)) {
      // A keep-alive or an old empty segment is answered by an ACK.
      if (seqLt(seq, rcvNxt)) this.#pending.wantAck(flow);
      return packetFree(ctx, p);
    }

    this.#receiver.onPayload(p, flow, headerBytes, seq, payloadBytes, flags);
  }

  /** The guest has changed the DSCP of a connection: the host's socket gets it too. */
  #changeTos(flow: number, p: Packet): void {
    const tos = p.tos & DSCP_MASK;
    this.#tcb.tos[flow] = tos;
    setTosWrite(this.#ctx.toHost, flow, p.family, tos);
  }

  /**
   * Handle an ICMP error of the guest, as a router, that a segment is too long for one of its links
   * ("fragmentation needed", "packet too big"): the connection's MSS is lowered, for good, and the segments
   * in flight are sent again with it.
   * @param p  an ICMP or ICMPv6 packet of the guest
   * @returns whether the packet was such an error, about a connection of ours
   */
  onTooBig(p: Packet): boolean {
    const tcb = this.#tcb;
    const ctx = this.#ctx;
    const quoted = this.#quoted;
    const ports = quotedFlow(ctx.u8, p.transportAt, p.transportBytesInA, p.family, quoted.addr);
    if (ports < 0 || quotedProtocol(ctx.u8, p.transportAt, p.family) !== IpProtocol.tcp) return false;
    quoted.ports = ports;
    quoted.hash = p.hash;
    const flow = ctx.flows.find(quoted);
    if (flow < 0 || tcb.state[flow] !== TcbState.established) return false;
    // RFC 5927 section 4.1: an error that is not about data in flight is old or forged.
    const seq = quotedTcpSeq(ctx.u8, p.transportAt, p.family);
    if (seqLt(seq, tcb.sndUna[flow]!) || seqGeq(seq, tcb.sndMax[flow]!)) return false;
    const reported = nextHopMtu(ctx.u8, p.transportAt, p.family);
    const mtu = p.family === 4 ? reported || IPV4_DEFAULT_MTU : Math.max(reported, IPV6_MIN_MTU);
    const headerBytes = ipHeaderBytes(p.family) + TCP_MIN_BYTES + tcb.tsBytes(flow);
    const mss = Math.max(mtu - headerBytes, MSS_MIN);
    if (mss >= tcb.mss[flow]!) return true; // about a segment that was sent before the MSS was lowered
    tcb.mss[flow] = mss;
    ctx.counters[Counter.tcpMssLowered]!++;
    // The loss was not congestion: the congestion window stays (RFC 1191 section 6.3).
    tcb.flags[flow]! &= ~TcbFlag.inRecovery;
    tcb.dupAcks[flow] = 0;
    this.#retransmission.rewindAll(flow);
    this.#retransmission.arm(flow);
    return true;
  }

  /** A segment of the guest on a connection whose host socket is being closed. */
  #onAwaitingClosed(p: Packet, flow: number): void {
    const tcb = this.#tcb;
    const flags = tcpFlags(this.#ctx.u8, p.transportAt);
    if (flags & TcpFlag.rst) return;
    if (tcb.flags[flow]! & TcbFlag.reset) this.#output.sendReset(flow, tcpAck(this.#ctx.u8, p.transportAt));
    else if (flags & TcpFlag.fin)
      this.#output.emit(flow, tcb.sndNxt[flow]!, TcpFlag.ack, this.#ctx.guest.scratchAt, 0, 0, 0);
  }

  #checksumOk(p: Packet): boolean {
    const pseudo = pseudoSumWords(p.family, p.addr, 0, p.addr, 4, IpProtocol.tcp, p.transportBytes);
    return packetChecksumOk(this.#ctx, p, p.transportBytes, pseudo);
  }

  /**
   * Handle a message of host-io about a TCP flow, or about an accepted connection. Host-io's slots in it are
   * given back here.
   * @param op  ToShard
   * @param words,at  the message
   */
  onMessage(op: number, words: Uint32Array, at: number): void {
    const tcb = this.#tcb;
    const flow = linkFlow(words, at);
    // Data that came before this message is sent to the guest before anything that the message causes.
    if (op !== ToShard.data) this.#batch.flush();
    switch (op) {
      case ToShard.data:
        return this.#sender.onData(flow, words, at);
      case ToShard.sent:
        return this.#receiver.onSent(flow, sentBytes(words, at), sentFlags(words, at), sentFreed(words, at));
      case ToShard.urgent:
        return this.#sender.onUrgent(flow, urgentOffset(words, at));
      case ToShard.opened:
        return this.#handshake.onOpened(flow);
      case ToShard.openFailed:
        return this.#handshake.onOpenFailed(flow, openFailedErrno(words, at));
      case ToShard.eof:
        if (tcb.state[flow] !== TcbState.established && tcb.state[flow] !== TcbState.synSent) return;
        tcb.flags[flow]! |= TcbFlag.hostEof;
        tcb.eofOffset[flow] = eofOffset(words, at);
        if (tcb.state[flow] === TcbState.established) this.#retransmission.maybeSendFin(flow);
        return;
      case ToShard.error:
        if (tcb.state[flow] === TcbState.awaitingClosed || tcb.state[flow] === TcbState.free) return;
        return this.#closing.abortBoth(flow);
      case ToShard.closed:
        // An attempt to connect to a resolver has failed and its socket is closed: the next attempt begins.
        if (tcb.state[flow] === TcbState.connecting) return this.#handshake.openResolver(flow);
        this.#closing.onClosed(flow);
        return this.#handshake.releaseWaiting(flow);
      case ToShard.accepted:
        return this.#handshake.onAccepted(words, at);
    }
  }

  /** Send the payload that is held for coalescing. Called at the end of each batch of messages. */
  flushBatch(): void {
    this.#batch.flush();
  }

  /**
   * At the end of the round: send one ACK and one credit per flow that has some pending.
   * @returns how many list entries there were
   */
  flush(): number {
    return this.#pending.flush();
  }

  /**
   * A timer of a TCP flow has fired.
   * @param kind  TimerKind
   */
  onTimer(flow: number, kind: number): void {
    if (kind === TimerKind.idle) {
      this.#handshake.releaseWaiting(flow);
      return this.#keepAlive.onTimer(flow);
    }
    switch (this.#tcb.state[flow]) {
      case TcbState.synReceived:
      case TcbState.synSent:
        return this.#handshake.onTimer(flow);
      case TcbState.established:
        return this.#retransmission.onTimer(flow);
    }
  }

  /** Whether a connection may move to another lane, if host-io has nothing of it to send. */
  canMove(flow: number): boolean {
    const tcb = this.#tcb;
    return (
      tcb.state[flow] === TcbState.established &&
      !(tcb.flags[flow]! & (TcbFlag.hostEof | TcbFlag.finProvisional)) &&
      this.#outOfOrder.head[flow] === NO_ENTRY &&
      !this.#waiting.has(flow)
    );
  }

  /** Whether the host's socket has taken all payload of the guest. */
  hasSentAll(flow: number): boolean {
    return this.#buffers.isEmpty(flow);
  }

  /** Write the state of a connection that canMove() and hasSentAll(), and forget it. */
  moveOut(flow: number, to: FlowState): void {
    to.begin();
    this.#ctx.flows.save(flow, to);
    this.#tcb.save(flow, to, this.#ctx.now);
    to.put(this.#timestamps.now(flow));
    this.#buffers.save(flow, to);
    this.#retransmission.save(flow, to);
    this.#closing.forget(flow);
  }

  /** Take over a connection from another lane. @returns its flow here, or NO_FLOW (-1): the table is full */
  moveIn(from: FlowState): FlowId {
    from.begin();
    const flow = this.#ctx.flows.restore(Origin.tcp, this.#moved, from);
    if (flow < 0) return flow;
    this.#tcb.restore(flow, from, this.#ctx.now);
    this.#timestamps.setClock(flow, from.take());
    this.#buffers.restore(flow, from);
    this.#retransmission.restore(flow, from);
    this.#keepAlive.begin(flow);
    // The ACK also teaches the kernel the flow's queue.
    this.#pending.wantAck(flow);
    this.#pending.wantCredit(flow);
    return flow;
  }

  /** The egress policy is another one: reset the connection if the guest opened it and may not have it now. */
  endIfDenied(flow: number): boolean {
    const tcb = this.#tcb;
    const { flows, addressing, egress } = this.#ctx;
    const state = tcb.state[flow]!;
    if (state === TcbState.free || state === TcbState.awaitingClosed) return false;
    if (tcb.flags[flow]! & TcbFlag.accepted) return false;
    const port = flows.ports[flow]! & 0xffff;
    const remoteAt = flow * ADDR_WORDS + 4;
    const destination = addressing.classify(flows.addr, remoteAt, port);
    if (egress.stillPermits(flows.addr, remoteAt, destination, EgressProto.tcp, port)) return false;
    // Before the SYN,ACK the guest expects no sequence number: its SYN is answered.
    if (state === TcbState.connecting) this.#output.sendReset(flow, 0);
    else this.#output.sendReset(flow, tcb.sndNxt[flow]!);
    this.#closing.abortHost(flow);
    return true;
  }

  /** The connection's state for reports. */
  stateOf(flow: number): ReportedState {
    const tcb = this.#tcb;
    const state = tcb.state[flow]!;
    if (state !== TcbState.established) return REPORTED[state]!;
    const flags = tcb.flags[flow]!;
    if (!(flags & (TcbFlag.guestFin | TcbFlag.finSent))) return ReportedState.established;
    return flags & TcbFlag.guestFin ? ReportedState.closeWait : ReportedState.finWait;
  }

  /** Payload bytes that the guest has acknowledged, for reports. */
  deliveredBytes(flow: number): number {
    const tcb = this.#tcb;
    // The FIN counts as one byte in the acknowledged bytes.
    return this.#ctx.flows.toGuestBytes[flow]! - (tcb.flags[flow]! & TcbFlag.finAcked ? 1 : 0);
  }

  /** Fill in what a report has of our TCP towards the guest. */
  describe(flow: number, rows: Float64Array, at: number): void {
    const tcb = this.#tcb;
    rows[at + FlowField.toGuestBytes] = this.deliveredBytes(flow);
    if (tcb.srtt[flow]! > 0) rows[at + FlowField.guestRttMs] = tcb.srtt[flow]!;
    rows[at + FlowField.guestRetransmits] = tcb.retransmits[flow]!;
  }

  /** How many segments were sent to the guest again, time-outs among them. */
  resent(flow: number): number {
    return this.#tcb.retransmits[flow]!;
  }

  /** Smoothed round-trip time to the guest, milliseconds; 0: not measured. */
  rttMs(flow: number): number {
    return this.#tcb.srtt[flow]!;
  }

  /** Connections in any state; for tests, as it scans all of them. */
  get count(): number {
    const tcb = this.#tcb;
    let n = 0;
    for (let i = 0; i < tcb.state.length; i++) if (tcb.state[i] !== TcbState.free) n++;
    return n;
  }
}
