/**
 * Output of a flow that is collected until the end of a round: one ACK to the guest and one credit to
 * host-io, however many segments and messages caused them.
 *
 *   ACK      rcvNxt, window and SACK blocks as they are at that time; a segment that is sent earlier carries
 *            the ACK, which is then no longer pending
 *   credit   which bytes the guest has acknowledged (host-io drops them from the socket), and how far host-io
 *            may peek: sndUna + min(sndWnd, cwnd)
 */
import { IPV4_MIN_BYTES } from '../../../proto/ipv4.ts';
import { TCP_MIN_BYTES, TcpFlag, tcpSackWrite } from '../../../proto/tcp.ts';
import { ADDR_WORDS } from '../../flow/flow-table.ts';
import { creditWrite } from '../../link/to-host.ts';
import { type ShardContext, TIMER_KINDS, TimerKind } from '../context.ts';
import { IP_MAX_BYTES, ipHeaderBytes } from '../to-guest.ts';
import { RTO_MIN_MS, TcbFlag, TcbState, type TcpControlBlocks } from './control-blocks.ts';
import { NO_ENTRY, type OutOfOrderQueues } from './out-of-order.ts';
import type { SegmentOutput } from './output.ts';

/** Greatest interval between two probes of a closed window. */
const PROBE_MAX_MS = 10_000;

export class UnsentSegments {
  readonly #ctx: ShardContext;
  readonly #tcb: TcpControlBlocks;
  readonly #outOfOrder: OutOfOrderQueues;
  readonly #output: SegmentOutput;
  readonly #ackList: Int32Array;
  #ackCount = 0;
  readonly #creditList: Int32Array;
  #creditCount = 0;

  constructor(ctx: ShardContext, tcb: TcpControlBlocks, outOfOrder: OutOfOrderQueues, output: SegmentOutput) {
    this.#ctx = ctx;
    this.#tcb = tcb;
    this.#outOfOrder = outOfOrder;
    this.#output = output;
    this.#ackList = new Int32Array(ctx.plan.pool.flows);
    this.#creditList = new Int32Array(ctx.plan.pool.flows);
  }

  /** Have an ACK sent to the guest at the end of the round. */
  wantAck(flow: number): void {
    const tcb = this.#tcb;
    if (tcb.flags[flow]! & TcbFlag.ackPending) return;
    tcb.flags[flow]! |= TcbFlag.ackPending;
    if (this.#ackCount < this.#ackList.length) this.#ackList[this.#ackCount++] = flow;
    else this.flushAck(flow);
  }

  /** Send the flow's ACK now, if one is pending. */
  flushAck(flow: number): void {
    const tcb = this.#tcb;
    if (!(tcb.flags[flow]! & TcbFlag.ackPending)) return;
    tcb.flags[flow]! &= ~TcbFlag.ackPending;
    const state = tcb.state[flow];
    if (state !== TcbState.established) return;
    const ctx = this.#ctx;
    let optionBytes = 0;
    const at = ctx.guest.scratchAt;
    if (this.#outOfOrder.head[flow] !== NO_ENTRY && tcb.flags[flow]! & TcbFlag.sackOk) {
      const count = this.#outOfOrder.sackBlocks(flow);
      const ipBytes = ipHeaderBytes(tcb.flags[flow]! & TcbFlag.v6 ? 6 : 4);
      const optionsAt = at + ipBytes + TCP_MIN_BYTES + tcb.tsBytes(flow);
      optionBytes = tcpSackWrite(
        ctx.u8,
        optionsAt,
        this.#outOfOrder.sackLeft,
        this.#outOfOrder.sackRight,
        count,
      );
    }
    this.#output.emit(flow, tcb.sndNxt[flow]!, TcpFlag.ack, at, optionBytes, 0, 0);
  }

  /** Have a credit sent to host-io at the end of the round. */
  wantCredit(flow: number): void {
    const tcb = this.#tcb;
    if (tcb.flags[flow]! & TcbFlag.creditPending) return;
    tcb.flags[flow]! |= TcbFlag.creditPending;
    if (this.#creditCount < this.#creditList.length) this.#creditList[this.#creditCount++] = flow;
    else this.flushCredit(flow);
  }

  /**
   * Send the flow's credit now, if one is pending: what the guest acknowledged, and how far host-io may peek.
   */
  flushCredit(flow: number): void {
    const tcb = this.#tcb;
    if (!(tcb.flags[flow]! & TcbFlag.creditPending)) return;
    tcb.flags[flow]! &= ~TcbFlag.creditPending;
    if (tcb.state[flow] !== TcbState.established) return;
    const sndWnd = tcb.sndWnd[flow]!;
    const cwnd = tcb.cwnd[flow]!;
    this.sendCredit(flow, sndWnd < cwnd ? sndWnd : cwnd);
    if (sndWnd === 0 && tcb.sndMax[flow] === tcb.sndUna[flow]) this.armPersist(flow);
  }

  /**
   * Send a credit to host-io.
   * @param bytes  that host-io may peek beyond sndUna
   */
  sendCredit(flow: number, bytes: number): void {
    const tcb = this.#tcb;
    const una = tcb.offset(flow, tcb.sndUna[flow]!);
    // Once our FIN is acknowledged, sndUna is one beyond the end of the stream.
    const consumed = tcb.flags[flow]! & TcbFlag.finAcked ? tcb.eofOffset[flow]! : una;
    creditWrite(this.#ctx.toHost, flow, (una + bytes) >>> 0, consumed, this.readLimit(flow));
  }

  /** Payload bytes of the largest frame for this flow: as many whole segments as fit in IP_MAX_BYTES, or in a quarter of its line's queue. */
  readLimit(flow: number): number {
    const tcb = this.#tcb;
    const mss = tcb.mss[flow]!;
    const ctx = this.#ctx;
    if (!ctx.guest.hasVnet) return mss;
    // IPv6's length field does not include the IPv6 header.
    const ipBytes = tcb.flags[flow]! & TcbFlag.v6 ? 0 : IPV4_MIN_BYTES;
    const ofLine = ctx.guest.mostFrameBytes(ctx.flows.addr, flow * ADDR_WORDS + 4);
    const most = Math.min(IP_MAX_BYTES, ofLine) - ipBytes - TCP_MIN_BYTES - tcb.tsBytes(flow);
    return mss * Math.max(1, Math.floor(most / mss));
  }

  /** Zero window: arm the timer of the next probe, unless it is armed (RFC 9293 section 3.8.6.1). */
  armPersist(flow: number): void {
    const tcb = this.#tcb;
    const id = flow * TIMER_KINDS + TimerKind.retransmit;
    if (this.#ctx.timers.isArmed(id)) return;
    const ms = Math.min(PROBE_MAX_MS, RTO_MIN_MS * 2 ** Math.min(tcb.tries[flow]!, 10));
    this.#ctx.timers.arm(id, this.#ctx.now + ms);
  }

  /**
   * End of the round: send each flow's pending ACK and credit.
   * @returns number of list entries
   */
  flush(): number {
    const n = this.#ackCount + this.#creditCount;
    for (let i = 0; i < this.#creditCount; i++) this.flushCredit(this.#creditList[i]!);
    this.#creditCount = 0;
    for (let i = 0; i < this.#ackCount; i++) this.flushAck(this.#ackList[i]!);
    this.#ackCount = 0;
    return n;
  }
}
