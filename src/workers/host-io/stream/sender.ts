/**
 * Bytes from the guest to the host. Frames wait per socket, in order, in the slots they came in
 * (send-queues.ts); one sendmsg takes up to 64 pieces. What the socket refuses stays in the queue, and
 * EPOLLOUT resumes the sending. `sent` reports to the shard after each attempt.
 *
 * A failed send ends the sending only: the receiver reports the error after the bytes in front of it.
 */
import { Counter } from '../../../ring/counters.ts';
import { Errno, MSG_DONTWAIT, MSG_NOSIGNAL, SHUT_WR } from '../../../sys/constants.ts';
import { NativeBuffer } from '../../../sys/memory.ts';
import { IOVEC_BYTES, MSGHDR_BYTES, msghdrWrite, send, sendmsg, shutdown } from '../../../sys/socket.ts';
import { SentFlag, sentWrite } from '../../link/to-shard.ts';
import type { DescriptorTable } from '../../thread/descriptor-table.ts';
import type { HostContext } from '../context.ts';
import type { StreamReceiver } from './receiver.ts';
import { GATHERED_IOVS, SendQueues } from './send-queues.ts';
import { type StreamEnding, StreamFlag, type StreamTable } from './socket-table.ts';

/** Frames up to this size are copied together behind a blocked socket. */
const COMPACT_BYTES = 32 * 1024;
/** A closed socket whose peer takes no more bytes is reset after this time, as Linux does with orphans. */
const LINGER_MS = 120_000;
const LINGER_CHECK_MS = 1000;

export class StreamSender {
  readonly #ctx: HostContext;
  readonly #ending: StreamEnding;
  readonly #receiver: StreamReceiver;
  readonly #queues: SendQueues;
  // StreamTable's, by gid.
  readonly #fd: DescriptorTable;
  readonly #flags: Uint16Array;
  readonly #sendErrno: Uint8Array;
  // By gid.
  /** Provisional bytes at the end of the queue. */
  readonly #provisional: Uint32Array;
  /** How often provisional bytes were refused, modulo 256; the shard counts as well. */
  readonly #refusals: Uint8Array;
  /** When a closed socket that still has bytes to send is reset. */
  readonly #giveUpAtMs: Float64Array;

  readonly #dirty: Int32Array;
  #dirtyCount = 0;
  /** Closed sockets that still have bytes to send. */
  readonly #lingering = new Set<number>();
  #nextLingerCheck = Number.POSITIVE_INFINITY;
  readonly #iov = new NativeBuffer(GATHERED_IOVS * IOVEC_BYTES);
  readonly #msg = new NativeBuffer(MSGHDR_BYTES);

  /** @param gids  flows of all shards */
  constructor(
    ctx: HostContext,
    table: StreamTable,
    receiver: StreamReceiver,
    ending: StreamEnding,
    gids: number,
  ) {
    this.#ctx = ctx;
    this.#ending = ending;
    this.#receiver = receiver;
    this.#queues = new SendQueues(ctx, gids);
    this.#fd = table.fd;
    this.#flags = table.flags;
    this.#sendErrno = table.sendErrno;
    this.#provisional = new Uint32Array(gids);
    this.#refusals = new Uint8Array(gids);
    this.#giveUpAtMs = new Float64Array(gids);
    // Twice: a gid may be closed and opened again within one round.
    this.#dirty = new Int32Array(gids * 2);
  }

  /** A new socket: nothing queued. */
  begin(gid: number): void {
    this.#queues.begin(gid);
    this.#provisional[gid] = 0;
    this.#refusals[gid] = 0;
  }

  /** Whether nothing is queued, and the shard knows of all that was. */
  isIdle(gid: number): boolean {
    return this.#queues.isEmpty(gid) && !this.#queues.hasFreed(gid) && this.#provisional[gid] === 0;
  }

  /** How often provisional bytes were refused, modulo 256. */
  refusals(gid: number): number {
    return this.#refusals[gid]!;
  }

  /** A socket of another lane, which isIdle() there. */
  restore(gid: number, refusals: number): void {
    this.begin(gid);
    this.#refusals[gid] = refusals;
  }

  /** The socket is about to be closed: drop what is queued. */
  end(gid: number): void {
    this.#queues.drop(gid);
    this.#lingering.delete(gid);
  }

  /**
   * End of the round: every socket on the dirty list tries to send.
   * @param now  monotonic milliseconds
   * @returns sockets that were on the list
   */
  flush(now: number): number {
    const n = this.#dirtyCount;
    for (let i = 0; i < this.#dirtyCount; i++) {
      const gid = this.#dirty[i]!;
      this.#flags[gid]! &= ~StreamFlag.dirty;
      if (this.#flags[gid]! & StreamFlag.open) this.#send(gid, now);
    }
    this.#dirtyCount = 0;
    if (now >= this.#nextLingerCheck) this.#checkLingering(now);
    return n;
  }

  /** @returns when flush() has to be called even if no event comes, monotonic milliseconds; 0: at once */
  get nextFlushMs(): number {
    return this.#dirtyCount > 0 ? 0 : this.#nextLingerCheck;
  }

  /** Have flush() look at the socket. */
  markDirty(gid: number): void {
    if (this.#flags[gid]! & StreamFlag.dirty) return;
    this.#flags[gid]! |= StreamFlag.dirty;
    this.#dirty[this.#dirtyCount++] = gid;
  }

  /**
   * Send what is queued without waiting for flush(), as far as the socket takes it.
   * @param now  monotonic milliseconds
   */
  sendNow(gid: number, now: number): void {
    if (!this.#queues.isEmpty(gid)) this.#send(gid, now);
  }

  /**
   * ToHost.send: queue a frame for flush(). Takes over its slots.
   * @param at  where the bytes begin in slot A; they go on at the start of slot B
   * @param mark  sendMark(): 0, or 1 + the refusals that the shard knew of when it sent provisional bytes
   */
  enqueue(gid: number, slotA: number, slotB: number, at: number, len: number, mark: number): void {
    const queues = this.#queues;
    if (!(this.#flags[gid]! & StreamFlag.open) || this.#flags[gid]! & StreamFlag.sendFailed) {
      queues.free(gid, slotA, slotB);
      this.#reportSent(gid, len, SentFlag.empty);
      return;
    }
    if (mark !== 0) {
      // The shard sent this frame before it knew that bytes in front of the frame were refused.
      if (mark - 1 !== this.#refusals[gid]) queues.free(gid, slotA, slotB);
      else {
        queues.push(gid, slotA, slotB, at, len);
        this.#provisional[gid]! += len;
      }
      return this.markDirty(gid);
    }
    const isCompacted =
      this.#flags[gid]! & StreamFlag.blocked &&
      len <= COMPACT_BYTES &&
      queues.append(gid, slotA, slotB, at, len);
    if (isCompacted) queues.free(gid, slotA, slotB);
    else queues.push(gid, slotA, slotB, at, len);
    // Also for a blocked socket: `sent`, which flush() writes, is what the shard acknowledges by.
    this.markDirty(gid);
  }

  /** Drop the provisional bytes that are left after a send. @returns whether there were any */
  #refuse(gid: number): boolean {
    const queues = this.#queues;
    const waiting = queues.bytes(gid);
    const provisional = Math.min(this.#provisional[gid]!, waiting);
    this.#provisional[gid] = 0;
    if (provisional === 0) return false;
    queues.dropBehind(gid, waiting - provisional);
    this.#refusals[gid]!++;
    this.#flags[gid]! |= StreamFlag.refused;
    return true;
  }

  /** ToShard.sent. @param bytes  that left the queue since the last one @param flags  SentFlag bits */
  #reportSent(gid: number, bytes: number, flags: number): void {
    sentWrite(
      this.#ctx.toShard(gid),
      gid % this.#ctx.flowsPerShard,
      bytes,
      flags,
      this.#queues.takeFreed(gid),
    );
  }

  /** Send from the queue until it is empty or the socket takes no more, and report to the shard. */
  #send(gid: number, now: number): void {
    const ctx = this.#ctx;
    const counters = ctx.counters;
    let total = 0;
    const queues = this.#queues;
    const hadBytes = !queues.isEmpty(gid);
    while (!queues.isEmpty(gid) && !(this.#flags[gid]! & (StreamFlag.blocked | StreamFlag.connecting))) {
      const iovs = queues.gather(gid, this.#iov.u32);
      const offered = queues.gatheredBytes;
      const fd = this.#fd.get(gid);
      let r: number;
      if (iovs === 1) {
        r = send(fd, queues.firstAddress(gid), offered, MSG_NOSIGNAL | MSG_DONTWAIT);
      } else {
        msghdrWrite(this.#msg.u32, 0, 0, 0, this.#iov.address, iovs);
        r = sendmsg(fd, this.#msg.address, MSG_NOSIGNAL | MSG_DONTWAIT);
      }
      counters[Counter.sockSends]!++;
      if (r < 0) {
        if (r === -Errno.EINTR) continue;
        if (r === -Errno.EAGAIN) {
          this.#flags[gid]! |= StreamFlag.blocked;
          counters[Counter.sockSendPartial]!++;
          break;
        }
        this.#sendFailed(gid, -r, total);
        return;
      }
      counters[Counter.sockSendBytes]! += r;
      total += r;
      queues.pop(gid, r);
      if (r < offered) {
        // The kernel has set SOCK_NOSPACE: the next EPOLLOUT edge will come.
        this.#flags[gid]! |= StreamFlag.blocked;
        counters[Counter.sockSendPartial]!++;
      }
    }
    if (total > 0) this.#giveUpAtMs[gid] = now + LINGER_MS;
    const refused = this.#provisional[gid] !== 0 && this.#refuse(gid) ? SentFlag.refused : 0;
    const empty = queues.isEmpty(gid);
    if (
      hadBytes ||
      queues.hasFreed(gid) ||
      (this.#flags[gid]! & (StreamFlag.refused | StreamFlag.blocked)) === StreamFlag.refused
    ) {
      if (!(this.#flags[gid]! & StreamFlag.blocked)) this.#flags[gid]! &= ~StreamFlag.refused;
      const takesMore = empty && !(this.#flags[gid]! & StreamFlag.refused);
      this.#reportSent(gid, total, refused | (takesMore ? SentFlag.empty : 0));
    }
    if (!empty) {
      if (this.#flags[gid]! & StreamFlag.close && !this.#lingering.has(gid)) {
        this.#lingering.add(gid);
        this.#giveUpAtMs[gid] = now + LINGER_MS;
        this.#nextLingerCheck = Math.min(this.#nextLingerCheck, now + LINGER_CHECK_MS);
      }
      return;
    }
    if (this.#flags[gid]! & StreamFlag.close) return this.#ending.closeNow(gid, false);
    if (this.#flags[gid]! & StreamFlag.finish && !(this.#flags[gid]! & StreamFlag.finished)) {
      this.#flags[gid]! |= StreamFlag.finished;
      shutdown(this.#fd.get(gid), SHUT_WR);
    }
  }

  /**
   * A send has failed: nothing more is sent, reading goes on.
   * @param taken  bytes that the socket took in this round before it failed, not yet reported to the shard
   */
  #sendFailed(gid: number, errno: number, taken: number): void {
    this.#flags[gid]! |= StreamFlag.sendFailed | StreamFlag.readable | StreamFlag.peerDone;
    this.#sendErrno[gid] = errno;
    const dropped = this.#queues.drop(gid);
    this.#provisional[gid] = 0;
    this.#reportSent(gid, taken + dropped, SentFlag.empty);
    if (this.#flags[gid]! & StreamFlag.close) return this.#ending.closeNow(gid, true);
    // Bytes that the peer sent before its RST are read first; the error follows them.
    this.#receiver.read(gid);
  }

  /** Reset closed sockets whose peer took nothing for LINGER_MS. */
  #checkLingering(now: number): void {
    for (const gid of [...this.#lingering])
      if (now >= this.#giveUpAtMs[gid]!) this.#ending.closeNow(gid, true);
    this.#nextLingerCheck = this.#lingering.size > 0 ? now + LINGER_CHECK_MS : Number.POSITIVE_INFINITY;
  }
}
