/**
 * Frames that wait for stream sockets, in the reader's slots that they came in: a list for each socket, in
 * order.
 *
 *   head[gid] ─▶ slot ─▶ slot ─▶ ... ◀─ tail[gid]        a frame is known by its first slot
 *                [at, at + len) of it and, behind it, of slot B
 *
 * Invariant: queued slots are the queue's; pop() and drop() give them back to the reader.
 */
import { NO_SLOT } from '../../../ring/pool.ts';
import { IOVEC_WORDS, iovecWrite } from '../../../sys/socket.ts';
import type { HostContext } from '../context.ts';

const NONE = -1;
/** Frames are gathered for one call until there are so many pieces; the last one may have two. */
const IOV_LIMIT = 64;
/** Most pieces that gather() gives. */
export const GATHERED_IOVS = IOV_LIMIT + 1;

export class SendQueues {
  /** Bytes of the pieces that gather() gave last. */
  gatheredBytes = 0;
  readonly #ctx: HostContext;
  // By gid.
  readonly #head: Int32Array;
  readonly #tail: Int32Array;
  // By first slot.
  readonly #next: Int32Array;
  readonly #slotB: Uint32Array;
  readonly #at: Uint32Array;
  readonly #len: Uint32Array;
  /** By gid: slots that went back to the reader since takeFreed(), small | large << 16. */
  readonly #freed: Uint32Array;

  constructor(ctx: HostContext, gids: number) {
    this.#ctx = ctx;
    this.#head = new Int32Array(gids).fill(NONE);
    this.#tail = new Int32Array(gids).fill(NONE);
    this.#freed = new Uint32Array(gids);
    const slots = ctx.pool.smallSlots + ctx.pool.largeSlots;
    this.#next = new Int32Array(slots);
    this.#slotB = new Uint32Array(slots);
    this.#at = new Uint32Array(slots);
    this.#len = new Uint32Array(slots);
  }

  /** A new socket. */
  begin(gid: number): void {
    this.#head[gid] = NONE;
    this.#tail[gid] = NONE;
    this.#freed[gid] = 0;
  }

  /**
   * Slots of the socket's frames back to the reader; counted for the shard, which bounds what its flows hold.
   */
  free(gid: number, slotA: number, slotB: number): void {
    this.#freed[gid]! += this.#ctx.pool.slotCost(slotA) + this.#ctx.pool.slotCost(slotB);
    this.#ctx.freeReaderSlots(slotA, slotB);
  }

  hasFreed(gid: number): boolean {
    return this.#freed[gid] !== 0;
  }

  /** What was freed since the last call: small | large << 16. */
  takeFreed(gid: number): number {
    const freed = this.#freed[gid]!;
    this.#freed[gid] = 0;
    return freed;
  }

  isEmpty(gid: number): boolean {
    return this.#head[gid] === NONE;
  }

  /** Queue a frame; takes over its slots. @param at  where it begins in slot A */
  push(gid: number, slotA: number, slotB: number, at: number, len: number): void {
    const tail = this.#tail[gid]!;
    this.#next[slotA] = NONE;
    this.#slotB[slotA] = slotB;
    this.#at[slotA] = at;
    this.#len[slotA] = len;
    if (tail === NONE) this.#head[gid] = slotA;
    else this.#next[tail] = slotA;
    this.#tail[gid] = slotA;
  }

  /**
   * What waits behind a blocked socket shares slots: frames that fill less than half of theirs are copied to
   * the end of the last one queued, so that memory held stays within a small multiple of the bytes held.
   * @returns whether it was: the slots are still the caller's either way
   */
  append(gid: number, slotA: number, slotB: number, at: number, len: number): boolean {
    const tail = this.#tail[gid]!;
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
   * The front of a queue as iovecs, GATHERED_IOVS at the most; gatheredBytes says how much that is.
   * @returns how many iovecs
   */
  gather(gid: number, iov: Uint32Array): number {
    const pool = this.#ctx.pool;
    let iovs = 0;
    let bytes = 0;
    for (let s = this.#head[gid]!; s !== NONE && iovs < IOV_LIMIT; s = this.#next[s]!) {
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

  /** Address of the first queued byte; the queue is not empty. */
  firstAddress(gid: number): number {
    const s = this.#head[gid]!;
    return this.#ctx.pool.slotAddress(s) + this.#at[s]!;
  }

  /** The first `bytes` of the queue are in the socket. */
  pop(gid: number, bytes: number): void {
    const { pool } = this.#ctx;
    while (bytes > 0) {
      const s = this.#head[gid]!;
      const len = this.#len[s]!;
      if (bytes < len) {
        const inA = pool.slotBytes(s) - this.#at[s]!;
        if (bytes >= inA) {
          // The first piece is done with: the second takes its place in the queue.
          const b = this.#slotB[s]!;
          this.#next[b] = this.#next[s]!;
          this.#slotB[b] = NO_SLOT;
          this.#at[b] = bytes - inA;
          this.#len[b] = len - bytes;
          this.#head[gid] = b;
          if (this.#tail[gid] === s) this.#tail[gid] = b;
          this.free(gid, s, NO_SLOT);
        } else {
          this.#at[s]! += bytes;
          this.#len[s]! -= bytes;
        }
        return;
      }
      bytes -= len;
      this.#head[gid] = this.#next[s]!;
      if (this.#head[gid] === NONE) this.#tail[gid] = NONE;
      this.free(gid, s, this.#slotB[s]!);
    }
  }

  /** Bytes that wait. */
  bytes(gid: number): number {
    let bytes = 0;
    for (let s = this.#head[gid]!; s !== NONE; s = this.#next[s]!) bytes += this.#len[s]!;
    return bytes;
  }

  /**
   * Forget what lies behind the first `bytes`, which are whole frames or nothing.
   * @returns bytes that were forgotten
   */
  dropBehind(gid: number, bytes: number): number {
    if (bytes <= 0) return this.drop(gid);
    let last = this.#head[gid]!;
    for (let kept = this.#len[last]!; kept < bytes; kept += this.#len[last]!) last = this.#next[last]!;
    const first = this.#next[last]!;
    this.#next[last] = NONE;
    this.#tail[gid] = last;
    return this.#dropList(gid, first);
  }

  /** Forget all of it. @returns bytes that it held */
  drop(gid: number): number {
    const first = this.#head[gid]!;
    this.#head[gid] = NONE;
    this.#tail[gid] = NONE;
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
