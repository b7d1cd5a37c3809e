// bundle: rare
/**
 * The requests of slirp4netns's API socket, for every front end: JSON in both directions, one request for
 * each connection. Clients add, list and remove published ports of the host while the engine runs. Changes
 * are made one after the other. These requests are not in the original: `info` (addresses and settings),
 * `stats` (the engine's counters), `metrics` (those and more, for main/metrics), `list_flows`, `list_ports`,
 * `get_policy` and `set_policy`, `get_impairment` and `set_impairment` (emulated lines), `start_capture`, whose
 * answer is the stream of a capture, `stop_capture` and `write_capture`. The main thread answers the first two
 * from shared memory, without asking a packet thread; for `list_flows` it asks the packet threads for one page
 * at a time. The users' text is docs/api.md.
 */
import type { Socket } from 'node:net';
import type { SwitchedFlow } from '../../switch/flow-records.ts';
import { strerror } from '../../sys/libc.ts';
import type { EngineHandle } from '../../workers/engine.ts';
import type { AddressPlan, ListenerPlan, ShapingPlan } from '../../workers/engine-plan.ts';
import type { FlowInfo } from '../../workers/flow-list.ts';
import { MAX_SNAPLEN } from '../cli/capture-options.ts';
import { describeLines, LineSettings } from '../cli/lines.ts';
import { addressOf, UsageError } from '../cli/values.ts';
import type { CaptureControl } from '../host/capture-control.ts';
import type { EgressControl } from '../host/egress-control.ts';
import { listenersCollide } from '../host/host-ports.ts';
import { NOT_WITH_SWITCHING, type SwitchedConnections } from '../switching/switched-connections.ts';
import { type AddedPorts, MAX_ADDED_PORTS } from './added-ports.ts';
import { EngineReporter } from './engine-report.ts';
import { readRequestJson } from './request-json.ts';

export type ApiEngine = Pick<
  EngineHandle,
  'counters' | 'threadCounters' | 'histograms' | 'measure' | 'listFlows' | 'setShaping'
>;

/** What the API needs to answer requests. */
export interface ApiOptions {
  readonly engine: ApiEngine;
  readonly ports: AddedPorts;
  /** A family that is absent here cannot be published. */
  readonly addresses: Pick<AddressPlan, 'mtu' | 'ipv4' | 'ipv6'>;
  /** Emulated lines at the start; absent: there are none, and none can be set. */
  readonly shaping?: ShapingPlan | undefined;
  /** Absent: the namespace has no interface, and published ports lead to its loopback. */
  readonly interfaceName?: string;
  /** Absent: the egress policy can be neither read nor set. */
  readonly egress?: Pick<EgressControl, 'text' | 'replace'> | undefined;
  /** Absent: frames cannot be captured. */
  readonly captures?: Pick<CaptureControl, 'stream' | 'stop' | 'dump'> | undefined;
  /** Absent: there is no socket switching. */
  readonly switched?: SwitchedConnections | undefined;
  /** As in the answer to `info`. */
  readonly program: string;
  readonly version: string;
  /** As in the answer to `metrics`; absent: not known. */
  readonly namespace?: string | undefined;
  /** A process in the namespaces of COMMAND, by its id in our PID namespace. Absent: there is no COMMAND. */
  readonly namespacePid?: number | undefined;
}

interface Forward {
  readonly id: number;
  readonly listener: ListenerPlan;
  /** As in the answer to `list_hostfwd`. */
  readonly entry: Readonly<Record<string, string | number>>;
}

/**
 * The error messages of the original, word for word: RootlessKit and Podman log them, and slirp4netns's tests
 * compare them.
 */
const Refusal = {
  cannotParse: 'cannot parse JSON',
  notObject: 'json_object() failed',
  noExecute: 'no execute found',
  unknownExecute: 'unknown execute',
  tooLarge: 'too large message',
  argument: (name: string): string => `add_hostfwd: bad arguments.${name}`,
  addFailed: 'add_hostfwd: slirp_add_hostfwd failed',
  badId: 'remove_hostfwd: bad arguments.id',
  policy: 'set_policy: bad arguments.policy',
  flows: (name: string): string => `list_flows: bad arguments.${name}`,
  noLine: 'no emulated line: start with --impair none to set one later',
  line: (why: string): string => `no emulated line: ${why}`,
  capture: (why: string): string => `start_capture: ${why}`,
  noCapture: 'no capture runs',
  noRing: 'write_capture: no frames are kept in memory: start with --pcap-ring',
  impairment: (why: string): string => `set_impairment: ${why}`,
} as const;

class RequestError extends Error {
  /** Beside `desc` in the reply: what the original's words do not say. */
  readonly reason: string | undefined;

  constructor(message: string, reason?: string) {
    super(message);
    this.reason = reason;
  }
}

const errorReply = (why: string, reason?: string): string =>
  JSON.stringify({ error: { desc: `bad request: ${why}`, ...(reason !== undefined && { reason }) } });

/** The reply to a request that is too large. */
export const TOO_LARGE_REPLY = errorReply(Refusal.tooLarge);

type Json = Readonly<Record<string, unknown>>;

const KNOWN_REQUESTS = [
  ...['add_hostfwd', 'list_hostfwd', 'remove_hostfwd', 'info', 'stats', 'list_flows', 'list_ports'],
  ...['get_policy', 'set_policy', 'get_impairment', 'set_impairment'],
];

/** The original's ids are of C type int. */
const MAX_ID = 0x7fff_ffff;
const DEFAULT_FLOWS = 256;
const MAX_FLOWS = 1000;
/** Ids of switched connections come after those of the engine's flows (workers/flow-list.ts). */
const SWITCHED_IDS = 2 ** 40;

/** Answers the requests of one engine's API socket, one after the other. */
export class Api {
  readonly #options: ApiOptions;
  /** By id, in the order in which they were added. */
  readonly #forwards = new Map<number, Forward>();
  readonly #startMs = performance.now();
  readonly #reporter: EngineReporter;
  #shaping: ShapingPlan | undefined;
  #lastId = 0;
  #lastAnswer: Promise<unknown> = Promise.resolve();

  constructor(options: ApiOptions) {
    this.#options = options;
    this.#shaping = options.shaping;
    this.#reporter = new EngineReporter(options.engine, options);
  }

  /**
   * Answer one request, after all earlier ones.
   * @param client  where the request came from; absent: it cannot get a stream
   * @returns the reply, also for an invalid request; '': `client` gets a stream
   */
  answer(text: string, client?: Socket): Promise<string> {
    const answered = this.#lastAnswer.then(async () => {
      try {
        return JSON.stringify(await this.#handle(text, client)) ?? '';
      } catch (error) {
        if (!(error instanceof RequestError)) throw error;
        return errorReply(error.message, error.reason);
      }
    });
    this.#lastAnswer = answered.catch(() => {});
    return answered;
  }

  /** @returns undefined: `client` gets a stream */
  async #handle(text: string, client: Socket | undefined): Promise<unknown> {
    const request = parseObject(text);
    if (typeof request.execute !== 'string') throw new RequestError(Refusal.noExecute);
    const given = request.arguments;
    const args = typeof given === 'object' && given !== null && !Array.isArray(given) ? (given as Json) : {};
    switch (request.execute) {
      case 'add_hostfwd':
        return this.#add(args);
      case 'list_hostfwd': {
        // The original sends `entries` bare, but its documentation shows them inside `return`: send both.
        const entries = Array.from(this.#forwards.values(), (forward) => forward.entry);
        return { return: { entries }, entries };
      }
      case 'remove_hostfwd':
        return this.#remove(args);
      case 'list_ports':
        return { return: this.#listPorts() };
      case 'info':
        return { return: await this.#info() };
      case 'stats': {
        const { engine, switched } = this.#options;
        await switched?.refresh();
        return {
          return: {
            counters: engine.counters(),
            threads: engine.threadCounters(),
            histograms: engine.histograms(),
            uptimeMs: Math.round(performance.now() - this.#startMs),
            timeMs: Date.now(),
          },
        };
      }
      case 'metrics':
        return { return: await this.#reporter.report() };
      case 'list_flows':
        return this.#listFlows(args);
      case 'get_policy':
        return { return: { policy: this.#egress.text ?? null } };
      case 'set_policy':
        return { return: await this.#setPolicy(args.policy) };
      case 'get_impairment':
        return { return: describeLines(this.#line) };
      case 'set_impairment':
        return this.#setImpairment(args);
      case 'start_capture':
        return this.#startCapture(args, client);
      case 'stop_capture':
        if (!(await this.#captures.stop())) throw new RequestError(Refusal.noCapture);
        return { return: {} };
      case 'write_capture': {
        const written = this.#captures.dump();
        if (written === undefined) throw new RequestError(Refusal.noRing);
        return { return: { written } };
      }
      default:
        throw new RequestError(Refusal.unknownExecute, `known requests: ${KNOWN_REQUESTS.join(', ')}`);
    }
  }

  get #egress(): NonNullable<ApiOptions['egress']> {
    const { egress } = this.#options;
    if (egress === undefined) throw new RequestError(Refusal.unknownExecute);
    return egress;
  }

  get #captures(): NonNullable<ApiOptions['captures']> {
    const { captures } = this.#options;
    if (captures === undefined) throw new RequestError(Refusal.unknownExecute);
    return captures;
  }

  get #line(): ShapingPlan {
    if (this.#options.switched !== undefined) throw new RequestError(Refusal.line(NOT_WITH_SWITCHING));
    if (this.#shaping === undefined) throw new RequestError(Refusal.noLine);
    return this.#shaping;
  }

  /** The client gets a capture as a stream, until it closes the connection or somebody sends `stop_capture`. */
  #startCapture({ filter, snaplen }: Json, client: Socket | undefined): undefined {
    const captures = this.#captures;
    if (this.#options.switched !== undefined) throw new RequestError(Refusal.capture(NOT_WITH_SWITCHING));
    if (filter !== undefined && typeof filter !== 'string')
      throw new RequestError(Refusal.capture('bad arguments.filter'));
    const bytes = snaplen === undefined ? undefined : number(snaplen);
    if (snaplen !== undefined && (bytes === undefined || bytes < 14 || bytes > MAX_SNAPLEN))
      throw new RequestError(Refusal.capture('bad arguments.snaplen'));
    if (client === undefined) throw new RequestError(Refusal.capture('no connection for a stream'));
    try {
      captures.stream(client, filter, bytes);
    } catch (error) {
      throw new RequestError(Refusal.capture((error as Error).message));
    }
  }

  /** @param policy  the text of a file; null: none */
  async #setPolicy(policy: unknown): Promise<Json> {
    if (typeof policy !== 'string' && policy !== null) throw new RequestError(Refusal.policy);
    try {
      const { ended, switchedLeft } = await this.#egress.replace(policy ?? undefined);
      return {
        flows_ended: ended,
        ...(this.#options.switched !== undefined && { switched_flows_left: switchedLeft }),
      };
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
      throw new RequestError(`set_policy: ${error.message}`);
    }
  }

  /** Replaces all lines. A key without arguments is as on a line that changes nothing; the seed stays. */
  #setImpairment(args: Json): unknown {
    const { seed } = this.#line;
    const settings = new LineSettings();
    const { to, profile, ...keys } = args;
    addSettings(settings, { ...(profile !== undefined && { profile }), ...keys });
    for (const rule of to === undefined ? [] : Array.isArray(to) ? to : [to]) addRule(settings, rule);
    this.#shaping = { ...settings.plan(), seed };
    this.#options.engine.setShaping(this.#shaping);
    return { return: describeLines(this.#shaping) };
  }

  async #info(): Promise<Json> {
    const { program, version, namespacePid, interfaceName, addresses, engine, switched } = this.#options;
    const { mtu, ipv4, ipv6 } = addresses;
    const network = (plan: NonNullable<typeof ipv4 | typeof ipv6>): Json => ({
      guest: plan.guest,
      prefixLen: plan.prefixLen,
      gateway: plan.gateway,
      ...(plan.dns !== undefined && { dns: plan.dns }),
    });
    return {
      program,
      version,
      pid: process.pid,
      ...(namespacePid !== undefined && { namespacePid }),
      ...(interfaceName !== undefined && { interface: interfaceName, mtu }),
      ...(ipv4 && { ipv4: network(ipv4) }),
      ...(ipv6 && { ipv6: network(ipv6) }),
      threads: engine.threadCounters().map(({ thread }) => thread),
      forwards: this.#forwards.size,
      ...(switched && { switching: await describeSwitching(switched) }),
      uptimeMs: Math.round(performance.now() - this.#startMs),
    };
  }

  #listPorts(): Json {
    const { ports } = this.#options;
    const added = Array.from(this.#forwards.values(), ({ id, listener }) => ({ ...portEntry(listener), id }));
    return {
      ports: [...ports.others().map(portEntry), ...added],
      failed: (ports.failed?.() ?? []).map(({ listener, port, errno }) => ({
        ...portEntry(listener),
        ...(port !== 0 && { failed_port: port }),
        reason: strerror(errno),
      })),
    };
  }

  async #listFlows(args: Json): Promise<unknown> {
    const after = args.after === undefined ? -1 : number(args.after);
    if (after === undefined || after < -1 || after > Number.MAX_SAFE_INTEGER - 1)
      throw new RequestError(Refusal.flows('after'));
    const limit = args.limit === undefined ? DEFAULT_FLOWS : number(args.limit);
    if (limit === undefined || limit < 1 || limit > MAX_FLOWS) throw new RequestError(Refusal.flows('limit'));
    const { engine, switched } = this.#options;
    const ofEngine = after < SWITCHED_IDS ? await engine.listFlows(after, limit) : { flows: [], more: false };
    const entries = ofEngine.flows.map(flowEntry);
    const room = limit - entries.length;
    if (switched === undefined || ofEngine.more) return { return: { flows: entries, more: ofEngine.more } };
    if (room === 0) return { return: { flows: entries, more: true } };
    const { flows, more } = await switched.flows(Math.max(0, after - SWITCHED_IDS), room);
    return { return: { flows: [...entries, ...flows.map(switchedEntry)], more } };
  }

  async #add(args: Json): Promise<unknown> {
    const { proto } = args;
    if (proto !== 'tcp' && proto !== 'udp') throw new RequestError(Refusal.argument('proto'));
    const { interfaceName } = this.#options;
    const { ipv4, ipv6 } = interfaceName === undefined ? LOOPBACK : this.#options.addresses;
    const hostAddress = address(args, 'host_addr', ipv4 ? '0.0.0.0' : '::');
    const hostPort = port(args, 'host_port');
    const isV6 = hostAddress.includes(':');
    if ((isV6 ? ipv6 : ipv4) === undefined) throw new RequestError(Refusal.argument('host_addr'));
    // The guest may choose its IPv6 address itself. Without an address in the request, the port leads to the
    // address that the guest uses.
    const own = isV6 ? (interfaceName === undefined ? LOOPBACK.ipv6.guest : '') : ipv4!.guest;
    const guestAddress = address(args, 'guest_addr', own);
    if (guestAddress !== '' && guestAddress.includes(':') !== isV6)
      throw new RequestError(Refusal.argument('guest_addr'));
    if (interfaceName === undefined && guestAddress !== own)
      throw new RequestError(Refusal.argument('guest_addr'));
    const guestPort = port(args, 'guest_port');
    const listener: ListenerPlan = {
      proto,
      address: hostAddress,
      port: hostPort,
      targetPort: guestPort,
      ...(interfaceName !== undefined && guestAddress !== '' && { targetAddress: guestAddress }),
      path: interfaceName === undefined ? 'splice' : 'tap',
    };
    if (this.#forwards.size >= MAX_ADDED_PORTS)
      throw new RequestError(Refusal.addFailed, `${MAX_ADDED_PORTS} ports are added already`);
    if (this.#isTaken(listener))
      throw new RequestError(Refusal.addFailed, 'this program publishes the port already');
    const errno = await this.#options.ports.add(listener);
    if (errno !== 0) throw new RequestError(Refusal.addFailed, strerror(errno));
    const id = ++this.#lastId;
    const entry = {
      id,
      proto,
      host_addr: hostAddress,
      host_port: hostPort,
      guest_addr: guestAddress,
      guest_port: guestPort,
    };
    this.#forwards.set(id, { id, listener, entry });
    return { return: { id } };
  }

  async #remove(args: Json): Promise<unknown> {
    const id = number(args.id);
    if (id === undefined || id < 1 || id > MAX_ID) throw new RequestError(Refusal.badId);
    const forward = this.#forwards.get(id);
    if (forward === undefined) throw new RequestError(Refusal.badId);
    await this.#options.ports.remove(forward.listener);
    this.#forwards.delete(id);
    return { return: {} };
  }

  /** Whether another listener collides with this one. The engine must not be given two equal listeners. */
  #isTaken(listener: ListenerPlan): boolean {
    if (this.#options.ports.others().some((other) => listenersCollide(other, listener))) return true;
    for (const forward of this.#forwards.values())
      if (listenersCollide(forward.listener, listener)) return true;
    return false;
  }
}

function addSettings(settings: LineSettings, keys: Json): void {
  for (const [key, value] of Object.entries(keys)) {
    for (const text of Array.isArray(value) ? value : [value]) {
      if (typeof text !== 'string' || key === 'seed')
        throw new RequestError(Refusal.impairment(`bad arguments.${key}`));
      setting(`${key} ${text}`, () => settings.set(key, text));
    }
  }
}

/** @param rule  keys and values as above, and the addresses: {"addresses":"192.0.2.0/24","delay":"50ms"} */
function addRule(settings: LineSettings, rule: unknown): void {
  const { addresses, ...keys } = (typeof rule === 'object' && rule !== null ? rule : {}) as Json;
  if (typeof addresses !== 'string') throw new RequestError(Refusal.impairment('bad arguments.to'));
  setting(`to ${addresses}`, () => settings.to(addresses));
  addSettings(settings, keys);
}

function setting(what: string, set: () => void): void {
  try {
    set();
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    throw new RequestError(Refusal.impairment(`${what}: ${error.message}`));
  }
}

/** Addresses without an interface: a published port leads to loopback inside. */
const LOOPBACK = { ipv4: { guest: '127.0.0.1' }, ipv6: { guest: '::1' } } as const;

/** One published port, or range of ports. */
const portEntry = (listener: ListenerPlan): Json => ({
  proto: listener.proto,
  from: listener.from ?? 'host',
  address: listener.address,
  ...(listener.interface !== undefined && { interface: listener.interface }),
  port: listener.port,
  ...(listener.lastPort !== undefined && { last_port: listener.lastPort }),
  target_addr: listener.targetAddress ?? '',
  target_port: listener.targetPort,
  path: listener.path ?? 'tap',
});

/** One flow, with names in the style of list_hostfwd's entries. */
function flowEntry(flow: FlowInfo): Json {
  const { id, proto, state, path } = flow;
  const isPing = proto.startsWith('icmp');
  return {
    id,
    proto,
    state,
    path,
    guest_addr: flow.guestAddress,
    ...(isPing ? { echo_id: flow.guestPort } : { guest_port: flow.guestPort }),
    remote_addr: flow.remoteAddress,
    ...(!isPing && { remote_port: flow.remotePort }),
    bytes_from_guest: flow.bytesFromGuest,
    bytes_to_guest: flow.bytesToGuest,
    age_ms: flow.ageMs,
    ...(flow.rttUs !== undefined && { rtt_us: flow.rttUs, retransmits: flow.retransmits, cwnd: flow.cwnd }),
    ...(flow.guestRttUs !== undefined && { guest_rtt_us: flow.guestRttUs }),
    ...(flow.guestRetransmits !== undefined && { guest_retransmits: flow.guestRetransmits }),
  };
}

/** The same of a switched connection: at its program's end it has an address of the host. */
const switchedEntry = (flow: SwitchedFlow): Json => ({
  id: SWITCHED_IDS + flow.id,
  proto: flow.protocol,
  state: flow.state,
  path: 'switched',
  device: flow.device,
  guest_addr: flow.source,
  guest_port: flow.sourcePort,
  remote_addr: flow.destination,
  remote_port: flow.destinationPort,
  bytes_from_guest: flow.bytesSent,
  bytes_to_guest: flow.bytesReceived,
  age_ms: flow.ageMs,
  ...(flow.rttUs > 0 && {
    rtt_us: flow.rttUs,
    retransmits: flow.retransmits,
    cwnd: flow.congestionWindow,
  }),
});

async function describeSwitching(switched: SwitchedConnections): Promise<Json> {
  const active = await switched.active();
  const counts = switched.counts();
  return {
    switched: counts.switchedConnections,
    passedOn: counts.switchPassedOn,
    refused: counts.switchRefused,
    failed: counts.switchFailed,
    ...(active !== undefined && { active }),
  };
}

function parseObject(text: string): Json {
  let value: unknown;
  try {
    value = readRequestJson(text);
  } catch {
    throw new RequestError(Refusal.cannotParse);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new RequestError(Refusal.notObject);
  return value as Json;
}

function address(args: Json, name: string, fallback: string): string {
  const text = args[name];
  // A value that is not a string counts as absent, as in the original.
  if (typeof text !== 'string' || text === '') return fallback;
  const address = addressOf(text);
  if (address === undefined) throw new RequestError(Refusal.argument(name));
  return address;
}

function port(args: Json, name: string): number {
  const value = number(args[name]);
  if (value === undefined || value < 1 || value > 65535) throw new RequestError(Refusal.argument(name));
  return value;
}

/**
 * Some clients send integers as floating-point numbers (RootlessKit): cut the fraction off.
 * @returns undefined if the value is not a finite number
 */
const number = (value: unknown): number | undefined =>
  typeof value === 'number' && Number.isFinite(value) ? Math.trunc(value) : undefined;
