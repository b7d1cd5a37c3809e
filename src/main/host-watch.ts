/**
 * Follows the host's network: links, addresses and routes. Sockets of new flows go the new way by themselves, as the kernel chooses for
 * each; what the engine and the namespace need beside that is for the front end to say (decision 060).
 *
 * Node's event loop cannot wait for a netlink socket. It is looked at once a second: one system call, and time for what belongs
 * together (link, address, route) to arrive together.
 */
import { SysError } from '../sys/error.ts';
import { RouteMonitor, RouteSocket } from '../sys/netlink.ts';
import type { Log } from './log.ts';

const LOOK_MS = 1000;

/** Opens its sockets in the namespace of the calling thread: make it before that moves. What happens from then on is not missed. */
export class HostWatch {
  readonly #monitor = new RouteMonitor();
  /** Asks about the host, whichever namespace the thread is in by then. */
  readonly host = new RouteSocket();
  #timer: NodeJS.Timeout | undefined;

  /** @param onChange  something may have changed; what it throws is told and does not end the watch */
  start(onChange: () => void, log: Log): void {
    this.#timer = setInterval(() => {
      try {
        if (this.#monitor.drain()) onChange();
      } catch (error) {
        if (!(error instanceof SysError)) throw error;
        log('warning', `the host's network has changed, but cannot be followed: ${error.message}`);
      }
    }, LOOK_MS).unref();
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#monitor.close();
    this.host.close();
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
