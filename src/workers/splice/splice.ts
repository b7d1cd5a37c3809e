/**
 * The splice stage: what goes between the host's loopback and the guest's, socket to socket, past the TAP. It runs on host-io's
 * thread, which accepts for published ports and hands loopback peers over by a call; listeners inside (for the way out) are the
 * stage's own. Sockets inside come from the thread that lives there (socket-source.ts).
 *
 *     peer on 127.0.0.1 ──▶ published port ──▶ host-io ──takeStream──▶ splice ──▶ socket inside ──▶ guest's address
 *     program inside on 127.0.0.1 ──▶ listener inside (device lo) ──▶ splice ──▶ socket on the host ──▶ the same address
 */
import { isLoopback, isV4Mapped } from '../../proto/address.ts';
import {
  AF_INET,
  AF_INET6,
  EPOLLET,
  EPOLLIN,
  Errno,
  errnoName,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOCK_STREAM,
} from '../../sys/constants.ts';
import { close } from '../../sys/io.ts';
import { NativeBuffer } from '../../sys/memory.ts';
import {
  accept4,
  getsockname,
  listen,
  SOCKADDR_BYTES,
  setLingerZero,
  sockaddrRead,
  socket,
} from '../../sys/socket.ts';
import type { EnginePlan, ListenerPlan, SplicePlan } from '../engine-plan.ts';
import { openListener } from '../host-io/bind-address.ts';
import type { LoopbackPath } from '../host-io/context.ts';
import { targetPort } from '../host-io/listener-table.ts';
import type { Stage } from '../stage.ts';
import { Addressing } from '../translator/addressing.ts';
import { SocketKind, SocketSource } from './socket-source.ts';
import { StreamSplice } from './stream-splice.ts';

/** Most connections at a time: each takes six descriptors. */
const CONNECTIONS = 65536;
const BACKLOG = 128;
const ACCEPTS_A_ROUND = 64;
/** How long the start may wait for the thread inside to have entered the namespace. */
const START_WAIT_MS = 5000;

export interface SpliceOptions {
  readonly plan: EnginePlan;
  readonly splice: SplicePlan;
  readonly counters: Float64Array;
  /** Wakes this thread. */
  readonly bellFd: number;
  /** Register a descriptor; events come to onStream(token, events) or onListener(token). */
  watchStream(fd: number, token: number, events: number): number;
  watchListener(fd: number, token: number, events: number): number;
  log(level: 'error' | 'warning' | 'info' | 'debug', text: string): void;
}

/** A listener inside. */
interface Inside {
  readonly fd: number;
  readonly plan: ListenerPlan;
  readonly targetPort: number;
}

export class Splice implements Stage, LoopbackPath {
  readonly name = 'splice';
  readonly #o: SpliceOptions;
  readonly #addressing: Addressing;
  readonly #source: SocketSource;
  readonly #streams: StreamSplice;
  readonly #inside = new Map<number, Inside>();
  readonly #acceptMore = new Set<number>();
  /** Peer 0..3, local 4..7. */
  readonly #words = new Uint32Array(8);
  readonly #sockaddr = new NativeBuffer(SOCKADDR_BYTES);
  readonly #sockaddrLen = new NativeBuffer(8);

  constructor(options: SpliceOptions) {
    this.#o = options;
    this.#addressing = new Addressing(options.plan.addresses);
    this.#source = new SocketSource(options.splice.sockets, options.bellFd);
    this.#source.prepare(SocketKind.tcp4);
    this.#source.prepare(SocketKind.tcp6);
    this.#streams = new StreamSplice({
      capacity: CONNECTIONS,
      counters: options.counters,
      watch: options.watchStream,
      socketFor: (toGuest, isV4) =>
        toGuest
          ? this.#source.take(isV4 ? SocketKind.tcp4 : SocketKind.tcp6)
          : socket(isV4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
    });
  }

  takeStream(fd: number, words: Uint32Array, port: number): void {
    const isV4 = isV4Mapped(words, 0);
    if (!this.#o.splice.hostLoToNsLo || !this.#localAddress(fd)) this.#guestAddress(isV4);
    this.#streams.take(fd, true, this.#words, 4, port);
  }

  /** The address that the peer connected to, into words[4..7]. */
  #localAddress(fd: number): boolean {
    this.#sockaddrLen.u32[0] = SOCKADDR_BYTES;
    if (getsockname(fd, this.#sockaddr.address, this.#sockaddrLen.address) < 0) return false;
    return sockaddrRead(this.#sockaddr.u8, 0, this.#words, 4) >= 0 && isLoopback(this.#words, 4);
  }

  /** The guest's own address, into words[4..7]; its loopback where it has none that can be used without a scope. */
  #guestAddress(isV4: boolean): void {
    const { guest } = this.#addressing;
    const at = isV4 ? 0 : 4;
    const isKnown = guest[at + 3] !== 0 && (isV4 || guest[at]! >>> 22 !== 0xfe80 >>> 6);
    for (let i = 0; i < 4; i++) this.#words[4 + i] = isKnown ? guest[at + i]! : 0;
    if (isKnown) return;
    this.#words[6] = isV4 ? 0xffff : 0;
    this.#words[7] = isV4 ? 0x7f00_0001 : 1;
  }

  // ------------------------------------------------------------------------------------------ listeners inside

  openListener(id: number, plan: ListenerPlan, port: number): number {
    const stream = plan.proto === 'tcp';
    if (!stream) return -Errno.EOPNOTSUPP;
    const fd = openListener(plan, port, stream ? SOCK_STREAM : SOCK_DGRAM, (domain, type) =>
      this.#source.takeWaiting(kindOf(domain, type), START_WAIT_MS),
    );
    if (fd < 0) return fd;
    let r = listen(fd, BACKLOG);
    if (r >= 0) r = this.#o.watchListener(fd, id, EPOLLIN | EPOLLET);
    if (r < 0) {
      close(fd);
      return r;
    }
    this.#inside.set(id, { fd, plan, targetPort: targetPort(plan, port) });
    return 0;
  }

  closeListener(id: number): void {
    const inside = this.#inside.get(id);
    if (inside === undefined) return;
    this.#inside.delete(id);
    this.#acceptMore.delete(id);
    close(inside.fd);
  }

  onListener(id: number): void {
    const inside = this.#inside.get(id);
    if (inside === undefined) return;
    this.#acceptMore.delete(id);
    for (let n = 0; n < ACCEPTS_A_ROUND; n++) {
      this.#sockaddrLen.u32[0] = SOCKADDR_BYTES;
      const fd = accept4(
        inside.fd,
        this.#sockaddr.address,
        this.#sockaddrLen.address,
        SOCK_NONBLOCK | SOCK_CLOEXEC,
      );
      if (fd === -Errno.EAGAIN) return;
      if (fd === -Errno.ECONNABORTED || fd === -Errno.EINTR || fd === -Errno.EPROTO) continue;
      if (fd < 0) {
        // No edge will tell of what waits in the backlog: poll() comes back for it.
        this.#o.log('warning', `accept on port ${inside.plan.port} inside: ${errnoName(-fd)}`);
        break;
      }
      sockaddrRead(this.#sockaddr.u8, 0, this.#words, 0);
      // Only loopback may come out, and it comes out at the same address.
      if (!isLoopback(this.#words, 0) || !this.#localAddress(fd)) {
        setLingerZero(fd);
        close(fd);
        continue;
      }
      this.#streams.take(fd, false, this.#words, 4, inside.targetPort);
    }
    this.#acceptMore.add(id);
  }

  onStream(end: number, events: number): void {
    this.#streams.onEvents(end, events);
  }

  // ------------------------------------------------------------------------------------------------- the stage

  hasInput(): boolean {
    return this.#streams.hasReady;
  }

  sleepMs(): number {
    if (this.#streams.hasReady) return 0;
    return this.#acceptMore.size > 0 ? ACCEPT_AGAIN_MS : Number.POSITIVE_INFINITY;
  }

  poll(): number {
    for (const id of this.#acceptMore) this.onListener(id);
    return this.#streams.poll();
  }

  close(): void {
    for (const { fd } of this.#inside.values()) close(fd);
    this.#inside.clear();
    this.#streams.closeAll();
  }
}

/** A backlog that could not be taken, for want of descriptors, is looked at again after so long. */
const ACCEPT_AGAIN_MS = 100;

function kindOf(domain: number, type: number): SocketKind {
  if (type === SOCK_STREAM) return domain === AF_INET ? SocketKind.tcp4 : SocketKind.tcp6;
  return domain === AF_INET ? SocketKind.udp4 : SocketKind.udp6;
}
