/**
 * Keep-alives (RFC 9293 section 3.8.4): when a connection has been idle for long, the guest gets probes. A
 * connection whose guest does not answer is reset towards both sides. Keep-alives to the host's peer are the
 * host kernel's: by its own idle time, or by the guest's if that is shorter.
 *
 * A keep-alive of the guest is answered like any old segment, and says that a program asked for them
 * (SO_KEEPALIVE). What the program wants is to notice that the peer is gone, and to keep the state of NATs on
 * the path: so the host's socket gets the same idle time. That is the time since the guest's last segment, as
 * a kernel counts it from the last segment that it received, which the guest acknowledged or which
 * acknowledged one of its own. The interval of repeated keep-alives cannot be seen, because each is answered.
 *
 * A guest that has sent its FIN is probed sooner: its kernel drops a closed socket in FIN-WAIT-2 after an
 * idle minute (tcp_fin_timeout), while the host's peer may never close. If the socket is gone, the kernel
 * answers by RST; if the guest has only closed its sending side, by ACK.
 */
import { TcpFlag } from '../../../proto/tcp.ts';
import { keepAliveWrite } from '../../link/to-host.ts';
import { type ShardContext, TIMER_KINDS, TimerKind } from '../context.ts';
import { HALF_CLOSED_IDLE_MS, type TcpClosing } from './closing.ts';
import { TcbFlag, TcbState, type TcpControlBlocks } from './control-blocks.ts';
import type { SegmentOutput } from './output.ts';
import type { ReceiveBuffers } from './receive-buffers.ts';

/** The idle time is RFC 9293 section 3.8.4's default; interval and number of probes are Linux's defaults. */
const KEEPALIVE_IDLE_MS = 7_200_000;
const KEEPALIVE_INTERVAL_MS = 75_000;
const KEEPALIVE_PROBES = 9;

/**
 * A segment that looks like a keep-alive but follows another one sooner is a retransmission of one byte.
 * Linux knows no shorter idle time than 1 s (TCP_KEEPIDLE).
 */
const GUEST_IDLE_MIN_MS = 900;
const MAX_SECONDS = 0xffff;

export class KeepAlive {
  readonly #ctx: ShardContext;
  readonly #tcb: TcpControlBlocks;
  readonly #buffers: ReceiveBuffers;
  readonly #output: SegmentOutput;
  readonly #closing: TcpClosing;

  constructor(
    ctx: ShardContext,
    tcb: TcpControlBlocks,
    buffers: ReceiveBuffers,
    output: SegmentOutput,
    closing: TcpClosing,
  ) {
    this.#ctx = ctx;
    this.#tcb = tcb;
    this.#buffers = buffers;
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
   * A segment of the guest has no new bytes and the sequence number before the next one.
   * @param quietMs  time since the guest's segment before
   */
  onGuestProbe(flow: number, quietMs: number): void {
    const tcb = this.#tcb;
    if (quietMs < GUEST_IDLE_MIN_MS || tcb.flags[flow]! & TcbFlag.guestFin) return;
    // A window probe looks the same (Linux, tcp_xmit_probe_skb); the window closes only while bytes are
    // queued or refused.
    if (this.#buffers.queued[flow] !== 0 || tcb.provisional[flow] !== 0) return;
    if (tcb.flags[flow]! & TcbFlag.heldBack) return;
    const seconds = Math.min(Math.round(quietMs / 1000), MAX_SECONDS);
    if (seconds === tcb.keepAliveSeconds[flow]) return;
    tcb.keepAliveSeconds[flow] = seconds;
    keepAliveWrite(this.#ctx.toHost, flow, seconds);
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
