/**
 * Consecutive payload of one flow that leaves as one frame (decision 040): what host-io brought by several
 * reads of a socket, up to four times 64 KiB, which the guest's kernel takes as one GSO frame beyond 64 KiB
 * (BIG TCP). The headers stand once, in front of the first piece. flush() ends every batch of messages, so
 * nothing waits for company.
 *
 * Invariant: slots belong to the run from hold() until they are given back in flush().
 */
import { TcpFlag } from '../../../proto/tcp.ts';
import { NO_SLOT } from '../../../ring/pool.ts';
import type { ShardContext } from '../context.ts';
import { NONE, TcbFlag, type TcpControlBlocks } from './control-blocks.ts';
import type { SegmentOutput } from './output.ts';

/** What one read of a socket brought, so many times, goes to the guest as one frame at the most. */
const MAX_PIECES = 4;

export class GsoBatch {
  readonly #ctx: ShardContext;
  readonly #tcb: TcpControlBlocks;
  readonly #output: SegmentOutput;
  #flow = NONE;
  #count = 0;
  #seq = 0;
  #bytes = 0;
  #flags = 0;
  readonly #at = new Uint32Array(MAX_PIECES);
  readonly #len = new Uint32Array(MAX_PIECES);
  readonly #slot = new Uint32Array(MAX_PIECES);

  constructor(ctx: ShardContext, tcb: TcpControlBlocks, output: SegmentOutput) {
    this.#ctx = ctx;
    this.#tcb = tcb;
    this.#output = output;
  }

  /**
   * Fresh payload that may share a frame with what follows it. The slot is given back when the frame is sent,
   * by flush() at the latest.
   */
  hold(flow: number, seq: number, flags: number, slot: number, payloadAt: number, len: number): void {
    const tcb = this.#tcb;
    if (this.#count > 0 && (flow !== this.#flow || seq !== (this.#seq + this.#bytes) >>> 0)) {
      this.flush();
    }
    const i = this.#count++;
    if (i === 0) {
      this.#flow = flow;
      this.#seq = seq;
      this.#bytes = 0;
    }
    this.#flags = flags;
    this.#at[i] = payloadAt;
    this.#len[i] = len;
    this.#slot[i] = slot;
    this.#bytes += len;
    // Only a frame's last segment may be shorter than the MSS.
    if (i + 1 === MAX_PIECES || flags & TcpFlag.fin || len % tcb.mss[flow]! !== 0) this.flush();
  }

  /** Send what is held. Called at the end of each batch of messages too: nothing waits for company. */
  flush(): void {
    const tcb = this.#tcb;
    const count = this.#count;
    if (count === 0) return;
    this.#count = 0;
    const ctx = this.#ctx;
    const flow = this.#flow;
    const first = this.#len[0]!;
    const more = this.#bytes - first;
    for (let i = 1; i < count; i++) ctx.guest.addPiece(this.#at[i]!, this.#len[i]!);
    const ipAt = this.#at[0]! - this.#output.headBytes(flow, this.#bytes);
    const r = this.#output.emit(flow, this.#seq, this.#flags, ipAt, 0, first, more);
    if (r < 0 && count > 1) {
      // Refused, for its size or for want of memory for it: piece by piece, from now on too.
      tcb.flags[flow]! &= ~TcbFlag.big;
      let seq = this.#seq;
      for (let i = 0; i < count; i++) {
        const len = this.#len[i]!;
        const flags = i + 1 === count ? this.#flags : this.#flags & ~TcpFlag.fin;
        this.#output.emit(flow, seq, flags, this.#at[i]! - this.#output.headBytes(flow, len), 0, len, 0);
        seq = (seq + len) >>> 0;
      }
    }
    for (let i = 0; i < count; i++) ctx.freeHostSlots(this.#slot[i]!, NO_SLOT);
  }
}
