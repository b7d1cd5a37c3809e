/**
 * Coalescing of one flow's consecutive payload into one frame (decision 040): the payload of several socket
 * reads by host-io, up to four times 64 KiB, is sent as one GSO frame longer than 64 KiB (BIG TCP). There is
 * one set of headers, in front of the first piece. flush() is called at the end of every batch of messages,
 * so nothing is delayed to be coalesced.
 *
 * Invariant: slots belong to the batch from hold() until flush() gives them back.
 */
import { TcpFlag } from '../../../proto/tcp.ts';
import { NO_SLOT } from '../../../ring/pool.ts';
import type { ShardContext } from '../context.ts';
import { NONE, TcbFlag, type TcpControlBlocks } from './control-blocks.ts';
import type { SegmentOutput } from './output.ts';

/** Most socket reads whose payload is sent to the guest as one frame. */
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
   * Add payload that is sent for the first time and may share a frame with the payload that follows it. The
   * slot is given back when the frame is sent.
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

  /** Send the payload that is held, and give its slots back. */
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
      // The TAP refused the frame, for its size or for lack of memory: send piece by piece, from now on too.
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
