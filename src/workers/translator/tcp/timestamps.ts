/**
 * The timestamps option of a connection (RFC 7323): our clock, the guest's value to echo, protection against
 * wrapped sequence numbers (PAWS). Used if both SYNs had the option (TcbFlag.tsOk).
 */

import { readU32 } from '../../../proto/be.ts';
import { seqLeq } from '../../../proto/seq.ts';
import {
  newTcpOptions,
  TCP_MIN_BYTES,
  TCP_TIMESTAMPS_BYTES,
  TcpFlag,
  tcpOptions,
} from '../../../proto/tcp.ts';
import type { ShardContext } from '../context.ts';
import type { Packet } from '../packet.ts';
import type { TcpControlBlocks } from './control-blocks.ts';

export class Timestamps {
  readonly #ctx: ShardContext;
  readonly #tcb: TcpControlBlocks;
  readonly #options = newTcpOptions();
  /** TSecr of the segment that take() read last, one of our timestamps; 0: none. */
  tsEcr = 0;

  constructor(ctx: ShardContext, tcb: TcpControlBlocks) {
    this.#ctx = ctx;
    this.#tcb = tcb;
  }

  /** A flow's timestamp clock: milliseconds from a random start, as u32. */
  now(flow: number): number {
    return (Math.floor(this.#ctx.now) + this.#ctx.plan.isnKey[3] + this.#tcb.tsOffset[flow]!) >>> 0;
  }

  /** Set a flow's clock. A clock that is set back would make the guest drop our segments (PAWS). */
  setClock(flow: number, now: number): void {
    this.#tcb.tsOffset[flow] = 0;
    this.#tcb.tsOffset[flow] = (now - this.now(flow)) >>> 0;
  }

  /**
   * Read a segment's option: PAWS check and the timestamp to echo (RFC 7323 sections 4.3 and 5.3).
   * @returns false for a segment older than one received before: the caller acknowledges and drops it
   */
  take(flow: number, p: Packet, headerBytes: number, seq: number, flags: number): boolean {
    const tcb = this.#tcb;
    if (headerBytes < TCP_MIN_BYTES + TCP_TIMESTAMPS_BYTES) return true;
    const u8 = this.#ctx.u8;
    const at = p.transportAt + TCP_MIN_BYTES;
    let tsVal: number;
    // NOP, NOP, timestamps of 10 bytes: the usual form (RFC 7323 appendix A) is read without a walk through
    // the options.
    if (readU32(u8, at) === 0x0101080a) {
      tsVal = readU32(u8, at + 4);
      this.tsEcr = readU32(u8, at + 8);
    } else {
      tcpOptions(u8, p.transportAt, headerBytes, this.#options);
      if (!this.#options.hasTs) return true;
      tsVal = this.#options.tsVal;
      this.tsEcr = this.#options.tsEcr;
    }
    const newer = (tsVal - tcb.tsRecent[flow]!) | 0;
    if (newer < 0) return (flags & TcpFlag.rst) !== 0;
    if (seqLeq(seq, tcb.lastAckSent[flow]!)) tcb.tsRecent[flow] = tsVal;
    return true;
  }
}
