// @vitest: beside
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import * as cmsg from '../../src/sys/cmsg.ts';
import * as k from '../../src/sys/constants.ts';
import { EpollEvents, epollAdd, epollCreate, epollWait } from '../../src/sys/epoll.ts';
import { close, ioctlReadInt, setNonBlocking } from '../../src/sys/io.ts';
import { NativeBuffer } from '../../src/sys/memory.ts';
import * as s from '../../src/sys/socket.ts';

const LOOPBACK = Uint32Array.of(0, 0, 0xffff, 0x7f00_0001);
const LOOPBACK6 = Uint32Array.of(0, 0, 0, 1);
const NAME_AT = 0; // a sockaddr
const NAME_LEN_AT = 32; // a u32
const DATA_AT = 64;
const buffer = new NativeBuffer(4096);
const at = (offset: number): number => buffer.address + offset;

const open: number[] = [];
const kept = (fd: number): number => {
  expect(fd).toBeGreaterThanOrEqual(0);
  open.push(fd);
  return fd;
};
afterEach(() => {
  for (const fd of open.splice(0)) close(fd);
});

/** A bound socket and its port. */
function bound(type: number, words = LOOPBACK): [number, number] {
  const domain = words[2] === 0xffff ? k.AF_INET : k.AF_INET6;
  const fd = kept(s.socket(domain, type | k.SOCK_NONBLOCK | k.SOCK_CLOEXEC, 0));
  expect(s.bind(fd, at(NAME_AT), s.sockaddrWrite(buffer.u8, NAME_AT, words, 0, 0))).toBe(0);
  return [fd, portOf(fd)];
}

function portOf(fd: number): number {
  buffer.u32[NAME_LEN_AT >> 2] = s.SOCKADDR_BYTES;
  expect(s.getsockname(fd, at(NAME_AT), at(NAME_LEN_AT))).toBe(0);
  return s.sockaddrRead(buffer.u8, NAME_AT, new Uint32Array(4), 0);
}

function connected(type: number, port: number, words = LOOPBACK): number {
  const fd = kept(s.socket(words[2] === 0xffff ? k.AF_INET : k.AF_INET6, type | k.SOCK_CLOEXEC, 0));
  expect(s.connect(fd, at(NAME_AT), s.sockaddrWrite(buffer.u8, NAME_AT, words, 0, port))).toBe(0);
  return fd;
}

function tcpPair(): [number, number] {
  const [listener, port] = bound(k.SOCK_STREAM);
  expect(s.listen(listener, 1)).toBe(0);
  const client = connected(k.SOCK_STREAM, port);
  return [client, kept(s.accept4(listener, 0, 0, k.SOCK_NONBLOCK | k.SOCK_CLOEXEC))];
}

function waitReadable(fd: number, events: number = k.EPOLLIN): number {
  const ep = kept(epollCreate());
  const ready = new EpollEvents(1);
  epollAdd(ep, fd, events, 0, 0);
  expect(epollWait(ep, ready, 2000)).toBe(1);
  return ready.eventsOf(0);
}

describe('sockaddr codec', () => {
  it('writes IPv4 as sockaddr_in', () => {
    const u8 = new Uint8Array(40).fill(0xee);
    expect(s.sockaddrWrite(u8, 2, Uint32Array.of(9, 0, 0, 0xffff, 0xc000_0201), 1, 0x1234)).toBe(16);
    expect([...u8.subarray(2, 18)]).toEqual([2, 0, 0x12, 0x34, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    expect(u8[18]).toBe(0xee);
  });

  it('writes IPv6 as sockaddr_in6, and IPv4 too when forced', () => {
    const u8 = new Uint8Array(40).fill(0xee);
    const words = Uint32Array.of(0xfe80_0000, 0, 0x0001_0002, 0x8004_0005);
    expect(s.sockaddrWrite(u8, 0, words, 0, 443, 0x0102_0304)).toBe(28);
    expect([...u8.subarray(0, 29)]).toEqual([
      10, 0, 1, 187, 0, 0, 0, 0, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 0x80, 4, 0, 5, 4, 3, 2, 1, 0xee,
    ]);
    expect(s.sockaddrScope(u8, 0)).toBe(0x0102_0304);
    expect(s.sockaddrWrite(u8, 0, LOOPBACK, 0, 1, 0, true)).toBe(28);
    expect([...u8.subarray(8, 24)]).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1]);
    expect(s.sockaddrScope(u8, 0)).toBe(0);
  });

  it('other families: refused, the words are unchanged', () => {
    const words = Uint32Array.of(1, 2, 3, 4);
    expect(s.sockaddrRead(Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0), 0, words, 0)).toBe(-k.Errno.EAFNOSUPPORT);
    expect(s.sockaddrRead(Uint8Array.of(2, 1, 0, 0, 0, 0, 0, 0), 0, words, 0)).toBe(-k.Errno.EAFNOSUPPORT);
    expect([...words]).toEqual([1, 2, 3, 4]);
  });

  it('decode(encode(x)) = x', () => {
    const word = fc.integer({ min: 0, max: 0xffff_ffff });
    const address = fc.oneof(
      fc.tuple(word, word, word, word),
      word.map((v4) => [0, 0, 0xffff, v4] as [number, number, number, number]),
    );
    const port = fc.integer({ min: 0, max: 65535 });
    const u8 = new Uint8Array(64).fill(0xaa);
    fc.assert(
      fc.property(address, port, word, fc.boolean(), (words, port, scope, forceV6) => {
        const bytes = s.sockaddrWrite(u8, 4, Uint32Array.from(words), 0, port, scope, forceV6);
        const out = new Uint32Array(5);
        expect(s.sockaddrRead(u8, 4, out, 1)).toBe(port);
        expect([...out.subarray(1)]).toEqual(words);
        expect(s.sockaddrScope(u8, 4)).toBe(bytes === 28 ? scope : 0);
      }),
    );
  });
});

describe('stream sockets', () => {
  it('listens, accepts with the peer address, sends, receives, shuts down', () => {
    for (const words of [LOOPBACK, LOOPBACK6]) {
      const [listener, port] = bound(k.SOCK_STREAM, words);
      expect(s.listen(listener, 5)).toBe(0);
      expect(s.accept4(listener, 0, 0, 0)).toBe(-k.Errno.EAGAIN);
      const client = connected(k.SOCK_STREAM, port, words);
      const clientPort = portOf(client);
      buffer.u32[NAME_LEN_AT >> 2] = s.SOCKADDR_BYTES;
      const server = kept(s.accept4(listener, at(NAME_AT), at(NAME_LEN_AT), k.SOCK_NONBLOCK));
      const peer = new Uint32Array(4);
      expect(s.sockaddrRead(buffer.u8, NAME_AT, peer, 0)).toBe(clientPort);
      expect(peer).toEqual(words);
      buffer.u32[NAME_LEN_AT >> 2] = s.SOCKADDR_BYTES;
      expect(s.getpeername(server, at(NAME_AT), at(NAME_LEN_AT))).toBe(0);
      expect(s.sockaddrRead(buffer.u8, NAME_AT, peer, 0)).toBe(clientPort);
      const ends = new Uint32Array(8);
      expect([s.localAddress(server, ends, 0), s.peerAddress(server, ends, 4)]).toEqual([port, clientPort]);
      expect([...ends]).toEqual([...words, ...words]);
      expect(s.peerAddress(listener, ends, 0)).toBe(-k.Errno.ENOTCONN);
      expect(s.localAddress(-1, ends, 0)).toBe(-k.Errno.EBADF);

      buffer.u8.set([1, 2, 3], DATA_AT);
      expect(s.send(client, at(DATA_AT), 3, k.MSG_NOSIGNAL)).toBe(3);
      waitReadable(server);
      // MSG_PEEK leaves the datagram in the queue; MSG_TRUNC discards it without a buffer.
      expect(s.recv(server, at(DATA_AT + 8), 10, k.MSG_PEEK)).toBe(3);
      expect([...buffer.u8.subarray(DATA_AT + 8, DATA_AT + 11)]).toEqual([1, 2, 3]);
      expect(s.recv(server, 0, 2, k.MSG_TRUNC)).toBe(2);
      expect(ioctlReadInt(server, k.SIOCINQ)).toBe(1);
      expect(s.recv(server, at(DATA_AT), 10, 0)).toBe(1);
      expect(buffer.u8[DATA_AT]).toBe(3);
      expect(s.recv(server, at(DATA_AT), 10, 0)).toBe(-k.Errno.EAGAIN);

      expect(s.shutdown(client, k.SHUT_WR)).toBe(0);
      waitReadable(server);
      expect(s.recv(server, at(DATA_AT), 10, 0)).toBe(0);
      expect(ioctlReadInt(server, k.SIOCOUTQ)).toBe(0);
    }
  });

  it('connect refused: ECONNREFUSED at once or in SO_ERROR', () => {
    const [gone, port] = bound(k.SOCK_STREAM);
    close(gone);
    open.splice(open.indexOf(gone), 1);
    const fd = kept(s.socket(k.AF_INET, k.SOCK_STREAM | k.SOCK_NONBLOCK, 0));
    const r = s.connect(fd, at(NAME_AT), s.sockaddrWrite(buffer.u8, NAME_AT, LOOPBACK, 0, port));
    if (r === -k.Errno.EINPROGRESS) {
      waitReadable(fd, k.EPOLLOUT);
      expect(s.getsockoptInt(fd, k.SOL_SOCKET, k.SO_ERROR)).toBe(k.Errno.ECONNREFUSED);
    } else {
      expect(r).toBe(-k.Errno.ECONNREFUSED);
    }
  });

  it('options: int, bytes, tcp_info', () => {
    const [client, server] = tcpPair();
    expect(s.setsockoptInt(client, k.SOL_TCP, k.TCP_NODELAY, 1)).toBe(0);
    expect(s.getsockoptInt(client, k.SOL_TCP, k.TCP_NODELAY)).toBe(1);
    expect(s.getsockoptInt(client, k.SOL_SOCKET, k.SO_TYPE)).toBe(k.SOCK_STREAM);
    expect(s.setsockoptInt(client, k.SOL_TCP, 999, 1)).toBe(-k.Errno.ENOPROTOOPT);
    expect(s.getsockoptInt(-1, k.SOL_TCP, 1)).toBe(-k.Errno.EBADF);
    expect(s.getsockoptBytes(server, k.SOL_TCP, k.TCP_CONGESTION, at(1024), 16)).toBe(16);
    expect(buffer.u8[1024]).toBeGreaterThan(0x60);
    expect(s.setsockoptBytes(server, k.SOL_TCP, k.TCP_CONGESTION, at(1024), 16)).toBe(0);
  });

  it('SO_LINGER 0: close sends RST', () => {
    const [client, server] = tcpPair();
    expect(s.setLingerZero(client)).toBe(0);
    close(client);
    open.splice(open.indexOf(client), 1);
    expect(waitReadable(server) & k.EPOLLERR).toBe(k.EPOLLERR);
    expect(s.recv(server, at(DATA_AT), 1, 0)).toBe(-k.Errno.ECONNRESET);
  });

  it('send after the peer has closed: -EPIPE, no SIGPIPE', () => {
    const [client, server] = tcpPair();
    s.setLingerZero(server);
    close(server);
    open.splice(open.indexOf(server), 1);
    waitReadable(client);
    expect(s.recv(client, at(DATA_AT), 1, 0)).toBe(-k.Errno.ECONNRESET);
    expect(s.send(client, at(DATA_AT), 1, k.MSG_NOSIGNAL)).toBe(-k.Errno.EPIPE);
  });
});

describe('datagram sockets', () => {
  it('sendmmsg and recvmmsg: several datagrams with their addresses', () => {
    const [receiver, port] = bound(k.SOCK_DGRAM);
    const [sender, senderPort] = bound(k.SOCK_DGRAM);
    const count = 3;
    const nameBytes = s.sockaddrWrite(buffer.u8, NAME_AT, LOOPBACK, 0, port);
    const VEC_AT = 256;
    const IOV_AT = 1024;
    for (let i = 0; i < count; i++) {
      buffer.u8.fill(i + 1, DATA_AT + i * 16, DATA_AT + i * 16 + 10 + i);
      s.iovecWrite(buffer.u32, (IOV_AT >> 2) + i * s.IOVEC_WORDS, at(DATA_AT + i * 16), 10 + i);
      const message = (VEC_AT >> 2) + i * s.MMSGHDR_WORDS;
      s.msghdrWrite(buffer.u32, message, at(NAME_AT), nameBytes, at(IOV_AT + i * s.IOVEC_BYTES), 1);
    }
    expect(s.sendmmsg(sender, at(VEC_AT), count, 0)).toBe(count);
    expect(buffer.u32[(VEC_AT >> 2) + s.MMSGHDR_LEN_WORD]).toBe(10);

    waitReadable(receiver);
    const IN_AT = 2048;
    const FROM_AT = 3072;
    for (let i = 0; i < 4; i++) {
      s.iovecWrite(buffer.u32, (IOV_AT >> 2) + i * s.IOVEC_WORDS, at(IN_AT + i * 64), 64);
      const message = (VEC_AT >> 2) + i * s.MMSGHDR_WORDS;
      const name = at(FROM_AT + i * 32);
      s.msghdrWrite(buffer.u32, message, name, s.SOCKADDR_BYTES, at(IOV_AT + i * s.IOVEC_BYTES), 1);
    }
    expect(s.recvmmsg(receiver, at(VEC_AT), 4, k.MSG_DONTWAIT)).toBe(count);
    for (let i = 0; i < count; i++) {
      expect(buffer.u32[(VEC_AT >> 2) + i * s.MMSGHDR_WORDS + s.MMSGHDR_LEN_WORD]).toBe(10 + i);
      expect(buffer.u8[IN_AT + i * 64]).toBe(i + 1);
      expect(s.sockaddrRead(buffer.u8, FROM_AT + i * 32, new Uint32Array(4), 0)).toBe(senderPort);
    }
    expect(s.recvmmsg(receiver, at(VEC_AT), 4, k.MSG_DONTWAIT)).toBe(-k.Errno.EAGAIN);
  });

  it('UDP_SEGMENT: cuts one buffer into datagrams; UDP_GRO: returns the segment size', () => {
    const [receiver, port] = bound(k.SOCK_DGRAM);
    expect(s.setsockoptInt(receiver, k.SOL_UDP, k.UDP_GRO, 1)).toBe(0);
    const sender = connected(k.SOCK_DGRAM, port);
    const CONTROL_AT = 512;
    const controlBytes = cmsg.cmsgWrite(buffer.u32, CONTROL_AT >> 2, k.SOL_UDP, k.UDP_SEGMENT, 2);
    buffer.u16[(CONTROL_AT + cmsg.CMSG_HEADER_BYTES) >> 1] = 100;
    s.iovecWrite(buffer.u32, 1024 >> 2, at(2048), 250);
    s.msghdrWrite(buffer.u32, 256 >> 2, 0, 0, at(1024), 1);
    s.msghdrControlWrite(buffer.u32, 256 >> 2, at(CONTROL_AT), controlBytes);
    expect(s.sendmsg(sender, at(256), 0)).toBe(250);

    waitReadable(receiver);
    let total = 0;
    while (total < 250) {
      s.iovecWrite(buffer.u32, 1024 >> 2, at(2048), 2000);
      s.msghdrWrite(buffer.u32, 256 >> 2, 0, 0, at(1024), 1);
      s.msghdrControlWrite(buffer.u32, 256 >> 2, at(CONTROL_AT), 128);
      const bytes = s.recvmsg(receiver, at(256), 0);
      expect(bytes).toBeGreaterThan(0);
      total += bytes;
      const endWord = (CONTROL_AT + buffer.u32[(256 >> 2) + s.MSGHDR_CONTROLLEN_WORD]!) >> 2;
      const dataBytes = cmsg.cmsgDataBytes(buffer.u32, CONTROL_AT >> 2, endWord);
      // Loopback may deliver the GSO datagram whole; single datagrams have no control message.
      if (bytes > 100) {
        expect(dataBytes).toBe(4);
        expect(buffer.u32[(CONTROL_AT >> 2) + cmsg.CMSG_TYPE_WORD]).toBe(k.UDP_GRO);
        expect(buffer.i32[(CONTROL_AT + cmsg.CMSG_HEADER_BYTES) >> 2]).toBe(100);
      }
    }
    expect(total).toBe(250);
  });

  it('error queue: has type, code and offender of the ICMP error', () => {
    const [gone, port] = bound(k.SOCK_DGRAM);
    close(gone);
    open.splice(open.indexOf(gone), 1);
    const fd = connected(k.SOCK_DGRAM, port);
    setNonBlocking(fd);
    expect(s.setsockoptInt(fd, k.SOL_IP, k.IP_RECVERR, 1)).toBe(0);
    buffer.u8.set([5, 5, 5], DATA_AT);
    expect(s.send(fd, at(DATA_AT), 3, 0)).toBe(3);
    expect(waitReadable(fd) & k.EPOLLERR).toBe(k.EPOLLERR);
    const CONTROL_AT = 512;
    s.iovecWrite(buffer.u32, 1024 >> 2, at(2048), 100);
    s.msghdrWrite(buffer.u32, 256 >> 2, at(NAME_AT), s.SOCKADDR_BYTES, at(1024), 1);
    s.msghdrControlWrite(buffer.u32, 256 >> 2, at(CONTROL_AT), 128);
    // The payload that came back, the address it was sent to, and the error.
    expect(s.recvmsg(fd, at(256), k.MSG_ERRQUEUE)).toBe(3);
    expect(buffer.u8[2048]).toBe(5);
    expect(s.sockaddrRead(buffer.u8, NAME_AT, new Uint32Array(4), 0)).toBe(port);
    const endWord = (CONTROL_AT + buffer.u32[(256 >> 2) + s.MSGHDR_CONTROLLEN_WORD]!) >> 2;
    const dataBytes = cmsg.cmsgDataBytes(buffer.u32, CONTROL_AT >> 2, endWord);
    expect(dataBytes).toBeGreaterThanOrEqual(cmsg.SOCK_EXTENDED_ERR_BYTES + s.SOCKADDR_IN_BYTES);
    expect(buffer.u32[(CONTROL_AT >> 2) + cmsg.CMSG_TYPE_WORD]).toBe(k.IP_RECVERR);
    const error = CONTROL_AT + cmsg.CMSG_HEADER_BYTES;
    expect(buffer.dv.getUint32(error + cmsg.EE_ERRNO_AT, true)).toBe(k.Errno.ECONNREFUSED);
    expect(buffer.u8[error + cmsg.EE_ORIGIN_AT]).toBe(k.SO_EE_ORIGIN_ICMP);
    expect([buffer.u8[error + cmsg.EE_TYPE_AT], buffer.u8[error + cmsg.EE_CODE_AT]]).toEqual([3, 3]);
    const offender = new Uint32Array(4);
    expect(s.sockaddrRead(buffer.u8, error + cmsg.EE_OFFENDER_AT, offender, 0)).toBe(0);
    expect(offender).toEqual(LOOPBACK);
    expect(s.recvmsg(fd, at(256), k.MSG_ERRQUEUE)).toBe(-k.Errno.EAGAIN);
  });

  it('TCP_INFO: round-trip time, retransmissions, congestion window; nothing of a socket that is not connected', () => {
    const [client] = tcpPair();
    const rows = new Float64Array(4).fill(-1);
    expect(s.tcpInfo(client, rows, 1)).toBe(true);
    expect(rows[0]).toBe(-1);
    expect(rows[1]).toBeGreaterThan(0);
    expect(rows[1]).toBeLessThan(1e6);
    expect(rows[2]).toBe(0);
    expect(rows[3]).toBeGreaterThanOrEqual(1);
    const [listener] = bound(k.SOCK_STREAM);
    expect(s.tcpInfo(listener, rows, 1)).toBe(false);
    expect(s.tcpInfo(bound(k.SOCK_DGRAM)[0], rows, 1)).toBe(false);
  });

  it('a dual-stack socket: accepts v4-mapped addresses', () => {
    const [receiver, port] = bound(k.SOCK_DGRAM);
    const sender = kept(s.socket(k.AF_INET6, k.SOCK_DGRAM, 0));
    expect(s.setsockoptInt(sender, k.SOL_IPV6, k.IPV6_V6ONLY, 0)).toBe(0);
    const nameBytes = s.sockaddrWrite(buffer.u8, NAME_AT, LOOPBACK, 0, port, 0, true);
    expect(s.sendto(sender, at(DATA_AT), 1, 0, at(NAME_AT), nameBytes)).toBe(1);
    waitReadable(receiver);
    expect(s.recv(receiver, at(DATA_AT), 9, 0)).toBe(1);
  });
});
