/**
 * Frames that wait to be sent by stream sockets, in the reader's slots that they came in: an ordered list per
 * socket.
 *
 *   head[gid] ─▶ slot ─▶ slot ─▶ ... ◀─ tail[gid]        a frame is named by its first slot, A
 *                bytes: `len`, from `at` on in slot A and then from the start of slot B
 *
 * Invariant: queued slots belong to the queue; pop() and drop() return them to the reader.
 */
import { NO_SLOT } from '../../../ring/pool.ts';
import { IOVEC_WORDS, iovecWrite } from '../../../sys/socket.ts';
import type { HostContext } from '../context.ts';

const NONE = -1;
/** Frames are gathered for one call until it has this many pieces; the last frame may add two. */
const IOV_LIMIT = 64;
/** Most iovecs that gather() writes. */
export const GATHERED_IOVS = IOV_LIMIT + 1;

export class SendQueues {
  /** Bytes of the iovecs of the last gather(). */
  gatheredBytes = 0;
  readonly #ctx: HostContext;
  // By gid: 1 + slot; 0: none. So tables that were never used are all zeros: their memory is not touched.
  readonly #head: Int32Array;
  readonly #tail: Int32Array;
  // By first slot.
  readonly #next: Int32Array;
  readonly #slotB: Uint32Array;
  readonly #at: Uint32Array;
  readonly #len: Uint32Array;
  /** By gid: slots that were returned to the reader since takeFreed(), small | large << 16. */
  readonly #freed: Uint32Array;

  /** @param gids  flows of all shards */
  constructor(ctx: HostContext, gids: number) {
    this.#ctx = ctx;
    this.#head = new Int32Array(gids);
    this.#tail = new Int32Array(gids);
    this.#freed = new Uint32Array(gids);
    const slots = ctx.pool.smallSlots + ctx.pool.largeSlots;
    this.#next = new Int32Array(slots);
    this.#slotB = new Uint32Array(slots);
    this.#at = new Uint32Array(slots);
    this.#len = new Uint32Array(slots);
  }

  /** A new socket: its queue is empty. */
  begin(gid: number): void {
    this.#head[gid] = 0;
    this.#tail[gid] = 0;
    this.#freed[gid] = 0;
  }

  /**
   * Return slots of a frame to the reader. They are counted for the shard, which limits the slots of a flow.
   */
  free(gid: number, slotA: number, slotB: number): void {
    this.#freed[gid]! += this.#ctx.pool.slotCost(slotA) + this.#ctx.pool.slotCost(slotB);
    this.#ctx.freeReaderSlots(slotA, slotB);
  }

  hasFreed(gid: number): boolean {
    return this.#freed[gid] !== 0;
  }

  /** @returns slots that were returned since the last call: small | large << 16 */
  takeFreed(gid: number): number {
    const freed = this.#freed[gid]!;
    this.#freed[gid] = 0;
    return freed;
  }

  isEmpty(gid: number): boolean {
    return this.#head[gid] === 0;
  }

  /** Queue a frame; takes over its slots. @param at  where the bytes begin in slot A */
  push(gid: number, slotA: number, slotB: number, at: number, len: number): void {
    const tail = this.#tail[gid]! - 1;
    this.#next[slotA] = NONE;
    this.#slotB[slotA] = slotB;
    this.#at[slotA] = at;
    this.#len[slotA] = len;
    if (tail === NONE) this.#head[gid] = slotA + 1;
    else this.#next[tail] = slotA;
    this.#tail[gid] = slotA + 1;
  }

  /**
   * Copy a frame to the end of the last queued one, if it fits into that one's last slot. Behind a blocked
   * socket small frames share slots so: the memory of a queue stays within a small multiple of its bytes.
   * @returns whether the frame was copied; its slots stay the caller's in both cases
   */
  append(gid: number, slotA: number, slotB: number, at: number, len: number): boolean {
    const tail = this.#tail[gid]! - 1;
    if (tail === NONE) return false;
    const pool = this.#ctx.pool;
    const tailInA = pool.slotBytes(tail) - this.#at[tail]!;
    const tailLen = this.#len[tail]!;
    const last = this.#slotB[tail] === NO_SLOT ? tail : this.#slotB[tail]!;
    const end = last === tail ? this.#at[tail]! + tailLen : tailLen - tailInA;
    if (end + len > pool.slotBytes(last)) return false;
    const to = pool.slotAt(last) + end;
    const from = pool.slotAt(slotA) + at;
    const inA = Math.min(len, pool.slotBytes(slotA) - at);
    this.#ctx.u8.copyWithin(to, from, from + inA);
    if (len > inA) {
      const more = pool.slotAt(slotB);
      this.#ctx.u8.copyWithin(to + inA, more, more + len - inA);
    }
    this.#len[tail] = tailLen + len;
    return true;
  }

  /**
   * Write the front of a queue as iovecs, at most GATHERED_IOVS, and their size to gatheredBytes.
   * @returns how many iovecs
   */
  gather(gid: number, iov: Uint32Array): number {
    const pool = this.#ctx.pool;
    let iovs = 0;
    let bytes = 0;
    for (let s = this.#head[gid]! - 1; s !== NONE && iovs < IOV_LIMIT; s = this.#next[s]!) {
      const at = this.#at[s]!;
      const len = this.#len[s]!;
      const inA = Math.min(len, pool.slotBytes(s) - at);
      iovecWrite(iov, iovs * IOVEC_WORDS, pool.slotAddress(s) + at, inA);
      iovs++;
      if (len > inA) {
        iovecWrite(iov, iovs * IOVEC_WORDS, pool.slotAddress(this.#slotB[s]!), len - inA);
        iovs++;
      }
      bytes += len;
    }
    this.gatheredBytes = bytes;
    return iovs;
  }

  /** @returns address of the first queued byte; the queue must not be empty */
  firstAddress(gid: number): number {
    const s = this.#head[gid]! - 1;
    return this.#ctx.pool.slotAddress(s) + this.#at[s]!;
  }

  /** Remove the first `bytes` of the queue: the socket has taken them. */
  pop(gid: number, bytes: number): void {
    const { pool } = this.#ctx;
    while (bytes > 0) {
      const s = this.#head[gid]! - 1;
      const len = this.#len[s]!;
      if (bytes < len) {
        const inA = pool.slotBytes(s) - this.#at[s]!;
        if (bytes >= inA) {
          // All bytes of slot A are sent: slot B takes its place in the queue.
          const b = this.#slotB[s]!;
          this.#next[b] = this.#next[s]!;
          this.#slotB[b] = NO_SLOT;
          this.#at[b] = bytes - inA;
          this.#len[b] = len - bytes;
          this.#head[gid] = b + 1;
          if (this.#tail[gid] === s + 1) this.#tail[gid] = b + 1;
          this.free(gid, s, NO_SLOT);
        } else {
          this.#at[s]! += bytes;
          this.#len[s]! -= bytes;
        }
        return;
      }
      bytes -= len;
      this.#head[gid] = this.#next[s]! + 1;
      if (this.#head[gid] === 0) this.#tail[gid] = 0;
      this.free(gid, s, this.#slotB[s]!);
    }
  }

  /** @returns queued bytes */
  bytes(gid: number): number {
    let bytes = 0;
    for (let s = this.#head[gid]! - 1; s !== NONE; s = this.#next[s]!) bytes += this.#len[s]!;
    return bytes;
  }

  /**
   * Drop the frames behind the first `bytes`, which end with a frame.
   * @returns bytes that were dropped
   */
  dropBehind(gid: number, bytes: number): number {
    if (bytes <= 0) return this.drop(gid);
    let last = this.#head[gid]! - 1;
    for (let kept = this.#len[last]!; kept < bytes; kept += this.#len[last]!) last = this.#next[last]!;
    const first = this.#next[last]!;
    this.#next[last] = NONE;
    this.#tail[gid] = last + 1;
    return this.#dropList(gid, first);
  }

  /** Drop the whole queue. @returns bytes that were dropped */
  drop(gid: number): number {
    const first = this.#head[gid]! - 1;
    this.#head[gid] = 0;
    this.#tail[gid] = 0;
    return this.#dropList(gid, first);
  }

  #dropList(gid: number, first: number): number {
    let bytes = 0;
    for (let s = first; s !== NONE; ) {
      const next = this.#next[s]!;
      bytes += this.#len[s]!;
      this.free(gid, s, this.#slotB[s]!);
      s = next;
    }
    return bytes;
  }
}
