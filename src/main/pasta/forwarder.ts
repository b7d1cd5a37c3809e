/**
 * Port forwarding while the engine runs: keeps the engine's listeners in step with the rules of both
 * directions. For rules with `auto`, both namespaces are scanned for listening ports every second. The
 * control socket replaces rules.
 */

import { strerror } from '../../sys/libc.ts';
import type { EngineHandle } from '../../workers/engine.ts';
import type { ListenerPlan } from '../../workers/engine-plan.ts';
import type { ListenFailure } from '../../workers/listen/listener-table.ts';
import type { AddedPorts, FailedPort } from '../api/added-ports.ts';
import { listenersCollide } from '../host/host-ports.ts';
import { ForwardMessage as M } from './forward-messages.ts';
import {
  type Direction,
  type ForwardRule,
  type ListeningPorts,
  type Protocol,
  type RuleFailure,
  type RuleTable,
  ruleListeners,
  ruleWhere,
} from './forward-rules.ts';
import { foreignPorts, scan, type TableFds } from './port-scan.ts';

const SCAN_MS = 1000;

export interface ForwarderOptions {
  readonly inbound: RuleTable;
  readonly outbound: RuleTable;
  /** Loopback connections are spliced: they bypass the TAP. */
  readonly splice: boolean;
  readonly hostTables: TableFds;
  readonly guestTables: TableFds;
  /** No process has been in the namespace yet, so nothing listens there before the engine starts. */
  readonly guestIsNew: boolean;
  log(level: 'error' | 'warning' | 'info' | 'debug', text: string): void;
}

/** A listener and the rule that it comes from. */
interface Planned {
  readonly listener: ListenerPlan;
  readonly rule: ForwardRule;
  readonly direction: Direction;
}

/** The rules in force, and the listeners that they need. */
export class Forwarder {
  readonly #o: ForwarderOptions;
  #inbound: RuleTable;
  #outbound: RuleTable;
  #planned: readonly Planned[] = [];
  #timer: NodeJS.Timeout | undefined;
  /** The rules' listeners that the engine has, as JSON: changes are found by comparison. */
  #key = '';
  /** Ports that the API socket has added: last in the list of listeners. */
  readonly #added = new Set<ListenerPlan>();
  /** Of the last change of the list. */
  #failed: readonly FailedPort[] = [];

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

  get #needsScan(): boolean {
    return [...this.#inbound.rules, ...this.#outbound.rules].some((rule) => rule.scan);
  }

  /**
   * Scan both namespaces if a rule is `auto`, and plan the listeners anew.
   * @param flowPorts  EngineHandle.datagramPorts; undefined before the engine runs
   * @returns all listeners that the engine should have now
   */
  listeners(flowPorts?: Uint8Array): readonly ListenerPlan[] {
    const needsScan = this.#needsScan;
    const none = { tcp: new Set<number>(), udp: new Set<number>() };
    const host = needsScan ? scan(this.#o.hostTables) : none;
    const guestMayListen = flowPorts !== undefined || !this.#o.guestIsNew;
    const guest = needsScan && guestMayListen ? scan(this.#o.guestTables) : none;
    const listeningInside = foreignPorts(guest, this.#ours('SPLICE'));
    const onHost = this.#ours('HOST');
    // In the host's tables, sockets of the guest's own flows look like services of the host.
    if (flowPorts !== undefined) for (const port of host.udp) if (flowPorts[port] !== 0) onHost.udp.add(port);
    const listeningOnHost = foreignPorts(host, onHost);
    const plan = (table: RuleTable, listening: ListeningPorts): Planned[] =>
      table.rules.flatMap((rule) =>
        ruleListeners(rule, table.direction, this.#o.splice, listening).map((listener) => ({
          listener,
          rule,
          direction: table.direction,
        })),
      );
    this.#planned = [...plan(this.#inbound, listeningInside), ...plan(this.#outbound, listeningOnHost)];
    return [...this.#plannedListeners(), ...this.#added];
  }

  #plannedListeners(): readonly ListenerPlan[] {
    return this.#planned.map((planned) => planned.listener);
  }

  /** What the API socket needs to add and remove ports (../api/added-ports.ts). */
  addedPorts(engine: Pick<EngineHandle, 'setListeners' | 'changeListeners'>): AddedPorts {
    const remove = async (listener: ListenerPlan): Promise<void> => {
      this.#added.delete(listener);
      const planned = this.#plannedListeners();
      // A rule that was added later may want the same port: then the engine gets the whole list.
      if (planned.some((other) => listenersCollide(other, listener)))
        await engine.setListeners([...planned, ...this.#added]);
      else await engine.changeListeners([listener], []);
    };
    return {
      others: () => this.#plannedListeners(),
      failed: () => this.#failed,
      add: async (listener) => {
        this.#added.add(listener); // before it is sent: a rescan may send the whole list meanwhile
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

  /** Rescan the namespaces from now on. */
  start(engine: EngineHandle): void {
    this.#key = JSON.stringify(this.#plannedListeners());
    this.#scheduleScans(engine);
  }

  /** Scan periodically while a rule is `auto`; without one no timer runs. */
  #scheduleScans(engine: EngineHandle): void {
    clearInterval(this.#timer);
    if (this.#needsScan) this.#timer = setInterval(() => void this.#rescan(engine), SCAN_MS).unref();
  }

  async #rescan(engine: EngineHandle): Promise<void> {
    const listeners = this.listeners(engine.datagramPorts);
    const key = JSON.stringify(this.#plannedListeners());
    if (key === this.#key) return;
    this.#key = key;
    this.#warnOf(await engine.setListeners(listeners));
  }

  /** Failures of added ports are not logged: the API socket's reply reports them. */
  #warnOf(failures: readonly ListenFailure[]): void {
    const ofRules = failures.filter(({ index }) => index < this.#planned.length);
    this.#failed = ofRules.map(({ index, port, errno }) => ({
      ...{ listener: this.#planned[index]!.listener, port, errno },
    }));
    for (const failure of ofRules) this.#o.log('warning', this.failureText(failure)[0]!);
  }

  /**
   * Replace all rules; listeners that both lists have stay open.
   * @returns rules whose ports cannot be bound, without those of `auto`, whose ports come and go
   */
  async replace(
    engine: EngineHandle,
    inbound: RuleTable,
    outbound: RuleTable,
  ): Promise<readonly RuleFailure[]> {
    this.#inbound = inbound;
    this.#outbound = outbound;
    this.#scheduleScans(engine);
    const listeners = this.listeners(engine.datagramPorts);
    this.#key = JSON.stringify(this.#plannedListeners());
    const failures = await engine.setListeners(listeners);
    this.#warnOf(failures);
    return failures.flatMap((failure) => {
      const rule = this.#planned[failure.index]?.rule;
      if (rule === undefined || rule.scan) return [];
      return [{ rule, reason: this.failureText(failure)[0]! }];
    });
  }

  /** The message about a port that could not be bound, line by line. */
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
