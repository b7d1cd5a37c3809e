/**
 * Payload from the guest to the host (RFC 9293 section 3.10.7.4, seventh and eighth check). In-order payload
 * is passed to host-io in the slots in which it was received, and acknowledged from then on: it is in the
 * host socket or queued, in order, in slots. Out-of-order payload is kept here. Only payload that was never
 * acknowledged may be dropped.
 */

import { seqDiff, seqGt } from '../../../proto/seq.ts';
import { TcpFlag, tcpUrgent } from '../../../proto/tcp.ts';
import { Counter } from '../../../ring/counters.ts';
import { NO_SLOT } from '../../../ring/pool.ts';
import { sendWrite } from '../../link/to-host.ts';
import { SentFlag } from '../../link/to-shard.ts';
import type { ShardContext } from '../context.ts';
import { type Packet, packetFree } from '../packet.ts';
import type { TcpClosing } from './closing.ts';
import { TcbFlag, TcbState, type TcpControlBlocks } from './control-blocks.ts';
import { NO_ENTRY, type OutOfOrderQueues } from './out-of-order.ts';
import { Admission, type ReceiveBuffers } from './receive-buffers.ts';
import type { UnsentSegments } from './unsent-segments.ts';

export class TcpReceiver {
  readonly #ctx: ShardContext;
  readonly #tcb: TcpControlBlocks;
  readonly #buffers: ReceiveBuffers;
  readonly #outOfOrder: OutOfOrderQueues;
  readonly #pending: UnsentSegments;
  readonly #closing: TcpClosing;

  constructor(
    ctx: ShardContext,
    tcb: TcpControlBlocks,
    buffers: ReceiveBuffers,
    outOfOrder: OutOfOrderQueues,
    pending: UnsentSegments,
    closing: TcpClosing,
  ) {
    this.#ctx = ctx;
    this.#tcb = tcb;
    this.#buffers = buffers;
    this.#outOfOrder = outOfOrder;
    this.#pending = pending;
    this.#closing = closing;
  }

  /**
   * Handle payload or FIN of a segment whose ACK was acceptable. Takes over the packet's slots.
   * @param seq  the segment's sequence number
   * @param payloadBytes  payload in both slots together; 0 for a FIN without payload
   */
  onPayload(
    p: Packet,
    flow: number,
    headerBytes: number,
    seq: number,
    payloadBytes: number,
    flags: number,
  ): void {
    const tcb = this.#tcb;
    const ctx = this.#ctx;
    const rcvNxt = tcb.rcvNxt[flow]!;
    // Only in the segment that has the byte: before, a pointer of 65535 says no more than that one will come.
    const urgent = flags & TcpFlag.urg ? tcpUrgent(ctx.u8, p.transportAt) : 0;
    if (urgent > 0 && urgent <= payloadBytes) this.#onUrgent(flow, (seq + urgent) >>> 0);
    let fin = (flags & TcpFlag.fin) !== 0;
    // Cut off payload that was received before, and payload beyond the window.
    let skip = 0;
    let len = payloadBytes;
    const old = seqDiff(rcvNxt, seq);
    if (old > 0) {
      if (old > len || (old === len && !fin) || tcb.flags[flow]! & TcbFlag.guestFin) {
        this.#pending.wantAck(flow);
        return packetFree(ctx, p);
      }
      skip = old;
      len -= old;
      seq = rcvNxt;
    }
    const room = seqDiff(tcb.rcvAdv[flow]!, seq);
    if (len > room) {
      fin = false;
      len = room;
      this.#pending.wantAck(flow);
      if (len <= 0) return packetFree(ctx, p);
    }
    if (tcb.flags[flow]! & TcbFlag.guestFin) {
      // Payload behind the guest's FIN cannot be valid.
      this.#pending.wantAck(flow);
      return packetFree(ctx, p);
    }
    let slotA = p.slotA;
    let slotB = p.slotB;
    let at = p.transportAt - ctx.pool.slotAt(slotA) + headerBytes + skip;
    const inA = p.transportBytesInA - headerBytes - skip;
    if (inA <= 0 && slotB !== NO_SLOT && len > 0) {
      // Slot A holds only headers and old bytes.
      ctx.freeReaderSlots(slotA, NO_SLOT);
      slotA = slotB;
      slotB = NO_SLOT;
      at = -inA;
    } else if (slotB !== NO_SLOT && len <= inA) {
      ctx.freeReaderSlots(NO_SLOT, slotB);
      slotB = NO_SLOT;
    }

    if (seq !== rcvNxt) {
      ctx.counters[Counter.tcpOutOfOrder]!++;
      this.#pending.wantAck(flow);
      ctx.counters[Counter.tcpDupAcksSent]!++;
      // If the gap cannot be filled, as there is no room for its bytes, the segment is not kept: it would
      // hold slots that other flows can use.
      const isKept =
        !(tcb.flags[flow]! & TcbFlag.heldBack && this.#buffers.isStalled(flow)) &&
        this.#outOfOrder.insert(flow, seq, len, slotA, slotB, at, fin);
      if (!isKept) ctx.freeReaderSlots(slotA, slotB);
      this.#pending.flushAck(flow);
      return;
    }
    if (len > 0) {
      this.#buffers.countBusy(flow);
      if (!this.#toHost(flow, slotA, slotB, at, len)) {
        // The guest retransmits the unacknowledged payload, and that behind it too.
        if (this.#buffers.isStalled(flow)) this.#outOfOrder.clear(flow);
        this.#pending.wantAck(flow);
        return ctx.freeReaderSlots(slotA, slotB);
      }
      tcb.rcvNxt[flow] = (seq + len) >>> 0;
    } else ctx.freeReaderSlots(slotA, slotB);
    if (fin) this.#onFinNext(flow);
    if (this.#outOfOrder.head[flow] !== NO_ENTRY) {
      this.#drain(flow);
      this.#pending.wantAck(flow);
    }
  }

  /** The guest sends an urgent byte. @param up  sequence number behind that byte */
  #onUrgent(flow: number, up: number): void {
    const tcb = this.#tcb;
    if (seqDiff(up, tcb.rcvNxt[flow]!) <= 0) return; // an old one
    tcb.rcvUp[flow] = up;
    tcb.flags[flow]! |= TcbFlag.urgentFromGuest;
  }

  /**
   * The guest's FIN is next in order: handle it, or wait until the provisional bytes before it are accepted.
   */
  #onFinNext(flow: number): void {
    const tcb = this.#tcb;
    if (tcb.provisional[flow] === 0) return this.#onGuestFin(flow);
    tcb.flags[flow]! |= TcbFlag.finProvisional;
  }

  /** Handle the guest's FIN, which is next in order; segments behind it cannot be valid. */
  #onGuestFin(flow: number): void {
    const tcb = this.#tcb;
    tcb.rcvNxt[flow] = (tcb.rcvNxt[flow]! + 1) >>> 0;
    tcb.flags[flow]! |= TcbFlag.guestFin;
    this.#outOfOrder.clear(flow);
    this.#pending.wantAck(flow);
    this.#closing.finishHost(flow);
    this.#closing.closeWhenDone(flow);
  }

  /** Pass on the kept segments that are in order now. */
  #drain(flow: number): void {
    const tcb = this.#tcb;
    const ctx = this.#ctx;
    const queue = this.#outOfOrder;
    for (;;) {
      const e = queue.head[flow]!;
      if (e === NO_ENTRY) return;
      const rcvNxt = tcb.rcvNxt[flow]!;
      const seq = queue.seq[e]!;
      if (seqGt(seq, rcvNxt)) return;
      queue.release(flow, e);
      const skip = seqDiff(rcvNxt, seq);
      const len = queue.len[e]! - skip;
      const fin = queue.fin[e] === 1;
      let slotA = queue.slotA[e]!;
      let slotB = queue.slotB[e]!;
      if (len < 0 || (len === 0 && !fin)) {
        ctx.freeReaderSlots(slotA, slotB);
        continue;
      }
      if (len > 0) {
        let at = queue.at[e]! + skip;
        const over = at - ctx.pool.slotBytes(slotA);
        if (over >= 0) {
          ctx.freeReaderSlots(slotA, NO_SLOT);
          slotA = slotB;
          slotB = NO_SLOT;
          at = over;
        }
        if (!this.#toHost(flow, slotA, slotB, at, len)) return ctx.freeReaderSlots(slotA, slotB);
        tcb.rcvNxt[flow] = (rcvNxt + len) >>> 0;
      } else ctx.freeReaderSlots(slotA, slotB);
      if (fin) return this.#onFinNext(flow);
    }
  }

  /**
   * Pass payload to host-io, if memory allows.
   * @param slotOffset  offset of the payload in slot A
   * @returns false: it was not passed, and the slots are still the caller's
   */
  #toHost(flow: number, slotA: number, slotB: number, slotOffset: number, len: number): boolean {
    const { pool, toHost: out } = this.#ctx;
    const cost = pool.slotCost(slotA) + pool.slotCost(slotB);
    const admission = this.#buffers.admit(flow, cost);
    if (admission === Admission.dropped) return false;
    const isProvisional = admission === Admission.provisional;
    const mark = isProvisional ? 1 + this.#tcb.refusals[flow]! : 0;
    const urgent = this.#tcb.flags[flow]! & TcbFlag.urgentFromGuest ? this.#takeUrgent(flow, len) : 0;
    sendWrite(out, flow, slotA, slotB, slotOffset, len, mark, urgent);
    this.#buffers.add(flow, len, cost, isProvisional);
    this.#ctx.flows.fromGuestBytes[flow]! += len;
    return true;
  }

  /**
   * Find the urgent byte in the next `len` bytes from rcvNxt on.
   * @returns how many bytes up to and with it, 0: it is behind them
   */
  #takeUrgent(flow: number, len: number): number {
    const tcb = this.#tcb;
    const n = seqDiff(tcb.rcvUp[flow]!, tcb.rcvNxt[flow]!);
    if (n > len) return 0;
    tcb.flags[flow]! &= ~TcbFlag.urgentFromGuest;
    return Math.max(n, 0);
  }

  /**
   * host-io reports bytes that the host's socket has accepted.
   * @param flags  SentFlag bits
   * @param freed  slots that went back to the reader, small | large << 16
   */
  onSent(flow: number, bytes: number, flags: number, freed: number): void {
    const tcb = this.#tcb;
    const takesMore = (flags & SentFlag.empty) !== 0;
    this.#buffers.onSent(flow, bytes, freed, takesMore);
    if (flags & SentFlag.refused) {
      this.#ctx.flows.fromGuestBytes[flow]! -= tcb.provisional[flow]!;
      tcb.refusals[flow]!++;
      this.#buffers.onRefused(flow);
    }
    if (tcb.state[flow] !== TcbState.established) return;
    if (takesMore && bytes > 0) this.#buffers.grow(flow);
    this.#pending.wantAck(flow);
    if (tcb.provisional[flow] === 0 && tcb.flags[flow]! & TcbFlag.finProvisional) {
      tcb.flags[flow]! &= ~TcbFlag.finProvisional;
      this.#onGuestFin(flow);
    }
  }
}
