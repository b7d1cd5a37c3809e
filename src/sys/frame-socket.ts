/**
 * A socket over which somebody hands us Ethernet frames, one a message, in the place of a TAP: of our making,
 * Unix SOCK_SEQPACKET, what User Mode Linux calls `transport=bess`; or one that our caller has connected.
 * Cold; afterwards the descriptor is read and written as a TAP without virtio header is.
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

/** Nothing read is the end of packets (SOCK_SEQPACKET); datagrams have no end, and may be empty. */
export type FrameSocketKind = 'seqpacket' | 'datagram';

/** struct sockaddr_un, <linux/un.h>: sun_family u16 +0, sun_path +2 with a zero behind it. */
const SUN_PATH_AT = 2;
/** Frames that wait for the peer; the kernel makes it wmem_max where that is less. */
const SEND_BUFFER_BYTES = 4 * 1024 * 1024;

/** struct sockaddr_un of a path, and its length. */
export function unixAddress(path: string): { readonly memory: NativeBuffer; readonly bytes: number } {
  const name = new TextEncoder().encode(path);
  const bytes = SUN_PATH_AT + name.length + 1;
  const memory = new NativeBuffer(bytes);
  memory.u8[0] = AF_UNIX;
  memory.u8.set(name, SUN_PATH_AT);
  return { memory, bytes };
}

/** Make a socket at `path`, which must not exist, and listen. @returns its descriptor @throws SysError */
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
 * Wait for the one peer; the listener is closed.
 * @returns its descriptor, which does not block
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
 * Take over a socket of our caller's.
 * @returns what it is; or why frames cannot go by it, 'none' when it is no socket at all
 * @throws SysError
 */
export function adoptFrameSocket(fd: number): FrameSocketKind | 'none' | 'stream' | 'unconnected' {
  const type = getsockoptInt(fd, SOL_SOCKET, SO_TYPE);
  if (type === -Errno.ENOTSOCK) return 'none';
  checked(type, 'getsockopt', `SO_TYPE, fd ${fd}`);
  if (type !== SOCK_SEQPACKET && type !== SOCK_DGRAM) return 'stream';
  const length = new NativeBuffer(4); // 0: nobody asks for the name
  if (getpeername(fd, length.address, length.address) === -Errno.ENOTCONN) return 'unconnected';
  prepare(fd);
  return type === SOCK_DGRAM ? 'datagram' : 'seqpacket';
}

function prepare(fd: number): void {
  checked(setNonBlocking(fd), 'fcntl', 'F_SETFL O_NONBLOCK, frame socket');
  setsockoptInt(fd, SOL_SOCKET, SO_SNDBUF, SEND_BUFFER_BYTES);
}
