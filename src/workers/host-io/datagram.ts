/**
 * Datagram sockets of the host-io stage: a connected UDP socket or a ping socket for each flow, and published UDP ports.
 *
 *   to the host    sendDatagram: one sendmsg from the slots the frame came in. Consecutive datagrams of one flow and size leave in
 *                  one sendmsg with UDP_SEGMENT; flush() sends what is held back, at the end of each batch of commands, so that
 *                  a lone datagram never waits. A socket that is full loses the datagram, as UDP may; it is counted.
 *   from the host  recvmmsg into slots of our own:
 *
 *                    small slot | 128 headroom | payload, 1920 bytes |      large slot | the rest, if any |
 *
 *   errors         IP_RECVERR: ICMP errors wait in the socket's error queue, which is drained whenever epoll, a send or a receive
 *                  tells of an error, or it would tell again and again.
 *
 * Ports: the guest's source port is taken on the host too when it is free, so that a peer sees what the guest meant and a NAT in front
 * of us can be passed; when it is taken, any port will do (StageDrop is not an answer to a busy port). Sockets of ours that
 * share a port (one guest port, several remotes) do so with SO_REUSEADDR, which they get only once a second one comes: a port is
 * never shared with another process, whose traffic would mix with ours. Between bind and connect a stranger's datagram may
 * slip in; the queue is emptied after connect.
 *
 * Invariant: after `closed` no message of the flow follows; an open that failed still waits for its `close`.
 */
import { addressEqual, addressWrite, isLinkLocal, isLoopback, isV4Mapped } from '../../proto/address.ts';
import { readU32, writeU32 } from '../../proto/be.ts';
import { ICMP_BYTES, IcmpType, IcmpUnreachable } from '../../proto/icmp.ts';
import { Icmp6Type } from '../../proto/icmpv6.ts';
import { Counter, DROP_BASE } from '../../ring/counters.ts';
import { HEADROOM_BYTES, LARGE_SLOT_BYTES, NO_SLOT, SMALL_SLOT_BYTES } from '../../ring/pool.ts';
import {
  AF_INET,
  AF_INET6,
  AF_UNSPEC,
  EPOLLERR,
  EPOLLET,
  EPOLLIN,
  Errno,
  IP_MTU_DISCOVER,
  IP_PKTINFO,
  IP_PMTUDISC_DO,
  IP_PMTUDISC_WANT,
  IP_RECVERR,
  IP_RECVTTL,
  IP_TTL,
  IPPROTO_ICMP,
  IPPROTO_ICMPV6,
  IPPROTO_UDP,
  IPV6_HOPLIMIT,
  IPV6_MTU_DISCOVER,
  IPV6_PKTINFO,
  IPV6_RECVERR,
  IPV6_RECVHOPLIMIT,
  IPV6_RECVPKTINFO,
  IPV6_UNICAST_HOPS,
  IPV6_V6ONLY,
  MSG_DONTWAIT,
  MSG_ERRQUEUE,
  MSG_NOSIGNAL,
  MSG_TRUNC,
  SO_DOMAIN,
  SO_EE_ORIGIN_ICMP,
  SO_EE_ORIGIN_ICMP6,
  SO_EE_ORIGIN_LOCAL,
  SO_RCVBUF,
  SO_REUSEADDR,
  SO_SNDBUF,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOL_IP,
  SOL_IPV6,
  SOL_SOCKET,
  SOL_UDP,
  UDP_GRO,
  UDP_SEGMENT,
} from '../../sys/constants.ts';
import { close, schedYield } from '../../sys/io.ts';
import { NativeBuffer } from '../../sys/memory.ts';
import {
  CMSG_HEADER_BYTES,
  CMSG_LEVEL_WORD,
  CMSG_TYPE_WORD,
  cmsgDataBytes,
  cmsgNext,
  cmsgSpace,
  cmsgWrite,
  connect,
  EE_CODE_AT,
  EE_INFO_AT,
  EE_OFFENDER_AT,
  EE_ORIGIN_AT,
  EE_TYPE_AT,
  getpeername,
  getsockname,
  getsockoptInt,
  IN_PKTINFO_BYTES,
  IN6_PKTINFO_BYTES,
  IOVEC_BYTES,
  IOVEC_WORDS,
  iovecWrite,
  MMSGHDR_BYTES,
  MMSGHDR_LEN_WORD,
  MMSGHDR_WORDS,
  MSGHDR_BYTES,
  MSGHDR_CONTROLLEN_WORD,
  MSGHDR_FLAGS_WORD,
  MSGHDR_NAMELEN_WORD,
  msghdrWrite,
  recv,
  recvmmsg,
  recvmsg,
  SOCK_EXTENDED_ERR_BYTES,
  SOCKADDR_BYTES,
  SOCKADDR_IN_BYTES,
  sendmsg,
  setsockoptInt,
  sockaddrRead,
  sockaddrScope,
  sockaddrWrite,
  socket,
} from '../../sys/socket.ts';
import type { HostChange, ListenerPlan } from '../engine-plan.ts';
import { flowHash } from '../flow-hash.ts';
import { reserveMessage, SendFragment, ToHost, ToShard, W } from '../messages.ts';
import { StageDrop } from '../stage-drop.ts';
import type { Addressing } from '../translator/addressing.ts';
import { listenerGuest, openListener } from './bind-address.ts';
import type { HostContext, SocketModule } from './context.ts';
import { targetPort } from './listener-table.ts';
import { Outbound } from './outbound.ts';

/** Datagrams by one recvmmsg, and full ones for one socket before others get their turn. */
const BATCH = 32;
const BATCHES_PER_ROUND = 1;
/** What armed large slots may keep from TCP. */
const MAX_LARGE_SHARE = 1 / 4;
/** Longer than a reader needs for what it was given; a processor hog's slice is about 3 ms. */
const READERS_TURN_MS = 1.5;
const SMALL_PAYLOAD_BYTES = SMALL_SLOT_BYTES - HEADROOM_BYTES;
/** Kernel's limit of segments in one send (UDP_MAX_SEGMENTS; 128 since 6.9), and of bytes in one datagram. */
const MAX_SEGMENTS = 64;
const MAX_SEND_BYTES = 65000;
/** struct sockaddr room, rounded up for alignment. */
const NAME_BYTES = 32;
/** Room for one PKTINFO or TTL message, and for an extended error with its offender. */
const CONTROL_BYTES = 64;
const ERROR_CONTROL_BYTES = 256;
/** As much of a datagram as the longest error to the guest quotes (RFC 4443 section 2.4 (c)); a multiple of 8. */
const ERROR_DATA_BYTES = 1280;
/** Errors taken from one queue before others get their turn; the queue itself is bounded by the receive buffer. */
const MAX_ERRORS_PER_ROUND = 256;
/** Pending errors that one read attempt steps over. */
const MAX_READ_ERRORS = 8;
const PORTS = 65536;
/** Asked of the kernel for each UDP socket; memory is only taken by datagrams that wait. */
const SOCKET_BUFFER_BYTES = 1 << 20;
/** Reuse table: no socket, or several that all have SO_REUSEADDR. */
const NOBODY = 0;

const Kind = {
  none: 0,
  udp4: 1,
  udp6: 2,
  ping4: 3,
  ping6: 4,
  failed: 5,
  listener4: 6,
  listener6: 7,
} as const;

export class DatagramSockets implements SocketModule {
  readonly #ctx: HostContext;
  readonly #addressing: Addressing;
  // By gid. Descriptors are kept + 1: zeroed memory means none, and stays untouched until used.
  readonly #fd: Int32Array;
  readonly #kind: Uint8Array;
  /** Local port that the socket was bound to on the guest's behalf, 0: the kernel chose. */
  readonly #port: Uint16Array;
  /** UDP_SEGMENT was refused for datagrams of this size: no larger ones are tried (0: no limit known). */
  readonly #noSegment: Uint16Array;
  /** The socket has UDP_GRO: the kernel may hand over several datagrams as one, and says so in a control message. */
  readonly #hasGro: Uint8Array;
  /** The error queue held more than one round's share. */
  readonly #moreErrors: Uint8Array;
  readonly #isStarved: Uint8Array;
  readonly #starved: number[] = [];
  readonly #listenerPort: Uint16Array;
  readonly #listenerPlan: ListenerPlan[] = [];
  readonly #listenerSplices: Uint8Array;
  /** By family (0, PORTS) and port: how many of our sockets share it, and the only one's gid + 1 while it lacks SO_REUSEADDR. */
  readonly #sharers = new Uint16Array(2 * PORTS);
  readonly #lone = new Int32Array(2 * PORTS);

  // Receiving: slots armed for the next recvmmsg, and three sets of headers over the same iovecs.
  readonly #batch: number;
  readonly #small = new Uint32Array(BATCH).fill(NO_SLOT);
  readonly #large = new Uint32Array(BATCH).fill(NO_SLOT);
  readonly #iov = new NativeBuffer(BATCH * 2 * IOVEC_BYTES);
  readonly #plain = new NativeBuffer(BATCH * MMSGHDR_BYTES);
  readonly #withControl = new NativeBuffer(BATCH * MMSGHDR_BYTES);
  readonly #withPeer = new NativeBuffer(BATCH * MMSGHDR_BYTES);
  readonly #names = new NativeBuffer(BATCH * NAME_BYTES);
  readonly #control = new NativeBuffer(BATCH * CONTROL_BYTES);

  // Sending: the run of datagrams that is being gathered for one flow.
  readonly #sendIov = new NativeBuffer(MAX_SEGMENTS * 2 * IOVEC_BYTES);
  readonly #sendMsg = new NativeBuffer(MSGHDR_BYTES);
  readonly #sendControl = new NativeBuffer(cmsgSpace(IN6_PKTINFO_BYTES));
  readonly #sendName = new NativeBuffer(NAME_BYTES);
  readonly #runSlotA = new Uint32Array(MAX_SEGMENTS);
  readonly #runSlotB = new Uint32Array(MAX_SEGMENTS);
  /** First iovec of each datagram of the run. */
  readonly #runIov = new Uint16Array(MAX_SEGMENTS + 1);
  #runGid = -1;
  #runCount = 0;
  #runBytes = 0;
  #runSegment = 0;
  /** A datagram shorter than the others ends a run. */
  #runEnded = false;
  /** A socket had a whole round's share and more; the processor is given up for it once, however many sockets there are. */
  #isBehind = false;
  #nextYieldMs = 0;
  /** Datagrams may be held back: whoever calls flush() once does so after each batch. */
  #mayHold = false;

  readonly #name = new NativeBuffer(NAME_BYTES);
  readonly #error = new NativeBuffer(MSGHDR_BYTES + IOVEC_BYTES + ERROR_DATA_BYTES + ERROR_CONTROL_BYTES);
  /** What the error being told quotes, in #error. */
  #quotedAt = 0;
  #quotedBytes = 0;
  /** Among the errors taken last was one of this host's own: a datagram that must not be fragmented is too long. */
  #tooLong = false;
  readonly #words = new Uint32Array(16);
  readonly #outbound: Outbound;

  constructor(ctx: HostContext, addressing: Addressing, gids: number) {
    this.#ctx = ctx;
    this.#addressing = addressing;
    this.#outbound = new Outbound(ctx.plan);
    this.#fd = new Int32Array(gids);
    this.#kind = new Uint8Array(gids);
    this.#port = new Uint16Array(gids);
    this.#noSegment = new Uint16Array(gids);
    this.#hasGro = new Uint8Array(gids);
    this.#moreErrors = new Uint8Array(gids);
    this.#isStarved = new Uint8Array(gids);
    this.#listenerPort = new Uint16Array(gids - ctx.listenerBase);
    this.#listenerSplices = new Uint8Array(gids - ctx.listenerBase);
    this.#batch = Math.max(1, Math.min(BATCH, Math.floor(ctx.largeSlots.capacity * MAX_LARGE_SHARE)));
    for (let i = 0; i < BATCH; i++) {
      const iov = this.#iov.address + i * 2 * IOVEC_BYTES;
      const name = this.#names.address + i * NAME_BYTES;
      const control = this.#control.address + i * CONTROL_BYTES;
      msghdrWrite(this.#plain.u32, i * MMSGHDR_WORDS, 0, 0, iov, 2, 0, 0);
      msghdrWrite(this.#withControl.u32, i * MMSGHDR_WORDS, 0, 0, iov, 2, control, CONTROL_BYTES);
      msghdrWrite(
        this.#withPeer.u32,
        i * MMSGHDR_WORDS,
        name,
        SOCKADDR_BYTES,
        iov,
        2,
        control,
        CONTROL_BYTES,
      );
    }
  }

  /** openUdp, openPing, sendDatagram, sendFromListener, close or reset, from a shard. Takes over the slots it brings. */
  command(op: number, words: Uint32Array, at: number, gid: number): void {
    switch (op) {
      case ToHost.sendDatagram:
        this.#onSend(words, at, gid);
        break;
      case ToHost.sendFromListener:
        this.#sendRun();
        this.#sendFromListener(words, at);
        break;
      case ToHost.openUdp:
        this.#sendRun();
        this.#openUdp(words, at, gid);
        break;
      case ToHost.openPing:
        this.#sendRun();
        this.#openPing(words, at, gid);
        break;
      case ToHost.close:
      case ToHost.reset:
        this.#sendRun();
        this.#close(gid);
        break;
    }
  }

  // ---- opening and closing ------------------------------------------------------------------------------------------

  #openUdp(words: Uint32Array, at: number, gid: number): void {
    const isV4 = isV4Mapped(words, at + W.addr);
    const fd = socket(isV4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_UDP);
    if (fd < 0) {
      this.#openFailed(gid, -fd);
      return;
    }
    const port = words[at + W.ports]! & 0xffff;
    const remotePort = words[at + W.ports]! >>> 16;
    let r = this.#prepare(fd, isV4, words, at + W.addr);
    if (r === 0) {
      if (port !== 0 && this.#bindPort(fd, isV4, port, gid, words, at + W.addr)) this.#port[gid] = port;
      else r = this.#outbound.bindPort(fd, words, at + W.addr, 0);
    }
    if (r === 0) r = this.#connect(fd, words, at + W.addr, remotePort);
    if (r === 0) this.#discardStrangers(fd);
    // After the strangers: they were read without looking at control messages. Kernels before 5.0 refuse, and nothing is lost.
    const hasGro = r === 0 && words[at + W.arg0] === 1 && setsockoptInt(fd, SOL_UDP, UDP_GRO, 1) === 0;
    this.#hasGro[gid] = hasGro ? 1 : 0;
    if (r === 0) this.#enlargeBuffers(fd);
    this.#opened(gid, fd, isV4 ? Kind.udp4 : Kind.udp6, r);
  }

  #openPing(words: Uint32Array, at: number, gid: number): void {
    const isV4 = words[at + W.arg0] === 4;
    const protocol = isV4 ? IPPROTO_ICMP : IPPROTO_ICMPV6;
    const fd = socket(isV4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
    if (fd < 0) {
      this.#openFailed(gid, -fd);
      return;
    }
    let r = this.#prepare(fd, isV4, words, at + W.addr);
    if (r === 0) {
      r = isV4 ? setsockoptInt(fd, SOL_IP, IP_RECVTTL, 1) : setsockoptInt(fd, SOL_IPV6, IPV6_RECVHOPLIMIT, 1);
    }
    if (r === 0) r = this.#outbound.bindPort(fd, words, at + W.addr, 0);
    if (r === 0) r = this.#connect(fd, words, at + W.addr, 0);
    this.#opened(gid, fd, isV4 ? Kind.ping4 : Kind.ping6, r);
  }

  #connect(fd: number, words: Uint32Array, w: number, port: number): number {
    const scope = this.#outbound.scopeOf(words, w);
    const nameBytes = sockaddrWrite(this.#name.u8, 0, words, w, port, scope);
    return connect(fd, this.#name.address, nameBytes);
  }

  /** Options that every socket of a flow has. @param words,w  remote address @returns 0 or -errno */
  #prepare(fd: number, isV4: boolean, words: Uint32Array, w: number): number {
    let r = isV4 ? 0 : setsockoptInt(fd, SOL_IPV6, IPV6_V6ONLY, 1);
    // A ping socket of family 6 knows no V6ONLY on some kernels: it is that already.
    if (r === -Errno.ENOPROTOOPT || r === -Errno.EINVAL) r = 0;
    if (r === 0) r = setsockoptInt(fd, isV4 ? SOL_IP : SOL_IPV6, isV4 ? IP_RECVERR : IPV6_RECVERR, 1);
    if (r === 0) r = this.#outbound.toDevice(fd, words, w);
    return r;
  }

  /**
   * Room for bursts. What the default holds (rmem_default, 208 KiB) is 90 datagrams of 1,400 bytes with the kernel's overhead, less than
   * come while a round is under way. The kernel cuts the wish to net.core.rmem_max and wmem_max and doubles it.
   */
  #enlargeBuffers(fd: number): void {
    setsockoptInt(fd, SOL_SOCKET, SO_RCVBUF, SOCKET_BUFFER_BYTES);
    setsockoptInt(fd, SOL_SOCKET, SO_SNDBUF, SOCKET_BUFFER_BYTES);
  }

  /** Try to have the guest's port on the host too. @returns whether the socket is bound now */
  #bindPort(fd: number, isV4: boolean, port: number, gid: number, words: Uint32Array, w: number): boolean {
    const key = (isV4 ? 0 : PORTS) + port;
    const shared = this.#sharers[key]! > 0;
    if (shared) {
      const lone = this.#lone[key]!;
      if (lone !== NOBODY) {
        setsockoptInt(this.#fd[lone - 1]! - 1, SOL_SOCKET, SO_REUSEADDR, 1);
        this.#lone[key] = NOBODY;
      }
      setsockoptInt(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    }
    if (this.#outbound.bindPort(fd, words, w, port) < 0) return false; // taken, or privileged: any port will do
    this.#sharers[key]!++;
    if (!shared) this.#lone[key] = gid + 1;
    return true;
  }

  #releasePort(gid: number, isV4: boolean): void {
    const port = this.#port[gid]!;
    if (port === 0) return;
    const key = (isV4 ? 0 : PORTS) + port;
    this.#sharers[key]!--;
    if (this.#lone[key] === gid + 1) this.#lone[key] = NOBODY;
    this.#port[gid] = 0;
  }

  /** Nothing that came before the first send can be an answer. */
  #discardStrangers(fd: number): void {
    for (let i = 0; i < BATCH; i++) {
      if (recv(fd, this.#name.address, 1, MSG_DONTWAIT | MSG_TRUNC) === -Errno.EAGAIN) return;
    }
  }

  /** @param result  of the calls so far: 0 or -errno */
  #opened(gid: number, fd: number, kind: number, result: number): void {
    const ctx = this.#ctx;
    this.#fd[gid] = fd + 1;
    this.#kind[gid] = kind;
    this.#noSegment[gid] = 0;
    this.#moreErrors[gid] = 0;
    const r = result < 0 ? result : ctx.watch(fd, gid, (EPOLLIN | EPOLLERR | EPOLLET) >>> 0);
    if (r < 0) {
      this.#releasePort(gid, kind === Kind.udp4);
      close(fd);
      this.#fd[gid] = 0;
      this.#openFailed(gid, -r);
      return;
    }
    ctx.counters[Counter.sockOpened]!++;
  }

  #openFailed(gid: number, errno: number): void {
    const ctx = this.#ctx;
    ctx.shortage.is(-errno);
    this.#kind[gid] = Kind.failed;
    const out = ctx.toShard(gid);
    const at = reserveMessage(out, ToShard.openFailed, gid % ctx.flowsPerShard);
    const w = out.words;
    w[at + W.arg0] = errno;
    out.commit();
  }

  #close(gid: number): void {
    const ctx = this.#ctx;
    const kind = this.#kind[gid];
    if (kind === Kind.none) return;
    const fd = this.#fd[gid]! - 1;
    if (fd >= 0) {
      this.#releasePort(gid, kind === Kind.udp4);
      close(fd);
      this.#fd[gid] = 0;
      ctx.counters[Counter.sockClosed]!++;
    }
    this.#kind[gid] = Kind.none;
    const out = ctx.toShard(gid);
    reserveMessage(out, ToShard.closed, gid % ctx.flowsPerShard);
    out.commit();
  }

  /**
   * Open a published port.
   * @param index  listener number
   * @returns 0 or -errno
   */
  listen(index: number, plan: ListenerPlan, port = plan.port): number {
    const ctx = this.#ctx;
    const gid = ctx.listenerBase + index;
    const fd = openListener(plan, port, SOCK_DGRAM, ctx.plan.policy.freebind);
    if (fd < 0) return fd;
    const isV4 = getsockoptInt(fd, SOL_SOCKET, SO_DOMAIN) === AF_INET;
    let r = isV4
      ? setsockoptInt(fd, SOL_IP, IP_PKTINFO, 1)
      : setsockoptInt(fd, SOL_IPV6, IPV6_RECVPKTINFO, 1);
    if (r === 0) r = ctx.watch(fd, gid, (EPOLLIN | EPOLLET) >>> 0);
    if (r < 0) {
      close(fd);
      return r;
    }
    this.#fd[gid] = fd + 1;
    this.#kind[gid] = isV4 ? Kind.listener4 : Kind.listener6;
    this.#listenerPort[index] = targetPort(plan, port);
    this.#listenerPlan[index] = plan;
    this.#listenerSplices[index] = plan.path === 'splice' ? 1 : 0;
    return 0;
  }

  /** Stop listening: flows that came in here hear no more, and can answer no more. */
  unlisten(index: number): void {
    const gid = this.#ctx.listenerBase + index;
    this.#ctx.loopback?.forgetListener(index);
    close(this.#fd[gid]! - 1);
    this.#fd[gid] = 0;
    this.#kind[gid] = Kind.none;
  }

  closeAll(): void {
    for (let gid = 0; gid < this.#fd.length; gid++) {
      if (this.#fd[gid] !== 0) close(this.#fd[gid]! - 1);
      this.#fd[gid] = 0;
      this.#kind[gid] = Kind.none;
    }
  }

  /**
   * The host's network has changed. A connected socket keeps the source address that the kernel chose when it was connected, and may
   * not send any more once the host has lost it; a flow that goes on for hours (a tunnel of the guest's) would be dead for ever. So
   * each one whose address would be another today is connected anew, its port kept.
   */
  hostChanged(change: HostChange): void {
    this.#outbound.hostChanged(change);
    for (let gid = 0; gid < this.#ctx.listenerBase; gid++) {
      const kind = this.#kind[gid]!;
      if (kind !== Kind.none && kind <= Kind.ping6) this.#reconnect(gid, kind);
    }
  }

  #reconnect(gid: number, kind: number): void {
    const fd = this.#fd[gid]! - 1;
    const words = this.#words;
    const port = this.#nameOf(getpeername, fd, words, 0);
    if (port < 0 || this.#outbound.hasSource(words, 0)) return;
    if (this.#nameOf(getsockname, fd, words, 4) < 0 || !this.#sourceNow(kind, words, port)) return;
    if (addressEqual(words, 4, words, 8)) return;
    // As long as it is not connected strangers may be heard, as at the start; what waits is lost with them.
    this.#name.u8.fill(0);
    this.#name.u16[0] = AF_UNSPEC;
    if (connect(fd, this.#name.address, SOCKADDR_IN_BYTES) < 0) return;
    const r = this.#connect(fd, words, 0, port);
    this.#discardStrangers(fd);
    if (r < 0) this.#tellErrno(gid, -r);
    else this.#ctx.counters[Counter.datagramsReconnected]!++;
  }

  /** Source address that the kernel would choose today, into words[8..11]. @returns false when there is no way to go */
  #sourceNow(kind: number, words: Uint32Array, port: number): boolean {
    const isV4 = kind === Kind.udp4 || kind === Kind.ping4;
    const probe = socket(isV4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_UDP);
    if (probe < 0) return false;
    let r = this.#outbound.toDevice(probe, words, 0);
    if (r === 0) r = this.#connect(probe, words, 0, port || 1);
    if (r === 0) r = this.#nameOf(getsockname, probe, words, 8);
    close(probe);
    return r >= 0;
  }

  /** @param call  getsockname or getpeername @returns the port or -errno */
  #nameOf(call: typeof getsockname, fd: number, words: Uint32Array, w: number): number {
    const lengthAt = SOCKADDR_BYTES;
    this.#name.u32[lengthAt >> 2] = SOCKADDR_BYTES;
    const r = call(fd, this.#name.address, this.#name.address + lengthAt);
    return r < 0 ? r : sockaddrRead(this.#name.u8, 0, words, w);
  }

  // ---- to the host --------------------------------------------------------------------------------------------------

  #onSend(words: Uint32Array, at: number, gid: number): void {
    const ctx = this.#ctx;
    const slotA = words[at + W.slotA]!;
    const slotB = words[at + W.slotB]!;
    const bytes = words[at + W.len]!;
    const isBorrowed = words[at + W.arg2] === 1;
    const kind = this.#kind[gid]!;
    if (kind === Kind.none || kind >= Kind.failed) {
      this.#drop(StageDrop.noSocket, 1);
      if (!isBorrowed) ctx.freeReaderSlots(slotA, slotB);
      return;
    }
    const options = words[at + W.arg0]!;
    const gsoSize = words[at + W.arg1]!;
    const isPlain = options === 0 && gsoSize === 0 && !isBorrowed && bytes > 0 && kind <= Kind.udp6;
    if (this.#runGid === gid && isPlain && this.#fitsRun(bytes)) {
      this.#append(slotA, slotB, words[at + W.at]!, bytes);
      return;
    }
    this.#sendRun();
    if (options !== 0) this.#setOptions(gid, options & 0xff, options >>> 8);
    this.#runGid = gid;
    this.#runCount = 0;
    this.#runBytes = 0;
    this.#runEnded = false;
    this.#runSegment = gsoSize !== 0 && gsoSize < bytes ? gsoSize : bytes;
    this.#append(isBorrowed ? NO_SLOT : slotA, slotB, words[at + W.at]!, bytes, slotA);
    // Only equal plain datagrams can be continued, and a run that is too large for UDP_SEGMENT gains nothing.
    const limit = this.#noSegment[gid]!;
    const canGoOn =
      this.#mayHold &&
      gsoSize === 0 &&
      !isBorrowed &&
      bytes > 0 &&
      kind <= Kind.udp6 &&
      !(limit > 0 && bytes >= limit);
    if (!canGoOn) this.#sendRun();
  }

  #fitsRun(bytes: number): boolean {
    return (
      !this.#runEnded &&
      this.#runCount < MAX_SEGMENTS &&
      bytes <= this.#runSegment &&
      this.#runBytes + bytes <= MAX_SEND_BYTES
    );
  }

  /** @param dataSlot  where the bytes lie, when slotA is not to be freed */
  #append(slotA: number, slotB: number, slotOffset: number, bytes: number, dataSlot = slotA): void {
    const { pool } = this.#ctx;
    const i = this.#runCount++;
    const iov = this.#sendIov.u32;
    let n = i === 0 ? 0 : this.#runIov[i]!;
    this.#runIov[i] = n;
    const room = pool.slotBytes(dataSlot) - slotOffset;
    const inA = slotB === NO_SLOT || bytes < room ? bytes : room;
    iovecWrite(iov, n++ * IOVEC_WORDS, pool.slotAddress(dataSlot) + slotOffset, inA);
    if (bytes > inA) iovecWrite(iov, n++ * IOVEC_WORDS, pool.slotAddress(slotB), bytes - inA);
    this.#runIov[i + 1] = n;
    this.#runSlotA[i] = slotA;
    this.#runSlotB[i] = slotB;
    this.#runBytes += bytes;
    if (bytes < this.#runSegment) this.#runEnded = true;
  }

  /** Send what is held back. Whoever calls this promises to call it after each batch of commands. */
  flush(): void {
    this.#mayHold = true;
    this.#sendRun();
  }

  #sendRun(): void {
    const gid = this.#runGid;
    if (gid < 0) return;
    this.#runGid = -1;
    const ctx = this.#ctx;
    const count = this.#runCount;
    const segments = this.#runSegment > 0 ? Math.ceil(this.#runBytes / this.#runSegment) : 1;
    let r: number;
    if (segments > 1) {
      r = this.#trySend(gid, 0, this.#runIov[count]!, this.#runSegment);
      if (r === -Errno.EINVAL || r === -Errno.EMSGSIZE || r === -Errno.EIO) {
        // Segments larger than the path takes in one piece, or a device that cannot: one by one, the kernel fragments.
        this.#noSegment[gid] = this.#runSegment;
        this.#sendSingly(gid, segments);
      } else this.#account(r, segments);
    } else {
      r = this.#trySend(gid, 0, this.#runIov[1]!, 0);
      this.#account(r, 1);
    }
    for (let i = 0; i < count; i++) {
      if (this.#runSlotA[i] !== NO_SLOT || this.#runSlotB[i] !== NO_SLOT) {
        ctx.freeReaderSlots(this.#runSlotA[i]!, this.#runSlotB[i]!);
      }
    }
  }

  #sendSingly(gid: number, segments: number): void {
    if (this.#runCount > 1) {
      for (let i = 0; i < this.#runCount; i++) {
        const from = this.#runIov[i]!;
        this.#account(this.#trySend(gid, from, this.#runIov[i + 1]! - from, 0), 1);
      }
      return;
    }
    // One GSO frame of the guest's: cut it here.
    const iov = this.#sendIov.u32;
    const firstLow = iov[0]!;
    const firstHigh = iov[1]!;
    const firstAddress = firstHigh * 0x1_0000_0000 + firstLow;
    const firstBytes = iov[2]!;
    const hasSecond = this.#runIov[1] === 2;
    const secondAddress = hasSecond ? iov[5]! * 0x1_0000_0000 + iov[4]! : 0;
    for (let i = 0; i < segments; i++) {
      const from = i * this.#runSegment;
      const bytes = Math.min(this.#runSegment, this.#runBytes - from);
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
   * sendmsg from iovecs [first, first + count).
   * @param segment  UDP_SEGMENT size, 0: one datagram
   * @returns bytes or -errno
   */
  #trySend(gid: number, first: number, count: number, segment: number): number {
    const iovAddress = this.#sendIov.address + first * IOVEC_BYTES;
    let controlBytes = 0;
    if (segment > 0) {
      controlBytes = cmsgWrite(this.#sendControl.u32, 0, SOL_UDP, UDP_SEGMENT, 2);
      this.#sendControl.u16[CMSG_HEADER_BYTES >> 1] = segment;
    }
    const controlAddress = segment > 0 ? this.#sendControl.address : 0;
    msghdrWrite(this.#sendMsg.u32, 0, 0, 0, iovAddress, count, controlAddress, controlBytes);
    const fd = this.#fd[gid]! - 1;
    let r = sendmsg(fd, this.#sendMsg.address, MSG_DONTWAIT | MSG_NOSIGNAL);
    this.#ctx.counters[Counter.sockSends]!++;
    this.#ctx.counters[Counter.datagramSends]!++;
    if (
      r < 0 &&
      r !== -Errno.EAGAIN &&
      r !== -Errno.EINVAL &&
      this.#drainErrors(gid) > 0 &&
      !(r === -Errno.EMSGSIZE && this.#tooLong)
    ) {
      // The error was an earlier datagram's and has been told: this one has not been tried yet.
      r = sendmsg(fd, this.#sendMsg.address, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    if (r > 0) this.#ctx.counters[Counter.datagramSendBytes]! += r;
    if (r < 0 && r !== -Errno.EAGAIN && segment === 0 && r !== -Errno.ENOBUFS) this.#tellErrno(gid, -r);
    return r;
  }

  #account(result: number, count: number): void {
    if (result >= 0) this.#ctx.counters[Counter.datagramsToHost]! += count;
    else if (result === -Errno.EAGAIN || result === -Errno.ENOBUFS) this.#drop(StageDrop.socketFull, count);
    else this.#drop(StageDrop.sendRefused, count);
  }

  #drop(cause: number, count: number): void {
    this.#ctx.counters[DROP_BASE - cause]! += count;
  }

  /** @param ttl  0: as it is @param fragment  SendFragment */
  #setOptions(gid: number, ttl: number, fragment: number): void {
    const kind = this.#kind[gid]!;
    const isV4 = kind === Kind.udp4 || kind === Kind.ping4;
    const level = isV4 ? SOL_IP : SOL_IPV6;
    const fd = this.#fd[gid]! - 1;
    if (ttl !== 0) setsockoptInt(fd, level, isV4 ? IP_TTL : IPV6_UNICAST_HOPS, ttl);
    if (fragment === SendFragment.unchanged) return;
    // The values are the same for both families.
    const discover = fragment === SendFragment.never ? IP_PMTUDISC_DO : IP_PMTUDISC_WANT;
    setsockoptInt(fd, level, isV4 ? IP_MTU_DISCOVER : IPV6_MTU_DISCOVER, discover);
  }

  #sendFromListener(words: Uint32Array, at: number): void {
    const ctx = this.#ctx;
    const gid = ctx.listenerBase + words[at + W.arg1]!;
    const slotA = words[at + W.slotA]!;
    const slotB = words[at + W.slotB]!;
    const kind = this.#kind[gid]!;
    if (kind !== Kind.listener4 && kind !== Kind.listener6) {
      this.#drop(StageDrop.noSocket, 1);
      ctx.freeReaderSlots(slotA, slotB);
      return;
    }
    const { pool } = ctx;
    const bytes = words[at + W.len]!;
    const room = pool.slotBytes(slotA) - words[at + W.at]!;
    const inA = slotB === NO_SLOT || bytes < room ? bytes : room;
    const iov = this.#sendIov.u32;
    iovecWrite(iov, 0, pool.slotAddress(slotA) + words[at + W.at]!, inA);
    if (bytes > inA) iovecWrite(iov, IOVEC_WORDS, pool.slotAddress(slotB), bytes - inA);
    const isV6 = kind === Kind.listener6;
    const scope = words[at + W.flow]!;
    const port = words[at + W.ports]! >>> 16;
    const nameBytes = sockaddrWrite(this.#sendName.u8, 0, words, at + W.addr, port, scope, isV6);
    const controlBytes = this.#pktinfoWrite(words, at, isV6);
    msghdrWrite(
      this.#sendMsg.u32,
      0,
      this.#sendName.address,
      nameBytes,
      this.#sendIov.address,
      bytes > inA ? 2 : 1,
      this.#sendControl.address,
      controlBytes,
    );
    const r = sendmsg(this.#fd[gid]! - 1, this.#sendMsg.address, MSG_DONTWAIT | MSG_NOSIGNAL);
    ctx.counters[Counter.sockSends]!++;
    ctx.counters[Counter.datagramSends]!++;
    if (r > 0) ctx.counters[Counter.datagramSendBytes]! += r;
    this.#account(r, 1);
    ctx.freeReaderSlots(slotA, slotB);
  }

  /** Source address of a reply: the one that the peer wrote to. @returns control bytes */
  #pktinfoWrite(words: Uint32Array, at: number, isV6: boolean): number {
    const local = this.#words;
    local[0] = words[at + W.arg0]!;
    local[1] = words[at + W.arg2]!;
    local[2] = words[at + W.arg3]!;
    local[3] = words[at + W.arg4]!;
    const { u8, u32 } = this.#sendControl;
    const dataAt = CMSG_HEADER_BYTES;
    if (isV6) {
      const bytes = cmsgWrite(u32, 0, SOL_IPV6, IPV6_PKTINFO, IN6_PKTINFO_BYTES);
      for (let i = 0; i < 4; i++) writeU32(u8, dataAt + 4 * i, local[i]!);
      u32[(dataAt + 16) >> 2] = words[at + W.flow]!;
      return bytes;
    }
    const bytes = cmsgWrite(u32, 0, SOL_IP, IP_PKTINFO, IN_PKTINFO_BYTES);
    u32[dataAt >> 2] = 0;
    writeU32(u8, dataAt + 4, local[3]!);
    u32[(dataAt + 8) >> 2] = 0;
    return bytes;
  }

  // ---- from the host ------------------------------------------------------------------------------------------------

  onEvents(gid: number, events: number): void {
    if (this.#fd[gid] === 0) return;
    if (events & EPOLLERR) this.#drainErrors(gid);
    this.#read(gid);
  }

  /** A socket with more to read than one round's share, again. */
  onReady(gid: number): void {
    if (this.#fd[gid] === 0) return;
    if (this.#isBehind) this.#yield();
    // Another queue, another system call: looked at only when it is known to hold something. News of it come as EPOLLERR.
    if (this.#moreErrors[gid]) this.#drainErrors(gid);
    this.#read(gid);
  }

  /**
   * Let whoever reads on the other side go first: the guest's own sockets hold some 90 datagrams of 1,400 bytes, and a queue that grew while
   * this thread had no processor would run them over. What comes meanwhile makes fuller batches (decision 013). A processor hog must
   * not live on this: when it took a whole slice, we take as long before the next.
   */
  #yield(): void {
    this.#isBehind = false;
    const before = performance.now();
    if (before < this.#nextYieldMs) return;
    schedYield();
    const after = performance.now();
    if (after - before > READERS_TURN_MS) this.#nextYieldMs = after + (after - before);
  }

  /** Slots came back: sockets that stopped reading for want of them go on. Call it after freeSlots commands. */
  resume(): void {
    while (this.#starved.length > 0) {
      const gid = this.#starved.pop()!;
      this.#isStarved[gid] = 0;
      if (this.#fd[gid] !== 0) this.#ctx.markReady(gid);
    }
  }

  #starve(gid: number): void {
    if (this.#isStarved[gid]) return;
    this.#isStarved[gid] = 1;
    this.#starved.push(gid);
    this.#ctx.counters[Counter.poolDry]!++;
  }

  /** Have slots ready for a batch. @returns how many datagrams may be received, 0: the pool is dry */
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

  #read(gid: number): void {
    const fd = this.#fd[gid]! - 1;
    const kind = this.#kind[gid]!;
    const hasControl = kind >= Kind.ping4 || this.#hasGro[gid] === 1;
    const headers = !hasControl ? this.#plain : kind <= Kind.ping6 ? this.#withControl : this.#withPeer;
    let errors = 0;
    for (let batch = 0; batch < BATCHES_PER_ROUND; ) {
      const armed = this.#arm();
      if (armed === 0) {
        this.#starve(gid);
        return;
      }
      const n = recvmmsg(fd, headers.address, armed, MSG_DONTWAIT);
      this.#ctx.counters[Counter.datagramRecvs]!++;
      if (n < 0) {
        // Anything but "empty" is a pending error, told by the error queue as well; the call has taken it off the socket.
        if (n === -Errno.EAGAIN || ++errors > MAX_READ_ERRORS) return;
        this.#drainErrors(gid);
        continue;
      }
      for (let i = 0; i < n; i++) {
        if (kind <= Kind.ping6) this.#onDatagram(gid, kind, headers, hasControl, i);
        else this.#onListenerDatagram(gid, i);
      }
      if (kind > Kind.ping6) this.#ctx.loopback?.flushDatagrams();
      if (n < armed) return; // all there was; the next one raises an event
      batch++;
    }
    this.#isBehind = true;
    this.#ctx.markReady(gid);
  }

  #onDatagram(gid: number, kind: number, headers: NativeBuffer, hasControl: boolean, i: number): void {
    const ctx = this.#ctx;
    const u32 = headers.u32;
    const at0 = i * MMSGHDR_WORDS;
    let ttl = 0;
    let gsoSize = 0;
    if (hasControl) {
      const controlBytes = u32[at0 + MSGHDR_CONTROLLEN_WORD]!;
      if (kind >= Kind.ping4) ttl = this.#ttlOf(i, controlBytes);
      else if (controlBytes > 0) gsoSize = this.#gsoSizeOf(i, controlBytes);
      u32[at0 + MSGHDR_CONTROLLEN_WORD] = CONTROL_BYTES;
    }
    const isTruncated = (u32[at0 + MSGHDR_FLAGS_WORD]! & MSG_TRUNC) !== 0;
    const bytes = u32[at0 + MMSGHDR_LEN_WORD]!;
    if (isTruncated) {
      this.#drop(StageDrop.tooLong, 1);
      return;
    }
    const out = ctx.toShard(gid);
    const at = out.reserve();
    const w = out.words;
    w[at + W.op] = ToShard.datagram;
    w[at + W.flow] = gid % ctx.flowsPerShard;
    this.#handOver(w, at, i, bytes);
    w[at + W.arg0] = ttl;
    w[at + W.arg1] = gsoSize;
    out.commit();
  }

  /** Name the slots of message i in a descriptor; they are no longer ours. */
  #handOver(w: Uint32Array, at: number, i: number, bytes: number): void {
    w[at + W.slotA] = this.#small[i]!;
    this.#small[i] = NO_SLOT;
    if (bytes > SMALL_PAYLOAD_BYTES) {
      w[at + W.slotB] = this.#large[i]!;
      this.#large[i] = NO_SLOT;
    } else w[at + W.slotB] = NO_SLOT;
    w[at + W.at] = HEADROOM_BYTES;
    w[at + W.len] = bytes;
  }

  /** Datagram size when message i is several datagrams, 0: it is one. */
  #gsoSizeOf(i: number, controlBytes: number): number {
    const u32 = this.#control.u32;
    const first = (i * CONTROL_BYTES) >> 2;
    const end = first + (controlBytes >> 2);
    let at = first;
    for (let n = cmsgDataBytes(u32, at, end); n >= 0; n = cmsgDataBytes(u32, at, end)) {
      if (n >= 4 && u32[at + CMSG_LEVEL_WORD] === SOL_UDP && u32[at + CMSG_TYPE_WORD] === UDP_GRO) {
        return u32[at + (CMSG_HEADER_BYTES >> 2)]!;
      }
      at = cmsgNext(at, n);
    }
    return 0;
  }

  /** TTL or hop limit of message i, 0: not told. */
  #ttlOf(i: number, controlBytes: number): number {
    const u32 = this.#control.u32;
    const first = (i * CONTROL_BYTES) >> 2;
    const end = first + (controlBytes >> 2);
    let at = first;
    for (let n = cmsgDataBytes(u32, at, end); n >= 0; n = cmsgDataBytes(u32, at, end)) {
      const level = u32[at + CMSG_LEVEL_WORD];
      const type = u32[at + CMSG_TYPE_WORD];
      if (
        n >= 4 &&
        ((level === SOL_IP && type === IP_TTL) || (level === SOL_IPV6 && type === IPV6_HOPLIMIT))
      ) {
        return u32[at + 4]! & 0xff;
      }
      at = cmsgNext(at, n);
    }
    return 0;
  }

  #onListenerDatagram(gid: number, i: number): void {
    const ctx = this.#ctx;
    const u32 = this.#withPeer.u32;
    const at0 = i * MMSGHDR_WORDS;
    const controlBytes = u32[at0 + MSGHDR_CONTROLLEN_WORD]!;
    const isTruncated = (u32[at0 + MSGHDR_FLAGS_WORD]! & MSG_TRUNC) !== 0;
    const bytes = u32[at0 + MMSGHDR_LEN_WORD]!;
    u32[at0 + MSGHDR_NAMELEN_WORD] = SOCKADDR_BYTES;
    u32[at0 + MSGHDR_CONTROLLEN_WORD] = CONTROL_BYTES;
    // Peer 0..3, local address 4..7, peer as the guest sees it 8..11, guest 12..15.
    const words = this.#words;
    const peerPort = sockaddrRead(this.#names.u8, i * NAME_BYTES, words, 0);
    if (isTruncated || peerPort < 0 || !this.#localAddress(i, controlBytes, words)) {
      this.#drop(StageDrop.tooLong, 1);
      return;
    }
    const index = gid - ctx.listenerBase;
    const targetPort = this.#listenerPort[index]!;
    if (this.#listenerSplices[index] === 1 && ctx.loopback !== undefined && isLoopback(words, 0)) {
      const { pool } = ctx;
      ctx.loopback.takeDatagram(
        this.#fd[gid]! - 1,
        index,
        this.#kind[gid] === Kind.listener6,
        words,
        peerPort,
        targetPort,
        pool.slotAddress(this.#small[i]!) + HEADROOM_BYTES,
        Math.min(bytes, SMALL_PAYLOAD_BYTES),
        pool.slotAddress(this.#large[i]!),
        Math.max(0, bytes - SMALL_PAYLOAD_BYTES),
      );
      return; // the slots stay ours, for the next batch
    }
    const isV4 = isV4Mapped(words, 0);
    this.#addressing.fromHost(words, 0, words, 8);
    if (!listenerGuest(this.#listenerPlan[index]!, this.#addressing, words, 8, words, 12)) {
      this.#drop(StageDrop.destination, 1);
      return;
    }
    const [k0, k1] = ctx.plan.hashKey;
    const ports = ((targetPort << 16) | peerPort) >>> 0;
    const hash = flowHash(k0, k1, words, 12, words, 8, ports, IPPROTO_UDP);
    const out = ctx.shardLink(ctx.shardOfHash(hash));
    const at = out.reserve();
    const w = out.words;
    w[at + W.op] = ToShard.listenerDatagram;
    w[at + W.flow] = isLinkLocal(words, 0) && !isV4 ? sockaddrScope(this.#names.u8, i * NAME_BYTES) : 0;
    // The descriptor is full: the guest's address goes ahead of the payload, where no header will be.
    addressWrite(ctx.u8, ctx.pool.slotAt(this.#small[i]!), words, 12);
    this.#handOver(w, at, i, bytes);
    w[at + W.arg1] = index;
    for (let k = 0; k < 4; k++) w[at + W.addr + k] = words[k]!;
    w[at + W.ports] = ((peerPort << 16) | targetPort) >>> 0;
    w[at + W.arg0] = words[4]!;
    w[at + W.arg2] = words[5]!;
    w[at + W.arg3] = words[6]!;
    w[at + W.arg4] = words[7]!;
    out.commit();
  }

  /** The address that message i came to, into words[4..7]. @returns false when the kernel did not say */
  #localAddress(i: number, controlBytes: number, words: Uint32Array): boolean {
    const { u8, u32 } = this.#control;
    const first = (i * CONTROL_BYTES) >> 2;
    const end = first + (controlBytes >> 2);
    let at = first;
    for (let n = cmsgDataBytes(u32, at, end); n >= 0; n = cmsgDataBytes(u32, at, end)) {
      const level = u32[at + CMSG_LEVEL_WORD];
      const type = u32[at + CMSG_TYPE_WORD];
      const dataAt = at * 4 + CMSG_HEADER_BYTES;
      if (level === SOL_IP && type === IP_PKTINFO && n >= IN_PKTINFO_BYTES) {
        words[4] = 0;
        words[5] = 0;
        words[6] = 0xffff;
        words[7] = readU32(u8, dataAt + 4);
        return true;
      }
      if (level === SOL_IPV6 && type === IPV6_PKTINFO && n >= IN6_PKTINFO_BYTES) {
        for (let k = 0; k < 4; k++) words[4 + k] = readU32(u8, dataAt + 4 * k);
        return true;
      }
      at = cmsgNext(at, n);
    }
    return false;
  }

  // ---- errors -------------------------------------------------------------------------------------------------------

  /** Take all errors from the socket's queue and tell the shard. @returns how many there were */
  #drainErrors(gid: number): number {
    const fd = this.#fd[gid]! - 1;
    if (fd < 0 || this.#kind[gid]! > Kind.ping6) return 0;
    this.#moreErrors[gid] = 0;
    this.#tooLong = false;
    const e = this.#error;
    const iovAt = MSGHDR_BYTES;
    const dataAt = iovAt + IOVEC_BYTES;
    const controlAt = dataAt + ERROR_DATA_BYTES;
    for (let count = 0; ; count++) {
      if (count === MAX_ERRORS_PER_ROUND) {
        this.#moreErrors[gid] = 1;
        this.#ctx.markReady(gid);
        return count;
      }
      iovecWrite(e.u32, iovAt >> 2, e.address + dataAt, ERROR_DATA_BYTES);
      msghdrWrite(e.u32, 0, 0, 0, e.address + iovAt, 1, e.address + controlAt, ERROR_CONTROL_BYTES);
      const n = recvmsg(fd, e.address, MSG_ERRQUEUE | MSG_DONTWAIT);
      if (n < 0) return count;
      this.#onError(gid, controlAt, e.u32[MSGHDR_CONTROLLEN_WORD]!, dataAt, n);
    }
  }

  #onError(gid: number, controlAt: number, controlBytes: number, dataAt: number, dataBytes: number): void {
    const { u8, u32 } = this.#error;
    let at = controlAt >> 2;
    const end = at + (controlBytes >> 2);
    for (let n = cmsgDataBytes(u32, at, end); n >= 0; n = cmsgDataBytes(u32, at, end)) {
      const level = u32[at + CMSG_LEVEL_WORD];
      const type = u32[at + CMSG_TYPE_WORD];
      const isError =
        (level === SOL_IP && type === IP_RECVERR) || (level === SOL_IPV6 && type === IPV6_RECVERR);
      if (isError && n >= SOCK_EXTENDED_ERR_BYTES) {
        const errorAt = at * 4 + CMSG_HEADER_BYTES;
        const offender = n >= EE_OFFENDER_AT + SOCKADDR_IN_BYTES ? errorAt + EE_OFFENDER_AT : -1;
        // A ping socket's queue quotes the echo request: its sequence number tells the guest which one.
        const sequence = dataBytes >= 8 ? (u8[dataAt + 6]! << 8) | u8[dataAt + 7]! : 0;
        const headerBytes = this.#kind[gid]! >= Kind.ping4 ? ICMP_BYTES : 0;
        this.#quotedAt = dataAt + headerBytes;
        this.#quotedBytes = Math.max(0, dataBytes - headerBytes);
        this.#tellError(gid, errorAt, offender, sequence);
        return;
      }
      at = cmsgNext(at, n);
    }
  }

  #tellError(gid: number, errorAt: number, offenderAt: number, sequence: number): void {
    const { u8, u32 } = this.#error;
    const errno = u32[errorAt >> 2]!;
    const origin = u8[errorAt + EE_ORIGIN_AT];
    const info = u32[(errorAt + EE_INFO_AT) >> 2]!;
    const kind = this.#kind[gid]!;
    const isV4 = kind === Kind.udp4 || kind === Kind.ping4;
    let typeCode = 0;
    if (origin === SO_EE_ORIGIN_ICMP || origin === SO_EE_ORIGIN_ICMP6) {
      typeCode = (u8[errorAt + EE_TYPE_AT]! << 8) | u8[errorAt + EE_CODE_AT]!;
    } else if (origin === SO_EE_ORIGIN_LOCAL && errno === Errno.EMSGSIZE) {
      this.#tooLong = true;
      typeCode = isV4
        ? (IcmpType.unreachable << 8) | IcmpUnreachable.fragmentationNeeded
        : Icmp6Type.packetTooBig << 8;
    }
    const words = this.#words;
    words.fill(0, 0, 4);
    if (offenderAt >= 0 && origin !== SO_EE_ORIGIN_LOCAL) sockaddrRead(u8, offenderAt, words, 0);
    this.#tell(gid, typeCode, info, errno, sequence);
  }

  /** A send failed and the error queue said nothing about it. */
  #tellErrno(gid: number, errno: number): void {
    this.#words.fill(0, 0, 4);
    this.#quotedBytes = 0;
    this.#tell(gid, 0, 0, errno, 0);
  }

  #tell(gid: number, typeCode: number, info: number, errno: number, sequence: number): void {
    const ctx = this.#ctx;
    const out = ctx.toShard(gid);
    const at = reserveMessage(out, ToShard.icmpError, gid % ctx.flowsPerShard);
    const w = out.words;
    w[at + W.arg0] = typeCode;
    w[at + W.arg1] = info;
    for (let i = 0; i < 4; i++) w[at + W.addr + i] = this.#words[i]!;
    w[at + W.arg2] = errno;
    w[at + W.arg3] = sequence;
    const bytes = this.#quotedBytes;
    const slot = bytes > 0 ? ctx.smallSlots.pop() : NO_SLOT;
    if (slot !== NO_SLOT) {
      // Cold: an error a datagram at the most.
      const quoted = this.#error.u8.subarray(this.#quotedAt, this.#quotedAt + bytes);
      ctx.u8.set(quoted, ctx.pool.slotAt(slot) + HEADROOM_BYTES);
      w[at + W.slotA] = slot;
      w[at + W.at] = HEADROOM_BYTES;
      w[at + W.len] = bytes;
    }
    out.commit();
  }
}
