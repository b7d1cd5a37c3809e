/**
 * What a start needs and a running engine does not, given back to the kernel some seconds after the start: the
 * garbage of the start on the main thread's heap, and the mapped pages of the runtime's code
 * (sys/file-pages.ts). Programs that end earlier, as `run -- true` does, pay nothing for it.
 */
import { collectGarbage } from '#runtime/memory';
import { FilePages } from '../../sys/file-pages.ts';

/** Behind the start of COMMAND and its first traffic. */
const AFTER_MS = 2000;

export class IdleMemory {
  readonly #pages = new FilePages();
  #timer: NodeJS.Timeout | undefined;

  /** Traffic may flow from now on. */
  ready(): void {
    this.#timer = setTimeout(() => {
      collectGarbage();
      this.#pages.drop(); // last: it drops the code of the collector, too
    }, AFTER_MS);
    this.#timer.unref();
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#pages.close();
  }
}
