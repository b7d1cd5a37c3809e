/** Opens and binds the sockets of published ports, and says which guest address a listener forwards to. */
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

/** Parsed ListenerPlan.targetAddress. */
const targets = new WeakMap<ListenerPlan, Uint32Array>();

/**
 * The address inside that a listener forwards a peer to: the rule's target address, else the guest's.
 * @param remote,r  the peer as the guest sees it
 * @param out,o  out: the address, four words
 * @returns false when there is no such address of the peer's family
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
    target = new Uint32Array(4); // once per rule
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

/** Opens an unbound socket, perhaps in another network namespace. @returns a descriptor or -errno */
export type SocketMaker = (domain: number, type: number) => number;

const ownSocket: SocketMaker = (domain, type) => socket(domain, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

/** Allow bind() to an address that the host does not have (ip-freebind). @returns 0 or -errno */
export function setFreebind(fd: number, isV4: boolean): number {
  return isV4 ? setsockoptInt(fd, SOL_IP, IP_FREEBIND, 1) : setsockoptInt(fd, SOL_IPV6, IPV6_FREEBIND, 1);
}

/** Knows the interface of link-local addresses. */
export interface LinkScopes {
  /** @returns interface index of a link-local address, 0 for other addresses */
  scopeOf(words: Uint32Array, w: number): number;
}

/**
 * Open a socket and bind it to one port of a rule; a stream socket does not listen yet.
 * @param type  SOCK_STREAM or SOCK_DGRAM
 * @param freebind  allow an address that the host does not have
 * @param outbound  knows the interface of link-local addresses; undefined: scope 0
 * @param make  opens the socket
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
  const isAny = plan.address === '' || plan.address === '*';
  if (!parseBindAddress(plan.address, words, 0)) return -Errno.EINVAL;
  let isV4 = isV4Mapped(words, 0);
  let fd = make(isV4 ? AF_INET : AF_INET6, type);
  if (fd === -Errno.EAFNOSUPPORT && isAny) {
    isV4 = true;
    addressSetAny(words, 0, 4);
    fd = make(AF_INET, type);
  }
  if (fd < 0) return fd;
  // Not for datagram sockets: two could be bound to one port, and the later one would receive everything.
  let r = type === SOCK_STREAM ? setsockoptInt(fd, SOL_SOCKET, SO_REUSEADDR, 1) : 0;
  if (r >= 0 && !isV4) r = setsockoptInt(fd, IPPROTO_IPV6, IPV6_V6ONLY, isAny ? 0 : 1);
  if (r >= 0 && plan.interface !== undefined) r = bindToDevice(fd, plan.interface);
  if (r >= 0 && freebind) r = setFreebind(fd, isV4);
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
