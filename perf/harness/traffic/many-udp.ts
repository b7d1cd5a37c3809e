/**
 * Many UDP flows at once, like a BitTorrent client's: one port of the guest, COUNT ports of the peer; both
 * sides send at a constant rate. Prints one line of JSON: datagrams sent and received.
 *
 * usage: many-udp.ts peer FIRST_PORT COUNT BYTES MBIT SECONDS              says `listening`; SECONDS begin with the first datagram
 *        many-udp.ts guest FIRST_PORT COUNT BYTES MBIT SECONDS ADDRESS
 *
 * A datagram counts as received if it arrives at most DRAIN_MS after the last one was sent. Datagrams are
 * sent at most once per millisecond, all that are due in a burst: about twenty at 200 Mbit/s.
 */
import { EPOLLIN, MSG_DONTWAIT, SO_RCVBUF, SOL_SOCKET } from '../../../src/sys/constants.ts';
import { EpollEvents, epollAdd, epollCreate, epollWait } from '../../../src/sys/epoll.ts';
import { checked } from '../../../src/sys/error.ts';
import { NativeBuffer } from '../../../src/sys/memory.ts';
import {
  connect,
  IOVEC_BYTES,
  iovecWrite,
  MSGHDR_BYTES,
  MSGHDR_NAMELEN_WORD,
  msghdrWrite,
  recv,
  recvmsg,
  SOCKADDR_BYTES,
  send,
  sendto,
  setsockoptInt,
} from '../../../src/sys/socket.ts';
import { bound, datagramSocket, numbers, print, type Sockaddr, sockaddr } from './socket.ts';

const DRAIN_MS = 400;
const START_TIMEOUT_MS = 10_000;
const EVENTS = 256;
/**
 * The most that an ordinary process may request: datagrams should be lost in the tool, not in these sockets.
 */
const RECEIVE_BUFFER_BYTES = 4 << 20;

const role = process.argv[2];
const [firstPort = 0, count = 1, bytes = 1, mbit = 1, seconds = 1] = numbers(process.argv.slice(3, 8));
const isGuest = role === 'guest';
const datagram = new NativeBuffer(bytes);
const perMs = (mbit * 1000) / 8 / bytes;

const fds: number[] = [];
/** In the guest: destinations of the datagrams. */
const remotes: Sockaddr[] = [];
/** In the peer: sockets that are connected to their guest. */
const connected: number[] = [];
for (let i = 0; i < count; i++) {
  const port = firstPort + i;
  if (isGuest) remotes.push(sockaddr(process.argv[8] ?? '', port));
  if (isGuest && i > 0) continue;
  const local = sockaddr('0.0.0.0', isGuest ? 0 : port);
  const fd = bound(datagramSocket(local.domain), local, port);
  checked(setsockoptInt(fd, SOL_SOCKET, SO_RCVBUF, RECEIVE_BUFFER_BYTES), 'setsockopt', 'SO_RCVBUF');
  fds.push(fd);
}
const ep = checked(epollCreate(), 'epoll_create1', '');
const events = new EpollEvents(EVENTS);
fds.forEach((fd, i) => {
  checked(epollAdd(ep, fd, EPOLLIN, i, 0), 'epoll_ctl', `socket ${i}`);
});

const from = new NativeBuffer(SOCKADDR_BYTES);
const iovec = new NativeBuffer(IOVEC_BYTES);
const message = new NativeBuffer(MSGHDR_BYTES);
iovecWrite(iovec.u32, 0, datagram.address, bytes);

let sent = 0;
let received = 0;
const isConnected = new Uint8Array(fds.length);

/** Receive. A socket of the peer sends to the source of its first datagram. */
function take(index: number): void {
  const fd = fds[index]!;
  if (!isGuest && isConnected[index] === 0) {
    msghdrWrite(message.u32, 0, from.address, SOCKADDR_BYTES, iovec.address, 1);
    if (recvmsg(fd, message.address, MSG_DONTWAIT) < 0) return;
    received++;
    if (connect(fd, from.address, message.u32[MSGHDR_NAMELEN_WORD]!) < 0) return;
    isConnected[index] = 1;
    connected.push(fd);
  }
  while (recv(fd, datagram.address, bytes, MSG_DONTWAIT) >= 0) received++;
}

if (!isGuest) print('listening');
let beganMs = isGuest ? performance.now() : 0;
const giveUpMs = performance.now() + START_TIMEOUT_MS;
for (let turn = 0; ; ) {
  const ready = epollWait(ep, events, 1);
  const nowMs = performance.now();
  for (let i = 0; i < ready; i++) take(events.dataLo(i));
  if (beganMs === 0) {
    if (received > 0) beganMs = nowMs;
    else if (nowMs > giveUpMs) break;
    else continue;
  }
  const elapsedMs = nowMs - beganMs;
  if (elapsedMs > seconds * 1000 + DRAIN_MS) break;
  if (!isGuest && connected.length === 0) continue;
  const due = Math.floor(Math.min(elapsedMs, seconds * 1000) * perMs);
  for (; sent < due; sent++, turn++) {
    if (isGuest) {
      const to = remotes[turn % count]!;
      if (sendto(fds[0]!, datagram.address, bytes, 0, to.buffer.address, to.bytes) < 0) break;
    } else if (send(connected[turn % connected.length]!, datagram.address, bytes, 0) < 0) break;
  }
}
print(JSON.stringify({ sent, received }));
process.exit(0);
