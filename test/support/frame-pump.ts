/**
 * Copies frames between a TAP and a socket with one frame per message, both ways, until the socket closes.
 */
import { EPOLLIN } from '../../src/sys/constants.ts';
import { EpollEvents, epollAdd, epollCreate, epollWait } from '../../src/sys/epoll.ts';
import { checked } from '../../src/sys/error.ts';
import { read, setNonBlocking, write } from '../../src/sys/io.ts';
import { NativeBuffer } from '../../src/sys/memory.ts';

const MAX_FRAME_BYTES = 70_000;

/**
 * Blocks until the socket closes.
 * @param onFrame called with the length of each frame from the socket, in bytes
 */
export function pumpFrames(tap: number, peer: number, onFrame: (bytes: number) => void = () => {}): void {
  checked(setNonBlocking(peer), 'fcntl', 'O_NONBLOCK');
  const frame = new NativeBuffer(MAX_FRAME_BYTES);
  const ep = checked(epollCreate(), 'epoll_create1', '');
  for (const fd of [tap, peer]) checked(epollAdd(ep, fd, EPOLLIN, fd, 0), 'epoll_ctl', `${fd}`);
  const events = new EpollEvents(2);
  for (;;) {
    const n = epollWait(ep, events, 1000);
    for (let i = 0; i < n; i++) {
      const from = events.dataLo(i);
      const bytes = read(from, frame.address, MAX_FRAME_BYTES);
      if (bytes > 0) {
        if (from === peer) onFrame(bytes);
        write(from === tap ? peer : tap, frame.address, bytes);
      } else if (from === peer && bytes === 0) return;
    }
  }
}
