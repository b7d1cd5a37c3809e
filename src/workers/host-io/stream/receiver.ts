/**
 * Bytes from the host to the guest: recv(MSG_PEEK) with SO_PEEK_OFF straight behind the headroom of a large
 * slot, as far as `credit` reaches. Bytes leave the socket's receive queue only when the guest has
 * acknowledged them (recv(MSG_TRUNC)); small acknowledged amounts stay in the queue until a few have come
 * together.
 *
 * Cursors are stream offsets modulo 2^32, compared by signed difference:
 *
 *   consumed <= acked <= peeked <= credit
 *
 *   consumed  removed from the socket's queue          peeked  read and passed to the shard
 *   acked     acknowledged by the guest                credit  the shard allows reads up to here
 *
 * The kernel's peek offset is always peeked - consumed: a read without MSG_PEEK moves it back by itself
 * (tcp_recvmsg: sk_peek_offset_bwd). Kernels before 6.10 have no SO_PEEK_OFF for TCP: there each read first
 * copies the bytes in flight into a discard buffer.
 *
 * Errors: bytes that the peer sent before its RST are still read and passed on; the error is reported when
 * reading reaches it.
 */
import { Counter } from '../../../ring/counters.ts';
import { HEADROOM_BYTES, NO_SLOT } from '../../../ring/pool.ts';
import {
  Errno,
  MSG_DONTWAIT,
  MSG_PEEK,
  MSG_TRUNC,
  SIOCINQ,
  SO_OOBINLINE,
  SO_PEEK_OFF,
  SO_RCVLOWAT,
  SOL_SOCKET,
} from '../../../sys/constants.ts';
import { ioctlReadInt } from '../../../sys/io.ts';
import { NativeBuffer } from '../../../sys/memory.ts';
import {
  IOVEC_BYTES,
  IOVEC_WORDS,
  iovecWrite,
  MSGHDR_BYTES,
  msghdrWrite,
  recv,
  recvmsg,
  setsockoptInt,
} from '../../../sys/socket.ts';
import { DataKind, dataWrite, eofWrite, urgentWrite } from '../../link/to-shard.ts';
import type { DescriptorTable } from '../../thread/descriptor-table.ts';
import { Notice } from '../../thread/notices.ts';
import type { HostContext } from '../context.ts';
import { type StreamEnding, StreamFlag, type StreamTable } from './socket-table.ts';

/**
 * Reads of one socket per round: few enough that the frames are still in the cache when the shard writes them
 * (perf/notes.md).
 */
const READS_PER_ROUND = 4;
/** Bytes of one read until the shard's first credit: the default MSS for IPv4 (RFC 9293 section 3.7.1). */
const FIRST_READ_LIMIT = 536;
/**
 * After GROW_AFTER_BYTES[i] consumed bytes the receive buffer is enlarged for a window of GROW_TO_BYTES[i],
 * if the guest keeps up.
 */
const GROW_AFTER_BYTES = [32 * 1024, 512 * 1024] as const;
const GROW_TO_BYTES = [1024 * 1024, 8 * 1024 * 1024] as const;
/**
 * Acknowledged bytes stay in the socket's queue until they are LAZY_BYTES or came by LAZY_ACKS credits. So a
 * small exchange needs no system call to drop its bytes (perf/notes.md), and the bytes that stay are far
 * fewer than any receive window. The small rest of a bulk transfer (StreamFlag.bulk) is dropped at once: it
 * pins the large kernel buffer that it came in, and without a further recv() the kernel would not open the
 * window.
 */
const LAZY_BYTES = 8 * 1024;
const LAZY_ACKS = 8;
/** Bytes in flight that a kernel without SO_PEEK_OFF can skip: DISCARD_IOVS times one shared buffer. */
const DISCARD_BYTES = 65536;
const DISCARD_IOVS = 256;

export class StreamReceiver {
  readonly #ctx: HostContext;
  readonly #ending: StreamEnding;
  // StreamTable's, by gid.
  readonly #fd: DescriptorTable;
  readonly #flags: Uint16Array;
  readonly #sendErrno: Uint8Array;
  // By gid: the cursors.
  readonly #consumed: Uint32Array;
  readonly #acked: Uint32Array;
  readonly #peeked: Uint32Array;
  readonly #credit: Uint32Array;
  /** Most bytes of one read. */
  readonly #readLimit: Uint32Array;
  /** Acknowledgements since bytes were last dropped. */
  readonly #lazyAcks: Uint8Array;
  /** Steps of GROW_TO_BYTES done. */
  readonly #grown: Uint8Array;
  readonly #waitingForSlots: number[] = [];
  /** The kernel has SO_PEEK_OFF for TCP; found out with the first socket. */
  #hasPeekOffset = true;
  /** For kernels without SO_PEEK_OFF. */
  #discard: NativeBuffer | null = null;
  readonly #iov = new NativeBuffer((DISCARD_IOVS + 1) * IOVEC_BYTES);
  readonly #msg = new NativeBuffer(MSGHDR_BYTES);

  /** @param gids  flows of all shards */
  constructor(ctx: HostContext, table: StreamTable, ending: StreamEnding, gids: number) {
    this.#ctx = ctx;
    this.#ending = ending;
    this.#fd = table.fd;
    this.#flags = table.flags;
    this.#sendErrno = table.sendErrno;
    this.#consumed = new Uint32Array(gids);
    this.#acked = new Uint32Array(gids);
    this.#peeked = new Uint32Array(gids);
    this.#credit = new Uint32Array(gids);
    this.#readLimit = new Uint32Array(gids);
    this.#lazyAcks = new Uint8Array(gids);
    this.#grown = new Uint8Array(gids);
  }

  /** A new socket: no bytes yet. */
  begin(gid: number): void {
    this.#consumed[gid] = 0;
    this.#acked[gid] = 0;
    this.#peeked[gid] = 0;
    this.#credit[gid] = 0;
    this.#readLimit[gid] = FIRST_READ_LIMIT;
    this.#lazyAcks[gid] = 0;
    this.#grown[gid] = 0;
  }

  /**
   * The peer has sent urgent data, and the urgent byte is in the socket's queue: report its place to the
   * shard. While urgent bytes are not kept inline, the kernel counts as readable what is in front of one
   * (tcp_inq). The kernel remembers one urgent byte, the last.
   */
  onUrgent(gid: number): void {
    const fd = this.#fd.get(gid);
    setsockoptInt(fd, SOL_SOCKET, SO_OOBINLINE, 0);
    const before = ioctlReadInt(fd, SIOCINQ);
    setsockoptInt(fd, SOL_SOCKET, SO_OOBINLINE, 1);
    this.#flags[gid]! |= StreamFlag.urgent;
    const offset = (this.#consumed[gid]! + before) >>> 0;
    if (!this.#hasPeekOffset) this.consumeAcked(gid); // as in onCredit()
    // The byte was passed on already: each event until it is acknowledged reports it again.
    if (before < 0 || ((offset - this.#peeked[gid]!) | 0) < 0) return;
    urgentWrite(this.#ctx.toShard(gid), gid % this.#ctx.flowsPerShard, offset);
  }

  /**
   * Set SO_PEEK_OFF on a socket, where the kernel has the option.
   * @param offset  0, or how far a socket of another lane was peeked
   */
  enablePeekOffset(fd: number, offset = 0): void {
    if (this.#hasPeekOffset && setsockoptInt(fd, SOL_SOCKET, SO_PEEK_OFF, offset) < 0) {
      this.#hasPeekOffset = false;
      this.#discard = new NativeBuffer(DISCARD_BYTES);
      this.#ctx.notices.tell(
        Notice.noPeekOffset,
        'info',
        'this kernel has no SO_PEEK_OFF for TCP (Linux 6.10): downloads cost more copying',
      );
    }
  }

  /**
   * ToHost.credit: the window of the guest.
   * @param credit  stream offset up to which bytes may be read
   * @param acked  stream offset up to which the guest has acknowledged
   * @param readLimit  most bytes of one read, which is one frame to the guest
   */
  onCredit(gid: number, credit: number, acked: number, readLimit: number): void {
    if (!(this.#flags[gid]! & StreamFlag.open)) return;
    this.#credit[gid] = credit;
    this.#readLimit[gid] = readLimit;
    if (((acked - this.#acked[gid]!) | 0) > 0) {
      this.#acked[gid] = acked;
      this.#lazyAcks[gid]!++;
    }
    const n = (acked - this.#consumed[gid]!) | 0;
    // Without SO_PEEK_OFF a peek begins at the front of the queue, and an urgent byte there ends it.
    if (n > 0 && !this.#hasPeekOffset && this.#flags[gid]! & StreamFlag.urgent)
      this.#flags[gid]! |= StreamFlag.bulk | StreamFlag.readable;
    if (
      n > 0 &&
      (this.#flags[gid]! & StreamFlag.bulk || n >= LAZY_BYTES || this.#lazyAcks[gid]! >= LAZY_ACKS)
    ) {
      this.#consume(gid, n);
      if (this.#grown[gid]! < GROW_AFTER_BYTES.length) this.#growReceiveBuffer(gid);
    }
    if (this.#flags[gid]! & StreamFlag.readable) this.read(gid);
  }

  /** Drop n acknowledged bytes from the socket's queue. */
  #consume(gid: number, n: number): void {
    const fd = this.#fd.get(gid);
    this.#lazyAcks[gid] = 0;
    while (n > 0) {
      const r = recv(fd, 0, n, MSG_TRUNC | MSG_DONTWAIT);
      this.#ctx.counters[Counter.sockConsumes]!++;
      if (r <= 0) {
        if (r === -Errno.EINTR) continue;
        break; // peeked bytes are in the queue: only a socket that has failed returns 0 or an error here
      }
      this.#ctx.counters[Counter.sockConsumeBytes]! += r;
      this.#consumed[gid] = (this.#consumed[gid]! + r) >>> 0;
      n -= r;
    }
    if (((this.#peeked[gid]! - this.#consumed[gid]!) | 0) < 0) this.#peeked[gid] = this.#consumed[gid]!;
    if (((this.#acked[gid]! - this.#consumed[gid]!) | 0) < 0) this.#acked[gid] = this.#consumed[gid]!;
    // The queue is empty, unless bytes came after the last read emptied it. Then bytes that are peeked later
    // may share a large kernel buffer with the consumed ones, and `bulk` stays.
    if (this.#consumed[gid] === this.#peeked[gid] && !(this.#flags[gid]! & StreamFlag.readable)) {
      this.#flags[gid]! &= ~StreamFlag.bulk;
    }
  }

  /**
   * Enlarge the socket's receive buffer, while the guest keeps up with the network.
   *
   * The kernel sizes a receive buffer by the bytes that the reader takes from the queue in a round trip, less
   * the bytes that stay there (tcp_rcv_space_adjust). It measures at each peek, when all bytes are still
   * there: without our help a window of 64 KiB stays for many round trips. SO_RCVLOWAT enlarges the buffer
   * for as many bytes as it names, up to half of tcp_rmem's maximum, and does not switch the kernel's own
   * sizing off as SO_RCVBUF does. It is set back to 1 at once: the larger buffer stays.
   */
  #growReceiveBuffer(gid: number): void {
    const step = this.#grown[gid]!;
    if (this.#flags[gid]! & StreamFlag.readable || this.#consumed[gid]! < GROW_AFTER_BYTES[step]!) return;
    this.#grown[gid] = step + 1;
    const fd = this.#fd.get(gid);
    setsockoptInt(fd, SOL_SOCKET, SO_RCVLOWAT, GROW_TO_BYTES[step]!);
    setsockoptInt(fd, SOL_SOCKET, SO_RCVLOWAT, 1);
  }

  /**
   * ToHost.rewind: the guest needs bytes again that were passed to the shard before.
   * @param offset  stream offset of the first one
   * @param bytes  how many to pass again at once; 0: go on reading from `offset`
   */
  onRewind(gid: number, offset: number, bytes: number): void {
    if (!(this.#flags[gid]! & StreamFlag.open)) return;
    const acked = this.#acked[gid]!;
    let from = offset;
    if (((from - acked) | 0) < 0) from = acked;
    if (bytes === 0) {
      if (((this.#peeked[gid]! - from) | 0) > 0) {
        this.#peeked[gid] = from;
        this.#setPeekOffset(gid, from);
      }
      this.#flags[gid]! |= StreamFlag.readable;
      this.read(gid);
      return;
    }
    let left = (offset + bytes - from) | 0;
    const peeked = this.#peeked[gid]!;
    if (left > ((peeked - from) | 0)) left = (peeked - from) | 0;
    if (left <= 0) return;
    this.#setPeekOffset(gid, from);
    while (left > 0) {
      const want = Math.min(left, this.#readLimit[gid]!);
      const slot = this.#ctx.largeSlots.pop();
      if (slot === NO_SLOT) break; // no slot now: the shard's retransmission timer asks again
      const n = this.#peek(gid, slot, 0, want, (from - this.#consumed[gid]!) >>> 0);
      if (n <= 0) {
        this.#ctx.largeSlots.push(slot);
        break;
      }
      this.#pass(gid, slot, n, from, DataKind.again);
      from = (from + n) >>> 0;
      left -= n;
    }
    this.#setPeekOffset(gid, this.#peeked[gid]!);
  }

  #setPeekOffset(gid: number, offset: number): void {
    if (!this.#hasPeekOffset) return;
    setsockoptInt(this.#fd.get(gid), SOL_SOCKET, SO_PEEK_OFF, (offset - this.#consumed[gid]!) >>> 0);
  }

  /**
   * Read bytes of the socket's queue into a slot; they stay in the queue.
   * @param slotOffset  where in the slot, behind the headroom
   * @param skip  bytes of the queue in front of the wanted ones; unused where the kernel has SO_PEEK_OFF
   * @returns bytes read, 0 at the end of the stream, or -errno
   */
  #peek(gid: number, slot: number, slotOffset: number, want: number, skip: number): number {
    const ctx = this.#ctx;
    const fd = this.#fd.get(gid);
    const address = ctx.pool.slotAddress(slot) + HEADROOM_BYTES + slotOffset;
    ctx.counters[Counter.sockPeeks]!++;
    let n: number;
    if (this.#hasPeekOffset) {
      n = recv(fd, address, want, MSG_PEEK | MSG_DONTWAIT);
    } else {
      let iovs = 0;
      let rest = skip;
      while (rest > 0 && iovs < DISCARD_IOVS) {
        const part = Math.min(rest, DISCARD_BYTES);
        iovecWrite(this.#iov.u32, iovs * IOVEC_WORDS, this.#discard!.address, part);
        rest -= part;
        iovs++;
      }
      if (rest > 0) return -Errno.EAGAIN;
      iovecWrite(this.#iov.u32, iovs * IOVEC_WORDS, address, want);
      msghdrWrite(this.#msg.u32, 0, 0, 0, this.#iov.address, iovs + 1);
      n = recvmsg(fd, this.#msg.address, MSG_PEEK | MSG_DONTWAIT);
      if (n >= 0) {
        n -= skip;
        // The queue has no bytes behind `skip`: the end of the stream if the peer has closed, else EAGAIN. Or an
        // urgent byte that the guest has not acknowledged has ended the peek.
        const flags = this.#flags[gid]!;
        const isEnd = flags & StreamFlag.peerDone && (skip === 0 || !(flags & StreamFlag.urgent));
        if (n <= 0) n = isEnd ? 0 : -Errno.EAGAIN;
      }
    }
    if (n > 0) ctx.counters[Counter.sockPeekBytes]! += n;
    return n;
  }

  /** Give a slot with stream bytes to the shard. @param offset  stream offset of the first byte */
  #pass(gid: number, slot: number, bytes: number, offset: number, kind: DataKind): void {
    dataWrite(
      this.#ctx.toShard(gid),
      gid % this.#ctx.flowsPerShard,
      slot,
      HEADROOM_BYTES,
      bytes,
      offset,
      kind,
    );
  }

  /** Read as far as credit, slots and the round allow, and pass what was read to the shard. */
  read(gid: number): void {
    const ctx = this.#ctx;
    for (let reads = 0; this.#flags[gid]! & StreamFlag.readable; reads++) {
      const peeked = this.#peeked[gid]!;
      const room = (this.#credit[gid]! - peeked) | 0;
      const limit = this.#readLimit[gid]!;
      const inFlight = (peeked - this.#acked[gid]!) | 0;
      // Silly window avoidance: while an ACK is outstanding, less than half a frame is not read. To wait for
      // a whole frame would be stop-and-wait where the guest's window holds fewer than two.
      if (room <= 0 || (inFlight > 0 && room < limit >>> 1)) return;
      if (reads === READS_PER_ROUND) return ctx.markReady(gid);
      const slot = ctx.largeSlots.pop();
      if (slot === NO_SLOT) {
        if (!(this.#flags[gid]! & StreamFlag.waitingForSlots)) {
          this.#flags[gid]! |= StreamFlag.waitingForSlots;
          this.#waitingForSlots.push(gid);
          ctx.counters[Counter.poolDry]!++;
        }
        return;
      }
      const want = room < limit ? room : limit;
      const n = this.#peek(gid, slot, 0, want, (peeked - this.#consumed[gid]!) >>> 0);
      if (n <= 0) {
        ctx.largeSlots.push(slot);
        if (n === -Errno.EINTR) continue;
        this.#flags[gid]! &= ~StreamFlag.readable;
        if (n === 0) return this.#onEof(gid);
        if (n !== -Errno.EAGAIN) this.#ending.fail(gid, -n);
        return;
      }
      this.#peeked[gid] = (peeked + n) >>> 0;
      if (n >= LAZY_BYTES || n === want) this.#flags[gid]! |= StreamFlag.bulk;
      if (n < want && this.#flags[gid]! & StreamFlag.peerDone)
        return this.#readToEnd(gid, slot, n, want, peeked);
      this.#pass(gid, slot, n, peeked, DataKind.next);
      // A short read: the queue is empty, and the next bytes raise a new edge.
      if (n < want && !(this.#flags[gid]! & StreamFlag.urgent)) this.#flags[gid]! &= ~StreamFlag.readable;
    }
  }

  /**
   * Read on behind the last `n` bytes before the end. The peer has closed its side or reset the connection,
   * so a FIN (which raises no new edge) or an error follows the `n` bytes in `slot`. A FIN is passed together
   * with the bytes: the guest gets both in one frame.
   * @param want  bytes that the slot may hold
   * @param offset  stream offset of the first of the `n` bytes
   */
  #readToEnd(gid: number, slot: number, n: number, want: number, offset: number): void {
    const more = this.#peek(gid, slot, n, want - n, (offset + n - this.#consumed[gid]!) >>> 0);
    const known = this.#flags[gid]! & (StreamFlag.sendFailed | StreamFlag.eofSent);
    if (more === 0 && known === 0) {
      this.#peeked[gid] = (offset + n) >>> 0;
      this.#flags[gid]! &= ~StreamFlag.readable;
      this.#pass(gid, slot, n, offset, DataKind.last);
      return this.#onEof(gid);
    }
    const bytes = more > 0 ? n + more : n;
    this.#peeked[gid] = (offset + bytes) >>> 0;
    this.#pass(gid, slot, bytes, offset, DataKind.next);
    // More bytes or EINTR: read again in the next round. EAGAIN: the next edge comes with the next bytes.
    if (more > 0 || more === -Errno.EINTR) return this.#ctx.markReady(gid);
    this.#flags[gid]! &= ~StreamFlag.readable;
    if (more === 0) this.#onEof(gid);
    else if (more !== -Errno.EAGAIN) this.#ending.fail(gid, -more);
  }

  #onEof(gid: number): void {
    if (this.#flags[gid]! & StreamFlag.sendFailed) return this.#ending.fail(gid, this.#sendErrno[gid]!);
    if (this.#flags[gid]! & StreamFlag.eofSent) return;
    this.#flags[gid]! |= StreamFlag.eofSent;
    eofWrite(this.#ctx.toShard(gid), gid % this.#ctx.flowsPerShard, this.#peeked[gid]!);
  }

  /** Write a socket's cursors: six words from words[at] on. */
  save(gid: number, words: Uint32Array, at: number): void {
    words[at] = this.#consumed[gid]!;
    words[at + 1] = this.#acked[gid]!;
    words[at + 2] = this.#peeked[gid]!;
    words[at + 3] = this.#credit[gid]!;
    words[at + 4] = this.#readLimit[gid]!;
    words[at + 5] = this.#grown[gid]!;
  }

  /** Read what save() has written about a socket of another lane, whose descriptor is set. */
  restore(gid: number, words: Uint32Array, at: number): void {
    this.begin(gid);
    this.#consumed[gid] = words[at]!;
    this.#acked[gid] = words[at + 1]!;
    this.#peeked[gid] = words[at + 2]!;
    this.#credit[gid] = words[at + 3]!;
    this.#readLimit[gid] = words[at + 4]!;
    this.#grown[gid] = words[at + 5]!;
    // It is set already. This finds out whether the kernel has the option.
    this.enablePeekOffset(this.#fd.get(gid), (this.#peeked[gid]! - this.#consumed[gid]!) >>> 0);
  }

  /** Drop from the socket's queue what the guest has acknowledged. */
  consumeAcked(gid: number): void {
    const n = (this.#acked[gid]! - this.#consumed[gid]!) | 0;
    if (n > 0) this.#consume(gid, n);
  }

  /** Read on where large slots had run out, if there are some now. @returns sockets that were tried */
  resume(): number {
    if (this.#waitingForSlots.length === 0 || this.#ctx.largeSlots.free === 0) return 0;
    const list = this.#waitingForSlots.splice(0);
    for (const gid of list) {
      this.#flags[gid]! &= ~StreamFlag.waitingForSlots;
      if (this.#flags[gid]! & StreamFlag.open) this.read(gid);
    }
    return list.length;
  }
}
