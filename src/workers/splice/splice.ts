/**
 * The splice stage: connections and datagrams between the host's loopback and the guest's, socket to socket,
 * bypassing the TAP. It runs on host-io's thread. host-io accepts for published ports and hands over
 * connections of loopback peers by a call (LoopbackPath); the stage has its own listeners in the guest's
 * namespace for the other direction. A thread in that namespace opens the sockets there (socket-source.ts).
 *
 *     host 127.0.0.1 ──▶ published port ──▶ host-io ──▶ splice ──▶ socket inside ──▶ guest's address
 *     guest 127.0.0.1 ──▶ listener inside (device lo) ──▶ splice ──▶ socket on the host ──▶ same address
 */
import {
  addressCopy,
  addressSetLoopback,
  familyAt,
  familyOf,
  isLinkLocal,
  isLoopback,
  isV4Mapped,
} from '../../proto/address.ts';
import { Counter, DROP_BASE } from '../../ring/counters.ts';
import { localAddressOf } from '../../sys/cmsg.ts';
import {
  AF_INET,
  AF_INET6,
  EPOLLET,
  EPOLLIN,
  Errno,
  errnoName,
  IP_PKTINFO,
  IPV6_RECVPKTINFO,
  MSG_DONTWAIT,
  MSG_TRUNC,
  SO_DOMAIN,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOCK_STREAM,
  SOL_IP,
  SOL_IPV6,
  SOL_SOCKET,
} from '../../sys/constants.ts';
import { close } from '../../sys/io.ts';
import { NativeBuffer } from '../../sys/memory.ts';
import {
  accept4,
  getsockoptInt,
  IOVEC_BYTES,
  iovecWrite,
  listen,
  localAddress,
  MMSGHDR_BYTES,
  MMSGHDR_LEN_WORD,
  MMSGHDR_WORDS,
  MSGHDR_CONTROLLEN_WORD,
  MSGHDR_FLAGS_WORD,
  msghdrControlWrite,
  msghdrWrite,
  NAME_BYTES,
  recvmmsg,
  SOCKADDR_BYTES,
  setLingerZero,
  setsockoptInt,
  sockaddrRead,
  socket,
} from '../../sys/socket.ts';
import type { EgressPlan, EnginePlan, ListenerPlan, SplicePlan } from '../engine-plan.ts';
import { Addressing, Destination } from '../flow/addressing.ts';
import { Egress } from '../flow/egress.ts';
import { EgressProto } from '../flow/egress-policy.ts';
import type { FlowSource } from '../flow/flow-report.ts';
import type { LoopbackDatagram, LoopbackPath } from '../link/loopback.ts';
import { StageDrop } from '../link/stage-drop.ts';
import { openListener } from '../listen/bind-address.ts';
import { targetPort } from '../listen/listener-table.ts';
import { DescriptorShortage } from '../thread/descriptor-shortage.ts';
import { Notice, type Notices } from '../thread/notices.ts';
import type { Carried, Stage } from '../thread/stage.ts';
import { type DatagramOrigin, DatagramSplice } from './datagram-splice.ts';
import { SocketKind, SocketSource } from './socket-source.ts';
import { StreamSplice } from './stream-splice.ts';

/** Most connections at the same time; each has six descriptors. */
const CONNECTIONS = 65536;
const BACKLOG = 128;
const ACCEPTS_PER_ROUND = 64;
const DATAGRAM_FLOWS = 16384;
/**
 * A new UDP flow waits at most this long for a socket of the thread inside, which opens 32 sockets in a tenth
 * of this time.
 */
const SOCKET_WAIT_MS = 5;
/** Most datagrams from inside per recvmmsg. */
const BATCH = 16;
const DATAGRAM_BYTES = 65536;
const CONTROL_BYTES = 64;
/** The start waits at most this long for the thread inside to enter the namespace. */
const START_WAIT_MS = 5000;

export interface SpliceOptions {
  readonly plan: EnginePlan;
  /** Addressing.seen, shared with the shards. */
  readonly seen?: Uint32Array | undefined;
  readonly splice: SplicePlan;
  readonly counters: Float64Array;
  /** eventfd that wakes this thread. */
  readonly bellFd: number;
  // Register a descriptor with epoll; events come to onStream(token, events), onFlow(token) or
  // onListener(token). They return 0 or -errno.
  watchStream(fd: number, token: number, events: number): number;
  watchFlow(fd: number, token: number, events: number): number;
  watchListener(fd: number, token: number, events: number): number;
  readonly notices: Notices;
}

/** A listener in the guest's namespace. */
interface InsideListener {
  readonly fd: number;
  readonly isV6: boolean;
  readonly plan: ListenerPlan;
  readonly targetPort: number;
}

export class Splice implements Stage, LoopbackPath {
  readonly name = 'splice';
  readonly #o: SpliceOptions;
  readonly #addressing: Addressing;
  readonly #source: SocketSource;
  readonly #egress: Egress;
  readonly #shortage: DescriptorShortage;
  readonly #streams: StreamSplice;
  readonly #datagrams: DatagramSplice;
  readonly #origin: DatagramOrigin = {
    listenerFd: -1,
    listenerId: 0,
    listenerV6: false,
    toGuest: true,
    peerPort: 0,
    targetPort: 0,
    words: new Uint32Array(12),
  };
  /** For datagrams from inside; allocated with the first UDP listener. */
  #inbox: Inbox | null = null;
  /** Listeners inside, by number. */
  readonly #inside = new Map<number, InsideListener>();
  /** Listeners with more connections or datagrams than a round allowed. */
  readonly #acceptMore = new Set<number>();
  /** Scratch: peer 0..3, local or destination address 4..7. */
  readonly #words = new Uint32Array(8);
  readonly #sockaddr = new NativeBuffer(SOCKADDR_BYTES);
  readonly #sockaddrLen = new NativeBuffer(8);

  constructor(options: SpliceOptions) {
    this.#o = options;
    this.#addressing = new Addressing(options.plan.addresses, options.plan.policy, options.seen);
    this.#source = new SocketSource(options.splice.sockets, options.bellFd);
    this.#source.prepare(SocketKind.tcp4);
    this.#source.prepare(SocketKind.tcp6);
    this.#egress = new Egress(options.plan.egress, {
      isDue: () => options.notices.isDue(Notice.egressDenied),
      tell: (text) => options.notices.tell(Notice.egressDenied, 'warning', text),
    });
    this.#shortage = new DescriptorShortage(options.counters, options.notices);
    this.#streams = new StreamSplice({
      capacity: CONNECTIONS,
      counters: options.counters,
      shortage: this.#shortage,
      watch: options.watchStream,
      socketFor: (toGuest, isV4) =>
        toGuest
          ? this.#source.take(isV4 ? SocketKind.tcp4 : SocketKind.tcp6)
          : socket(isV4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
    });
    const { plan } = options;
    this.#datagrams = new DatagramSplice({
      capacity: DATAGRAM_FLOWS,
      hashKey: plan.hashKey,
      timeoutMs: plan.policy.udpTimeoutMs,
      streamTimeoutMs: plan.policy.udpStreamTimeoutMs,
      counters: options.counters,
      shortage: this.#shortage,
      watch: options.watchFlow,
      refuses: (words, w, port, now) =>
        this.#egress.refuses(words, w, Destination.hostLoopback, EgressProto.udp, port, now),
      socketFor: (toGuest, isV4) =>
        toGuest
          ? this.#source.takeWaiting(isV4 ? SocketKind.udp4 : SocketKind.udp6, SOCKET_WAIT_MS)
          : socket(isV4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
    });
  }

  /** Connections and UDP flows, for flow reports. */
  get flowSources(): readonly [streams: FlowSource, datagrams: FlowSource] {
    return [this.#streams, this.#datagrams];
  }

  /** Take over another egress policy, and end flows that it denies. @returns how many were ended */
  setEgress(plan: EgressPlan | undefined): number {
    const egress = this.#egress;
    egress.set(plan);
    const permits = (proto: number) => (words: Uint32Array, port: number) =>
      egress.stillPermits(words, 0, Destination.hostLoopback, proto, port);
    const ended =
      this.#streams.endDenied(permits(EgressProto.tcp)) + this.#datagrams.endDenied(permits(EgressProto.udp));
    this.#o.counters[Counter.policyFlowsEnded]! += ended;
    return ended;
  }

  takeStream(fd: number, words: Uint32Array, port: number): void {
    const isV4 = isV4Mapped(words, 0);
    if (!this.#o.splice.hostLoToNsLo || !this.#localAddress(fd)) this.#guestAddress(isV4 ? 4 : 6);
    this.#streams.take(fd, true, this.#words, 4, port);
  }

  takeDatagram(d: LoopbackDatagram): void {
    const origin = this.#origin;
    const { words } = d;
    origin.listenerFd = d.listenerFd;
    origin.listenerId = d.listenerId;
    origin.listenerV6 = d.listenerV6;
    origin.toGuest = true;
    origin.peerPort = d.peerPort;
    origin.targetPort = d.targetPort;
    for (let i = 0; i < 8; i++) origin.words[i] = words[i]!;
    if (this.#o.splice.hostLoToNsLo && isLoopback(words, 4)) {
      for (let i = 0; i < 4; i++) origin.words[8 + i] = words[4 + i]!;
    } else {
      this.#guestAddress(familyOf(words, 0));
      for (let i = 0; i < 4; i++) origin.words[8 + i] = this.#words[4 + i]!;
    }
    this.#datagrams.take(origin, performance.now(), d.addressA, d.bytesA, d.addressB, d.bytesB);
  }

  flushDatagrams(): void {
    this.#datagrams.flush();
  }

  forgetListener(id: number): void {
    this.#datagrams.forget(id);
  }

  onFlow(flow: number): void {
    this.#datagrams.onFlow(flow, performance.now());
  }

  /** The address that the peer connected to, into #words[4..7]. @returns whether it is known and loopback */
  #localAddress(fd: number): boolean {
    return localAddress(fd, this.#words, 4) >= 0 && isLoopback(this.#words, 4);
  }

  /**
   * The guest's own address, into #words[4..7]; its loopback address if it has none, or one that needs a
   * scope.
   */
  #guestAddress(family: 4 | 6): void {
    const { seen } = this.#addressing;
    const at = familyAt(family);
    const needsScope = family === 6 && isLinkLocal(seen, at);
    if (seen[at + 3] !== 0 && !needsScope) addressCopy(seen, at, this.#words, 4);
    else addressSetLoopback(this.#words, 4, family);
  }

  openListener(id: number, plan: ListenerPlan, port: number): number {
    const stream = plan.proto === 'tcp';
    const fd = openListener(plan, port, stream ? SOCK_STREAM : SOCK_DGRAM, false, undefined, (domain, type) =>
      this.#source.takeWaiting(kindOf(domain, type), START_WAIT_MS),
    );
    if (fd < 0) return fd;
    const isV6 = getsockoptInt(fd, SOL_SOCKET, SO_DOMAIN) === AF_INET6;
    let r: number;
    if (stream) r = listen(fd, BACKLOG);
    else if (isV6) r = setsockoptInt(fd, SOL_IPV6, IPV6_RECVPKTINFO, 1);
    else r = setsockoptInt(fd, SOL_IP, IP_PKTINFO, 1);
    if (r >= 0) r = this.#o.watchListener(fd, id, EPOLLIN | EPOLLET);
    if (r < 0) {
      close(fd);
      return r;
    }
    this.#inside.set(id, { fd, isV6, plan, targetPort: targetPort(plan, port) });
    if (!stream) this.#inbox ??= new Inbox();
    return 0;
  }

  closeListener(id: number): void {
    const inside = this.#inside.get(id);
    if (inside === undefined) return;
    this.#inside.delete(id);
    this.#acceptMore.delete(id);
    this.#datagrams.forget(id);
    close(inside.fd);
  }

  /** @returns connections or datagrams handled */
  onListener(id: number): number {
    const inside = this.#inside.get(id);
    if (inside === undefined) return 0;
    this.#acceptMore.delete(id);
    if (inside.plan.proto === 'udp') return this.#receive(id, inside);
    let handled = 0;
    for (let n = 0; n < ACCEPTS_PER_ROUND; n++) {
      this.#sockaddrLen.u32[0] = SOCKADDR_BYTES;
      const fd = accept4(
        inside.fd,
        this.#sockaddr.address,
        this.#sockaddrLen.address,
        SOCK_NONBLOCK | SOCK_CLOEXEC,
      );
      if (fd === -Errno.EAGAIN) return handled;
      if (fd === -Errno.ECONNABORTED || fd === -Errno.EINTR || fd === -Errno.EPROTO) continue;
      if (fd < 0) {
        // The backlog raises no new edge: poll() tries again.
        if (!this.#shortage.reportShortage(fd))
          this.#o.notices.tell(
            Notice.acceptInsideFailed,
            'warning',
            `accept on port ${inside.plan.port} inside: ${errnoName(-fd)}`,
          );
        break;
      }
      handled++;
      sockaddrRead(this.#sockaddr.u8, 0, this.#words, 0);
      // Only loopback traffic is forwarded, to the same loopback address on the host.
      if (!isLoopback(this.#words, 0) || !this.#localAddress(fd)) {
        setLingerZero(fd);
        close(fd);
        continue;
      }
      const port = inside.targetPort;
      const now = performance.now();
      if (this.#egress.refuses(this.#words, 4, Destination.hostLoopback, EgressProto.tcp, port, now)) {
        this.#o.counters[DROP_BASE - StageDrop.egressPolicy]!++;
        setLingerZero(fd);
        close(fd);
        continue;
      }
      this.#streams.take(fd, false, this.#words, 4, port);
    }
    this.#acceptMore.add(id);
    return handled;
  }

  /** Receive a batch from a UDP listener inside. @returns datagrams handled */
  #receive(id: number, inside: InsideListener): number {
    const inbox = this.#inbox!;
    const origin = this.#origin;
    const now = performance.now();
    const n = inbox.receive(inside.fd);
    if (n < 0) return 0;
    for (let i = 0; i < n; i++) {
      const peerPort = inbox.origin(i, origin.words);
      // Only loopback traffic is forwarded, to the same loopback address on the host.
      if (peerPort < 0 || !isLoopback(origin.words, 0) || !isLoopback(origin.words, 4)) {
        this.#o.counters[DROP_BASE - StageDrop.destination]!++;
        continue;
      }
      for (let k = 0; k < 4; k++) origin.words[8 + k] = origin.words[4 + k]!;
      origin.listenerFd = inside.fd;
      origin.listenerId = id;
      origin.listenerV6 = inside.isV6;
      origin.toGuest = false;
      origin.peerPort = peerPort;
      origin.targetPort = inside.targetPort;
      this.#datagrams.take(origin, now, inbox.addressOf(i), inbox.bytesOf(i), 0, 0);
    }
    this.#datagrams.flush();
    if (n === BATCH) this.#acceptMore.add(id);
    return n;
  }

  onStream(end: number, events: number): void {
    this.#streams.onEvents(end, events);
  }

  hasInput(): boolean {
    return this.#streams.hasReady || this.#datagrams.hasReady;
  }

  addCarried(sum: Carried): void {
    sum.streamBytes += this.#o.counters[Counter.spliceBytes]!;
  }

  sleepMs(now: number): number {
    if (this.hasInput()) return 0;
    return Math.min(
      this.#acceptMore.size > 0 || this.#streams.isWaiting ? ACCEPT_AGAIN_MS : Number.POSITIVE_INFINITY,
      this.#datagrams.sleepMs(now),
    );
  }

  poll(now: number): number {
    let work = 0;
    for (const id of this.#acceptMore) work += this.onListener(id);
    return work + this.#streams.poll() + this.#datagrams.poll(now);
  }

  close(): void {
    for (const { fd } of this.#inside.values()) close(fd);
    this.#inside.clear();
    this.#streams.closeAll();
    this.#datagrams.closeAll();
  }
}

/** Receives batches of datagrams with their origins. */
class Inbox {
  readonly #data = new NativeBuffer(BATCH * DATAGRAM_BYTES);
  readonly #names = new NativeBuffer(BATCH * NAME_BYTES);
  readonly #control = new NativeBuffer(BATCH * CONTROL_BYTES);
  readonly #iov = new NativeBuffer(BATCH * IOVEC_BYTES);
  readonly #headers = new NativeBuffer(BATCH * MMSGHDR_BYTES);

  /** Receive up to BATCH datagrams. @returns how many, or -errno */
  receive(fd: number): number {
    for (let i = 0; i < BATCH; i++) {
      iovecWrite(this.#iov.u32, (i * IOVEC_BYTES) >> 2, this.addressOf(i), DATAGRAM_BYTES);
      msghdrWrite(
        this.#headers.u32,
        i * MMSGHDR_WORDS,
        this.#names.address + i * NAME_BYTES,
        SOCKADDR_BYTES,
        this.#iov.address + i * IOVEC_BYTES,
        1,
      );
      msghdrControlWrite(
        this.#headers.u32,
        i * MMSGHDR_WORDS,
        this.#control.address + i * CONTROL_BYTES,
        CONTROL_BYTES,
      );
    }
    return recvmmsg(fd, this.#headers.address, BATCH, MSG_DONTWAIT);
  }

  /** @returns address of the bytes of datagram i */
  addressOf(i: number): number {
    return this.#data.address + i * DATAGRAM_BYTES;
  }

  bytesOf(i: number): number {
    return this.#headers.u32[i * MMSGHDR_WORDS + MMSGHDR_LEN_WORD]!;
  }

  /**
   * Where datagram i came from.
   * @param words  out: peer 0..3, the address that the peer sent to 4..7
   * @returns the peer's port, or -1: the datagram is truncated, or one of the addresses is not known
   */
  origin(i: number, words: Uint32Array): number {
    const { u32: headers } = this.#headers;
    const header = i * MMSGHDR_WORDS;
    if (headers[header + MSGHDR_FLAGS_WORD]! & MSG_TRUNC) return -1;
    const peerPort = sockaddrRead(this.#names.u8, i * NAME_BYTES, words, 0);
    const controlBytes = headers[header + MSGHDR_CONTROLLEN_WORD]!;
    const isKnown = localAddressOf(this.#control, (i * CONTROL_BYTES) >> 2, controlBytes, words, 4);
    return isKnown ? peerPort : -1;
  }
}

/** Accepting is tried again after this time when no descriptor was free. */
const ACCEPT_AGAIN_MS = 100;

function kindOf(domain: number, type: number): SocketKind {
  if (type === SOCK_STREAM) return domain === AF_INET ? SocketKind.tcp4 : SocketKind.tcp6;
  return domain === AF_INET ? SocketKind.udp4 : SocketKind.udp6;
}
