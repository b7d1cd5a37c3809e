/**
 * Receive buffers and the windows that come of them (RFC 9293 section 3.8.6). What the guest has sent and the
 * host's socket has not taken waits with host-io, in the slots it arrived in; it shrinks the window. A flow's
 * limit doubles as long as its socket keeps up, and all flows that are busy share what memory there is.
 *
 * Slots, not bytes, are what runs out: a short segment pins a whole one. Each shard has a budget of both
 * kinds, about half of its share of the reader's; the rest is left to segments out of order and to frames
 * that pass through, so that whatever waits here the reader goes on.
 *
 *   plenty      A quarter of the budget is free, or the flow holds no more than half of what is: a dynamic threshold (Choudhury and Hahne,
 *               "Dynamic queue length thresholds for shared-memory packet switches", 1998), which shrinks as more flows hold slots.
 *               Payload is queued and acknowledged.
 *   scarce      Payload of a flow whose socket keeps up is passed on provisionally: it is acknowledged when the socket has taken
 *               it, and what the socket does not take at once is dropped, not kept. So flows that drain go on, however many others do
 *               not, and a new flow holds nothing before its socket is known to take it.
 *               Payload of a flow with a backlog is dropped. Its window is closed until the backlog is gone.
 *
 * What is dropped was never acknowledged. A closed window does not move the right edge back for us (rcvAdv):
 * what the guest had sent before it heard of that is still taken if there is room. Linux closes its own
 * windows likewise when memory is short.
 */
import { seqDiff, seqGt } from '../../../proto/seq.ts';
import { Counter } from '../../../ring/counters.ts';
import { Notice } from '../../thread/notices.ts';
import type { ShardContext } from '../context.ts';
import { TcbFlag, type TcpControlBlocks } from './control-blocks.ts';

/** Our window scale: 2^8 * 65535 = 16 MiB, as far as any limit below reaches. */
export const RCV_WSCALE = 8;
const RCV_LIMIT_START = 256 * 1024;
const RCV_LIMIT_MAX = 4 * 1024 * 1024;
/**
 * A socket that has taken so much, more than any kernel buffers for a peer that does not read, and took some
 * just now, drains.
 */
const DRAINS_BYTES = 16 * 1024 * 1024;
const DRAINS_MS = 1000;
const SCARCE_REPORT_MS = 1000;
/** Window of a flow whose socket keeps up when memory is scarce. */
const PROVISIONAL_WINDOW_BYTES = 1024 * 1024;
/** However little memory there is, one flow alone may have this much queued. */
const RCV_LIMIT_FLOOR = 64 * 1024;
/**
 * Flows that sent payload within the last one or two of these count as busy and share the memory for queues.
 */
const BUSY_EPOCH_MS = 64;
const LARGE_PAYLOAD_BYTES = 65536;
/** Behind a blocked socket slots are at least half full (SendQueues.append). */
const SMALL_LEAST_BYTES = 1024;
const LARGE_LEAST_BYTES = 32768;

/** What may be done with payload. */
export const Admission = { dropped: 0, queued: 1, provisional: 2 } as const;
export type Admission = (typeof Admission)[keyof typeof Admission];

/** Slots of each kind that the queues of one shard may hold. */
export interface QueueBudget {
  readonly small: number;
  readonly large: number;
}

/** Of a shard's share of the reader's slots. */
export const queueBudget = (readerSmall: number, readerLarge: number, shards: number): QueueBudget => ({
  small: Math.floor((readerSmall * 5) / 8 / shards),
  large: Math.floor(readerLarge / 2 / shards),
});

export class ReceiveBuffers {
  readonly #ctx: ShardContext;
  readonly #tcb: TcpControlBlocks;
  /** By flow: bytes that may wait for the host socket, bytes that do and were acknowledged. */
  readonly limit: Uint32Array;
  readonly queued: Uint32Array;
  /** By flow: slots that host-io has, small | large << 16, provisional ones included. */
  readonly #held: Uint32Array;
  /** By flow: the socket left something in its queue when host-io last told. */
  readonly #backlog: Uint8Array;
  /** By flow: when the socket last took something, monotonic milliseconds; how much it took in all. */
  readonly #takenAt: Float64Array;
  readonly #taken: Float64Array;
  /** By flow: the last payload came in a large slot. */
  readonly #isLarge: Uint8Array;
  /** Slots that host-io has of all flows. */
  #small = 0;
  #large = 0;
  /** When memory was scarce last, and since when without a pause, monotonic milliseconds. */
  #scarceAt = Number.NEGATIVE_INFINITY;
  #scarceSince = 0;
  readonly #budget: QueueBudget;
  readonly #budgetBytes: number;
  readonly #limitMax: number;
  /** What one flow may have queued so that all busy ones together stay within the budget. */
  #limitCap: number;
  #epoch = 0;
  #busy = 0;
  #busyBefore = 0;
  readonly #busyEpoch: Int32Array;

  constructor(ctx: ShardContext, tcb: TcpControlBlocks, budget: QueueBudget) {
    const n = ctx.plan.pool.flows;
    this.#ctx = ctx;
    this.#tcb = tcb;
    this.limit = new Uint32Array(n);
    this.queued = new Uint32Array(n);
    this.#held = new Uint32Array(n);
    this.#backlog = new Uint8Array(n);
    this.#takenAt = new Float64Array(n);
    this.#taken = new Float64Array(n);
    this.#isLarge = new Uint8Array(n);
    this.#budget = budget;
    this.#budgetBytes = budget.large * LARGE_PAYLOAD_BYTES;
    const third = Math.floor(this.#budgetBytes / 3);
    this.#limitMax = Math.max(RCV_LIMIT_FLOOR, Math.min(RCV_LIMIT_MAX, third));
    this.#limitCap = this.#limitMax;
    this.#busyEpoch = new Int32Array(n);
  }

  /** A new connection. */
  begin(flow: number): void {
    this.limit[flow] = Math.min(RCV_LIMIT_START, this.#limitMax);
    this.queued[flow] = 0;
    this.#held[flow] = 0;
    this.#backlog[flow] = 0;
    this.#isLarge[flow] = 0;
    this.#taken[flow] = 0;
    this.#takenAt[flow] = this.#ctx.now;
  }

  /** Slots that host-io has of this shard's flows: small | large << 16. For tests. */
  get held(): number {
    return this.#small | (this.#large << 16);
  }

  /**
   * Whether payload may be queued.
   * @param cost  its slots, small | large << 16 (FramePool.slotCost)
   */
  admit(flow: number, cost: number): Admission {
    // Behind provisional bytes nothing can be certain.
    if (this.#tcb.provisional[flow] === 0 && this.#fits(flow, cost)) return Admission.queued;
    this.#noteScarce();
    if (this.#backlog[flow] === 0) return Admission.provisional;
    this.#tcb.flags[flow]! |= TcbFlag.heldBack;
    this.#ctx.counters[Counter.tcpHeldBack]!++;
    return Admission.dropped;
  }

  /** Scarce for a second, without a pause of a second: somebody should know. */
  #noteScarce(): void {
    const { now, notices } = this.#ctx;
    if (now - this.#scarceAt > SCARCE_REPORT_MS) this.#scarceSince = now;
    this.#scarceAt = now;
    if (now - this.#scarceSince >= SCARCE_REPORT_MS)
      notices.tell(
        Notice.queuesFull,
        'warning',
        'memory for TCP uploads is taken by connections whose peers do not read: they are held back',
      );
  }

  #fits(flow: number, cost: number): boolean {
    const held = this.#held[flow]!;
    return (
      (cost & 0xffff) <= slotRoom(held & 0xffff, this.#small, this.#share(flow, this.#budget.small)) &&
      cost >>> 16 <= slotRoom(held >>> 16, this.#large, this.#share(flow, this.#budget.large))
    );
  }

  /** An eighth of the budget is left to flows that are known to drain. */
  #share(flow: number, budget: number): number {
    const drains = this.#taken[flow]! >= DRAINS_BYTES && this.#ctx.now - this.#takenAt[flow]! < DRAINS_MS;
    return drains ? budget : budget - (budget >> 3);
  }

  /** The socket is full and has taken nothing for a while. */
  isStalled(flow: number): boolean {
    return this.#backlog[flow] === 1 && this.#ctx.now - this.#takenAt[flow]! >= DRAINS_MS;
  }

  /** Payload goes to host-io. @param cost  its slots */
  add(flow: number, bytes: number, cost: number, isProvisional: boolean): void {
    if (isProvisional) {
      this.#tcb.provisional[flow]! += bytes;
      this.#ctx.counters[Counter.tcpProvisional]!++;
    } else this.queued[flow]! += bytes;
    this.#isLarge[flow] = cost >= 0x10000 ? 1 : 0;
    this.#held[flow]! += cost;
    this.#small += cost & 0xffff;
    this.#large += cost >>> 16;
  }

  /**
   * host-io tells how a flow stands.
   * @param bytes  that the host's socket has taken
   * @param freed  slots that went back to the reader
   * @param takesMore  the socket has taken everything and takes more
   */
  onSent(flow: number, bytes: number, freed: number, takesMore: boolean): void {
    const tcb = this.#tcb;
    const certain = Math.min(bytes, this.queued[flow]!);
    this.queued[flow]! -= certain;
    tcb.provisional[flow]! -= Math.min(bytes - certain, tcb.provisional[flow]!);
    this.#release(flow, freed);
    if (bytes > 0) {
      this.#taken[flow]! += bytes;
      this.#takenAt[flow] = this.#ctx.now;
    }
    this.#backlog[flow] = takesMore ? 0 : 1;
    if (takesMore) tcb.flags[flow]! &= ~TcbFlag.heldBack;
  }

  /** Provisional bytes were not taken: the guest has to send them again. */
  onRefused(flow: number): void {
    const tcb = this.#tcb;
    tcb.rcvNxt[flow] = tcb.rcvAcked(flow);
    tcb.provisional[flow] = 0;
    tcb.flags[flow] = (tcb.flags[flow]! & ~TcbFlag.finProvisional) | TcbFlag.heldBack;
    this.#ctx.counters[Counter.tcpRefused]!++;
  }

  /** The host's socket is gone, and with it everything that waited for it. */
  end(flow: number): void {
    this.queued[flow] = 0;
    this.#tcb.provisional[flow] = 0;
    this.#release(flow, this.#held[flow]!);
  }

  #release(flow: number, cost: number): void {
    this.#held[flow]! -= cost;
    this.#small -= cost & 0xffff;
    this.#large -= cost >>> 16;
  }

  /** The socket keeps up: let more wait, while memory allows. */
  grow(flow: number): void {
    if (this.limit[flow]! >= this.#limitMax) return;
    this.limit[flow] = Math.min(this.limit[flow]! * 2, this.#limitMax);
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
    this.#limitCap = Math.min(this.#limitMax, Math.floor(this.#budgetBytes / busy));
  }

  /** Bytes that a flow may add at the least, if its segments are as the last one was. */
  #roomBytes(flow: number): number {
    const held = this.#held[flow]!;
    return this.#isLarge[flow] === 0
      ? slotRoom(held & 0xffff, this.#small, this.#share(flow, this.#budget.small)) * SMALL_LEAST_BYTES
      : slotRoom(held >>> 16, this.#large, this.#share(flow, this.#budget.large)) * LARGE_LEAST_BYTES;
  }

  /**
   * The window field to advertise now; notes the right edge. It never moves back (RFC 9293 section 3.8.6).
   */
  window(flow: number, syn: boolean): number {
    const tcb = this.#tcb;
    const acked = tcb.rcvAcked(flow);
    if (tcb.flags[flow]! & TcbFlag.heldBack) {
      this.#ctx.counters[Counter.tcpWindowClosed]!++;
      return 0;
    }
    // Two segments at the least: a guest whose MSS does not fit the window waits for its probe timer.
    const limit = Math.max(Math.min(this.limit[flow]!, this.#limitCap), 2 * tcb.mss[flow]!);
    let free = limit - this.queued[flow]!;
    let room = this.#roomBytes(flow);
    // What a flow without a backlog sends passes provisionally if it must.
    if (this.#backlog[flow] === 0) room = Math.max(room, PROVISIONAL_WINDOW_BYTES, 2 * tcb.mss[flow]!);
    if (free > room) free = room;
    const promised = seqDiff(tcb.rcvAdv[flow]!, acked);
    let bytes = free > promised ? free : promised;
    if (bytes < 0) bytes = 0;
    let field: number;
    if (syn || !(tcb.flags[flow]! & TcbFlag.wscaleOk)) {
      field = bytes > 65535 ? 65535 : bytes;
      bytes = field;
    } else {
      // Rounded down, the edge may seem to move back by less than the scale's grain, as RFC 7323 section 2.4
      // allows. Rounded up, it would creep on with every segment, and a guest that sends single bytes would
      // never see the window close.
      field = bytes >>> RCV_WSCALE;
      if (field > 65535) field = 65535;
      bytes = field << RCV_WSCALE;
    }
    const edge = (acked + bytes) >>> 0;
    if (seqGt(edge, tcb.rcvAdv[flow]!)) tcb.rcvAdv[flow] = edge;
    return field;
  }
}

/**
 * How many more slots of a kind one flow may take.
 * @param own  slots that it has
 * @param all  slots that all flows have, its own included
 * @param budget  that all may have
 */
export function slotRoom(own: number, all: number, budget: number): number {
  const plenty = budget - (budget >> 2) - all;
  const share = ((budget - all) >> 1) - own;
  const room = plenty > share ? plenty : share;
  return room > 0 ? room : 0;
}
