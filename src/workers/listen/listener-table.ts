/**
 * Which sockets listen for published ports. The plan has rules, often ranges of many thousand ports; each
 * port has its own socket, named by an id (its gid is listenerBase + id). The set can be changed while the
 * engine runs: ports of both the old and the new set stay open, with their connections; the others are closed
 * first, then the new ones are opened.
 *
 * Ids are reused in the order in which they became free: a late command of a shard for a closed listener is
 * unlikely to reach a new listener with the same id.
 */
import type { ListenerPlan } from '../engine-plan.ts';

/** Why a port, or with port 0 every port of a weak rule, is not listened on. */
export interface ListenFailure {
  /** Index of the rule in the list. */
  readonly index: number;
  readonly port: number;
  readonly errno: number;
}

/** Opens and closes the sockets of the table. */
export interface ListenerSockets {
  /** @param port  one port of the rule @returns 0 or -errno */
  open(id: number, plan: ListenerPlan, port: number): number;
  close(id: number, plan: ListenerPlan): void;
}

/** Sockets of rules with the same shape(). */
interface Group {
  readonly plan: ListenerPlan;
  /** Id by port. */
  readonly ids: Map<number, number>;
}

const lastPort = (plan: ListenerPlan): number => plan.lastPort ?? plan.port;

/** @returns how many sockets a list of rules needs */
export const listenerCount = (plans: readonly ListenerPlan[]): number =>
  plans.reduce((sum, plan) => sum + lastPort(plan) - plan.port + 1, 0);

/** @returns the port inside that a rule forwards its `port` to */
export const targetPort = (plan: ListenerPlan, port: number): number => plan.targetPort + port - plan.port;

/** @returns a text that two rules have in common if they differ in their ports only */
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
  /** Smallest id that was never used. */
  #fresh = 0;
  /** Free ids from #freeAt on, in the order in which they became free. */
  #free: number[] = [];
  #freeAt = 0;

  /** @param capacity  most sockets at the same time */
  constructor(sockets: ListenerSockets, capacity: number) {
    this.#sockets = sockets;
    this.#capacity = capacity;
  }

  /**
   * Listen on the ports of these rules and no others.
   * @param noSocket  errno for a port beyond the capacity
   * @returns the first port of each rule that could not be opened; of a weak rule (which may lack some of its
   *   ports) port 0 if none could
   */
  set(plans: readonly ListenerPlan[], noSocket: number): ListenFailure[] {
    this.#closeUnwanted(plans);
    return this.#openAll(plans, noSocket);
  }

  /**
   * Stop listening on the ports of `remove`, then listen on the ports of `add` too; all other ports stay as
   * they are.
   * @returns as set(), with indexes of `add`
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
    // Ids that were never used come first: no late command can name them.
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
