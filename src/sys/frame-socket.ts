/**
 * A socket that carries Ethernet frames, one per message, instead of a TAP: either a UNIX SOCK_SEQPACKET
 * socket that is created here (User Mode Linux calls it `transport=bess`), or one that the caller has
 * connected. Cold; afterwards the descriptor is read and written like a TAP without a virtio header.
 * @syscalls socket bind listen accept4 setsockopt getsockopt getpeername
 */
import {
  AF_UNIX,
  Errno,
  SO_SNDBUF,
  SO_TYPE,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_SEQPACKET,
  SOL_SOCKET,
} from './constants.ts';
import { checked } from './error.ts';
import { close, setNonBlocking } from './io.ts';
import { NativeBuffer } from './memory.ts';
import { accept4, bind, getpeername, getsockoptInt, listen, setsockoptInt, socket } from './socket.ts';

/**
 * On a 'seqpacket' socket a read of 0 bytes is the end of the stream; on a 'datagram' socket an empty
 * datagram.
 */
export type FrameSocketKind = 'seqpacket' | 'datagram';

/** struct sockaddr_un, <linux/un.h>: sun_family u16 +0, sun_path +2 with a terminating zero. */
const SUN_PATH_AT = 2;
/** SO_SNDBUF: room for frames that the peer has not read. The kernel limits it to net.core.wmem_max. */
const SEND_BUFFER_BYTES = 4 * 1024 * 1024;

/** A struct sockaddr_un for a path, and its length in bytes. */
export function unixAddress(path: string): { readonly memory: NativeBuffer; readonly bytes: number } {
  const name = new TextEncoder().encode(path);
  const bytes = SUN_PATH_AT + name.length + 1;
  const memory = new NativeBuffer(bytes);
  memory.u8[0] = AF_UNIX;
  memory.u8.set(name, SUN_PATH_AT);
  return { memory, bytes };
}

/**
 * Create a listening socket at `path`, which must not exist.
 * @returns its descriptor
 * @throws SysError
 */
export function listenForFrames(path: string): number {
  const fd = checked(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), 'socket', 'AF_UNIX, SOCK_SEQPACKET');
  try {
    const { memory, bytes } = unixAddress(path);
    checked(bind(fd, memory.address, bytes), 'bind', path);
    checked(listen(fd, 1), 'listen', path);
    return fd;
  } catch (error) {
    close(fd);
    throw error;
  }
}

/**
 * Wait for the peer to connect, then close the listener: there is only one peer.
 * @returns descriptor of the connection, non-blocking
 * @throws SysError
 */
export function acceptFrames(listener: number): number {
  try {
    const fd = checked(accept4(listener, 0, 0, SOCK_CLOEXEC), 'accept4', 'frame socket');
    prepare(fd);
    return fd;
  } finally {
    close(listener);
  }
}

/**
 * Take over a socket that the caller has connected.
 * @returns its kind; or why it cannot carry frames: 'none' is not a socket, 'stream' has no message
 *   boundaries,
 *   'unconnected' has no peer
 * @throws SysError
 */
export function adoptFrameSocket(fd: number): FrameSocketKind | 'none' | 'stream' | 'unconnected' {
  const type = getsockoptInt(fd, SOL_SOCKET, SO_TYPE);
  if (type === -Errno.ENOTSOCK) return 'none';
  checked(type, 'getsockopt', `SO_TYPE, fd ${fd}`);
  if (type !== SOCK_SEQPACKET && type !== SOCK_DGRAM) return 'stream';
  const length = new NativeBuffer(4); // room for 0 bytes: the name itself is not wanted
  if (getpeername(fd, length.address, length.address) === -Errno.ENOTCONN) return 'unconnected';
  prepare(fd);
  return type === SOCK_DGRAM ? 'datagram' : 'seqpacket';
}

function prepare(fd: number): void {
  checked(setNonBlocking(fd), 'fcntl', 'F_SETFL O_NONBLOCK, frame socket');
  setsockoptInt(fd, SOL_SOCKET, SO_SNDBUF, SEND_BUFFER_BYTES);
}
