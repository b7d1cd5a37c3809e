/**
 * Receive buffers and the windows that follow from them (RFC 9293 section 3.8.6). Payload that the guest has
 * sent and the host's socket has not accepted is queued by host-io, in the slots in which it was received; it
 * reduces the window. A flow's limit doubles as long as its socket keeps up, and all busy flows share the
 * memory.
 *
 * The scarce resource is slots, not bytes: a short segment occupies a whole slot. Each shard has a budget of
 * both kinds of slot, about half of its share of the reader's. The rest is for out-of-order segments and for
 * frames in transit, so that the reader can always go on.
 *
 *   plenty      A quarter of the budget is free, or the flow holds no more than half of the free part: a
 *               dynamic threshold (Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory
 *               packet switches", 1998), which shrinks as more flows hold slots. Payload is queued and
 *               acknowledged.
 *   scarce      Payload of a flow without a backlog is passed on provisionally: it is acknowledged once the
 *               socket has accepted it, and the part that the socket does not accept at once is dropped, not
 *               queued. So flows whose sockets drain make progress, however many others do not, and a new
 *               flow holds no slots before its socket is known to accept payload.
 *               Payload of a flow with a backlog is dropped. Its window is closed until the backlog is gone.
 *
 * Only payload that was never acknowledged is dropped. A closed window does not move our right edge (rcvAdv)
 * back: payload that the guest sent before it got the closed window is still accepted if there is room. Linux
 * closes its windows in the same way when memory is short.
 */
import { seqDiff, seqGt } from '../../../proto/seq.ts';
import { Counter } from '../../../ring/counters.ts';
import type { FlowState } from '../../flow/flow-state.ts';
import type { SlotCounts } from '../../placement.ts';
import { Notice } from '../../thread/notices.ts';
import type { ShardContext } from '../context.ts';
import { TcbFlag, type TcpControlBlocks } from './control-blocks.ts';

/** Our window shift count: 2^8 * 65535 = 16 MiB, more than any limit below. */
export const RCV_WSCALE = 8;
/** The limit of a new flow, and the greatest limit of any flow. */
const RCV_LIMIT_START = 256 * 1024;
const RCV_LIMIT_MAX = 4 * 1024 * 1024;
/**
 * A socket is known to drain if it has accepted so much, which is more than any kernel buffers for a peer
 * that does not read, and accepted some of it in the last DRAINS_MS.
 */
const DRAINS_BYTES = 16 * 1024 * 1024;
const DRAINS_MS = 1000;
/** Memory must be scarce for so long before a warning is logged. */
const SCARCE_REPORT_MS = 1000;
/** Window of a flow without a backlog when memory is scarce. */
const PROVISIONAL_WINDOW_BYTES = 1024 * 1024;
/** Lower bound of the greatest limit that a flow may have, however small the pool is. */
const RCV_LIMIT_FLOOR = 64 * 1024;
/** Flows that sent payload in this or the previous epoch count as busy; they share the memory for queues. */
const BUSY_EPOCH_MS = 64;
/** Payload that a large slot holds, in round numbers. */
const LARGE_PAYLOAD_BYTES = 65536;
/** In the queue of a blocked socket, slots are at least half full (SendQueues.append). */
const SMALL_LEAST_BYTES = 1024;
const LARGE_LEAST_BYTES = 32768;

/** Result of admit(): whether payload is dropped, queued and acknowledged, or passed on provisionally. */
export const Admission = { dropped: 0, queued: 1, provisional: 2 } as const;
export type Admission = (typeof Admission)[keyof typeof Admission];

/** Slots that the queues of one shard may hold. @param slots  readerSlotsOfShard() */
export const queueBudget = ({ small, large }: SlotCounts): SlotCounts => ({
  small: Math.floor((small * 5) / 8),
  large: Math.floor(large / 2),
});

/** The receive buffers of one shard's connections. */
export class ReceiveBuffers {
  readonly #ctx: ShardContext;
  readonly #tcb: TcpControlBlocks;
  /**
   * By flow: most bytes that may be queued for the host socket; bytes that are queued and were acknowledged.
   */
  readonly limit: Uint32Array;
  readonly queued: Uint32Array;
  /** By flow: slots that host-io holds, small | large << 16, with provisional payload too. */
  readonly #held: Uint32Array;
  /** By flow: 1 if the queue was not empty when host-io last reported. */
  readonly #backlog: Uint8Array;
  /**
   * By flow: when the socket last accepted bytes, monotonic milliseconds; how many bytes it accepted in all.
   */
  readonly #acceptedAt: Float64Array;
  readonly #accepted: Float64Array;
  /** By flow: 1 if the last payload came in a large slot. */
  readonly #isLarge: Uint8Array;
  /** Slots that host-io holds of all flows. */
  #heldSmall = 0;
  #heldLarge = 0;
  /** When memory was last scarce, and when the present period of scarcity began, monotonic milliseconds. */
  #scarceAt = Number.NEGATIVE_INFINITY;
  #scarceSince = 0;
  readonly #budget: SlotCounts;
  readonly #budgetBytes: number;
  readonly #limitMax: number;
  /** Most bytes that one flow may have queued so that all busy flows together stay within the budget. */
  #limitCap: number;
  #epoch = 0;
  #busy = 0;
  #busyBefore = 0;
  readonly #busyEpoch: Int32Array;

  constructor(ctx: ShardContext, tcb: TcpControlBlocks, budget: SlotCounts) {
    const n = ctx.plan.pool.flows;
    this.#ctx = ctx;
    this.#tcb = tcb;
    this.limit = new Uint32Array(n);
    this.queued = new Uint32Array(n);
    this.#held = new Uint32Array(n);
    this.#backlog = new Uint8Array(n);
    this.#acceptedAt = new Float64Array(n);
    this.#accepted = new Float64Array(n);
    this.#isLarge = new Uint8Array(n);
    this.#budget = budget;
    this.#budgetBytes = budget.large * LARGE_PAYLOAD_BYTES;
    const third = Math.floor(this.#budgetBytes / 3);
    this.#limitMax = Math.max(RCV_LIMIT_FLOOR, Math.min(RCV_LIMIT_MAX, third));
    this.#limitCap = this.#limitMax;
    this.#busyEpoch = new Int32Array(n);
  }

  /** Initialise a new connection's receive buffer. */
  begin(flow: number): void {
    this.limit[flow] = Math.min(RCV_LIMIT_START, this.#limitMax);
    this.queued[flow] = 0;
    this.#held[flow] = 0;
    this.#backlog[flow] = 0;
    this.#isLarge[flow] = 0;
    this.#accepted[flow] = 0;
    this.#acceptedAt[flow] = this.#ctx.now;
  }

  /** Whether host-io has nothing of the flow's payload, as far as the shard knows. */
  isEmpty(flow: number): boolean {
    return this.queued[flow] === 0 && this.#held[flow] === 0 && this.#tcb.provisional[flow] === 0;
  }

  /** Write the receive buffer of a flow, which isEmpty(). */
  save(flow: number, to: FlowState): void {
    to.put(this.limit[flow]!);
    to.put(this.#isLarge[flow]!);
    to.putNumber(this.#accepted[flow]!);
    to.putNumber(this.#ctx.now - this.#acceptedAt[flow]!);
  }

  /** Read what save() has written. */
  restore(flow: number, from: FlowState): void {
    this.begin(flow);
    this.limit[flow] = Math.min(from.take(), this.#limitMax);
    this.#isLarge[flow] = from.take();
    this.#accepted[flow] = from.takeNumber();
    this.#acceptedAt[flow] = this.#ctx.now - from.takeNumber();
  }

  /** Slots that host-io holds of this shard's flows: small | large << 16. For tests. */
  get held(): number {
    return this.#heldSmall | (this.#heldLarge << 16);
  }

  /**
   * Decide what is done with payload.
   * @param cost  slots of the payload, small | large << 16 (FramePool.slotCost)
   */
  admit(flow: number, cost: number): Admission {
    // Payload behind provisional bytes is provisional too.
    if (this.#tcb.provisional[flow] === 0 && this.#fits(flow, cost)) return Admission.queued;
    this.#noteScarce();
    if (this.#backlog[flow] === 0) return Admission.provisional;
    this.#tcb.flags[flow]! |= TcbFlag.heldBack;
    this.#ctx.counters[Counter.tcpHeldBack]!++;
    return Admission.dropped;
  }

  /** Log a warning when memory has been scarce for a second, without a pause of a second. */
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
      (cost & 0xffff) <= slotRoom(held & 0xffff, this.#heldSmall, this.#share(flow, this.#budget.small)) &&
      cost >>> 16 <= slotRoom(held >>> 16, this.#heldLarge, this.#share(flow, this.#budget.large))
    );
  }

  /** The budget that applies to a flow: an eighth is reserved for flows whose sockets are known to drain. */
  #share(flow: number, budget: number): number {
    const drains =
      this.#accepted[flow]! >= DRAINS_BYTES && this.#ctx.now - this.#acceptedAt[flow]! < DRAINS_MS;
    return drains ? budget : budget - (budget >> 3);
  }

  /** Whether the socket is full and has accepted nothing for DRAINS_MS. */
  isStalled(flow: number): boolean {
    return this.#backlog[flow] === 1 && this.#ctx.now - this.#acceptedAt[flow]! >= DRAINS_MS;
  }

  /**
   * Count payload that is passed to host-io.
   * @param cost  slots of the payload, as for admit()
   */
  add(flow: number, bytes: number, cost: number, isProvisional: boolean): void {
    if (isProvisional) {
      this.#tcb.provisional[flow]! += bytes;
      this.#ctx.counters[Counter.tcpProvisional]!++;
    } else this.queued[flow]! += bytes;
    this.#isLarge[flow] = cost >= 0x10000 ? 1 : 0;
    this.#held[flow]! += cost;
    this.#heldSmall += cost & 0xffff;
    this.#heldLarge += cost >>> 16;
  }

  /**
   * host-io reports the progress of a flow's queue.
   * @param bytes  that the host's socket has accepted
   * @param freed  slots that host-io gave back to the reader, small | large << 16
   * @param takesMore  the socket has accepted everything and can accept more
   */
  onSent(flow: number, bytes: number, freed: number, takesMore: boolean): void {
    const tcb = this.#tcb;
    const certain = Math.min(bytes, this.queued[flow]!);
    this.queued[flow]! -= certain;
    tcb.provisional[flow]! -= Math.min(bytes - certain, tcb.provisional[flow]!);
    this.#release(flow, freed);
    if (bytes > 0) {
      this.#accepted[flow]! += bytes;
      this.#acceptedAt[flow] = this.#ctx.now;
    }
    this.#backlog[flow] = takesMore ? 0 : 1;
    if (takesMore) tcb.flags[flow]! &= ~TcbFlag.heldBack;
  }

  /** host-io has dropped the provisional bytes: the guest has to send them again. */
  onRefused(flow: number): void {
    const tcb = this.#tcb;
    tcb.rcvNxt[flow] = tcb.rcvAcked(flow);
    tcb.provisional[flow] = 0;
    tcb.flags[flow] = (tcb.flags[flow]! & ~TcbFlag.finProvisional) | TcbFlag.heldBack;
    this.#ctx.counters[Counter.tcpRefused]!++;
  }

  /** The host's socket is closed, and host-io has freed its queue. */
  end(flow: number): void {
    this.queued[flow] = 0;
    this.#tcb.provisional[flow] = 0;
    this.#release(flow, this.#held[flow]!);
  }

  #release(flow: number, cost: number): void {
    this.#held[flow]! -= cost;
    this.#heldSmall -= cost & 0xffff;
    this.#heldLarge -= cost >>> 16;
  }

  /** The socket keeps up: double the flow's limit, up to the maximum. */
  grow(flow: number): void {
    if (this.limit[flow]! >= this.#limitMax) return;
    this.limit[flow] = Math.min(this.limit[flow]! * 2, this.#limitMax);
  }

  /** Count a flow that sends payload as busy, and adapt each flow's share of the memory for queues. */
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

  /**
   * Bytes that a flow can add to its queue at the least, if its segments use the same kind of slot as the
   * last one.
   */
  #roomBytes(flow: number): number {
    const held = this.#held[flow]!;
    return this.#isLarge[flow] === 0
      ? slotRoom(held & 0xffff, this.#heldSmall, this.#share(flow, this.#budget.small)) * SMALL_LEAST_BYTES
      : slotRoom(held >>> 16, this.#heldLarge, this.#share(flow, this.#budget.large)) * LARGE_LEAST_BYTES;
  }

  /**
   * The window field to advertise now. Stores the right edge, which never moves back (RFC 9293 section
   * 3.8.6).
   * @param syn  for a SYN, whose window is not scaled
   */
  window(flow: number, syn: boolean): number {
    const tcb = this.#tcb;
    const acked = tcb.rcvAcked(flow);
    if (tcb.flags[flow]! & TcbFlag.heldBack) {
      this.#ctx.counters[Counter.tcpWindowClosed]!++;
      return 0;
    }
    // At least two segments: a guest whose MSS exceeds the window would wait for its probe timer.
    const limit = Math.max(Math.min(this.limit[flow]!, this.#limitCap), 2 * tcb.mss[flow]!);
    let free = limit - this.queued[flow]!;
    let room = this.#roomBytes(flow);
    // Payload of a flow without a backlog can be passed on provisionally.
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
      // Round down: the edge may seem to move back by less than one unit of the scale, which RFC 7323 section
      // 2.4 allows. If it were rounded up, it would advance with every segment, and for a guest that sends
      // single bytes the window would never close.
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
 * @param own  slots that the flow has
 * @param all  slots that all flows have, this flow's included
 * @param budget  slots that all flows may have
 */
export function slotRoom(own: number, all: number, budget: number): number {
  const plenty = budget - (budget >> 2) - all;
  const share = ((budget - all) >> 1) - own;
  const room = plenty > share ? plenty : share;
  return room > 0 ? room : 0;
}
