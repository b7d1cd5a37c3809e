/**
 * Segments that arrived out of order (RFC 9293 section 3.10.7.4, "segments with higher beginning sequence
 * numbers should be held"), and the SACK blocks that report them (RFC 2018).
 *
 *   head[flow] ─▶ entry ─▶ entry ─▶ ... ◀─ tail[flow]   by sequence number, without overlap
 *
 * The entries of all flows come from one pool.
 *
 * They are not acknowledged cumulatively, so any may be dropped (RFC 2018 section 8, reneging). Payload stays
 * in the slots in which it was received. How many slots may be held here is bounded, as the reader needs the
 * same slots to receive.
 */
import { seqDiff, seqGt, seqLeq } from '../../../proto/seq.ts';
import { NO_SLOT } from '../../../ring/pool.ts';
import type { SlotCounts } from '../../placement.ts';
import type { ShardContext } from '../context.ts';

/** Segments that one shard, and one flow, may keep. */
const ENTRIES = 4096;
const ENTRIES_PER_FLOW = 1024;
/** As many SACK blocks as fit beside the timestamps option (RFC 2018 section 3). */
const SACK_BLOCKS = 3;
/** No entry. Zero, so that tables by flow that were never used are all zeros: their memory is not touched. */
export const NO_ENTRY = 0;

/** Slots that out-of-order segments may hold in one shard. @param slots  readerSlotsOfShard() */
export const outOfOrderLimit = ({ small, large }: SlotCounts): SlotCounts => ({
  small: Math.floor(small / 6),
  large: Math.floor(large / 4),
});

export class OutOfOrderQueues {
  readonly #ctx: ShardContext;
  // By flow.
  readonly head: Int32Array;
  readonly #tail: Int32Array;
  readonly #count: Uint16Array;
  // By entry, from 1 on: payload [seq, seq + len), at offset `at` of slotA and continued in slotB, and
  // whether a FIN follows.
  readonly seq = new Uint32Array(ENTRIES + 1);
  readonly len = new Uint32Array(ENTRIES + 1);
  readonly slotA = new Uint32Array(ENTRIES + 1);
  readonly slotB = new Uint32Array(ENTRIES + 1);
  readonly at = new Uint32Array(ENTRIES + 1);
  readonly fin = new Uint8Array(ENTRIES + 1);
  readonly #next = new Int32Array(ENTRIES + 1);
  #free = 1;
  /** Slots held, and the most that may be held: never all that the reader has. */
  #heldSmall = 0;
  #heldLarge = 0;
  readonly #maxSmall: number;
  readonly #maxLarge: number;
  /** Edges of the blocks that sackBlocks() found. */
  readonly sackLeft = new Uint32Array(SACK_BLOCKS);
  readonly sackRight = new Uint32Array(SACK_BLOCKS);

  /** @param limit  slots that all queues may hold */
  constructor(ctx: ShardContext, limit: SlotCounts) {
    const { flows } = ctx.plan.pool;
    this.#ctx = ctx;
    this.head = new Int32Array(flows);
    this.#tail = new Int32Array(flows);
    this.#count = new Uint16Array(flows);
    for (let e = 1; e < ENTRIES; e++) this.#next[e] = e + 1; // the last is followed by NO_ENTRY
    this.#maxSmall = limit.small;
    this.#maxLarge = limit.large;
  }

  /** Initialise a new connection's queue. */
  begin(flow: number): void {
    this.head[flow] = NO_ENTRY;
    this.#tail[flow] = NO_ENTRY;
    this.#count[flow] = 0;
  }

  /**
   * Keep a segment, and take over its slots if it is kept.
   * @param at  offset of the first payload byte in slot A
   * @returns false when it was not kept (too many, or nothing new in it): the caller frees the slots
   */
  insert(
    flow: number,
    seq: number,
    len: number,
    slotA: number,
    slotB: number,
    at: number,
    fin: boolean,
  ): boolean {
    if (this.#free === NO_ENTRY || this.#count[flow]! >= ENTRIES_PER_FLOW) return false;
    if (this.#heldSmall >= this.#maxSmall || this.#heldLarge >= this.#maxLarge) return false;
    if (len === 0 && !fin) return false;
    // Find the entry after which this one is inserted; nearly always the last.
    let prev = NO_ENTRY;
    let next = this.head[flow]!;
    const tail = this.#tail[flow]!;
    if (tail !== NO_ENTRY && seqLeq(this.seq[tail]!, seq)) {
      prev = tail;
      next = NO_ENTRY;
    } else {
      while (next !== NO_ENTRY && seqLeq(this.seq[next]!, seq)) {
        prev = next;
        next = this.#next[next]!;
      }
    }
    const end = (seq + len) >>> 0;
    if (prev !== NO_ENTRY) {
      const prevEnd = (this.seq[prev]! + this.len[prev]!) >>> 0;
      // The segment's start is kept already: drop the segment, and let the guest send the rest of it again.
      if (seqGt(prevEnd, seq)) return false;
    }
    let kept = len;
    let keepFin = fin;
    if (next !== NO_ENTRY && seqGt(end, this.seq[next]!)) {
      kept = seqDiff(this.seq[next]!, seq);
      keepFin = false;
      if (kept <= 0) return false;
    }
    const e = this.#free;
    this.#free = this.#next[e]!;
    this.seq[e] = seq;
    this.len[e] = kept;
    this.slotA[e] = slotA;
    this.slotB[e] = slotB;
    this.at[e] = at;
    this.fin[e] = keepFin ? 1 : 0;
    this.#next[e] = next;
    if (prev === NO_ENTRY) this.head[flow] = e;
    else this.#next[prev] = e;
    if (next === NO_ENTRY) this.#tail[flow] = e;
    this.#count[flow]!++;
    this.#countSlots(e, 1);
    return true;
  }

  /**
   * Remove the first entry; its fields stay readable until the next insert().
   * @param e  head[flow]
   */
  release(flow: number, e: number): void {
    this.head[flow] = this.#next[e]!;
    if (this.head[flow] === NO_ENTRY) this.#tail[flow] = NO_ENTRY;
    this.#next[e] = this.#free;
    this.#free = e;
    this.#count[flow]!--;
    this.#countSlots(e, -1);
  }

  #countSlots(e: number, by: number): void {
    if (this.#ctx.pool.isSmall(this.slotA[e]!)) this.#heldSmall += by;
    else this.#heldLarge += by;
    if (this.slotB[e] !== NO_SLOT) this.#heldLarge += by;
  }

  /** Remove all entries of a flow, and give their slots back. */
  clear(flow: number): void {
    for (let e = this.head[flow]!; e !== NO_ENTRY; e = this.head[flow]!) {
      this.release(flow, e);
      this.#ctx.freeReaderSlots(this.slotA[e]!, this.slotB[e]!);
    }
  }

  /**
   * Write the SACK blocks of a flow into sackLeft and sackRight. The last block comes first: RFC 2018 section
   * 4 wants the one with the segment that caused the ACK, and that is nearly always the last.
   * @returns number of blocks
   */
  sackBlocks(flow: number): number {
    const left = this.sackLeft;
    const right = this.sackRight;
    let n = 0;
    let e = this.head[flow]!;
    while (e !== NO_ENTRY) {
      const l = this.seq[e]!;
      // A FIN counts as one, or a FIN without payload would make an empty block.
      let r = (l + this.len[e]! + this.fin[e]!) >>> 0;
      e = this.#next[e]!;
      while (e !== NO_ENTRY && this.seq[e] === r) {
        r = (r + this.len[e]! + this.fin[e]!) >>> 0;
        e = this.#next[e]!;
      }
      if (n < SACK_BLOCKS) {
        left[n] = l;
        right[n] = r;
        n++;
      } else {
        // Of more blocks, report the lowest ones, whose gaps the guest has to fill first, and the highest.
        left[n - 1] = l;
        right[n - 1] = r;
      }
    }
    if (n > 1) {
      const l = left[n - 1]!;
      const r = right[n - 1]!;
      left[n - 1] = left[0]!;
      right[n - 1] = right[0]!;
      left[0] = l;
      right[0] = r;
    }
    return n;
  }
}
