/**
 * Sockets, and the structures that socket calls read and write. Hot: the functions take numbers, return a
 * result or -errno, and allocate nothing. Byte order: ports and addresses are big-endian in a sockaddr and
 * plain numbers in parameters and results; all other fields are little-endian, the byte order of x86-64 and
 * AArch64 Linux.
 * @syscalls socket bind connect listen accept4 getsockname getpeername setsockopt getsockopt shutdown sendto
 *           recvfrom sendmsg recvmsg sendmmsg recvmmsg socketpair
 */
import { addressRead, addressSetIpv4, addressWrite, isV4Mapped } from '../proto/address.ts';
import { readU16, readU32, writeU16, writeU32 } from '../proto/be.ts';
import {
  AF_INET,
  AF_INET6,
  AF_UNIX,
  Errno,
  IPPROTO_TCP,
  SO_LINGER,
  SOL_SOCKET,
  TCP_INFO,
} from './constants.ts';
import { failed, libc } from './libc.ts';
import { type NativeAddress, NativeBuffer, writeAddress } from './memory.ts';

type N = number;
const P = 'uintptr_t';
const cSocket = libc<[N, N, N]>('socket', 'int', ['int', 'int', 'int']);
const cSocketpair = libc<[N, N, N, N]>('socketpair', 'int', ['int', 'int', 'int', P]);
const cBind = libc<[N, N, N]>('bind', 'int', ['int', P, 'uint32_t']);
const cConnect = libc<[N, N, N]>('connect', 'int', ['int', P, 'uint32_t']);
const cListen = libc<[N, N]>('listen', 'int', ['int', 'int']);
const cAccept4 = libc<[N, N, N, N]>('accept4', 'int', ['int', P, P, 'int']);
const cGetsockname = libc<[N, N, N]>('getsockname', 'int', ['int', P, P]);
const cGetpeername = libc<[N, N, N]>('getpeername', 'int', ['int', P, P]);
const cSetsockopt = libc<[N, N, N, N, N]>('setsockopt', 'int', ['int', 'int', 'int', P, 'uint32_t']);
const cGetsockopt = libc<[N, N, N, N, N]>('getsockopt', 'int', ['int', 'int', 'int', P, P]);
const cShutdown = libc<[N, N]>('shutdown', 'int', ['int', 'int']);
// send(2) and recv(2) are these two without an address: one function less to make callable.
const cRecvfrom = libc<[N, N, N, N, N, N]>('recvfrom', 'int', ['int', P, 'size_t', 'int', P, P]);
const cSendto = libc<[N, N, N, N, N, N]>('sendto', 'int', ['int', P, 'size_t', 'int', P, 'uint32_t']);
const cSendmsg = libc<[N, N, N]>('sendmsg', 'int', ['int', P, 'int']);
const cRecvmsg = libc<[N, N, N]>('recvmsg', 'int', ['int', P, 'int']);
const cSendmmsg = libc<[N, N, N, N]>('sendmmsg', 'int', ['int', P, 'uint32_t', 'int']);
const cRecvmmsg = libc<[N, N, N, N, N]>('recvmmsg', 'int', ['int', P, 'uint32_t', 'int', P]);

/** Word 0: an int option. Word 1: a socklen_t. */
const scratch = new NativeBuffer(8);
const INT_AT = 0;
const LEN_AT = 4;

/** struct linger, <linux/socket.h>: l_onoff, l_linger in seconds, both int. */
export const LINGER_BYTES = 8;
/** On, with zero seconds. */
const lingerZero = new NativeBuffer(LINGER_BYTES);
/** struct tcp_info of <linux/tcp.h>, up to tcpi_total_retrans; and indexes of 32-bit words in it. */
const TCP_INFO_BYTES = 104;
const TCPI_RTT = 68 >> 2;
const TCPI_SND_CWND = 80 >> 2;
const TCPI_TOTAL_RETRANS = 100 >> 2;
const tcpInfoBuffer = new NativeBuffer(TCP_INFO_BYTES);
lingerZero.u32[0] = 1;

// ---- calls ------------------------------------------------------------------------------------------------

/** socket(2). @param type  SOCK_*, with SOCK_NONBLOCK | SOCK_CLOEXEC @returns a descriptor or -errno */
export function socket(domain: number, type: number, protocol: number): number {
  const r = cSocket(domain, type, protocol);
  return r < 0 ? failed() : r;
}

/**
 * socketpair(2): two sockets that are connected with each other.
 * @param address  address of two ints, filled with the two descriptors
 * @returns 0 or -errno
 */
export function socketpair(
  domain: number,
  type: number,
  protocol: number,
  address: NativeAddress | number,
): number {
  const r = cSocketpair(domain, type, protocol, address);
  return r < 0 ? failed() : r;
}

/** bind(2). @param address  address of a sockaddr of `addressBytes` bytes @returns 0 or -errno */
export function bind(fd: number, address: NativeAddress | number, addressBytes: number): number {
  const r = cBind(fd, address, addressBytes);
  return r < 0 ? failed() : r;
}

/** connect(2). @returns 0 or -errno; -EINPROGRESS for a non-blocking stream socket */
export function connect(fd: number, address: NativeAddress | number, addressBytes: number): number {
  const r = cConnect(fd, address, addressBytes);
  return r < 0 ? failed() : r;
}

/** listen(2). @returns 0 or -errno */
export function listen(fd: number, backlog: number): number {
  const r = cListen(fd, backlog);
  return r < 0 ? failed() : r;
}

/**
 * accept4(2).
 * @param address  address of memory for the peer's sockaddr, or 0
 * @param lengthAddress  address of a u32: before the call the room at `address`, after it the length of the
 *   sockaddr; 0 if `address` is 0
 * @param flags  SOCK_NONBLOCK, SOCK_CLOEXEC
 * @returns a descriptor or -errno
 */
export function accept4(
  fd: number,
  address: NativeAddress | number,
  lengthAddress: NativeAddress | number,
  flags: number,
): number {
  const r = cAccept4(fd, address, lengthAddress, flags);
  return r < 0 ? failed() : r;
}

/** getsockname(2). @param lengthAddress  address of a u32, as for accept4 @returns 0 or -errno */
export function getsockname(fd: number, address: number, lengthAddress: number): number {
  const r = cGetsockname(fd, address, lengthAddress);
  return r < 0 ? failed() : r;
}

/** getpeername(2). @param lengthAddress  address of a u32, as for accept4 @returns 0 or -errno */
export function getpeername(fd: number, address: number, lengthAddress: number): number {
  const r = cGetpeername(fd, address, lengthAddress);
  return r < 0 ? failed() : r;
}

/** setsockopt(2) for an int option. @returns 0 or -errno */
export function setsockoptInt(fd: number, level: number, name: number, value: number): number {
  scratch.i32[INT_AT >> 2] = value;
  const r = cSetsockopt(fd, level, name, scratch.address + INT_AT, 4);
  return r < 0 ? failed() : r;
}

/**
 * getsockopt(2) for an int option that is never negative (SO_PEEK_OFF can be -1).
 * @returns the option's value or -errno. The value of SO_ERROR is a positive errno, or 0 for none.
 */
export function getsockoptInt(fd: number, level: number, name: number): number {
  scratch.u32[LEN_AT >> 2] = 4;
  scratch.i32[INT_AT >> 2] = 0;
  const r = cGetsockopt(fd, level, name, scratch.address + INT_AT, scratch.address + LEN_AT);
  return r < 0 ? failed() : scratch.i32[INT_AT >> 2]!;
}

/** setsockopt(2) for a structure of `bytes` bytes at `address`. @returns 0 or -errno */
export function setsockoptBytes(
  fd: number,
  level: number,
  name: number,
  address: NativeAddress | number,
  bytes: number,
): number {
  const r = cSetsockopt(fd, level, name, address, bytes);
  return r < 0 ? failed() : r;
}

/** Set SO_LINGER to zero seconds, so that close() sends a RST. @returns 0 or -errno */
export function setLingerZero(fd: number): number {
  const r = cSetsockopt(fd, SOL_SOCKET, SO_LINGER, lingerZero.address, LINGER_BYTES);
  return r < 0 ? failed() : r;
}

/** getsockopt(2) for a structure. @returns bytes that the kernel wrote, at most `bytes`, or -errno */
export function getsockoptBytes(
  fd: number,
  level: number,
  name: number,
  address: NativeAddress | number,
  bytes: number,
): number {
  scratch.u32[LEN_AT >> 2] = bytes;
  const r = cGetsockopt(fd, level, name, address, scratch.address + LEN_AT);
  return r < 0 ? failed() : scratch.u32[LEN_AT >> 2]!;
}

/**
 * What the kernel says about a TCP connection, for reports: not for packets' code.
 * @param rows  gets round-trip time in microseconds, segments sent again, congestion window in segments
 * @param at    index of the first of them
 * @returns whether it was written
 */
export function tcpInfo(fd: number, rows: Float64Array, at: number): boolean {
  const { address, u32 } = tcpInfoBuffer;
  if (getsockoptBytes(fd, IPPROTO_TCP, TCP_INFO, address, TCP_INFO_BYTES) < TCP_INFO_BYTES) return false;
  if (u32[TCPI_RTT] === 0) return false; // not connected
  rows[at] = u32[TCPI_RTT]!;
  rows[at + 1] = u32[TCPI_TOTAL_RETRANS]!;
  rows[at + 2] = u32[TCPI_SND_CWND]!;
  return true;
}

/** shutdown(2). @param how  SHUT_* @returns 0 or -errno */
export function shutdown(fd: number, how: number): number {
  const r = cShutdown(fd, how);
  return r < 0 ? failed() : r;
}

/** send(2). @param flags  MSG_*; pass MSG_NOSIGNAL with stream sockets @returns bytes sent or -errno */
export function send(fd: number, address: NativeAddress | number, bytes: number, flags: number): number {
  const r = cSendto(fd, address, bytes, flags, 0, 0);
  return r < 0 ? failed() : r;
}

/**
 * recv(2).
 * @param flags  MSG_*; on TCP, MSG_TRUNC discards up to `bytes` bytes, and `address` may be 0
 * @returns bytes received or -errno
 */
export function recv(fd: number, address: NativeAddress | number, bytes: number, flags: number): number {
  const r = cRecvfrom(fd, address, bytes, flags, 0, 0);
  return r < 0 ? failed() : r;
}

/** sendto(2). @param toAddress  address of a sockaddr of `toBytes` bytes @returns bytes sent or -errno */
export function sendto(
  fd: number,
  address: NativeAddress | number,
  bytes: number,
  flags: number,
  toAddress: NativeAddress | number,
  toBytes: number,
): number {
  const r = cSendto(fd, address, bytes, flags, toAddress, toBytes);
  return r < 0 ? failed() : r;
}

/** sendmsg(2). @param msgAddress  address of a struct msghdr (msghdrWrite) @returns bytes sent or -errno */
export function sendmsg(fd: number, msgAddress: NativeAddress | number, flags: number): number {
  const r = cSendmsg(fd, msgAddress, flags);
  return r < 0 ? failed() : r;
}

/**
 * recvmsg(2).
 * @param msgAddress address of a struct msghdr. The kernel writes its name length, control length and flags,
 *   so
 *   the lengths have to be set again before the next call.
 * @returns bytes received or -errno
 */
export function recvmsg(fd: number, msgAddress: NativeAddress | number, flags: number): number {
  const r = cRecvmsg(fd, msgAddress, flags);
  return r < 0 ? failed() : r;
}

/**
 * sendmmsg(2).
 * @param vecAddress  address of `count` struct mmsghdr
 * @returns messages sent, or -errno if the first one failed
 */
export function sendmmsg(
  fd: number,
  vecAddress: NativeAddress | number,
  count: number,
  flags: number,
): number {
  const r = cSendmmsg(fd, vecAddress, count, flags);
  return r < 0 ? failed() : r;
}

/** recvmmsg(2). @param vecAddress  address of `count` struct mmsghdr @returns messages received or -errno */
export function recvmmsg(
  fd: number,
  vecAddress: NativeAddress | number,
  count: number,
  flags: number,
): number {
  const r = cRecvmmsg(fd, vecAddress, count, flags, 0);
  return r < 0 ? failed() : r;
}

// ---- struct sockaddr_in, sockaddr_in6: <linux/in.h>, <linux/in6.h> ----------------------------------------
//
//   sockaddr_in   +0 family u16   +2 port be16   +4 address be32   +8 eight zero bytes                   = 16
//   sockaddr_in6  +0 family u16   +2 port be16   +4 flowinfo be32  +8 address 16 bytes  +24 scope u32    = 28

export const SOCKADDR_BYTES = 28;
export const SOCKADDR_IN_BYTES = 16;
export const SOCKADDR_IN6_BYTES = 28;
/** Room for either sockaddr, a multiple of 8 so that an array of them stays aligned. */
export const NAME_BYTES = 32;

/**
 * Write a sockaddr at offset `at`, for bind, connect or sendmsg.
 * @param words,w  address, words[w..w + 3]; v4-mapped for IPv4
 * @param scopeId  interface index for a link-local IPv6 address, else 0
 * @param forceV6  write a v4-mapped address as sockaddr_in6, for a dual-stack socket
 * @returns bytes of the sockaddr: 16 or 28
 */
export function sockaddrWrite(
  u8: Uint8Array,
  at: number,
  words: Uint32Array,
  w: number,
  port: number,
  scopeId = 0,
  forceV6 = false,
): number {
  u8[at + 1] = 0;
  writeU16(u8, at + 2, port);
  if (!forceV6 && isV4Mapped(words, w)) {
    u8[at] = AF_INET;
    writeU32(u8, at + 4, words[w + 3]!);
    u8.fill(0, at + 8, at + SOCKADDR_IN_BYTES);
    return SOCKADDR_IN_BYTES;
  }
  u8[at] = AF_INET6;
  u8.fill(0, at + 4, at + 8);
  addressWrite(u8, at + 8, words, w);
  u8[at + 24] = scopeId;
  u8[at + 25] = scopeId >>> 8;
  u8[at + 26] = scopeId >>> 16;
  u8[at + 27] = scopeId >>> 24;
  return SOCKADDR_IN6_BYTES;
}

/**
 * Read the sockaddr at offset `at`.
 * @param words,w  filled: the address in words[w..w + 3], v4-mapped for AF_INET
 * @returns the port, or -EAFNOSUPPORT for another family (words are not changed)
 */
export function sockaddrRead(u8: Uint8Array, at: number, words: Uint32Array, w: number): number {
  const family = u8[at]! | (u8[at + 1]! << 8);
  if (family === AF_INET) addressSetIpv4(words, w, readU32(u8, at + 4));
  else if (family === AF_INET6) addressRead(u8, at + 8, words, w);
  else return -Errno.EAFNOSUPPORT;
  return readU16(u8, at + 2);
}

/** Scope id (interface index) of the sockaddr at offset `at`; 0 for IPv4. */
export function sockaddrScope(u8: Uint8Array, at: number): number {
  if (u8[at] !== AF_INET6) return 0;
  return (u8[at + 24]! | (u8[at + 25]! << 8) | (u8[at + 26]! << 16) | (u8[at + 27]! << 24)) >>> 0;
}

/** +0 a sockaddr, +28 its socklen_t. */
const name = new NativeBuffer(SOCKADDR_BYTES + 4);
const NAME_LENGTH_AT = SOCKADDR_BYTES;

/**
 * The local address of a socket (getsockname).
 * @param words,w  filled: the address in words[w..w + 3], v4-mapped for AF_INET
 * @returns the port, or -errno
 */
export function localAddress(fd: number, words: Uint32Array, w: number): number {
  name.u32[NAME_LENGTH_AT >> 2] = SOCKADDR_BYTES;
  const r = getsockname(fd, name.address, name.address + NAME_LENGTH_AT);
  return r < 0 ? r : sockaddrRead(name.u8, 0, words, w);
}

/**
 * The peer's address of a connected socket (getpeername).
 * @param words,w  filled: the address in words[w..w + 3], v4-mapped for AF_INET
 * @returns the port, or -errno; -ENOTCONN: the peer has closed the connection
 */
export function peerAddress(fd: number, words: Uint32Array, w: number): number {
  name.u32[NAME_LENGTH_AT >> 2] = SOCKADDR_BYTES;
  const r = getpeername(fd, name.address, name.address + NAME_LENGTH_AT);
  return r < 0 ? r : sockaddrRead(name.u8, 0, words, w);
}

/**
 * The scope id of a connected socket's link-local IPv6 peer.
 * @returns interface index, 0 for a peer without a scope, or -errno
 */
export function peerScope(fd: number): number {
  name.u32[NAME_LENGTH_AT >> 2] = SOCKADDR_BYTES;
  const r = getpeername(fd, name.address, name.address + NAME_LENGTH_AT);
  return r < 0 ? r : sockaddrScope(name.u8, 0);
}

// ---- struct iovec, msghdr, mmsghdr: <linux/uio.h>, <linux/socket.h> ---------------------------------------
//
//   iovec    +0 base   +8 len                                                                            = 16
//   msghdr   +0 name   +8 namelen u32   +16 iov   +24 iovlen   +32 control   +40 controllen   +48 flags  = 56
//   mmsghdr  +0 msghdr                                                       +56 len u32                 = 64

export const IOVEC_BYTES = 16;
export const IOVEC_WORDS = 4;
export const MSGHDR_BYTES = 56;
export const MMSGHDR_BYTES = 64;
export const MMSGHDR_WORDS = 16;
/** Word offsets in msghdr of the fields that are read after a call or set again before the next. */
export const MSGHDR_NAMELEN_WORD = 2;
export const MSGHDR_IOV_WORD = 4;
export const MSGHDR_IOVLEN_WORD = 6;
export const MSGHDR_CONTROL_WORD = 8;
export const MSGHDR_CONTROLLEN_WORD = 10;
export const MSGHDR_FLAGS_WORD = 12;
/** Word offset in mmsghdr of msg_len, the length of the message that was sent or received. */
export const MMSGHDR_LEN_WORD = 14;

/** Write one struct iovec at word `wordIndex`. */
export function iovecWrite(u32: Uint32Array, wordIndex: number, address: number, bytes: number): void {
  writeAddress(u32, wordIndex, address);
  u32[wordIndex + 2] = bytes;
  u32[wordIndex + 3] = 0;
}

/**
 * Write one struct msghdr without control messages at word `wordIndex`.
 * @param nameAddress,nameBytes  a sockaddr, or room for one; 0 and 0 for none
 */
export function msghdrWrite(
  u32: Uint32Array,
  wordIndex: number,
  nameAddress: number,
  nameBytes: number,
  iovAddress: number,
  iovCount: number,
): void {
  writeAddress(u32, wordIndex, nameAddress);
  u32[wordIndex + 2] = nameBytes;
  u32[wordIndex + 3] = 0;
  writeAddress(u32, wordIndex + 4, iovAddress);
  u32[wordIndex + 6] = iovCount;
  u32[wordIndex + 7] = 0;
  u32[wordIndex + 12] = 0;
  u32[wordIndex + 13] = 0;
  msghdrControlWrite(u32, wordIndex, 0, 0);
}

/**
 * Set the control messages, or the room for them, of a struct msghdr that msghdrWrite() wrote at the same
 * word.
 */
export function msghdrControlWrite(
  u32: Uint32Array,
  wordIndex: number,
  controlAddress: number,
  controlBytes: number,
): void {
  writeAddress(u32, wordIndex + 8, controlAddress);
  u32[wordIndex + 10] = controlBytes;
  u32[wordIndex + 11] = 0;
}

// ---- other structures -------------------------------------------------------------------------------------

/** struct ip_mreqn, <linux/in.h>: group be32, local be32, ifindex i32. */
export const IP_MREQN_BYTES = 12;
/** struct ipv6_mreq, <linux/in6.h>: group 16 bytes, ifindex i32. */
export const IPV6_MREQ_BYTES = 20;

/** sizeof(struct sockaddr_un), <linux/un.h>: family u16, path. */
const SOCKADDR_UN_BYTES = 110;
const SUN_PATH_AT = 2;

/** The path that a UNIX socket is bound to. Cold. @returns undefined: it is not such a socket, or not bound to a path */
export function localPath(fd: number): string | undefined {
  const memory = new NativeBuffer(SOCKADDR_UN_BYTES + 6);
  const lengthAt = SOCKADDR_UN_BYTES + 2; // a multiple of 4
  memory.u32[lengthAt >> 2] = SOCKADDR_UN_BYTES;
  if (getsockname(fd, memory.address, memory.address + lengthAt) < 0) return undefined;
  const length = Math.min(memory.u32[lengthAt >> 2]!, SOCKADDR_UN_BYTES);
  if (memory.u16[0] !== AF_UNIX || length <= SUN_PATH_AT || memory.u8[SUN_PATH_AT] === 0) return undefined;
  const path = memory.u8.subarray(SUN_PATH_AT, length);
  const end = path.indexOf(0);
  return new TextDecoder().decode(end < 0 ? path : path.subarray(0, end));
}
