/**
 * The other end of `slirp4netns --target-type=bess`, in the place of a machine: a TAP of the namespace that it is started in, whose
 * frames go to a SOCK_SEQPACKET socket and back, one a message. `bess-bridge.ts PATH TAP`; prints "ready", ends with the socket.
 */
import { AF_UNIX, EPOLLIN, SOCK_SEQPACKET } from '../../../src/sys/constants.ts';
import { EpollEvents, epollAdd, epollCreate, epollWait } from '../../../src/sys/epoll.ts';
import { checked } from '../../../src/sys/error.ts';
import { unixAddress } from '../../../src/sys/frame-socket.ts';
import { read, setNonBlocking, write } from '../../../src/sys/io.ts';
import { NativeBuffer } from '../../../src/sys/memory.ts';
import { connect, socket } from '../../../src/sys/socket.ts';
import { openTap } from '../../../src/sys/tap.ts';

const [path = '', name = ''] = process.argv.slice(2);
const tap = openTap({ name, vnetHeader: false }).fd;
const peer = checked(socket(AF_UNIX, SOCK_SEQPACKET, 0), 'socket', 'SOCK_SEQPACKET');
const address = unixAddress(path);
checked(connect(peer, address.memory.address, address.bytes), 'connect', path);
checked(setNonBlocking(peer), 'fcntl', 'O_NONBLOCK');

const frame = new NativeBuffer(70_000);
const ep = checked(epollCreate(), 'epoll_create1', '');
for (const fd of [tap, peer]) checked(epollAdd(ep, fd, EPOLLIN, fd, 0), 'epoll_ctl', `${fd}`);
const events = new EpollEvents(2);
console.log('ready');
for (;;) {
  const n = epollWait(ep, events, 1000);
  for (let i = 0; i < n; i++) {
    const from = events.dataLo(i);
    const bytes = read(from, frame.address, 70_000);
    if (bytes > 0) write(from === tap ? peer : tap, frame.address, bytes);
    else if (from === peer && bytes === 0) process.exit(0);
  }
}
