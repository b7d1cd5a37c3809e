/**
 * Stream (TCP) sockets of the host-io stage: outgoing connections, those that stream/listeners.ts accepted,
 * and the bytes of both.
 *
 *   to the host   Frames wait per socket in the slots they came in, in order; one sendmsg takes up to 64 pieces. What the
 *                 socket refuses stays, and EPOLLOUT goes on with it. `sent` tells the shard after each attempt.
 *   from the host  recv(MSG_PEEK) with SO_PEEK_OFF straight behind the headroom of a large slot, as far as `credit` reaches.
 *                 Bytes leave the socket's queue only when the guest has acknowledged them (recv(MSG_TRUNC)).
 *
 * Small acknowledged amounts stay there until a few have come together.
 *
 * Cursors are stream offsets, u32 modulo: consumed <= acked <= peeked <= credit, compared by signed
 * difference. The kernel's peek offset is always peeked - consumed: a read without MSG_PEEK moves it back by
 * itself (tcp_recvmsg: sk_peek_offset_bwd). Kernels before
 * 6.10 have no SO_PEEK_OFF for TCP: there the bytes in flight are read over into a discard buffer in front.
 *
 * Errors: what the peer sent before its RST is still read and passed on; the error is told when reading
 * reaches it. A failed send only stops sending.
 */

import { isV4Mapped } from '../../../proto/address.ts';
import { Counter, recordHistogram } from '../../../ring/counters.ts';
import { Histogram } from '../../../ring/histograms.ts';
import { HEADROOM_BYTES, NO_SLOT } from '../../../ring/pool.ts';
import {
  AF_INET,
  AF_INET6,
  EPOLLERR,
  EPOLLET,
  EPOLLHUP,
  EPOLLIN,
  EPOLLOUT,
  EPOLLRDHUP,
  Errno,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  MSG_PEEK,
  MSG_TRUNC,
  SHUT_WR,
  SO_ERROR,
  SO_PEEK_OFF,
  SO_RCVLOWAT,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_STREAM,
  SOL_SOCKET,
} from '../../../sys/constants.ts';
import { close } from '../../../sys/io.ts';
import { NativeBuffer } from '../../../sys/memory.ts';
import {
  connect,
  getsockoptInt,
  IOVEC_BYTES,
  IOVEC_WORDS,
  iovecWrite,
  MSGHDR_BYTES,
  msghdrWrite,
  recv,
  recvmsg,
  SOCKADDR_BYTES,
  send,
  sendmsg,
  setLingerZero,
  setsockoptInt,
  shutdown,
  sockaddrWrite,
  socket,
} from '../../../sys/socket.ts';
import type { HostChange, ListenerPlan } from '../../engine-plan.ts';
import type { Addressing } from '../../flow/addressing.ts';
import { linkBytes, linkSlotA, linkSlotB, linkSlotOffset } from '../../link/descriptor.ts';
import {
  creditAcked,
  creditLimit,
  creditReadLimit,
  openRemoteAt,
  openRemotePort,
  openZone,
  rewindBytes,
  rewindOffset,
  sendMark,
  ToHost,
} from '../../link/to-host.ts';
import {
  closedWrite,
  DataKind,
  dataWrite,
  eofWrite,
  errorWrite,
  openedWrite,
  openFailedWrite,
  SentFlag,
  sentWrite,
} from '../../link/to-shard.ts';
import { Notice } from '../../thread/notices.ts';
import type { HostContext, SocketModule } from '../context.ts';
import { Outbound } from '../outbound.ts';
import { StreamListeners, setStreamOptions } from './listeners.ts';
import { GATHERED_IOVS, SendQueues } from './send-queues.ts';

const Flag = {
  open: 1 << 0,
  connecting: 1 << 1,
  /** More may be readable: no EAGAIN since the last edge. */
  readable: 1 << 2,
  /** The socket took less than was offered; EPOLLOUT will come. */
  blocked: 1 << 3,
  /** The peer has shut down its side: reading will end in 0. */
  peerDone: 1 << 4,
  eofSent: 1 << 5,
  finish: 1 << 6,
  finished: 1 << 7,
  close: 1 << 8,
  /** On the list of sockets with something new to send. */
  dirty: 1 << 9,
  sendFailed: 1 << 10,
  errorSent: 1 << 11,
  /** Waiting for a large slot. */
  waitingForSlots: 1 << 12,
  /** The queue held, or may hold, more than a small exchange since it was last empty. */
  bulk: 1 << 13,
  /** Provisional bytes were refused: the shard hears when the socket takes more. */
  refused: 1 << 14,
} as const;

/**
 * Reads of one socket a round: few enough that the frames are still in the cache when the shard writes them
 * (perf/notes.md).
 */
const READS_PER_ROUND = 4;
/** Frames up to this size are copied together behind a blocked socket. */
const COMPACT_BYTES = 32 * 1024;
/**
 * A closed socket whose peer takes nothing more is given up after this time without progress (as Linux gives
 * up orphans).
 */
const LINGER_MS = 120_000;
/**
 * A stream that has brought so many bytes, to a guest that keeps up, gets a receive buffer for windows of so
 * many.
 */
const GROW_AFTER_BYTES = [32 * 1024, 512 * 1024] as const;
const GROW_TO_BYTES = [1024 * 1024, 8 * 1024 * 1024] as const;
/**
 * Acknowledged bytes may stay in the socket's queue up to this many bytes and acknowledgements: small
 * exchanges then cost no system call of their own to drop them (perf/notes.md), and what stays is far below
 * any receive window. Not so the small rest of a bulk transfer (Flag.bulk): it pins the large buffer that it
 * came in, and nobody calls the kernel again to open the window.
 */
const LAZY_BYTES = 8 * 1024;
const LAZY_ACKS = 8;
const DISCARD_BYTES = 65536;
const DISCARD_IOVS = 256;

export class StreamSockets implements SocketModule {
  readonly #ctx: HostContext;
  readonly #listeners: StreamListeners;
  // By gid.
  readonly #fd: Int32Array;
  readonly #flags: Uint16Array;
  readonly #consumed: Uint32Array;
  /** What the guest has acknowledged: consumed <= acked <= peeked. */
  readonly #acked: Uint32Array;
  /** Acknowledgements since bytes were last dropped. */
  readonly #lazyAcks: Uint8Array;
  readonly #peeked: Uint32Array;
  readonly #credit: Uint32Array;
  readonly #readLimit: Uint32Array;
  readonly #sendErrno: Uint8Array;
  /**
   * Provisional bytes at the end of the queue, and how often such bytes were refused (modulo 256; the shard
   * counts along).
   */
  readonly #provisional: Uint32Array;
  readonly #refusals: Uint8Array;
  /** Steps of GROW_TO_BYTES done. */
  readonly #grown: Uint8Array;
  /**
   * Time of connect() while connecting; then when a closed socket that still has bytes to send is given up.
   */
  readonly #deadline: Float64Array;
  readonly #queues: SendQueues;
  // Sockets whose connect() runs, oldest first. Neighbours are kept + 1: zeroed memory means none.
  readonly #nextConnecting: Int32Array;
  readonly #previousConnecting: Int32Array;
  #firstConnecting = 0;
  #lastConnecting = 0;
  #connectingCount = 0;

  #dirty: Int32Array;
  #dirtyCount = 0;
  readonly #waitingForSlots: number[] = [];
  readonly #lingering = new Set<number>();
  #nextLingerCheck = Number.POSITIVE_INFINITY;

  readonly #iov = new NativeBuffer((GATHERED_IOVS + DISCARD_IOVS) * IOVEC_BYTES);
  readonly #msg = new NativeBuffer(MSGHDR_BYTES);
  readonly #sockaddr = new NativeBuffer(SOCKADDR_BYTES);
  readonly #outbound: Outbound;
  #discard: NativeBuffer | null = null;
  /** SO_PEEK_OFF works on TCP here; found out with the first socket. */
  #peekOff = true;

  constructor(ctx: HostContext, addressing: Addressing, gids: number) {
    this.#ctx = ctx;
    this.#outbound = new Outbound(ctx.plan);
    this.#listeners = new StreamListeners(ctx, addressing, this.#outbound);
    this.#fd = new Int32Array(gids).fill(-1);
    this.#flags = new Uint16Array(gids);
    this.#consumed = new Uint32Array(gids);
    this.#acked = new Uint32Array(gids);
    this.#lazyAcks = new Uint8Array(gids);
    this.#peeked = new Uint32Array(gids);
    this.#credit = new Uint32Array(gids);
    this.#readLimit = new Uint32Array(gids);
    this.#sendErrno = new Uint8Array(gids);
    this.#provisional = new Uint32Array(gids);
    this.#refusals = new Uint8Array(gids);
    this.#grown = new Uint8Array(gids);
    this.#deadline = new Float64Array(gids);
    // Twice: a gid may be closed and opened again within one round.
    this.#dirty = new Int32Array(gids * 2);
    this.#queues = new SendQueues(ctx, gids);
    this.#nextConnecting = new Int32Array(gids);
    this.#previousConnecting = new Int32Array(gids);
    ctx.shortage.onGiveWay((minAgeMs) => this.#giveUpOldest(minAgeMs));
  }

  // ------------------------------------------------------------------------------------------------- commands

  /** send, credit, openTcp, rewind, finish, close or reset, from a shard. Takes over the slots it brings. */
  command(op: number, words: Uint32Array, at: number, gid: number): void {
    switch (op) {
      case ToHost.send:
        return this.#enqueue(
          gid,
          linkSlotA(words, at),
          linkSlotB(words, at),
          linkSlotOffset(words, at),
          linkBytes(words, at),
          sendMark(words, at),
        );
      case ToHost.credit:
        return this.#onCredit(
          gid,
          creditLimit(words, at),
          creditAcked(words, at),
          creditReadLimit(words, at),
        );
      case ToHost.openTcp:
        return this.#open(gid, words, at);
      case ToHost.rewind:
        return this.#onRewind(gid, rewindOffset(words, at), rewindBytes(words, at));
      case ToHost.finish:
        this.#flags[gid]! |= Flag.finish;
        return this.#markDirty(gid);
      case ToHost.close:
        this.#flags[gid]! |= Flag.close;
        this.#markDirty(gid);
        return;
      case ToHost.reset:
        // A connect() that failed has said `closed` already; the shard's reset passed it on the way.
        if (this.#flags[gid]! & Flag.open) this.#closeNow(gid, true);
        return;
    }
  }

  /** An accepted connection is the flow's. @param fd  token of `accepted` */
  adopt(gid: number, fd: number): void {
    this.#listeners.answered(fd);
    this.#begin(gid, fd);
    this.#flags[gid]! |= Flag.open;
    this.#setPeeking(fd);
    const r = this.#ctx.watch(fd, gid, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
    if (r < 0) this.#fail(gid, -r);
  }

  /** No flow for an accepted connection: RST. @param fd  token of `accepted` */
  refuse(fd: number): void {
    if (!this.#listeners.answered(fd)) return;
    setLingerZero(fd);
    close(fd);
    this.#ctx.counters[Counter.sockClosed]!++;
  }

  #begin(gid: number, fd: number): void {
    this.#fd[gid] = fd;
    this.#flags[gid] = 0;
    this.#consumed[gid] = 0;
    this.#acked[gid] = 0;
    this.#lazyAcks[gid] = 0;
    this.#peeked[gid] = 0;
    this.#credit[gid] = 0;
    this.#readLimit[gid] = 536;
    this.#queues.begin(gid);
    this.#sendErrno[gid] = 0;
    this.#provisional[gid] = 0;
    this.#refusals[gid] = 0;
    this.#grown[gid] = 0;
    this.#ctx.counters[Counter.sockOpened]!++;
  }

  #open(gid: number, words: Uint32Array, at: number): void {
    const ctx = this.#ctx;
    const remoteAt = openRemoteAt(at);
    const v4 = isV4Mapped(words, remoteAt);
    const type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
    let fd = socket(v4 ? AF_INET : AF_INET6, type, 0);
    if (fd < 0 && ctx.shortage.madeRoom(fd)) fd = socket(v4 ? AF_INET : AF_INET6, type, 0);
    if (fd < 0) {
      ctx.shortage.reportShortage(fd);
      return this.#openFailed(gid, -fd);
    }
    this.#begin(gid, fd);
    setStreamOptions(fd);
    this.#setPeeking(fd);
    const outbound = this.#outbound;
    let r = outbound.toDevice(fd, words, remoteAt);
    if (r >= 0) r = outbound.bindStream(fd, words, remoteAt);
    if (r < 0) return this.#openFailed(gid, -r);
    const scope = outbound.scopeOf(words, remoteAt, openZone(words, at));
    const len = sockaddrWrite(this.#sockaddr.u8, 0, words, remoteAt, openRemotePort(words, at), scope);
    r = connect(fd, this.#sockaddr.address, len);
    if (r < 0 && r !== -Errno.EINPROGRESS) return this.#openFailed(gid, -r);
    this.#flags[gid] = Flag.open | Flag.connecting;
    this.#appendConnecting(gid);
    const e = ctx.watch(fd, gid, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
    if (e < 0) return this.#openFailed(gid, -e);
    this.#deadline[gid] = ctx.now;
    if (r === 0) this.#onConnected(gid);
    else ctx.shortage.connecting(this.#connectingCount);
  }

  #setPeeking(fd: number): void {
    if (this.#peekOff && setsockoptInt(fd, SOL_SOCKET, SO_PEEK_OFF, 0) < 0) {
      this.#peekOff = false;
      this.#discard = new NativeBuffer(DISCARD_BYTES);
      this.#ctx.notices.tell(
        Notice.noPeekOffset,
        'info',
        'this kernel has no SO_PEEK_OFF for TCP (Linux 6.10): downloads cost more copying',
      );
    }
  }

  #appendConnecting(gid: number): void {
    const last = this.#lastConnecting;
    this.#previousConnecting[gid] = last;
    this.#nextConnecting[gid] = 0;
    if (last === 0) this.#firstConnecting = gid + 1;
    else this.#nextConnecting[last - 1] = gid + 1;
    this.#lastConnecting = gid + 1;
    this.#connectingCount++;
  }

  /** connect() has ended, one way or another. */
  #endConnecting(gid: number): void {
    if (!(this.#flags[gid]! & Flag.connecting)) return;
    this.#flags[gid]! &= ~Flag.connecting;
    this.#connectingCount--;
    const next = this.#nextConnecting[gid]!;
    const previous = this.#previousConnecting[gid]!;
    if (next === 0) this.#lastConnecting = previous;
    else this.#previousConnecting[next - 1] = previous;
    if (previous === 0) this.#firstConnecting = next;
    else this.#nextConnecting[previous - 1] = next;
  }

  /** DescriptorShortage.onGiveWay. Not EMFILE: there is one now, and no other flow has to give way. */
  #giveUpOldest(minAgeMs: number): boolean {
    const gid = this.#firstConnecting - 1;
    if (gid < 0 || this.#ctx.now - this.#deadline[gid]! < minAgeMs) return false;
    this.#openFailed(gid, Errno.ENOBUFS);
    return true;
  }

  #openFailed(gid: number, errno: number): void {
    this.#endConnecting(gid);
    const fd = this.#fd[gid]!;
    if (fd >= 0) {
      close(fd);
      this.#fd[gid] = -1;
      this.#ctx.counters[Counter.sockClosed]!++;
    }
    this.#flags[gid] = 0;
    const out = this.#ctx.toShard(gid);
    openFailedWrite(out, this.#flowOf(gid), errno);
    closedWrite(out, this.#flowOf(gid));
  }

  #onConnected(gid: number): void {
    recordHistogram(this.#ctx.counters, Histogram.hostConnect, (this.#ctx.now - this.#deadline[gid]!) * 1000);
    this.#endConnecting(gid);
    openedWrite(this.#ctx.toShard(gid), this.#flowOf(gid));
  }

  #flowOf(gid: number): number {
    return gid % this.#ctx.flowsPerShard;
  }

  // ---------------------------------------------------------------------------------------------------- events

  onEvents(gid: number, events: number): void {
    if (gid >= this.#ctx.listenerBase) return this.#listeners.accept(gid);
    if (!(this.#flags[gid]! & Flag.open)) return;
    if (this.#flags[gid]! & Flag.connecting) {
      if (!(events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) return;
      // A socket with an error says so (tcp_poll): EPOLLOUT alone is success, and one call a connection is
      // saved.
      const errno = events & (EPOLLERR | EPOLLHUP) ? getsockoptInt(this.#fd[gid]!, SOL_SOCKET, SO_ERROR) : 0;
      if (errno !== 0 && errno !== Errno.ECONNRESET) return this.#openFailed(gid, Math.abs(errno));
      this.#onConnected(gid);
      if (errno === Errno.ECONNRESET) {
        // It stood, and was reset before we looked: the guest is to see both, and what was sent in between.
        this.#flags[gid]! |= Flag.readable | Flag.sendFailed | Flag.peerDone;
        this.#sendErrno[gid] = errno;
        return;
      }
    }
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) this.#flags[gid]! |= Flag.peerDone;
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
      this.#flags[gid]! |= Flag.readable;
      this.#read(gid);
    }
    if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP) && this.#flags[gid]! & Flag.blocked) {
      this.#flags[gid]! &= ~Flag.blocked;
      this.#markDirty(gid);
    }
  }

  onReady(gid: number): void {
    if (gid >= this.#ctx.listenerBase) this.#listeners.accept(gid);
    else if (this.#flags[gid]! & Flag.open) this.#read(gid);
  }

  // -------------------------------------------------------------------------------------------- from the host

  #onCredit(gid: number, credit: number, consumed: number, readLimit: number): void {
    if (!(this.#flags[gid]! & Flag.open)) return;
    this.#credit[gid] = credit;
    this.#readLimit[gid] = readLimit;
    if (((consumed - this.#acked[gid]!) | 0) > 0) {
      this.#acked[gid] = consumed;
      this.#lazyAcks[gid]!++;
    }
    const n = (consumed - this.#consumed[gid]!) | 0;
    if (n > 0 && (this.#flags[gid]! & Flag.bulk || n >= LAZY_BYTES || this.#lazyAcks[gid]! >= LAZY_ACKS)) {
      this.#consume(gid, n);
      if (this.#grown[gid]! < GROW_AFTER_BYTES.length) this.#growReceiveBuffer(gid);
    }
    if (this.#flags[gid]! & Flag.readable) this.#read(gid);
  }

  /** Drop n acknowledged bytes from the socket's queue. */
  #consume(gid: number, n: number): void {
    const fd = this.#fd[gid]!;
    this.#lazyAcks[gid] = 0;
    while (n > 0) {
      const r = recv(fd, 0, n, MSG_TRUNC | MSG_DONTWAIT);
      this.#ctx.counters[Counter.sockConsumes]!++;
      if (r <= 0) {
        if (r === -Errno.EINTR) continue;
        break; // the bytes were peeked, so they are there: only a dead socket ends up here
      }
      this.#ctx.counters[Counter.sockConsumeBytes]! += r;
      this.#consumed[gid] = (this.#consumed[gid]! + r) >>> 0;
      n -= r;
    }
    if (((this.#peeked[gid]! - this.#consumed[gid]!) | 0) < 0) this.#peeked[gid] = this.#consumed[gid]!;
    if (((this.#acked[gid]! - this.#consumed[gid]!) | 0) < 0) this.#acked[gid] = this.#consumed[gid]!;
    // Nothing is left, unless more came since the last read found the end: what is peeked now may have come
    // in one buffer with it.
    if (this.#consumed[gid] === this.#peeked[gid] && !(this.#flags[gid]! & Flag.readable)) {
      this.#flags[gid]! &= ~Flag.bulk;
    }
  }

  /**
   * The kernel sizes receive buffers by what a reader takes from the queue in a round trip less what it
   * leaves there (tcp_rcv_space_adjust), and looks at each peek, when all is still there: left alone, a
   * window of 64 KiB stays for many round trips. SO_RCVLOWAT makes room for as much as it asks for, up to
   * half of tcp_rmem's maximum, without switching the kernel's own sizing off as SO_RCVBUF does; set back at
   * once, it leaves only the room. Done while the guest keeps up with the network.
   */
  #growReceiveBuffer(gid: number): void {
    const step = this.#grown[gid]!;
    if (this.#flags[gid]! & Flag.readable || this.#consumed[gid]! < GROW_AFTER_BYTES[step]!) return;
    this.#grown[gid] = step + 1;
    const fd = this.#fd[gid]!;
    setsockoptInt(fd, SOL_SOCKET, SO_RCVLOWAT, GROW_TO_BYTES[step]!);
    setsockoptInt(fd, SOL_SOCKET, SO_RCVLOWAT, 1);
  }

  #onRewind(gid: number, offset: number, bytes: number): void {
    if (!(this.#flags[gid]! & Flag.open)) return;
    const acked = this.#acked[gid]!;
    let from = offset;
    if (((from - acked) | 0) < 0) from = acked;
    if (bytes === 0) {
      if (((this.#peeked[gid]! - from) | 0) > 0) {
        this.#peeked[gid] = from;
        this.#setPeekOffset(gid, from);
      }
      this.#flags[gid]! |= Flag.readable;
      this.#read(gid);
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
      if (slot === NO_SLOT) break; // no memory now: the retransmission timer asks again
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
    if (!this.#peekOff) return;
    setsockoptInt(this.#fd[gid]!, SOL_SOCKET, SO_PEEK_OFF, (offset - this.#consumed[gid]!) >>> 0);
  }

  /**
   * @param slotOffset  where in the slot, behind the headroom
   * @param skip  bytes of the queue in front of those wanted; the kernel knows them itself with SO_PEEK_OFF
   */
  #peek(gid: number, slot: number, slotOffset: number, want: number, skip: number): number {
    const ctx = this.#ctx;
    const fd = this.#fd[gid]!;
    const address = ctx.pool.slotAddress(slot) + HEADROOM_BYTES + slotOffset;
    ctx.counters[Counter.sockPeeks]!++;
    let n: number;
    if (this.#peekOff) {
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
        // Nothing beyond what was seen: the end of the stream, if the peer has closed, else nothing yet.
        if (n <= 0) n = this.#flags[gid]! & Flag.peerDone ? 0 : -Errno.EAGAIN;
      }
    }
    if (n > 0) ctx.counters[Counter.sockPeekBytes]! += n;
    return n;
  }

  #pass(gid: number, slot: number, bytes: number, offset: number, kind: DataKind): void {
    dataWrite(this.#ctx.toShard(gid), this.#flowOf(gid), slot, HEADROOM_BYTES, bytes, offset, kind);
  }

  #read(gid: number): void {
    const ctx = this.#ctx;
    for (let reads = 0; this.#flags[gid]! & Flag.readable; reads++) {
      const peeked = this.#peeked[gid]!;
      const room = (this.#credit[gid]! - peeked) | 0;
      const limit = this.#readLimit[gid]!;
      const inFlight = (peeked - this.#acked[gid]!) | 0;
      // Small rests of the window wait until more of it is free, as long as an ACK is still to come (silly
      // window avoidance). Half a frame is enough: waiting for a whole one is stop-and-wait where the guest's
      // window holds less than two.
      if (room <= 0 || (inFlight > 0 && room < limit >>> 1)) return;
      if (reads === READS_PER_ROUND) return ctx.markReady(gid);
      const slot = ctx.largeSlots.pop();
      if (slot === NO_SLOT) {
        if (!(this.#flags[gid]! & Flag.waitingForSlots)) {
          this.#flags[gid]! |= Flag.waitingForSlots;
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
        this.#flags[gid]! &= ~Flag.readable;
        if (n === 0) return this.#onEof(gid);
        if (n !== -Errno.EAGAIN) this.#fail(gid, -n);
        return;
      }
      this.#peeked[gid] = (peeked + n) >>> 0;
      if (n >= LAZY_BYTES || n === want) this.#flags[gid]! |= Flag.bulk;
      if (n < want && this.#flags[gid]! & Flag.peerDone) return this.#readToEnd(gid, slot, n, want, peeked);
      this.#pass(gid, slot, n, peeked, DataKind.next);
      // Less than asked for: the queue is empty, and whatever comes next is a new edge.
      if (n < want) this.#flags[gid]! &= ~Flag.readable;
    }
  }

  /**
   * The queue is empty behind the `n` bytes in `slot` and the peer is done: its FIN (which is no new edge) or
   * an error comes next. A FIN goes with the bytes, so that the guest gets both in one frame.
   */
  #readToEnd(gid: number, slot: number, n: number, want: number, offset: number): void {
    const more = this.#peek(gid, slot, n, want - n, (offset + n - this.#consumed[gid]!) >>> 0);
    const known = this.#flags[gid]! & (Flag.sendFailed | Flag.eofSent);
    if (more === 0 && known === 0) {
      this.#peeked[gid] = (offset + n) >>> 0;
      this.#flags[gid]! &= ~Flag.readable;
      this.#pass(gid, slot, n, offset, DataKind.last);
      return this.#onEof(gid);
    }
    const bytes = more > 0 ? n + more : n;
    this.#peeked[gid] = (offset + bytes) >>> 0;
    this.#pass(gid, slot, bytes, offset, DataKind.next);
    // More came, or the call was interrupted: look again in the next round. EAGAIN: the next edge tells.
    if (more > 0 || more === -Errno.EINTR) return this.#ctx.markReady(gid);
    this.#flags[gid]! &= ~Flag.readable;
    if (more === 0) this.#onEof(gid);
    else if (more !== -Errno.EAGAIN) this.#fail(gid, -more);
  }

  #onEof(gid: number): void {
    if (this.#flags[gid]! & Flag.sendFailed) return this.#fail(gid, this.#sendErrno[gid]!);
    if (this.#flags[gid]! & Flag.eofSent) return;
    this.#flags[gid]! |= Flag.eofSent;
    eofWrite(this.#ctx.toShard(gid), this.#flowOf(gid), this.#peeked[gid]!);
  }

  /** The socket is dead. The shard answers with reset; until then nothing more is said. */
  #fail(gid: number, errno: number): void {
    if (this.#flags[gid]! & Flag.errorSent) return;
    this.#flags[gid]! |= Flag.errorSent;
    errorWrite(this.#ctx.toShard(gid), this.#flowOf(gid), errno);
    // A socket that was closed in order and only had bytes left to send has nobody to answer for it.
    if (this.#flags[gid]! & Flag.close) this.#closeNow(gid, true);
  }

  // ---------------------------------------------------------------------------------------------- to the host

  #markDirty(gid: number): void {
    if (this.#flags[gid]! & Flag.dirty) return;
    this.#flags[gid]! |= Flag.dirty;
    this.#dirty[this.#dirtyCount++] = gid;
  }

  /** @param mark  ToHost.send's arg0 */
  #enqueue(gid: number, slotA: number, slotB: number, at: number, len: number, mark: number): void {
    const queues = this.#queues;
    if (!(this.#flags[gid]! & Flag.open) || this.#flags[gid]! & Flag.sendFailed) {
      queues.free(gid, slotA, slotB);
      this.#tellSent(gid, len, SentFlag.empty);
      return;
    }
    if (mark !== 0) {
      // It left before the shard knew that bytes in front of it were refused.
      if (mark - 1 !== this.#refusals[gid]) queues.free(gid, slotA, slotB);
      else {
        queues.push(gid, slotA, slotB, at, len);
        this.#provisional[gid]! += len;
      }
      return this.#markDirty(gid);
    }
    const isCompacted =
      this.#flags[gid]! & Flag.blocked && len <= COMPACT_BYTES && queues.append(gid, slotA, slotB, at, len);
    if (isCompacted) queues.free(gid, slotA, slotB);
    else queues.push(gid, slotA, slotB, at, len);
    // Behind a blocked socket there is nothing to try, but the shard acknowledges with `sent` only.
    this.#markDirty(gid);
  }

  /** End of the round: every socket that got something new tries to send it. */
  flush(now: number): number {
    let n = this.#dirtyCount;
    for (let i = 0; i < this.#dirtyCount; i++) {
      const gid = this.#dirty[i]!;
      this.#flags[gid]! &= ~Flag.dirty;
      if (this.#flags[gid]! & Flag.open) this.#send(gid, now);
    }
    this.#dirtyCount = 0;
    if (this.#waitingForSlots.length > 0 && this.#ctx.largeSlots.free > 0) n += this.#feedWaiting();
    if (now >= this.#nextLingerCheck) this.#checkLingering(now);
    if (now >= this.#listeners.retryAt) this.#listeners.retry();
    return n;
  }

  /** What is left of the provisional bytes after a send is not kept. @returns whether there was anything */
  #refuse(gid: number): boolean {
    const queues = this.#queues;
    const waiting = queues.bytes(gid);
    const provisional = Math.min(this.#provisional[gid]!, waiting);
    this.#provisional[gid] = 0;
    if (provisional === 0) return false;
    queues.dropBehind(gid, waiting - provisional);
    this.#refusals[gid]!++;
    this.#flags[gid]! |= Flag.refused;
    return true;
  }

  #tellSent(gid: number, bytes: number, flags: number): void {
    sentWrite(this.#ctx.toShard(gid), this.#flowOf(gid), bytes, flags, this.#queues.takeFreed(gid));
  }

  #feedWaiting(): number {
    const list = this.#waitingForSlots.splice(0);
    for (const gid of list) {
      this.#flags[gid]! &= ~Flag.waitingForSlots;
      if (this.#flags[gid]! & Flag.open) this.#read(gid);
    }
    return list.length;
  }

  #send(gid: number, now: number): void {
    const ctx = this.#ctx;
    const counters = ctx.counters;
    let total = 0;
    const queues = this.#queues;
    const had = !queues.isEmpty(gid);
    while (!queues.isEmpty(gid) && !(this.#flags[gid]! & (Flag.blocked | Flag.connecting))) {
      const iovs = queues.gather(gid, this.#iov.u32);
      const offered = queues.gatheredBytes;
      const fd = this.#fd[gid]!;
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
          this.#flags[gid]! |= Flag.blocked;
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
        this.#flags[gid]! |= Flag.blocked;
        counters[Counter.sockSendPartial]!++;
      }
    }
    if (total > 0) this.#deadline[gid] = now + LINGER_MS;
    const refused = this.#provisional[gid] !== 0 && this.#refuse(gid) ? SentFlag.refused : 0;
    const empty = queues.isEmpty(gid);
    if (had || queues.hasFreed(gid) || (this.#flags[gid]! & (Flag.refused | Flag.blocked)) === Flag.refused) {
      if (!(this.#flags[gid]! & Flag.blocked)) this.#flags[gid]! &= ~Flag.refused;
      const takesMore = empty && !(this.#flags[gid]! & Flag.refused);
      this.#tellSent(gid, total, refused | (takesMore ? SentFlag.empty : 0));
    }
    if (!empty) {
      if (this.#flags[gid]! & Flag.close && !this.#lingering.has(gid)) {
        this.#lingering.add(gid);
        this.#deadline[gid] = now + LINGER_MS;
        this.#nextLingerCheck = Math.min(this.#nextLingerCheck, now + 1000);
      }
      return;
    }
    if (this.#flags[gid]! & Flag.close) return this.#closeNow(gid, false);
    if (this.#flags[gid]! & Flag.finish && !(this.#flags[gid]! & Flag.finished)) {
      this.#flags[gid]! |= Flag.finished;
      shutdown(this.#fd[gid]!, SHUT_WR);
    }
  }

  /** @param taken  bytes that the socket took in this round before it failed, which nobody has told the shard */
  #sendFailed(gid: number, errno: number, taken: number): void {
    this.#flags[gid]! |= Flag.sendFailed | Flag.readable | Flag.peerDone;
    this.#sendErrno[gid] = errno;
    const dropped = this.#queues.drop(gid);
    this.#provisional[gid] = 0;
    this.#tellSent(gid, taken + dropped, SentFlag.empty);
    if (this.#flags[gid]! & Flag.close) return this.#closeNow(gid, true);
    // What the peer said before it went away is read first; the error follows it.
    this.#read(gid);
  }

  #closeNow(gid: number, reset: boolean): void {
    const fd = this.#fd[gid]!;
    this.#endConnecting(gid);
    if (this.#flags[gid]! & Flag.open) {
      this.#queues.drop(gid);
      // close() answers bytes that were left in the queue with RST (RFC 2525 section 2.17): those
      // acknowledged are no loss.
      const rest = (this.#acked[gid]! - this.#consumed[gid]!) | 0;
      if (reset) setLingerZero(fd);
      else if (rest > 0) this.#consume(gid, rest);
      close(fd);
      this.#fd[gid] = -1;
      this.#flags[gid]! &= Flag.dirty | Flag.waitingForSlots;
      this.#lingering.delete(gid);
      this.#ctx.counters[Counter.sockClosed]!++;
    }
    closedWrite(this.#ctx.toShard(gid), this.#flowOf(gid));
  }

  #checkLingering(now: number): void {
    for (const gid of [...this.#lingering]) if (now >= this.#deadline[gid]!) this.#closeNow(gid, true);
    this.#nextLingerCheck = this.#lingering.size > 0 ? now + 1000 : Number.POSITIVE_INFINITY;
  }

  /** When flush() wants to be called though nothing happens. */
  sleepMs(now: number): number {
    if (this.#dirtyCount > 0) return 0;
    return Math.min(this.#nextLingerCheck, this.#listeners.retryAt) - now;
  }

  /** Listen for a published port. @param index  listener number @returns 0 or -errno */
  listen(index: number, plan: ListenerPlan, port = plan.port): number {
    return this.#listeners.listen(index, plan, port);
  }

  /** Stop listening; connections stay. */
  unlisten(index: number): void {
    this.#listeners.unlisten(index);
  }

  /**
   * The host's network has changed. Connections stay as they are: their peers know them by their addresses.
   */
  hostChanged(change: HostChange): void {
    this.#outbound.hostChanged(change);
  }

  /** The engine ends: RST to the peers. */
  closeAll(): void {
    this.#listeners.closeAll();
    for (let gid = 0; gid < this.#fd.length; gid++) {
      if (this.#fd[gid]! >= 0) {
        setLingerZero(this.#fd[gid]!);
        close(this.#fd[gid]!);
        this.#fd[gid] = -1;
      }
    }
  }
}
