/**
 * The end of a connection (RFC 9293 section 3.6): FINs of both sides, RST, and the closing of the host
 * socket. There is no TIME-WAIT state: the guest's kernel and the host's each have their own.
 *
 * A flow's id is not reused until host-io has answered `closed`, so no message can reach the wrong
 * connection.
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

/** Idle time after which a guest that has sent its FIN gets a keep-alive probe (keep-alive.ts). */
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

  /**
   * The guest's FIN has arrived in order: host-io sends FIN to the host's peer once everything queued is
   * sent.
   */
  finishHost(flow: number): void {
    finishWrite(this.#ctx.toHost, flow);
    // An accepted connection waits for this flow and has armed its idle timer. That timer is due sooner and
    // calls keep-alive.ts too, which re-arms it by the idle time.
    if (this.#waiting.has(flow)) return;
    this.#ctx.timers.arm(flow * TIMER_KINDS + TimerKind.idle, this.#ctx.now + HALF_CLOSED_IDLE_MS);
  }

  /** Close the host socket if both FINs have arrived and are acknowledged. */
  closeWhenDone(flow: number): void {
    const tcb = this.#tcb;
    const both = TcbFlag.guestFin | TcbFlag.finAcked;
    if ((tcb.flags[flow]! & both) !== both || tcb.state[flow] !== TcbState.established) return;
    this.#pending.flushAck(flow);
    this.#awaitClosed(flow);
    closeWrite(this.#ctx.toHost, flow);
  }

  /**
   * End the connection towards the host: host-io sends RST to the host's peer. Nothing is sent to the guest.
   */
  abortHost(flow: number): void {
    const tcb = this.#tcb;
    if (tcb.state[flow] === TcbState.awaitingClosed) return;
    this.#awaitClosed(flow);
    tcb.flags[flow]! |= TcbFlag.reset;
    resetWrite(this.#ctx.toHost, flow);
  }

  /** End the connection by RST to both sides. */
  abortBoth(flow: number): void {
    const tcb = this.#tcb;
    this.#output.sendReset(flow, tcb.sndNxt[flow]!);
    this.abortHost(flow);
  }

  /**
   * Enter TcbState.awaitingClosed. The caller has host-io close or reset the socket; the flow then waits for
   * `closed`.
   */
  #awaitClosed(flow: number): void {
    const tcb = this.#tcb;
    this.#outOfOrder.clear(flow);
    this.#pending.flushCredit(flow);
    tcb.state[flow] = TcbState.awaitingClosed;
    this.#ctx.flows.settle(flow);
    // The idle timer stays armed: an accepted connection may wait for the flow's end (handshake.ts).
    this.#ctx.timers.cancel(flow * TIMER_KINDS + TimerKind.retransmit);
  }

  /** host-io has closed the socket: free the flow. */
  onClosed(flow: number): void {
    const tcb = this.#tcb;
    if (tcb.state[flow] === TcbState.free) return;
    this.#buffers.end(flow);
    this.#outOfOrder.clear(flow);
    this.#ctx.counters[Counter.tcpClosed]!++;
    this.forget(flow);
  }

  /** The flow has ended here, and host-io has nothing of it any more: free its id. */
  forget(flow: number): void {
    const tcb = this.#tcb;
    const ctx = this.#ctx;
    ctx.timers.cancel(flow * TIMER_KINDS + TimerKind.retransmit);
    ctx.timers.cancel(flow * TIMER_KINDS + TimerKind.idle);
    tcb.state[flow] = TcbState.free;
    // A flow may still be in the ACK or credit list: in state `free` the flush skips it.
    tcb.flags[flow]! &= TcbFlag.ackPending | TcbFlag.creditPending;
    ctx.flows.remove(flow);
  }
}
