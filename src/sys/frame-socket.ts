/**
 * A Unix SOCK_SEQPACKET socket over which somebody hands us Ethernet frames, one a message, in the place of a TAP: what User Mode
 * Linux calls `transport=bess`. Cold; afterwards the descriptor is read and written as a TAP without virtio header is.
 * @syscalls socket bind listen accept4 setsockopt
 */
import { AF_UNIX, SO_SNDBUF, SOCK_CLOEXEC, SOCK_SEQPACKET, SOL_SOCKET } from './constants.ts';
import { checked } from './error.ts';
import { close, setNonBlocking } from './io.ts';
import { NativeBuffer } from './memory.ts';
import { accept4, bind, listen, setsockoptInt, socket } from './socket.ts';

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

/** Wait for the one peer; the listener is closed. @returns its descriptor, which does not block @throws SysError */
export function acceptFrames(listener: number): number {
  try {
    const fd = checked(accept4(listener, 0, 0, SOCK_CLOEXEC), 'accept4', 'frame socket');
    checked(setNonBlocking(fd), 'fcntl', 'F_SETFL O_NONBLOCK, frame socket');
    setsockoptInt(fd, SOL_SOCKET, SO_SNDBUF, SEND_BUFFER_BYTES);
    return fd;
  } finally {
    close(listener);
  }
}
