/**
 * Datagrams from the host: recvmmsg into slots of host-io, then one message per datagram to the shard of its
 * flow.
 *
 *     small slot | 128 headroom | payload, 1920 bytes |      large slot | the rest, if any |
 *
 * A connected socket has one flow. For a socket that is not connected the flow is looked up by the peer
 * (udp-endpoints.ts). A datagram for a listener finds or begins a flow in the shard.
 *
 * Invariant: armed slots belong to the receiver until takeSmall() and takeLarge() remove them for a message.
 */
import { isLinkLocal, isLoopback, isV4Mapped } from '../../../proto/address.ts';
import { Counter } from '../../../ring/counters.ts';
import { HEADROOM_BYTES, LARGE_SLOT_BYTES, NO_SLOT, SMALL_SLOT_BYTES } from '../../../ring/pool.ts';
import { gsoSizeOf, isToMany, localAddressOf, tosOf, ttlOf } from '../../../sys/cmsg.ts';
import { Errno, IPPROTO_UDP, MSG_DONTWAIT, MSG_TRUNC } from '../../../sys/constants.ts';
import { schedYield } from '../../../sys/io.ts';
import { NativeBuffer } from '../../../sys/memory.ts';
import {
  IOVEC_BYTES,
  IOVEC_WORDS,
  iovecWrite,
  MMSGHDR_BYTES,
  MMSGHDR_LEN_WORD,
  MMSGHDR_WORDS,
  MSGHDR_CONTROLLEN_WORD,
  MSGHDR_FLAGS_WORD,
  MSGHDR_NAMELEN_WORD,
  msghdrControlWrite,
  msghdrWrite,
  NAME_BYTES,
  recv,
  recvmmsg,
  SOCKADDR_BYTES,
  sockaddrRead,
  sockaddrScope,
} from '../../../sys/socket.ts';
import type { Addressing } from '../../flow/addressing.ts';
import { flowHash } from '../../flow/flow-hash.ts';
import type { LoopbackDatagram } from '../../link/loopback.ts';
import { StageDrop } from '../../link/stage-drop.ts';
import {
  datagramWrite,
  listenerDatagramGuestWrite,
  listenerDatagramWrite,
  unsolicitedDatagramWrite,
} from '../../link/to-shard.ts';
import { listenerGuest } from '../../listen/bind-address.ts';
import type { HostContext, SocketId } from '../context.ts';
import type { ErrorQueues } from './error-queue.ts';
import { dropDatagrams, isListener, isPing, Kind, type SocketTable } from './socket-table.ts';

/** Most datagrams of one recvmmsg, and full batches of one socket per round. */
const BATCH = 32;
const BATCHES_PER_ROUND = 1;
/** Share of the large slots that may be armed here; the rest is for TCP. */
const MAX_LARGE_SHARE = 1 / 4;
/**
 * A sched_yield() longer than this went to a CPU-bound process (its slice is about 3 ms), not to the readers
 * of the guest.
 */
const READERS_TURN_MS = 1.5;
const SMALL_PAYLOAD_BYTES = SMALL_SLOT_BYTES - HEADROOM_BYTES;
/** Batches that are read between bind() and connect(): more than a socket can have received by then. */
const MAX_FOREIGN_BATCHES = 8;
/** Room for PKTINFO and TOS, or for TTL and TOS, or for GRO's segment size and TOS. */
const CONTROL_BYTES = 64;
/** Most pending errors that are read over in one read(). */
const MAX_READ_ERRORS = 8;

export class DatagramReceiver {
  readonly #ctx: HostContext;
  readonly #addressing: Addressing;
  readonly #table: SocketTable;
  readonly #errors: ErrorQueues;
  /** By sid: 1: the socket is in #waitingForSlots. */
  readonly #isWaiting: Uint8Array;
  readonly #waitingForSlots: SocketId[] = [];
  /**
   * A socket still had datagrams after its batch quota: yieldToReaders() yields, once per round for all such
   * sockets.
   */
  #isBehind = false;
  #nextYieldMs = 0;

  // Slots armed for the next recvmmsg, and three sets of headers for the same iovecs: without control
  // messages and peer, with control messages, with both.
  readonly #batch: number;
  readonly #small = new Uint32Array(BATCH).fill(NO_SLOT);
  readonly #large = new Uint32Array(BATCH).fill(NO_SLOT);
  readonly #iov = new NativeBuffer(BATCH * 2 * IOVEC_BYTES);
  readonly #plain = new NativeBuffer(BATCH * MMSGHDR_BYTES);
  readonly #withControl = new NativeBuffer(BATCH * MMSGHDR_BYTES);
  readonly #withPeer = new NativeBuffer(BATCH * MMSGHDR_BYTES);
  readonly #names = new NativeBuffer(BATCH * NAME_BYTES);
  readonly #control = new NativeBuffer(BATCH * CONTROL_BYTES);
  readonly #words = new Uint32Array(16);
  readonly #loopback: LoopbackDatagram = {
    listenerFd: -1,
    listenerId: 0,
    listenerV6: false,
    words: this.#words,
    peerPort: 0,
    targetPort: 0,
    addressA: 0,
    bytesA: 0,
    addressB: 0,
    bytesB: 0,
  };

  constructor(ctx: HostContext, addressing: Addressing, table: SocketTable, errors: ErrorQueues) {
    this.#ctx = ctx;
    this.#addressing = addressing;
    this.#table = table;
    this.#errors = errors;
    this.#isWaiting = new Uint8Array(table.fd.length);
    this.#batch = Math.max(1, Math.min(BATCH, Math.floor(ctx.largeSlots.capacity * MAX_LARGE_SHARE)));
    for (let i = 0; i < BATCH; i++) {
      const iov = this.#iov.address + i * 2 * IOVEC_BYTES;
      const name = this.#names.address + i * NAME_BYTES;
      const control = this.#control.address + i * CONTROL_BYTES;
      msghdrWrite(this.#plain.u32, i * MMSGHDR_WORDS, 0, 0, iov, 2);
      msghdrWrite(this.#withControl.u32, i * MMSGHDR_WORDS, 0, 0, iov, 2);
      msghdrControlWrite(this.#withControl.u32, i * MMSGHDR_WORDS, control, CONTROL_BYTES);
      msghdrWrite(this.#withPeer.u32, i * MMSGHDR_WORDS, name, SOCKADDR_BYTES, iov, 2);
      msghdrControlWrite(this.#withPeer.u32, i * MMSGHDR_WORDS, control, CONTROL_BYTES);
    }
  }

  /**
   * Yield the CPU to the guest's readers when a socket is behind: the guest's own sockets hold some 90
   * datagrams of 1,400 bytes, and a queue that grew while this thread had no CPU would overflow them.
   * Datagrams that come meanwhile make fuller batches (decision 013). A CPU-bound process must not profit:
   * when a yield took a whole slice, the next yield comes after the same time at the earliest.
   */
  yieldToReaders(): void {
    if (!this.#isBehind) return;
    this.#isBehind = false;
    const before = performance.now();
    if (before < this.#nextYieldMs) return;
    schedYield();
    const after = performance.now();
    if (after - before > READERS_TURN_MS) this.#nextYieldMs = after + (after - before);
  }

  /** Slots may be free again: mark the sockets ready that had stopped reading without slots. */
  resume(): void {
    const table = this.#table;
    while (this.#waitingForSlots.length > 0) {
      const sid = this.#waitingForSlots.pop()!;
      this.#isWaiting[sid] = 0;
      if (table.fd.has(sid)) this.#ctx.markReady(sid);
    }
  }

  /** No slots are left: the socket waits for resume(). */
  #waitForSlots(sid: SocketId): void {
    if (this.#isWaiting[sid]) return;
    this.#isWaiting[sid] = 1;
    this.#waitingForSlots.push(sid);
    this.#ctx.counters[Counter.poolDry]!++;
  }

  /** Get slots for a batch. @returns how many datagrams can be received; 0: the pool is empty */
  #arm(): number {
    const { pool, smallSlots, largeSlots } = this.#ctx;
    const iov = this.#iov.u32;
    for (let i = 0; i < this.#batch; i++) {
      if (this.#small[i] === NO_SLOT) {
        const slot = smallSlots.pop();
        if (slot === NO_SLOT) return i;
        this.#small[i] = slot;
        iovecWrite(iov, 2 * i * IOVEC_WORDS, pool.slotAddress(slot) + HEADROOM_BYTES, SMALL_PAYLOAD_BYTES);
      }
      if (this.#large[i] === NO_SLOT) {
        const slot = largeSlots.pop();
        if (slot === NO_SLOT) return i;
        this.#large[i] = slot;
        iovecWrite(iov, (2 * i + 1) * IOVEC_WORDS, pool.slotAddress(slot), LARGE_SLOT_BYTES);
      }
    }
    return this.#batch;
  }

  /**
   * Receive a round's share of one socket; a socket that may have more is marked ready for the next round.
   */
  read(sid: SocketId): void {
    const table = this.#table;
    const fd = table.fd.get(sid);
    const kind = table.kind[sid]!;
    const ofListener = isListener(kind);
    const gid = ofListener ? -1 : table.onlyFlow(sid);
    const hasTos = table.hasTos[sid] === 1;
    const hasControl = isPing(kind) || table.hasGro[sid] === 1 || hasTos;
    let headers = this.#withPeer;
    if (gid >= 0) headers = hasControl ? this.#withControl : this.#plain;
    let errors = 0;
    for (let batch = 0; batch < BATCHES_PER_ROUND; ) {
      const armed = this.#arm();
      if (armed === 0) {
        this.#waitForSlots(sid);
        return;
      }
      const n = recvmmsg(fd, headers.address, armed, MSG_DONTWAIT);
      this.#ctx.counters[Counter.datagramRecvs]!++;
      if (n < 0) {
        // Other than EAGAIN: a pending error, which this call has cleared and which is in the error queue
        // too.
        if (n === -Errno.EAGAIN || ++errors > MAX_READ_ERRORS) return;
        this.#errors.drain(sid);
        continue;
      }
      if (gid >= 0) for (let i = 0; i < n; i++) this.#onDatagram(gid, kind, headers, hasControl, hasTos, i);
      else if (ofListener) for (let i = 0; i < n; i++) this.#onListenerDatagram(sid, i);
      else for (let i = 0; i < n; i++) this.#onEndpointDatagram(sid, kind, hasControl, hasTos, i);
      if (ofListener) this.#ctx.loopback?.flushDatagrams();
      if (n < armed) return; // the queue is empty; the next datagram raises an event
      batch++;
    }
    this.#isBehind = true;
    this.#ctx.markReady(sid);
  }

  /**
   * Read the queue of another socket on a listener's port as the listener's datagrams. Without slots they are
   * dropped and counted.
   * @param fd  socket with IP_PKTINFO or IPV6_RECVPKTINFO set
   * @param sid  the listener's
   */
  readForListener(fd: number, sid: SocketId): void {
    for (let batch = 0; batch < MAX_FOREIGN_BATCHES; batch++) {
      const armed = this.#arm();
      const n = armed === 0 ? this.#discard(fd) : recvmmsg(fd, this.#withPeer.address, armed, MSG_DONTWAIT);
      this.#ctx.counters[Counter.datagramRecvs]!++;
      if (n <= 0) return;
      if (armed === 0) continue;
      for (let i = 0; i < n; i++) this.#onListenerDatagram(sid, i);
      this.#ctx.loopback?.flushDatagrams();
      if (n < armed) return;
    }
  }

  /** Drop one datagram from a queue. @returns 1: there was one */
  #discard(fd: number): number {
    if (recv(fd, this.#names.address, 0, MSG_DONTWAIT | MSG_TRUNC) < 0) return 0;
    dropDatagrams(this.#ctx.counters, StageDrop.unsolicited, 1);
    return 1;
  }

  /** Datagram i of a socket that is not connected: find its flow by the peer. */
  #onEndpointDatagram(sid: SocketId, kind: number, hasControl: boolean, hasTos: boolean, i: number): void {
    const table = this.#table;
    const words = this.#words;
    const port = sockaddrRead(this.#names.u8, i * NAME_BYTES, words, 0);
    this.#withPeer.u32[i * MMSGHDR_WORDS + MSGHDR_NAMELEN_WORD] = SOCKADDR_BYTES;
    if (table.sendsToGroups[sid] === 1 && kind === Kind.udp4) {
      const u32 = this.#withPeer.u32;
      const lengthAt = i * MMSGHDR_WORDS + MSGHDR_CONTROLLEN_WORD;
      // Broadcast, which the sockets for it receive too (group-sockets.ts).
      if (isToMany(this.#control, (i * CONTROL_BYTES) >> 2, u32[lengthAt]!)) {
        u32[lengthAt] = CONTROL_BYTES;
        return;
      }
    }
    const gid = table.endpoints!.flowOf(table.endpointOf(sid), words, 0, port);
    if (gid >= 0) this.#onDatagram(gid, kind, this.#withPeer, hasControl, hasTos, i);
    else this.#onUnsolicited(sid, i, port);
  }

  /**
   * Datagram i comes from a peer that the guest has not sent to from this endpoint.
   * @param port  of the peer, whose address is in this.#words[0..3]; below 0: the name is no socket address
   */
  #onUnsolicited(sid: SocketId, i: number, port: number): void {
    const table = this.#table;
    const ctx = this.#ctx;
    const u32 = this.#withPeer.u32;
    const at0 = i * MMSGHDR_WORDS;
    const controlBytes = u32[at0 + MSGHDR_CONTROLLEN_WORD]!;
    u32[at0 + MSGHDR_CONTROLLEN_WORD] = CONTROL_BYTES;
    const words = this.#words;
    const isOpen = !table.connects || table.sendsToGroups[sid] === 1;
    if (!isOpen || port <= 0 || !this.#addressing.isReachableFromGuest(words, 0)) {
      dropDatagrams(ctx.counters, StageDrop.unsolicited, 1);
      return;
    }
    if ((u32[at0 + MSGHDR_FLAGS_WORD]! & MSG_TRUNC) !== 0) {
      dropDatagrams(ctx.counters, StageDrop.tooLong, 1);
      return;
    }
    // words: the peer as the guest sees it 8..11, guest 12..15.
    this.#addressing.fromHost(words, 0, words, 8);
    const guestPort = table.endpoints!.guestOf(table.endpointOf(sid), words, 12);
    const hash = flowHash(
      ctx.plan.hashKey,
      words,
      12,
      words,
      8,
      ((guestPort << 16) | port) >>> 0,
      IPPROTO_UDP,
    );
    const out = ctx.datagramShard(hash);
    const bytes = u32[at0 + MMSGHDR_LEN_WORD]!;
    const gsoSize =
      table.hasGro[sid] === 1 && controlBytes > 0
        ? gsoSizeOf(this.#control.u32, (i * CONTROL_BYTES) >> 2, controlBytes)
        : 0;
    const tos =
      table.hasTos[sid] === 1 ? tosOf(this.#control.u32, (i * CONTROL_BYTES) >> 2, controlBytes) : 0;
    const slotA = this.#takeSmall(i);
    const slotB = this.#takeLarge(i, bytes);
    const ports = ((port << 16) | guestPort) >>> 0;
    unsolicitedDatagramWrite(out, slotA, slotB, HEADROOM_BYTES, bytes, gsoSize, ports, words, 0, 12, tos);
  }

  /**
   * Pass datagram i to the shard of its flow.
   * @param headers  that it was received with
   * @param hasControl  read its control messages
   * @param hasTos  these may include the TOS
   */
  #onDatagram(
    gid: number,
    kind: number,
    headers: NativeBuffer,
    hasControl: boolean,
    hasTos: boolean,
    i: number,
  ): void {
    const ctx = this.#ctx;
    const u32 = headers.u32;
    const at0 = i * MMSGHDR_WORDS;
    let ttl = 0;
    let tos = 0;
    let gsoSize = 0;
    if (hasControl) {
      const controlBytes = u32[at0 + MSGHDR_CONTROLLEN_WORD]!;
      if (isPing(kind)) ttl = ttlOf(this.#control.u32, (i * CONTROL_BYTES) >> 2, controlBytes);
      else if (controlBytes > 0)
        gsoSize = gsoSizeOf(this.#control.u32, (i * CONTROL_BYTES) >> 2, controlBytes);
      if (hasTos) tos = tosOf(this.#control.u32, (i * CONTROL_BYTES) >> 2, controlBytes);
    }
    // Reset also if the control messages are not read: the next socket's may be.
    if (headers !== this.#plain) u32[at0 + MSGHDR_CONTROLLEN_WORD] = CONTROL_BYTES;
    const isTruncated = (u32[at0 + MSGHDR_FLAGS_WORD]! & MSG_TRUNC) !== 0;
    const bytes = u32[at0 + MMSGHDR_LEN_WORD]!;
    if (isTruncated) {
      dropDatagrams(ctx.counters, StageDrop.tooLong, 1);
      return;
    }
    const slotA = this.#takeSmall(i);
    const slotB = this.#takeLarge(i, bytes);
    const flow = gid % ctx.flowsPerShard;
    datagramWrite(ctx.toShard(gid), flow, slotA, slotB, HEADROOM_BYTES, bytes, ttl, gsoSize, tos);
  }

  /** @returns the small slot of datagram i, which the message takes over */
  #takeSmall(i: number): number {
    const slot = this.#small[i]!;
    this.#small[i] = NO_SLOT;
    return slot;
  }

  /** @returns the large slot of datagram i, which the message takes over, or NO_SLOT: `bytes` need none */
  #takeLarge(i: number, bytes: number): number {
    if (bytes <= SMALL_PAYLOAD_BYTES) return NO_SLOT;
    const slot = this.#large[i]!;
    this.#large[i] = NO_SLOT;
    return slot;
  }

  /**
   * Datagram i of a published port: to the splice stage if the rule allows, else to the shard of its flow.
   */
  #onListenerDatagram(sid: SocketId, i: number): void {
    const table = this.#table;
    const ctx = this.#ctx;
    const u32 = this.#withPeer.u32;
    const at0 = i * MMSGHDR_WORDS;
    const controlBytes = u32[at0 + MSGHDR_CONTROLLEN_WORD]!;
    const isTruncated = (u32[at0 + MSGHDR_FLAGS_WORD]! & MSG_TRUNC) !== 0;
    const bytes = u32[at0 + MMSGHDR_LEN_WORD]!;
    u32[at0 + MSGHDR_NAMELEN_WORD] = SOCKADDR_BYTES;
    u32[at0 + MSGHDR_CONTROLLEN_WORD] = CONTROL_BYTES;
    // words: peer 0..3, local address 4..7, peer as the guest sees it 8..11, guest 12..15.
    const words = this.#words;
    const peerPort = sockaddrRead(this.#names.u8, i * NAME_BYTES, words, 0);
    if (
      isTruncated ||
      peerPort < 0 ||
      !localAddressOf(this.#control, (i * CONTROL_BYTES) >> 2, controlBytes, words, 4)
    ) {
      dropDatagrams(ctx.counters, StageDrop.tooLong, 1);
      return;
    }
    const index = sid - ctx.listenerBase;
    const targetPort = table.listenerPort[index]!;
    if (table.listenerSplices[index] === 1 && ctx.loopback !== undefined && isLoopback(words, 0)) {
      const { pool } = ctx;
      const d = this.#loopback;
      d.listenerFd = table.fd.get(sid);
      d.listenerId = index;
      d.listenerV6 = table.kind[sid] === Kind.listener6;
      d.peerPort = peerPort;
      d.targetPort = targetPort;
      d.addressA = pool.slotAddress(this.#small[i]!) + HEADROOM_BYTES;
      d.bytesA = Math.min(bytes, SMALL_PAYLOAD_BYTES);
      d.addressB = pool.slotAddress(this.#large[i]!);
      d.bytesB = Math.max(0, bytes - SMALL_PAYLOAD_BYTES);
      ctx.loopback.takeDatagram(d);
      return; // the slots stay armed for the next batch
    }
    const isV4 = isV4Mapped(words, 0);
    this.#addressing.fromHost(words, 0, words, 8);
    if (!listenerGuest(table.listenerPlan[index]!, this.#addressing, words, 8, words, 12)) {
      dropDatagrams(ctx.counters, StageDrop.destination, 1);
      return;
    }
    const ports = ((targetPort << 16) | peerPort) >>> 0;
    const hash = flowHash(ctx.plan.hashKey, words, 12, words, 8, ports, IPPROTO_UDP);
    const out = ctx.datagramShard(hash);
    const zone = isLinkLocal(words, 0) && !isV4 ? sockaddrScope(this.#names.u8, i * NAME_BYTES) : 0;
    const slotA = this.#takeSmall(i);
    const slotB = this.#takeLarge(i, bytes);
    const tos =
      table.hasTos[sid] === 1 ? tosOf(this.#control.u32, (i * CONTROL_BYTES) >> 2, controlBytes) : 0;
    listenerDatagramGuestWrite(ctx.u8, ctx.pool.slotAt(slotA), words, 12);
    const remoteAndTarget = ((peerPort << 16) | targetPort) >>> 0;
    const offset = HEADROOM_BYTES;
    listenerDatagramWrite(out, index, zone, slotA, slotB, offset, bytes, remoteAndTarget, words, 0, tos);
  }
}
