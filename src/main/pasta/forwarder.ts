/**
 * Port forwarding while the engine runs: the rules of both directions as listeners, rules with `auto`
 * followed by a look at both namespaces every second, and rules exchanged by the control socket.
 */

import { strerror } from '../../sys/libc.ts';
import type { EngineHandle } from '../../workers/engine.ts';
import type { ListenerPlan } from '../../workers/engine-plan.ts';
import type { ListenFailure } from '../../workers/listen/listener-table.ts';
import type { AddedPorts } from '../api/added-ports.ts';
import { listenersCollide } from '../host/host-ports.ts';
import { ForwardMessage as M } from './forward-messages.ts';
import {
  type Direction,
  type ForwardRule,
  type ListeningPorts,
  type Protocol,
  type RuleTable,
  ruleListeners,
  ruleWhere,
} from './forward-rules.ts';
import { foreignPorts, scan, type TableFds } from './port-scan.ts';

const SCAN_MS = 1000;

export interface ForwarderOptions {
  readonly inbound: RuleTable;
  readonly outbound: RuleTable;
  /** Loopback connections go past the TAP. */
  readonly splice: boolean;
  readonly hostTables: TableFds;
  readonly guestTables: TableFds;
  /** Nobody has been in the namespace yet, so nothing listens there before the engine starts. */
  readonly guestIsNew: boolean;
  log(level: 'error' | 'warning' | 'info' | 'debug', text: string): void;
}

interface Planned {
  readonly listener: ListenerPlan;
  readonly rule: ForwardRule;
  readonly direction: Direction;
}

export class Forwarder {
  readonly #o: ForwarderOptions;
  #inbound: RuleTable;
  #outbound: RuleTable;
  #planned: readonly Planned[] = [];
  #timer: NodeJS.Timeout | undefined;
  /** Of the rules' listeners that the engine has. */
  #key = '';
  /** Ports that the API socket has added: behind all others in the list. */
  readonly #added = new Set<ListenerPlan>();

  constructor(options: ForwarderOptions) {
    this.#o = options;
    this.#inbound = options.inbound;
    this.#outbound = options.outbound;
  }

  get inbound(): RuleTable {
    return this.#inbound;
  }

  get outbound(): RuleTable {
    return this.#outbound;
  }

  get #scans(): boolean {
    return [...this.#inbound.rules, ...this.#outbound.rules].some((rule) => rule.scan);
  }

  /**
   * Look at both sides, where a rule wants it.
   * @param flowPorts  EngineHandle.datagramPorts, once there is an engine
   * @returns what to listen on now
   */
  listeners(flowPorts?: Uint8Array): readonly ListenerPlan[] {
    const scans = this.#scans;
    const none = { tcp: new Set<number>(), udp: new Set<number>() };
    const host = scans ? scan(this.#o.hostTables) : none;
    const guestMayHear = flowPorts !== undefined || !this.#o.guestIsNew;
    const guest = scans && guestMayHear ? scan(this.#o.guestTables) : none;
    const insideHears = foreignPorts(guest, this.#ours('SPLICE'));
    const onHost = this.#ours('HOST');
    // The guest's own flows look like services of the host there.
    if (flowPorts !== undefined) for (const port of host.udp) if (flowPorts[port] !== 0) onHost.udp.add(port);
    const hostHears = foreignPorts(host, onHost);
    const plan = (table: RuleTable, hears: ListeningPorts): Planned[] =>
      table.rules.flatMap((rule) =>
        ruleListeners(rule, table.direction, this.#o.splice, hears).map((listener) => ({
          listener,
          rule,
          direction: table.direction,
        })),
      );
    this.#planned = [...plan(this.#inbound, insideHears), ...plan(this.#outbound, hostHears)];
    return [...this.#plannedListeners(), ...this.#added];
  }

  #plannedListeners(): readonly ListenerPlan[] {
    return this.#planned.map((planned) => planned.listener);
  }

  /** For the API socket (../api.ts). */
  addedPorts(engine: Pick<EngineHandle, 'setListeners' | 'changeListeners'>): AddedPorts {
    const remove = async (listener: ListenerPlan): Promise<void> => {
      this.#added.delete(listener);
      const planned = this.#plannedListeners();
      // A rule that came later may want the same port: then the engine is to work out what stays.
      if (planned.some((other) => listenersCollide(other, listener)))
        await engine.setListeners([...planned, ...this.#added]);
      else await engine.changeListeners([listener], []);
    };
    return {
      others: () => this.#plannedListeners(),
      add: async (listener) => {
        this.#added.add(listener); // before it is sent: a look at the namespaces may send the whole list meanwhile
        const [failure] = await engine.changeListeners([], [listener]);
        if (failure !== undefined) await remove(listener);
        return failure?.errno ?? 0;
      },
      remove,
    };
  }

  /** Ports that we listen on: HOST on the host, SPLICE inside. */
  #ours(direction: Direction): Record<Protocol, Set<number>> {
    const ports = { tcp: new Set<number>(), udp: new Set<number>() };
    const added = [...this.#added].map((listener) => ({ listener, direction: 'HOST' }));
    for (const { listener, direction: d } of [...this.#planned, ...added]) {
      if (d !== direction) continue;
      for (let port = listener.port; port <= (listener.lastPort ?? listener.port); port++)
        ports[listener.proto].add(port);
    }
    return ports;
  }

  /** Follow the namespaces from now on. */
  start(engine: EngineHandle): void {
    this.#key = JSON.stringify(this.#plannedListeners());
    this.#follow(engine);
  }

  /** Where no rule wants it, nothing wakes us. */
  #follow(engine: EngineHandle): void {
    clearInterval(this.#timer);
    if (this.#scans) this.#timer = setInterval(() => void this.#rescan(engine), SCAN_MS).unref();
  }

  async #rescan(engine: EngineHandle): Promise<void> {
    const listeners = this.listeners(engine.datagramPorts);
    const key = JSON.stringify(this.#plannedListeners());
    if (key === this.#key) return;
    this.#key = key;
    this.#tell(await engine.setListeners(listeners));
  }

  /** Of added ports the API socket has told. */
  #tell(failures: readonly ListenFailure[]): void {
    for (const failure of failures)
      if (failure.index < this.#planned.length) this.#o.log('warning', this.failureText(failure)[0]!);
  }

  /** Put other rules in the place of these; what both have stays open. */
  async replace(engine: EngineHandle, inbound: RuleTable, outbound: RuleTable): Promise<void> {
    this.#inbound = inbound;
    this.#outbound = outbound;
    this.#follow(engine);
    const listeners = this.listeners(engine.datagramPorts);
    this.#key = JSON.stringify(this.#plannedListeners());
    this.#tell(await engine.setListeners(listeners));
  }

  /** What to tell of a port that could not be had, in lines. */
  failureText(failure: ListenFailure): readonly string[] {
    const planned = this.#planned[failure.index];
    if (planned === undefined) return [M.couldNotListen];
    const { rule, direction } = planned;
    const proto = rule.proto.toUpperCase();
    return [
      failure.port === 0 && !rule.scan
        ? M.allListensFailed(direction, proto, ruleWhere(rule))
        : M.listenFailed(
            direction,
            proto,
            ruleWhere(rule, failure.port || planned.listener.port, failure.port || planned.listener.port),
            strerror(failure.errno),
          ),
      M.couldNotListen,
    ];
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}
