// bundle: rare
/**
 * Sends one ICMP echo request through a datagram socket, for hosts without a ping program. RFC 792, RFC 4443
 * section 4.
 */

import { addressParse } from '../../../proto/address.ts';
import {
  AF_INET,
  AF_INET6,
  IPPROTO_ICMP,
  IPPROTO_ICMPV6,
  SO_RCVTIMEO,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOL_SOCKET,
} from '../../../sys/constants.ts';
import { checked } from '../../../sys/error.ts';
import { close } from '../../../sys/io.ts';
import { NativeBuffer } from '../../../sys/memory.ts';
import {
  connect,
  recv,
  SOCKADDR_BYTES,
  send,
  setsockoptBytes,
  sockaddrWrite,
  socket,
} from '../../../sys/socket.ts';

const ECHO_BYTES = 64;
const TIMEVAL_BYTES = 16;

/**
 * Send an echo request and wait for the reply.
 * @param limitMs  rounded up to whole seconds
 * @returns the round-trip time in ms
 * @throws SysError
 */
export function pingOnce(family: 4 | 6, address: string, limitMs: number): number {
  const v6 = family === 6;
  const protocol = v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP;
  const fd = checked(
    socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, protocol),
    'socket',
    'ICMP datagrams',
  );
  try {
    const words = new Uint32Array(4);
    addressParse(address, words, 0);
    const name = new NativeBuffer(SOCKADDR_BYTES);
    checked(connect(fd, name.address, sockaddrWrite(name.u8, 0, words, 0, 0)), 'connect', address);
    const limit = new NativeBuffer(TIMEVAL_BYTES);
    limit.u32[0] = Math.ceil(limitMs / 1000);
    checked(
      setsockoptBytes(fd, SOL_SOCKET, SO_RCVTIMEO, limit.address, TIMEVAL_BYTES),
      'setsockopt',
      'SO_RCVTIMEO',
    );
    const echo = new NativeBuffer(ECHO_BYTES);
    echo.u8[0] = v6 ? 128 : 8; // echo request; the kernel fills in identifier and checksum
    echo.u8[7] = 1; // sequence
    const startedAt = performance.now();
    checked(send(fd, echo.address, ECHO_BYTES, 0), 'send', address);
    checked(recv(fd, echo.address, ECHO_BYTES, 0), 'recv', `echo reply from ${address}`);
    return performance.now() - startedAt;
  } finally {
    close(fd);
  }
}
