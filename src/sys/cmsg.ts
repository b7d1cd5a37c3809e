/** Control messages of datagrams (man 3 cmsg), read and written in place. `first` is the word where a message's control bytes begin. */
import { readU32, writeU32 } from '../proto/be.ts';
import {
  IP_PKTINFO,
  IP_TTL,
  IPV6_HOPLIMIT,
  IPV6_PKTINFO,
  SOL_IP,
  SOL_IPV6,
  SOL_UDP,
  UDP_GRO,
  UDP_SEGMENT,
} from './constants.ts';
import type { NativeBuffer } from './memory.ts';
import {
  CMSG_HEADER_BYTES,
  CMSG_LEVEL_WORD,
  CMSG_TYPE_WORD,
  cmsgDataBytes,
  cmsgNext,
  cmsgSpace,
  cmsgWrite,
  IN_PKTINFO_BYTES,
  IN6_PKTINFO_BYTES,
} from './socket.ts';

/** Control bytes of one message that is sent in segments. */
export const SEGMENT_CONTROL_BYTES = cmsgSpace(2);

/** Datagram size when a received message is several datagrams (UDP_GRO), 0: it is one. */
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

/** TTL or hop limit of a received message, 0: not told. */
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

/** The address that a message came to (PKTINFO), into words[w..w+3]. @returns false when the kernel did not say */
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
      words[w] = 0;
      words[w + 1] = 0;
      words[w + 2] = 0xffff;
      words[w + 3] = readU32(u8, dataAt + 4);
      return true;
    }
    if (level === SOL_IPV6 && type === IPV6_PKTINFO && n >= IN6_PKTINFO_BYTES) {
      for (let k = 0; k < 4; k++) words[w + k] = readU32(u8, dataAt + 4 * k);
      return true;
    }
    at = cmsgNext(at, n);
  }
  return false;
}

/** Ask for a message to be sent in segments. @param at  byte offset of the control message @returns its bytes */
export function segmentWrite(control: NativeBuffer, at: number, segment: number): number {
  const bytes = cmsgWrite(control.u32, at >> 2, SOL_UDP, UDP_SEGMENT, 2);
  control.u16[(at + CMSG_HEADER_BYTES) >> 1] = segment;
  return bytes;
}

/**
 * Source address of a datagram.
 * @param words,w  the address
 * @param scope  interface index of a link-local IPv6 one, else 0
 * @param isV6  the socket is an AF_INET6 one
 * @returns control bytes
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
    for (let i = 0; i < 4; i++) writeU32(u8, dataAt + 4 * i, words[w + i]!);
    u32[(dataAt + 16) >> 2] = scope;
    return cmsgWrite(u32, 0, SOL_IPV6, IPV6_PKTINFO, IN6_PKTINFO_BYTES);
  }
  u32[dataAt >> 2] = 0;
  writeU32(u8, dataAt + 4, words[w + 3]!);
  u32[(dataAt + 8) >> 2] = 0;
  return cmsgWrite(u32, 0, SOL_IP, IP_PKTINFO, IN_PKTINFO_BYTES);
}
