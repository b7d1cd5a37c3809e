/**
 * The system log: RFC 3164 over the UNIX datagram socket /dev/log, a socket type that the runtimes do not
 * have. Cold.
 * @syscalls socket connect sendto close
 */
import { AF_UNIX, MSG_DONTWAIT, MSG_NOSIGNAL, SOCK_CLOEXEC, SOCK_DGRAM } from './constants.ts';
import { close } from './io.ts';
import { NativeBuffer } from './memory.ts';
import { connect, send, socket } from './socket.ts';

const SYSLOG_PATH = '/dev/log';
/** struct sockaddr_un, <linux/un.h>: family u16, path of 108 bytes, its terminating zero included. */
const SUN_PATH_AT = 2;
const SUN_PATH_BYTES = 108;

/**
 * Connect to the system log.
 * @returns a function that sends one message, which begins with its priority; a message that would have to
 *   wait
 *   is dropped. undefined: there is no system log.
 */
export function openSyslog(path = SYSLOG_PATH): ((message: Uint8Array) => void) | undefined {
  const pathBytes = new TextEncoder().encode(path);
  if (pathBytes.length >= SUN_PATH_BYTES) return undefined;
  const fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return undefined;
  const address = new NativeBuffer(SUN_PATH_AT + SUN_PATH_BYTES);
  address.u16[0] = AF_UNIX;
  address.u8.set(pathBytes, SUN_PATH_AT);
  if (connect(fd, address.address, SUN_PATH_AT + pathBytes.length + 1) < 0) {
    close(fd);
    return undefined;
  }
  return (message) => {
    const copy = new NativeBuffer(Math.max(message.length, 1));
    copy.u8.set(message);
    send(fd, copy.address, message.length, MSG_DONTWAIT | MSG_NOSIGNAL);
  };
}
