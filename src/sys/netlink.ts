/**
 * rtnetlink: links, addresses and routes, read and set without `ip`. Cold: plain objects, throws SysError.
 * What goes over the socket is in netlink-messages.ts.
 *
 * A socket speaks of the network namespace in which it was made, by whichever thread it is used.
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
  parseRouteWithRaw,
  type RouteInfo,
  type RouteSpec,
  routeCopyRequest,
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
/** The kernel's dumps come in pieces of at most 32 KiB; what is larger makes the buffer grow. */
const FIRST_RECEIVE_BYTES = 32_768;
/** How often a dump that was overtaken by a change is started again. */
const DUMP_TRIES = 10;
/** First number of a socket that another thread has used: its own count never gets there. */
const ADOPTED_SEQUENCE = 0x4000_0000;
/** The kernel answers at once; a limit all the same, so that a thread is never stuck here. */
const RECEIVE_TIMEOUT_MS = 5_000;

/** The socket and its receiving side. */
class NetlinkSocket {
  readonly fd: number;
  readonly #name = new NativeBuffer(SOCKADDR_NL_BYTES);
  readonly #message = new NativeBuffer(MSGHDR_BYTES + 16);
  #receive = new NativeBuffer(FIRST_RECEIVE_BYTES);

  /** @param fd  a socket of this kind that another thread has opened; absent: a new one */
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
      // Optional: error texts. Kernels before 4.12 refuse.
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

  /** What `receive` brought; valid until the next one. */
  get u8(): Uint8Array {
    return this.#receive.u8;
  }

  send(request: Uint8Array): number {
    const copy = new NativeBuffer(request.length);
    copy.u8.set(request);
    // Port 0 is the kernel.
    const to = new NativeBuffer(SOCKADDR_NL_BYTES);
    to.u16[0] = k.AF_NETLINK;
    return sendto(this.fd, copy.address, request.length, 0, to.address, SOCKADDR_NL_BYTES);
  }

  /** One datagram from the kernel. @returns its bytes or -errno */
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
      // Any process may send to our port; only the kernel (port 0) is believed.
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

/** Requests and dumps of one network namespace. Synchronous: each is one round trip to the kernel. */
export class RouteSocket {
  readonly #socket: NetlinkSocket;
  #sequence = 0;

  /**
   * Opens in the network namespace of the calling thread.
   * @param fd  go on with the socket of a RouteSocket of another thread, which must not use it any more
   */
  constructor(fd?: number) {
    this.#socket = new NetlinkSocket([], fd);
    // Answers to the other thread's requests may still wait; numbers of our own tell them apart.
    if (fd !== undefined) this.#sequence = ADOPTED_SEQUENCE;
  }

  get fd(): number {
    return this.#socket.fd;
  }

  close(): void {
    this.#socket.close();
  }

  links(): LinkInfo[] {
    // Statistics are nine tenths of a link's message: leave them out.
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

  linkByName(name: string): LinkInfo | undefined {
    return this.links().find((link) => link.name === name);
  }

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

  /** Routes of all tables and both families; most callers want `table === RT_TABLE_MAIN`. */
  routes(): RouteInfo[] {
    return this.#dump(
      'RTM_GETROUTE',
      () => new NetlinkRequest(k.RTM_GETROUTE, k.NLM_F_REQUEST | k.NLM_F_DUMP).routeHeader({}),
      k.RTM_NEWROUTE,
      parseRouteWithRaw,
    );
  }

  setLink(index: number, change: LinkChange): void {
    const what = `RTM_NEWLINK, interface ${index}, ${JSON.stringify(change)}`;
    const generation = change.ipv6AddressGeneration;
    if (generation !== undefined) {
      // A message of its own, first: the kernel looks at IFF_UP, and makes the address, before it comes to
      // this.
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
   * Add or update an address.
   * @param options.nodad      no duplicate address detection: usable at once (IPv6)
   * @param options.broadcast  IPv4 address that means everybody on the link; the kernel sets none by itself
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
   * Tell the kernel whose MAC address a neighbour has, as if it had once been heard: it is used at once, and
   * asked for later.
   */
  addNeighbour(index: number, family: Family, text: string, mac: string): void {
    const request = neighbourRequest(k.NLM_F_CREATE | k.NLM_F_REPLACE, index, family, text, mac);
    this.#acknowledged(`RTM_NEWNEIGH, ${text}, ${mac}, interface ${index}`, request);
  }

  delAddress(index: number, family: Family, text: string, prefixLen: number): void {
    const request = addressRequest(k.RTM_DELADDR, 0, { index, family, text, prefixLen });
    this.#acknowledged(`RTM_DELADDR, ${text}/${prefixLen}, interface ${index}`, request);
  }

  /**
   * Add a route. Others of the same destination stay; an IPv4 one goes in front of those of the same metric
   * (fib_table_insert without NLM_F_APPEND). One that is there already, gateway and interface included, is no
   * error.
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
   * Add a route like one that was read (RouteInfo.raw), by another interface. Throws SysError with EEXIST
   * when it is there.
   */
  copyRoute(raw: Uint8Array, oif: number): void {
    this.#acknowledged(`RTM_NEWROUTE, a copy by interface ${oif}`, routeCopyRequest(raw, oif));
  }

  delRoute(route: RouteSpec): void {
    this.#acknowledged(`RTM_DELROUTE, ${routeText(route)}`, routeRequest(k.RTM_DELROUTE, 0, route));
  }

  /** Make a link that needs no further data: `dummy`, `bridge`. */
  createLink(name: string, kind: string): void {
    const request = new NetlinkRequest(k.RTM_NEWLINK, NEW_LINK_FLAGS)
      .linkHeader(0)
      .text(k.IFLA_IFNAME, name)
      .nested(k.IFLA_LINKINFO, (info) => info.text(k.IFLA_INFO_KIND, kind));
    this.#acknowledged(`RTM_NEWLINK, "${name}", ${kind}`, request);
  }

  /** Make a pair of virtual Ethernet links. @param peerNetnsFd  network namespace where the peer is to be */
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

  /** Move a link to another network namespace; it loses its addresses, and may get another index there. */
  moveLink(index: number, netnsFd: number): void {
    const request = new NetlinkRequest(k.RTM_NEWLINK, k.NLM_F_REQUEST | k.NLM_F_ACK)
      .linkHeader(index)
      .word(k.IFLA_NET_NS_FD, netnsFd);
    this.#acknowledged(`RTM_NEWLINK, interface ${index} to network namespace fd ${netnsFd}`, request);
  }

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

  #acknowledged(what: string, request: NetlinkRequest): void {
    const sequence = this.#send(what, request);
    for (;;) {
      const bytes = this.#receive(what);
      for (const message of netlinkMessages(this.#socket.u8, bytes)) {
        if (message.sequence !== sequence || message.type !== k.NLMSG_ERROR) continue;
        this.#refuse(what, message);
        return;
      }
    }
  }

  /** Throw if an NLMSG_ERROR or NLMSG_DONE tells of a failure. */
  #refuse(what: string, message: NetlinkMessage): void {
    const { errno, text } = parseError(this.#socket.u8, message);
    if (errno === 0) return;
    const remedy =
      errno === k.Errno.EPERM
        ? 'the caller needs CAP_NET_ADMIN in the user namespace that owns the network namespace'
        : undefined;
    throw new SysError('rtnetlink', what, errno, text === undefined ? remedy : `the kernel says: ${text}`);
  }

  /**
   * Ask for a list. A list that changed while it was read is read again, and after DUMP_TRIES taken as it is.
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
            // The end of a dump carries an error number too.
            if (message.endAt - message.at >= 4) this.#refuse(what, message);
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

/** Groups that a change of links, addresses or routes is announced to. */
const ROUTE_GROUPS = [
  k.RTNLGRP_LINK,
  k.RTNLGRP_IPV4_IFADDR,
  k.RTNLGRP_IPV4_ROUTE,
  k.RTNLGRP_IPV6_IFADDR,
  k.RTNLGRP_IPV6_ROUTE,
] as const;

/**
 * Hears that something changed in one network namespace. It does not say what: whoever cares dumps again with
 * a RouteSocket, which is right also when announcements were lost.
 */
export class RouteMonitor {
  readonly #socket: NetlinkSocket;

  /** Opens in the network namespace of the calling thread. */
  constructor(groups: readonly number[] = ROUTE_GROUPS) {
    this.#socket = new NetlinkSocket(groups);
  }

  /** For epoll: readable when something changed. */
  get fd(): number {
    return this.#socket.fd;
  }

  /** Read away all announcements, without waiting. @returns whether there were any, or some were lost */
  drain(): boolean {
    for (let changed = false; ; changed = true) {
      const bytes = this.#socket.receive(k.MSG_DONTWAIT);
      if (bytes === -k.Errno.EAGAIN) return changed;
      // ENOBUFS: the kernel dropped announcements, and says so once.
      if (bytes < 0 && bytes !== -k.Errno.ENOBUFS)
        throw new SysError('recvmsg', 'rtnetlink announcements', -bytes);
    }
  }

  close(): void {
    this.#socket.close();
  }
}
