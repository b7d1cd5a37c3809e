/**
 * Membership of a socket in multicast groups, by the options that are the same for both families (RFC 3678
 * section 5). Not hot. Functions return 0 or -errno.
 * @syscalls (none)
 */
import { isV4Mapped } from '../proto/address.ts';
import {
  MCAST_EXCLUDE,
  MCAST_INCLUDE,
  MCAST_JOIN_GROUP,
  MCAST_MSFILTER,
  SO_BINDTOIFINDEX,
  SOL_IP,
  SOL_IPV6,
  SOL_SOCKET,
} from './constants.ts';
import { NativeBuffer } from './memory.ts';
import { getsockoptInt, setsockoptBytes, setsockoptInt, sockaddrWrite } from './socket.ts';

// ---- struct group_req, group_filter: <linux/in.h> ---------------------------------------------------------
//
//   group_req      +0 interface u32   +8 group                                                          = 136
//   group_filter   +0 interface u32   +8 group   +136 mode u32   +140 number of sources u32   +144 sources
//   group, source  struct sockaddr_storage, 128 bytes

export const GROUP_REQ_BYTES = 136;
export const GROUP_FILTER_BYTES = 144;
export const SOCKADDR_STORAGE_BYTES = 128;
const GROUP_AT = 8;
const MODE_WORD = 136 >> 2;
const COUNT_WORD = 140 >> 2;

/** Most sources of a filter here; the kernel's own limits are igmp_max_msf and mld_max_msf. */
export const MAX_SOURCES = 64;

const request = new NativeBuffer(GROUP_FILTER_BYTES + MAX_SOURCES * SOCKADDR_STORAGE_BYTES);

function groupWrite(words: Uint32Array, w: number, ifindex: number): void {
  request.u32[0] = ifindex;
  sockaddrWrite(request.u8, GROUP_AT, words, w, 0);
}

/**
 * Join a group.
 * @param words,w  the group, words[w..w + 3]
 * @param ifindex  index of the interface; 0: the one that the kernel's route to the group leads to
 */
export function joinGroup(fd: number, words: Uint32Array, w: number, ifindex: number): number {
  groupWrite(words, w, ifindex);
  const level = isV4Mapped(words, w) ? SOL_IP : SOL_IPV6;
  return setsockoptBytes(fd, level, MCAST_JOIN_GROUP, request.address, GROUP_REQ_BYTES);
}

/**
 * Replace the source filter of a group that the socket has joined.
 * @param ifindex  as for joinGroup()
 * @param isInclude  only datagrams of these sources are received; else all but those
 * @param sources  four words each, up to MAX_SOURCES
 * @returns 0 or -errno; -ENOBUFS: more sources than the kernel allows
 */
export function filterGroup(
  fd: number,
  words: Uint32Array,
  w: number,
  ifindex: number,
  isInclude: boolean,
  sources: Uint32Array,
): number {
  const count = sources.length >> 2;
  groupWrite(words, w, ifindex);
  request.u32[MODE_WORD] = isInclude ? MCAST_INCLUDE : MCAST_EXCLUDE;
  request.u32[COUNT_WORD] = count;
  for (let i = 0; i < count; i++)
    sockaddrWrite(request.u8, GROUP_FILTER_BYTES + i * SOCKADDR_STORAGE_BYTES, sources, i * 4, 0);
  const level = isV4Mapped(words, w) ? SOL_IP : SOL_IPV6;
  const bytes = GROUP_FILTER_BYTES + count * SOCKADDR_STORAGE_BYTES;
  return setsockoptBytes(fd, level, MCAST_MSFILTER, request.address, bytes);
}

/** @returns index of the interface that a socket is bound to; 0: none, or the kernel is older than 5.1 */
export function boundInterface(fd: number): number {
  return Math.max(0, getsockoptInt(fd, SOL_SOCKET, SO_BINDTOIFINDEX));
}

/** Bind a socket to an interface by its index. @returns 0 or -errno */
export function bindToInterface(fd: number, ifindex: number): number {
  return setsockoptInt(fd, SOL_SOCKET, SO_BINDTOIFINDEX, ifindex);
}
