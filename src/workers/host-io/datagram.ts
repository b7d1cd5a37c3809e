/**
 * Datagram sockets of the host-io stage: a UDP socket for each endpoint of the guest's (udp-endpoints.ts), a ping socket for each flow,
 * and published UDP ports. A socket is named by its sid: the gid of its only flow (ping, UDP without a guest's port), or of its
 * listener, or endpointBase + endpoint.
 *
 *   to the host    sendDatagram: consecutive datagrams of one flow and size are one message, sent with UDP_SEGMENT; consecutive
 *                  messages of one socket leave in one sendmmsg. flush() sends what is held back, at the end of each batch of
 *                  commands, so that a lone datagram never waits. A socket that is full loses the datagram, as UDP may; it is counted.
 *   from the host  recvmmsg into slots of our own:
 *
 *                    small slot | 128 headroom | payload, 1920 bytes |      large slot | the rest, if any |
 *
 *   errors         IP_RECVERR: ICMP errors wait in the socket's error queue, which is drained whenever epoll, a send or a receive
 *                  tells of an error, or it would tell again and again.
 *
 * One socket for an endpoint, connected as long as it has one peer: so the kernel filters strangers out and keeps the route. When a
 * second one comes it is disconnected, and keeps its port: what it receives is looked up, what it sends names its peer. Who may
 * answer is the policy's (ServicePolicy.udpFiltering).
 *
 * Ports: the guest's source port is taken on the host too when it is free, so that a peer sees what the guest meant and a NAT in front
 * of us can be passed; when it is taken, any port will do (StageDrop is not an answer to a busy port). A port is never shared with
 * another process, whose traffic would mix with ours. Between bind and connect a stranger's datagram may slip in; the queue is
 * emptied after connect.
 *
 * Invariant: after `closed` no message of the flow follows; an open that failed still waits for its `close`.
 */
import {
  addressCopy,
  addressEqual,
  addressWrite,
  isLinkLocal,
  isLoopback,
  isV4Mapped,
} from '../../proto/address.ts';
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
  sendmmsg,
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
import { NO_ENDPOINT, UdpEndpoints } from './udp-endpoints.ts';

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
/** Asked of the kernel for each UDP socket; memory is only taken by datagrams that wait. */
const SOCKET_BUFFER_BYTES = 1 << 20;
/** The same for what many peers send to one socket: with one each they had more room than that between them. */
const SHARED_BUFFER_BYTES = 4 << 20;
/** Control bytes of one message that is sent in segments. */
const SEGMENT_CONTROL_BYTES = cmsgSpace(2);
/** What a socket has until it is told otherwise: the kernel's TTL, and fragments. */
const DEFAULT_OPTIONS = SendFragment.allowed << 8;

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
  /** sid of endpoint 0; a gid is smaller than ctx.listenerBase. */
  readonly #endpointBase: number;
  /** Made with the first socket for an endpoint. */
  #endpoints: UdpEndpoints | null = null;
  /** Sockets for endpoints are connected while they can be. */
  readonly #connects: boolean;
  // By gid. Descriptors and sids are kept + 1: zeroed memory means none, and stays untouched until used.
  readonly #socketOf: Int32Array;
  /** What a flow wants of its socket: ttl | SendFragment << 8. */
  readonly #wanted: Uint16Array;
  /** UDP_SEGMENT was refused for datagrams of this size: no larger ones are tried (0: no limit known). */
  readonly #noSegment: Uint16Array;
  // By sid; #kind by gid too.
  readonly #fd: Int32Array;
  readonly #kind: Uint8Array;
  /** The options that it has now. */
  readonly #options: Uint16Array;
  /** Local port of a socket that was disconnected, which HostContext.datagramPorts counts; 0: none. */
  readonly #port: Uint16Array;
  /** The socket has UDP_GRO: the kernel may hand over several datagrams as one, and says so in a control message. */
  readonly #hasGro: Uint8Array;
  /** The error queue held more than one round's share. */
  readonly #moreErrors: Uint8Array;
  readonly #isStarved: Uint8Array;
  readonly #starved: number[] = [];
  readonly #listenerPort: Uint16Array;
  readonly #listenerPlan: ListenerPlan[] = [];
  readonly #listenerSplices: Uint8Array;

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

  // Sending: the datagrams of one socket that are held back, and the messages that they make.
  readonly #sendIov = new NativeBuffer(MAX_SEGMENTS * 2 * IOVEC_BYTES);
  readonly #sendMsg = new NativeBuffer(MSGHDR_BYTES);
  readonly #sendControl = new NativeBuffer(cmsgSpace(IN6_PKTINFO_BYTES));
  readonly #sendName = new NativeBuffer(NAME_BYTES);
  readonly #sendVec = new NativeBuffer(MAX_SEGMENTS * MMSGHDR_BYTES);
  readonly #sendControls = new NativeBuffer(MAX_SEGMENTS * SEGMENT_CONTROL_BYTES);
  readonly #heldSlotA = new Uint32Array(MAX_SEGMENTS);
  readonly #heldSlotB = new Uint32Array(MAX_SEGMENTS);
  /** First iovec of each datagram. */
  readonly #heldIov = new Uint16Array(MAX_SEGMENTS + 1);
  #heldSid = -1;
  #heldCount = 0;
  /** By message: whose it is, its first datagram, bytes in all and of each datagram but the last. */
  readonly #messageGid = new Int32Array(MAX_SEGMENTS);
  readonly #messageFirst = new Uint16Array(MAX_SEGMENTS + 1);
  readonly #messageBytes = new Uint32Array(MAX_SEGMENTS);
  readonly #messageSegment = new Uint32Array(MAX_SEGMENTS);
  #messageCount = 0;
  /** The last message takes no more: a datagram shorter than the others ended it, or it may not be sent in segments. */
  #messageEnded = false;
  /** A socket had a whole round's share and more; the processor is given up for it once, however many sockets there are. */
  #isBehind = false;
  #nextYieldMs = 0;
  /** Datagrams may be held back: whoever calls flush() once does so after each batch. */
  #mayHold = false;

  readonly #name = new NativeBuffer(NAME_BYTES);
  readonly #error = new NativeBuffer(
    MSGHDR_BYTES + IOVEC_BYTES + ERROR_DATA_BYTES + ERROR_CONTROL_BYTES + NAME_BYTES,
  );
  /** What the error being told quotes, in #error. */
  #quotedAt = 0;
  #quotedBytes = 0;
  /** Among the errors taken last was one of this host's own: a datagram that must not be fragmented is too long. */
  #tooLong = false;
  readonly #words = new Uint32Array(16);
  readonly #outbound: Outbound;

  /** How many sockets have a number: `gids` and, from there on, an endpoint for each flow. */
  static sids(flows: number, gids: number): number {
    return gids + flows;
  }

  /** @param gids  flows and listeners */
  constructor(ctx: HostContext, addressing: Addressing, gids: number) {
    this.#ctx = ctx;
    this.#addressing = addressing;
    this.#outbound = new Outbound(ctx.plan);
    this.#endpointBase = gids;
    this.#connects = ctx.plan.policy.udpFiltering === 'address-and-port-dependent';
    this.#socketOf = new Int32Array(ctx.listenerBase);
    this.#wanted = new Uint16Array(ctx.listenerBase);
    this.#noSegment = new Uint16Array(ctx.listenerBase);
    const sids = DatagramSockets.sids(ctx.listenerBase, gids);
    this.#fd = new Int32Array(sids);
    this.#kind = new Uint8Array(sids);
    this.#options = new Uint16Array(sids);
    this.#port = new Uint16Array(sids);
    this.#hasGro = new Uint8Array(sids);
    this.#moreErrors = new Uint8Array(sids);
    this.#isStarved = new Uint8Array(sids);
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
        this.#sendHeld();
        this.#sendFromListener(words, at);
        break;
      case ToHost.openUdp:
        this.#sendHeld();
        this.#openUdp(words, at, gid);
        break;
      case ToHost.openPing:
        this.#sendHeld();
        this.#openPing(words, at, gid);
        break;
      case ToHost.close:
      case ToHost.reset:
        this.#sendHeld();
        this.#close(gid);
        break;
    }
  }

  // ---- opening and closing ------------------------------------------------------------------------------------------

  #openUdp(words: Uint32Array, at: number, gid: number): void {
    const port = words[at + W.ports]! & 0xffff;
    const kind = isV4Mapped(words, at + W.addr) ? Kind.udp4 : Kind.udp6;
    if (port !== 0 && this.#joinEndpoint(words, at, gid, kind, port)) return;
    const fd = this.#udpSocket(words, at, kind, 0, true);
    if (fd < 0) this.#openFailed(gid, -fd);
    else if (this.#opened(gid, gid, fd, kind)) this.#hasGro[gid] = this.#setGro(fd, words, at);
  }

  /**
   * Give a flow its endpoint's socket; the first one's is made.
   * @returns false when another flow of the endpoint has the same peer, so that their answers could not be told apart
   */
  #joinEndpoint(words: Uint32Array, at: number, gid: number, kind: number, port: number): boolean {
    const ctx = this.#ctx;
    this.#endpoints ??= new UdpEndpoints(ctx.plan.hashKey, ctx.listenerBase);
    const endpoints = this.#endpoints;
    const guest = this.#words;
    guest[0] = words[at + W.arg1]!;
    guest[1] = words[at + W.arg2]!;
    guest[2] = words[at + W.arg3]!;
    guest[3] = words[at + W.arg4]!;
    const peerAt = at + W.addr;
    const peerPort = words[at + W.ports]! >>> 16;
    const scope = this.#outbound.scopeOf(words, peerAt);
    const way = this.#outbound.wayOf(words, peerAt);
    let endpoint = endpoints.find(guest, 0, port, way);
    if (endpoint !== NO_ENDPOINT) {
      const only = endpoints.only(endpoint);
      if (!endpoints.join(endpoint, gid, words, peerAt, peerPort, scope, this.#connects)) return false;
      const sid = this.#endpointBase + endpoint;
      if (only >= 0) this.#shareSocket(sid, words, peerAt);
      this.#attach(gid, sid, kind);
      return true;
    }
    const fd = this.#udpSocket(words, at, kind, port, this.#connects);
    if (fd < 0) {
      this.#openFailed(gid, -fd);
      return true;
    }
    endpoint = endpoints.add(guest, 0, port, way);
    endpoints.join(endpoint, gid, words, peerAt, peerPort, scope, this.#connects);
    const sid = this.#endpointBase + endpoint;
    if (!this.#connects) setsockoptInt(fd, SOL_SOCKET, SO_RCVBUF, SHARED_BUFFER_BYTES);
    if (this.#opened(gid, sid, fd, kind)) this.#hasGro[sid] = this.#setGro(fd, words, at);
    else endpoints.leave(gid);
    return true;
  }

  /** @param port  preferred local port, 0: the kernel's choice @returns the descriptor or -errno */
  #udpSocket(words: Uint32Array, at: number, kind: number, port: number, connects: boolean): number {
    const isV4 = kind === Kind.udp4;
    const peerAt = at + W.addr;
    const fd = socket(isV4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_UDP);
    if (fd < 0) return fd;
    let r = this.#prepare(fd, isV4, words, peerAt);
    // Taken, or privileged: any port will do.
    if (r === 0 && (port === 0 || this.#outbound.bindPort(fd, words, peerAt, port) < 0)) {
      r = this.#outbound.bindPort(fd, words, peerAt, 0);
    }
    if (r === 0 && connects) {
      r = this.#connect(fd, words, peerAt, words[at + W.ports]! >>> 16);
      if (r === 0) this.#discardStrangers(fd);
    }
    if (r === 0) this.#enlargeBuffers(fd);
    else close(fd);
    return r < 0 ? r : fd;
  }

  /** After the strangers: they were read without looking at control messages. Kernels before 5.0 refuse, and nothing is lost. @returns 1: set */
  #setGro(fd: number, words: Uint32Array, at: number): number {
    return words[at + W.arg0] === 1 && setsockoptInt(fd, SOL_UDP, UDP_GRO, 1) === 0 ? 1 : 0;
  }

  /**
   * A second peer: from now on the socket belongs to no one. What waits in its queue stays there.
   * @param words,w  a peer of its, for the way out
   */
  #shareSocket(sid: number, words: Uint32Array, w: number): void {
    const fd = this.#fd[sid]! - 1;
    setsockoptInt(fd, SOL_SOCKET, SO_RCVBUF, SHARED_BUFFER_BYTES);
    const port = this.#disconnect(fd, this.#kind[sid]!, words, w);
    if (port <= 0) return;
    this.#port[sid] = port;
    if (this.#ctx.datagramPorts !== undefined) this.#ctx.datagramPorts[port]!++;
  }

  /**
   * Undo connect(). The kernel forgets more than the peer: the interface, and a port that it chose itself (__udp_disconnect). The socket
   * is given both again.
   * @param words,w  a peer of its, for the way out
   * @returns the local port, or -errno when it is still connected
   */
  #disconnect(fd: number, kind: number, words: Uint32Array, w: number): number {
    const local = this.#words;
    const port = this.#nameOf(getsockname, fd, local, 12);
    this.#name.u8.fill(0);
    this.#name.u16[0] = AF_UNSPEC;
    const r = connect(fd, this.#name.address, SOCKADDR_IN_BYTES);
    if (r < 0) return r;
    this.#outbound.toDevice(fd, words, w);
    // Somebody else may have been quicker: then its next datagram has another port, as if it were new.
    if (kind <= Kind.udp6 && port > 0 && this.#nameOf(getsockname, fd, local, 12) === 0) {
      this.#outbound.bindPort(fd, words, w, port);
    }
    return port;
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
    if (r === 0) this.#opened(gid, gid, fd, isV4 ? Kind.ping4 : Kind.ping6);
    else {
      close(fd);
      this.#openFailed(gid, -r);
    }
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

  /** Nothing that came before the first send can be an answer. */
  #discardStrangers(fd: number): void {
    for (let i = 0; i < BATCH; i++) {
      if (recv(fd, this.#name.address, 1, MSG_DONTWAIT | MSG_TRUNC) === -Errno.EAGAIN) return;
    }
  }

  /** A flow's new socket. @returns false when it cannot be watched: it is closed, and the shard told */
  #opened(gid: number, sid: number, fd: number, kind: number): boolean {
    const ctx = this.#ctx;
    this.#fd[sid] = fd + 1;
    this.#moreErrors[sid] = 0;
    this.#options[sid] = DEFAULT_OPTIONS;
    const r = ctx.watch(fd, sid, (EPOLLIN | EPOLLERR | EPOLLET) >>> 0);
    if (r < 0) {
      close(fd);
      this.#fd[sid] = 0;
      this.#openFailed(gid, -r);
      return false;
    }
    this.#kind[sid] = kind;
    this.#attach(gid, sid, kind);
    ctx.counters[Counter.sockOpened]!++;
    return true;
  }

  #attach(gid: number, sid: number, kind: number): void {
    this.#kind[gid] = kind;
    this.#socketOf[gid] = sid + 1;
    this.#noSegment[gid] = 0;
    this.#wanted[gid] = DEFAULT_OPTIONS;
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
    const sid = this.#socketOf[gid]! - 1;
    this.#socketOf[gid] = 0;
    if (sid === gid || (sid >= 0 && this.#endpoints!.leave(gid) === 0)) this.#closeSocket(sid);
    this.#kind[gid] = Kind.none;
    const out = ctx.toShard(gid);
    reserveMessage(out, ToShard.closed, gid % ctx.flowsPerShard);
    out.commit();
  }

  #closeSocket(sid: number): void {
    const ctx = this.#ctx;
    close(this.#fd[sid]! - 1);
    this.#fd[sid] = 0;
    this.#kind[sid] = Kind.none;
    const port = this.#port[sid]!;
    this.#port[sid] = 0;
    if (port !== 0 && ctx.datagramPorts !== undefined) ctx.datagramPorts[port]!--;
    ctx.counters[Counter.sockClosed]!++;
  }

  /**
   * Open a published port.
   * @param index  listener number
   * @returns 0 or -errno
   */
  listen(index: number, plan: ListenerPlan, port = plan.port): number {
    const ctx = this.#ctx;
    const gid = ctx.listenerBase + index;
    const fd = openListener(plan, port, SOCK_DGRAM, ctx.plan.policy.freebind, this.#outbound);
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
    for (let sid = 0; sid < this.#fd.length; sid++) {
      if (this.#fd[sid] !== 0) close(this.#fd[sid]! - 1);
      this.#fd[sid] = 0;
      this.#kind[sid] = Kind.none;
    }
  }

  /**
   * The host's network has changed. A connected socket keeps the source address that the kernel chose when it was connected, and may
   * not send any more once the host has lost it; a flow that goes on for hours (a tunnel of the guest's) would be dead for ever. So
   * each one whose address would be another today is connected anew, its port kept. One that is not connected has no such address.
   */
  hostChanged(change: HostChange): void {
    this.#outbound.hostChanged(change);
    for (let sid = 0; sid < this.#fd.length; sid++) {
      const kind = this.#kind[sid]!;
      if (this.#fd[sid] === 0 || kind > Kind.ping6) continue;
      const gid = this.#onlyFlow(sid);
      if (gid >= 0) this.#reconnect(sid, kind, gid);
    }
  }

  /** The flow that a socket is connected for, -1: it is not connected. */
  #onlyFlow(sid: number): number {
    return sid < this.#endpointBase ? sid : this.#endpoints!.only(sid - this.#endpointBase);
  }

  #reconnect(sid: number, kind: number, gid: number): void {
    const fd = this.#fd[sid]! - 1;
    const words = this.#words;
    const port = this.#nameOf(getpeername, fd, words, 0);
    if (port < 0 || this.#outbound.hasSource(words, 0)) return;
    if (this.#nameOf(getsockname, fd, words, 4) < 0 || !this.#sourceNow(kind, words, port)) return;
    if (addressEqual(words, 4, words, 8)) return;
    // As long as it is not connected strangers may be heard, as at the start; what waits is lost with them.
    if (this.#disconnect(fd, kind, words, 0) < 0) return;
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
    const sid = this.#socketOf[gid]! - 1;
    const change = words[at + W.arg0]!;
    if (change !== 0) this.#want(gid, change);
    const wanted = this.#wanted[gid]!;
    if (wanted !== this.#options[sid] || sid !== this.#heldSid) {
      this.#sendHeld();
      this.#setOptions(sid, wanted);
    }
    const gsoSize = words[at + W.arg1]!;
    // Several that are one already, borrowed slots and echo requests go by themselves and at once.
    const isHeld = this.#mayHold && gsoSize === 0 && !isBorrowed && kind <= Kind.udp6;
    if (!isHeld) this.#sendHeld();
    if (this.#heldSid !== sid || !this.#continues(gid, bytes)) {
      if (this.#heldCount === MAX_SEGMENTS) this.#sendHeld();
      this.#begin(sid, gid, gsoSize !== 0 && gsoSize < bytes ? gsoSize : bytes);
    }
    this.#append(isBorrowed ? NO_SLOT : slotA, slotB, words[at + W.at]!, bytes, slotA);
    if (!isHeld) this.#sendHeld();
  }

  /** Whether a datagram may be one more of the last message. */
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

  /** A new message, behind those of the same socket that are held back. */
  #begin(sid: number, gid: number, segment: number): void {
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
    // An empty one is alone, and one that is too large for UDP_SEGMENT gains nothing from company.
    const limit = this.#noSegment[gid]!;
    this.#messageEnded = segment === 0 || (limit > 0 && segment >= limit);
  }

  /** One more datagram of the last message. @param dataSlot  where the bytes lie, when slotA is not to be freed */
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

  /** Send what is held back. Whoever calls this promises to call it after each batch of commands. */
  flush(): void {
    this.#mayHold = true;
    this.#sendHeld();
  }

  #sendHeld(): void {
    const sid = this.#heldSid;
    if (sid < 0) return;
    this.#heldSid = -1;
    const ctx = this.#ctx;
    const messages = this.#messageCount;
    if (messages > 1) this.#writeVec(messages);
    for (let m = 0; m < messages; ) {
      if (messages - m > 1) {
        m += this.#sendSeveral(sid, m, messages - m);
        if (m === messages) break;
      }
      // The only one, or the one that failed.
      this.#sendMessage(m++);
    }
    for (let i = 0; i < this.#heldCount; i++) {
      if (this.#heldSlotA[i] !== NO_SLOT || this.#heldSlotB[i] !== NO_SLOT) {
        ctx.freeReaderSlots(this.#heldSlotA[i]!, this.#heldSlotB[i]!);
      }
    }
  }

  /** Address of the peer for a send, 0: the socket is connected to it. */
  #peerName(gid: number): number {
    const sid = this.#socketOf[gid]! - 1;
    return this.#onlyFlow(sid) >= 0 ? 0 : this.#endpoints!.nameAddress(gid);
  }

  #peerNameBytes(gid: number, name: number): number {
    return name === 0 ? 0 : this.#endpoints!.nameBytes(gid);
  }

  /** How many datagrams a message is. */
  #segmentsOf(m: number): number {
    const segment = this.#messageSegment[m]!;
    return segment > 0 ? Math.ceil(this.#messageBytes[m]! / segment) : 1;
  }

  /** Headers for all messages that are held back. */
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
        isMany ? controls.address + controlAt : 0,
        controlBytes,
      );
    }
  }

  /** sendmmsg. @returns how many messages from m on were sent; the next one was not */
  #sendSeveral(sid: number, m: number, count: number): number {
    const { counters } = this.#ctx;
    const vec = this.#sendVec.address + m * MMSGHDR_BYTES;
    const sent = sendmmsg(this.#fd[sid]! - 1, vec, count, MSG_DONTWAIT | MSG_NOSIGNAL);
    counters[Counter.sockSends]!++;
    counters[Counter.datagramSends]!++;
    for (let i = m; i < m + sent; i++) {
      counters[Counter.datagramSendBytes]! += this.#messageBytes[i]!;
      this.#account(0, this.#segmentsOf(i));
    }
    return Math.max(0, sent);
  }

  #sendMessage(m: number): void {
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
      // Segments larger than the path takes in one piece, or a device that cannot: one by one, the kernel fragments.
      this.#noSegment[gid] = this.#messageSegment[m]!;
      this.#sendSingly(m, gid, segments);
    } else this.#account(r, segments);
  }

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
    // One GSO frame of the guest's, alone in what is held back: cut it here.
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
   * sendmsg from iovecs [first, first + count).
   * @param segment  UDP_SEGMENT size, 0: one datagram
   * @returns bytes or -errno
   */
  #trySend(gid: number, first: number, count: number, segment: number): number {
    const iovAddress = this.#sendIov.address + first * IOVEC_BYTES;
    const controlBytes = segment > 0 ? segmentWrite(this.#sendControl, 0, segment) : 0;
    const controlAddress = segment > 0 ? this.#sendControl.address : 0;
    const name = this.#peerName(gid);
    const nameBytes = this.#peerNameBytes(gid, name);
    msghdrWrite(this.#sendMsg.u32, 0, name, nameBytes, iovAddress, count, controlAddress, controlBytes);
    const sid = this.#socketOf[gid]! - 1;
    const fd = this.#fd[sid]! - 1;
    let r = sendmsg(fd, this.#sendMsg.address, MSG_DONTWAIT | MSG_NOSIGNAL);
    this.#ctx.counters[Counter.sockSends]!++;
    this.#ctx.counters[Counter.datagramSends]!++;
    if (
      r < 0 &&
      r !== -Errno.EAGAIN &&
      r !== -Errno.EINVAL &&
      this.#drainErrors(sid) > 0 &&
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

  /** @param change  sendDatagram's arg0 */
  #want(gid: number, change: number): void {
    const before = this.#wanted[gid]!;
    const ttl = change & 0xff || before & 0xff;
    const fragment = change >>> 8 || before >>> 8;
    this.#wanted[gid] = ttl | (fragment << 8);
  }

  /** Have a socket send as a flow wants it: they may differ on an endpoint. @param wanted  TTL 0: as it is */
  #setOptions(sid: number, wanted: number): void {
    const before = this.#options[sid]!;
    if (wanted === before) return;
    const ttl = wanted & 0xff;
    const fragment = wanted >>> 8;
    const kind = this.#kind[sid]!;
    const isV4 = kind === Kind.udp4 || kind === Kind.ping4;
    const level = isV4 ? SOL_IP : SOL_IPV6;
    const fd = this.#fd[sid]! - 1;
    this.#options[sid] = (ttl || before & 0xff) | (fragment << 8);
    if (ttl !== 0 && ttl !== (before & 0xff)) {
      setsockoptInt(fd, level, isV4 ? IP_TTL : IPV6_UNICAST_HOPS, ttl);
    }
    if (fragment === before >>> 8) return;
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

  onEvents(sid: number, events: number): void {
    if (this.#fd[sid] === 0) return;
    if (events & EPOLLERR) this.#drainErrors(sid);
    this.#read(sid);
  }

  /** A socket with more to read than one round's share, again. */
  onReady(sid: number): void {
    if (this.#fd[sid] === 0) return;
    if (this.#isBehind) this.#yield();
    // Another queue, another system call: looked at only when it is known to hold something. News of it come as EPOLLERR.
    if (this.#moreErrors[sid]) this.#drainErrors(sid);
    this.#read(sid);
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
      const sid = this.#starved.pop()!;
      this.#isStarved[sid] = 0;
      if (this.#fd[sid] !== 0) this.#ctx.markReady(sid);
    }
  }

  #starve(sid: number): void {
    if (this.#isStarved[sid]) return;
    this.#isStarved[sid] = 1;
    this.#starved.push(sid);
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

  #read(sid: number): void {
    const fd = this.#fd[sid]! - 1;
    const kind = this.#kind[sid]!;
    const isListener = kind > Kind.ping6;
    const gid = isListener ? -1 : this.#onlyFlow(sid);
    const hasControl = kind >= Kind.ping4 || this.#hasGro[sid] === 1;
    let headers = this.#withPeer;
    if (gid >= 0) headers = hasControl ? this.#withControl : this.#plain;
    let errors = 0;
    for (let batch = 0; batch < BATCHES_PER_ROUND; ) {
      const armed = this.#arm();
      if (armed === 0) {
        this.#starve(sid);
        return;
      }
      const n = recvmmsg(fd, headers.address, armed, MSG_DONTWAIT);
      this.#ctx.counters[Counter.datagramRecvs]!++;
      if (n < 0) {
        // Anything but "empty" is a pending error, told by the error queue as well; the call has taken it off the socket.
        if (n === -Errno.EAGAIN || ++errors > MAX_READ_ERRORS) return;
        this.#drainErrors(sid);
        continue;
      }
      if (gid >= 0) for (let i = 0; i < n; i++) this.#onDatagram(gid, kind, headers, hasControl, i);
      else if (isListener) for (let i = 0; i < n; i++) this.#onListenerDatagram(sid, i);
      else for (let i = 0; i < n; i++) this.#onEndpointDatagram(sid, kind, hasControl, i);
      if (isListener) this.#ctx.loopback?.flushDatagrams();
      if (n < armed) return; // all there was; the next one raises an event
      batch++;
    }
    this.#isBehind = true;
    this.#ctx.markReady(sid);
  }

  /** Message i of a socket that is not connected: whose is it? */
  #onEndpointDatagram(sid: number, kind: number, hasControl: boolean, i: number): void {
    const words = this.#words;
    const port = sockaddrRead(this.#names.u8, i * NAME_BYTES, words, 0);
    this.#withPeer.u32[i * MMSGHDR_WORDS + MSGHDR_NAMELEN_WORD] = SOCKADDR_BYTES;
    const gid = this.#endpoints!.flowOf(sid - this.#endpointBase, words, 0, port);
    if (gid >= 0) this.#onDatagram(gid, kind, this.#withPeer, hasControl, i);
    else this.#onStranger(sid, i, port);
  }

  /** Message i is from one whom the guest has not spoken to from this endpoint: this.#words[0..3] and `port`. */
  #onStranger(sid: number, i: number, port: number): void {
    const ctx = this.#ctx;
    const u32 = this.#withPeer.u32;
    const at0 = i * MMSGHDR_WORDS;
    const controlBytes = u32[at0 + MSGHDR_CONTROLLEN_WORD]!;
    u32[at0 + MSGHDR_CONTROLLEN_WORD] = CONTROL_BYTES;
    const words = this.#words;
    if (this.#connects || port <= 0 || !this.#addressing.leadsBack(words, 0)) {
      this.#drop(StageDrop.stranger, 1);
      return;
    }
    if ((u32[at0 + MSGHDR_FLAGS_WORD]! & MSG_TRUNC) !== 0) {
      this.#drop(StageDrop.tooLong, 1);
      return;
    }
    // Peer as the guest sees it 8..11, guest 12..15.
    this.#addressing.fromHost(words, 0, words, 8);
    const guestPort = this.#endpoints!.guestOf(sid - this.#endpointBase, words, 12);
    const [k0, k1] = ctx.plan.hashKey;
    const hash = flowHash(k0, k1, words, 12, words, 8, ((guestPort << 16) | port) >>> 0, IPPROTO_UDP);
    const out = ctx.shardLink(ctx.shardOfHash(hash));
    const at = out.reserve();
    const w = out.words;
    w[at + W.op] = ToShard.strangerDatagram;
    w[at + W.flow] = 0;
    this.#handOver(w, at, i, u32[at0 + MMSGHDR_LEN_WORD]!);
    addressCopy(words, 0, w, at + W.addr);
    w[at + W.ports] = ((port << 16) | guestPort) >>> 0;
    w[at + W.arg1] = this.#hasGro[sid] === 1 && controlBytes > 0 ? this.#gsoSizeOf(i, controlBytes) : 0;
    w[at + W.arg0] = words[12]!;
    w[at + W.arg2] = words[13]!;
    w[at + W.arg3] = words[14]!;
    w[at + W.arg4] = words[15]!;
    out.commit();
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
    }
    // Also where no control message is wanted: the next socket's may be.
    if (headers !== this.#plain) u32[at0 + MSGHDR_CONTROLLEN_WORD] = CONTROL_BYTES;
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

  /** Take all errors from the socket's queue and tell the shards. @returns how many there were */
  #drainErrors(sid: number): number {
    const fd = this.#fd[sid]! - 1;
    if (fd < 0 || this.#kind[sid]! > Kind.ping6) return 0;
    this.#moreErrors[sid] = 0;
    this.#tooLong = false;
    const e = this.#error;
    const iovAt = MSGHDR_BYTES;
    const dataAt = iovAt + IOVEC_BYTES;
    const controlAt = dataAt + ERROR_DATA_BYTES;
    const nameAt = controlAt + ERROR_CONTROL_BYTES;
    const name = e.address + nameAt;
    const only = this.#onlyFlow(sid);
    for (let count = 0; ; count++) {
      if (count === MAX_ERRORS_PER_ROUND) {
        this.#moreErrors[sid] = 1;
        this.#ctx.markReady(sid);
        return count;
      }
      iovecWrite(e.u32, iovAt >> 2, e.address + dataAt, ERROR_DATA_BYTES);
      const control = e.address + controlAt;
      msghdrWrite(e.u32, 0, name, SOCKADDR_BYTES, e.address + iovAt, 1, control, ERROR_CONTROL_BYTES);
      const n = recvmsg(fd, e.address, MSG_ERRQUEUE | MSG_DONTWAIT);
      if (n < 0) return count;
      // Whom the datagram was for is the name of the message (man 7 ip, IP_RECVERR). That flow may be gone.
      const gid = only >= 0 ? only : this.#flowOfName(sid, nameAt);
      if (gid >= 0) this.#onError(gid, controlAt, e.u32[MSGHDR_CONTROLLEN_WORD]!, dataAt, n);
    }
  }

  /** @param nameAt  in #error @returns the flow of the endpoint's with that peer, or -1 */
  #flowOfName(sid: number, nameAt: number): number {
    const port = sockaddrRead(this.#error.u8, nameAt, this.#words, 0);
    return port < 0 ? -1 : this.#endpoints!.flowOf(sid - this.#endpointBase, this.#words, 0, port);
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

/** Ask for a message to be sent in segments. @param at  byte offset of the control message @returns its bytes */
function segmentWrite(control: NativeBuffer, at: number, segment: number): number {
  const bytes = cmsgWrite(control.u32, at >> 2, SOL_UDP, UDP_SEGMENT, 2);
  control.u16[(at + CMSG_HEADER_BYTES) >> 1] = segment;
  return bytes;
}
