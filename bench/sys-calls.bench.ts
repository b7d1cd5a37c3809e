/**
 * Cost of each system call that the packet threads make, through the foreign-function call and our wrapper:
 * what batching saves per call it avoids. The kernel's own work is as small as the call allows: datagrams are
 * received with MSG_PEEK, so that nothing has to be sent again; sent datagrams go over the loopback to a
 * socket whose queue is full, where the kernel drops them. TAP devices are left out, because creating one
 * needs privileges.
 *
 * The first member is the minimum: kernel entry and return and the foreign-function call, without work in
 * between.
 */
import Benchmark from 'benchmark';
import { CMSG_HEADER_BYTES, cmsgSpace, cmsgWrite } from '../src/sys/cmsg.ts';
import {
  AF_INET,
  AF_UNIX,
  EFD_CLOEXEC,
  EFD_NONBLOCK,
  EPOLLIN,
  Errno,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  MSG_PEEK,
  O_NONBLOCK,
  O_RDWR,
  SO_ERROR,
  SO_RCVLOWAT,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOCK_STREAM,
  SOL_SOCKET,
  SOL_UDP,
  UDP_SEGMENT,
} from '../src/sys/constants.ts';
import { EpollEvents, epollAdd, epollCreate, epollWait } from '../src/sys/epoll.ts';
import { close, eventfd, eventfdDrain, eventfdWrite, read, readv, write, writev } from '../src/sys/io.ts';
import { NativeBuffer } from '../src/sys/memory.ts';
import { openPath } from '../src/sys/path.ts';
import {
  bind,
  connect,
  getsockname,
  getsockoptInt,
  IOVEC_BYTES,
  IOVEC_WORDS,
  iovecWrite,
  MMSGHDR_BYTES,
  MMSGHDR_WORDS,
  MSGHDR_BYTES,
  msghdrControlWrite,
  msghdrWrite,
  recv,
  recvmmsg,
  recvmsg,
  SOCKADDR_BYTES,
  send,
  sendmmsg,
  sendmsg,
  setsockoptInt,
  sockaddrRead,
  sockaddrWrite,
  socket,
  socketpair,
} from '../src/sys/socket.ts';
import { ops, sink } from './ops.ts';

const CALLS = 64;
const MESSAGE_BYTES = 64;
const DATAGRAM_BYTES = 1400;
const BATCH = 16;
const LARGE_BYTES = 65536;

const opened: number[] = [];

/** Throws on an errno: a benchmark that measured failing calls would look fast. */
function checked(what: string, result: number): number {
  if (result < 0) throw new Error(`sys-calls benchmark: ${what}: errno ${-result}`);
  return result;
}

function kept(what: string, fd: number): number {
  opened.push(checked(what, fd));
  return fd;
}

/** A pair of connected UNIX sockets. */
function pair(type: number): readonly [number, number] {
  const fds = new NativeBuffer(8);
  checked('socketpair', socketpair(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds.address));
  return [kept('socketpair', fds.i32[0]!), kept('socketpair', fds.i32[1]!)];
}

const LOOPBACK = Uint32Array.of(0, 0, 0xffff, 0x7f000001);

function udpSocket(): number {
  return kept('socket', socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

/** Bind a UDP socket on the loopback that is never read. @returns its address as a sockaddr */
function unreadSocket(): NativeBuffer {
  const name = new NativeBuffer(SOCKADDR_BYTES + 4);
  const fd = udpSocket();
  checked('bind', bind(fd, name.address, sockaddrWrite(name.u8, 0, LOOPBACK, 0, 0)));
  const lengthAt = 28;
  name.u32[lengthAt >> 2] = SOCKADDR_BYTES;
  checked('getsockname', getsockname(fd, name.address, name.address + lengthAt));
  checked('sockaddr', sockaddrRead(name.u8, 0, new Uint32Array(4), 0));
  return name;
}

/** The suite. One long function: the members share the state that is set up in front of them. */
export function build(): Benchmark.Suite {
  const suite = new Benchmark.Suite();
  const data = new NativeBuffer(LARGE_BYTES);
  const iov = new NativeBuffer(2 * BATCH * IOVEC_BYTES);
  const add = (name: string, call: () => number, expected: number): void => {
    const first = call();
    if (first !== expected) throw new Error(`sys-calls benchmark: ${name}: ${first}, not ${expected}`);
    suite.add(
      name,
      () => {
        let x = 0;
        for (let i = 0; i < CALLS; i++) x ^= call();
        sink.value ^= x;
      },
      ops(CALLS),
    );
  };

  add('close of no descriptor: the floor, with errno', () => close(-1), -Errno.EBADF);

  const zero = kept('/dev/zero', openPath('/dev/zero', O_RDWR | O_NONBLOCK));
  iovecWrite(iov.u32, 0, data.address, 16);
  iovecWrite(iov.u32, IOVEC_WORDS, data.address + 16, MESSAGE_BYTES - 16);
  add(`read, ${MESSAGE_BYTES} B of /dev/zero`, () => read(zero, data.address, MESSAGE_BYTES), MESSAGE_BYTES);
  add(`readv, ${MESSAGE_BYTES} B of /dev/zero in two`, () => readv(zero, iov.address, 2), MESSAGE_BYTES);
  add(
    `write, ${MESSAGE_BYTES} B to /dev/zero`,
    () => write(zero, data.address, MESSAGE_BYTES),
    MESSAGE_BYTES,
  );
  add(`writev, ${MESSAGE_BYTES} B to /dev/zero in two`, () => writev(zero, iov.address, 2), MESSAGE_BYTES);

  const [empty] = pair(SOCK_STREAM);
  add('recv, nothing there', () => recv(empty, data.address, 64, MSG_DONTWAIT), -Errno.EAGAIN);
  const [full, filler] = pair(SOCK_STREAM);
  checked('send', send(filler, data.address, LARGE_BYTES, MSG_DONTWAIT));
  for (const bytes of [MESSAGE_BYTES, LARGE_BYTES]) {
    add(`recv, peek ${bytes} B`, () => recv(full, data.address, bytes, MSG_PEEK | MSG_DONTWAIT), bytes);
  }
  const message = new NativeBuffer(MSGHDR_BYTES);
  msghdrWrite(message.u32, 0, 0, 0, iov.address, 2);
  add(
    `recvmsg, peek ${MESSAGE_BYTES} B in two`,
    () => recvmsg(full, message.address, MSG_PEEK | MSG_DONTWAIT),
    MESSAGE_BYTES,
  );

  const [datagrams, sender] = pair(SOCK_DGRAM);
  checked('send', send(sender, data.address, DATAGRAM_BYTES, MSG_DONTWAIT));
  const vectors = (count: number): NativeBuffer => {
    const vec = new NativeBuffer(count * MMSGHDR_BYTES);
    const each = new NativeBuffer(count * IOVEC_BYTES);
    for (let i = 0; i < count; i++) {
      iovecWrite(each.u32, i * IOVEC_WORDS, data.address, DATAGRAM_BYTES);
      msghdrWrite(vec.u32, i * MMSGHDR_WORDS, 0, 0, each.address + i * IOVEC_BYTES, 1);
    }
    held.push(each);
    return vec;
  };
  const one = vectors(1);
  const many = vectors(BATCH);
  // MSG_PEEK returns the first datagram each time, so one datagram serves for whole batches.
  add(
    `recvmmsg, peek 1 of ${DATAGRAM_BYTES} B`,
    () => recvmmsg(datagrams, one.address, 1, MSG_PEEK | MSG_DONTWAIT),
    1,
  );
  add(
    `recvmmsg, peek ${BATCH} of ${DATAGRAM_BYTES} B`,
    () => recvmmsg(datagrams, many.address, BATCH, MSG_PEEK | MSG_DONTWAIT),
    BATCH,
  );

  const unread = unreadSocket();
  const out = udpSocket();
  checked('connect', connect(out, unread.address, 16));
  // Fill the queue until the kernel drops datagrams, so that every measured call takes the same path.
  while (fillQueue(out, data));
  const flags = MSG_DONTWAIT | MSG_NOSIGNAL;
  add(`send, UDP ${DATAGRAM_BYTES} B`, () => send(out, data.address, DATAGRAM_BYTES, flags), DATAGRAM_BYTES);
  const single = new NativeBuffer(IOVEC_BYTES);
  iovecWrite(single.u32, 0, data.address, DATAGRAM_BYTES);
  const plain = new NativeBuffer(MSGHDR_BYTES);
  msghdrWrite(plain.u32, 0, 0, 0, single.address, 1);
  add(`sendmsg, UDP ${DATAGRAM_BYTES} B`, () => sendmsg(out, plain.address, flags), DATAGRAM_BYTES);
  add(`sendmmsg, UDP ${BATCH} x ${DATAGRAM_BYTES} B`, () => sendmmsg(out, many.address, BATCH, flags), BATCH);
  const control = new NativeBuffer(cmsgSpace(2));
  const controlBytes = cmsgWrite(control.u32, 0, SOL_UDP, UDP_SEGMENT, 2);
  control.u16[CMSG_HEADER_BYTES >> 1] = DATAGRAM_BYTES;
  const whole = new NativeBuffer(IOVEC_BYTES);
  iovecWrite(whole.u32, 0, data.address, BATCH * DATAGRAM_BYTES);
  const segmented = new NativeBuffer(MSGHDR_BYTES);
  msghdrWrite(segmented.u32, 0, 0, 0, whole.address, 1);
  msghdrControlWrite(segmented.u32, 0, control.address, controlBytes);
  add(
    `sendmsg with UDP_SEGMENT, ${BATCH} x ${DATAGRAM_BYTES} B`,
    () => sendmsg(out, segmented.address, flags),
    BATCH * DATAGRAM_BYTES,
  );

  const bell = kept('eventfd', eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  add('eventfd, ring', () => eventfdWrite(bell), 8);
  const ringAndDrain = (): number => {
    eventfdWrite(bell);
    return eventfdDrain(bell);
  };
  add('eventfd, ring and drain', ringAndDrain, 8);
  const busy = kept('epoll', epollCreate());
  const events = new EpollEvents(BATCH);
  const rung = kept('eventfd', eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC));
  checked('epoll_ctl', epollAdd(busy, rung, EPOLLIN, 0, 0));
  const silent = kept('eventfd', eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  const waiting = kept('epoll', epollCreate());
  checked('epoll_ctl', epollAdd(waiting, silent, EPOLLIN, 0, 0));
  add('epoll_wait, nothing', () => epollWait(waiting, events, 0), 0);
  add('epoll_wait, one event', () => epollWait(busy, events, 0), 1);

  add('setsockopt SO_RCVLOWAT', () => setsockoptInt(empty, SOL_SOCKET, SO_RCVLOWAT, 1), 0);
  add('getsockopt SO_ERROR', () => getsockoptInt(empty, SOL_SOCKET, SO_ERROR), 0);
  add(
    'socket, connect and close, UDP: a flow',
    () => {
      const fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
      const r = connect(fd, unread.address, 16);
      close(fd);
      return r;
    },
    0,
  );
  held.push(data, iov, message, one, many, single, plain, control, whole, segmented, unread);
  return suite;
}

/** Keeps memory alive whose address is passed to the kernel. */
const held: NativeBuffer[] = [];

let filledBytes = 0;

/**
 * Send one more datagram to the socket that is not read.
 * @returns whether its queue may have had room: 4 MiB are more than any queue
 */
function fillQueue(fd: number, data: NativeBuffer): boolean {
  filledBytes += checked('send', send(fd, data.address, DATAGRAM_BYTES, MSG_DONTWAIT));
  return filledBytes < 4 << 20;
}

export function finish(): void {
  for (const fd of opened) close(fd);
}
