/**
 * UDP between loopback and loopback. A peer that sends to a listener gets a flow: a socket on the other side,
 * bound to the peer's port where that is free and connected to the destination. Its answers leave through the
 * listener, from the address that the peer wrote to.
 *
 *     peer 127.0.0.1:40000 ──▶ listener 127.0.0.1:53 ──▶ flow socket :40000 ──▶ destination :53
 *                          ◀── (from 127.0.0.1:53)   ◀──
 *
 * Whoever received the datagrams keeps their bytes until flush(); all of one flow in a row leave by one
 * sendmmsg. Lengths are kept, empty datagrams included. ICMP errors are not carried. A flow ends when idle,
 * or with its listener.
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

/** Datagrams by one call, and calls for one socket before others get their turn. */
const BATCH = 32;
const BATCHES_PER_ROUND = 4;
/** No UDP datagram is longer: 65,507 bytes of payload. */
const DATAGRAM_BYTES = 65536;
/** More than one datagram: as good as many. */
const MANY = 2;
const SWEEP_MS = 5000;
/** Errors of earlier datagrams that one attempt steps over. */
const MAX_ERRORS = 8;

export interface DatagramSpliceOptions {
  /** Most flows at a time. */
  readonly capacity: number;
  readonly hashKey: HashKey;
  /** Idle limits: before an answer was seen, and once both sides talk. */
  readonly timeoutMs: number;
  readonly streamTimeoutMs: number;
  readonly counters: Float64Array;
  readonly shortage: DescriptorShortage;
  /** Register a descriptor, edge-triggered; events come to onFlow(flow). */
  watch(fd: number, flow: number, events: number): number;
  /** An unbound socket of the other side. @returns a descriptor or -errno */
  socketFor(toGuest: boolean, isV4: boolean): number;
}

/** Where datagrams come from, filled in by whoever received them. */
export interface DatagramOrigin {
  listenerFd: number;
  /** Names the listener in keys; not used again while flows of it live. */
  listenerId: number;
  /** The listener is an AF_INET6 socket, of both families perhaps. */
  listenerV6: boolean;
  toGuest: boolean;
  peerPort: number;
  targetPort: number;
  /** Peer 0..3, address that the peer wrote to 4..7, destination 8..11. */
  readonly words: Uint32Array;
}

export class DatagramSplice implements FlowSource {
  readonly #o: DatagramSpliceOptions;
  #table: FlowTable | null = null;
  /**
   * The guest's place has the address that the peer wrote to, ports the listener's low half, proto its high
   * half.
   */
  readonly #tuple = newFlowTuple(0);
  // By flow. Descriptors are kept + 1: untouched memory means none.
  readonly #fd: Int32Array;
  readonly #listenerFd: Int32Array;
  readonly #listenerId: Uint32Array;
  readonly #listenerV6: Uint8Array;
  readonly #lastMs: Float64Array;
  readonly #sent: Uint8Array;
  readonly #answered: Uint8Array;
  /** For reports: whether the socket is the guest's side. */
  readonly #toGuest: Uint8Array;
  readonly #words = new Uint32Array(4);
  #count = 0;
  #highest = -1;
  #nextSweep = Number.POSITIVE_INFINITY;
  readonly #ready = new Set<number>();

  /** Datagrams that wait for flush(), all of one flow. */
  #pendingFlow = -1;
  #pendingCount = 0;
  readonly #sendIov = new NativeBuffer(BATCH * 2 * IOVEC_BYTES);
  readonly #sendHeaders = new NativeBuffer(BATCH * MMSGHDR_BYTES);
  readonly #name = new NativeBuffer(NAME_BYTES);
  readonly #control = new NativeBuffer(cmsgSpace(IN6_PKTINFO_BYTES));
  readonly #any = new Uint32Array(4);
  /** Answers: BATCH buffers, made with the first flow. */
  #answers: NativeBuffer | null = null;
  readonly #recvIov = new NativeBuffer(BATCH * IOVEC_BYTES);
  readonly #recvHeaders = new NativeBuffer(BATCH * MMSGHDR_BYTES);

  constructor(options: DatagramSpliceOptions) {
    this.#o = options;
    const n = options.capacity;
    this.#fd = new Int32Array(n);
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
   * One datagram from a peer, in up to two pieces, whose bytes stay where they are until flush().
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
    if (this.#sent[flow]! < MANY) this.#sent[flow]!++;
    this.#bytes(origin.toGuest)[flow]! += bytesA + bytesB;
  }

  #bytes(toGuest: boolean): Float64Array {
    const table = this.#table!;
    return toGuest ? table.toGuestBytes : table.fromGuestBytes;
  }

  /** Send what take() was given. */
  flush(): void {
    const flow = this.#pendingFlow;
    if (flow < 0) return;
    this.#sendAll(this.#fd[flow]! - 1, this.#pendingCount);
    this.#pendingFlow = -1;
    this.#pendingCount = 0;
  }

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
      // A pending error (nobody listened a moment ago) has been taken off the socket by the call: the
      // datagram is tried once more.
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
    this.#fd[flow] = fd + 1;
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

  /** @returns a connected socket or -errno */
  #open(origin: DatagramOrigin): number {
    const isV4 = isV4Mapped(origin.words, 8);
    const fd = this.#o.socketFor(origin.toGuest, isV4);
    if (fd < 0) return fd;
    addressSetAny(this.#any, 0, isV4 ? 4 : 6);
    // Or a port that an IPv4 flow has would not be free.
    if (!isV4) setsockoptInt(fd, SOL_IPV6, IPV6_V6ONLY, 1);
    // The peer's port where it is free, else any.
    bind(fd, this.#name.address, sockaddrWrite(this.#name.u8, 0, this.#any, 0, origin.peerPort));
    const bytes = sockaddrWrite(this.#name.u8, 0, origin.words, 8, origin.targetPort);
    const r = connect(fd, this.#name.address, bytes);
    if (r === 0) return fd;
    close(fd);
    return r;
  }

  // ---- answers ------------------------------------------------------------------------------------------------------

  onFlow(flow: number, now: number): void {
    if (this.#fd[flow] === 0) return;
    this.flush(); // the headers below are shared
    const fd = this.#fd[flow]! - 1;
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
        // Anything but "empty" is the error of a datagram that we sent; it is gone with this call.
        if (n === -Errno.EAGAIN || ++errors > MAX_ERRORS) return;
        continue;
      }
      this.#answer(flow, n);
      this.#lastMs[flow] = now;
      this.#answered[flow] = Math.min(MANY, this.#answered[flow]! + n);
      if (n < BATCH) return;
      batch++;
    }
    this.#ready.add(flow);
  }

  /** Send the first n answers to the flow's peer, from the address that it wrote to. */
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

  // ---- ends ---------------------------------------------------------------------------------------------------------

  /** The listener is about to be closed: its flows cannot answer any more. */
  forget(listenerId: number): void {
    for (let flow = 0; flow <= this.#highest; flow++) {
      if (this.#fd[flow] !== 0 && this.#listenerId[flow] === listenerId) this.#close(flow);
    }
  }

  #close(flow: number): void {
    if (this.#pendingFlow === flow) this.flush();
    close(this.#fd[flow]! - 1);
    this.#fd[flow] = 0;
    this.#ready.delete(flow);
    this.#table!.remove(flow);
    this.#count--;
  }

  poll(now: number): number {
    if (now >= this.#nextSweep) this.#sweep(now);
    if (this.#ready.size === 0) return 0;
    const list = [...this.#ready]; // only after 128 answers at once
    this.#ready.clear();
    for (const flow of list) this.onFlow(flow, now);
    return list.length;
  }

  #sweep(now: number): void {
    const { timeoutMs, streamTimeoutMs } = this.#o;
    for (let flow = 0; flow <= this.#highest; flow++) {
      if (this.#fd[flow] === 0) continue;
      const isStream =
        this.#answered[flow]! > 0 && (this.#answered[flow] === MANY || this.#sent[flow] === MANY);
      if (now - this.#lastMs[flow]! >= (isStream ? streamTimeoutMs : timeoutMs)) this.#close(flow);
    }
    this.#nextSweep = this.#count > 0 ? now + SWEEP_MS : Number.POSITIVE_INFINITY;
  }

  sleepMs(now: number): number {
    return this.#nextSweep - now;
  }

  get placeCount(): number {
    return this.#highest + 1;
  }

  describeFlow(flow: number, rows: Float64Array, at: number): boolean {
    const table = this.#table;
    if (this.#fd[flow] === 0 || table === null) return false;
    const port = peerAddress(this.#fd[flow]! - 1, this.#words, 0);
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
    for (let flow = 0; flow <= this.#highest; flow++) if (this.#fd[flow] !== 0) this.#close(flow);
  }
}
