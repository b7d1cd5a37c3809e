/**
 * Datagram sockets of the host-io stage: a UDP socket for each endpoint of the guest's (udp-endpoints.ts), a
 * ping socket for each flow, and published UDP ports. A socket is named by its sid: the gid of its only flow
 * (ping, UDP without a guest's port), or of its listener, or endpointBase + endpoint.
 *
 * This file opens, connects and closes them. What passes through is in datagram/:
 *
 *   socket-table       what is known of each flow and each socket
 *   error-queue        ICMP errors, told to the flow's shard
 *   sender             to the host
 *   receiver           from the host
 *
 * One socket for an endpoint, connected as long as it has one peer: so the kernel filters strangers out and
 * keeps the route. When a second one comes it is disconnected, and keeps its port: what it receives is looked
 * up, what it sends names its peer. Who may answer is the policy's (ServicePolicy.udpFiltering).
 *
 * A flow that the guest begins from behind a published port leaves from that port: SIP, WireGuard and a DHT
 * are reached where they were heard. The first few peers of such a port have a connected socket each on the
 * port of the listener (published-ports.ts), which the kernel prefers to the listener for what this peer
 * sends. All others are sent to through the listener's own socket, and heard there.
 *
 * Ports: the guest's source port is taken on the host too when it is free, so that a peer sees what the guest
 * meant and a NAT in front of us can be passed; when it is taken, any port will do (StageDrop is not an
 * answer to a busy port). A port is never shared with another process, whose traffic would mix with ours.
 * Between bind and connect a stranger's datagram may slip in; the queue is emptied after connect.
 *
 * Invariant: after `closed` no message of the flow follows; an open that failed still waits for its `close`.
 */
import { addressEqual, isLinkLocal, isV4Mapped } from '../../../proto/address.ts';
import { Counter } from '../../../ring/counters.ts';
import {
  AF_INET,
  AF_INET6,
  AF_UNSPEC,
  EPOLLERR,
  EPOLLET,
  EPOLLIN,
  Errno,
  IP_PKTINFO,
  IP_RECVERR,
  IP_RECVTTL,
  IPPROTO_ICMP,
  IPPROTO_ICMPV6,
  IPPROTO_UDP,
  IPV6_RECVERR,
  IPV6_RECVHOPLIMIT,
  IPV6_RECVPKTINFO,
  IPV6_V6ONLY,
  MSG_DONTWAIT,
  MSG_TRUNC,
  SO_DOMAIN,
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
} from '../../../sys/constants.ts';
import { close } from '../../../sys/io.ts';
import { NativeBuffer } from '../../../sys/memory.ts';
import {
  connect,
  getsockoptInt,
  localAddress,
  NAME_BYTES,
  peerAddress,
  peerScope,
  recv,
  SOCKADDR_IN_BYTES,
  setsockoptInt,
  sockaddrWrite,
  socket,
} from '../../../sys/socket.ts';
import type { HostChange, ListenerPlan } from '../../engine-plan.ts';
import type { Addressing } from '../../flow/addressing.ts';
import {
  openPingFamily,
  openRemoteAt,
  openRemotePort,
  openUdpGro,
  openUdpGuestAt,
  openUdpGuestPort,
  openZone,
  ToHost,
} from '../../link/to-host.ts';
import { closedWrite, errorWrite, openFailedWrite } from '../../link/to-shard.ts';
import { openListener, type SocketMaker } from '../../listen/bind-address.ts';
import { targetPort } from '../../listen/listener-table.ts';
import type { HostContext, SocketModule } from '../context.ts';
import { Outbound } from '../outbound.ts';
import { NO_LISTENER, PublishedPorts } from '../published-ports.ts';
import { NO_ENDPOINT, UdpEndpoints } from '../udp-endpoints.ts';
import { ErrorQueues } from './error-queue.ts';
import { DatagramReceiver } from './receiver.ts';
import { DatagramSender } from './sender.ts';
import { DEFAULT_OPTIONS, Kind, Published, SocketTable } from './socket-table.ts';

/** Datagrams of strangers that are looked for at the most. */
const MAX_STRANGERS = 32;
/** Asked of the kernel for each UDP socket; memory is only taken by datagrams that wait. */
const SOCKET_BUFFER_BYTES = 1 << 20;
/**
 * The same for what many peers send to one socket: with one each they had more room than that between them.
 */
const SHARED_BUFFER_BYTES = 4 << 20;
/**
 * Peers of one published port with a socket of their own: faster, and ICMP errors are told, but a descriptor
 * each.
 */
const PUBLISHED_SOCKETS = 32;
/** The same for all of them: ranges of ports are published by the thousand. */
const ALL_PUBLISHED_SOCKETS = 512;
/**
 * Added to Outbound.wayOf(): an endpoint of flows that have a socket each, on a published port. It only knows
 * who their peers are.
 */
const WAY_PUBLISHED = 2;

const reusableSocket: SocketMaker = (domain, type) => {
  const fd = socket(domain, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd >= 0) setsockoptInt(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  return fd;
};

export class DatagramSockets implements SocketModule {
  readonly #ctx: HostContext;
  readonly #table: SocketTable;
  readonly #errors: ErrorQueues;
  readonly #sender: DatagramSender;
  readonly #receiver: DatagramReceiver;
  readonly #outbound: Outbound;
  readonly #published: PublishedPorts;
  /** Sockets of flows on published ports. */
  #publishedSockets = 0;
  readonly #name = new NativeBuffer(NAME_BYTES);
  readonly #words = new Uint32Array(16);

  /** @param gids  flows and listeners */
  constructor(ctx: HostContext, addressing: Addressing, gids: number) {
    this.#ctx = ctx;
    this.#table = new SocketTable(ctx, gids);
    this.#errors = new ErrorQueues(ctx, this.#table);
    this.#sender = new DatagramSender(ctx, this.#table, this.#errors);
    this.#receiver = new DatagramReceiver(ctx, addressing, this.#table, this.#errors);
    this.#outbound = new Outbound(ctx.plan);
    this.#published = new PublishedPorts(addressing, gids - ctx.listenerBase);
  }

  /** How many sockets have a number, for `flows` flows. @param gids  flows and listeners */
  static sids(flows: number, gids: number): number {
    return SocketTable.sids(flows, gids);
  }

  /**
   * openUdp, openPing, sendDatagram, sendFromListener, close or reset, from a shard. Takes over the slots it
   * brings.
   */
  command(op: number, words: Uint32Array, at: number, gid: number): void {
    switch (op) {
      case ToHost.sendDatagram:
        this.#sender.send(words, at, gid);
        break;
      case ToHost.sendFromListener:
        this.#sender.sendHeld();
        this.#sender.sendFromListener(words, at);
        break;
      case ToHost.openUdp:
        this.#sender.sendHeld();
        this.#openUdp(words, at, gid);
        break;
      case ToHost.openPing:
        this.#sender.sendHeld();
        this.#openPing(words, at, gid);
        break;
      case ToHost.close:
      case ToHost.reset:
        this.#sender.sendHeld();
        this.#close(gid);
        break;
    }
  }

  #openUdp(words: Uint32Array, at: number, gid: number): void {
    const table = this.#table;
    const port = openUdpGuestPort(words, at);
    const kind = isV4Mapped(words, openRemoteAt(at)) ? Kind.udp4 : Kind.udp6;
    if (port !== 0 && this.#openPublished(words, at, gid, kind, port)) return;
    if (port !== 0 && this.#joinEndpoint(words, at, gid, kind, port)) return;
    const fd = this.#udpSocket(words, at, kind, 0, true);
    if (fd < 0) this.#openFailed(gid, -fd);
    else if (this.#opened(gid, gid, fd, kind)) table.hasGro[gid] = this.#setGro(fd, words, at);
  }

  /**
   * Give a flow from behind a published port a socket on that port, or the listener's.
   * @returns false when no listener leads to the guest's port, another flow of the same endpoint has the same
   *   peer, or there is no socket
   *   for it and the listener is bound to an address
   */
  #openPublished(words: Uint32Array, at: number, gid: number, kind: number, port: number): boolean {
    const published = this.#published;
    if (published.count === 0) return false;
    const table = this.#table;
    const guestAt = openUdpGuestAt(at);
    const peerAt = openRemoteAt(at);
    const listener = published.find(words, guestAt, port, words, peerAt);
    if (listener === NO_LISTENER) return false;
    table.endpoints ??= new UdpEndpoints(this.#ctx.plan.hashKey, this.#ctx.listenerBase);
    const endpoints = table.endpoints;
    const way = this.#outbound.wayOf(words, peerAt) + WAY_PUBLISHED;
    let endpoint = endpoints.find(words, guestAt, port, way);
    if (endpoint === NO_ENDPOINT) endpoint = endpoints.add(words, guestAt, port, way);
    const peerPort = openRemotePort(words, at);
    if (!endpoints.join(endpoint, gid, words, peerAt, peerPort, 0, false)) return false;
    const isFew =
      endpoints.flowCount(endpoint) <= PUBLISHED_SOCKETS && this.#publishedSockets < ALL_PUBLISHED_SOCKETS;
    const fd = isFew ? this.#publishedSocket(words, at, kind, listener) : -Errno.EMFILE;
    if (fd < 0 && !published.isAny(listener)) {
      endpoints.leave(gid);
      return false;
    }
    if (fd < 0) {
      this.#attach(gid, this.#ctx.listenerBase + listener, kind);
      table.isPublished[gid] = Published.byListener;
      return true;
    }
    if (this.#opened(gid, gid, fd, kind)) {
      table.isPublished[gid] = Published.ownSocket;
      this.#publishedSockets++;
      table.hasGro[gid] = this.#setGro(fd, words, at);
    } else endpoints.leave(gid);
    return true;
  }

  /**
   * A connected socket on a listener's port. Until it is connected it takes what anybody sends to that port:
   * that is the listener's, and is passed on as such.
   * @returns the descriptor or -errno
   */
  #publishedSocket(words: Uint32Array, at: number, kind: number, listener: number): number {
    const isV4 = kind === Kind.udp4;
    const peerAt = openRemoteAt(at);
    const fd = this.#socket(isV4, IPPROTO_UDP);
    if (fd < 0) return fd;
    const level = isV4 ? SOL_IP : SOL_IPV6;
    const pktinfo = isV4 ? IP_PKTINFO : IPV6_RECVPKTINFO;
    let r = this.#prepare(fd, isV4, words, peerAt);
    if (r === 0) r = setsockoptInt(fd, level, pktinfo, 1);
    if (r === 0) r = setsockoptInt(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (r === 0) {
      // Both have to allow it, and the listener does for no longer than this: so nobody else can be bound
      // beside it.
      this.#reuseListeners(listener, 1);
      r = this.#outbound.bindPort(fd, words, peerAt, this.#published.hostPort(listener));
      this.#reuseListeners(listener, 0);
    }
    if (r === 0) r = this.#connect(fd, words, peerAt, openRemotePort(words, at), openZone(words, at));
    if (r === 0) {
      this.#receiver.readForListener(fd, this.#ctx.listenerBase + listener);
      setsockoptInt(fd, level, pktinfo, 0);
      this.#enlargeBuffers(fd);
      return fd;
    }
    close(fd);
    return r;
  }

  /**
   * A socket for a flow; an unanswered connection gives way for it where descriptors are short.
   * @returns the descriptor or -errno
   */
  #socket(isV4: boolean, protocol: number): number {
    const { shortage } = this.#ctx;
    const domain = isV4 ? AF_INET : AF_INET6;
    const type = SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
    let fd = socket(domain, type, protocol);
    if (fd < 0 && shortage.madeRoom(fd)) fd = socket(domain, type, protocol);
    return fd;
  }

  /** SO_REUSEADDR of the listeners on one port of the host, of which there may be one for each address. */
  #reuseListeners(listener: number, on: number): void {
    const published = this.#published;
    const port = published.hostPort(listener);
    const first = this.#ctx.listenerBase;
    for (let i = published.firstFor(listener); i !== NO_LISTENER; i = published.after(i)) {
      if (published.hostPort(i) === port)
        setsockoptInt(this.#table.fd[first + i]! - 1, SOL_SOCKET, SO_REUSEADDR, on);
    }
  }

  /**
   * A port is to be published that flows of the guest's leave from already: let a listener be bound beside
   * them.
   * @returns whether there are any
   */
  #shareWithListener(port: number): boolean {
    const table = this.#table;
    const local = this.#words;
    let shared = false;
    for (let sid = 0; sid < table.fd.length; sid++) {
      const kind = table.kind[sid];
      if (table.fd[sid] === 0 || (kind !== Kind.udp4 && kind !== Kind.udp6)) continue;
      if (localAddress(table.fd[sid]! - 1, local, 12) !== port) continue;
      shared = setsockoptInt(table.fd[sid]! - 1, SOL_SOCKET, SO_REUSEADDR, 1) === 0 || shared;
    }
    return shared;
  }

  #listenerSocket(plan: ListenerPlan, port: number): number {
    const { freebind } = this.#ctx.plan.policy;
    const fd = openListener(plan, port, SOCK_DGRAM, freebind, this.#outbound);
    if (fd !== -Errno.EADDRINUSE || !this.#shareWithListener(port)) return fd;
    const again = openListener(plan, port, SOCK_DGRAM, freebind, this.#outbound, reusableSocket);
    if (again >= 0) setsockoptInt(again, SOL_SOCKET, SO_REUSEADDR, 0);
    return again;
  }

  /**
   * Give a flow its endpoint's socket; the first one's is made.
   * @returns false when another flow of the endpoint has the same peer, so that their answers could not be
   *   told apart
   */
  #joinEndpoint(words: Uint32Array, at: number, gid: number, kind: number, port: number): boolean {
    const table = this.#table;
    const ctx = this.#ctx;
    table.endpoints ??= new UdpEndpoints(ctx.plan.hashKey, ctx.listenerBase);
    const endpoints = table.endpoints;
    const guestAt = openUdpGuestAt(at);
    const peerAt = openRemoteAt(at);
    const peerPort = openRemotePort(words, at);
    const scope = this.#outbound.scopeOf(words, peerAt, openZone(words, at));
    const way = this.#outbound.wayOf(words, peerAt);
    let endpoint = endpoints.find(words, guestAt, port, way);
    if (endpoint !== NO_ENDPOINT) {
      const only = endpoints.only(endpoint);
      if (!endpoints.join(endpoint, gid, words, peerAt, peerPort, scope, table.connects)) return false;
      const sid = table.endpointBase + endpoint;
      if (only >= 0) this.#shareSocket(sid, words, peerAt);
      this.#attach(gid, sid, kind);
      return true;
    }
    const fd = this.#udpSocket(words, at, kind, port, table.connects);
    if (fd < 0) {
      this.#openFailed(gid, -fd);
      return true;
    }
    endpoint = endpoints.add(words, guestAt, port, way);
    endpoints.join(endpoint, gid, words, peerAt, peerPort, scope, table.connects);
    const sid = table.endpointBase + endpoint;
    if (!table.connects) setsockoptInt(fd, SOL_SOCKET, SO_RCVBUF, SHARED_BUFFER_BYTES);
    if (this.#opened(gid, sid, fd, kind)) table.hasGro[sid] = this.#setGro(fd, words, at);
    else endpoints.leave(gid);
    return true;
  }

  /** @param port  preferred local port, 0: the kernel's choice @returns the descriptor or -errno */
  #udpSocket(words: Uint32Array, at: number, kind: number, port: number, connects: boolean): number {
    const isV4 = kind === Kind.udp4;
    const peerAt = openRemoteAt(at);
    const fd = this.#socket(isV4, IPPROTO_UDP);
    if (fd < 0) return fd;
    let r = this.#prepare(fd, isV4, words, peerAt);
    // Taken, or privileged: any port will do.
    if (r === 0 && (port === 0 || this.#outbound.bindPort(fd, words, peerAt, port) < 0)) {
      r = this.#outbound.bindPort(fd, words, peerAt, 0);
    }
    if (r === 0 && connects) {
      r = this.#connect(fd, words, peerAt, openRemotePort(words, at), openZone(words, at));
      if (r === 0) this.#discardStrangers(fd);
    }
    if (r === 0) this.#enlargeBuffers(fd);
    else close(fd);
    return r < 0 ? r : fd;
  }

  /**
   * After the strangers: they were read without looking at control messages. Kernels before 5.0 refuse, and
   * nothing is lost.
   * @returns 1: set
   */
  #setGro(fd: number, words: Uint32Array, at: number): number {
    return openUdpGro(words, at) && setsockoptInt(fd, SOL_UDP, UDP_GRO, 1) === 0 ? 1 : 0;
  }

  /**
   * A second peer: from now on the socket belongs to no one. What waits in its queue stays there.
   * @param words,w  a peer of its, for the way out
   */
  #shareSocket(sid: number, words: Uint32Array, w: number): void {
    const table = this.#table;
    const fd = table.fd[sid]! - 1;
    setsockoptInt(fd, SOL_SOCKET, SO_RCVBUF, SHARED_BUFFER_BYTES);
    const port = this.#disconnect(fd, table.kind[sid]!, words, w);
    if (port <= 0) return;
    table.port[sid] = port;
    if (this.#ctx.datagramPorts !== undefined) this.#ctx.datagramPorts[port]!++;
  }

  /**
   * Undo connect(). The kernel forgets more than the peer: the interface, and a port that it chose itself
   * (__udp_disconnect). The socket is given both again.
   * @param words,w  a peer of its, for the way out
   * @returns the local port, or -errno when it is still connected
   */
  #disconnect(fd: number, kind: number, words: Uint32Array, w: number): number {
    const local = this.#words;
    const port = localAddress(fd, local, 12);
    this.#name.u8.fill(0);
    this.#name.u16[0] = AF_UNSPEC;
    const r = connect(fd, this.#name.address, SOCKADDR_IN_BYTES);
    if (r < 0) return r;
    this.#outbound.toDevice(fd, words, w);
    // Somebody else may have been quicker: then its next datagram has another port, as if it were new.
    if (kind <= Kind.udp6 && port > 0 && localAddress(fd, local, 12) === 0) {
      this.#outbound.bindPort(fd, words, w, port);
    }
    return port;
  }

  #openPing(words: Uint32Array, at: number, gid: number): void {
    const isV4 = openPingFamily(words, at) === 4;
    const peerAt = openRemoteAt(at);
    const protocol = isV4 ? IPPROTO_ICMP : IPPROTO_ICMPV6;
    const fd = this.#socket(isV4, protocol);
    if (fd < 0) {
      this.#openFailed(gid, -fd);
      return;
    }
    let r = this.#prepare(fd, isV4, words, peerAt);
    if (r === 0) {
      r = isV4 ? setsockoptInt(fd, SOL_IP, IP_RECVTTL, 1) : setsockoptInt(fd, SOL_IPV6, IPV6_RECVHOPLIMIT, 1);
    }
    if (r === 0) r = this.#outbound.bindPort(fd, words, peerAt, 0);
    if (r === 0) r = this.#connect(fd, words, peerAt, 0, 0);
    if (r === 0) this.#opened(gid, gid, fd, isV4 ? Kind.ping4 : Kind.ping6);
    else {
      close(fd);
      this.#openFailed(gid, -r);
    }
  }

  /** @param words,w  the peer @param zone  as scopeOf() has it @returns 0 or -errno */
  #connect(fd: number, words: Uint32Array, w: number, port: number, zone: number): number {
    const scope = this.#outbound.scopeOf(words, w, zone);
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
   * Room for bursts. What the default holds (rmem_default, 208 KiB) is 90 datagrams of 1,400 bytes with the
   * kernel's overhead, less than come while a round is under way. The kernel cuts the wish to
   * net.core.rmem_max and wmem_max and doubles it.
   */
  #enlargeBuffers(fd: number): void {
    setsockoptInt(fd, SOL_SOCKET, SO_RCVBUF, SOCKET_BUFFER_BYTES);
    setsockoptInt(fd, SOL_SOCKET, SO_SNDBUF, SOCKET_BUFFER_BYTES);
  }

  /** Nothing that came before the first send can be an answer. */
  #discardStrangers(fd: number): void {
    for (let i = 0; i < MAX_STRANGERS; i++) {
      if (recv(fd, this.#name.address, 1, MSG_DONTWAIT | MSG_TRUNC) === -Errno.EAGAIN) return;
    }
  }

  /** A flow's new socket. @returns false when it cannot be watched: it is closed, and the shard told */
  #opened(gid: number, sid: number, fd: number, kind: number): boolean {
    const table = this.#table;
    const ctx = this.#ctx;
    table.fd[sid] = fd + 1;
    this.#errors.more[sid] = 0;
    table.options[sid] = DEFAULT_OPTIONS;
    const r = ctx.watch(fd, sid, (EPOLLIN | EPOLLERR | EPOLLET) >>> 0);
    if (r < 0) {
      close(fd);
      table.fd[sid] = 0;
      this.#openFailed(gid, -r);
      return false;
    }
    table.kind[sid] = kind;
    this.#attach(gid, sid, kind);
    ctx.counters[Counter.sockOpened]!++;
    return true;
  }

  /** A flow has the socket for its own, or with others of its endpoint. */
  #attach(gid: number, sid: number, kind: number): void {
    const table = this.#table;
    table.kind[gid] = kind;
    table.socketOf[gid] = sid + 1;
    table.noSegment[gid] = 0;
    table.wanted[gid] = DEFAULT_OPTIONS;
  }

  /** @param errno  above zero */
  #openFailed(gid: number, errno: number): void {
    const table = this.#table;
    const ctx = this.#ctx;
    ctx.shortage.reportShortage(-errno);
    table.kind[gid] = Kind.failed;
    openFailedWrite(ctx.toShard(gid), gid % ctx.flowsPerShard, errno);
  }

  #close(gid: number): void {
    const table = this.#table;
    const ctx = this.#ctx;
    const kind = table.kind[gid];
    if (kind === Kind.none) return;
    const sid = table.socketOf[gid]! - 1;
    table.socketOf[gid] = 0;
    const published = table.isPublished[gid];
    if (published !== Published.no) {
      table.isPublished[gid] = Published.no;
      table.endpoints!.leave(gid);
      if (published === Published.ownSocket) {
        this.#publishedSockets--;
        this.#closeSocket(sid);
      }
    } else if (sid === gid || (sid >= 0 && table.endpoints!.leave(gid) === 0)) this.#closeSocket(sid);
    table.kind[gid] = Kind.none;
    closedWrite(ctx.toShard(gid), gid % ctx.flowsPerShard);
  }

  #closeSocket(sid: number): void {
    const table = this.#table;
    const ctx = this.#ctx;
    close(table.fd[sid]! - 1);
    table.fd[sid] = 0;
    table.kind[sid] = Kind.none;
    const port = table.port[sid]!;
    table.port[sid] = 0;
    if (port !== 0 && ctx.datagramPorts !== undefined) ctx.datagramPorts[port]!--;
    ctx.counters[Counter.sockClosed]!++;
  }

  /**
   * Open a published port.
   * @param index  listener number
   * @returns 0 or -errno
   */
  listen(index: number, plan: ListenerPlan, port = plan.port): number {
    const table = this.#table;
    const ctx = this.#ctx;
    const gid = ctx.listenerBase + index;
    const fd = this.#listenerSocket(plan, port);
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
    table.fd[gid] = fd + 1;
    table.kind[gid] = isV4 ? Kind.listener4 : Kind.listener6;
    table.listenerPort[index] = targetPort(plan, port);
    table.listenerPlan[index] = plan;
    table.listenerSplices[index] = plan.path === 'splice' ? 1 : 0;
    this.#published.add(index, plan, port, isV4);
    return 0;
  }

  /**
   * Stop listening: flows that came in here hear no more, and can answer no more. What the guest began from
   * the port goes on with a socket of its own, or ends and begins anew.
   */
  unlisten(index: number): void {
    const table = this.#table;
    const gid = this.#ctx.listenerBase + index;
    this.#ctx.loopback?.forgetListener(index);
    this.#published.remove(index);
    this.#leaveListener(gid);
    close(table.fd[gid]! - 1);
    table.fd[gid] = 0;
    table.kind[gid] = Kind.none;
  }

  /**
   * The shards are told to end the flows that send through a listener: the next datagram of each begins a new
   * one.
   */
  #leaveListener(sid: number): void {
    const table = this.#table;
    const ctx = this.#ctx;
    for (let gid = 0; gid < table.isPublished.length; gid++) {
      if (table.isPublished[gid] !== Published.byListener || table.socketOf[gid] !== sid + 1) continue;
      table.isPublished[gid] = Published.no;
      table.endpoints!.leave(gid);
      table.socketOf[gid] = 0;
      table.kind[gid] = Kind.failed;
      errorWrite(ctx.toShard(gid), gid % ctx.flowsPerShard, 0);
    }
  }

  /** The engine ends. */
  closeAll(): void {
    const table = this.#table;
    for (let sid = 0; sid < table.fd.length; sid++) {
      if (table.fd[sid] !== 0) close(table.fd[sid]! - 1);
      table.fd[sid] = 0;
      table.kind[sid] = Kind.none;
    }
  }

  /**
   * The host's network has changed. A connected socket keeps the source address that the kernel chose when it
   * was connected, and may not send any more once the host has lost it; a flow that goes on for hours (a
   * tunnel of the guest's) would be dead for ever. So each one whose address would be another today is
   * connected anew, its port kept. One that is not connected has no such address.
   */
  hostChanged(change: HostChange): void {
    const table = this.#table;
    const scopeBefore = this.#outbound.scope;
    this.#outbound.hostChanged(change);
    for (let sid = 0; sid < table.fd.length; sid++) {
      const kind = table.kind[sid]!;
      if (table.fd[sid] === 0 || kind > Kind.ping6) continue;
      const gid = table.onlyFlow(sid);
      if (gid >= 0) this.#reconnect(sid, kind, gid, scopeBefore);
    }
  }

  #reconnect(sid: number, kind: number, gid: number, scopeBefore: number): void {
    const table = this.#table;
    const fd = table.fd[sid]! - 1;
    const words = this.#words;
    const port = peerAddress(fd, words, 0);
    if (port < 0 || this.#outbound.hasSource(words, 0)) return;
    const zone = this.#zoneOf(fd, words, scopeBefore);
    if (localAddress(fd, words, 4) < 0 || !this.#sourceNow(kind, words, port, zone)) return;
    if (addressEqual(words, 4, words, 8)) return;
    // As long as it is not connected strangers may be heard, as at the start; what waits is lost with them.
    if (this.#disconnect(fd, kind, words, 0) < 0) return;
    const r = this.#connect(fd, words, 0, port, zone);
    this.#discardStrangers(fd);
    if (r < 0) this.#errors.tellErrno(gid, -r);
    else this.#ctx.counters[Counter.datagramsReconnected]!++;
  }

  /**
   * The interface that a connected socket's peer in words[0..3] lies behind whatever the plan says; 0: the
   * plan's, or any.
   */
  #zoneOf(fd: number, words: Uint32Array, scopeBefore: number): number {
    if (isV4Mapped(words, 0) || !isLinkLocal(words, 0)) return 0;
    const scope = peerScope(fd);
    return scope > 0 && scope !== scopeBefore ? scope : 0;
  }

  /**
   * Source address that the kernel would choose today, into words[8..11].
   * @returns false when there is no way to go
   */
  #sourceNow(kind: number, words: Uint32Array, port: number, zone: number): boolean {
    const isV4 = kind === Kind.udp4 || kind === Kind.ping4;
    const probe = socket(isV4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_UDP);
    if (probe < 0) return false;
    let r = this.#outbound.toDevice(probe, words, 0);
    if (r === 0) r = this.#connect(probe, words, 0, port || 1, zone);
    if (r === 0) r = localAddress(probe, words, 8);
    close(probe);
    return r >= 0;
  }

  /** Send what is held back. Whoever calls this promises to call it after each batch of commands. */
  flush(): void {
    this.#sender.flush();
  }

  onEvents(sid: number, events: number): void {
    const table = this.#table;
    if (table.fd[sid] === 0) return;
    if (events & EPOLLERR) this.#errors.drain(sid);
    this.#receiver.read(sid);
  }

  /** A socket with more to read than one round's share, again. */
  onReady(sid: number): void {
    const table = this.#table;
    if (table.fd[sid] === 0) return;
    this.#receiver.yieldToReaders();
    // Another queue, another system call: looked at only when it is known to hold something. News of it come
    // as EPOLLERR.
    if (this.#errors.more[sid]) this.#errors.drain(sid);
    this.#receiver.read(sid);
  }

  /**
   * Slots came back: sockets that stopped reading for want of them go on. Call it after freeSlots commands.
   */
  resume(): void {
    this.#receiver.resume();
  }
}
