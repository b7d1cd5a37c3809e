/** Waits for descriptors in place of an engine's host-io thread (EngineHandle.watchReadable). */
import { EPOLLIN, EPOLLONESHOT, Errno } from '../../src/sys/constants.ts';
import { EpollEvents, epollAdd, epollCreate, epollMod, epollWait } from '../../src/sys/epoll.ts';
import { close } from '../../src/sys/io.ts';

const LOOK_MS = 5;

export class DescriptorWaits {
  readonly #ep = epollCreate();
  readonly #events = new EpollEvents(16);
  readonly #onReadable = new Map<number, () => void>();
  readonly #timer = setInterval(() => this.#look(), LOOK_MS);
  /** How many times a descriptor was readable. */
  reports = 0;

  watchReadable(fd: number, onReadable: () => void): () => void {
    this.#onReadable.set(fd, onReadable);
    const arm = (): void => {
      const events = EPOLLIN | EPOLLONESHOT;
      if (epollMod(this.#ep, fd, events, fd, 0) === -Errno.ENOENT) epollAdd(this.#ep, fd, events, fd, 0);
    };
    arm();
    return arm;
  }

  stop(): void {
    clearInterval(this.#timer);
    close(this.#ep);
  }

  #look(): void {
    const count = epollWait(this.#ep, this.#events, 0);
    for (let i = 0; i < count; i++) {
      this.reports++;
      this.#onReadable.get(this.#events.dataLo(i))?.();
    }
  }
}
