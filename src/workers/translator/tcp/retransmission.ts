/**
 * Retransmission to the guest: round-trip times and the retransmission timer (RFC 6298), fast retransmit and
 * recovery (RFC 5681, RFC 6582 without SACK), a tail loss probe (RFC 8985 section 7 in spirit), zero-window
 * probes (RFC 9293 section 3.8.6.1).
 *
 * There is no retransmission buffer here: the host kernel's receive queue is it, and host-io peeks again from
 * an offset (`rewind`). There is no SACK scoreboard either: the holes that the blocks of one ACK show are
 * requested again at once, since frames written to a TAP are not reordered. The path to the guest is a memory
 * copy, not a network; a loss means that the guest was out of memory or a filter dropped the frame.
 *
 * On an emulated line it is a network, with a queue that may be full. New data that the queue has no room for
 * is not sent, and the window shrinks (onQueueFull), as Linux does when the queue of its own interface is full.
 * Recovery has no tail loss probes there (RFC 8985 section 7.3), and after a time-out slow start repeats
 * everything, without another recovery on the way (RFC 6582 section 4).
 */

import { seqDiff, seqGt, seqLt } from '../../../proto/seq.ts';
import { newTcpOptions, TCP_MAX_SACK, TCP_MIN_BYTES, tcpOptions } from '../../../proto/tcp.ts';
import { Counter, recordHistogram } from '../../../ring/counters.ts';
import { Histogram } from '../../../ring/histograms.ts';
import type { FlowState } from '../../flow/flow-state.ts';
import { rewindWrite } from '../../link/to-host.ts';
import { type ShardContext, TIMER_KINDS, TimerKind } from '../context.ts';
import type { Packet } from '../packet.ts';
import type { TcpClosing } from './closing.ts';
import { CWND_OF_LINE, RTO_MAX_MS, RTO_MIN_MS, TcbFlag, type TcpControlBlocks } from './control-blocks.ts';
import type { SegmentOutput } from './output.ts';
import type { UnsentSegments } from './unsent-segments.ts';

/** The congestion window after the queue was full, as a part of the data in flight. */
const QUEUE_FULL_FACTOR = 0.7;
/** Shortest time before a tail loss probe. */
const PROBE_MIN_MS = 10;
/** After so many time-outs in succession the connection is reset. */
const RTO_TRIES = 15;
/**
 * After so many timers without an ACK for a frame longer than 64 KiB, the guest is assumed not to receive
 * such frames. Fewer may fire just because the guest is busy.
 */
const BIG_LOSSES = 4;

export class Retransmission {
  readonly #ctx: ShardContext;
  readonly #tcb: TcpControlBlocks;
  readonly #output: SegmentOutput;
  readonly #pending: UnsentSegments;
  readonly #closing: TcpClosing;
  readonly #options = newTcpOptions();
  readonly #sackLeft = new Uint32Array(TCP_MAX_SACK);
  readonly #sackRight = new Uint32Array(TCP_MAX_SACK);
  /** The path to the guest is an emulated line. */
  readonly #isLine: boolean;

  constructor(
    ctx: ShardContext,
    tcb: TcpControlBlocks,
    output: SegmentOutput,
    pending: UnsentSegments,
    closing: TcpClosing,
  ) {
    this.#ctx = ctx;
    this.#tcb = tcb;
    this.#output = output;
    this.#pending = pending;
    this.#closing = closing;
    this.#isLine = tcb.cwndLimits === CWND_OF_LINE;
  }

  /**
   * Take a round-trip time into SRTT and RTO.
   * @param ms  above zero
   */
  onRttSample(flow: number, ms: number): void {
    const tcb = this.#tcb;
    recordHistogram(this.#ctx.counters, Histogram.guestRtt, ms * 1000);
    // RFC 6298 section 2.
    if (tcb.srtt[flow] === 0) {
      tcb.srtt[flow] = ms;
      tcb.rttvar[flow] = ms / 2;
    } else {
      tcb.rttvar[flow] = 0.75 * tcb.rttvar[flow]! + 0.25 * Math.abs(tcb.srtt[flow]! - ms);
      tcb.srtt[flow] = 0.875 * tcb.srtt[flow]! + 0.125 * ms;
    }
    tcb.rto[flow] = Math.max(RTO_MIN_MS, Math.min(RTO_MAX_MS, tcb.srtt[flow]! + 4 * tcb.rttvar[flow]!));
  }

  /**
   * Handle a duplicate ACK. Frames to a TAP are not reordered, so the first duplicate ACK with a SACK block
   * shows a loss. Without SACK the three of RFC 5681 are required, since duplicate ACKs have other causes
   * too.
   */
  onDuplicateAck(flow: number, p: Packet, headerBytes: number): void {
    const tcb = this.#tcb;
    const n = ++tcb.dupAcks[flow]!;
    if (headerBytes > TCP_MIN_BYTES + tcb.tsBytes(flow) && tcb.flags[flow]! & TcbFlag.sackOk) {
      this.retransmitHoles(flow, p, headerBytes);
      return;
    }
    if (n === 3 && !(tcb.flags[flow]! & TcbFlag.inRecovery)) {
      this.#enterRecovery(flow);
      this.retransmitRange(flow, tcb.sndUna[flow]!, tcb.mss[flow]!);
    }
  }

  /**
   * Retransmit the bytes in front of and between the SACK blocks of this ACK, except those that were
   * retransmitted before.
   */
  retransmitHoles(flow: number, p: Packet, headerBytes: number): void {
    const tcb = this.#tcb;
    const o = this.#options;
    tcpOptions(this.#ctx.u8, p.transportAt, headerBytes, o);
    if (o.sackCount === 0) return;
    const sndUna = tcb.sndUna[flow]!;
    const sndMax = tcb.sndMax[flow]!;
    // At most four blocks: insertion sort by left edge. Invalid blocks and D-SACK below sndUna (RFC 2883) are
    // left out.
    const left = this.#sackLeft;
    const right = this.#sackRight;
    let n = 0;
    for (let i = 0; i < o.sackCount; i++) {
      const l = o.sackLeft[i]!;
      const r = o.sackRight[i]!;
      if (!seqLt(l, r) || !seqGt(l, sndUna) || seqGt(r, sndMax)) continue;
      let j = n++;
      for (; j > 0 && seqLt(l, left[j - 1]!); j--) {
        left[j] = left[j - 1]!;
        right[j] = right[j - 1]!;
      }
      left[j] = l;
      right[j] = r;
    }
    if (n === 0) return;
    if (!(tcb.flags[flow]! & TcbFlag.inRecovery)) {
      if (this.#isLine && seqLt(sndUna, tcb.recover[flow]!)) return; // slow start after a time-out
      this.#enterRecovery(flow);
    }
    let from = sndUna;
    for (let i = 0; i < n; i++) {
      if (seqLt(from, tcb.rtxNxt[flow]!)) from = tcb.rtxNxt[flow]!;
      if (seqLt(from, left[i]!)) {
        this.retransmitRange(flow, from, seqDiff(left[i]!, from));
        tcb.rtxNxt[flow] = left[i]!;
      }
      if (seqLt(from, right[i]!)) from = right[i]!;
    }
  }

  /**
   * Have host-io read bytes [seq, seq + bytes) again. If the range is beyond the end of the stream, the FIN
   * is sent.
   */
  retransmitRange(flow: number, seq: number, bytes: number): void {
    const tcb = this.#tcb;
    const ctx = this.#ctx;
    ctx.counters[Counter.tcpRetransmits]!++;
    tcb.resent[flow]!++;
    tcb.flags[flow]! &= ~TcbFlag.timing;
    const dataEnd = tcb.flags[flow]! & TcbFlag.finSent ? tcb.finSeq(flow) : tcb.sndMax[flow]!;
    const n = Math.min(bytes, seqDiff(dataEnd, seq));
    if (n <= 0) {
      if (tcb.flags[flow]! & TcbFlag.finSent) this.#output.sendFin(flow);
      return;
    }
    this.#rewind(flow, seq, n);
  }

  /**
   * Enter fast recovery (RFC 5681 section 3.2, steps 2 and 3): the window is half of the data in flight,
   * until all data sent by now is acknowledged.
   */
  #enterRecovery(flow: number): void {
    const tcb = this.#tcb;
    const inFlight = seqDiff(tcb.sndMax[flow]!, tcb.sndUna[flow]!);
    tcb.flags[flow] = (tcb.flags[flow]! | TcbFlag.inRecovery) & ~(TcbFlag.timing | TcbFlag.big);
    tcb.recover[flow] = tcb.sndMax[flow]!;
    tcb.rtxNxt[flow] = tcb.sndUna[flow]!;
    tcb.ssthresh[flow] = Math.max(tcb.cwndLimits.floor, inFlight >>> 1);
    tcb.cwnd[flow] = tcb.ssthresh[flow]!;
    this.#ctx.counters[Counter.tcpFastRetransmits]!++;
    this.#pending.wantCredit(flow);
  }

  /**
   * The queue of the emulated line has no room for the segment at sndNxt: it is not sent. The window shrinks, at
   * most once per round trip, by the factor of RFC 9438 section 4.6; ACKs let host-io read on.
   */
  onQueueFull(flow: number): void {
    const tcb = this.#tcb;
    const sndNxt = tcb.sndNxt[flow]!;
    const inFlight = seqDiff(sndNxt, tcb.sndUna[flow]!);
    if (!seqLt(tcb.sndUna[flow]!, tcb.cwrEnd[flow]!)) {
      tcb.ssthresh[flow] = Math.max(tcb.cwndLimits.floor, Math.floor(inFlight * QUEUE_FULL_FACTOR));
      tcb.cwnd[flow] = tcb.ssthresh[flow]!;
      tcb.cwrEnd[flow] = sndNxt;
    } else tcb.cwnd[flow] = Math.max(tcb.cwndLimits.floor, Math.min(tcb.cwnd[flow]!, inFlight));
    this.#pending.wantCredit(flow);
    this.#rewind(flow, sndNxt, 0);
  }

  /** Have host-io read everything again, from the oldest unacknowledged byte on. */
  rewindAll(flow: number): void {
    const tcb = this.#tcb;
    tcb.sndNxt[flow] = tcb.sndUna[flow]!;
    tcb.flags[flow]! &= ~(TcbFlag.finSent | TcbFlag.timing);
    this.#rewind(flow, tcb.sndUna[flow]!, 0);
    this.#pending.wantCredit(flow);
    this.maybeSendFin(flow);
  }

  /**
   * Have host-io peek again from `seq` on.
   * @param bytes  only so many; 0: without limit
   */
  #rewind(flow: number, seq: number, bytes: number): void {
    const tcb = this.#tcb;
    // Send the credit first: host-io then drops acknowledged bytes, which it must not rewind to.
    this.#pending.flushCredit(flow);
    rewindWrite(this.#ctx.toHost, flow, tcb.offset(flow, seq), bytes);
  }

  /** Send our FIN if it is the next to send. */
  maybeSendFin(flow: number): void {
    const tcb = this.#tcb;
    if (!tcb.takeFin(flow)) return;
    this.#output.sendFin(flow);
    this.arm(flow);
  }

  /**
   * Arm the retransmission timer: for a tail loss probe first (RFC 8985 section 7 in spirit), then for the
   * time-out.
   */
  arm(flow: number): void {
    const tcb = this.#tcb;
    const id = flow * TIMER_KINDS + TimerKind.retransmit;
    if (tcb.sndMax[flow] === tcb.sndUna[flow]) {
      if (tcb.sndWnd[flow] === 0) this.#pending.armPersist(flow);
      else this.#ctx.timers.cancel(id);
      return;
    }
    let ms = tcb.rto[flow]! * 2 ** tcb.tries[flow]!;
    if (ms > RTO_MAX_MS) ms = RTO_MAX_MS;
    if (this.#mayProbe(flow)) ms = Math.min(ms, Math.max(PROBE_MIN_MS, 2 * tcb.srtt[flow]!));
    this.#ctx.timers.arm(id, this.#ctx.now + ms);
  }

  /** Write when the timer will fire: a flow that moves often must not wait longer for that. */
  save(flow: number, to: FlowState): void {
    to.putNumber(this.#ctx.timers.msUntil(flow * TIMER_KINDS + TimerKind.retransmit, this.#ctx.now));
  }

  /** Arm the timer as save() has found it. */
  restore(flow: number, from: FlowState): void {
    const ms = from.takeNumber();
    if (ms === Number.POSITIVE_INFINITY) this.arm(flow);
    else this.#ctx.timers.arm(flow * TIMER_KINDS + TimerKind.retransmit, this.#ctx.now + ms);
  }

  /**
   * Whether a tail loss probe may be sent: with more than one segment in flight. One alone may wait for the
   * guest's delayed ACK, 40 ms or more, without a loss; two are acknowledged at once.
   */
  #mayProbe(flow: number): boolean {
    const tcb = this.#tcb;
    if (tcb.flags[flow]! & (TcbFlag.probed | TcbFlag.windowProbe) || tcb.tries[flow] !== 0) return false;
    if (this.#isLine && tcb.flags[flow]! & TcbFlag.inRecovery) return false;
    return seqDiff(tcb.sndMax[flow]!, tcb.sndUna[flow]!) > tcb.mss[flow]!;
  }

  /** The timer has fired, on an established connection: zero-window probe, tail loss probe or time-out. */
  onTimer(flow: number): void {
    const tcb = this.#tcb;
    const ctx = this.#ctx;
    const inFlight = seqDiff(tcb.sndMax[flow]!, tcb.sndUna[flow]!);
    if (inFlight === 0) {
      // Zero window: allow one byte beyond it. If the host has sent any, the byte is sent and the guest must
      // answer.
      if (tcb.sndWnd[flow] !== 0) return;
      ctx.counters[Counter.tcpZeroWindow]!++;
      if (tcb.tries[flow]! < 255) tcb.tries[flow]!++;
      tcb.flags[flow]! |= TcbFlag.windowProbe;
      this.#pending.sendCredit(flow, 1);
      return this.#pending.armPersist(flow);
    }
    // If the guest drops frames longer than 64 KiB, shorter ones from now on arrive.
    if (++tcb.bigLosses[flow]! >= BIG_LOSSES) tcb.flags[flow]! &= ~TcbFlag.big;
    if (this.#mayProbe(flow)) {
      tcb.flags[flow]! |= TcbFlag.probed;
      this.retransmitRange(flow, tcb.sndUna[flow]!, Math.min(inFlight, this.#pending.readLimit(flow)));
      return this.arm(flow);
    }
    ctx.counters[Counter.tcpRtoFired]!++;
    tcb.resent[flow]!++;
    if (tcb.sndWnd[flow] !== 0 || tcb.tries[flow]! < RTO_TRIES - 1) {
      if (++tcb.tries[flow]! > RTO_TRIES) return this.#closing.abortBoth(flow);
    }
    tcb.ssthresh[flow] = Math.max(tcb.cwndLimits.floor, inFlight >>> 1);
    tcb.cwnd[flow] = tcb.cwndLimits.floor;
    tcb.flags[flow]! &= ~TcbFlag.inRecovery;
    tcb.recover[flow] = tcb.sndMax[flow]!;
    tcb.dupAcks[flow] = 0;
    this.rewindAll(flow);
    if (tcb.sndWnd[flow] === 0) {
      this.#pending.flushCredit(flow);
      tcb.flags[flow]! |= TcbFlag.windowProbe;
      this.#pending.sendCredit(flow, 1);
    }
    this.arm(flow);
  }
}
