/**
 * rtnetlink: read and change links, addresses and routes without `ip`. Cold: takes and returns plain objects,
 * throws SysError. netlink-messages.ts encodes and decodes the messages.
 *
 * A socket belongs to the network namespace in which it was created, whichever thread uses it.
 * @syscalls socket bind getsockname setsockopt sendto recvmsg close
 */
import * as k from './constants.ts';
import { checked, SysError } from './error.ts';
import { close } from './io.ts';
import { NativeBuffer, writeAddress } from './memory.ts';
import {
  type AddressInfo,
  addressFor,
  addressRequest,
  type Family,
  type LinkChange,
  type LinkInfo,
  macFor,
  type NetlinkMessage,
  NetlinkRequest,
  neighbourRequest,
  netlinkMessages,
  parseAddress,
  parseError,
  parseLink,
  parseLookup,
  parseRouteWithRaw,
  type RouteInfo,
  type RouteSpec,
  routeCopyRequest,
  routeLookupRequest,
  routeRequest,
  routeText,
} from './netlink-messages.ts';
import {
  bind,
  iovecWrite,
  MSGHDR_BYTES,
  MSGHDR_FLAGS_WORD,
  msghdrWrite,
  recvmsg,
  sendto,
  setsockoptBytes,
  setsockoptInt,
  socket,
} from './socket.ts';

const NEW_LINK_FLAGS = k.NLM_F_REQUEST | k.NLM_F_ACK | k.NLM_F_CREATE | k.NLM_F_EXCL;
/** struct sockaddr_nl: family u16, pad u16, port u32, groups u32. */
const SOCKADDR_NL_BYTES = 12;
/** The kernel sends a dump in datagrams of at most 32 KiB; the buffer grows for a larger datagram. */
const FIRST_RECEIVE_BYTES = 32_768;
/** How often a dump is tried when the kernel reports that the list changed during the dump. */
const DUMP_TRIES = 10;
/**
 * First sequence number on a socket that another thread has used: higher than that thread's numbers, which
 * start at 1.
 */
const ADOPTED_SEQUENCE = 0x4000_0000;
/** The kernel answers at once. The limit makes sure that a thread never hangs here. */
const RECEIVE_TIMEOUT_MS = 5_000;

/** A NETLINK_ROUTE socket and its receive buffer. */
class NetlinkSocket {
  readonly fd: number;
  readonly #name = new NativeBuffer(SOCKADDR_NL_BYTES);
  readonly #message = new NativeBuffer(MSGHDR_BYTES + 16);
  #receive = new NativeBuffer(FIRST_RECEIVE_BYTES);

  /**
   * @param groups  RTNLGRP_* to join
   * @param fd  a NETLINK_ROUTE socket that another thread has opened; absent: create one
   * @throws SysError
   */
  constructor(groups: readonly number[] = [], fd?: number) {
    if (fd !== undefined) {
      this.fd = fd;
      return;
    }
    const what = 'AF_NETLINK, SOCK_RAW, NETLINK_ROUTE';
    this.fd = checked(socket(k.AF_NETLINK, k.SOCK_RAW | k.SOCK_CLOEXEC, k.NETLINK_ROUTE), 'socket', what);
    try {
      const timeval = new NativeBuffer(16);
      writeAddress(timeval.u32, 0, RECEIVE_TIMEOUT_MS / 1000);
      checked(
        setsockoptBytes(this.fd, k.SOL_SOCKET, k.SO_RCVTIMEO, timeval.address, 16),
        'setsockopt',
        'SO_RCVTIMEO',
      );
      // Error texts are optional: kernels before 4.12 refuse the option.
      setsockoptInt(this.fd, k.SOL_NETLINK, k.NETLINK_EXT_ACK, 1);
      const local = new NativeBuffer(SOCKADDR_NL_BYTES);
      local.u16[0] = k.AF_NETLINK;
      checked(bind(this.fd, local.address, SOCKADDR_NL_BYTES), 'bind', 'AF_NETLINK');
      for (const group of groups) {
        const r = setsockoptInt(this.fd, k.SOL_NETLINK, k.NETLINK_ADD_MEMBERSHIP, group);
        checked(r, 'setsockopt', `NETLINK_ADD_MEMBERSHIP, ${group}`);
      }
    } catch (error) {
      close(this.fd);
      throw error;
    }
  }

  /** The datagram of the last `receive`; valid until the next one. */
  get u8(): Uint8Array {
    return this.#receive.u8;
  }

  /** Send a request to the kernel. @returns bytes sent or -errno */
  send(request: Uint8Array): number {
    const copy = new NativeBuffer(request.length);
    copy.u8.set(request);
    // Port 0, which the buffer has already, is the kernel.
    const to = new NativeBuffer(SOCKADDR_NL_BYTES);
    to.u16[0] = k.AF_NETLINK;
    return sendto(this.fd, copy.address, request.length, 0, to.address, SOCKADDR_NL_BYTES);
  }

  /** Receive one datagram from the kernel. @param flags  MSG_* @returns its length or -errno */
  receive(flags: number): number {
    for (;;) {
      const needed = this.#recvmsg(flags | k.MSG_PEEK | k.MSG_TRUNC);
      if (needed === -k.Errno.EINTR) continue;
      if (needed < 0) return needed;
      if (needed > this.#receive.u8.length) this.#receive = new NativeBuffer(needed);
      const bytes = this.#recvmsg(flags);
      if (bytes === -k.Errno.EINTR) continue;
      if (bytes < 0) return bytes;
      if ((this.#message.u32[MSGHDR_FLAGS_WORD]! & k.MSG_TRUNC) !== 0) continue;
      // Any process may send to this socket's port; only datagrams of the kernel (port 0) are accepted.
      if (this.#name.u32[1] === 0) return bytes;
    }
  }

  #recvmsg(flags: number): number {
    const message = this.#message;
    iovecWrite(message.u32, MSGHDR_BYTES >> 2, this.#receive.address, this.#receive.u8.length);
    msghdrWrite(message.u32, 0, this.#name.address, SOCKADDR_NL_BYTES, message.address + MSGHDR_BYTES, 1);
    return recvmsg(this.fd, message.address, flags);
  }

  close(): void {
    close(this.fd);
  }
}

/**
 * Requests and dumps in one network namespace. Synchronous: every method waits for the kernel's answer. Every
 * method that sends a request throws SysError when the kernel refuses it.
 */
export class RouteSocket {
  readonly #socket: NetlinkSocket;
  #sequence = 0;

  /**
   * Opens a socket in the network namespace of the calling thread, or adopts one.
   * @param fd  socket of another thread's RouteSocket, which that thread must not use any more
   */
  constructor(fd?: number) {
    this.#socket = new NetlinkSocket([], fd);
    // Answers to the other thread's requests may still be queued; they have other sequence numbers.
    if (fd !== undefined) this.#sequence = ADOPTED_SEQUENCE;
  }

  get fd(): number {
    return this.#socket.fd;
  }

  close(): void {
    this.#socket.close();
  }

  /** All links of the namespace. */
  links(): LinkInfo[] {
    // Statistics would be nine tenths of a link's message: leave them out.
    return this.#dump(
      'RTM_GETLINK',
      () =>
        new NetlinkRequest(k.RTM_GETLINK, k.NLM_F_REQUEST | k.NLM_F_DUMP)
          .linkHeader(0)
          .word(k.IFLA_EXT_MASK, k.RTEXT_FILTER_SKIP_STATS),
      k.RTM_NEWLINK,
      parseLink,
    );
  }

  /** The link with a name, undefined if there is none. */
  linkByName(name: string): LinkInfo | undefined {
    return this.links().find((link) => link.name === name);
  }

  /** All addresses of all links, of both families. */
  addresses(): AddressInfo[] {
    return this.#dump(
      'RTM_GETADDR',
      () =>
        new NetlinkRequest(k.RTM_GETADDR, k.NLM_F_REQUEST | k.NLM_F_DUMP).addressHeader(
          k.AF_UNSPEC,
          0,
          0,
          0,
          0,
        ),
      k.RTM_NEWADDR,
      parseAddress,
    );
  }

  /** Routes of all tables and both families; most callers need those with `table === RT_TABLE_MAIN`. */
  routes(): RouteInfo[] {
    return this.#dump(
      'RTM_GETROUTE',
      () => new NetlinkRequest(k.RTM_GETROUTE, k.NLM_F_REQUEST | k.NLM_F_DUMP).routeHeader({}),
      k.RTM_NEWROUTE,
      parseRouteWithRaw,
    );
  }

  /**
   * The route that the kernel takes for an address: what policy rules and all tables yield for a socket of this
   * process. Nothing is sent.
   * @param oif  interface that the socket is bound to; undefined: any
   * @returns undefined when there is no route, or one that refuses
   */
  routeTo(family: Family, text: string, oif?: number): RouteInfo | undefined {
    const what = `RTM_GETROUTE, ${text}`;
    const sequence = this.#send(what, routeLookupRequest(family, text, oif));
    for (;;) {
      const bytes = this.#receive(what);
      for (const message of netlinkMessages(this.#socket.u8, bytes)) {
        if (message.sequence !== sequence) continue;
        // The errno is that of connect(): ENETUNREACH, EHOSTUNREACH, EACCES, EINVAL (blackhole), ENODEV.
        if (message.type !== k.RTM_NEWROUTE) return undefined;
        return parseLookup(this.#socket.u8, message.at, message.endAt);
      }
    }
  }

  /** Change properties of a link. @param index  interface index */
  setLink(index: number, change: LinkChange): void {
    const what = `RTM_NEWLINK, interface ${index}, ${JSON.stringify(change)}`;
    const generation = change.ipv6AddressGeneration;
    if (generation !== undefined) {
      // This goes first and in a message of its own: within one message the kernel handles IFF_UP, and
      // generates the address, before it handles this attribute.
      const mode = generation === 'none' ? k.IN6_ADDR_GEN_MODE_NONE : k.IN6_ADDR_GEN_MODE_EUI64;
      const first = new NetlinkRequest(k.RTM_NEWLINK, k.NLM_F_REQUEST | k.NLM_F_ACK)
        .linkHeader(index)
        .nested(k.IFLA_AF_SPEC, (spec) =>
          spec.nested(k.AF_INET6, (inet6) => inet6.byte(k.IFLA_INET6_ADDR_GEN_MODE, mode)),
        );
      this.#acknowledged(what, first);
    }
    const bits: [boolean | undefined, number][] = [
      [change.up, k.IFF_UP],
      [change.noarp, k.IFF_NOARP],
    ];
    let flags = 0;
    let mask = 0;
    for (const [on, bit] of bits) {
      if (on === undefined) continue;
      mask |= bit;
      if (on) flags |= bit;
    }
    const request = new NetlinkRequest(k.RTM_NEWLINK, k.NLM_F_REQUEST | k.NLM_F_ACK).linkHeader(
      index,
      flags,
      mask,
    );
    if (change.name !== undefined) request.text(k.IFLA_IFNAME, change.name);
    if (change.mtu !== undefined) request.word(k.IFLA_MTU, change.mtu);
    if (change.mac !== undefined) request.bytes(k.IFLA_ADDRESS, macFor(change.mac));
    if (change.txQueueLen !== undefined) request.word(k.IFLA_TXQLEN, change.txQueueLen);
    if (change.master !== undefined) request.word(k.IFLA_MASTER, change.master);
    this.#acknowledged(what, request);
  }

  /**
   * Replace the queueing discipline of a link.
   * @param index  interface index
   * @param kind  without parameters: `noqueue`, `pfifo_fast`
   */
  setQdisc(index: number, kind: string): void {
    const request = new NetlinkRequest(
      k.RTM_NEWQDISC,
      k.NLM_F_REQUEST | k.NLM_F_ACK | k.NLM_F_CREATE | k.NLM_F_REPLACE,
    )
      .qdiscHeader(index, k.TC_H_ROOT)
      .text(k.TCA_KIND, kind);
    this.#acknowledged(`RTM_NEWQDISC, ${kind}, interface ${index}`, request);
  }

  /**
   * Add or update an address.
   * @param index  interface index
   * @param options.nodad  skip duplicate address detection, so that the address is usable at once (IPv6)
   * @param options.noPrefixRoute  do not add a route to the address's prefix
   * @param options.peer  address of the other end of a point-to-point link
   * @param options.scope  RT_SCOPE_*
   * @param options.broadcast  IPv4 broadcast address of the link; without it the address has none
   */
  addAddress(
    index: number,
    family: Family,
    text: string,
    prefixLen: number,
    options: {
      nodad?: boolean;
      noPrefixRoute?: boolean;
      peer?: string;
      scope?: number;
      broadcast?: string;
    } = {},
  ): void {
    const flags =
      (options.nodad && family === 6 ? k.IFA_F_NODAD : 0) |
      (options.noPrefixRoute ? k.IFA_F_NOPREFIXROUTE : 0);
    const { peer, scope } = options;
    const address = { index, family, text, prefixLen, peer, scope };
    const request = addressRequest(k.RTM_NEWADDR, k.NLM_F_CREATE | k.NLM_F_REPLACE, address);
    if (options.broadcast !== undefined)
      request.bytes(k.IFA_BROADCAST, addressFor(family, options.broadcast));
    if (flags !== 0) request.word(k.IFA_FLAGS, flags);
    this.#acknowledged(`RTM_NEWADDR, ${text}/${prefixLen}, interface ${index}`, request);
  }

  /**
   * Add or update a neighbour entry with a MAC address in state NUD_STALE: the kernel uses it at once and
   * confirms it later.
   */
  addNeighbour(index: number, family: Family, text: string, mac: string): void {
    const request = neighbourRequest(k.NLM_F_CREATE | k.NLM_F_REPLACE, index, family, text, mac);
    this.#acknowledged(`RTM_NEWNEIGH, ${text}, ${mac}, interface ${index}`, request);
  }

  /** Delete an address of an interface. */
  delAddress(index: number, family: Family, text: string, prefixLen: number): void {
    const request = addressRequest(k.RTM_DELADDR, 0, { index, family, text, prefixLen });
    this.#acknowledged(`RTM_DELADDR, ${text}/${prefixLen}, interface ${index}`, request);
  }

  /**
   * Add a route. Other routes to the same destination stay; an IPv4 route is inserted in front of those with
   * the same metric (fib_table_insert without NLM_F_APPEND). It is not an error if the same route, gateway
   * and interface included, exists already.
   */
  addRoute(route: RouteSpec): void {
    const request = routeRequest(k.RTM_NEWROUTE, k.NLM_F_CREATE, route);
    try {
      this.#acknowledged(`RTM_NEWROUTE, ${routeText(route)}`, request);
    } catch (error) {
      if (!(error instanceof SysError) || error.code !== 'EEXIST') throw error;
    }
  }

  /**
   * Add a copy of a route that was read (RouteInfo.raw), through another interface.
   * @param oif  interface index
   * @throws SysError, EEXIST when the route exists
   */
  copyRoute(raw: Uint8Array, oif: number): void {
    this.#acknowledged(`RTM_NEWROUTE, a copy by interface ${oif}`, routeCopyRequest(raw, oif));
  }

  /** Delete a route. @throws SysError, ESRCH when there is none */
  delRoute(route: RouteSpec): void {
    this.#acknowledged(`RTM_DELROUTE, ${routeText(route)}`, routeRequest(k.RTM_DELROUTE, 0, route));
  }

  /** Create a link of a kind that needs no further parameters: `dummy`, `bridge`. */
  createLink(name: string, kind: string): void {
    const request = new NetlinkRequest(k.RTM_NEWLINK, NEW_LINK_FLAGS)
      .linkHeader(0)
      .text(k.IFLA_IFNAME, name)
      .nested(k.IFLA_LINKINFO, (info) => info.text(k.IFLA_INFO_KIND, kind));
    this.#acknowledged(`RTM_NEWLINK, "${name}", ${kind}`, request);
  }

  /** Create a veth pair. @param peerNetnsFd  descriptor of the network namespace that gets the peer */
  createVeth(name: string, peer: string, peerNetnsFd?: number): void {
    const request = new NetlinkRequest(k.RTM_NEWLINK, NEW_LINK_FLAGS)
      .linkHeader(0)
      .text(k.IFLA_IFNAME, name)
      .nested(k.IFLA_LINKINFO, (info) =>
        info.text(k.IFLA_INFO_KIND, 'veth').nested(k.IFLA_INFO_DATA, (data) =>
          data.nested(k.VETH_INFO_PEER, (other) => {
            other.linkHeader(0).text(k.IFLA_IFNAME, peer);
            if (peerNetnsFd !== undefined) other.word(k.IFLA_NET_NS_FD, peerNetnsFd);
          }),
        ),
      );
    this.#acknowledged(`RTM_NEWLINK, veth "${name}" and "${peer}"`, request);
  }

  /** Move a link to another network namespace. The link loses its addresses and may get another index. */
  moveLink(index: number, netnsFd: number): void {
    const request = new NetlinkRequest(k.RTM_NEWLINK, k.NLM_F_REQUEST | k.NLM_F_ACK)
      .linkHeader(index)
      .word(k.IFLA_NET_NS_FD, netnsFd);
    this.#acknowledged(`RTM_NEWLINK, interface ${index} to network namespace fd ${netnsFd}`, request);
  }

  /** Delete a link. */
  deleteLink(index: number): void {
    const request = new NetlinkRequest(k.RTM_DELLINK, k.NLM_F_REQUEST | k.NLM_F_ACK).linkHeader(index);
    this.#acknowledged(`RTM_DELLINK, interface ${index}`, request);
  }

  #send(what: string, request: NetlinkRequest): number {
    this.#sequence = (this.#sequence + 1) >>> 0;
    checked(this.#socket.send(request.finish(this.#sequence)), 'sendto', what);
    return this.#sequence;
  }

  #receive(what: string): number {
    return checked(this.#socket.receive(0), 'recvmsg', what);
  }

  /** Send a request and wait for its acknowledgement. @throws SysError when the kernel refuses it */
  #acknowledged(what: string, request: NetlinkRequest): void {
    const sequence = this.#send(what, request);
    for (;;) {
      const bytes = this.#receive(what);
      for (const message of netlinkMessages(this.#socket.u8, bytes)) {
        if (message.sequence !== sequence || message.type !== k.NLMSG_ERROR) continue;
        this.#throwFailure(what, message);
        return;
      }
    }
  }

  /** Throw SysError if an NLMSG_ERROR or NLMSG_DONE has an errno. */
  #throwFailure(what: string, message: NetlinkMessage): void {
    const { errno, text } = parseError(this.#socket.u8, message);
    if (errno === 0) return;
    const remedy =
      errno === k.Errno.EPERM
        ? 'the caller needs CAP_NET_ADMIN in the user namespace that owns the network namespace'
        : undefined;
    throw new SysError('rtnetlink', what, errno, text === undefined ? remedy : `the kernel says: ${text}`);
  }

  /**
   * Request a dump and parse its messages. A list that changed during the dump is requested again, at most
   * DUMP_TRIES times; the last one is returned even if it changed.
   * @param type  RTM_NEW* of the messages to parse
   */
  #dump<Item>(
    what: string,
    request: () => NetlinkRequest,
    type: number,
    parse: (u8: Uint8Array, at: number, endAt: number) => Item | undefined,
  ): Item[] {
    for (let attempt = 1; ; attempt++) {
      const sequence = this.#send(what, request());
      const items: Item[] = [];
      let interrupted = false;
      for (let done = false; !done; ) {
        const bytes = this.#receive(what);
        for (const message of netlinkMessages(this.#socket.u8, bytes)) {
          if (message.sequence !== sequence) continue;
          if ((message.flags & k.NLM_F_DUMP_INTR) !== 0) interrupted = true;
          if (message.type === k.NLMSG_ERROR || message.type === k.NLMSG_DONE) {
            // NLMSG_DONE, the end of a dump, has an errno too.
            if (message.endAt - message.at >= 4) this.#throwFailure(what, message);
            done = true;
            break;
          }
          if (message.type !== type) continue;
          const item = parse(this.#socket.u8, message.at, message.endAt);
          if (item !== undefined) items.push(item);
        }
      }
      if (!interrupted || attempt === DUMP_TRIES) return items;
    }
  }
}

/** Multicast groups that the kernel notifies of changes of links, addresses, routes and policy rules. */
const ROUTE_GROUPS = [
  k.RTNLGRP_LINK,
  k.RTNLGRP_IPV4_IFADDR,
  k.RTNLGRP_IPV4_ROUTE,
  k.RTNLGRP_IPV4_RULE,
  k.RTNLGRP_IPV6_IFADDR,
  k.RTNLGRP_IPV6_ROUTE,
  k.RTNLGRP_IPV6_RULE,
] as const;

/**
 * Reports that links, addresses, routes or rules of one network namespace changed, but not which. The caller reads
 * the lists again with a RouteSocket, which is correct also when notifications were lost.
 */
export class RouteMonitor {
  readonly #socket: NetlinkSocket;

  /** Opens a socket in the network namespace of the calling thread. @throws SysError */
  constructor(groups: readonly number[] = ROUTE_GROUPS) {
    this.#socket = new NetlinkSocket(groups);
  }

  /** Descriptor for epoll: readable when something changed. */
  get fd(): number {
    return this.#socket.fd;
  }

  /**
   * Read and discard all queued notifications, without waiting.
   * @returns whether there were any, or the kernel dropped some
   * @throws SysError
   */
  drain(): boolean {
    for (let changed = false; ; changed = true) {
      const bytes = this.#socket.receive(k.MSG_DONTWAIT);
      if (bytes === -k.Errno.EAGAIN) return changed;
      // ENOBUFS: the kernel dropped notifications; it reports that once.
      if (bytes < 0 && bytes !== -k.Errno.ENOBUFS)
        throw new SysError('recvmsg', 'rtnetlink notifications', -bytes);
    }
  }

  close(): void {
    this.#socket.close();
  }
}
