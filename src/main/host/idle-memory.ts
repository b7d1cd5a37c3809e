/**
 * Memory that a start needs and a running engine does not: the mapped pages of the runtime's code
 * (sys/file-pages.ts). They are dropped some time after the start, when COMMAND has made its first
 * connections: a program that ends earlier pays nothing for it, and no code of the start is needed again.
 */
import { FilePages } from '../../sys/file-pages.ts';

/**
 * From ready to drop(). What is dropped sooner partly comes back: 46 MiB resident after 0 ms, 39.5 after 1 or
 * 2 s (Node, perf/notes.md).
 */
const AFTER_MS = 2000;

/** To be made while there is a /proc: before the sandbox. */
export class IdleMemory {
  readonly #pages = new FilePages();
  #timer: NodeJS.Timeout | undefined;

  /** To be called when COMMAND runs, or the caller knows that the engine does. */
  ready(): void {
    this.#timer = setTimeout(() => this.#pages.drop(), AFTER_MS);
    this.#timer.unref();
  }

  /** Drop nothing any more. */
  stop(): void {
    clearTimeout(this.#timer);
    this.#pages.close();
  }
}
