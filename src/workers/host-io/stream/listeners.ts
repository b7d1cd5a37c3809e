/**
 * Listeners of published TCP ports. A connection is accepted and announced to the shard of its flow
 * (`accepted`); with the shard's `adopt` StreamSockets takes it over. Connections from the host's loopback
 * may go to the splice stage instead (LoopbackPath).
 */
import { isLoopback, isV4Mapped } from '../../../proto/address.ts';
import { Counter } from '../../../ring/counters.ts';
import {
  EPOLLET,
  EPOLLIN,
  Errno,
  errnoName,
  IP_TOS,
  IPPROTO_TCP,
  IPV6_TCLASS,
  SO_KEEPALIVE,
  SO_OOBINLINE,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_STREAM,
  SOL_IP,
  SOL_IPV6,
  SOL_SOCKET,
  TCP_NODELAY,
} from '../../../sys/constants.ts';
import { close } from '../../../sys/io.ts';
import { NativeBuffer } from '../../../sys/memory.ts';
import {
  accept4,
  listen,
  SOCKADDR_BYTES,
  setLingerZero,
  setsockoptInt,
  sockaddrRead,
} from '../../../sys/socket.ts';
import type { ListenerPlan } from '../../engine-plan.ts';
import type { Addressing } from '../../flow/addressing.ts';
import { flowHash } from '../../flow/flow-hash.ts';
import { acceptedWrite } from '../../link/to-shard.ts';
import { listenerGuest, openListener } from '../../listen/bind-address.ts';
import { targetPort } from '../../listen/listener-table.ts';
import { DescriptorTable } from '../../thread/descriptor-table.ts';
import { Notice } from '../../thread/notices.ts';
import type { HostContext } from '../context.ts';
import type { Outbound } from '../outbound.ts';

/**
 * Whether a listener has the options of setStreamOptions(). `set`: connections in its queue may lack them;
 * `inherited`: every connection in its queue has them.
 */
const ListenOptions = { none: 0, set: 1, inherited: 2 } as const;
type ListenOptions = (typeof ListenOptions)[keyof typeof ListenOptions];

/** First length of #pending, which doubles as needed. */
const FIRST_DESCRIPTORS = 4096;

const ACCEPTS_PER_ROUND = 64;
const BACKLOG = 1024;
/** Accepting is tried again after this time when no descriptor was free. */
const RETRY_MS = 100;

export class StreamListeners {
  readonly #ctx: HostContext;
  readonly #addressing: Addressing;
  readonly #outbound: Outbound;
  // By listener.
  readonly #fd: DescriptorTable;
  // Sparse arrays: most hosts publish few of the possible ports.
  readonly #plan: ListenerPlan[] = [];
  readonly #target: number[] = [];
  readonly #options: ListenOptions[] = [];
  /**
   * By descriptor: 1: accepted, and the shard has not answered yet. Not a Set: a Set that is filled and
   * emptied allocates a new table every few connections, which was most of a packet thread's garbage
   * (perf/notes.md).
   */
  #pending = new Uint8Array(FIRST_DESCRIPTORS);
  /** gids of listeners that could not accept for lack of descriptors. */
  readonly #acceptLater = new Set<number>();
  #retryAt = Number.POSITIVE_INFINITY;
  readonly #sockaddr = new NativeBuffer(SOCKADDR_BYTES);
  readonly #sockaddrLen = new NativeBuffer(8);
  readonly #words = new Uint32Array(8);
  readonly #guest = new Uint32Array(4);

  /** @param listeners  most of them */
  constructor(ctx: HostContext, addressing: Addressing, outbound: Outbound, listeners: number) {
    this.#ctx = ctx;
    this.#fd = new DescriptorTable(listeners);
    this.#addressing = addressing;
    this.#outbound = outbound;
  }

  /**
   * Listen for a published port.
   * @param index  listener number; its gid is listenerBase + index
   * @returns 0 or -errno
   */
  listen(index: number, plan: ListenerPlan, port = plan.port): number {
    const ctx = this.#ctx;
    const fd = openListener(plan, port, SOCK_STREAM, ctx.plan.policy.freebind, this.#outbound);
    if (fd < 0) return fd;
    let r = keepUrgentInline(fd);
    if (r >= 0) r = listen(fd, BACKLOG);
    if (r >= 0) r = ctx.watch(fd, ctx.listenerBase + index, EPOLLIN | EPOLLET);
    if (r < 0) {
      close(fd);
      return r;
    }
    this.#fd.set(index, fd);
    this.#plan[index] = plan;
    this.#target[index] = targetPort(plan, port);
    this.#options[index] = ListenOptions.none;
    return 0;
  }

  /** Stop listening; accepted connections stay. */
  unlisten(index: number): void {
    close(this.#fd.get(index));
    this.#fd.clear(index);
    delete this.#plan[index];
    delete this.#options[index];
    this.#acceptLater.delete(this.#ctx.listenerBase + index);
  }

  /** Accept connections from a listener's queue, at most ACCEPTS_PER_ROUND. */
  accept(gid: number): void {
    const ctx = this.#ctx;
    const index = gid - ctx.listenerBase;
    const listenerFd = this.#fd.get(index);
    const plan = this.#plan[index];
    if (plan === undefined) return;
    for (let n = 0; n < ACCEPTS_PER_ROUND; n++) {
      this.#sockaddrLen.u32[0] = SOCKADDR_BYTES;
      const fd = accept4(
        listenerFd,
        this.#sockaddr.address,
        this.#sockaddrLen.address,
        SOCK_NONBLOCK | SOCK_CLOEXEC,
      );
      if (fd < 0) {
        if (fd === -Errno.EAGAIN) {
          if (this.#options[index] === ListenOptions.set) this.#options[index] = ListenOptions.inherited;
          return;
        }
        if (ctx.shortage.madeRoom(fd)) continue;
        if (ctx.shortage.reportShortage(fd)) {
          // The connection stays in the backlog and raises no new edge: try again later.
          this.#retryAccept(gid);
          return;
        }
        if (fd === -Errno.ECONNABORTED || fd === -Errno.EINTR || fd === -Errno.EPROTO) continue;
        ctx.notices.tell(
          Notice.acceptFailed,
          'warning',
          `accept on published port ${plan.port}: ${errnoName(-fd)}`,
        );
        return;
      }
      const port = sockaddrRead(this.#sockaddr.u8, 0, this.#words, 0);
      this.#announce(fd, index, listenerFd, plan, port);
    }
    ctx.markReady(gid);
  }

  /** No descriptor was free: accept later. */
  #retryAccept(gid: number): void {
    this.#acceptLater.add(gid);
    this.#retryAt = Math.min(this.#retryAt, this.#ctx.now + RETRY_MS);
  }

  /** When retry() has to be called, monotonic milliseconds; infinity: not at all. */
  get retryAt(): number {
    return this.#retryAt;
  }

  /** Mark the listeners ready that could not accept for lack of descriptors. */
  retry(): void {
    for (const gid of this.#acceptLater) this.#ctx.markReady(gid);
    this.#acceptLater.clear();
    this.#retryAt = Number.POSITIVE_INFINITY;
  }

  /**
   * Announce an accepted connection to its shard, which answers with `adopt` or `refuse`. The peer's address
   * is in this.#words[0..3].
   */
  #announce(fd: number, index: number, listenerFd: number, plan: ListenerPlan, peerPort: number): void {
    const ctx = this.#ctx;
    const addressing = this.#addressing;
    const words = this.#words;
    const target = this.#target[index]!;
    if (plan.path === 'splice' && ctx.loopback !== undefined && isLoopback(words, 0)) {
      return ctx.loopback.takeStream(fd, words, target);
    }
    const isV4 = isV4Mapped(words, 0);
    addressing.fromHost(words, 0, words, 4);
    const guest = this.#guest;
    if (!listenerGuest(plan, addressing, words, 4, guest)) {
      // The guest has no address of this family.
      setLingerZero(fd);
      close(fd);
      return;
    }
    this.#configureAccepted(fd, index, listenerFd);
    const ports = ((target << 16) | peerPort) >>> 0;
    const hash = flowHash(ctx.plan.hashKey, guest, 0, words, 4, ports, IPPROTO_TCP);
    if (!ctx.areLanes) this.#await(fd);
    ctx.counters[Counter.sockOpened]!++;
    const out = ctx.streamShard(hash);
    const peerAndTarget = ((peerPort << 16) | target) >>> 0;
    acceptedWrite(out, fd, isV4 ? 4 : 6, peerAndTarget, hash, words, 4, guest, 0);
  }

  /**
   * Set the options of an accepted socket, unless it has inherited them. An accepted socket is a copy of its
   * listener (sk_clone), so options on the listener save two calls per connection. The listener gets them
   * with its first connection, because most ports of a large range never have one; connections in the queue
   * by then were copied before and lack them. A connection that was copied just before and queued after
   * `inherited` lacks them too. These options may be missing, SO_PEEK_OFF may not (the stream would be read
   * wrongly): it is set on each socket.
   */
  #configureAccepted(fd: number, index: number, listenerFd: number): void {
    const options = this.#options[index];
    if (options === ListenOptions.inherited) return;
    setStreamOptions(fd);
    if (options !== ListenOptions.none) return;
    setStreamOptions(listenerFd);
    this.#options[index] = ListenOptions.set;
  }

  /** The shard has answered for an accepted descriptor. @returns whether the answer was expected */
  answered(fd: number): boolean {
    const waited = this.#pending[fd] === 1;
    if (waited) this.#pending[fd] = 0;
    return waited;
  }

  /** Record that the shard has to answer for a descriptor. */
  #await(fd: number): void {
    if (fd >= this.#pending.length) {
      const grown = new Uint8Array(2 ** Math.ceil(Math.log2(fd + 1)));
      grown.set(this.#pending);
      this.#pending = grown;
    }
    this.#pending[fd] = 1;
  }

  /** The engine ends. */
  closeAll(): void {
    for (let fd = 0; fd < this.#pending.length; fd++) if (this.#pending[fd] === 1) close(fd);
    this.#fd.each((i) => close(this.#fd.get(i)));
  }
}

/** Set the options that every stream socket of a flow has. */
export function setStreamOptions(fd: number): void {
  // The guest's stack has applied Nagle's algorithm already; a second time would only add delay.
  setsockoptInt(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  setsockoptInt(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
}

/**
 * Keep urgent bytes in the stream. Otherwise a peek would leave them out, and the stream offsets would be
 * wrong from there on. Accepted sockets inherit the option. @returns 0 or -errno
 */
export const keepUrgentInline = (fd: number): number => setsockoptInt(fd, SOL_SOCKET, SO_OOBINLINE, 1);

/**
 * Set the DSCP of a stream socket's segments; the kernel leaves ECN as it is. A failure has no other effect.
 * @param family  of the connection's addresses: an AF_INET6 socket takes SOL_IP's options too
 * @param tos  DSCP << 2
 */
export function setTos(fd: number, family: 4 | 6, tos: number): void {
  if (family === 4) setsockoptInt(fd, SOL_IP, IP_TOS, tos);
  else setsockoptInt(fd, SOL_IPV6, IPV6_TCLASS, tos);
}
