// bundle: rare
/** Detects optional kernel features by using them, each on a socket of its own. */
import {
  AF_INET,
  IPPROTO_ICMP,
  MSG_PEEK,
  SO_PEEK_OFF,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_STREAM,
  SOL_SOCKET,
  SOL_UDP,
  UDP_GRO,
  UDP_SEGMENT,
} from '../../sys/constants.ts';
import { close } from '../../sys/io.ts';
import { NativeBuffer } from '../../sys/memory.ts';
import {
  accept4,
  bind,
  connect,
  getsockname,
  listen,
  recv,
  SOCKADDR_BYTES,
  SOCKADDR_IN_BYTES,
  send,
  setsockoptInt,
  sockaddrWrite,
  socket,
} from '../../sys/socket.ts';

/** Which optional features work on this kernel. */
export interface KernelFeatures {
  /** SO_PEEK_OFF works on TCP sockets: each MSG_PEEK continues after the last one. */
  readonly tcpPeekOffset: boolean;
  readonly udpSegment: boolean;
  readonly udpGro: boolean;
  /** This process may open ICMP datagram sockets. */
  readonly ping4: boolean;
}

/** Try each feature. The sockets are closed again. */
export function tryFeatures(): KernelFeatures {
  return {
    tcpPeekOffset: tryPeekOffset(),
    udpSegment: withSocket(SOCK_DGRAM, 0, (fd) => setsockoptInt(fd, SOL_UDP, UDP_SEGMENT, 1400) >= 0),
    udpGro: withSocket(SOCK_DGRAM, 0, (fd) => setsockoptInt(fd, SOL_UDP, UDP_GRO, 1) >= 0),
    ping4: withSocket(SOCK_DGRAM, IPPROTO_ICMP, () => true),
  };
}

/** @returns the result of `use`; false if the socket cannot be made */
function withSocket(type: number, protocol: number, use: (fd: number) => boolean): boolean {
  const fd = socket(AF_INET, type | SOCK_CLOEXEC, protocol);
  if (fd < 0) return false;
  try {
    return use(fd);
  } finally {
    close(fd);
  }
}

/**
 * Send two bytes to ourselves over loopback and peek one at a time: the second peek must see the second byte.
 */
function tryPeekOffset(): boolean {
  const name = new NativeBuffer(SOCKADDR_BYTES + 12);
  const bytes = new NativeBuffer(8);
  const lengthAddress = name.address + 32;
  const loopback = Uint32Array.of(0, 0, 0xffff, 0x7f00_0001);
  return withSocket(SOCK_STREAM, 0, (listener) =>
    withSocket(SOCK_STREAM, 0, (client) => {
      sockaddrWrite(name.u8, 0, loopback, 0, 0);
      if (bind(listener, name.address, SOCKADDR_IN_BYTES) < 0 || listen(listener, 1) < 0) return false;
      name.u32[8] = SOCKADDR_BYTES;
      getsockname(listener, name.address, lengthAddress);
      if (connect(client, name.address, SOCKADDR_IN_BYTES) < 0) return false;
      const server = accept4(listener, 0, 0, SOCK_CLOEXEC);
      if (server < 0) return false;
      try {
        bytes.u8.set([1, 2]);
        if (send(client, bytes.address, 2, 0) !== 2 || setsockoptInt(server, SOL_SOCKET, SO_PEEK_OFF, 0) < 0)
          return false;
        const peek = (): number => (recv(server, bytes.address, 1, MSG_PEEK) === 1 ? bytes.u8[0]! : -1);
        return peek() === 1 && peek() === 2;
      } finally {
        close(server);
      }
    }),
  );
}
