/**
 * Control messages of datagrams (man 3 cmsg), read and written in place, and the structures in them. Hot: the
 * functions take numbers, return a result or -errno, and allocate nothing. `first` is the word index at which
 * the control bytes of a message begin.
 * @syscalls (none)
 */
import { addressRead, addressSetIpv4, addressWrite } from '../proto/address.ts';
import { readU32, writeU32 } from '../proto/be.ts';
import {
  Errno,
  IP_PKTINFO,
  IP_TOS,
  IP_TTL,
  IPV6_HOPLIMIT,
  IPV6_PKTINFO,
  IPV6_TCLASS,
  SOL_IP,
  SOL_IPV6,
  SOL_UDP,
  UDP_GRO,
  UDP_SEGMENT,
} from './constants.ts';
import type { NativeBuffer } from './memory.ts';

// ---- struct cmsghdr: <linux/socket.h> ---------------------------------------------------------------------
//
//   cmsghdr  +0 len (header and data) u64   +8 level   +12 type   +16 data, the next header at a multiple of 8

export const CMSG_HEADER_BYTES = 16;
export const CMSG_LEVEL_WORD = 2;
export const CMSG_TYPE_WORD = 3;

/** CMSG_LEN: value of cmsg_len for `dataBytes` bytes of data. */
export const cmsgLen = (dataBytes: number): number => CMSG_HEADER_BYTES + dataBytes;
/** CMSG_SPACE: bytes that a control message with `dataBytes` bytes of data takes in the buffer. */
export const cmsgSpace = (dataBytes: number): number => CMSG_HEADER_BYTES + ((dataBytes + 7) & ~7);

/**
 * Write a header at word `wordIndex`; the caller writes the data at word `wordIndex + 4`.
 * @returns bytes that header and data take in the buffer: CMSG_SPACE
 */
export function cmsgWrite(
  u32: Uint32Array,
  wordIndex: number,
  level: number,
  type: number,
  dataBytes: number,
): number {
  u32[wordIndex] = CMSG_HEADER_BYTES + dataBytes;
  u32[wordIndex + 1] = 0;
  u32[wordIndex + 2] = level;
  u32[wordIndex + 3] = type;
  return CMSG_HEADER_BYTES + ((dataBytes + 7) & ~7);
}

/**
 * Length of the data of the control message at word `wordIndex`.
 * @param endWord  word index of the end of the control bytes that the kernel wrote (msg_controllen)
 * @returns bytes of data, all of them before endWord; or -EBADMSG at the end of the list and for a bad length
 */
export function cmsgDataBytes(u32: Uint32Array, wordIndex: number, endWord: number): number {
  if (wordIndex + 4 > endWord) return -Errno.EBADMSG;
  const length = u32[wordIndex]!;
  if (u32[wordIndex + 1] !== 0 || length < CMSG_HEADER_BYTES) return -Errno.EBADMSG;
  if (length > (endWord - wordIndex) * 4) return -Errno.EBADMSG;
  return length - CMSG_HEADER_BYTES;
}

/** Word index of the control message after the one at `wordIndex`, which has `dataBytes` of data. */
export function cmsgNext(wordIndex: number, dataBytes: number): number {
  return wordIndex + ((CMSG_HEADER_BYTES + ((dataBytes + 7) & ~7)) >> 2);
}

// ---- struct sock_extended_err: <linux/errqueue.h> ---------------------------------------------------------
//
//   data of the IP_RECVERR / IPV6_RECVERR message; the offender's sockaddr (port 0) follows
//   +0 errno u32   +4 origin u8   +5 type u8   +6 code u8   +7 pad   +8 info u32 (new MTU)   +12 data u32

export const SOCK_EXTENDED_ERR_BYTES = 16;
export const EE_ERRNO_AT = 0;
export const EE_ORIGIN_AT = 4;
export const EE_TYPE_AT = 5;
export const EE_CODE_AT = 6;
export const EE_INFO_AT = 8;
export const EE_DATA_AT = 12;
export const EE_OFFENDER_AT = 16;

/** struct in_pktinfo, <linux/in.h>: ifindex i32, spec_dst be32, addr be32. */
export const IN_PKTINFO_BYTES = 12;
/** struct in6_pktinfo, <linux/ipv6.h>: address 16 bytes, ifindex u32. */
export const IN6_PKTINFO_BYTES = 20;

// ---- what datagrams carry ---------------------------------------------------------------------------------

/** Control bytes of a message that the kernel splits into segments (UDP_SEGMENT). */
export const SEGMENT_CONTROL_BYTES = cmsgSpace(2);

/** Segment size of a received message that holds several datagrams (UDP_GRO); 0: it holds one datagram. */
export function gsoSizeOf(u32: Uint32Array, first: number, controlBytes: number): number {
  const end = first + (controlBytes >> 2);
  let at = first;
  for (let n = cmsgDataBytes(u32, at, end); n >= 0; n = cmsgDataBytes(u32, at, end)) {
    if (n >= 4 && u32[at + CMSG_LEVEL_WORD] === SOL_UDP && u32[at + CMSG_TYPE_WORD] === UDP_GRO) {
      return u32[at + (CMSG_HEADER_BYTES >> 2)]!;
    }
    at = cmsgNext(at, n);
  }
  return 0;
}

/** TTL or hop limit of a received message; 0: the kernel did not report it. */
export function ttlOf(u32: Uint32Array, first: number, controlBytes: number): number {
  const end = first + (controlBytes >> 2);
  let at = first;
  for (let n = cmsgDataBytes(u32, at, end); n >= 0; n = cmsgDataBytes(u32, at, end)) {
    const level = u32[at + CMSG_LEVEL_WORD];
    const type = u32[at + CMSG_TYPE_WORD];
    if (n >= 4 && ((level === SOL_IP && type === IP_TTL) || (level === SOL_IPV6 && type === IPV6_HOPLIMIT))) {
      return u32[at + (CMSG_HEADER_BYTES >> 2)]! & 0xff;
    }
    at = cmsgNext(at, n);
  }
  return 0;
}

/** TOS or traffic class of a received message; 0: the kernel did not report it. */
export function tosOf(u32: Uint32Array, first: number, controlBytes: number): number {
  const end = first + (controlBytes >> 2);
  let at = first;
  for (let n = cmsgDataBytes(u32, at, end); n >= 0; n = cmsgDataBytes(u32, at, end)) {
    const level = u32[at + CMSG_LEVEL_WORD];
    const type = u32[at + CMSG_TYPE_WORD];
    // IPv4's value is one byte, IPv6's an int; the CPU is little-endian.
    if (n >= 1 && ((level === SOL_IP && type === IP_TOS) || (level === SOL_IPV6 && type === IPV6_TCLASS))) {
      return u32[at + (CMSG_HEADER_BYTES >> 2)]! & 0xff;
    }
    at = cmsgNext(at, n);
  }
  return 0;
}

/**
 * Write the destination address of a received message (PKTINFO) to words[w..w + 3].
 * @returns false when the kernel did not report it
 */
export function localAddressOf(
  control: NativeBuffer,
  first: number,
  controlBytes: number,
  words: Uint32Array,
  w: number,
): boolean {
  const { u8, u32 } = control;
  const end = first + (controlBytes >> 2);
  let at = first;
  for (let n = cmsgDataBytes(u32, at, end); n >= 0; n = cmsgDataBytes(u32, at, end)) {
    const level = u32[at + CMSG_LEVEL_WORD];
    const type = u32[at + CMSG_TYPE_WORD];
    const dataAt = at * 4 + CMSG_HEADER_BYTES;
    if (level === SOL_IP && type === IP_PKTINFO && n >= IN_PKTINFO_BYTES) {
      addressSetIpv4(words, w, readU32(u8, dataAt + 4));
      return true;
    }
    if (level === SOL_IPV6 && type === IPV6_PKTINFO && n >= IN6_PKTINFO_BYTES) {
      addressRead(u8, dataAt, words, w);
      return true;
    }
    at = cmsgNext(at, n);
  }
  return false;
}

/**
 * Whether a received message was sent to a broadcast or multicast address: PKTINFO of IPv4 then has a
 * destination in its header (ipi_addr) that is not the local address (ipi_spec_dst).
 */
export function isToMany(control: NativeBuffer, first: number, controlBytes: number): boolean {
  const { u32 } = control;
  const end = first + (controlBytes >> 2);
  let at = first;
  for (let n = cmsgDataBytes(u32, at, end); n >= 0; n = cmsgDataBytes(u32, at, end)) {
    if (
      u32[at + CMSG_LEVEL_WORD] === SOL_IP &&
      u32[at + CMSG_TYPE_WORD] === IP_PKTINFO &&
      n >= IN_PKTINFO_BYTES
    ) {
      const data = at + (CMSG_HEADER_BYTES >> 2);
      return u32[data + 1] !== u32[data + 2];
    }
    at = cmsgNext(at, n);
  }
  return false;
}

/**
 * Write a UDP_SEGMENT control message: the kernel splits the message into datagrams.
 * @param at  byte offset of the control message, a multiple of 4
 * @param segment  payload bytes of each datagram but the last
 * @returns bytes that the control message takes
 */
export function segmentWrite(control: NativeBuffer, at: number, segment: number): number {
  const bytes = cmsgWrite(control.u32, at >> 2, SOL_UDP, UDP_SEGMENT, 2);
  control.u16[(at + CMSG_HEADER_BYTES) >> 1] = segment;
  return bytes;
}

/**
 * Write a control message with the TOS or traffic class of a datagram.
 * @param at  byte offset of the control message, a multiple of 8
 * @param isV6  whether the datagram is IPv6
 * @returns bytes that the control message takes
 */
export function tosWrite(control: NativeBuffer, at: number, tos: number, isV6: boolean): number {
  const { u32 } = control;
  u32[(at + CMSG_HEADER_BYTES) >> 2] = tos;
  return cmsgWrite(u32, at >> 2, isV6 ? SOL_IPV6 : SOL_IP, isV6 ? IPV6_TCLASS : IP_TOS, 4);
}

/**
 * Write a PKTINFO control message at offset 0, which sets the source address of a datagram.
 * @param words,w  the address, words[w..w + 3]
 * @param scope  interface index for a link-local IPv6 address, else 0
 * @param isV6  whether the socket is an AF_INET6 socket
 * @returns bytes that the control message takes
 */
export function pktinfoWrite(
  control: NativeBuffer,
  words: Uint32Array,
  w: number,
  scope: number,
  isV6: boolean,
): number {
  const { u8, u32 } = control;
  const dataAt = CMSG_HEADER_BYTES;
  if (isV6) {
    addressWrite(u8, dataAt, words, w);
    u32[(dataAt + 16) >> 2] = scope;
    return cmsgWrite(u32, 0, SOL_IPV6, IPV6_PKTINFO, IN6_PKTINFO_BYTES);
  }
  u32[dataAt >> 2] = 0;
  writeU32(u8, dataAt + 4, words[w + 3]!);
  u32[(dataAt + 8) >> 2] = 0;
  return cmsgWrite(u32, 0, SOL_IP, IP_PKTINFO, IN_PKTINFO_BYTES);
}
