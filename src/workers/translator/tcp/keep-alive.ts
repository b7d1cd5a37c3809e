/**
 * Keep-alives (RFC 9293 section 3.8.4): nothing heard of a connection for long, so the guest's kernel is asked whether it lives. One that
 * does not answer is ended towards both sides. The host's socket has the kernel's own.
 */
import { TcpFlag } from '../../../proto/tcp.ts';
import { type ShardContext, TIMER_KINDS, TimerKind } from '../context.ts';
import type { TcpClosing } from './closing.ts';
import { TcbState, type TcpControlBlocks } from './control-blocks.ts';
import type { SegmentOutput } from './output.ts';

/** RFC 9293 section 3.8.4 default; then as many probes, as far apart, as Linux's defaults. */
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

  /** The connection stands. */
  begin(flow: number): void {
    this.#ctx.timers.arm(flow * TIMER_KINDS + TimerKind.idle, this.#ctx.now + KEEPALIVE_IDLE_MS);
  }

  onTimer(flow: number): void {
    const tcb = this.#tcb;
    if (tcb.state[flow] !== TcbState.established) return;
    const ctx = this.#ctx;
    const id = flow * TIMER_KINDS + TimerKind.idle;
    const quiet = ctx.now - tcb.lastSeen[flow]!;
    if (quiet < KEEPALIVE_IDLE_MS) return ctx.timers.arm(id, tcb.lastSeen[flow]! + KEEPALIVE_IDLE_MS);
    if (quiet > KEEPALIVE_IDLE_MS + KEEPALIVE_PROBES * KEEPALIVE_INTERVAL_MS)
      return this.#closing.abortBoth(flow);
    this.#output.emit(flow, (tcb.sndUna[flow]! - 1) >>> 0, TcpFlag.ack, ctx.guest.scratchAt, 0, 0, 0);
    ctx.timers.arm(id, ctx.now + KEEPALIVE_INTERVAL_MS);
  }
}
