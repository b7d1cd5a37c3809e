/**
 * Waits for room in a socket that takes frames in the place of a TAP. A full TAP drops frames silently; a
 * full socket returns EAGAIN. Only one guest is behind the socket, so a short wait delays nobody else.
 */
import { EPOLLOUT } from '../../sys/constants.ts';
import { EpollEvents, epollAdd, epollCreate, epollWait } from '../../sys/epoll.ts';

/** A frame that finds no room in this time is lost, as on a wire. */
const WAIT_MS = 20;

export class FrameRoom {
  readonly #ep: number;
  readonly #events = new EpollEvents(1);

  /** @param fd  the socket @throws Error when epoll does not accept it */
  constructor(fd: number) {
    this.#ep = epollCreate();
    const r = this.#ep < 0 ? this.#ep : epollAdd(this.#ep, fd, EPOLLOUT, 0, 0);
    if (r < 0) throw new Error(`epoll for frames: errno ${-r}`);
  }

  /** Wait for up to WAIT_MS. @returns whether there is room now */
  wait(): boolean {
    return epollWait(this.#ep, this.#events, WAIT_MS) > 0;
  }
}
