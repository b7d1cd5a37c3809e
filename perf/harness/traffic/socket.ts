/**
 * Blocking sockets on src/sys for the traffic programs, so that no event loop adds to the time between a
 * request and its answer. Set-up throws; the calls in the loops are those of src/sys and return -errno.
 */
import { writeSync } from 'node:fs';
import { addressParse } from '../../../src/proto/address.ts';
import {
  IPPROTO_TCP,
  SO_RCVTIMEO,
  SO_REUSEADDR,
  SO_SNDTIMEO,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_STREAM,
  SOL_SOCKET,
  TCP_NODELAY,
} from '../../../src/sys/constants.ts';
import { checked } from '../../../src/sys/error.ts';
import { NativeBuffer } from '../../../src/sys/memory.ts';
import {
  bind,
  listen,
  SOCKADDR_BYTES,
  setsockoptBytes,
  setsockoptInt,
  sockaddrWrite,
  socket,
} from '../../../src/sys/socket.ts';

const LISTEN_BACKLOG = 1024;
const TIMEVAL_BYTES = 16;

export interface Sockaddr {
  readonly buffer: NativeBuffer;
  readonly bytes: number;
  readonly domain: number;
}

/** @throws Error when the text is not an address */
export function sockaddr(addressText: string, port: number): Sockaddr {
  const words = new Uint32Array(4);
  if (!addressParse(addressText, words, 0))
    throw new RangeError(`"${addressText}" is not an IPv4 or IPv6 address`);
  const buffer = new NativeBuffer(SOCKADDR_BYTES);
  const bytes = sockaddrWrite(buffer.u8, 0, words, 0, port);
  return { buffer, bytes, domain: buffer.u8[0]! };
}

/** Set receive and send timeouts, so that no call waits for a tool that has ended. */
export function setTimeouts(fd: number, seconds: number): void {
  const timeval = new NativeBuffer(TIMEVAL_BYTES);
  timeval.u32[0] = seconds;
  for (const option of [SO_RCVTIMEO, SO_SNDTIMEO])
    checked(
      setsockoptBytes(fd, SOL_SOCKET, option, timeval.address, TIMEVAL_BYTES),
      'setsockopt',
      'time-out',
    );
}

export function streamSocket(domain: number, timeoutSeconds: number): number {
  const fd = checked(socket(domain, SOCK_STREAM | SOCK_CLOEXEC, 0), 'socket', 'SOCK_STREAM');
  setTimeouts(fd, timeoutSeconds);
  checked(setsockoptInt(fd, IPPROTO_TCP, TCP_NODELAY, 1), 'setsockopt', 'TCP_NODELAY');
  return fd;
}

export function datagramSocket(domain: number): number {
  return checked(socket(domain, SOCK_DGRAM | SOCK_CLOEXEC, 0), 'socket', 'SOCK_DGRAM');
}

/** Bind a socket. @throws Error naming the port when it is in use */
export function bound(fd: number, local: Sockaddr, port: number): number {
  checked(setsockoptInt(fd, SOL_SOCKET, SO_REUSEADDR, 1), 'setsockopt', 'SO_REUSEADDR');
  checked(bind(fd, local.buffer.address, local.bytes), 'bind', `port ${port}`);
  return fd;
}

export function listener(port: number): number {
  const any = sockaddr('0.0.0.0', port);
  const fd = checked(socket(any.domain, SOCK_STREAM | SOCK_CLOEXEC, 0), 'socket', 'SOCK_STREAM');
  bound(fd, any, port);
  checked(listen(fd, LISTEN_BACKLOG), 'listen', `port ${port}`);
  return fd;
}

/** Parse words of the command line as numbers. @throws Error when one is not a number */
export function numbers(words: readonly string[]): number[] {
  return words.map((word) => {
    const n = Number(word);
    if (word === '' || !Number.isFinite(n)) throw new Error(`${word}: not a number`);
    return n;
  });
}

/** Print a line synchronously: these programs may never return to the event loop. */
export const print = (text: string): void => {
  writeSync(1, `${text}\n`);
};
