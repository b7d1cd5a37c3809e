/**
 * Payload from the host to the guest: bytes that host-io peeked are sent as segments, and the guest's ACKs
 * move send window and congestion window (RFC 9293 section 3.10.7.4, fifth check; RFC 5681 with a large
 * initial window).
 *
 * Stale `data` messages after a rewind are recognised by an offset that is not the next one. That suffices,
 * as links are FIFO.
 */

import { seqDiff, seqGeq, seqGt, seqLeq, seqLt } from '../../../proto/seq.ts';
import { TCP_MIN_BYTES, TcpFlag, tcpAck, tcpWindow } from '../../../proto/tcp.ts';
import { NO_SLOT } from '../../../ring/pool.ts';
import { ADDR_WORDS } from '../../flow/flow-table.ts';
import { linkBytes, linkSlotA, linkSlotOffset } from '../../link/descriptor.ts';
import { DataKind, dataKind, dataOffset } from '../../link/to-shard.ts';
import { type ShardContext, TIMER_KINDS, TimerKind } from '../context.ts';
import type { Packet } from '../packet.ts';
import { IP_MAX_BYTES } from '../to-guest.ts';
import type { TcpClosing } from './closing.ts';
import { CWND_MAX, TcbFlag, TcbState, type TcpControlBlocks } from './control-blocks.ts';
import type { GsoBatch } from './gso-batch.ts';
import type { SegmentOutput } from './output.ts';
import type { Retransmission } from './retransmission.ts';
import type { Timestamps } from './timestamps.ts';
import type { UnsentSegments } from './unsent-segments.ts';

/** The parts of TCP that TcpSender uses. */
export interface SenderParts {
  readonly tcb: TcpControlBlocks;
  readonly timestamps: Timestamps;
  readonly output: SegmentOutput;
  readonly pending: UnsentSegments;
  readonly closing: TcpClosing;
  readonly retransmission: Retransmission;
  readonly batch: GsoBatch;
}

export class TcpSender {
  readonly #ctx: ShardContext;
  readonly #tcb: TcpControlBlocks;
  readonly #timestamps: Timestamps;
  readonly #output: SegmentOutput;
  readonly #pending: UnsentSegments;
  readonly #closing: TcpClosing;
  readonly #retransmission: Retransmission;
  readonly #batch: GsoBatch;

  constructor(ctx: ShardContext, parts: SenderParts) {
    this.#ctx = ctx;
    this.#tcb = parts.tcb;
    this.#timestamps = parts.timestamps;
    this.#output = parts.output;
    this.#pending = parts.pending;
    this.#closing = parts.closing;
    this.#retransmission = parts.retransmission;
    this.#batch = parts.batch;
  }

  /**
   * Handle ACK and window of a segment (RFC 9293 section 3.10.7.4, fifth check).
   * @returns false when the segment acknowledges bytes that were never sent: the caller drops it
   */
  onAck(
    flow: number,
    p: Packet,
    headerBytes: number,
    seq: number,
    payloadBytes: number,
    flags: number,
  ): boolean {
    const tcb = this.#tcb;
    const ctx = this.#ctx;
    const u8 = ctx.u8;
    const ack = tcpAck(u8, p.transportAt);
    const sndUna = tcb.sndUna[flow]!;
    if (seqGt(ack, tcb.sndMax[flow]!)) {
      this.#pending.wantAck(flow);
      return false;
    }
    const window = tcpWindow(u8, p.transportAt);
    const scaled = tcb.flags[flow]! & TcbFlag.wscaleOk ? window << tcb.sndWscale[flow]! : window;
    const oldWindow = tcb.sndWnd[flow]!;
    const progress = seqGt(ack, sndUna);

    if (progress) this.#onProgress(flow, ack);
    // RFC 9293: an older segment must not change the window. A segment that acknowledges more may, even if it
    // is a retransmission: the old window, counted from the new sndUna, would reach too far (Linux:
    // tcp_may_update_window).
    if (
      progress ||
      (ack === sndUna &&
        (seqLt(tcb.sndWl1[flow]!, seq) || (tcb.sndWl1[flow] === seq && seqLeq(tcb.sndWl2[flow]!, ack))))
    ) {
      tcb.sndWl1[flow] = seq;
      tcb.sndWl2[flow] = ack;
      if (scaled !== oldWindow) {
        tcb.sndWnd[flow] = scaled;
        this.#pending.wantCredit(flow);
        if (oldWindow === 0) this.#onWindowOpened(flow);
      }
    }
    if (progress) this.#pending.wantCredit(flow);
    else if (
      ack === sndUna &&
      payloadBytes === 0 &&
      !(flags & TcpFlag.fin) &&
      tcb.sndMax[flow] !== sndUna &&
      scaled === oldWindow
    ) {
      this.#retransmission.onDuplicateAck(flow, p, headerBytes);
    }
    // An ACK that acknowledges more and still has SACK blocks shows the next hole.
    if (progress && headerBytes > TCP_MIN_BYTES + tcb.tsBytes(flow) && tcb.flags[flow]! & TcbFlag.sackOk) {
      this.#retransmission.retransmitHoles(flow, p, headerBytes);
    }
    return true;
  }

  /** The guest has acknowledged new bytes. */
  #onProgress(flow: number, ack: number): void {
    const tcb = this.#tcb;
    const now = this.#ctx.now;
    const acked = seqDiff(ack, tcb.sndUna[flow]!);
    tcb.sndUna[flow] = ack;
    this.#ctx.flows.toGuestBytes[flow]! += acked;
    if (acked > IP_MAX_BYTES) tcb.bigLosses[flow] = 0;
    if (seqLt(tcb.sndNxt[flow]!, ack)) tcb.sndNxt[flow] = ack;
    const flags = tcb.flags[flow]!;
    if (flags & TcbFlag.timing && seqGeq(ack, tcb.timedSeq[flow]!)) {
      tcb.flags[flow]! &= ~TcbFlag.timing;
      const ms = now - tcb.timedAt[flow]!;
      // The echoed timestamp belongs to the segment that this ACK answers, which is a later one than the
      // timed segment if the ACK of that was lost. The smaller value is taken.
      const echoMs =
        this.#timestamps.tsEcr === 0 ? ms : ((this.#timestamps.now(flow) - this.#timestamps.tsEcr) >>> 0) + 1;
      this.#retransmission.onRttSample(flow, ms < echoMs ? ms : echoMs);
    }
    tcb.tries[flow] = 0;
    tcb.dupAcks[flow] = 0;
    tcb.flags[flow]! &= ~(TcbFlag.probed | TcbFlag.windowProbe);
    if (flags & TcbFlag.inRecovery) {
      if (seqGeq(ack, tcb.recover[flow]!)) {
        tcb.flags[flow]! &= ~TcbFlag.inRecovery;
        tcb.cwnd[flow] = tcb.ssthresh[flow]!;
      } else if (seqLt(tcb.rtxNxt[flow]!, ack)) {
        tcb.rtxNxt[flow] = ack;
        if (!(flags & TcbFlag.sackOk))
          this.#retransmission.retransmitRange(
            flow,
            ack,
            Math.min(tcb.mss[flow]!, seqDiff(tcb.recover[flow]!, ack)),
          );
      }
    } else {
      const cwnd = tcb.cwnd[flow]!;
      if (cwnd < CWND_MAX) {
        tcb.cwnd[flow] =
          cwnd < tcb.ssthresh[flow]!
            ? cwnd + acked
            : cwnd + Math.max(1, Math.floor((tcb.mss[flow]! * acked) / cwnd));
      }
    }
    // finSent is not tested: a time-out may have cleared it while the ACK was in flight. ACKs above sndMax
    // were refused before.
    if (flags & TcbFlag.hostEof && ack === (tcb.finSeq(flow) + 1) >>> 0) {
      tcb.flags[flow]! |= TcbFlag.finSent | TcbFlag.finAcked;
      this.#closing.closeWhenDone(flow);
    }
    if (tcb.state[flow] === TcbState.established) this.#retransmission.arm(flow);
  }

  /**
   * The guest has opened its window. If the probe's byte was not accepted, send from there at once. The
   * probes' backoff does not apply to data that is sent from now on.
   */
  #onWindowOpened(flow: number): void {
    const tcb = this.#tcb;
    tcb.tries[flow] = 0;
    if (tcb.flags[flow]! & TcbFlag.windowProbe) {
      tcb.flags[flow]! &= ~TcbFlag.windowProbe;
      if (tcb.sndNxt[flow] !== tcb.sndUna[flow]) this.#retransmission.rewindAll(flow);
    }
    this.#retransmission.arm(flow);
  }

  /**
   * Handle peeked bytes from host-io: the next ones, bytes that were requested again, or stale ones after a
   * rewind.
   * @param words,at  the message ToShard.data
   */
  onData(flow: number, words: Uint32Array, at: number): void {
    const tcb = this.#tcb;
    const ctx = this.#ctx;
    const slot = linkSlotA(words, at);
    let len = linkBytes(words, at);
    let payloadAt = ctx.pool.slotAt(slot) + linkSlotOffset(words, at);
    const kind = dataKind(words, at);
    const again = kind === DataKind.again;
    if (kind === DataKind.last && tcb.state[flow] === TcbState.established) {
      tcb.flags[flow]! |= TcbFlag.hostEof;
      tcb.eofOffset[flow] = (dataOffset(words, at) + len) >>> 0;
    }
    if (tcb.state[flow] !== TcbState.established) return ctx.freeHostSlots(slot, NO_SLOT);
    let seq = (tcb.iss[flow]! + 1 + dataOffset(words, at)) >>> 0;
    const from = again ? tcb.sndUna[flow]! : tcb.sndNxt[flow]!;
    const old = seqDiff(from, seq);
    if (old > 0) {
      // The first bytes were acknowledged meanwhile.
      seq = from;
      payloadAt += old;
      len -= old;
    }
    if (len <= 0 || (!again && seq !== from) || (again && seqGt((seq + len) >>> 0, tcb.sndMax[flow]!))) {
      return ctx.freeHostSlots(slot, NO_SLOT);
    }
    if (
      !again &&
      !ctx.guest.hasRoom(ctx.flows.addr, flow * ADDR_WORDS + 4, len, tcb.mss[flow]!) &&
      from !== tcb.sndUna[flow]
    ) {
      this.#retransmission.onQueueFull(flow);
      return ctx.freeHostSlots(slot, NO_SLOT);
    }
    const end = (seq + len) >>> 0;
    let flags: number = TcpFlag.ack | TcpFlag.psh;
    const fresh = seqGt(end, tcb.sndMax[flow]!);
    if (fresh && !(tcb.flags[flow]! & TcbFlag.timing)) {
      tcb.flags[flow]! |= TcbFlag.timing;
      tcb.timedSeq[flow] = end;
      tcb.timedAt[flow] = ctx.now;
    }
    if (!again) {
      tcb.sndNxt[flow] = end;
      if (fresh) tcb.sndMax[flow] = end;
    } else if (seqGt(end, tcb.sndNxt[flow]!)) tcb.sndNxt[flow] = end;
    // If these are the last bytes, they carry the FIN, which saves a frame and a wake-up in the guest.
    if (tcb.sndNxt[flow] === end && tcb.takeFin(flow)) flags |= TcpFlag.fin;
    if (tcb.flags[flow]! & TcbFlag.urgentToGuest && this.#hasUrgent(flow, seq, len)) {
      this.#sendUrgent(flow, seq, flags, payloadAt, len);
      ctx.freeHostSlots(slot, NO_SLOT);
    } else if (again || !(tcb.flags[flow]! & TcbFlag.big)) {
      this.#output.emit(flow, seq, flags, payloadAt - this.#output.headBytes(flow, len), 0, len, 0);
      ctx.freeHostSlots(slot, NO_SLOT);
    } else this.#batch.hold(flow, seq, flags, slot, payloadAt, len);
    if (!ctx.timers.isArmed(flow * TIMER_KINDS + TimerKind.retransmit)) this.#retransmission.arm(flow);
    this.#retransmission.maybeSendFin(flow);
  }

  /** The peer has sent an urgent byte. @param offset  its stream offset */
  onUrgent(flow: number, offset: number): void {
    const tcb = this.#tcb;
    if (tcb.state[flow] === TcbState.free || tcb.state[flow] === TcbState.awaitingClosed) return;
    tcb.sndUp[flow] = (tcb.iss[flow]! + 1 + offset) >>> 0;
    tcb.flags[flow]! |= TcbFlag.urgentToGuest;
  }

  #hasUrgent(flow: number, seq: number, len: number): boolean {
    const n = seqDiff(this.#tcb.sndUp[flow]!, seq);
    return n >= 0 && n < len;
  }

  /**
   * Send payload that has the urgent byte in three segments, of which the second is this byte. The urgent
   * pointer must not be in a GSO frame: each segment of it would get the same. Headers overwrite payload that
   * was sent.
   * @param flags  of the last segment
   */
  #sendUrgent(flow: number, seq: number, flags: number, payloadAt: number, len: number): void {
    this.#batch.flush();
    const before = seqDiff(this.#tcb.sndUp[flow]!, seq);
    const behind = len - before - 1;
    const inner = flags & ~TcpFlag.fin;
    if (before > 0) this.#emit(flow, seq, inner, payloadAt, before);
    const urgent = (behind > 0 ? inner : flags) | TcpFlag.urg;
    this.#emit(flow, (seq + before) >>> 0, urgent, payloadAt + before, 1);
    if (behind > 0) this.#emit(flow, (seq + before + 1) >>> 0, flags, payloadAt + before + 1, behind);
  }

  #emit(flow: number, seq: number, flags: number, payloadAt: number, len: number): void {
    this.#output.emit(flow, seq, flags, payloadAt - this.#output.headBytes(flow, len), 0, len, 0);
  }
}
