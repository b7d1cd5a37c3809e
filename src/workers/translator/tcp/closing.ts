/**
 * The ends of a connection (RFC 9293 section 3.6): FINs of both sides, RST, and the host socket's close.
 * There is no TIME-WAIT: the guest's kernel and the host's each keep their own.
 *
 * Flow ids are not reused until host-io has answered `closed`, so no message can reach the wrong connection.
 */
import { Counter } from '../../../ring/counters.ts';
import { closeWrite, finishWrite, resetWrite } from '../../link/to-host.ts';
import { type ShardContext, TIMER_KINDS, TimerKind } from '../context.ts';
import { TcbFlag, TcbState, type TcpControlBlocks } from './control-blocks.ts';
import type { OutOfOrderQueues } from './out-of-order.ts';
import type { SegmentOutput } from './output.ts';
import type { ReceiveBuffers } from './receive-buffers.ts';
import type { UnsentSegments } from './unsent-segments.ts';
import type { WaitingAccepts } from './waiting-accepts.ts';

/** Silence after which a guest that has closed is asked whether it is still there (keep-alive.ts). */
export const HALF_CLOSED_IDLE_MS = 30_000;

export class TcpClosing {
  readonly #ctx: ShardContext;
  readonly #tcb: TcpControlBlocks;
  readonly #buffers: ReceiveBuffers;
  readonly #outOfOrder: OutOfOrderQueues;
  readonly #output: SegmentOutput;
  readonly #pending: UnsentSegments;
  readonly #waiting: WaitingAccepts;

  constructor(
    ctx: ShardContext,
    tcb: TcpControlBlocks,
    buffers: ReceiveBuffers,
    outOfOrder: OutOfOrderQueues,
    output: SegmentOutput,
    pending: UnsentSegments,
    waiting: WaitingAccepts,
  ) {
    this.#ctx = ctx;
    this.#tcb = tcb;
    this.#buffers = buffers;
    this.#outOfOrder = outOfOrder;
    this.#output = output;
    this.#pending = pending;
    this.#waiting = waiting;
  }

  /** The guest's FIN, in order: FIN to the host's peer once everything queued is sent. */
  finishHost(flow: number): void {
    finishWrite(this.#ctx.toHost, flow);
    // A timer that is due sooner, for a connection that waits, leads to keep-alive.ts as well, which looks at
    // the time.
    if (this.#waiting.has(flow)) return;
    this.#ctx.timers.arm(flow * TIMER_KINDS + TimerKind.idle, this.#ctx.now + HALF_CLOSED_IDLE_MS);
  }

  /** Both FINs have arrived and been acknowledged: the host socket is closed. */
  closeWhenDone(flow: number): void {
    const tcb = this.#tcb;
    const both = TcbFlag.guestFin | TcbFlag.finAcked;
    if ((tcb.flags[flow]! & both) !== both || tcb.state[flow] !== TcbState.established) return;
    this.#pending.flushAck(flow);
    this.#awaitClosed(flow);
    closeWrite(this.#ctx.toHost, flow);
  }

  /** The guest's side is gone: RST to the host's peer. */
  abortHost(flow: number): void {
    const tcb = this.#tcb;
    if (tcb.state[flow] === TcbState.awaitingClosed) return;
    this.#awaitClosed(flow);
    tcb.flags[flow]! |= TcbFlag.reset;
    resetWrite(this.#ctx.toHost, flow);
  }

  /** Both sides get RST. */
  abortBoth(flow: number): void {
    const tcb = this.#tcb;
    this.#output.sendReset(flow, tcb.sndNxt[flow]!);
    this.abortHost(flow);
  }

  /**
   * The host socket is to be closed or reset, as the caller tells host-io; the flow rests until that has
   * answered.
   */
  #awaitClosed(flow: number): void {
    const tcb = this.#tcb;
    this.#outOfOrder.clear(flow);
    this.#pending.flushCredit(flow);
    tcb.state[flow] = TcbState.awaitingClosed;
    this.#ctx.flows.settle(flow);
    // The idle timer stays: a connection may wait for the flow's end (handshake.ts).
    this.#ctx.timers.cancel(flow * TIMER_KINDS + TimerKind.retransmit);
  }

  /** host-io has closed the socket: the flow is free. */
  onClosed(flow: number): void {
    const tcb = this.#tcb;
    if (tcb.state[flow] === TcbState.free) return;
    const ctx = this.#ctx;
    this.#buffers.end(flow);
    this.#outOfOrder.clear(flow);
    ctx.timers.cancel(flow * TIMER_KINDS + TimerKind.retransmit);
    ctx.timers.cancel(flow * TIMER_KINDS + TimerKind.idle);
    tcb.state[flow] = TcbState.free;
    // A flow may still stand on the ack or credit list: `free` makes the flush pass it over.
    tcb.flags[flow]! &= TcbFlag.ackPending | TcbFlag.creditPending;
    ctx.counters[Counter.tcpClosed]!++;
    ctx.flows.remove(flow);
  }
}
