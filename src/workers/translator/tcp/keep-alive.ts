/**
 * Keep-alives (RFC 9293 section 3.8.4): when a connection has been idle for long, the guest gets probes. A
 * connection whose guest does not answer is reset towards both sides. Keep-alives to the host's peer are the
 * host kernel's.
 *
 * A guest that has sent its FIN is probed sooner: its kernel drops a closed socket in FIN-WAIT-2 after an
 * idle minute (tcp_fin_timeout), while the host's peer may never close. If the socket is gone, the kernel
 * answers by RST; if the guest has only closed its sending side, by ACK.
 */
import { TcpFlag } from '../../../proto/tcp.ts';
import { type ShardContext, TIMER_KINDS, TimerKind } from '../context.ts';
import { HALF_CLOSED_IDLE_MS, type TcpClosing } from './closing.ts';
import { TcbFlag, TcbState, type TcpControlBlocks } from './control-blocks.ts';
import type { SegmentOutput } from './output.ts';

/** The idle time is RFC 9293 section 3.8.4's default; interval and number of probes are Linux's defaults. */
const KEEPALIVE_IDLE_MS = 7_200_000;
const KEEPALIVE_INTERVAL_MS = 75_000;
const KEEPALIVE_PROBES = 9;

export class KeepAlive {
  readonly #ctx: ShardContext;
  readonly #tcb: TcpControlBlocks;
  readonly #output: SegmentOutput;
  readonly #closing: TcpClosing;

  constructor(ctx: ShardContext, tcb: TcpControlBlocks, output: SegmentOutput, closing: TcpClosing) {
    this.#ctx = ctx;
    this.#tcb = tcb;
    this.#output = output;
    this.#closing = closing;
  }

  /** The connection is established: arm its idle timer. */
  begin(flow: number): void {
    const id = flow * TIMER_KINDS + TimerKind.idle;
    // The timer is armed already if an accepted connection waits for this flow (handshake.ts); onTimer() then
    // arms it for keep-alive.
    if (this.#ctx.timers.isArmed(id)) return;
    // Not from now on: a connection that changes lanes may have been idle for long.
    this.#ctx.timers.arm(id, this.#tcb.lastSeen[flow]! + this.#idleMs(flow));
  }

  #idleMs(flow: number): number {
    return this.#tcb.flags[flow]! & TcbFlag.guestFin ? HALF_CLOSED_IDLE_MS : KEEPALIVE_IDLE_MS;
  }

  /**
   * The idle timer has fired: send a probe, end the connection, or arm the timer for the rest of the time.
   */
  onTimer(flow: number): void {
    const tcb = this.#tcb;
    if (tcb.state[flow] !== TcbState.established) return;
    const ctx = this.#ctx;
    const id = flow * TIMER_KINDS + TimerKind.idle;
    const quiet = ctx.now - tcb.lastSeen[flow]!;
    const idleMs = this.#idleMs(flow);
    const halfClosed = idleMs === HALF_CLOSED_IDLE_MS;
    if (quiet < idleMs) return ctx.timers.arm(id, tcb.lastSeen[flow]! + idleMs);
    if (quiet > KEEPALIVE_IDLE_MS + KEEPALIVE_PROBES * KEEPALIVE_INTERVAL_MS)
      return this.#closing.abortBoth(flow);
    this.#output.emit(flow, (tcb.sndUna[flow]! - 1) >>> 0, TcpFlag.ack, ctx.guest.scratchAt, 0, 0, 0);
    ctx.timers.arm(id, ctx.now + (halfClosed ? HALF_CLOSED_IDLE_MS : KEEPALIVE_INTERVAL_MS));
  }
}
