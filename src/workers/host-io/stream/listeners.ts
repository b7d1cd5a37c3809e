/**
 * Listeners of published TCP ports: a connection is accepted, announced to the shard of its flow
 * (`accepted`), and passes to the streams with the shard's `adopt`. What comes from the host's loopback may
 * go past the TAP instead (LoopbackPath).
 */
import { isLoopback, isV4Mapped } from '../../../proto/address.ts';
import { Counter } from '../../../ring/counters.ts';
import {
  EPOLLET,
  EPOLLIN,
  Errno,
  errnoName,
  IPPROTO_TCP,
  SO_KEEPALIVE,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_STREAM,
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
import { Notice } from '../../thread/notices.ts';
import type { HostContext } from '../context.ts';
import type { Outbound } from '../outbound.ts';

/** Of a listener; `set`: connections accepted before its queue was next empty may still lack them. */
const ListenOptions = { none: 0, set: 1, inherited: 2 } as const;
type ListenOptions = (typeof ListenOptions)[keyof typeof ListenOptions];

/** Room for accepted descriptors to begin with; it doubles. */
const FIRST_DESCRIPTORS = 4096;

const ACCEPTS_PER_ROUND = 64;
const BACKLOG = 1024;
/** Until a descriptor may be free again. */
const RETRY_MS = 100;

export class StreamListeners {
  readonly #ctx: HostContext;
  readonly #addressing: Addressing;
  readonly #outbound: Outbound;
  // By listener. Sparse while there are few.
  readonly #fd: number[] = [];
  readonly #plan: ListenerPlan[] = [];
  readonly #target: number[] = [];
  readonly #options: ListenOptions[] = [];
  /**
   * Accepted descriptors that no shard has answered for yet: 1 at the descriptor's index. No Set: one that is
   * filled and emptied again makes a new table every few connections, the most of what a packet thread left
   * to the garbage collector (perf/notes.md).
   */
  #pending = new Uint8Array(FIRST_DESCRIPTORS);
  /** Listeners that ran out of descriptors in the middle of accepting. */
  readonly #acceptLater = new Set<number>();
  #retryAt = Number.POSITIVE_INFINITY;
  readonly #sockaddr = new NativeBuffer(SOCKADDR_BYTES);
  readonly #sockaddrLen = new NativeBuffer(8);
  readonly #words = new Uint32Array(8);
  readonly #guest = new Uint32Array(4);

  constructor(ctx: HostContext, addressing: Addressing, outbound: Outbound) {
    this.#ctx = ctx;
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
    let r = listen(fd, BACKLOG);
    if (r >= 0) r = ctx.watch(fd, ctx.listenerBase + index, EPOLLIN | EPOLLET);
    if (r < 0) {
      close(fd);
      return r;
    }
    this.#fd[index] = fd;
    this.#plan[index] = plan;
    this.#target[index] = targetPort(plan, port);
    this.#options[index] = ListenOptions.none;
    return 0;
  }

  /** Stop listening; connections stay. */
  unlisten(index: number): void {
    close(this.#fd[index]!);
    delete this.#fd[index];
    delete this.#plan[index];
    delete this.#options[index];
    this.#acceptLater.delete(this.#ctx.listenerBase + index);
  }

  /** Take what waits in a listener's queue, so many a round. */
  accept(gid: number): void {
    const ctx = this.#ctx;
    const index = gid - ctx.listenerBase;
    const listener = this.#fd[index];
    const plan = this.#plan[index];
    if (listener === undefined || plan === undefined) return;
    for (let n = 0; n < ACCEPTS_PER_ROUND; n++) {
      this.#sockaddrLen.u32[0] = SOCKADDR_BYTES;
      const fd = accept4(
        listener,
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
          // The connection waits in the backlog; the edge is gone, so come back when a descriptor may be
          // free.
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
      this.#announce(fd, index, listener, plan, port);
    }
    ctx.markReady(gid);
  }

  /** Descriptors ran out in the middle of accepting. */
  #retryAccept(gid: number): void {
    this.#acceptLater.add(gid);
    this.#retryAt = Math.min(this.#retryAt, this.#ctx.now + RETRY_MS);
  }

  /** When retry() wants to be called, monotonic milliseconds. */
  get retryAt(): number {
    return this.#retryAt;
  }

  /** Go on accepting where descriptors had run out. */
  retry(): void {
    for (const gid of this.#acceptLater) this.#ctx.markReady(gid);
    this.#acceptLater.clear();
    this.#retryAt = Number.POSITIVE_INFINITY;
  }

  /**
   * Tell the shard of a new connection, whose peer is this.#words[0..3]; it answers by `adopt` or `refuse`.
   */
  #announce(fd: number, index: number, listener: number, plan: ListenerPlan, peerPort: number): void {
    const ctx = this.#ctx;
    const addressing = this.#addressing;
    const words = this.#words;
    const target = this.#target[index]!;
    if (plan.path === 'splice' && ctx.loopback !== undefined && isLoopback(words, 0)) {
      return ctx.loopback.takeStream(fd, words, target);
    }
    const v4 = isV4Mapped(words, 0);
    addressing.fromHost(words, 0, words, 4);
    const guest = this.#guest;
    if (!listenerGuest(plan, addressing, words, 4, guest)) {
      // Nobody inside speaks this family.
      setLingerZero(fd);
      close(fd);
      return;
    }
    this.#configureAccepted(fd, index, listener);
    const ports = ((target << 16) | peerPort) >>> 0;
    const hash = flowHash(ctx.plan.hashKey, guest, 0, words, 4, ports, IPPROTO_TCP);
    this.#await(fd);
    ctx.counters[Counter.sockOpened]!++;
    const out = ctx.shardLink(ctx.shardOfHash(hash));
    const peerAndTarget = ((peerPort << 16) | target) >>> 0;
    acceptedWrite(out, fd, v4 ? 4 : 6, peerAndTarget, hash, words, 4, guest, 0);
  }

  /**
   * A socket begins as a copy of its listener (sk_clone), which saves two calls a connection. The listener
   * gets the options with its first connection: most of many published ports never see one. Those that waited
   * in its queue by then are copies of before. SO_PEEK_OFF is not left to that: a copy made just before,
   * queued just after, would be read wrongly, not only a little later.
   */
  #configureAccepted(fd: number, index: number, listener: number): void {
    const options = this.#options[index];
    if (options === ListenOptions.inherited) return;
    setStreamOptions(fd);
    if (options !== ListenOptions.none) return;
    setStreamOptions(listener);
    this.#options[index] = ListenOptions.set;
  }

  /** The shard has answered for an accepted descriptor. @returns whether it was one that waited */
  answered(fd: number): boolean {
    const waited = this.#pending[fd] === 1;
    if (waited) this.#pending[fd] = 0;
    return waited;
  }

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
    // forEach passes the holes over.
    this.#fd.forEach((fd) => void close(fd));
  }
}

/** Options that every stream of a flow has. */
export function setStreamOptions(fd: number): void {
  // The guest's stack has applied Nagle's algorithm already; a second one would only add delay.
  setsockoptInt(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  setsockoptInt(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
}
