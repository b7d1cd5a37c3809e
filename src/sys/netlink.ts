/**
 * rtnetlink: links, addresses and routes, read and set without `ip`. Cold: plain objects, throws SysError.
 * Sources: <linux/netlink.h>, <linux/rtnetlink.h>, <linux/if_link.h>, <linux/if_addr.h>; RFC 3549; man 7 rtnetlink.
 *
 *   message   +0 length u32 (header included)   +4 type u16   +6 flags u16   +8 sequence u32   +12 port u32
 *             +16 family header:  ifinfomsg   +0 family u8  +2 type u16  +4 index i32  +8 flags u32  +12 change u32
 *                                 ifaddrmsg   +0 family u8  +1 prefixlen u8  +2 flags u8  +3 scope u8  +4 index u32
 *                                 rtmsg       +0 family  +1 dst_len  +2 src_len  +3 tos  +4 table  +5 protocol
 *                                             +6 scope  +7 type  +8 flags u32
 *   attribute +0 length u16 (header included)   +2 type u16   +4 value; the next one at a multiple of 4
 *
 * A socket speaks of the network namespace in which it was made, by whichever thread it is used.
 *
 * Invariant of the parsers: no byte is read outside the message, none of the message outside the buffer; a message
 * that lies about a length is refused as a whole.
 * @syscalls socket bind getsockname setsockopt sendto recvmsg close
 */
import { addressBytes, addressFormat, addressParse, type Family, familyOf } from './address-text.ts';
import * as k from './constants.ts';
import { checked, SysError } from './error.ts';
import { close } from './io.ts';
import { NativeBuffer, writeAddress } from './memory.ts';
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

// ---- what callers see -----------------------------------------------------------------------------------------

export interface LinkInfo {
  index: number;
  name: string;
  /** `52:54:00:12:34:56`; empty where the link has no such address. */
  mac: string;
  mtu: number;
  /** IFF_*. */
  flags: number;
  /** IFF_UP: switched on. */
  up: boolean;
  /** IFF_RUNNING: a carrier too. */
  running: boolean;
  loopback: boolean;
  txQueueLen: number;
  /** `veth`, `tun`, `bridge`...; empty for hardware. */
  kind: string;
}

export interface AddressInfo {
  /** AF_INET or AF_INET6. */
  family: Family;
  address: string;
  prefixLen: number;
  index: number;
  /** RT_SCOPE_*. */
  scope: number;
  /** IFA_F_*, 32 bits. */
  flags: number;
  /** The other end of a point-to-point link, where there is one. */
  peer?: string;
}

export interface RouteHop {
  oif: number;
  gateway?: string;
  /** 1 to 256. */
  weight: number;
}

export interface RouteInfo {
  family: Family;
  /** `0.0.0.0` or `::` with prefixLen 0 for the default route. */
  dst: string;
  prefixLen: number;
  /** May be IPv6 for an IPv4 route (RTA_VIA). */
  gateway?: string;
  /** Interface index; missing for blackholes and for multipath routes, see hops. */
  oif?: number;
  prefSrc?: string;
  /** RT_TABLE_* or any other number. */
  table: number;
  /** RT_SCOPE_*. */
  scope: number;
  /** RTN_*. */
  type: number;
  /** RTPROT_*. */
  protocol: number;
  /** Metric; the lowest wins. */
  priority: number;
  /** RTNH_F_* of the route itself. */
  flags: number;
  hops?: RouteHop[];
  /** rtmsg and attributes as they came, for copyRoute; RouteSocket.routes gives it. */
  raw?: Uint8Array;
}

export interface LinkChange {
  name?: string;
  up?: boolean;
  mtu?: number;
  mac?: string;
  txQueueLen?: number;
  noarp?: boolean;
  /** Index of a bridge to join. */
  master?: number;
  /** Who makes link-local addresses: the kernel from the MAC, or nobody. */
  ipv6AddressGeneration?: 'eui64' | 'none';
}

export interface RouteSpec {
  family: Family;
  dst: string;
  prefixLen: number;
  gateway?: string;
  oif: number;
  /** RT_SCOPE_*; worked out if missing: link for an IPv4 route without gateway, else universe. */
  scope?: number;
  prefSrc?: string;
  priority?: number;
  /** RT_TABLE_MAIN if missing. */
  table?: number;
  mtu?: number;
  /** The gateway is on this link whether or not an address says so. */
  onlink?: boolean;
}

// ---- codec, reading -------------------------------------------------------------------------------------------

const NLMSG_HEADER_BYTES = 16;
const IFINFOMSG_BYTES = 16;
const IFADDRMSG_BYTES = 8;
const RTMSG_BYTES = 12;
const RTNEXTHOP_BYTES = 8;
const align4 = (n: number): number => (n + 3) & ~3;

/** A netlink message inside a buffer: type, flags, sequence, and where its payload starts and ends. */
export interface NetlinkMessage {
  type: number;
  flags: number;
  sequence: number;
  /** Offset of the family header. */
  at: number;
  /** Offset behind the last payload byte. */
  endAt: number;
}

function viewOf(u8: Uint8Array): DataView {
  return new DataView(u8.buffer, u8.byteOffset, u8.byteLength);
}

function malformed(what: string): SysError {
  return new SysError('recvmsg', `rtnetlink, ${what}`, k.Errno.EBADMSG);
}

/** Split what one recvmsg brought. Throws on a length that does not fit. */
export function* netlinkMessages(u8: Uint8Array, bytes: number): Generator<NetlinkMessage> {
  const dv = viewOf(u8);
  let at = 0;
  while (at + NLMSG_HEADER_BYTES <= bytes) {
    const length = dv.getUint32(at, true);
    if (length < NLMSG_HEADER_BYTES || at + length > bytes) throw malformed(`message length ${length}`);
    yield {
      type: dv.getUint16(at + 4, true),
      flags: dv.getUint16(at + 6, true),
      sequence: dv.getUint32(at + 8, true),
      at: at + NLMSG_HEADER_BYTES,
      endAt: at + length,
    };
    at += align4(length);
  }
  if (at < bytes) throw malformed(`${bytes - at} bytes left over`);
}

/** Attributes from `at` to `endAt`: type (without flag bits) to [start, end) of the value. The last of a type wins. */
export function netlinkAttributes(u8: Uint8Array, at: number, endAt: number): Map<number, [number, number]> {
  const dv = viewOf(u8);
  const attributes = new Map<number, [number, number]>();
  let next = at;
  while (next + 4 <= endAt) {
    const length = dv.getUint16(next, true);
    if (length < 4 || next + length > endAt) throw malformed(`attribute length ${length}`);
    attributes.set(dv.getUint16(next + 2, true) & k.NLA_TYPE_MASK, [next + 4, next + length]);
    next += align4(length);
  }
  return attributes;
}

type Attributes = ReturnType<typeof netlinkAttributes>;

function u32Of(u8: Uint8Array, attributes: Attributes, type: number): number | undefined {
  const range = attributes.get(type);
  if (range === undefined || range[1] - range[0] < 4) return undefined;
  return viewOf(u8).getUint32(range[0], true);
}

function textOf(u8: Uint8Array, attributes: Attributes, type: number): string {
  const range = attributes.get(type);
  if (range === undefined) return '';
  const value = u8.slice(range[0], range[1]);
  const end = value.indexOf(0);
  return new TextDecoder().decode(end < 0 ? value : value.subarray(0, end));
}

function addressOf(u8: Uint8Array, attributes: Attributes, type: number, family: Family): string | undefined {
  const range = attributes.get(type);
  if (range === undefined || range[1] - range[0] !== addressBytes(family)) return undefined;
  return addressFormat(u8, range[0], family);
}

const isFamily = (family: number): family is Family => family === k.AF_INET || family === k.AF_INET6;

/** RTM_NEWLINK's payload. Throws when it is too short. */
export function parseLink(u8: Uint8Array, at: number, endAt: number): LinkInfo {
  if (endAt - at < IFINFOMSG_BYTES) throw malformed('short ifinfomsg');
  const dv = viewOf(u8);
  const attributes = netlinkAttributes(u8, at + IFINFOMSG_BYTES, endAt);
  const flags = dv.getUint32(at + 8, true);
  const mac = attributes.get(k.IFLA_ADDRESS);
  const info = attributes.get(k.IFLA_LINKINFO);
  return {
    index: dv.getInt32(at + 4, true),
    name: textOf(u8, attributes, k.IFLA_IFNAME),
    mac:
      mac === undefined || mac[1] - mac[0] !== 6
        ? ''
        : Array.from(u8.subarray(mac[0], mac[1]), (byte) => byte.toString(16).padStart(2, '0')).join(':'),
    mtu: u32Of(u8, attributes, k.IFLA_MTU) ?? 0,
    flags,
    up: (flags & k.IFF_UP) !== 0,
    running: (flags & k.IFF_RUNNING) !== 0,
    loopback: (flags & k.IFF_LOOPBACK) !== 0,
    txQueueLen: u32Of(u8, attributes, k.IFLA_TXQLEN) ?? 0,
    kind: info === undefined ? '' : textOf(u8, netlinkAttributes(u8, info[0], info[1]), k.IFLA_INFO_KIND),
  };
}

/** RTM_NEWADDR's payload; undefined for families we do not know. */
export function parseAddress(u8: Uint8Array, at: number, endAt: number): AddressInfo | undefined {
  if (endAt - at < IFADDRMSG_BYTES) throw malformed('short ifaddrmsg');
  const family = u8[at]!;
  if (!isFamily(family)) return undefined;
  const attributes = netlinkAttributes(u8, at + IFADDRMSG_BYTES, endAt);
  // IFA_ADDRESS is the peer's on point-to-point links; IFA_LOCAL, where present, is ours.
  const address =
    addressOf(u8, attributes, k.IFA_LOCAL, family) ?? addressOf(u8, attributes, k.IFA_ADDRESS, family);
  if (address === undefined) return undefined;
  const far = addressOf(u8, attributes, k.IFA_ADDRESS, family);
  return {
    ...(far !== undefined && far !== address && { peer: far }),
    family,
    address,
    prefixLen: u8[at + 1]!,
    index: viewOf(u8).getUint32(at + 4, true),
    scope: u8[at + 3]!,
    flags: u32Of(u8, attributes, k.IFA_FLAGS) ?? u8[at + 2]!,
  };
}

function gatewayOf(u8: Uint8Array, attributes: Attributes, family: Family): string | undefined {
  const gateway = addressOf(u8, attributes, k.RTA_GATEWAY, family);
  if (gateway !== undefined) return gateway;
  // struct rtvia: family u16, address. An IPv6 gateway of an IPv4 route, RFC 5549.
  const via = attributes.get(k.RTA_VIA);
  if (via === undefined || via[1] - via[0] < 2) return undefined;
  const viaFamily = viewOf(u8).getUint16(via[0], true);
  if (!isFamily(viaFamily) || via[1] - via[0] !== 2 + addressBytes(viaFamily)) return undefined;
  return addressFormat(u8, via[0] + 2, viaFamily);
}

function parseHops(u8: Uint8Array, at: number, endAt: number, family: Family): RouteHop[] {
  const dv = viewOf(u8);
  const hops: RouteHop[] = [];
  let next = at;
  // struct rtnexthop: length u16, flags u8, weight - 1 u8, ifindex i32; attributes.
  while (next + RTNEXTHOP_BYTES <= endAt) {
    const length = dv.getUint16(next, true);
    if (length < RTNEXTHOP_BYTES || next + length > endAt) throw malformed(`next hop length ${length}`);
    const gateway = gatewayOf(u8, netlinkAttributes(u8, next + RTNEXTHOP_BYTES, next + length), family);
    const hop: RouteHop = { oif: dv.getInt32(next + 4, true), weight: u8[next + 3]! + 1 };
    if (gateway !== undefined) hop.gateway = gateway;
    hops.push(hop);
    next += align4(length);
  }
  return hops;
}

/** RTM_NEWROUTE's payload; undefined for families we do not know and for cached clones. */
export function parseRoute(u8: Uint8Array, at: number, endAt: number): RouteInfo | undefined {
  if (endAt - at < RTMSG_BYTES) throw malformed('short rtmsg');
  const family = u8[at]!;
  const flags = viewOf(u8).getUint32(at + 8, true);
  if (!isFamily(family) || (flags & k.RTM_F_CLONED) !== 0) return undefined;
  const attributes = netlinkAttributes(u8, at + RTMSG_BYTES, endAt);
  const route: RouteInfo = {
    family,
    dst: addressOf(u8, attributes, k.RTA_DST, family) ?? (family === k.AF_INET ? '0.0.0.0' : '::'),
    prefixLen: u8[at + 1]!,
    table: u32Of(u8, attributes, k.RTA_TABLE) ?? u8[at + 4]!,
    protocol: u8[at + 5]!,
    scope: u8[at + 6]!,
    type: u8[at + 7]!,
    flags,
    priority: u32Of(u8, attributes, k.RTA_PRIORITY) ?? 0,
  };
  const gateway = gatewayOf(u8, attributes, family);
  if (gateway !== undefined) route.gateway = gateway;
  const oif = u32Of(u8, attributes, k.RTA_OIF);
  if (oif !== undefined) route.oif = oif;
  const prefSrc = addressOf(u8, attributes, k.RTA_PREFSRC, family);
  if (prefSrc !== undefined) route.prefSrc = prefSrc;
  const multipath = attributes.get(k.RTA_MULTIPATH);
  if (multipath !== undefined) route.hops = parseHops(u8, multipath[0], multipath[1], family);
  return route;
}

function parseRouteWithRaw(u8: Uint8Array, at: number, endAt: number): RouteInfo | undefined {
  const route = parseRoute(u8, at, endAt);
  return route && { ...route, raw: u8.slice(at, endAt) };
}

/** What the kernel adds of itself, or what means nothing in another namespace. */
const NOT_COPIED: readonly number[] = [k.RTA_PREFSRC, k.RTA_NH_ID, k.RTA_CACHEINFO, k.RTA_UID, k.RTA_EXPIRES];
const NOT_COPIED_FLAGS = k.RTNH_F_DEAD | k.RTNH_F_LINKDOWN;

/**
 * Request for a route like `raw` (RouteInfo.raw) by another interface: metrics, type of service, preference and everything else
 * stay as they are.
 */
export function routeCopyRequest(raw: Uint8Array, oif: number): NetlinkRequest {
  if (raw.length < RTMSG_BYTES) throw malformed('short rtmsg');
  const flags = viewOf(raw).getUint32(8, true) & ~NOT_COPIED_FLAGS;
  // CREATE alone, as `ip route prepend`: a route that differs only in its source address is one of its own.
  const request = new NetlinkRequest(k.RTM_NEWROUTE, k.NLM_F_REQUEST | k.NLM_F_ACK | k.NLM_F_CREATE);
  request.routeHeader(raw[0]!, raw[1]!, raw[4]!, raw[5]!, raw[6]!, raw[7]!, flags, raw[3]!);
  for (const [type, [from, to]] of netlinkAttributes(raw, RTMSG_BYTES, raw.length)) {
    if (NOT_COPIED.includes(type)) continue;
    const value = raw.slice(from, to);
    if (type === k.RTA_OIF) writeWord(value, 0, oif);
    if (type === k.RTA_MULTIPATH) {
      for (let next = 0; next + RTNEXTHOP_BYTES <= value.length; ) {
        const length = viewOf(value).getUint16(next, true);
        if (length < RTNEXTHOP_BYTES || next + length > value.length) throw malformed(`next hop ${length}`);
        value[next + 2]! &= ~NOT_COPIED_FLAGS;
        writeWord(value, next + 4, oif);
        next += align4(length);
      }
    }
    request.bytes(type === k.RTA_METRICS ? type | k.NLA_F_NESTED : type, value);
  }
  return request;
}

const writeWord = (u8: Uint8Array, at: number, value: number): void => {
  if (at + 4 <= u8.length) viewOf(u8).setUint32(at, value, true);
};

// ---- codec, writing -------------------------------------------------------------------------------------------

/** One request under construction. */
export class NetlinkRequest {
  readonly u8 = new Uint8Array(REQUEST_BYTES);
  readonly #dv = viewOf(this.u8);
  #bytes = NLMSG_HEADER_BYTES;

  constructor(type: number, flags: number) {
    this.#dv.setUint16(4, type, true);
    this.#dv.setUint16(6, flags, true);
  }

  get type(): number {
    return this.#dv.getUint16(4, true);
  }

  /** The message with its length and number filled in; borrowed. */
  finish(sequence: number): Uint8Array {
    this.#dv.setUint32(0, this.#bytes, true);
    this.#dv.setUint32(8, sequence, true);
    return this.u8.subarray(0, this.#bytes);
  }

  #room(bytes: number): number {
    const at = this.#bytes;
    if (at + align4(bytes) > REQUEST_BYTES)
      throw new RangeError(`netlink request over ${REQUEST_BYTES} bytes`);
    this.#bytes = at + align4(bytes);
    return at;
  }

  linkHeader(index: number, flags = 0, change = 0): this {
    const at = this.#room(IFINFOMSG_BYTES);
    this.u8[at] = k.AF_UNSPEC;
    this.#dv.setInt32(at + 4, index, true);
    this.#dv.setUint32(at + 8, flags, true);
    this.#dv.setUint32(at + 12, change, true);
    return this;
  }

  addressHeader(family: number, prefixLen: number, flags: number, scope: number, index: number): this {
    const at = this.#room(IFADDRMSG_BYTES);
    this.u8.set([family, prefixLen, flags, scope], at);
    this.#dv.setUint32(at + 4, index, true);
    return this;
  }

  routeHeader(
    family: number,
    dstLen: number,
    table: number,
    protocol: number,
    scope: number,
    type: number,
    flags: number,
    tos = 0,
  ): this {
    const at = this.#room(RTMSG_BYTES);
    this.u8.set([family, dstLen, 0, tos, table, protocol, scope, type], at);
    this.#dv.setUint32(at + 8, flags, true);
    return this;
  }

  bytes(type: number, value: Uint8Array): this {
    const at = this.#room(4 + value.length);
    this.#dv.setUint16(at, 4 + value.length, true);
    this.#dv.setUint16(at + 2, type, true);
    this.u8.set(value, at + 4);
    return this;
  }

  byte(type: number, value: number): this {
    return this.bytes(type, Uint8Array.of(value));
  }

  word(type: number, value: number): this {
    const at = this.#room(8);
    this.#dv.setUint16(at, 8, true);
    this.#dv.setUint16(at + 2, type, true);
    this.#dv.setUint32(at + 4, value, true);
    return this;
  }

  text(type: number, value: string): this {
    return this.bytes(type, new TextEncoder().encode(`${value}\0`));
  }

  /** An attribute whose value is what `fill` adds. */
  nested(type: number, fill: (request: this) => void): this {
    const at = this.#room(4);
    fill(this);
    this.#dv.setUint16(at, this.#bytes - at, true);
    this.#dv.setUint16(at + 2, type | k.NLA_F_NESTED, true);
    return this;
  }
}

// A class body reads it only when an instance is made, after the module has run.
const REQUEST_BYTES = 1024;

/** Bytes of `52:54:00:12:34:56`. */
export function macParse(text: string): Uint8Array {
  if (!/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(text)) {
    throw new RangeError(`"${text}" is not a MAC address: write six hexadecimal bytes, 52:54:00:12:34:56`);
  }
  return Uint8Array.from(text.split(':'), (byte) => Number.parseInt(byte, 16));
}

// ---- sockets --------------------------------------------------------------------------------------------------

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
    msghdrWrite(
      message.u32,
      0,
      this.#name.address,
      SOCKADDR_NL_BYTES,
      message.address + MSGHDR_BYTES,
      1,
      0,
      0,
    );
    return recvmsg(this.fd, message.address, flags);
  }

  close(): void {
    close(this.fd);
  }
}

/** NLMSG_ERROR's payload: errno (0 for an acknowledgement) and the kernel's words, if it has any. */
export function parseError(
  u8: Uint8Array,
  message: NetlinkMessage,
): { errno: number; text: string | undefined } {
  // struct nlmsgerr: error i32, the request's header; the request unless capped; attributes if it says so.
  if (message.endAt - message.at < 4) throw malformed('short nlmsgerr');
  const dv = viewOf(u8);
  const errno = 0 - dv.getInt32(message.at, true);
  let text: string | undefined;
  if (
    message.type === k.NLMSG_ERROR &&
    (message.flags & k.NLM_F_ACK_TLVS) !== 0 &&
    message.endAt - message.at >= 4 + NLMSG_HEADER_BYTES
  ) {
    const quoted =
      (message.flags & k.NLM_F_CAPPED) !== 0 ? NLMSG_HEADER_BYTES : dv.getUint32(message.at + 4, true);
    const attributesAt = message.at + 4 + align4(quoted);
    if (attributesAt <= message.endAt) {
      const words = textOf(u8, netlinkAttributes(u8, attributesAt, message.endAt), k.NLMSGERR_ATTR_MSG);
      if (words !== '') text = words;
    }
  }
  return { errno, text };
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
      () =>
        new NetlinkRequest(k.RTM_GETROUTE, k.NLM_F_REQUEST | k.NLM_F_DUMP).routeHeader(
          k.AF_UNSPEC,
          0,
          0,
          0,
          0,
          0,
          0,
        ),
      k.RTM_NEWROUTE,
      parseRouteWithRaw,
    );
  }

  setLink(index: number, change: LinkChange): void {
    const what = `RTM_NEWLINK, interface ${index}, ${JSON.stringify(change)}`;
    const generation = change.ipv6AddressGeneration;
    if (generation !== undefined) {
      // A message of its own, first: the kernel looks at IFF_UP, and makes the address, before it comes to this.
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
    if (change.mac !== undefined) request.bytes(k.IFLA_ADDRESS, macParse(change.mac));
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
      (options.nodad && family === k.AF_INET6 ? k.IFA_F_NODAD : 0) |
      (options.noPrefixRoute ? k.IFA_F_NOPREFIXROUTE : 0);
    const request = addressRequest(
      k.RTM_NEWADDR,
      k.NLM_F_CREATE | k.NLM_F_REPLACE,
      index,
      family,
      text,
      prefixLen,
      options.peer,
      options.scope,
    );
    if (options.broadcast !== undefined)
      request.bytes(k.IFA_BROADCAST, addressFor(family, options.broadcast));
    if (flags !== 0) request.word(k.IFA_FLAGS, flags);
    this.#acknowledged(`RTM_NEWADDR, ${text}/${prefixLen}, interface ${index}`, request);
  }

  delAddress(index: number, family: Family, text: string, prefixLen: number): void {
    const request = addressRequest(k.RTM_DELADDR, 0, index, family, text, prefixLen);
    this.#acknowledged(`RTM_DELADDR, ${text}/${prefixLen}, interface ${index}`, request);
  }

  /** Add a route, or change the one of the same destination, table and metric. */
  addRoute(route: RouteSpec): void {
    const request = routeRequest(k.RTM_NEWROUTE, k.NLM_F_CREATE | k.NLM_F_REPLACE, route);
    this.#acknowledged(`RTM_NEWROUTE, ${routeText(route)}`, request);
  }

  /** Add a route like one that was read (RouteInfo.raw), by another interface. Throws SysError with EEXIST when it is there. */
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

  /** Ask for a list. A list that changed while it was read is read again, and after DUMP_TRIES taken as it is. */
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

const NEW_LINK_FLAGS = k.NLM_F_REQUEST | k.NLM_F_ACK | k.NLM_F_CREATE | k.NLM_F_EXCL;

function addressRequest(
  type: number,
  flags: number,
  index: number,
  family: Family,
  text: string,
  prefixLen: number,
  peer = text,
  scope = 0,
): NetlinkRequest {
  return new NetlinkRequest(type, k.NLM_F_REQUEST | k.NLM_F_ACK | flags)
    .addressHeader(family, prefixLen, 0, scope, index)
    .bytes(k.IFA_LOCAL, addressFor(family, text))
    .bytes(k.IFA_ADDRESS, addressFor(family, peer));
}

function addressFor(family: Family, text: string): Uint8Array {
  if (familyOf(text) !== family) {
    throw new RangeError(`"${text}" is not an ${family === k.AF_INET ? 'IPv4' : 'IPv6'} address`);
  }
  return addressParse(text);
}

function routeRequest(type: number, flags: number, route: RouteSpec): NetlinkRequest {
  const { family, gateway } = route;
  const onLinkScope = family === k.AF_INET && gateway === undefined ? k.RT_SCOPE_LINK : k.RT_SCOPE_UNIVERSE;
  const table = route.table ?? k.RT_TABLE_MAIN;
  const deletes = type === k.RTM_DELROUTE;
  const request = new NetlinkRequest(type, k.NLM_F_REQUEST | k.NLM_F_ACK | flags).routeHeader(
    family,
    route.prefixLen,
    table < 256 ? table : k.RT_TABLE_UNSPEC,
    deletes ? k.RTPROT_UNSPEC : k.RTPROT_BOOT,
    deletes ? k.RT_SCOPE_NOWHERE : (route.scope ?? onLinkScope),
    deletes ? k.RTN_UNSPEC : k.RTN_UNICAST,
    route.onlink ? k.RTNH_F_ONLINK : 0,
  );
  if (table >= 256) request.word(k.RTA_TABLE, table);
  if (route.prefixLen > 0) request.bytes(k.RTA_DST, addressFor(family, route.dst));
  if (gateway !== undefined) {
    if (familyOf(gateway) === family) request.bytes(k.RTA_GATEWAY, addressParse(gateway));
    else request.bytes(k.RTA_VIA, Uint8Array.of(k.AF_INET6, 0, ...addressParse(gateway)));
  }
  request.word(k.RTA_OIF, route.oif);
  if (route.prefSrc !== undefined) request.bytes(k.RTA_PREFSRC, addressFor(family, route.prefSrc));
  if (route.priority !== undefined) request.word(k.RTA_PRIORITY, route.priority);
  if (route.mtu !== undefined && !deletes) {
    const mtu = route.mtu;
    request.nested(k.RTA_METRICS, (metrics) => metrics.word(k.RTAX_MTU, mtu));
  }
  return request;
}

function routeText(route: RouteSpec): string {
  const via = route.gateway === undefined ? '' : ` via ${route.gateway}`;
  return `${route.dst}/${route.prefixLen}${via} dev ${route.oif}`;
}

/** Groups that a change of links, addresses or routes is announced to. */
export const ROUTE_GROUPS = [
  k.RTNLGRP_LINK,
  k.RTNLGRP_IPV4_IFADDR,
  k.RTNLGRP_IPV4_ROUTE,
  k.RTNLGRP_IPV6_IFADDR,
  k.RTNLGRP_IPV6_ROUTE,
] as const;

/**
 * Hears that something changed in one network namespace. It does not say what: whoever cares dumps again with a
 * RouteSocket, which is right also when announcements were lost.
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
