/**
 * Datagrams to the host. Consecutive datagrams of one flow and one size become one message, sent with
 * UDP_SEGMENT; consecutive messages of one socket are sent with one sendmmsg. For that datagrams are held
 * back until flush() at the end of each batch of commands, so that a single datagram is never delayed. A
 * datagram for a socket whose send buffer is full is dropped and counted.
 *
 * Invariant: the slots of held datagrams belong to the sender until sendHeld() returns them to the reader.
 */
import { isV4Mapped } from '../../../proto/address.ts';
import { Counter } from '../../../ring/counters.ts';
import { NO_SLOT } from '../../../ring/pool.ts';
import {
  cmsgSpace,
  IN6_PKTINFO_BYTES,
  pktinfoWrite,
  SEGMENT_CONTROL_BYTES,
  segmentWrite,
  tosWrite,
} from '../../../sys/cmsg.ts';
import {
  Errno,
  IP_MTU_DISCOVER,
  IP_MULTICAST_TTL,
  IP_PMTUDISC_DO,
  IP_PMTUDISC_WANT,
  IP_RECVTOS,
  IP_TOS,
  IP_TTL,
  IPV6_MTU_DISCOVER,
  IPV6_MULTICAST_HOPS,
  IPV6_RECVTCLASS,
  IPV6_TCLASS,
  IPV6_UNICAST_HOPS,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  SOL_IP,
  SOL_IPV6,
} from '../../../sys/constants.ts';
import { NativeBuffer } from '../../../sys/memory.ts';
import {
  IOVEC_BYTES,
  IOVEC_WORDS,
  iovecWrite,
  localAddress,
  MMSGHDR_BYTES,
  MMSGHDR_WORDS,
  MSGHDR_BYTES,
  msghdrControlWrite,
  msghdrWrite,
  NAME_BYTES,
  sendmmsg,
  sendmsg,
  setsockoptInt,
  sockaddrWrite,
} from '../../../sys/socket.ts';
import { linkBytes, linkSlotA, linkSlotB, linkSlotOffset } from '../../link/descriptor.ts';
import { StageDrop } from '../../link/stage-drop.ts';
import {
  SendFragment,
  sendDatagramGsoSize,
  sendDatagramIsBorrowed,
  sendDatagramOptions,
  sendFromListenerIndex,
  sendFromListenerLocalAt,
  sendFromListenerPort,
  sendFromListenerRemoteAt,
  sendFromListenerTos,
  sendFromListenerZone,
  sendOptions,
  sendOptionsFragment,
  sendOptionsTos,
  sendOptionsTtl,
} from '../../link/to-host.ts';
import type { HostContext, SocketId } from '../context.ts';
import { type GroupSockets, HASHED_BYTES } from '../group-sockets.ts';
import type { ErrorQueues } from './error-queue.ts';
import {
  DEFAULT_OPTIONS,
  dropDatagrams,
  hasSocket,
  isGroupFlow,
  isListener,
  isUdpFlow,
  Kind,
  NO_SOCKET,
  type SocketTable,
  sendsIpv4,
  sendsIpv6,
} from './socket-table.ts';

/** Most segments of one send: the kernel's UDP_MAX_SEGMENTS before 6.9, where it became 128. */
const MAX_SEGMENTS = 64;
/** Most bytes of one message with UDP_SEGMENT: below the 65,507 that one UDP send may have. */
const MAX_SEND_BYTES = 65000;

export class DatagramSender {
  readonly #ctx: HostContext;
  readonly #table: SocketTable;
  readonly #errors: ErrorQueues;
  readonly #groups: GroupSockets | null;
  readonly #words = new Uint32Array(8);

  // The held datagrams, all of one socket, and the messages that they form.
  readonly #sendIov = new NativeBuffer(MAX_SEGMENTS * 2 * IOVEC_BYTES);
  readonly #sendMsg = new NativeBuffer(MSGHDR_BYTES);
  readonly #sendControl = new NativeBuffer(cmsgSpace(IN6_PKTINFO_BYTES) + cmsgSpace(4));
  readonly #sendName = new NativeBuffer(NAME_BYTES);
  readonly #sendVec = new NativeBuffer(MAX_SEGMENTS * MMSGHDR_BYTES);
  readonly #sendControls = new NativeBuffer(MAX_SEGMENTS * SEGMENT_CONTROL_BYTES);
  readonly #heldSlotA = new Uint32Array(MAX_SEGMENTS);
  readonly #heldSlotB = new Uint32Array(MAX_SEGMENTS);
  /** By held datagram: its first iovec. */
  readonly #heldIov = new Uint16Array(MAX_SEGMENTS + 1);
  #heldSid: SocketId = NO_SOCKET;
  #heldCount = 0;
  // By message: its flow, its first datagram, its bytes, and the bytes of each datagram but the last.
  readonly #messageGid = new Int32Array(MAX_SEGMENTS);
  readonly #messageFirst = new Uint16Array(MAX_SEGMENTS + 1);
  readonly #messageBytes = new Uint32Array(MAX_SEGMENTS);
  readonly #messageSegment = new Uint32Array(MAX_SEGMENTS);
  #messageCount = 0;
  /**
   * No datagram can be added to the last message: its last datagram is shorter than the others, or
   * UDP_SEGMENT is not used for it.
   */
  #messageEnded = false;
  /** Datagrams may be held back. Set by the first flush(): its caller calls it after each batch. */
  #mayHold = false;

  constructor(ctx: HostContext, table: SocketTable, errors: ErrorQueues, groups: GroupSockets | null = null) {
    this.#ctx = ctx;
    this.#groups = groups;
    this.#table = table;
    this.#errors = errors;
  }

  /** sendDatagram from a shard: hold the datagram back, or send it. Takes over its slots unless borrowed. */
  send(words: Uint32Array, at: number, gid: number): void {
    const table = this.#table;
    const ctx = this.#ctx;
    const slotA = linkSlotA(words, at);
    const slotB = linkSlotB(words, at);
    const bytes = linkBytes(words, at);
    const isBorrowed = sendDatagramIsBorrowed(words, at);
    const kind = table.kind[gid]!;
    if (!hasSocket(kind)) {
      dropDatagrams(ctx.counters, StageDrop.noSocket, 1);
      if (!isBorrowed) ctx.freeReaderSlots(slotA, slotB);
      return;
    }
    const sid = table.socketOf(gid);
    const change = sendDatagramOptions(words, at);
    if (change !== 0) this.#recordOptions(gid, change);
    const wanted = table.wanted[gid]!;
    if (wanted !== table.options[sid] || sid !== this.#heldSid) {
      this.sendHeld();
      this.#setOptions(sid, wanted);
    }
    const gsoSize = sendDatagramGsoSize(words, at);
    // GSO frames, datagrams in borrowed slots or to groups, and echo requests are sent alone and at once.
    const isHeld = this.#mayHold && gsoSize === 0 && !isBorrowed && isUdpFlow(kind);
    if (!isHeld) {
      this.sendHeld();
      if (isGroupFlow(kind))
        this.#noteSent(gid, sid, slotA, slotB, linkSlotOffset(words, at), bytes, gsoSize);
    }
    if (this.#heldSid !== sid || !this.#continues(gid, bytes)) {
      if (this.#heldCount === MAX_SEGMENTS) this.sendHeld();
      this.#begin(sid, gid, gsoSize !== 0 && gsoSize < bytes ? gsoSize : bytes);
    }
    this.#append(isBorrowed ? NO_SLOT : slotA, slotB, linkSlotOffset(words, at), bytes, slotA);
    if (!isHeld) this.sendHeld();
  }

  /** Note datagrams to a group before they are sent: GroupSockets.sent(). */
  #noteSent(
    gid: number,
    sid: SocketId,
    slotA: number,
    slotB: number,
    slotOffset: number,
    bytes: number,
    gsoSize: number,
  ): void {
    const table = this.#table;
    const { pool } = this.#ctx;
    const words = this.#words;
    const port = table.endpoints!.peerOf(gid, words, 0);
    const from = localAddress(table.fd.get(sid), words, 4);
    const ports = ((from << 16) | port) >>> 0;
    const inA = pool.slotBytes(slotA) - slotOffset;
    const segment = gsoSize === 0 ? bytes : gsoSize;
    let at = 0;
    do {
      const length = Math.min(segment, bytes - at);
      const isInA = at + Math.min(length, HASHED_BYTES) <= inA;
      const dataAt = isInA ? pool.slotAt(slotA) + slotOffset + at : pool.slotAt(slotB) + at - inA;
      // Of a GSO frame, a segment whose first bytes are in both slots is not noted.
      if (isInA || at >= inA) this.#groups!.sent(words, 0, ports, dataAt, length);
      at += segment;
    } while (at < bytes);
  }

  /** Whether a datagram can be added to the last message. */
  #continues(gid: number, bytes: number): boolean {
    const last = this.#messageCount - 1;
    return (
      this.#messageGid[last] === gid &&
      !this.#messageEnded &&
      bytes > 0 &&
      this.#heldCount < MAX_SEGMENTS &&
      bytes <= this.#messageSegment[last]! &&
      this.#messageBytes[last]! + bytes <= MAX_SEND_BYTES
    );
  }

  /** Begin a message behind the held ones of the same socket. @param segment  bytes of its datagrams */
  #begin(sid: SocketId, gid: number, segment: number): void {
    const table = this.#table;
    if (this.#heldSid !== sid) {
      this.#heldSid = sid;
      this.#heldCount = 0;
      this.#messageCount = 0;
    }
    const m = this.#messageCount++;
    this.#messageGid[m] = gid;
    this.#messageFirst[m] = this.#heldCount;
    this.#messageBytes[m] = 0;
    this.#messageSegment[m] = segment;
    // UDP_SEGMENT cannot carry empty datagrams, and was refused for datagrams of `limit` bytes.
    const limit = table.noSegment[gid]!;
    this.#messageEnded = segment === 0 || (limit > 0 && segment >= limit);
  }

  /**
   * Add a datagram to the last message.
   * @param slotA,slotB  to be freed after the send; NO_SLOT: none
   * @param dataSlot  slot in which the bytes begin: slotA, or a borrowed slot
   */
  #append(slotA: number, slotB: number, slotOffset: number, bytes: number, dataSlot: number): void {
    const { pool } = this.#ctx;
    const last = this.#messageCount - 1;
    const i = this.#heldCount++;
    const iov = this.#sendIov.u32;
    let n = i === 0 ? 0 : this.#heldIov[i]!;
    this.#heldIov[i] = n;
    const room = pool.slotBytes(dataSlot) - slotOffset;
    const inA = slotB === NO_SLOT || bytes < room ? bytes : room;
    iovecWrite(iov, n++ * IOVEC_WORDS, pool.slotAddress(dataSlot) + slotOffset, inA);
    if (bytes > inA) iovecWrite(iov, n++ * IOVEC_WORDS, pool.slotAddress(slotB), bytes - inA);
    this.#heldIov[i + 1] = n;
    this.#heldSlotA[i] = slotA;
    this.#heldSlotB[i] = slotB;
    this.#messageBytes[last]! += bytes;
    this.#messageFirst[last + 1] = i + 1;
    if (bytes < this.#messageSegment[last]!) this.#messageEnded = true;
  }

  /** Send the held datagrams. A caller has to call it after each batch of commands. */
  flush(): void {
    this.#mayHold = true;
    this.sendHeld();
  }

  /** Send the held datagrams, and return their slots. */
  sendHeld(): void {
    const sid = this.#heldSid;
    if (sid < 0) return;
    this.#heldSid = NO_SOCKET;
    const ctx = this.#ctx;
    const messages = this.#messageCount;
    if (messages > 1) this.#writeVec(messages);
    for (let m = 0; m < messages; ) {
      if (messages - m > 1) {
        m += this.#sendSeveral(sid, m, messages - m);
        if (m === messages) break;
      }
      // The only message, or the one that sendmmsg stopped at.
      this.#sendMessage(m++);
    }
    for (let i = 0; i < this.#heldCount; i++) {
      if (this.#heldSlotA[i] !== NO_SLOT || this.#heldSlotB[i] !== NO_SLOT) {
        ctx.freeReaderSlots(this.#heldSlotA[i]!, this.#heldSlotB[i]!);
      }
    }
  }

  /** @returns address of the peer's sockaddr for msg_name; 0: the socket is connected to the peer */
  #peerName(gid: number): number {
    const table = this.#table;
    const sid = table.socketOf(gid);
    return table.onlyFlow(sid) >= 0 ? 0 : table.endpoints!.nameAddress(gid);
  }

  #peerNameBytes(gid: number, name: number): number {
    const table = this.#table;
    return name === 0 ? 0 : table.endpoints!.nameBytes(gid);
  }

  /** @returns number of datagrams of message m */
  #segmentsOf(m: number): number {
    const segment = this.#messageSegment[m]!;
    return segment > 0 ? Math.ceil(this.#messageBytes[m]! / segment) : 1;
  }

  /** Write the headers of the held messages for sendmmsg. */
  #writeVec(messages: number): void {
    const controls = this.#sendControls;
    for (let m = 0; m < messages; m++) {
      const gid = this.#messageGid[m]!;
      const name = this.#peerName(gid);
      const first = this.#heldIov[this.#messageFirst[m]!]!;
      const count = this.#heldIov[this.#messageFirst[m + 1]!]! - first;
      const controlAt = m * SEGMENT_CONTROL_BYTES;
      const isMany = this.#segmentsOf(m) > 1;
      const controlBytes = isMany ? segmentWrite(controls, controlAt, this.#messageSegment[m]!) : 0;
      msghdrWrite(
        this.#sendVec.u32,
        m * MMSGHDR_WORDS,
        name,
        this.#peerNameBytes(gid, name),
        this.#sendIov.address + first * IOVEC_BYTES,
        count,
      );
      msghdrControlWrite(
        this.#sendVec.u32,
        m * MMSGHDR_WORDS,
        isMany ? controls.address + controlAt : 0,
        controlBytes,
      );
    }
  }

  /** sendmmsg from message m on. @returns how many messages were sent; the next one was not */
  #sendSeveral(sid: SocketId, m: number, count: number): number {
    const table = this.#table;
    const { counters } = this.#ctx;
    const vec = this.#sendVec.address + m * MMSGHDR_BYTES;
    const sent = sendmmsg(table.fd.get(sid), vec, count, MSG_DONTWAIT | MSG_NOSIGNAL);
    counters[Counter.sockSends]!++;
    counters[Counter.datagramSends]!++;
    for (let i = m; i < m + sent; i++) {
      counters[Counter.datagramSendBytes]! += this.#messageBytes[i]!;
      this.#account(0, this.#segmentsOf(i));
    }
    return Math.max(0, sent);
  }

  /** Send message m alone; if UDP_SEGMENT is refused, datagram by datagram. */
  #sendMessage(m: number): void {
    const table = this.#table;
    const gid = this.#messageGid[m]!;
    const first = this.#heldIov[this.#messageFirst[m]!]!;
    const count = this.#heldIov[this.#messageFirst[m + 1]!]! - first;
    const segments = this.#segmentsOf(m);
    if (segments === 1) {
      this.#account(this.#trySend(gid, first, count, 0), 1);
      return;
    }
    const r = this.#trySend(gid, first, count, this.#messageSegment[m]!);
    if (r === -Errno.EINVAL || r === -Errno.EMSGSIZE || r === -Errno.EIO) {
      // Segments are larger than the path MTU, or the device has no checksum offload: single datagrams can be
      // fragmented by the kernel.
      table.noSegment[gid] = this.#messageSegment[m]!;
      this.#sendSingly(m, gid, segments);
    } else this.#account(r, segments);
  }

  /** Send the datagrams of message m one by one. */
  #sendSingly(m: number, gid: number, segments: number): void {
    const begin = this.#messageFirst[m]!;
    const end = this.#messageFirst[m + 1]!;
    if (end - begin > 1) {
      for (let i = begin; i < end; i++) {
        const from = this.#heldIov[i]!;
        this.#account(this.#trySend(gid, from, this.#heldIov[i + 1]! - from, 0), 1);
      }
      return;
    }
    // One GSO frame of the guest, which is the only held datagram: cut it into datagrams here.
    const iov = this.#sendIov.u32;
    const firstLow = iov[0]!;
    const firstHigh = iov[1]!;
    const firstAddress = firstHigh * 0x1_0000_0000 + firstLow;
    const firstBytes = iov[2]!;
    const hasSecond = this.#heldIov[1] === 2;
    const secondAddress = hasSecond ? iov[5]! * 0x1_0000_0000 + iov[4]! : 0;
    const segment = this.#messageSegment[m]!;
    for (let i = 0; i < segments; i++) {
      const from = i * segment;
      const bytes = Math.min(segment, this.#messageBytes[m]! - from);
      const inFirst = from >= firstBytes ? 0 : Math.min(bytes, firstBytes - from);
      let n = 0;
      if (inFirst > 0) iovecWrite(iov, n++ * IOVEC_WORDS, firstAddress + from, inFirst);
      if (bytes > inFirst) {
        iovecWrite(iov, n++ * IOVEC_WORDS, secondAddress + from + inFirst - firstBytes, bytes - inFirst);
      }
      this.#account(this.#trySend(gid, 0, n, 0), 1);
    }
  }

  /**
   * sendmsg with iovecs [first, first + count).
   * @param segment  UDP_SEGMENT size; 0: one datagram
   * @returns bytes or -errno
   */
  #trySend(gid: number, first: number, count: number, segment: number): number {
    const table = this.#table;
    const iovAddress = this.#sendIov.address + first * IOVEC_BYTES;
    const controlBytes = segment > 0 ? segmentWrite(this.#sendControl, 0, segment) : 0;
    const controlAddress = segment > 0 ? this.#sendControl.address : 0;
    const name = this.#peerName(gid);
    const nameBytes = this.#peerNameBytes(gid, name);
    msghdrWrite(this.#sendMsg.u32, 0, name, nameBytes, iovAddress, count);
    msghdrControlWrite(this.#sendMsg.u32, 0, controlAddress, controlBytes);
    const sid = table.socketOf(gid);
    const fd = table.fd.get(sid);
    let r = sendmsg(fd, this.#sendMsg.address, MSG_DONTWAIT | MSG_NOSIGNAL);
    this.#ctx.counters[Counter.sockSends]!++;
    this.#ctx.counters[Counter.datagramSends]!++;
    if (
      r < 0 &&
      r !== -Errno.EAGAIN &&
      r !== -Errno.EINVAL &&
      this.#errors.drain(sid) > 0 &&
      !(r === -Errno.EMSGSIZE && this.#errors.tooLong)
    ) {
      // The kernel reported the error of an earlier datagram, which drain() has passed on, and did not try
      // this datagram: send it again.
      r = sendmsg(fd, this.#sendMsg.address, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    if (r > 0) this.#ctx.counters[Counter.datagramSendBytes]! += r;
    if (r < 0 && r !== -Errno.EAGAIN && segment === 0 && r !== -Errno.ENOBUFS)
      this.#errors.passErrno(gid, -r);
    return r;
  }

  /** Count datagrams by how their send ended. @param result  bytes or -errno */
  #account(result: number, count: number): void {
    if (result >= 0) this.#ctx.counters[Counter.datagramsToHost]! += count;
    else if (result === -Errno.EAGAIN || result === -Errno.ENOBUFS)
      dropDatagrams(this.#ctx.counters, StageDrop.socketFull, count);
    else dropDatagrams(this.#ctx.counters, StageDrop.sendRefused, count);
  }

  /** Record the options that a flow needs from now on. @param change  sendDatagramOptions() */
  #recordOptions(gid: number, change: number): void {
    const table = this.#table;
    const before = table.wanted[gid]!;
    const ttl = sendOptionsTtl(change) || sendOptionsTtl(before);
    const fragment = sendOptionsFragment(change) || sendOptionsFragment(before);
    const tos = sendOptionsTos(change);
    table.wanted[gid] = sendOptions(ttl, fragment, tos < 0 ? sendOptionsTos(before) : tos);
  }

  /**
   * Set a socket's options to those of a flow; the flows of one endpoint may differ.
   * @param wanted  sendOptions(); TTL 0: leave the TTL as it is
   */
  #setOptions(sid: SocketId, wanted: number): void {
    const table = this.#table;
    const before = table.options[sid]!;
    if (wanted === before) return;
    const ttl = sendOptionsTtl(wanted);
    const fragment = sendOptionsFragment(wanted);
    const ttlBefore = sendOptionsTtl(before);
    const tos = sendOptionsTos(wanted);
    table.options[sid] = sendOptions(ttl || ttlBefore, fragment, tos);
    if (tos !== sendOptionsTos(before)) this.#setTos(sid, tos);
    if (ttl !== 0 && ttl !== ttlBefore) this.#setTtl(sid, ttl);
    if (fragment === sendOptionsFragment(before)) return;
    this.#setDiscover(sid, fragment === SendFragment.never ? IP_PMTUDISC_DO : IP_PMTUDISC_WANT);
  }

  /** @param ttl  -1: the kernel's default */
  #setTtl(sid: SocketId, ttl: number): void {
    const kind = this.#table.kind[sid]!;
    const fd = this.#table.fd.get(sid);
    if (sendsIpv4(kind)) setsockoptInt(fd, SOL_IP, IP_TTL, ttl);
    if (sendsIpv6(kind)) setsockoptInt(fd, SOL_IPV6, IPV6_UNICAST_HOPS, ttl);
    if (this.#table.sendsToGroups[sid] === 0) return;
    if (sendsIpv4(kind)) setsockoptInt(fd, SOL_IP, IP_MULTICAST_TTL, ttl);
    if (sendsIpv6(kind)) setsockoptInt(fd, SOL_IPV6, IPV6_MULTICAST_HOPS, ttl);
  }

  /**
   * Set the TOS or traffic class of the datagrams that are sent. From the first one on the socket reports
   * that of received ones too: a guest that marks its datagrams (QUIC with ECN, voice) wants to know the
   * peer's marks, and sockets of all others have no control message for it.
   */
  #setTos(sid: SocketId, tos: number): void {
    const table = this.#table;
    const kind = table.kind[sid]!;
    const fd = table.fd.get(sid);
    if (sendsIpv4(kind)) setsockoptInt(fd, SOL_IP, IP_TOS, tos);
    if (sendsIpv6(kind)) setsockoptInt(fd, SOL_IPV6, IPV6_TCLASS, tos);
    this.#reportTos(sid);
  }

  #reportTos(sid: SocketId): void {
    const table = this.#table;
    if (table.hasTos[sid] === 1) return;
    table.hasTos[sid] = 1;
    const kind = table.kind[sid]!;
    const fd = table.fd.get(sid);
    if (sendsIpv4(kind)) setsockoptInt(fd, SOL_IP, IP_RECVTOS, 1);
    if (sendsIpv6(kind)) setsockoptInt(fd, SOL_IPV6, IPV6_RECVTCLASS, 1);
  }

  /** @param discover  IP_PMTUDISC_*; IPV6_PMTUDISC_* have the same values */
  #setDiscover(sid: SocketId, discover: number): void {
    const kind = this.#table.kind[sid]!;
    const fd = this.#table.fd.get(sid);
    if (sendsIpv4(kind)) setsockoptInt(fd, SOL_IP, IP_MTU_DISCOVER, discover);
    if (sendsIpv6(kind)) setsockoptInt(fd, SOL_IPV6, IPV6_MTU_DISCOVER, discover);
  }

  /** Undo what flows have set on a listener, for replies, which carry no options. */
  #resetOptions(sid: SocketId): void {
    const table = this.#table;
    const before = table.options[sid]!;
    if (before === DEFAULT_OPTIONS) return;
    table.options[sid] = DEFAULT_OPTIONS;
    if (sendOptionsTos(before) !== 0) this.#setTos(sid, 0);
    this.#setTtl(sid, -1);
    this.#setDiscover(sid, IP_PMTUDISC_WANT);
  }

  /** sendFromListener from a shard: send a reply to the peer of a published port. Takes over its slots. */
  sendFromListener(words: Uint32Array, at: number): void {
    const table = this.#table;
    const ctx = this.#ctx;
    const sid = table.listenerSocket(sendFromListenerIndex(words, at));
    const slotA = linkSlotA(words, at);
    const slotB = linkSlotB(words, at);
    const kind = table.kind[sid]!;
    if (!isListener(kind)) {
      dropDatagrams(ctx.counters, StageDrop.noSocket, 1);
      ctx.freeReaderSlots(slotA, slotB);
      return;
    }
    this.#resetOptions(sid);
    const { pool } = ctx;
    const bytes = linkBytes(words, at);
    const slotOffset = linkSlotOffset(words, at);
    const room = pool.slotBytes(slotA) - slotOffset;
    const inA = slotB === NO_SLOT || bytes < room ? bytes : room;
    const iov = this.#sendIov.u32;
    iovecWrite(iov, 0, pool.slotAddress(slotA) + slotOffset, inA);
    if (bytes > inA) iovecWrite(iov, IOVEC_WORDS, pool.slotAddress(slotB), bytes - inA);
    const isV6 = kind === Kind.listener6;
    const scope = sendFromListenerZone(words, at);
    const port = sendFromListenerPort(words, at);
    const remoteAt = sendFromListenerRemoteAt(at);
    const nameBytes = sockaddrWrite(this.#sendName.u8, 0, words, remoteAt, port, scope, isV6);
    // Source address: the one that the peer sent to.
    const localAt = sendFromListenerLocalAt(at);
    let controlBytes = pktinfoWrite(this.#sendControl, words, localAt, scope, isV6);
    const tos = sendFromListenerTos(words, at);
    if (tos !== 0) {
      this.#reportTos(sid);
      controlBytes += tosWrite(this.#sendControl, controlBytes, tos, !isV4Mapped(words, remoteAt));
    }
    msghdrWrite(
      this.#sendMsg.u32,
      0,
      this.#sendName.address,
      nameBytes,
      this.#sendIov.address,
      bytes > inA ? 2 : 1,
    );
    msghdrControlWrite(this.#sendMsg.u32, 0, this.#sendControl.address, controlBytes);
    const r = sendmsg(table.fd.get(sid), this.#sendMsg.address, MSG_DONTWAIT | MSG_NOSIGNAL);
    ctx.counters[Counter.sockSends]!++;
    ctx.counters[Counter.datagramSends]!++;
    if (r > 0) ctx.counters[Counter.datagramSendBytes]! += r;
    this.#account(r, 1);
    ctx.freeReaderSlots(slotA, slotB);
  }
}
