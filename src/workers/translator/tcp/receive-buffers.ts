/**
 * Receive buffers and the windows that come of them (RFC 9293 section 3.8.6). What the guest has sent and the host's socket has not
 * taken waits with host-io, in the slots it arrived in; it shrinks the window. A flow's limit doubles as long as its socket keeps up, and
 * all flows that are busy share what memory there is.
 */
import { seqDiff, seqGt } from '../../../proto/seq.ts';
import type { ShardContext } from '../context.ts';
import { TcbFlag, type TcpControlBlocks } from './control-blocks.ts';

/** Our window scale: 2^8 * 65535 = 16 MiB, as far as any limit below reaches. */
export const RCV_WSCALE = 8;
const RCV_LIMIT_START = 256 * 1024;
const RCV_LIMIT_MAX = 4 * 1024 * 1024;
/** A flow may always have this much queued, however short memory is. */
const RCV_LIMIT_FLOOR = 64 * 1024;
/** Flows that sent payload within the last one or two of these count as busy and share the memory for queues. */
const BUSY_EPOCH_MS = 64;

export class ReceiveBuffers {
  readonly #ctx: ShardContext;
  readonly #tcb: TcpControlBlocks;
  /** By flow: bytes that may wait for the host socket, bytes that do. */
  readonly limit: Uint32Array;
  readonly queued: Uint32Array;
  /** Bytes queued behind host sockets by all flows, and how many may be. */
  #total = 0;
  readonly #budget: number;
  readonly #limitMax: number;
  /** What one flow may have queued so that all busy ones together stay within the budget. */
  #limitCap: number;
  #epoch = 0;
  #busy = 0;
  #busyBefore = 0;
  readonly #busyEpoch: Int32Array;

  /** @param largeBytes  of the slots that this shard's flows may fill */
  constructor(ctx: ShardContext, tcb: TcpControlBlocks, largeBytes: number) {
    const n = ctx.plan.pool.flows;
    this.#ctx = ctx;
    this.#tcb = tcb;
    this.limit = new Uint32Array(n);
    this.queued = new Uint32Array(n);
    this.#budget = Math.floor((largeBytes * 3) / 4);
    this.#limitMax = Math.max(RCV_LIMIT_FLOOR, Math.min(RCV_LIMIT_MAX, Math.floor(largeBytes / 6)));
    this.#limitCap = this.#limitMax;
    this.#busyEpoch = new Int32Array(n);
  }

  /** A new connection. */
  begin(flow: number): void {
    this.limit[flow] = Math.min(RCV_LIMIT_START, this.#limitMax);
    this.queued[flow] = 0;
  }

  /** Payload goes to host-io. */
  add(flow: number, bytes: number): void {
    this.queued[flow]! += bytes;
    this.#total += bytes;
  }

  /** The host's socket has taken it, or is gone. */
  remove(flow: number, bytes: number): void {
    this.queued[flow]! -= bytes;
    this.#total -= bytes;
  }

  /** The socket keeps up: let more wait, while memory allows. */
  grow(flow: number): void {
    if (this.limit[flow]! >= this.#limitMax) return;
    this.limit[flow] = Math.min(this.limit[flow]! * 2, this.#limitMax);
  }

  /** Whether memory is short and this flow has its share. */
  isShort(flow: number): boolean {
    return this.#total > this.#budget && this.queued[flow]! >= RCV_LIMIT_FLOOR;
  }

  /** Keep the number of busy flows, and with it each one's share of the memory for queues. */
  countBusy(flow: number): void {
    const epoch = Math.floor(this.#ctx.now / BUSY_EPOCH_MS) | 0;
    if (epoch !== this.#epoch) {
      this.#busyBefore = epoch - this.#epoch === 1 ? this.#busy : 0;
      this.#busy = 0;
      this.#epoch = epoch;
    }
    if (this.#busyEpoch[flow] === epoch) return;
    this.#busyEpoch[flow] = epoch;
    this.#busy++;
    const busy = this.#busy > this.#busyBefore ? this.#busy : this.#busyBefore;
    this.#limitCap = Math.min(this.#limitMax, Math.floor(this.#budget / busy));
  }

  /** The window field to advertise now; notes the right edge. It never moves back (RFC 9293 section 3.8.6). */
  window(flow: number, syn: boolean): number {
    const tcb = this.#tcb;
    const rcvNxt = tcb.rcvNxt[flow]!;
    // Two segments at the least: a guest whose MSS does not fit the window waits for its probe timer.
    const limit = Math.max(Math.min(this.limit[flow]!, this.#limitCap), 2 * tcb.mss[flow]!);
    const free = limit - this.queued[flow]!;
    const promised = seqDiff(tcb.rcvAdv[flow]!, rcvNxt);
    let bytes = free > promised ? free : promised;
    if (bytes < 0) bytes = 0;
    let field: number;
    if (syn || !(tcb.flags[flow]! & TcbFlag.wscaleOk)) {
      field = bytes > 65535 ? 65535 : bytes;
      bytes = field;
    } else {
      // Rounded down, the edge may seem to move back by less than the scale's grain, as RFC 7323 section 2.4 allows. Rounded up, it
      // would creep on with every segment, and a guest that sends single bytes would never see the window close.
      field = bytes >>> RCV_WSCALE;
      if (field > 65535) field = 65535;
      bytes = field << RCV_WSCALE;
    }
    const edge = (rcvNxt + bytes) >>> 0;
    if (seqGt(edge, tcb.rcvAdv[flow]!)) tcb.rcvAdv[flow] = edge;
    return field;
  }
}
