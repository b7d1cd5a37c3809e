/**
 * Stream (TCP) sockets of the host-io stage: outgoing connections and those that listeners accepted.
 *
 * This file opens and closes them, and hands out commands and events. The rest is in stream/:
 *
 *   socket-table       what the parts share about each socket
 *   connecting-list    sockets whose connect() has not ended
 *   sender             bytes to the host, with send-queues
 *   receiver           bytes from the host
 *   listeners          published ports
 *
 * A socket ends in one of two ways. closeNow(): the shard has closed the flow, or the sender closes on its
 * behalf when the queue is empty. fail(): the socket has an error; the shard gets `error`, and answers with
 * `reset`.
 */

import { isV4Mapped } from '../../../proto/address.ts';
import { Counter, recordHistogram } from '../../../ring/counters.ts';
import { Histogram } from '../../../ring/histograms.ts';
import {
  AF_INET,
  AF_INET6,
  EPOLLERR,
  EPOLLET,
  EPOLLHUP,
  EPOLLIN,
  EPOLLOUT,
  EPOLLPRI,
  EPOLLRDHUP,
  Errno,
  SO_ERROR,
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
  SOCKADDR_BYTES,
  setLingerZero,
  sockaddrWrite,
  socket,
  tcpInfo,
} from '../../../sys/socket.ts';
import type { HostChange, ListenerPlan } from '../../engine-plan.ts';
import type { Addressing } from '../../flow/addressing.ts';
import { FlowField } from '../../flow/flow-report.ts';
import { linkBytes, linkSlotA, linkSlotB, linkSlotOffset } from '../../link/descriptor.ts';
import {
  creditAcked,
  creditLimit,
  creditReadLimit,
  keepAliveSeconds,
  openRemoteAt,
  openRemotePort,
  openTcpTos,
  openZone,
  rewindBytes,
  rewindOffset,
  sendMark,
  sendUrgent,
  setTosFamily,
  setTosValue,
  ToHost,
} from '../../link/to-host.ts';
import { closedWrite, errorWrite, openedWrite, openFailedWrite } from '../../link/to-shard.ts';
import type { HostContext, SocketModule } from '../context.ts';
import { Outbound } from '../outbound.ts';
import { ConnectingList } from './connecting-list.ts';
import { HostKeepAlive } from './keep-alive.ts';
import { keepUrgentInline, StreamListeners, setStreamOptions, setTos } from './listeners.ts';
import { StreamReceiver } from './receiver.ts';
import { StreamSender } from './sender.ts';
import { type StreamEnding, StreamFlag, StreamTable } from './socket-table.ts';

const STREAM_EVENTS = EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP | EPOLLET;

/** With one of these a socket does not change lanes. */
const KEPT_BY_LANE =
  StreamFlag.connecting |
  StreamFlag.eofSent |
  StreamFlag.close |
  StreamFlag.sendFailed |
  StreamFlag.errorSent |
  StreamFlag.refused;
/** Flags that a socket takes along. */
const MOVES =
  StreamFlag.blocked |
  StreamFlag.peerDone |
  StreamFlag.finish |
  StreamFlag.finished |
  StreamFlag.bulk |
  StreamFlag.urgent;
/** In the state of a socket: above the flags. */
const REFUSALS_SHIFT = 16;

export class StreamSockets implements SocketModule, StreamEnding {
  readonly #ctx: HostContext;
  readonly #table: StreamTable;
  readonly #receiver: StreamReceiver;
  readonly #sender: StreamSender;
  readonly #listeners: StreamListeners;
  readonly #outbound: Outbound;
  readonly #connecting: ConnectingList;
  readonly #keepAlive = new HostKeepAlive();
  /** By gid: time of connect(), while it runs. */
  readonly #connectAtMs: Float64Array;
  readonly #sockaddr = new NativeBuffer(SOCKADDR_BYTES);

  /**
   * @param gids  flows of all shards
   * @param listeners  most listeners
   */
  constructor(ctx: HostContext, addressing: Addressing, gids: number, listeners: number) {
    this.#ctx = ctx;
    this.#table = new StreamTable(gids);
    this.#receiver = new StreamReceiver(ctx, this.#table, this, gids);
    this.#sender = new StreamSender(ctx, this.#table, this.#receiver, this, gids);
    this.#outbound = new Outbound(ctx.plan);
    this.#listeners = new StreamListeners(ctx, addressing, this.#outbound, listeners);
    this.#connecting = new ConnectingList(gids);
    this.#connectAtMs = new Float64Array(gids);
    ctx.shortage.onGiveWay((minAgeMs) => this.#giveUpOldest(minAgeMs));
  }

  /** HostIo.describe(). */
  describe(gid: number, rows: Float64Array, at: number): void {
    if (this.#table.flags[gid]! & StreamFlag.open)
      tcpInfo(this.#table.fd.get(gid), rows, at + FlowField.hostRttUs);
  }

  /** send, credit, openTcp, rewind, finish, close or reset, from a shard. Takes over the slots it brings. */
  command(op: number, words: Uint32Array, at: number, gid: number): void {
    const { flags } = this.#table;
    switch (op) {
      case ToHost.send:
        return this.#sender.enqueue(
          gid,
          linkSlotA(words, at),
          linkSlotB(words, at),
          linkSlotOffset(words, at),
          linkBytes(words, at),
          sendMark(words, at),
          sendUrgent(words, at),
        );
      case ToHost.credit:
        return this.#receiver.onCredit(
          gid,
          creditLimit(words, at),
          creditAcked(words, at),
          creditReadLimit(words, at),
        );
      case ToHost.openTcp:
        return this.#open(gid, words, at);
      case ToHost.rewind:
        return this.#receiver.onRewind(gid, rewindOffset(words, at), rewindBytes(words, at));
      case ToHost.setTos:
        if (flags[gid]! & StreamFlag.open)
          setTos(this.#table.fd.get(gid), setTosFamily(words, at), setTosValue(words, at));
        return;
      case ToHost.keepAlive:
        if (flags[gid]! & StreamFlag.open)
          this.#keepAlive.set(this.#table.fd.get(gid), keepAliveSeconds(words, at));
        return;
      case ToHost.finish:
        flags[gid]! |= StreamFlag.finish;
        return this.#sender.markDirty(gid);
      case ToHost.close:
        flags[gid]! |= StreamFlag.close;
        return this.#sender.markDirty(gid);
      case ToHost.reset:
        // After a failed connect() `closed` was sent already; the shard's reset crossed it on the way.
        if (!(flags[gid]! & StreamFlag.open)) return;
        // Bytes and RST in one round: a peer without an engine in between would get these bytes, too.
        this.#sender.sendNow(gid, this.#ctx.now);
        if (flags[gid]! & StreamFlag.open) this.closeNow(gid, true);
        return;
    }
  }

  /** The shard has made a flow for an accepted connection. @param fd  token of `accepted` */
  adopt(gid: number, fd: number): void {
    this.#listeners.answered(fd);
    this.#begin(gid, fd);
    this.#table.flags[gid]! |= StreamFlag.open;
    this.#receiver.enablePeekOffset(fd);
    this.#ctx.names?.note(gid, fd);
    const r = this.#ctx.watch(fd, gid, STREAM_EVENTS);
    if (r < 0) this.fail(gid, -r);
  }

  /**
   * Give a socket away, if it is connected, has nothing to send and its stream has not ended. The shard gets no
   * further message about it. Cold.
   * @param words,at  HOST_STATE_WORDS of its state are written from words[at] on, for takeOver()
   * @returns whether the socket was given away
   */
  release(gid: number, words: Uint32Array, at: number): boolean {
    const { fd: fds, flags } = this.#table;
    const had = flags[gid]!;
    if ((had & (StreamFlag.open | KEPT_BY_LANE)) !== StreamFlag.open || !this.#sender.isIdle(gid))
      return false;
    const fd = fds.get(gid);
    if (this.#ctx.unwatch(fd) < 0) return false;
    words[at] = fd;
    words[at + 1] = (had & MOVES) | (this.#sender.refusals(gid) << REFUSALS_SHIFT);
    this.#receiver.save(gid, words, at + 2);
    fds.clear(gid);
    flags[gid]! &= StreamFlag.dirty | StreamFlag.waitingForSlots;
    return true;
  }

  /** ToHost.takeOver: a socket that another lane has released. */
  takeOver(gid: number, words: Uint32Array, at: number): void {
    const fd = words[at]!;
    const { fd: fds, flags, sendErrno } = this.#table;
    fds.set(gid, fd);
    const listed = flags[gid]! & (StreamFlag.dirty | StreamFlag.waitingForSlots);
    flags[gid] = listed | (words[at + 1]! & MOVES) | StreamFlag.open | StreamFlag.readable;
    sendErrno[gid] = 0;
    this.#receiver.restore(gid, words, at + 2);
    this.#sender.restore(gid, words[at + 1]! >>> REFUSALS_SHIFT);
    this.#ctx.names?.note(gid, fd);
    // The first events come at once, if there is something to read or room to write.
    const r = this.#ctx.watch(fd, gid, STREAM_EVENTS);
    if (r < 0) this.fail(gid, -r);
    else this.#receiver.read(gid);
  }

  /**
   * The shard has no flow for an accepted connection: RST.
   * @param fd  token of `accepted`, which the first lane may have accepted for this one
   */
  refuse(fd: number): void {
    if (!this.#listeners.answered(fd) && !this.#ctx.areLanes) return;
    setLingerZero(fd);
    close(fd);
    this.#ctx.counters[Counter.sockClosed]!++;
  }

  #begin(gid: number, fd: number): void {
    this.#table.fd.set(gid, fd);
    this.#table.flags[gid] = 0;
    this.#table.sendErrno[gid] = 0;
    this.#receiver.begin(gid);
    this.#sender.begin(gid);
  }

  /** ToHost.openTcp: connect to the destination. */
  #open(gid: number, words: Uint32Array, at: number): void {
    const ctx = this.#ctx;
    const remoteAt = openRemoteAt(at);
    const domain = isV4Mapped(words, remoteAt) ? AF_INET : AF_INET6;
    const type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
    let fd = socket(domain, type, 0);
    if (fd < 0 && ctx.shortage.madeRoom(fd)) fd = socket(domain, type, 0);
    if (fd < 0) {
      ctx.shortage.reportShortage(fd);
      return this.#openFailed(gid, -fd);
    }
    this.#begin(gid, fd);
    ctx.counters[Counter.sockOpened]!++;
    setStreamOptions(fd);
    keepUrgentInline(fd);
    this.#receiver.enablePeekOffset(fd);
    const tos = openTcpTos(words, at);
    if (tos !== 0) setTos(fd, domain === AF_INET ? 4 : 6, tos);
    const outbound = this.#outbound;
    let r = outbound.bindDevice(fd, words, remoteAt);
    if (r >= 0) r = outbound.bindStream(fd, words, remoteAt);
    if (r < 0) return this.#openFailed(gid, -r);
    const scope = outbound.scopeOf(words, remoteAt, openZone(words, at));
    const len = sockaddrWrite(this.#sockaddr.u8, 0, words, remoteAt, openRemotePort(words, at), scope);
    r = connect(fd, this.#sockaddr.address, len);
    if (r < 0 && r !== -Errno.EINPROGRESS) return this.#openFailed(gid, -r);
    this.#table.flags[gid] = StreamFlag.open | StreamFlag.connecting;
    this.#connecting.append(gid);
    const e = ctx.watch(fd, gid, STREAM_EVENTS);
    if (e < 0) return this.#openFailed(gid, -e);
    this.#connectAtMs[gid] = ctx.now;
    if (r === 0) this.#onConnected(gid);
    else ctx.shortage.connecting(this.#connecting.count);
  }

  /** connect() has ended, with success or without. */
  #endConnecting(gid: number): void {
    const { flags } = this.#table;
    if (!(flags[gid]! & StreamFlag.connecting)) return;
    flags[gid]! &= ~StreamFlag.connecting;
    this.#connecting.remove(gid);
  }

  /**
   * DescriptorShortage.onGiveWay. The shard gets ENOBUFS, not EMFILE: closing this socket frees a descriptor,
   * so no other flow has to give way.
   */
  #giveUpOldest(minAgeMs: number): boolean {
    const gid = this.#connecting.oldest;
    if (gid < 0 || this.#ctx.now - this.#connectAtMs[gid]! < minAgeMs) return false;
    this.#openFailed(gid, Errno.ENOBUFS);
    return true;
  }

  /** @param errno  above zero */
  #openFailed(gid: number, errno: number): void {
    this.#endConnecting(gid);
    const { fd, flags } = this.#table;
    if (fd.has(gid)) {
      close(fd.get(gid));
      fd.clear(gid);
      this.#ctx.counters[Counter.sockClosed]!++;
    }
    flags[gid] = 0;
    const out = this.#ctx.toShard(gid);
    openFailedWrite(out, this.#flowOf(gid), errno);
    closedWrite(out, this.#flowOf(gid));
  }

  #onConnected(gid: number): void {
    const us = (this.#ctx.now - this.#connectAtMs[gid]!) * 1000;
    recordHistogram(this.#ctx.counters, Histogram.hostConnect, us);
    this.#endConnecting(gid);
    this.#ctx.names?.note(gid, this.#table.fd.get(gid));
    openedWrite(this.#ctx.toShard(gid), this.#flowOf(gid));
  }

  #flowOf(gid: number): number {
    return gid % this.#ctx.flowsPerShard;
  }

  onEvents(gid: number, events: number): void {
    if (gid >= this.#ctx.listenerBase) return this.#listeners.accept(gid);
    const { fd, flags, sendErrno } = this.#table;
    if (!(flags[gid]! & StreamFlag.open)) return;
    if (flags[gid]! & StreamFlag.connecting) {
      if (!(events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) return;
      // A socket with an error raises EPOLLERR or EPOLLHUP (tcp_poll): EPOLLOUT alone is success, and needs
      // no getsockopt().
      const errno = events & (EPOLLERR | EPOLLHUP) ? getsockoptInt(fd.get(gid), SOL_SOCKET, SO_ERROR) : 0;
      if (errno !== 0 && errno !== Errno.ECONNRESET) return this.#openFailed(gid, Math.abs(errno));
      this.#onConnected(gid);
      if (errno === Errno.ECONNRESET) {
        // The connection was established, and reset before this event: the guest gets the handshake, the
        // bytes that came in between, and then the RST.
        flags[gid]! |= StreamFlag.readable | StreamFlag.sendFailed | StreamFlag.peerDone;
        sendErrno[gid] = errno;
        return;
      }
    }
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) flags[gid]! |= StreamFlag.peerDone;
    if (events & EPOLLPRI) this.#receiver.onUrgent(gid);
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
      flags[gid]! |= StreamFlag.readable;
      this.#receiver.read(gid);
    }
    if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP) && flags[gid]! & StreamFlag.blocked) {
      flags[gid]! &= ~StreamFlag.blocked;
      this.#sender.markDirty(gid);
    }
  }

  onReady(gid: number): void {
    if (gid >= this.#ctx.listenerBase) this.#listeners.accept(gid);
    else if (this.#table.flags[gid]! & StreamFlag.open) this.#receiver.read(gid);
  }

  /** The socket has failed. The shard answers with `reset`; until then it gets nothing more of the socket. */
  fail(gid: number, errno: number): void {
    const { flags } = this.#table;
    if (flags[gid]! & StreamFlag.errorSent) return;
    flags[gid]! |= StreamFlag.errorSent;
    errorWrite(this.#ctx.toShard(gid), this.#flowOf(gid), errno);
    // The shard has closed this flow already and sends no `reset`: only queued bytes kept the socket open.
    if (flags[gid]! & StreamFlag.close) this.closeNow(gid, true);
  }

  /** Close the socket, if it is open, and tell the shard. @param reset  with RST */
  closeNow(gid: number, reset: boolean): void {
    const { fd: fds, flags } = this.#table;
    this.#endConnecting(gid);
    if (flags[gid]! & StreamFlag.open) {
      const fd = fds.get(gid);
      this.#sender.end(gid);
      // close() answers bytes that are left in the receive queue with RST (RFC 2525 section 2.17), so the
      // acknowledged ones are taken out first.
      if (reset) setLingerZero(fd);
      else this.#receiver.consumeAcked(gid);
      close(fd);
      fds.clear(gid);
      flags[gid]! &= StreamFlag.dirty | StreamFlag.waitingForSlots;
      this.#ctx.counters[Counter.sockClosed]!++;
    }
    closedWrite(this.#ctx.toShard(gid), this.#flowOf(gid));
  }

  /**
   * End of the round: send, read on where slots had run out, accept where descriptors had.
   * @param now  monotonic milliseconds
   * @returns sockets handled
   */
  flush(now: number): number {
    const n = this.#sender.flush(now) + this.#receiver.resume();
    if (now >= this.#listeners.retryAt) this.#listeners.retry();
    return n;
  }

  /** @returns milliseconds until flush() has to be called even if no event comes */
  sleepMs(now: number): number {
    const at = this.#sender.nextFlushMs;
    return at === 0 ? 0 : Math.min(at, this.#listeners.retryAt) - now;
  }

  /** Listen for a published port. @param index  listener number @returns 0 or -errno */
  listen(index: number, plan: ListenerPlan, port = plan.port): number {
    return this.#listeners.listen(index, plan, port);
  }

  /** Stop listening; accepted connections stay. */
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
    const { fd } = this.#table;
    fd.each((gid) => {
      setLingerZero(fd.get(gid));
      close(fd.get(gid));
      fd.clear(gid);
    });
  }
}
