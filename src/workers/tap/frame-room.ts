/**
 * Room in a socket that takes frames in the place of a TAP: a TAP drops what does not fit its queue and says
 * nothing, a socket says EAGAIN. There is one guest behind it, so that while it reads nothing else is to be
 * done: waiting a little is what a wire would do.
 */
import { EPOLLOUT } from '../../sys/constants.ts';
import { EpollEvents, epollAdd, epollCreate, epollWait } from '../../sys/epoll.ts';

/** What is not taken by then is lost, as on a wire. */
const WAIT_MS = 20;

export class FrameRoom {
  readonly #ep: number;
  readonly #events = new EpollEvents(1);

  /** @throws Error when the descriptor cannot be waited for */
  constructor(fd: number) {
    this.#ep = epollCreate();
    const r = this.#ep < 0 ? this.#ep : epollAdd(this.#ep, fd, EPOLLOUT, 0, 0);
    if (r < 0) throw new Error(`epoll for frames: errno ${-r}`);
  }

  /** @returns whether another try is worth it */
  wait(): boolean {
    return epollWait(this.#ep, this.#events, WAIT_MS) > 0;
  }
}
