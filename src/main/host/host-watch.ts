/**
 * Follows the host's network: links, addresses and routes. Sockets of new flows need no help, as the kernel
 * routes each of them anew; the front end decides what the engine and the namespace need beside that
 * (decision 060).
 *
 * The runtime's event loop cannot wait for a netlink socket, so a packet thread waits for it (decision 083).
 * The thread reports the first announcement, and no other until it is armed again. It is armed again some
 * time after each look, because link, address and route arrive one by one, each as a change of its own:
 *
 *   announcements  |||        | | |                                    |
 *   looks          ^  100 ms  ^    200 ms    ^  400 ms, nothing came   ^
 */
import { SysError } from '../../sys/error.ts';
import { RouteMonitor, RouteSocket } from '../../sys/netlink.ts';
import type { EngineHandle } from '../../workers/engine.ts';
import type { Log } from './log.ts';

/**
 * Time between two looks while changes follow one another: minimum and maximum. One look costs six system
 * calls for each UDP flow.
 */
const MIN_GAP_MS = 100;
const MAX_GAP_MS = 1000;

/**
 * Notices changes of the host's network. The constructor opens its sockets in the network namespace of the
 * calling thread, so create it before that thread moves. From then on no change is missed.
 */
export class HostWatch {
  readonly #monitor = new RouteMonitor();
  /** Queries the host's network, also after the calling thread has moved to another namespace. */
  readonly host = new RouteSocket();
  #timer: NodeJS.Timeout | undefined;
  #gapMs = MIN_GAP_MS;
  #lookedAt = Number.NEGATIVE_INFINITY;

  /**
   * Start to watch.
   * @param onChange  called when something may have changed; a SysError that it throws is logged, and the
   *   watch goes on
   */
  start(engine: Pick<EngineHandle, 'watchReadable'>, onChange: () => void, log: Log): void {
    const armAgain = engine.watchReadable(this.#monitor.fd, () => {
      try {
        if (this.#monitor.drain()) onChange();
      } catch (error) {
        if (!(error instanceof SysError)) throw error;
        log(
          'warning',
          `the host's network has changed, but bucatini could not read the change: ${error.message}`,
        );
      }
      const now = performance.now();
      const quiet = now - this.#lookedAt > 2 * this.#gapMs;
      this.#gapMs = quiet ? MIN_GAP_MS : Math.min(2 * this.#gapMs, MAX_GAP_MS);
      this.#lookedAt = now;
      this.#timer = setTimeout(armAgain, this.#gapMs).unref();
    });
  }

  /**
   * No more calls of `onChange`. The sockets stay open until the process ends, as a packet thread may be
   * about to wait for one of them.
   */
  stop(): void {
    clearTimeout(this.#timer);
  }
}

/**
 * Logs when an interface that connections are bound to disappears or comes back. While it is missing, each of
 * these connections is refused.
 */
export class InterfacePresence {
  readonly #present = new Map<string, boolean>();
  readonly #log: Log;

  constructor(names: readonly (string | undefined)[], log: Log) {
    for (const name of names) if (name !== undefined) this.#present.set(name, true);
    this.#log = log;
  }

  /** @param links  all links that the host has now */
  setLinks(links: readonly { readonly name: string }[]): void {
    for (const [name, before] of this.#present) {
      const now = links.some((link) => link.name === name);
      if (now === before) continue;
      this.#present.set(name, now);
      if (now) this.#log('info', `interface ${name} is back: connections can use it again`);
      else this.#log('warning', `interface ${name} is gone: connections that need it fail until it is back`);
    }
  }
}
