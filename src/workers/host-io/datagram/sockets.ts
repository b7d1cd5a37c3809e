/**
 * Datagram sockets of the host-io stage: a UDP socket for each UDP endpoint of the guest (udp-endpoints.ts),
 * a ping socket for each echo flow, and published UDP ports.
 *
 * This file opens, connects and closes them. The rest is in datagram/:
 *
 *   socket-table       what the parts share about each flow and each socket
 *   error-queue        ICMP errors, passed to the flow's shard
 *   sender             datagrams to the host
 *   receiver           datagrams from the host
 *
 * An endpoint's socket is connected as long as the endpoint has one peer: the kernel then drops datagrams of
 * other peers and keeps the route. When a second peer comes, the socket is disconnected and keeps its port:
 * each datagram that it sends names its peer, and the flow of each datagram that it receives is looked up by
 * the peer. Which other peers may answer is the policy's decision (ServicePolicy.udpFiltering).
 *
 * A flow that the guest begins from a port that is published leaves from the published port, because the
 * peers of SIP, WireGuard or a DHT answer to the port that they received from. The first few peers of such a
 * port have a connected socket each, bound to the listener's port (published-ports.ts); the kernel prefers a
 * connected socket to the listener for what this peer sends. Datagrams of all other peers are sent and
 * received through the listener's own socket.
 *
 * Ports: a socket is bound to the guest's source port where that is free on the host, so that the peer sees
 * the port that the guest chose and NAT traversal works; where the port is taken, to any port (a busy port is
 * no reason to drop). A port is never shared with another process, whose traffic would mix with ours. Between
 * bind and connect a datagram of any sender can arrive; the queue is emptied after connect.
 *
 * A flow to a multicast group or broadcast address has a socket that is not connected, and peers that the
 * guest has not sent to may answer (group-sockets.ts, which also receives what is sent to groups).
 *
 * Invariant: no message of a flow follows its `closed`; a flow whose open failed still waits for `close`.
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
  bind,
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
import { GroupKind } from '../../flow/group-rules.ts';
import {
  openPingFamily,
  openRemoteAt,
  openRemotePort,
  openUdpGro,
  openUdpGroup,
  openUdpGuestAt,
  openUdpGuestPort,
  openZone,
  ToHost,
} from '../../link/to-host.ts';
import { closedWrite, errorWrite, openFailedWrite } from '../../link/to-shard.ts';
import { openListener, type SocketMaker } from '../../listen/bind-address.ts';
import { targetPort } from '../../listen/listener-table.ts';
import type { HostContext, SocketId, SocketModule } from '../context.ts';
import type { GroupSockets } from '../group-sockets.ts';
import { Outbound } from '../outbound.ts';
import { NO_LISTENER, PublishedPorts } from '../published-ports.ts';
import { NO_ENDPOINT, UdpEndpoints } from '../udp-endpoints.ts';
import { ErrorQueues } from './error-queue.ts';
import { DatagramReceiver } from './receiver.ts';
import { DatagramSender } from './sender.ts';
import {
  DEFAULT_OPTIONS,
  isIpv4Flow,
  isListener,
  isUdpFlow,
  Kind,
  NO_SOCKET,
  Published,
  SocketTable,
} from './socket-table.ts';

/** Most datagrams that are discarded from a queue after connect. */
const MAX_UNSOLICITED = 32;
/** SO_RCVBUF and SO_SNDBUF of each UDP socket; only queued datagrams take memory. */
const SOCKET_BUFFER_BYTES = 1 << 20;
/** SO_RCVBUF of a socket that several peers share; with a socket each they would have more room together. */
const SHARED_BUFFER_BYTES = 4 << 20;
/**
 * Most peers of one published port with a socket of their own. Such a socket is faster and reports ICMP
 * errors, but costs a descriptor.
 */
const PUBLISHED_SOCKETS = 32;
/** The same for all published ports together: a range may have thousands of ports. */
const ALL_PUBLISHED_SOCKETS = 512;
/**
 * Added to Outbound.wayOf() for endpoints on a published port. Their flows have a socket each, or use the
 * listener's: such an endpoint has no socket, it only records the peers.
 */
const WAY_PUBLISHED = 2;
/**
 * The same for an endpoint whose socket is bound to the address of a group, because a program of the host has
 * the guest's port: such a socket sends from that port, but receives nothing.
 */
const WAY_GROUP = 4;
const LIMITED_BROADCAST = 0xffff_ffff;

/** A socket that can be bound to a port that other sockets with SO_REUSEADDR are bound to. */
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
  /** Null: multicast and broadcast are not carried, or another lane carries them. */
  readonly #groups: GroupSockets | null;
  /** Sockets of flows on published ports. */
  #publishedSockets = 0;
  readonly #name = new NativeBuffer(NAME_BYTES);
  readonly #words = new Uint32Array(16);

  /** @param gids  flows and listeners */
  constructor(ctx: HostContext, addressing: Addressing, gids: number, groups: GroupSockets | null = null) {
    this.#ctx = ctx;
    this.#groups = groups;
    this.#table = new SocketTable(ctx, gids);
    this.#errors = new ErrorQueues(ctx, this.#table);
    this.#sender = new DatagramSender(ctx, this.#table, this.#errors, groups);
    this.#receiver = new DatagramReceiver(ctx, addressing, this.#table, this.#errors);
    this.#outbound = new Outbound(ctx.plan);
    this.#published = new PublishedPorts(addressing, gids - ctx.listenerBase);
  }

  /** As SocketTable.sids(). */
  static sids(flows: number, gids: number): number {
    return SocketTable.sids(flows, gids);
  }

  /**
   * openUdp, openPing, sendDatagram, sendFromListener, close or reset, from a shard. Takes over the slots of
   * the command.
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
    if (this.#groups !== null && openUdpGroup(words, at) !== GroupKind.none && port !== 0)
      return this.#openGroup(words, at, gid, kind, port, this.#groups);
    if (port !== 0 && this.#openPublished(words, at, gid, kind, port)) return;
    if (port !== 0 && this.#joinEndpoint(words, at, gid, kind, port)) return;
    const fd = this.#udpSocket(words, at, kind, 0, true);
    if (fd < 0) this.#openFailed(gid, -fd);
    else if (this.#opened(gid, table.ownSocket(gid), fd, kind))
      table.hasGro[gid] = this.#setGro(fd, words, at);
  }

  /**
   * Open a flow to a multicast group or broadcast address. Its socket is the one of the guest's endpoint, so
   * that answers come to the port that asked, and later datagrams to the peers that answered leave from the
   * same port.
   */
  #openGroup(
    words: Uint32Array,
    at: number,
    gid: number,
    kind: number,
    port: number,
    groups: GroupSockets,
  ): void {
    const table = this.#table;
    const guestAt = openUdpGuestAt(at);
    const peerAt = openRemoteAt(at);
    const peerPort = openRemotePort(words, at);
    if (openUdpGroup(words, at) === GroupKind.broadcast) this.#toHostBroadcast(words, peerAt);
    groups.learn(words, peerAt, peerPort, port);
    table.endpoints ??= new UdpEndpoints(this.#ctx.plan.hashKey, this.#ctx.listenerBase);
    const endpoints = table.endpoints;
    if (this.#openGroupPublished(words, at, gid, kind, port, groups)) return;
    let way = 0;
    let endpoint = endpoints.find(words, guestAt, port, way);
    let fd = -1;
    // The port counts where it is the group's too (mDNS): members send from it and check it.
    const isSymmetric = peerPort === port;
    if (endpoint !== NO_ENDPOINT) {
      const bound = localAddress(table.fd.get(table.endpointSocket(endpoint)), this.#words, 12);
      if (isSymmetric && bound !== port) way = WAY_GROUP;
    } else {
      fd = this.#groupSocket(words, at, kind, port, false);
      if (fd < 0 && isSymmetric) way = WAY_GROUP;
      else if (fd < 0) fd = this.#udpSocket(words, at, kind, 0, false);
    }
    if (way === WAY_GROUP) {
      endpoint = endpoints.find(words, guestAt, port, way);
      if (endpoint === NO_ENDPOINT) fd = this.#groupSocket(words, at, kind, port, true);
      if (endpoint === NO_ENDPOINT && fd < 0) {
        // A program of the host does not share the port: any other.
        way = 0;
        endpoint = endpoints.find(words, guestAt, port, way);
        if (endpoint === NO_ENDPOINT) fd = this.#udpSocket(words, at, kind, 0, false);
      }
    }
    if (endpoint === NO_ENDPOINT && fd < 0) {
      this.#openFailed(gid, -fd);
      return;
    }
    const isNew = endpoint === NO_ENDPOINT;
    if (isNew) endpoint = endpoints.add(words, guestAt, port, way);
    const sid = table.endpointSocket(endpoint);
    const only = endpoints.only(endpoint);
    if (!endpoints.join(endpoint, gid, words, peerAt, peerPort, 0, false)) {
      // Another flow of the endpoint has the same destination: the guest's two broadcast addresses may be
      // one.
      this.#openFailed(gid, Errno.EADDRINUSE);
      return;
    }
    if (isNew) {
      setsockoptInt(fd, SOL_SOCKET, SO_RCVBUF, SHARED_BUFFER_BYTES);
      if (!this.#opened(gid, sid, fd, kind)) {
        endpoints.leave(gid);
        return;
      }
      table.hasGro[sid] = this.#setGro(fd, words, at);
    } else if (only >= 0) this.#shareSocket(sid, words, peerAt);
    this.#prepareGroup(sid, kind === Kind.udp4, port, groups);
    this.#attach(gid, sid, kind === Kind.udp4 ? Kind.group4 : Kind.group6);
  }

  /** As #openPublished(), for a flow to a group: it leaves through the listener's socket. */
  #openGroupPublished(
    words: Uint32Array,
    at: number,
    gid: number,
    kind: number,
    port: number,
    groups: GroupSockets,
  ): boolean {
    const published = this.#published;
    const table = this.#table;
    const peerAt = openRemoteAt(at);
    const guestAt = openUdpGuestAt(at);
    if (published.count === 0) return false;
    const listener = published.find(words, guestAt, port, words, peerAt);
    if (listener === NO_LISTENER || !published.isAny(listener)) return false;
    const sid = table.listenerSocket(listener);
    const endpoints = table.endpoints!;
    let endpoint = endpoints.find(words, guestAt, port, WAY_PUBLISHED);
    if (endpoint === NO_ENDPOINT) endpoint = endpoints.add(words, guestAt, port, WAY_PUBLISHED);
    if (!endpoints.join(endpoint, gid, words, peerAt, openRemotePort(words, at), 0, false)) return false;
    this.#prepareGroup(sid, kind === Kind.udp4, 0, groups);
    this.#attach(gid, sid, kind === Kind.udp4 ? Kind.group4 : Kind.group6);
    table.isPublished[gid] = Published.byListener;
    return true;
  }

  /**
   * The socket of an endpoint that sends to groups, on the guest's port.
   * @param toGroup  bound to the group's address, beside a program of the host that shares the port
   * @returns the descriptor or -errno
   */
  #groupSocket(words: Uint32Array, at: number, kind: number, port: number, toGroup: boolean): number {
    const isV4 = kind === Kind.udp4;
    const peerAt = openRemoteAt(at);
    return this.#endpointSocket(words, peerAt, isV4, (fd) => {
      if (toGroup) {
        setsockoptInt(fd, SOL_SOCKET, SO_REUSEADDR, 1);
        const scope = isV4 ? 0 : this.#outbound.scope;
        const nameBytes = sockaddrWrite(this.#name.u8, 0, words, peerAt, port, scope);
        return bind(fd, this.#name.address, nameBytes);
      }
      const r = this.#outbound.bindPort(fd, words, peerAt, port);
      // Not before bind(), which shares the port with nobody; but a program of the host (avahi-daemon) that
      // comes later and shares it gets it.
      if (r === 0) setsockoptInt(fd, SOL_SOCKET, SO_REUSEADDR, 1);
      return r;
    });
  }

  /**
   * Open a UDP socket and prepare it.
   * @param finish  binds it, and what else may fail; 0 or -errno
   * @returns the descriptor or -errno
   */
  #endpointSocket(words: Uint32Array, peerAt: number, isV4: boolean, finish: (fd: number) => number): number {
    const fd = this.#socket(isV4, IPPROTO_UDP);
    if (fd < 0) return fd;
    let r = this.#prepare(fd, isV4, words, peerAt);
    if (r === 0) r = finish(fd);
    if (r === 0) this.#enlargeBuffers(fd);
    else close(fd);
    return r < 0 ? r : fd;
  }

  /** A socket is about to send to groups. @param port  of the guest's endpoint; 0: of a published port */
  #prepareGroup(sid: SocketId, isV4: boolean, port: number, groups: GroupSockets): void {
    const table = this.#table;
    if (table.sendsToGroups[sid] === 1) return;
    table.sendsToGroups[sid] = 1;
    // Set again with the next datagram: TTLs for groups are options of their own.
    table.options[sid] = DEFAULT_OPTIONS;
    groups.prepareSender(table.fd.get(sid), isV4, port !== 0);
    const { publishedUdp } = this.#ctx;
    if (port === 0 || publishedUdp === undefined) return;
    // All datagrams of this port are the first lane's from now on, answers to its peers too (FlowOwners).
    table.groupPort[sid] = port;
    Atomics.add(publishedUdp, port, 1);
  }

  /**
   * Replace a broadcast address of the guest's subnet that is none of the host's by 255.255.255.255.
   * connect() without SO_BROADCAST fails for a broadcast address (RFC 1122 section 3.3.6 is why the option
   * exists).
   */
  #toHostBroadcast(words: Uint32Array, w: number): void {
    if (words[w + 3] === LIMITED_BROADCAST) return;
    const probe = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_UDP);
    if (probe < 0) return;
    let r = this.#outbound.bindDevice(probe, words, w);
    if (r === 0) r = this.#connect(probe, words, w, 1, 0);
    close(probe);
    if (r !== -Errno.EACCES) words[w + 3] = LIMITED_BROADCAST;
  }

  /**
   * Give a flow whose guest port is published a socket on the published port, or the listener's socket.
   * @returns false when the flow needs another socket: no listener forwards to the guest's port, another flow
   *   of the endpoint has the same peer, or no socket can be opened and the listener is bound to an address
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
    const getsOwnSocket =
      endpoints.flowCount(endpoint) <= PUBLISHED_SOCKETS && this.#publishedSockets < ALL_PUBLISHED_SOCKETS;
    const fd = getsOwnSocket ? this.#publishedSocket(words, at, kind, listener) : -Errno.EMFILE;
    if (fd < 0 && !published.isAny(listener)) {
      endpoints.leave(gid);
      return false;
    }
    if (fd < 0) {
      this.#attach(gid, table.listenerSocket(listener), kind);
      table.isPublished[gid] = Published.byListener;
      return true;
    }
    if (this.#opened(gid, table.ownSocket(gid), fd, kind)) {
      table.isPublished[gid] = Published.ownSocket;
      this.#publishedSockets++;
      table.hasGro[gid] = this.#setGro(fd, words, at);
    } else endpoints.leave(gid);
    return true;
  }

  /**
   * A connected socket on a listener's port. Before connect() it receives datagrams of all peers of that
   * port; those belong to the listener and are passed on as the listener's.
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
      // Both sockets need SO_REUSEADDR for the bind. The listener has it for this call only, so that no other
      // process can bind to its port.
      this.#reuseListeners(listener, 1);
      r = this.#outbound.bindPort(fd, words, peerAt, this.#published.hostPort(listener));
      this.#reuseListeners(listener, 0);
    }
    if (r === 0) r = this.#connect(fd, words, peerAt, openRemotePort(words, at), openZone(words, at));
    if (r === 0) {
      this.#receiver.readForListener(fd, this.#table.listenerSocket(listener));
      setsockoptInt(fd, level, pktinfo, 0);
      this.#enlargeBuffers(fd);
      return fd;
    }
    close(fd);
    return r;
  }

  /**
   * A socket for a flow; where descriptors are short, an unanswered connect() is given up for it.
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

  /** Set or clear SO_REUSEADDR of all listeners on a listener's port; each address may have one. */
  #reuseListeners(listener: number, on: number): void {
    const published = this.#published;
    const port = published.hostPort(listener);
    const table = this.#table;
    for (let i = published.firstFor(listener); i !== NO_LISTENER; i = published.after(i)) {
      if (published.hostPort(i) === port)
        setsockoptInt(table.fd.get(table.listenerSocket(i)), SOL_SOCKET, SO_REUSEADDR, on);
    }
  }

  /**
   * Set SO_REUSEADDR on the sockets of flows that are bound to a port of these rules, as another lane is
   * about to bind listeners to them.
   */
  shareWithListeners(plans: readonly ListenerPlan[]): void {
    const udp = plans.filter(({ proto, from }) => proto === 'udp' && from !== 'guest');
    if (udp.length > 0)
      this.#setShared((bound) => udp.some(({ port, lastPort = port }) => bound >= port && bound <= lastPort));
  }

  /**
   * Set SO_REUSEADDR on the sockets of flows that are bound to certain ports, so that a listener can be bound
   * too.
   * @returns whether there are any
   */
  #setShared(isWanted: (port: number) => boolean): boolean {
    const table = this.#table;
    const local = this.#words;
    let shared = false;
    for (let sid = 0; sid < table.fd.length; sid++) {
      const kind = table.kind[sid]!;
      if (!table.fd.has(sid) || !isUdpFlow(kind)) continue;
      if (!isWanted(localAddress(table.fd.get(sid), local, 12))) continue;
      shared = setsockoptInt(table.fd.get(sid), SOL_SOCKET, SO_REUSEADDR, 1) === 0 || shared;
    }
    return shared;
  }

  /** @returns a bound socket of a rule, or -errno */
  #listenerSocket(plan: ListenerPlan, port: number): number {
    const { areLanes, plan: enginePlan } = this.#ctx;
    const { freebind } = enginePlan.policy;
    const fd = openListener(plan, port, SOCK_DGRAM, freebind, this.#outbound);
    if (fd !== -Errno.EADDRINUSE) return fd;
    // Sockets of other lanes have the option by now (Engine.#askForListeners).
    if (!this.#setShared((bound) => bound === port) && !areLanes) return fd;
    const again = openListener(plan, port, SOCK_DGRAM, freebind, this.#outbound, reusableSocket);
    if (again >= 0) setsockoptInt(again, SOL_SOCKET, SO_REUSEADDR, 0);
    return again;
  }

  /**
   * Give a flow its endpoint's socket; the endpoint's first flow opens it.
   * @returns false when another flow of the endpoint has the same peer: the answers to both would look alike
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
      const sid = table.endpointSocket(endpoint);
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
    const sid = table.endpointSocket(endpoint);
    if (!table.connects) setsockoptInt(fd, SOL_SOCKET, SO_RCVBUF, SHARED_BUFFER_BYTES);
    if (this.#opened(gid, sid, fd, kind)) table.hasGro[sid] = this.#setGro(fd, words, at);
    else endpoints.leave(gid);
    return true;
  }

  /** @param port  preferred local port, 0: the kernel's choice @returns the descriptor or -errno */
  #udpSocket(words: Uint32Array, at: number, kind: number, port: number, connects: boolean): number {
    const peerAt = openRemoteAt(at);
    return this.#endpointSocket(words, peerAt, kind === Kind.udp4, (fd) => {
      let r = 0;
      // The port is taken or privileged: any other.
      if (port === 0 || this.#outbound.bindPort(fd, words, peerAt, port) < 0)
        r = this.#outbound.bindPort(fd, words, peerAt, 0);
      if (r === 0 && connects) {
        r = this.#connect(fd, words, peerAt, openRemotePort(words, at), openZone(words, at));
        if (r === 0) this.#discardUnsolicited(fd);
      }
      return r;
    });
  }

  /**
   * Set UDP_GRO if the guest takes coalesced datagrams. Only after discardUnsolicited(), which reads no
   * control messages. Kernels before 5.0 refuse the option, and datagrams come one by one.
   * @returns 1: set
   */
  #setGro(fd: number, words: Uint32Array, at: number): number {
    return openUdpGro(words, at) && setsockoptInt(fd, SOL_UDP, UDP_GRO, 1) === 0 ? 1 : 0;
  }

  /**
   * The endpoint gets a second peer: disconnect its socket. Queued datagrams stay in the queue.
   * @param words,w  address of a peer, by which the interface is chosen
   */
  #shareSocket(sid: SocketId, words: Uint32Array, w: number): void {
    const table = this.#table;
    const fd = table.fd.get(sid);
    setsockoptInt(fd, SOL_SOCKET, SO_RCVBUF, SHARED_BUFFER_BYTES);
    const port = this.#disconnect(fd, table.kind[sid]!, words, w);
    if (port <= 0) return;
    table.port[sid] = port;
    if (this.#ctx.datagramPorts !== undefined) Atomics.add(this.#ctx.datagramPorts, port, 1);
  }

  /**
   * Undo connect(). Besides the peer the kernel clears the interface, and the port if it chose the port
   * itself (__udp_disconnect): both are set again.
   * @param words,w  address of a peer, by which the interface is chosen
   * @returns the local port, or -errno: the socket is still connected
   */
  #disconnect(fd: number, kind: number, words: Uint32Array, w: number): number {
    const local = this.#words;
    const port = localAddress(fd, local, 12);
    this.#name.u8.fill(0);
    this.#name.u16[0] = AF_UNSPEC;
    const r = connect(fd, this.#name.address, SOCKADDR_IN_BYTES);
    if (r < 0) return r;
    this.#outbound.bindDevice(fd, words, w);
    // Another process may have taken the port in between: the next datagram then gets a port of the kernel's.
    if (isUdpFlow(kind) && port > 0 && localAddress(fd, local, 12) === 0) {
      this.#outbound.bindPort(fd, words, w, port);
    }
    return port;
  }

  #openPing(words: Uint32Array, at: number, gid: number): void {
    const table = this.#table;
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
    if (r === 0) this.#opened(gid, table.ownSocket(gid), fd, isV4 ? Kind.ping4 : Kind.ping6);
    else {
      close(fd);
      this.#openFailed(gid, -r);
    }
  }

  /** @param words,w  the peer's address @param zone  as of Outbound.scopeOf() @returns 0 or -errno */
  #connect(fd: number, words: Uint32Array, w: number, port: number, zone: number): number {
    const scope = this.#outbound.scopeOf(words, w, zone);
    const nameBytes = sockaddrWrite(this.#name.u8, 0, words, w, port, scope);
    return connect(fd, this.#name.address, nameBytes);
  }

  /** Set the options that every socket of a flow has. @param words,w  remote address @returns 0 or -errno */
  #prepare(fd: number, isV4: boolean, words: Uint32Array, w: number): number {
    let r = isV4 ? 0 : setsockoptInt(fd, SOL_IPV6, IPV6_V6ONLY, 1);
    // An IPv6 ping socket has no V6ONLY on some kernels, and takes IPv6 only anyway.
    if (r === -Errno.ENOPROTOOPT || r === -Errno.EINVAL) r = 0;
    if (r === 0) r = setsockoptInt(fd, isV4 ? SOL_IP : SOL_IPV6, isV4 ? IP_RECVERR : IPV6_RECVERR, 1);
    if (r === 0) r = this.#outbound.bindDevice(fd, words, w);
    return r;
  }

  /**
   * Enlarge the socket's buffers for bursts. The default (rmem_default, 208 KiB) holds 90 datagrams of 1,400
   * bytes with the kernel's overhead; more can arrive during one round of this thread. The kernel limits the
   * value to net.core.rmem_max and wmem_max and doubles it.
   */
  #enlargeBuffers(fd: number): void {
    setsockoptInt(fd, SOL_SOCKET, SO_RCVBUF, SOCKET_BUFFER_BYTES);
    setsockoptInt(fd, SOL_SOCKET, SO_SNDBUF, SOCKET_BUFFER_BYTES);
  }

  /** Empty the receive queue: a datagram that came before the first send is no answer to the guest. */
  #discardUnsolicited(fd: number): void {
    for (let i = 0; i < MAX_UNSOLICITED; i++) {
      if (recv(fd, this.#name.address, 1, MSG_DONTWAIT | MSG_TRUNC) === -Errno.EAGAIN) return;
    }
  }

  /**
   * Record and watch a flow's new socket.
   * @returns false when epoll refused it: closed, and openFailed sent
   */
  #opened(gid: number, sid: SocketId, fd: number, kind: number): boolean {
    const table = this.#table;
    const ctx = this.#ctx;
    table.open(sid, fd);
    this.#errors.more[sid] = 0;
    const r = ctx.watch(fd, sid, (EPOLLIN | EPOLLERR | EPOLLET) >>> 0);
    if (r < 0) {
      table.close(sid);
      this.#openFailed(gid, -r);
      return false;
    }
    table.kind[sid] = kind;
    this.#attach(gid, sid, kind);
    ctx.counters[Counter.sockOpened]!++;
    return true;
  }

  /** Let a flow send through a socket. */
  #attach(gid: number, sid: SocketId, kind: number): void {
    const table = this.#table;
    table.kind[gid] = kind;
    table.setSocket(gid, sid);
    table.noSegment[gid] = 0;
    table.wanted[gid] = DEFAULT_OPTIONS;
    this.#ctx.names?.note(gid, table.fd.get(sid));
  }

  /** Tell the shard that the flow has no socket. @param errno  above zero */
  #openFailed(gid: number, errno: number): void {
    const table = this.#table;
    const ctx = this.#ctx;
    ctx.shortage.reportShortage(-errno);
    table.kind[gid] = Kind.failed;
    openFailedWrite(ctx.toShard(gid), gid % ctx.flowsPerShard, errno);
  }

  /** The shard has closed a flow: close its socket unless others use it. */
  #close(gid: number): void {
    const table = this.#table;
    const ctx = this.#ctx;
    const kind = table.kind[gid];
    if (kind === Kind.none) return;
    const sid = table.socketOf(gid);
    table.setSocket(gid, NO_SOCKET);
    const published = table.isPublished[gid];
    if (published !== Published.no) {
      table.isPublished[gid] = Published.no;
      table.endpoints!.leave(gid);
      if (published === Published.ownSocket) {
        this.#publishedSockets--;
        this.#closeSocket(sid);
      }
    } else if (sid === table.ownSocket(gid) || (sid !== NO_SOCKET && table.endpoints!.leave(gid) === 0))
      this.#closeSocket(sid);
    table.kind[gid] = Kind.none;
    closedWrite(ctx.toShard(gid), gid % ctx.flowsPerShard);
  }

  #closeSocket(sid: SocketId): void {
    const table = this.#table;
    const ctx = this.#ctx;
    table.close(sid);
    const groupPort = table.groupPort[sid]!;
    table.groupPort[sid] = 0;
    if (groupPort !== 0) Atomics.sub(ctx.publishedUdp!, groupPort, 1);
    const port = table.port[sid]!;
    table.port[sid] = 0;
    if (port !== 0 && ctx.datagramPorts !== undefined) Atomics.sub(ctx.datagramPorts, port, 1);
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
    const sid = table.listenerSocket(index);
    const fd = this.#listenerSocket(plan, port);
    if (fd < 0) return fd;
    const isV4 = getsockoptInt(fd, SOL_SOCKET, SO_DOMAIN) === AF_INET;
    let r = isV4
      ? setsockoptInt(fd, SOL_IP, IP_PKTINFO, 1)
      : setsockoptInt(fd, SOL_IPV6, IPV6_RECVPKTINFO, 1);
    if (r === 0) r = ctx.watch(fd, sid, (EPOLLIN | EPOLLET) >>> 0);
    if (r < 0) {
      close(fd);
      return r;
    }
    table.open(sid, fd);
    table.kind[sid] = isV4 ? Kind.listener4 : Kind.listener6;
    table.listenerPort[index] = targetPort(plan, port);
    table.listenerPlan[index] = plan;
    table.listenerSplices[index] = plan.path === 'splice' ? 1 : 0;
    this.#published.add(index, plan, port, isV4);
    if (ctx.publishedUdp !== undefined) Atomics.add(ctx.publishedUdp, targetPort(plan, port), 1);
    return 0;
  }

  /**
   * Stop listening. Flows that peers began through the listener can neither receive nor answer any more.
   * Flows that the guest began from the port go on if they have a socket of their own, else they end.
   */
  unlisten(index: number): void {
    const table = this.#table;
    const sid = table.listenerSocket(index);
    const { loopback, publishedUdp } = this.#ctx;
    loopback?.forgetListener(index);
    this.#published.remove(index);
    if (publishedUdp !== undefined) Atomics.sub(publishedUdp, table.listenerPort[index]!, 1);
    this.#leaveListener(sid);
    table.close(sid);
  }

  /**
   * Have the shards end the flows that send through a listener; the next datagram of such a flow begins a new
   * one.
   */
  #leaveListener(sid: SocketId): void {
    const table = this.#table;
    const ctx = this.#ctx;
    for (let gid = 0; gid < table.isPublished.length; gid++) {
      if (table.isPublished[gid] !== Published.byListener || table.socketOf(gid) !== sid) continue;
      table.isPublished[gid] = Published.no;
      table.endpoints!.leave(gid);
      table.setSocket(gid, NO_SOCKET);
      table.kind[gid] = Kind.failed;
      errorWrite(ctx.toShard(gid), gid % ctx.flowsPerShard, 0);
    }
  }

  /** The engine ends. */
  closeAll(): void {
    const table = this.#table;
    table.fd.each((sid) => table.close(sid as SocketId));
  }

  /**
   * The host's network has changed. A connected socket keeps the source address that the kernel chose at
   * connect(), and cannot send once the host has lost that address; a flow of many hours (a tunnel of the
   * guest) would never recover. So each socket whose source address would be another one now is connected
   * again, with the same port. A socket that is not connected has no fixed source address.
   */
  hostChanged(change: HostChange): void {
    const table = this.#table;
    const scopeBefore = this.#outbound.scope;
    this.#outbound.hostChanged(change);
    for (let sid = 0; sid < table.fd.length; sid++) {
      const kind = table.kind[sid]!;
      if (!table.fd.has(sid)) continue;
      if (table.sendsToGroups[sid] === 1 && !isIpv4Flow(kind)) this.#groups!.setInterface(table.fd.get(sid));
      if (isListener(kind)) continue;
      const gid = table.onlyFlow(sid as SocketId);
      if (gid >= 0) this.#reconnect(sid as SocketId, kind, gid, scopeBefore);
    }
  }

  /** @param scopeBefore  Outbound.scope before the change */
  #reconnect(sid: SocketId, kind: number, gid: number, scopeBefore: number): void {
    const table = this.#table;
    const fd = table.fd.get(sid);
    const words = this.#words;
    const port = peerAddress(fd, words, 0);
    if (port < 0 || this.#outbound.hasSource(words, 0)) return;
    const zone = this.#zoneOf(fd, words, scopeBefore);
    if (localAddress(fd, words, 4) < 0 || !this.#sourceNow(kind, words, port, zone)) return;
    if (addressEqual(words, 4, words, 8)) return;
    // While the socket is not connected, datagrams of any sender can arrive, as at the start. They are
    // discarded, and queued datagrams of the peer with them.
    if (this.#disconnect(fd, kind, words, 0) < 0) return;
    const r = this.#connect(fd, words, 0, port, zone);
    this.#discardUnsolicited(fd);
    if (r < 0) this.#errors.passErrno(gid, -r);
    else this.#ctx.counters[Counter.datagramsReconnected]!++;
  }

  /**
   * The zone that a connected socket was opened with, if its peer in words[0..3] is link-local.
   * @returns interface index; 0: the plan's interface, or none
   */
  #zoneOf(fd: number, words: Uint32Array, scopeBefore: number): number {
    if (isV4Mapped(words, 0) || !isLinkLocal(words, 0)) return 0;
    const scope = peerScope(fd);
    return scope > 0 && scope !== scopeBefore ? scope : 0;
  }

  /**
   * The source address that the kernel would choose now, into words[8..11].
   * @param words  peer's address in words[0..3]
   * @returns false when there is no route
   */
  #sourceNow(kind: number, words: Uint32Array, port: number, zone: number): boolean {
    const isV4 = isIpv4Flow(kind);
    const probe = socket(isV4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_UDP);
    if (probe < 0) return false;
    let r = this.#outbound.bindDevice(probe, words, 0);
    if (r === 0) r = this.#connect(probe, words, 0, port || 1, zone);
    if (r === 0) r = localAddress(probe, words, 8);
    close(probe);
    return r >= 0;
  }

  /** Send the datagrams that are held back. A caller has to call it after each batch of commands. */
  flush(): void {
    this.#sender.flush();
  }

  /** @param token  that watch() was called with: a SocketId */
  onEvents(token: number, events: number): void {
    const sid = token as SocketId;
    const table = this.#table;
    if (!table.fd.has(sid)) return;
    if (events & EPOLLERR) this.#errors.drain(sid);
    this.#receiver.read(sid);
  }

  /** Go on reading a socket that had more than one round's share. @param token  as in onEvents() */
  onReady(token: number): void {
    const sid = token as SocketId;
    const table = this.#table;
    if (!table.fd.has(sid)) return;
    this.#receiver.yieldToReaders();
    // Reading the error queue is one more system call, made only if the queue is known to hold errors: new
    // errors raise EPOLLERR.
    if (this.#errors.more[sid]) this.#errors.drain(sid);
    this.#receiver.read(sid);
  }

  /** Slots may be free again: sockets that had stopped reading without slots go on. */
  resume(): void {
    this.#receiver.resume();
  }
}
