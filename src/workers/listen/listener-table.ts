/**
 * Which sockets listen for published ports. The plan names rules, often ranges of many thousand ports; each
 * port has a socket of its own, known by an id from which its gid follows (listenerBase + id). The set can be
 * changed while the engine runs: what both sets have stays open, with its connections; the rest is closed
 * first, then the new ones are opened.
 *
 * Ids are used again in the order in which they became free, so that a shard's reply to a listener that is
 * gone does not soon find another one in its place.
 */
import type { ListenerPlan } from '../engine-plan.ts';

/** Why a port, or with port 0 every port of a weak rule, is not listened on. */
export interface ListenFailure {
  /** Place of the rule in the list. */
  readonly index: number;
  readonly port: number;
  readonly errno: number;
}

export interface ListenerSockets {
  /** @returns 0 or -errno */
  open(id: number, plan: ListenerPlan, port: number): number;
  close(id: number, plan: ListenerPlan): void;
}

/** Sockets that share a rule's shape, by port. */
interface Group {
  readonly plan: ListenerPlan;
  readonly ids: Map<number, number>;
}

const lastPort = (plan: ListenerPlan): number => plan.lastPort ?? plan.port;

/** Sockets that a list of rules needs. */
export const listenerCount = (plans: readonly ListenerPlan[]): number =>
  plans.reduce((sum, plan) => sum + lastPort(plan) - plan.port + 1, 0);

/** Port that a connection to `port` is led to. */
export const targetPort = (plan: ListenerPlan, port: number): number => plan.targetPort + port - plan.port;

/** Rules with the same text differ only in their ports. */
const shape = (plan: ListenerPlan): string =>
  [
    plan.proto,
    plan.from ?? 'host',
    plan.path ?? 'tap',
    plan.targetPort - plan.port,
    plan.targetAddress ?? '',
    plan.interface ?? '',
    plan.address,
  ].join(' ');

export class ListenerTable {
  readonly #sockets: ListenerSockets;
  readonly #capacity: number;
  readonly #groups = new Map<string, Group>();
  #fresh = 0;
  /** Free ids, oldest first, from #freeAt on. */
  #free: number[] = [];
  #freeAt = 0;

  /** @param capacity  most sockets at a time */
  constructor(sockets: ListenerSockets, capacity: number) {
    this.#sockets = sockets;
    this.#capacity = capacity;
  }

  /**
   * Listen on these ports and no others.
   * @param noSocket  errno for a port beyond the capacity
   * @returns what could not be opened, by rule: ports of weak ones only when none of theirs could be
   */
  set(plans: readonly ListenerPlan[], noSocket: number): ListenFailure[] {
    this.#closeUnwanted(plans);
    return this.#openAll(plans, noSocket);
  }

  /**
   * Stop listening on the ports of some rules, then listen on those of others as well; all that is not named
   * stays as it is.
   * @returns as set() does, by place in `add`
   */
  change(remove: readonly ListenerPlan[], add: readonly ListenerPlan[], noSocket: number): ListenFailure[] {
    for (const plan of remove) {
      const key = shape(plan);
      const group = this.#groups.get(key);
      if (group === undefined) continue;
      for (let port = plan.port; port <= lastPort(plan); port++) {
        const id = group.ids.get(port);
        if (id !== undefined) this.#close(group, port, id);
      }
      if (group.ids.size === 0) this.#groups.delete(key);
    }
    return this.#openAll(add, noSocket);
  }

  #openAll(plans: readonly ListenerPlan[], noSocket: number): ListenFailure[] {
    const failures: ListenFailure[] = [];
    plans.forEach((plan, index) => {
      const key = shape(plan);
      let group = this.#groups.get(key);
      if (group === undefined) {
        group = { plan, ids: new Map() };
        this.#groups.set(key, group);
      }
      let opened = 0;
      let errno = 0;
      for (let port = plan.port; port <= lastPort(plan); port++) {
        if (group.ids.has(port)) {
          opened++;
          continue;
        }
        const r = this.#open(group, plan, port, noSocket);
        if (r === 0) {
          opened++;
          continue;
        }
        errno = -r;
        if (!plan.weak) {
          failures.push({ index, port, errno });
          break;
        }
      }
      if (plan.weak && opened === 0) failures.push({ index, port: 0, errno });
    });
    return failures;
  }

  #open(group: Group, plan: ListenerPlan, port: number, noSocket: number): number {
    const id = this.#takeId();
    if (id < 0) return -noSocket;
    const r = this.#sockets.open(id, plan, port);
    if (r < 0) {
      this.#free.push(id);
      return r;
    }
    group.ids.set(port, id);
    return 0;
  }

  #takeId(): number {
    // Ids that were never used come first: the longer one rests, the better.
    if (this.#fresh < this.#capacity) return this.#fresh++;
    if (this.#freeAt === this.#free.length) return -1;
    const id = this.#free[this.#freeAt++]!;
    if (this.#freeAt > 4096) {
      this.#free = this.#free.slice(this.#freeAt);
      this.#freeAt = 0;
    }
    return id;
  }

  #closeUnwanted(plans: readonly ListenerPlan[]): void {
    const wanted = new Map<string, ListenerPlan[]>();
    for (const plan of plans) {
      const key = shape(plan);
      const list = wanted.get(key);
      if (list === undefined) wanted.set(key, [plan]);
      else list.push(plan);
    }
    for (const [key, group] of this.#groups) {
      const ranges = wanted.get(key);
      for (const [port, id] of group.ids) {
        if (ranges?.some((plan) => port >= plan.port && port <= lastPort(plan))) continue;
        this.#close(group, port, id);
      }
      if (group.ids.size === 0) this.#groups.delete(key);
    }
  }

  #close(group: Group, port: number, id: number): void {
    this.#sockets.close(id, group.plan);
    this.#free.push(id);
    group.ids.delete(port);
  }
}
