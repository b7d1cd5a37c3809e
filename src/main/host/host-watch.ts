/**
 * Follows the host's network: links, addresses and routes. Sockets of new flows go the new way by themselves,
 * as the kernel chooses for each; what the engine and the namespace need beside that is for the front end to
 * say (decision 060).
 *
 * Node's event loop cannot wait for a netlink socket, so a packet thread does (decision 083): it tells of the
 * first announcement and of no other until it is asked again. That is a while after each look, as link,
 * address and route come one by one, each as a change:
 *
 *   announcements  |||        | | |                                    |
 *   looks          ^  100 ms  ^    200 ms    ^  400 ms, nothing came   ^
 */
import { SysError } from '../../sys/error.ts';
import { RouteMonitor, RouteSocket } from '../../sys/netlink.ts';
import type { EngineHandle } from '../../workers/engine.ts';
import type { Log } from './log.ts';

/**
 * Between two looks, where changes follow one another: at first, and at most, as each costs six system calls
 * a UDP flow.
 */
const MIN_GAP_MS = 100;
const MAX_GAP_MS = 1000;

/**
 * Opens its sockets in the namespace of the calling thread: make it before that moves. What happens from then
 * on is not missed.
 */
export class HostWatch {
  readonly #monitor = new RouteMonitor();
  /** Asks about the host, whichever namespace the thread is in by then. */
  readonly host = new RouteSocket();
  #timer: NodeJS.Timeout | undefined;
  #gapMs = MIN_GAP_MS;
  #lookedAt = Number.NEGATIVE_INFINITY;

  /** @param onChange  something may have changed; what it throws is told and does not end the watch */
  start(engine: Pick<EngineHandle, 'watchReadable'>, onChange: () => void, log: Log): void {
    const waitAgain = engine.watchReadable(this.#monitor.fd, () => {
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
      this.#timer = setTimeout(waitAgain, this.#gapMs).unref();
    });
  }

  /** No more looks. The sockets go with the process: a packet thread may be about to wait for one. */
  stop(): void {
    clearTimeout(this.#timer);
  }
}

/** Tells when an interface that connections are bound to goes or comes: meanwhile each of them is refused. */
export class InterfacePresence {
  readonly #present = new Map<string, boolean>();
  readonly #log: Log;

  constructor(names: readonly (string | undefined)[], log: Log) {
    for (const name of names) if (name !== undefined) this.#present.set(name, true);
    this.#log = log;
  }

  /** @param links  those of the host now */
  look(links: readonly { readonly name: string }[]): void {
    for (const [name, before] of this.#present) {
      const now = links.some((link) => link.name === name);
      if (now === before) continue;
      this.#present.set(name, now);
      if (now) this.#log('info', `interface ${name} is back: connections leave by it again`);
      else this.#log('warning', `interface ${name} is gone: connections by it fail until it is back`);
    }
  }
}
