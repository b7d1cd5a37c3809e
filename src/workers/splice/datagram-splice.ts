/**
 * UDP between the host's loopback and the guest's. Each peer that sends to a listener has a flow: a socket on
 * the other side, bound to the peer's port where that is free, and connected to the destination. Answers are
 * sent through the listener's socket, from the address that the peer sent to.
 *
 *     peer 127.0.0.1:40000 ──▶ listener 127.0.0.1:53 ──▶ flow socket :40000 ──▶ destination :53
 *                          ◀── (from 127.0.0.1:53)   ◀──
 *
 * The bytes of a datagram stay in the receiver's buffer until flush(); consecutive datagrams of one flow are
 * sent with one sendmmsg. Datagram lengths are kept, 0 included. ICMP errors are not passed on. A flow ends
 * after its idle time-out, or with its listener.
 */
import { addressSetAny, isV4Mapped } from '../../proto/address.ts';
import { Counter, DROP_BASE } from '../../ring/counters.ts';
import { cmsgSpace, IN6_PKTINFO_BYTES, pktinfoWrite } from '../../sys/cmsg.ts';
import {
  EPOLLET,
  EPOLLIN,
  Errno,
  IPPROTO_UDP,
  IPV6_V6ONLY,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  MSG_TRUNC,
  SOL_IPV6,
} from '../../sys/constants.ts';
import { close } from '../../sys/io.ts';
import { NativeBuffer } from '../../sys/memory.ts';
import {
  bind,
  connect,
  IOVEC_BYTES,
  IOVEC_WORDS,
  iovecWrite,
  MMSGHDR_BYTES,
  MMSGHDR_LEN_WORD,
  MMSGHDR_WORDS,
  MSGHDR_FLAGS_WORD,
  msghdrControlWrite,
  msghdrWrite,
  NAME_BYTES,
  peerAddress,
  recvmmsg,
  sendmmsg,
  setsockoptInt,
  sockaddrWrite,
} from '../../sys/socket.ts';
import type { HashKey } from '../flow/flow-hash.ts';
import { FlowField, type FlowSource, FlowState } from '../flow/flow-report.ts';
import { ADDR_WORDS, FlowTable } from '../flow/flow-table.ts';
import { flowTupleHash, newFlowTuple } from '../flow/flow-tuple.ts';
import { StageDrop } from '../link/stage-drop.ts';
import type { DescriptorShortage } from '../thread/descriptor-shortage.ts';
import { DescriptorTable } from '../thread/descriptor-table.ts';

/** Most datagrams of one system call, and most full batches of one socket per round. */
const BATCH = 32;
const BATCHES_PER_ROUND = 4;
/** Room for the largest UDP datagram, 65,507 bytes of payload. */
const DATAGRAM_BYTES = 65536;
/**
 * Datagrams of each direction are counted up to here. A flow with an answer and this many datagrams of one
 * direction counts as bidirectional (nf_conntrack's ASSURED), with the longer time-out.
 */
const STREAM_AFTER_DATAGRAMS = 2;
const SWEEP_MS = 5000;
/** Most pending errors of earlier datagrams that one attempt reads over. */
const MAX_ERRORS = 8;

export interface DatagramSpliceOptions {
  /** Most flows at the same time. */
  readonly capacity: number;
  readonly hashKey: HashKey;
  /** Idle time-out of a flow in one direction. */
  readonly timeoutMs: number;
  /** Idle time-out of a bidirectional flow (STREAM_AFTER_DATAGRAMS). */
  readonly streamTimeoutMs: number;
  readonly counters: Float64Array;
  readonly shortage: DescriptorShortage;
  /** Whether the egress policy denies a new flow of the guest to the host. @param words,w  destination */
  refuses(words: Uint32Array, w: number, port: number, now: number): boolean;
  /** Register a descriptor with epoll; events come to onFlow(flow). @returns 0 or -errno */
  watch(fd: number, flow: number, events: number): number;
  /** Open an unbound socket. @param toGuest  in the guest's namespace @returns a descriptor or -errno */
  socketFor(toGuest: boolean, isV4: boolean): number;
}

/** Where a datagram came from; filled in by its receiver, which reuses the object. */
export interface DatagramOrigin {
  listenerFd: number;
  /** The listener's number in flow keys; not reused while flows of the listener exist. */
  listenerId: number;
  /** The listener is an AF_INET6 socket, perhaps for both families. */
  listenerV6: boolean;
  /** The destination is in the guest's namespace. */
  toGuest: boolean;
  peerPort: number;
  /** Port of the destination. */
  targetPort: number;
  /** Peer 0..3, address that the peer sent to 4..7, destination 8..11. */
  readonly words: Uint32Array;
}

export class DatagramSplice implements FlowSource {
  readonly #o: DatagramSpliceOptions;
  #table: FlowTable | null = null;
  /**
   * Key of a flow. The guest's address is the address that the peer sent to; the guest's port is the low half
   * of the listener's number, proto the high half.
   */
  readonly #tuple = newFlowTuple(0);
  // By flow. #listenerFd is the listener's: not owned.
  readonly #fd: DescriptorTable;
  readonly #listenerFd: Int32Array;
  readonly #listenerId: Uint32Array;
  readonly #listenerV6: Uint8Array;
  readonly #lastMs: Float64Array;
  // Datagrams of each direction, up to STREAM_AFTER_DATAGRAMS.
  readonly #sent: Uint8Array;
  readonly #answered: Uint8Array;
  /** By flow: 1: the socket is in the guest's namespace. */
  readonly #toGuest: Uint8Array;
  readonly #words = new Uint32Array(4);
  #count = 0;
  /** Highest flow that was ever used. */
  #highest = -1;
  #nextSweep = Number.POSITIVE_INFINITY;
  /** Flows with more answers to read than a round allowed. */
  readonly #ready = new Set<number>();

  /** Flow of the datagrams that wait for flush(); -1: none wait. */
  #pendingFlow = -1;
  #pendingCount = 0;
  readonly #sendIov = new NativeBuffer(BATCH * 2 * IOVEC_BYTES);
  readonly #sendHeaders = new NativeBuffer(BATCH * MMSGHDR_BYTES);
  readonly #name = new NativeBuffer(NAME_BYTES);
  readonly #control = new NativeBuffer(cmsgSpace(IN6_PKTINFO_BYTES));
  readonly #any = new Uint32Array(4);
  /** BATCH buffers for answers, allocated with the first one. */
  #answers: NativeBuffer | null = null;
  readonly #recvIov = new NativeBuffer(BATCH * IOVEC_BYTES);
  readonly #recvHeaders = new NativeBuffer(BATCH * MMSGHDR_BYTES);

  constructor(options: DatagramSpliceOptions) {
    this.#o = options;
    const n = options.capacity;
    this.#fd = new DescriptorTable(n);
    this.#listenerFd = new Int32Array(n);
    this.#listenerId = new Uint32Array(n);
    this.#listenerV6 = new Uint8Array(n);
    this.#lastMs = new Float64Array(n);
    this.#sent = new Uint8Array(n);
    this.#answered = new Uint8Array(n);
    this.#toGuest = new Uint8Array(n);
  }

  get flows(): number {
    return this.#count;
  }

  get hasReady(): boolean {
    return this.#ready.size > 0;
  }

  /**
   * Queue a peer's datagram, in up to two pieces, for flush(); until then its bytes must not change.
   * @param now  monotonic milliseconds
   * @param bytesA,bytesB  lengths; bytesB 0: one piece
   */
  take(
    origin: DatagramOrigin,
    now: number,
    addressA: number,
    bytesA: number,
    addressB: number,
    bytesB: number,
  ): void {
    const flow = this.#flowOf(origin, now);
    if (flow < 0) return;
    if (this.#pendingFlow !== flow || this.#pendingCount === BATCH) this.flush();
    this.#pendingFlow = flow;
    const i = this.#pendingCount++;
    const iov = this.#sendIov.u32;
    iovecWrite(iov, 2 * i * IOVEC_WORDS, addressA, bytesA);
    iovecWrite(iov, (2 * i + 1) * IOVEC_WORDS, addressB, bytesB);
    const iovAddress = this.#sendIov.address + 2 * i * IOVEC_BYTES;
    msghdrWrite(this.#sendHeaders.u32, i * MMSGHDR_WORDS, 0, 0, iovAddress, bytesB > 0 ? 2 : 1);
    this.#lastMs[flow] = now;
    if (this.#sent[flow]! < STREAM_AFTER_DATAGRAMS) this.#sent[flow]!++;
    this.#bytes(origin.toGuest)[flow]! += bytesA + bytesB;
  }

  #bytes(toGuest: boolean): Float64Array {
    const table = this.#table!;
    return toGuest ? table.toGuestBytes : table.fromGuestBytes;
  }

  /** Send the datagrams of take(). */
  flush(): void {
    const flow = this.#pendingFlow;
    if (flow < 0) return;
    this.#sendAll(this.#fd.get(flow), this.#pendingCount);
    this.#pendingFlow = -1;
    this.#pendingCount = 0;
  }

  /** Send the first `count` messages of #sendHeaders; what the kernel refuses is dropped and counted. */
  #sendAll(fd: number, count: number): void {
    let errors = 0;
    for (let done = 0; done < count; ) {
      const at = this.#sendHeaders.address + done * MMSGHDR_BYTES;
      const r = sendmmsg(fd, at, count - done, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (r > 0) {
        this.#o.counters[Counter.spliceDatagrams]! += r;
        done += r;
        continue;
      }
      // The pending ICMP error of an earlier datagram, which this call has cleared: send the datagram again.
      if (r === -Errno.ECONNREFUSED && ++errors <= MAX_ERRORS) continue;
      this.#drop(
        r === -Errno.EAGAIN || r === -Errno.ENOBUFS ? StageDrop.socketFull : StageDrop.sendRefused,
        1,
      );
      done++;
    }
  }

  #drop(cause: number, count: number): void {
    this.#o.counters[DROP_BASE - cause]! += count;
  }

  /** Find or open the flow of a datagram. @returns the flow, or -1: the datagram is dropped and counted */
  #flowOf(origin: DatagramOrigin, now: number): number {
    const { words, listenerId, peerPort } = origin;
    this.#table ??= new FlowTable(this.#o.capacity);
    const table = this.#table;
    table.nowMs = now;
    const tuple = this.#tuple;
    for (let i = 0; i < 4; i++) {
      tuple.addr[i] = words[4 + i]!;
      tuple.addr[4 + i] = words[i]!;
    }
    tuple.ports = ((listenerId << 16) | peerPort) >>> 0;
    tuple.proto = listenerId >>> 16;
    flowTupleHash(this.#o.hashKey, tuple);
    const known = table.find(tuple);
    if (known >= 0) return known;
    if (!origin.toGuest && this.#o.refuses(words, 8, origin.targetPort, now)) {
      this.#drop(StageDrop.egressPolicy, 1);
      return -1;
    }
    const fd = this.#open(origin);
    if (fd < 0) {
      this.#o.shortage.reportShortage(fd);
      this.#drop(StageDrop.noSocket, 1);
      return -1;
    }
    const flow = table.insert(tuple);
    if (flow < 0 || this.#o.watch(fd, flow, (EPOLLIN | EPOLLET) >>> 0) < 0) {
      close(fd);
      if (flow >= 0) table.remove(flow);
      this.#o.counters[Counter.flowTableFull]!++;
      this.#drop(StageDrop.flowTableFull, 1);
      return -1;
    }
    this.#fd.set(flow, fd);
    this.#listenerFd[flow] = origin.listenerFd;
    this.#listenerId[flow] = listenerId;
    this.#listenerV6[flow] = origin.listenerV6 ? 1 : 0;
    this.#sent[flow] = 0;
    this.#answered[flow] = 0;
    this.#toGuest[flow] = origin.toGuest ? 1 : 0;
    this.#count++;
    if (flow > this.#highest) this.#highest = flow;
    this.#nextSweep = Math.min(this.#nextSweep, now + SWEEP_MS);
    return flow;
  }

  /** Open a flow's socket. @returns a connected socket or -errno */
  #open(origin: DatagramOrigin): number {
    const isV4 = isV4Mapped(origin.words, 8);
    const fd = this.#o.socketFor(origin.toGuest, isV4);
    if (fd < 0) return fd;
    addressSetAny(this.#any, 0, isV4 ? 4 : 6);
    // Without V6ONLY the bind would fail for a port that an IPv4 flow is bound to.
    if (!isV4) setsockoptInt(fd, SOL_IPV6, IPV6_V6ONLY, 1);
    // The peer's port; where it is taken, connect() chooses another one.
    bind(fd, this.#name.address, sockaddrWrite(this.#name.u8, 0, this.#any, 0, origin.peerPort));
    const bytes = sockaddrWrite(this.#name.u8, 0, origin.words, 8, origin.targetPort);
    const r = connect(fd, this.#name.address, bytes);
    if (r === 0) return fd;
    close(fd);
    return r;
  }

  onFlow(flow: number, now: number): void {
    if (!this.#fd.has(flow)) return;
    this.flush(); // #answer() reuses the send headers
    const fd = this.#fd.get(flow);
    this.#answers ??= new NativeBuffer(BATCH * DATAGRAM_BYTES);
    const base = this.#answers.address;
    let errors = 0;
    for (let batch = 0; batch < BATCHES_PER_ROUND; ) {
      for (let i = 0; i < BATCH; i++) {
        iovecWrite(this.#recvIov.u32, i * IOVEC_WORDS, base + i * DATAGRAM_BYTES, DATAGRAM_BYTES);
        const iov = this.#recvIov.address + i * IOVEC_BYTES;
        msghdrWrite(this.#recvHeaders.u32, i * MMSGHDR_WORDS, 0, 0, iov, 1);
      }
      const n = recvmmsg(fd, this.#recvHeaders.address, BATCH, MSG_DONTWAIT);
      if (n < 0) {
        // Other than EAGAIN: the pending ICMP error of a datagram that was sent, which this call has cleared.
        if (n === -Errno.EAGAIN || ++errors > MAX_ERRORS) return;
        continue;
      }
      this.#answer(flow, n);
      this.#lastMs[flow] = now;
      this.#answered[flow] = Math.min(STREAM_AFTER_DATAGRAMS, this.#answered[flow]! + n);
      if (n < BATCH) return;
      batch++;
    }
    this.#ready.add(flow);
  }

  /** Send the first n received answers to the flow's peer, from the address that the peer sent to. */
  #answer(flow: number, n: number): void {
    const table = this.#table!;
    const { u32 } = this.#recvHeaders;
    const at = flow * ADDR_WORDS;
    const isV6 = this.#listenerV6[flow] === 1;
    const peerPort = table.ports[flow]! & 0xffff;
    const nameBytes = sockaddrWrite(this.#name.u8, 0, table.addr, at + 4, peerPort, 0, isV6);
    const controlBytes = pktinfoWrite(this.#control, table.addr, at, 0, isV6);
    const bytes = this.#bytes(this.#toGuest[flow] === 0);
    let count = 0;
    for (let i = 0; i < n; i++) {
      const header = i * MMSGHDR_WORDS;
      if (u32[header + MSGHDR_FLAGS_WORD]! & MSG_TRUNC) {
        this.#drop(StageDrop.tooLong, 1);
        continue;
      }
      iovecWrite(
        this.#sendIov.u32,
        count * IOVEC_WORDS,
        this.#answers!.address + i * DATAGRAM_BYTES,
        u32[header + MMSGHDR_LEN_WORD]!,
      );
      bytes[flow]! += u32[header + MMSGHDR_LEN_WORD]!;
      msghdrWrite(
        this.#sendHeaders.u32,
        count * MMSGHDR_WORDS,
        this.#name.address,
        nameBytes,
        this.#sendIov.address + count * IOVEC_BYTES,
        1,
      );
      msghdrControlWrite(this.#sendHeaders.u32, count * MMSGHDR_WORDS, this.#control.address, controlBytes);
      count++;
    }
    this.#sendAll(this.#listenerFd[flow]!, count);
  }

  /** The listener is about to be closed: close its flows, which answer through it. */
  forget(listenerId: number): void {
    for (let flow = 0; flow <= this.#highest; flow++) {
      if (this.#fd.has(flow) && this.#listenerId[flow] === listenerId) this.#close(flow);
    }
  }

  /** End flows of the guest to the host that are not permitted any more: as StreamSplice.endDenied(). */
  endDenied(permits: (words: Uint32Array, port: number) => boolean): number {
    let ended = 0;
    for (let flow = 0; flow <= this.#highest; flow++) {
      if (!this.#fd.has(flow) || this.#toGuest[flow] === 1) continue;
      const port = peerAddress(this.#fd.get(flow), this.#words, 0);
      if (port < 0 || permits(this.#words, port)) continue;
      this.#close(flow);
      ended++;
    }
    return ended;
  }

  #close(flow: number): void {
    if (this.#pendingFlow === flow) this.flush();
    close(this.#fd.get(flow));
    this.#fd.clear(flow);
    this.#ready.delete(flow);
    this.#table!.remove(flow);
    this.#count--;
  }

  /** Close idle flows and read on where a round ended. @returns flows handled */
  poll(now: number): number {
    if (now >= this.#nextSweep) this.#sweep(now);
    if (this.#ready.size === 0) return 0;
    const list = [...this.#ready]; // allocates, but only after a full round of 128 answers
    this.#ready.clear();
    for (const flow of list) this.onFlow(flow, now);
    return list.length;
  }

  #sweep(now: number): void {
    const { timeoutMs, streamTimeoutMs } = this.#o;
    for (let flow = 0; flow <= this.#highest; flow++) {
      if (!this.#fd.has(flow)) continue;
      const isStream =
        this.#answered[flow]! > 0 &&
        (this.#answered[flow] === STREAM_AFTER_DATAGRAMS || this.#sent[flow] === STREAM_AFTER_DATAGRAMS);
      if (now - this.#lastMs[flow]! >= (isStream ? streamTimeoutMs : timeoutMs)) this.#close(flow);
    }
    this.#nextSweep = this.#count > 0 ? now + SWEEP_MS : Number.POSITIVE_INFINITY;
  }

  /** @returns milliseconds until the next sweep; infinity: none is due */
  sleepMs(now: number): number {
    return this.#nextSweep - now;
  }

  get placeCount(): number {
    return this.#highest + 1;
  }

  describeFlow(flow: number, rows: Float64Array, at: number): boolean {
    const table = this.#table;
    if (!this.#fd.has(flow) || table === null) return false;
    const port = peerAddress(this.#fd.get(flow), this.#words, 0);
    if (port < 0) return false;
    const peerPort = table.ports[flow]! & 0xffff;
    const peer = table.addr.subarray(flow * ADDR_WORDS + 4, flow * ADDR_WORDS + 8);
    const toGuest = this.#toGuest[flow] === 1;
    rows.set(toGuest ? this.#words : peer, at + FlowField.guestAddress);
    rows.set(toGuest ? peer : this.#words, at + FlowField.remoteAddress);
    rows[at + FlowField.guestPort] = toGuest ? port : peerPort;
    rows[at + FlowField.remotePort] = toGuest ? peerPort : port;
    rows[at + FlowField.proto] = IPPROTO_UDP;
    rows[at + FlowField.state] = this.#answered[flow]! > 0 ? FlowState.replied : FlowState.unreplied;
    rows[at + FlowField.fromGuestBytes] = table.fromGuestBytes[flow]!;
    rows[at + FlowField.toGuestBytes] = table.toGuestBytes[flow]!;
    rows[at + FlowField.ageMs] = performance.now() - table.bornMs[flow]!;
    return true;
  }

  closeAll(): void {
    for (let flow = 0; flow <= this.#highest; flow++) if (this.#fd.has(flow)) this.#close(flow);
  }
}
