/**
 * Descriptors that are passed over UNIX sockets (SCM_RIGHTS, unix(7)), and who is at the other end. Cold; every
 * function returns a result or -errno.
 * @syscalls sendmsg recvmsg getsockopt close
 */
import { CMSG_HEADER_BYTES, cmsgDataBytes, cmsgNext, cmsgSpace, cmsgWrite } from './cmsg.ts';
import {
  Errno,
  MSG_CMSG_CLOEXEC,
  MSG_CTRUNC,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  SCM_RIGHTS,
  SO_ACCEPTCONN,
  SO_PEERCRED,
  SOL_SOCKET,
} from './constants.ts';
import { close } from './io.ts';
import { NativeBuffer } from './memory.ts';
import {
  getsockoptBytes,
  getsockoptInt,
  IOVEC_BYTES,
  iovecWrite,
  MSGHDR_BYTES,
  MSGHDR_FLAGS_WORD,
  msghdrControlWrite,
  msghdrWrite,
  recvmsg,
  sendmsg,
} from './socket.ts';

/** Descriptors that one message may bring. */
export const MAX_PASSED = 16;
const CONTROL_AT = MSGHDR_BYTES + IOVEC_BYTES;
const CONTROL_WORD = CONTROL_AT >> 2;
const CONTROL_BYTES = cmsgSpace(MAX_PASSED * 4);
/** Words of a struct msghdr, of a struct cmsghdr. */
const MSG_CONTROLLEN_WORD = 10;
const LEVEL_WORD = 2;
const TYPE_WORD = 3;
const DATA_WORD = CMSG_HEADER_BYTES >> 2;
/** struct ucred, <linux/socket.h>: pid i32, uid u32, gid u32. */
const UCRED_BYTES = 12;
const UCRED_UID_WORD = 1;

const message = new NativeBuffer(CONTROL_AT + CONTROL_BYTES);
const credentials = new NativeBuffer(UCRED_BYTES);

/** Point `message` to one piece of memory. */
function pointTo(address: number, bytes: number): void {
  iovecWrite(message.u32, MSGHDR_BYTES >> 2, address, bytes);
  msghdrWrite(message.u32, 0, 0, 0, message.address + MSGHDR_BYTES, 1);
}

/**
 * Receive bytes and descriptors from a stream, without waiting.
 * @param into     memory for the bytes
 * @param fds      the descriptors, close-on-exec, are added to it; the caller closes them, also after an error
 * @returns bytes, 0 at the end, or -errno; -EMSGSIZE: there were more descriptors than MAX_PASSED
 */
export function receiveDescriptors(fd: number, into: NativeBuffer, fds: number[]): number {
  const { u32, i32 } = message;
  pointTo(into.address, into.u8.length);
  msghdrControlWrite(u32, 0, message.address + CONTROL_AT, CONTROL_BYTES);
  const received = recvmsg(fd, message.address, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (received < 0) return received;
  const end = CONTROL_WORD + (u32[MSG_CONTROLLEN_WORD]! >> 2);
  for (let at = CONTROL_WORD; ; ) {
    const bytes = cmsgDataBytes(u32, at, end);
    if (bytes < 0) break;
    if (u32[at + LEVEL_WORD] === SOL_SOCKET && u32[at + TYPE_WORD] === SCM_RIGHTS)
      for (let i = 0; i + 4 <= bytes; i += 4) fds.push(i32[at + DATA_WORD + (i >> 2)]!);
    at = cmsgNext(at, bytes);
  }
  return (u32[MSGHDR_FLAGS_WORD]! & MSG_CTRUNC) === 0 ? received : -Errno.EMSGSIZE;
}

/**
 * Send bytes with descriptors to a connected socket. A blocking socket waits for room.
 * @param fds  at most MAX_PASSED; none: a message without descriptors
 * @returns bytes sent or -errno
 */
export function sendDescriptors(fd: number, bytes: Uint8Array, fds: readonly number[]): number {
  const { u32, i32 } = message;
  const copy = new NativeBuffer(Math.max(bytes.length, 1));
  copy.u8.set(bytes);
  pointTo(copy.address, bytes.length);
  if (fds.length > 0) {
    cmsgWrite(u32, CONTROL_WORD, SOL_SOCKET, SCM_RIGHTS, fds.length * 4);
    i32.set(fds, CONTROL_WORD + DATA_WORD);
    msghdrControlWrite(u32, 0, message.address + CONTROL_AT, cmsgSpace(fds.length * 4));
  }
  return sendmsg(fd, message.address, MSG_NOSIGNAL);
}

/** User id of the process that connected a UNIX socket, as seen in our user namespace, or -errno. */
export function peerUser(fd: number): number {
  const bytes = getsockoptBytes(fd, SOL_SOCKET, SO_PEERCRED, credentials.address, UCRED_BYTES);
  return bytes < 0 ? bytes : credentials.u32[UCRED_UID_WORD]!;
}

/** Whether a descriptor is a socket that listens. */
export const isListening = (fd: number): boolean => getsockoptInt(fd, SOL_SOCKET, SO_ACCEPTCONN) === 1;

/** Close descriptors that nobody uses. */
export function closeAll(fds: readonly number[]): void {
  for (const fd of fds) close(fd);
}
