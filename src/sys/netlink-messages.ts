/**
 * Codec of rtnetlink: decodes messages about links, addresses and routes to plain objects, and encodes
 * requests. No I/O; throws SysError (EBADMSG) for a malformed message. Sources: <linux/netlink.h>,
 * <linux/rtnetlink.h>, <linux/if_link.h>, <linux/if_addr.h>; RFC 3549; man 7 rtnetlink.
 *
 *   message   +0 length u32 (header included)   +4 type u16   +6 flags u16   +8 sequence u32   +12 port u32
 *             +16 family header:  ifinfomsg   +0 family u8  +2 type u16  +4 index i32  +8 flags u32  +12 change u32
 *                                 ifaddrmsg   +0 family u8  +1 prefixlen u8  +2 flags u8  +3 scope u8  +4 index u32
 *                                 rtmsg       +0 family  +1 dst_len  +2 src_len  +3 tos  +4 table  +5 protocol
 *                                             +6 scope  +7 type  +8 flags u32
 *                                 tcmsg       +0 family u8  +4 index i32  +8 handle u32  +12 parent u32  +16 info u32
 *   attribute +0 length u16 (header included)   +2 type u16   +4 value; the next one at a multiple of 4
 *
 * Invariant of the parsers: they read no byte outside the message, and the message lies in the buffer. A
 * message with an impossible length in it is refused as a whole.
 */
import { addressParse, addressRead, addressWrite, ipv6Text } from '../proto/address.ts';
import { readU32 } from '../proto/be.ts';
import { MAC_BYTES, macParse, macText } from '../proto/ethernet.ts';
import { ipv4Text } from '../proto/ipv4.ts';
import * as k from './constants.ts';
import { SysError } from './error.ts';

// ---- objects ----------------------------------------------------------------------------------------------

export type Family = 4 | 6;

export interface LinkInfo {
  index: number;
  name: string;
  /** `52:54:00:12:34:56`; empty for a link without a 6-byte address. */
  mac: string;
  mtu: number;
  /** IFF_*. */
  flags: number;
  /** IFF_UP: administratively up. */
  up: boolean;
  /** IFF_RUNNING: operational, with a carrier. */
  running: boolean;
  loopback: boolean;
  txQueueLen: number;
  /** IFLA_INFO_KIND: `veth`, `tun`, `bridge`...; empty for hardware. */
  kind: string;
  /** Open queues of a TUN or TAP with IFF_MULTI_QUEUE, detached ones included (Linux 4.16); else absent. */
  tunQueues?: number;
}

export interface AddressInfo {
  family: Family;
  address: string;
  prefixLen: number;
  index: number;
  /** RT_SCOPE_*. */
  scope: number;
  /** IFA_F_*, 32 bits. */
  flags: number;
  /** Address of the other end; only on a point-to-point link. */
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
  /** An IPv4 route may have an IPv6 gateway (RTA_VIA). */
  gateway?: string;
  /** Interface index; missing for blackhole routes and for multipath routes, which have `hops`. */
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
  /** rtmsg and attributes as received, for copyRoute; set by RouteSocket.routes. */
  raw?: Uint8Array;
}

/** Properties of a link to change; an absent one stays. */
export interface LinkChange {
  name?: string;
  up?: boolean;
  mtu?: number;
  mac?: string;
  txQueueLen?: number;
  noarp?: boolean;
  /** Index of a bridge to join. */
  master?: number;
  /** How the kernel generates link-local IPv6 addresses: from the MAC address, or not at all. */
  ipv6AddressGeneration?: 'eui64' | 'none';
}

/** A route to add or delete. */
export interface RouteSpec {
  family: Family;
  dst: string;
  prefixLen: number;
  gateway?: string;
  oif: number;
  /** RT_SCOPE_*; default: link for an IPv4 route without gateway, else universe. */
  scope?: number;
  prefSrc?: string;
  priority?: number;
  /** Default: RT_TABLE_MAIN. */
  table?: number;
  mtu?: number;
  /** RTNH_F_ONLINK: the gateway is on this link even if no address of the link covers it. */
  onlink?: boolean;
}

// ---- decoding ---------------------------------------------------------------------------------------------

const NLMSG_HEADER_BYTES = 16;
const IFINFOMSG_BYTES = 16;
const IFADDRMSG_BYTES = 8;
const NDMSG_BYTES = 12;
const RTMSG_BYTES = 12;
const TCMSG_BYTES = 20;
const RTNEXTHOP_BYTES = 8;
const align4 = (n: number): number => (n + 3) & ~3;

/** Header fields of a netlink message in a buffer, and where its payload starts and ends. */
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

/**
 * Split a datagram into its messages.
 * @param bytes  length of the datagram in `u8`
 * @throws SysError (EBADMSG) for a message length that does not fit
 */
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

/**
 * Attributes from `at` to `endAt`. Of several with one type the last is returned.
 * @returns type, without flag bits, to [start, end) of the value
 * @throws SysError (EBADMSG) for an attribute length that does not fit
 */
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

const words = new Uint32Array(4);

/** Length of an address in bytes: 4 or 16. */
const addressBytes = (family: Family): number => (family === 4 ? 4 : 16);

/** An address as text. A v4-mapped address of family 6 stays in IPv6 form. */
function addressTextAt(u8: Uint8Array, at: number, family: Family): string {
  if (family === 4) return ipv4Text(readU32(u8, at));
  addressRead(u8, at, words, 0);
  return ipv6Text(words, 0);
}

function addressOf(u8: Uint8Array, attributes: Attributes, type: number, family: Family): string | undefined {
  const range = attributes.get(type);
  if (range === undefined || range[1] - range[0] !== addressBytes(family)) return undefined;
  return addressTextAt(u8, range[0], family);
}

/** AF_* of a family. */
const afOf = (family: Family): number => (family === 4 ? k.AF_INET : k.AF_INET6);

/** Family of an AF_*; undefined for any other than AF_INET and AF_INET6. */
function familyOf(af: number): Family | undefined {
  if (af === k.AF_INET) return 4;
  return af === k.AF_INET6 ? 6 : undefined;
}

/** Parse the payload of an RTM_NEWLINK. @throws SysError (EBADMSG) */
export function parseLink(u8: Uint8Array, at: number, endAt: number): LinkInfo {
  if (endAt - at < IFINFOMSG_BYTES) throw malformed('short ifinfomsg');
  const dv = viewOf(u8);
  const attributes = netlinkAttributes(u8, at + IFINFOMSG_BYTES, endAt);
  const flags = dv.getUint32(at + 8, true);
  const mac = attributes.get(k.IFLA_ADDRESS);
  const info = nestedAttributes(u8, attributes, k.IFLA_LINKINFO);
  const kind = textOf(u8, info, k.IFLA_INFO_KIND);
  const tunQueues =
    kind === 'tun' ? tunQueuesOf(u8, nestedAttributes(u8, info, k.IFLA_INFO_DATA)) : undefined;
  return {
    index: dv.getInt32(at + 4, true),
    name: textOf(u8, attributes, k.IFLA_IFNAME),
    mac: mac === undefined || mac[1] - mac[0] !== MAC_BYTES ? '' : macText(u8, mac[0]),
    mtu: u32Of(u8, attributes, k.IFLA_MTU) ?? 0,
    flags,
    up: (flags & k.IFF_UP) !== 0,
    running: (flags & k.IFF_RUNNING) !== 0,
    loopback: (flags & k.IFF_LOOPBACK) !== 0,
    txQueueLen: u32Of(u8, attributes, k.IFLA_TXQLEN) ?? 0,
    kind,
    ...(tunQueues !== undefined && { tunQueues }),
  };
}

/** The attributes in an attribute; none if it is absent. @throws SysError (EBADMSG) */
function nestedAttributes(u8: Uint8Array, attributes: Attributes, type: number): Attributes {
  const value = attributes.get(type);
  return value === undefined ? new Map() : netlinkAttributes(u8, value[0], value[1]);
}

function tunQueuesOf(u8: Uint8Array, data: Attributes): number | undefined {
  const attached = u32Of(u8, data, k.IFLA_TUN_NUM_QUEUES);
  if (attached === undefined) return undefined;
  return attached + (u32Of(u8, data, k.IFLA_TUN_NUM_DISABLED_QUEUES) ?? 0);
}

/** Parse the payload of an RTM_NEWADDR; undefined for other address families. @throws SysError (EBADMSG) */
export function parseAddress(u8: Uint8Array, at: number, endAt: number): AddressInfo | undefined {
  if (endAt - at < IFADDRMSG_BYTES) throw malformed('short ifaddrmsg');
  const family = familyOf(u8[at]!);
  if (family === undefined) return undefined;
  const attributes = netlinkAttributes(u8, at + IFADDRMSG_BYTES, endAt);
  // On a point-to-point link IFA_ADDRESS is the peer's address. IFA_LOCAL, if present, is the link's own.
  const address =
    addressOf(u8, attributes, k.IFA_LOCAL, family) ?? addressOf(u8, attributes, k.IFA_ADDRESS, family);
  if (address === undefined) return undefined;
  const peer = addressOf(u8, attributes, k.IFA_ADDRESS, family);
  return {
    ...(peer !== undefined && peer !== address && { peer }),
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
  // struct rtvia: family u16, address. It holds the IPv6 gateway of an IPv4 route (RFC 5549).
  const via = attributes.get(k.RTA_VIA);
  if (via === undefined || via[1] - via[0] < 2) return undefined;
  const viaFamily = familyOf(viewOf(u8).getUint16(via[0], true));
  if (viaFamily === undefined || via[1] - via[0] !== 2 + addressBytes(viaFamily)) return undefined;
  return addressTextAt(u8, via[0] + 2, viaFamily);
}

function parseHops(u8: Uint8Array, at: number, endAt: number, family: Family): RouteHop[] {
  const dv = viewOf(u8);
  const hops: RouteHop[] = [];
  let next = at;
  // struct rtnexthop: length u16, flags u8, weight - 1 u8, ifindex i32; then attributes.
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

/**
 * Parse the payload of an RTM_NEWROUTE; undefined for other address families and for cached clones
 * (RTM_F_CLONED).
 * @throws SysError (EBADMSG)
 */
export function parseRoute(u8: Uint8Array, at: number, endAt: number): RouteInfo | undefined {
  if (endAt - at < RTMSG_BYTES) throw malformed('short rtmsg');
  return (viewOf(u8).getUint32(at + 8, true) & k.RTM_F_CLONED) !== 0 ? undefined : parseLookup(u8, at, endAt);
}

/**
 * Parse the payload of an RTM_NEWROUTE that answers a look-up of one address (routeLookupRequest): `dst` is
 * that address, `table` where the kernel found the route, 0 if it found none and took the interface of the
 * request.
 * @returns undefined for other address families
 * @throws SysError (EBADMSG)
 */
export function parseLookup(u8: Uint8Array, at: number, endAt: number): RouteInfo | undefined {
  if (endAt - at < RTMSG_BYTES) throw malformed('short rtmsg');
  const family = familyOf(u8[at]!);
  const flags = viewOf(u8).getUint32(at + 8, true);
  if (family === undefined) return undefined;
  const attributes = netlinkAttributes(u8, at + RTMSG_BYTES, endAt);
  const route: RouteInfo = {
    family,
    dst: addressOf(u8, attributes, k.RTA_DST, family) ?? (family === 4 ? '0.0.0.0' : '::'),
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

/** Like parseRoute; the result has `raw`, a copy of the payload. */
export function parseRouteWithRaw(u8: Uint8Array, at: number, endAt: number): RouteInfo | undefined {
  const route = parseRoute(u8, at, endAt);
  return route && { ...route, raw: u8.slice(at, endAt) };
}

/** Attributes that the kernel adds itself, or that have no meaning in another namespace. */
const NOT_COPIED: readonly number[] = [k.RTA_PREFSRC, k.RTA_NH_ID, k.RTA_CACHEINFO, k.RTA_UID, k.RTA_EXPIRES];
const NOT_COPIED_FLAGS = k.RTNH_F_DEAD | k.RTNH_F_LINKDOWN;

/**
 * Request to add a copy of the route `raw` (RouteInfo.raw) through another interface. Metrics, type of
 * service, priority and all other attributes stay the same, except NOT_COPIED.
 * @param oif  interface index
 * @throws SysError (EBADMSG) when `raw` is malformed
 */
export function routeCopyRequest(raw: Uint8Array, oif: number): NetlinkRequest {
  if (raw.length < RTMSG_BYTES) throw malformed('short rtmsg');
  const flags = viewOf(raw).getUint32(8, true) & ~NOT_COPIED_FLAGS;
  // NLM_F_CREATE alone, as in `ip route prepend`: a route that differs only in its source address is added as
  // a separate route.
  const request = new NetlinkRequest(k.RTM_NEWROUTE, k.NLM_F_REQUEST | k.NLM_F_ACK | k.NLM_F_CREATE);
  const [af, dstLen, , tos, table, protocol, scope, type] = raw;
  request.routeHeader({ af, dstLen, tos, table, protocol, scope, type, flags });
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

/**
 * Parse the payload of an NLMSG_ERROR or NLMSG_DONE.
 * @returns errno, positive, 0 for an acknowledgement; and the kernel's text (NLMSGERR_ATTR_MSG), if there is
 *   one
 * @throws SysError (EBADMSG)
 */
export function parseError(
  u8: Uint8Array,
  message: NetlinkMessage,
): { errno: number; text: string | undefined } {
  // struct nlmsgerr: error i32, header of the request, then its payload unless NLM_F_CAPPED is set, then
  // attributes if NLM_F_ACK_TLVS is set.
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
      const found = textOf(u8, netlinkAttributes(u8, attributesAt, message.endAt), k.NLMSGERR_ATTR_MSG);
      if (found !== '') text = found;
    }
  }
  return { errno, text };
}

// ---- encoding ---------------------------------------------------------------------------------------------

const REQUEST_BYTES = 1024;

/**
 * Fields of struct rtmsg; an absent one is 0. src_len is always 0, because no caller needs source prefixes.
 */
export interface RouteHeader {
  /** AF_* */
  readonly af?: number | undefined;
  readonly dstLen?: number | undefined;
  readonly tos?: number | undefined;
  readonly table?: number | undefined;
  readonly protocol?: number | undefined;
  readonly scope?: number | undefined;
  readonly type?: number | undefined;
  readonly flags?: number | undefined;
}

/**
 * A request under construction: a family header, then attributes, in the order of the calls. The methods that
 * add something return the request, and throw RangeError beyond REQUEST_BYTES.
 */
export class NetlinkRequest {
  readonly u8 = new Uint8Array(REQUEST_BYTES);
  readonly #dv = viewOf(this.u8);
  #bytes = NLMSG_HEADER_BYTES;

  /** @param type  RTM_* @param flags  NLM_F_* */
  constructor(type: number, flags: number) {
    this.#dv.setUint16(4, type, true);
    this.#dv.setUint16(6, flags, true);
  }

  get type(): number {
    return this.#dv.getUint16(4, true);
  }

  /** Fill in length and sequence number. @returns the message, a view of `u8` */
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

  /**
   * struct ifinfomsg.
   * @param index interface index
   * @param flags IFF_*
   * @param change mask of flags to change
   */
  linkHeader(index: number, flags = 0, change = 0): this {
    const at = this.#room(IFINFOMSG_BYTES);
    this.u8[at] = k.AF_UNSPEC;
    this.#dv.setInt32(at + 4, index, true);
    this.#dv.setUint32(at + 8, flags, true);
    this.#dv.setUint32(at + 12, change, true);
    return this;
  }

  /** struct ifaddrmsg. */
  addressHeader(af: number, prefixLen: number, flags: number, scope: number, index: number): this {
    const at = this.#room(IFADDRMSG_BYTES);
    this.u8.set([af, prefixLen, flags, scope], at);
    this.#dv.setUint32(at + 4, index, true);
    return this;
  }

  /** struct ndmsg: family u8, pad u8 u16, interface index s32, state u16, flags u8, type u8. */
  neighbourHeader(af: number, index: number, state: number): this {
    const at = this.#room(NDMSG_BYTES);
    this.u8.set([af, 0, 0, 0], at);
    this.#dv.setInt32(at + 4, index, true);
    this.#dv.setUint16(at + 8, state, true);
    return this;
  }

  /** struct tcmsg. @param index  interface index @param parent  TC_H_* */
  qdiscHeader(index: number, parent: number): this {
    const at = this.#room(TCMSG_BYTES);
    this.u8[at] = k.AF_UNSPEC;
    this.#dv.setInt32(at + 4, index, true);
    this.#dv.setUint32(at + 12, parent, true);
    return this;
  }

  /** struct rtmsg; all fields are 0 in a request for a dump. */
  routeHeader(header: RouteHeader): this {
    const { af = k.AF_UNSPEC, dstLen = 0, tos = 0, table = 0, protocol = 0, scope = 0, type = 0 } = header;
    const at = this.#room(RTMSG_BYTES);
    this.u8.set([af, dstLen, 0, tos, table, protocol, scope, type], at);
    this.#dv.setUint32(at + 8, header.flags ?? 0, true);
    return this;
  }

  /** An attribute. */
  bytes(type: number, value: Uint8Array): this {
    const at = this.#room(4 + value.length);
    this.#dv.setUint16(at, 4 + value.length, true);
    this.#dv.setUint16(at + 2, type, true);
    this.u8.set(value, at + 4);
    return this;
  }

  /** An attribute with a u8. */
  byte(type: number, value: number): this {
    return this.bytes(type, Uint8Array.of(value));
  }

  /** An attribute with a u32. */
  word(type: number, value: number): this {
    const at = this.#room(8);
    this.#dv.setUint16(at, 8, true);
    this.#dv.setUint16(at + 2, type, true);
    this.#dv.setUint32(at + 4, value, true);
    return this;
  }

  /** An attribute with a NUL-terminated string. */
  text(type: number, value: string): this {
    return this.bytes(type, new TextEncoder().encode(`${value}\0`));
  }

  /** An attribute whose value consists of the attributes that `fill` adds. */
  nested(type: number, fill: (request: this) => void): this {
    const at = this.#room(4);
    fill(this);
    this.#dv.setUint16(at, this.#bytes - at, true);
    this.#dv.setUint16(at + 2, type | k.NLA_F_NESTED, true);
    return this;
  }
}

/** The 6 bytes of a MAC address, `52:54:00:12:34:56`. @throws RangeError for any other text */
export function macFor(text: string): Uint8Array {
  const mac = macParse(text);
  if (mac === null)
    throw new RangeError(`"${text}" is not a MAC address: write six hexadecimal bytes, 52:54:00:12:34:56`);
  return mac;
}

/** An address of an interface, for addressRequest(). */
export interface AddressSpec {
  readonly index: number;
  readonly family: Family;
  readonly text: string;
  readonly prefixLen: number;
  /** Address of the other end of a point-to-point link; default: the address itself. */
  readonly peer?: string | undefined;
  /** RT_SCOPE_*; default: universe. */
  readonly scope?: number | undefined;
}

/**
 * Request to add or delete an address.
 * @param type  RTM_NEWADDR or RTM_DELADDR
 * @param flags  NLM_F_* in addition to NLM_F_REQUEST and NLM_F_ACK
 * @throws RangeError for an address of another family
 */
export function addressRequest(type: number, flags: number, address: AddressSpec): NetlinkRequest {
  const { index, family, text, prefixLen, peer = text, scope = 0 } = address;
  return new NetlinkRequest(type, k.NLM_F_REQUEST | k.NLM_F_ACK | flags)
    .addressHeader(afOf(family), prefixLen, 0, scope, index)
    .bytes(k.IFA_LOCAL, addressFor(family, text))
    .bytes(k.IFA_ADDRESS, addressFor(family, peer));
}

/**
 * Request to add a neighbour entry in state NUD_STALE.
 * @param flags  NLM_F_* in addition to NLM_F_REQUEST and NLM_F_ACK
 * @param index  interface index
 * @throws RangeError for a malformed address
 */
export function neighbourRequest(
  flags: number,
  index: number,
  family: Family,
  text: string,
  mac: string,
): NetlinkRequest {
  return new NetlinkRequest(k.RTM_NEWNEIGH, k.NLM_F_REQUEST | k.NLM_F_ACK | flags)
    .neighbourHeader(afOf(family), index, k.NUD_STALE)
    .bytes(k.NDA_DST, addressFor(family, text))
    .bytes(k.NDA_LLADDR, macFor(mac));
}

/** The bytes of an address, 4 or 16. @throws RangeError when the text is not an address of the family */
export function addressFor(family: Family, text: string): Uint8Array {
  const isV6 = family === 6;
  if (text.includes(':') !== isV6 || !addressParse(text, words, 0))
    throw new RangeError(`"${text}" is not an IPv${family} address`);
  const bytes = new Uint8Array(16);
  addressWrite(bytes, 0, words, 0);
  // An IPv4 address is the last four bytes of its v4-mapped form.
  return isV6 ? bytes : bytes.subarray(12);
}

/**
 * Request to add or delete a route.
 * @param type  RTM_NEWROUTE or RTM_DELROUTE
 * @param flags  NLM_F_* in addition to NLM_F_REQUEST and NLM_F_ACK
 * @throws RangeError for an address of another family
 */
export function routeRequest(type: number, flags: number, route: RouteSpec): NetlinkRequest {
  const { family, gateway } = route;
  const onLinkScope = family === 4 && gateway === undefined ? k.RT_SCOPE_LINK : k.RT_SCOPE_UNIVERSE;
  const table = route.table ?? k.RT_TABLE_MAIN;
  const deletes = type === k.RTM_DELROUTE;
  const request = new NetlinkRequest(type, k.NLM_F_REQUEST | k.NLM_F_ACK | flags).routeHeader({
    af: afOf(family),
    dstLen: route.prefixLen,
    table: table < 256 ? table : k.RT_TABLE_UNSPEC,
    protocol: deletes ? k.RTPROT_UNSPEC : k.RTPROT_BOOT,
    scope: deletes ? k.RT_SCOPE_NOWHERE : (route.scope ?? onLinkScope),
    type: deletes ? k.RTN_UNSPEC : k.RTN_UNICAST,
    flags: route.onlink ? k.RTNH_F_ONLINK : 0,
  });
  if (table >= 256) request.word(k.RTA_TABLE, table);
  if (route.prefixLen > 0) request.bytes(k.RTA_DST, addressFor(family, route.dst));
  if (gateway !== undefined) {
    if (gateway.includes(':') === (family === 6)) request.bytes(k.RTA_GATEWAY, addressFor(family, gateway));
    else request.bytes(k.RTA_VIA, Uint8Array.of(k.AF_INET6, 0, ...addressFor(6, gateway)));
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

/**
 * Request to look up the route of one address, by the rules and tables that apply to a socket of this process
 * without mark.
 * @param oif  interface that the socket is bound to; undefined: any
 * @throws RangeError for an address of another family
 */
export function routeLookupRequest(family: Family, text: string, oif?: number): NetlinkRequest {
  const request = new NetlinkRequest(k.RTM_GETROUTE, k.NLM_F_REQUEST)
    .routeHeader({ af: afOf(family), dstLen: family === 4 ? 32 : 128, flags: k.RTM_F_LOOKUP_TABLE })
    .bytes(k.RTA_DST, addressFor(family, text));
  return oif === undefined ? request : request.word(k.RTA_OIF, oif);
}

/** A route as text, for error messages. */
export function routeText(route: RouteSpec): string {
  const via = route.gateway === undefined ? '' : ` via ${route.gateway}`;
  return `${route.dst}/${route.prefixLen}${via} dev ${route.oif}`;
}
