/** Sockets of published ports, bound. */
import { addressParse, addressSetAny, isV4Mapped } from '../../proto/address.ts';
import {
  AF_INET,
  AF_INET6,
  Errno,
  IP_FREEBIND,
  IPPROTO_IPV6,
  IPV6_FREEBIND,
  IPV6_V6ONLY,
  SO_BINDTODEVICE,
  SO_REUSEADDR,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_STREAM,
  SOL_IP,
  SOL_IPV6,
  SOL_SOCKET,
} from '../../sys/constants.ts';
import { close } from '../../sys/io.ts';
import { NativeBuffer } from '../../sys/memory.ts';
import {
  bind,
  SOCKADDR_BYTES,
  setsockoptBytes,
  setsockoptInt,
  sockaddrWrite,
  socket,
} from '../../sys/socket.ts';
import type { ListenerPlan } from '../engine-plan.ts';
import type { Addressing } from '../flow/addressing.ts';

/**
 * @param text  "" or "*": any address (all words zero); else an IPv4 or IPv6 address
 * @returns false when the text is no address
 */
function parseBindAddress(text: string, words: Uint32Array, w: number): boolean {
  words[w] = 0;
  words[w + 1] = 0;
  words[w + 2] = 0;
  words[w + 3] = 0;
  return text === '' || text === '*' || addressParse(text, words, w);
}

const targets = new WeakMap<ListenerPlan, Uint32Array>();

/**
 * Which address inside a peer of a listener is led to: the rule's own target, else the guest's.
 * @param remote,r  the peer as the guest sees it
 * @returns false when there is none of the peer's family
 */
export function listenerGuest(
  plan: ListenerPlan,
  addressing: Addressing,
  remote: Uint32Array,
  r: number,
  out: Uint32Array,
  o = 0,
): boolean {
  if (!(isV4Mapped(remote, r) ? addressing.ipv4 : addressing.ipv6)) return false;
  if (plan.targetAddress === undefined) return addressing.guestFor(remote, r, out, o);
  let target = targets.get(plan);
  if (target === undefined) {
    target = new Uint32Array(4); // once a rule
    if (!addressParse(plan.targetAddress, target, 0)) return false;
    targets.set(plan, target);
  }
  if (isV4Mapped(target, 0) !== isV4Mapped(remote, r)) return false;
  for (let i = 0; i < 4; i++) out[o + i] = target[i]!;
  return true;
}

const words = new Uint32Array(4);
const sockaddr = new NativeBuffer(SOCKADDR_BYTES);
const ifname = new NativeBuffer(16);

/** Makes sockets; of another namespace, if need be. @returns a descriptor or -errno */
export type SocketMaker = (domain: number, type: number) => number;

const ownSocket: SocketMaker = (domain, type) => socket(domain, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

/** Let a socket be bound to an address that the host does not have (yet). @returns 0 or -errno */
export function setFreebind(fd: number, isV4: boolean): number {
  return isV4 ? setsockoptInt(fd, SOL_IP, IP_FREEBIND, 1) : setsockoptInt(fd, SOL_IPV6, IPV6_FREEBIND, 1);
}

/** Which interface a link-local address is on: its index, 0 for other addresses. */
export interface LinkScopes {
  scopeOf(words: Uint32Array, w: number): number;
}

/**
 * A socket bound to one port of a rule, not listening yet.
 * @param type  SOCK_STREAM or SOCK_DGRAM
 * @param freebind  the address may be one that the host does not have
 * @param outbound  knows the interface of link-local addresses; absent: none is on one
 * @returns a descriptor or -errno
 */
export function openListener(
  plan: ListenerPlan,
  port: number,
  type: number,
  freebind: boolean,
  outbound: LinkScopes | undefined,
  make = ownSocket,
): number {
  const any = plan.address === '' || plan.address === '*';
  if (!parseBindAddress(plan.address, words, 0)) return -Errno.EINVAL;
  let v4 = isV4Mapped(words, 0);
  let fd = make(v4 ? AF_INET : AF_INET6, type);
  if (fd === -Errno.EAFNOSUPPORT && any) {
    v4 = true;
    addressSetAny(words, 0, 4);
    fd = make(AF_INET, type);
  }
  if (fd < 0) return fd;
  // Not for datagrams: two of them could be bound to one port, and the later would take it all.
  let r = type === SOCK_STREAM ? setsockoptInt(fd, SOL_SOCKET, SO_REUSEADDR, 1) : 0;
  if (r >= 0 && !v4) r = setsockoptInt(fd, IPPROTO_IPV6, IPV6_V6ONLY, any ? 0 : 1);
  if (r >= 0 && plan.interface !== undefined) r = bindToDevice(fd, plan.interface);
  if (r >= 0 && freebind) r = setFreebind(fd, v4);
  const scope = outbound?.scopeOf(words, 0) ?? 0;
  if (r >= 0) r = bind(fd, sockaddr.address, sockaddrWrite(sockaddr.u8, 0, words, 0, port, scope));
  if (r >= 0) return fd;
  close(fd);
  return r;
}

function bindToDevice(fd: number, device: string): number {
  ifname.u8.fill(0);
  new TextEncoder().encodeInto(device, ifname.u8.subarray(0, 15));
  return setsockoptBytes(fd, SOL_SOCKET, SO_BINDTODEVICE, ifname.address, 16);
}
