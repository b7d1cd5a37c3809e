/**
 * The part of the start that `run` and `attach` have in common (host/start.ts): from Settings to an engine.
 */
import type { RouteSocket } from '../../sys/netlink.ts';
import type { CaptureStart, EngineHandle } from '../../workers/engine.ts';
import {
  DEFAULT_POLICY,
  type EnginePlan,
  type ListenerPlan,
  type MulticastPlan,
} from '../../workers/engine-plan.ts';
import type { BootedThread } from '../../workers/packet-worker.ts';
import { startedThreads } from '../../workers/placement.ts';
import { MAX_ADDED_PORTS, portsBeside } from '../api/added-ports.ts';
import type { ApiSocket } from '../api/socket.ts';
import { parseImpairment } from '../cli/impairment.ts';
import { DEFAULT_POOL_MIB } from '../cli/pool-plan.ts';
import type { CaptureControl } from '../host/capture-control.ts';
import type { EgressControl } from '../host/egress-control.ts';
import type { FileWatch } from '../host/file-watch.ts';
import type { Following } from '../host/follow.ts';
import { multicastPlan } from '../host/group-limit.ts';
import { portCount } from '../host/host-ports.ts';
import { type Log, makeLog, say } from '../host/log.ts';
import { type Nat64Wish, nat64Wish } from '../host/nat64-wish.ts';
import { type Netns, NetnsHere, NetnsThread } from '../host/netns.ts';
import type { NetnsTarget } from '../host/netns-steps.ts';
import type { EngineLoaded, FrontEnd, MetricsEndpoint, Sandbox } from '../host/start.ts';
import type { StatsReport } from '../host/stats-report.ts';
import { ownThreads, tapQueues, threadsAndPool } from '../host/threads.ts';
import { launcherVariable } from '../process/launcher-env.ts';
import { holdOutputs } from '../process/output.ts';
import type { SwitchedConnections } from '../switching/switched-connections.ts';
import { findTemplate } from './address-plan.ts';
import type { NetnsJob, NetnsTap } from './netns-setup.ts';
import { readNetwork } from './netns-setup.ts';
import type { Settings } from './options.ts';

type EngineKeys = Pick<EnginePlan, 'hashKey' | 'isnKey'>;

/** The pool of --pool-size is of all lanes: `auto` takes so many that each has as much as without the option. */
function chosenThreads({ threads, poolMib, shaping }: Settings): EnginePlan['threads'] {
  if (shaping !== undefined) return { kind: 'fused' };
  if (threads.kind === 'auto')
    return ownThreads(poolMib === undefined ? undefined : Math.floor(poolMib / DEFAULT_POOL_MIB));
  return threads.kind === 'lanes' && threads.lanes === 1 ? { kind: 'fused' } : threads;
}

/**
 * Choose the thread that moves into the namespace. If the engine has only one packet thread, which has been
 * started already, it is the main thread; otherwise a thread of its own.
 */
function chooseNetns(settings: Settings): Netns<NetnsJob, NetnsTap> {
  if (startedThreads(chosenThreads(settings)) > 1) return new NetnsThread('bucatini/netns-worker');
  return new NetnsHere(async () => (await import('./netns-setup.ts')).setUpNetns);
}

/**
 * The engine for these settings.
 * @param netns    the TAP and the network that the set-up made
 * @param keys     random keys (engineKeys)
 * @param sockets  makes sockets inside, if the loopback path is used (socketSource)
 * @param multicast  of --multicast
 */
function enginePlan(
  settings: Settings,
  netns: NetnsTap,
  keys: EngineKeys,
  sockets?: SharedArrayBuffer,
  multicast?: MulticastPlan,
): EnginePlan {
  const impairment = parseImpairment(launcherVariable('BUCATINI_TEST_IMPAIR'));
  return {
    ...threadsAndPool(chosenThreads(settings), netns.tap, settings.poolMib),
    addresses: netns.network.addresses,
    policy: {
      ...DEFAULT_POLICY,
      ...(settings.outboundInterface !== undefined && {
        outboundInterface4: settings.outboundInterface,
        outboundInterface6: settings.outboundInterface,
      }),
      ...(multicast && { multicast }),
    },
    listeners: published(settings),
    ...(settings.apiSocket !== undefined && {
      listenerCapacity: portCount(settings.publish) + MAX_ADDED_PORTS,
    }),
    ...(sockets && { splice: { sockets, hostLoToNsLo: false } }),
    tap: netns.tap,
    ...keys,
    ...(impairment && { impairment }),
    ...(settings.shaping && { shaping: settings.shaping }),
    logLevel: settings.logLevel,
  };
}

/** The listeners of --publish. */
const published = ({ splice, publish }: Settings): readonly ListenerPlan[] =>
  splice ? publish.map((listener) => ({ ...listener, path: 'splice' })) : publish;

/**
 * Memory that the engine shares with the thread in the namespace, for the loopback path (--splice).
 * @returns undefined if that path is not used
 */
async function socketSource(settings: Settings): Promise<SharedArrayBuffer | undefined> {
  if (!settings.splice || settings.publish.length === 0) return undefined;
  return (await import('../../workers/splice/socket-source.ts')).makeSocketSource();
}

/** What `run` and `attach` are called with, and where their namespace is. */
export interface SettingsInput {
  readonly booted: BootedThread;
  readonly settings: Settings;
  readonly target: NetnsTarget;
  /** As in the API's answer to `info`. */
  readonly program: 'bucatini run' | 'bucatini attach';
  version(): string;
}

/** Input of SettingsFrontEnd. */
export interface SettingsStart extends SettingsInput {
  readonly sockets: SharedArrayBuffer | undefined;
  /** Absent: there is no egress policy, and none can be set. */
  readonly egress: EgressControl | undefined;
  readonly log: Log;
  /** Absent: no --metrics. */
  readonly metrics: MetricsEndpoint | undefined;
  /** Of --pcap and of captures that begin later; absent: there are none. */
  readonly captures: CaptureControl | undefined;
}

/**
 * What comes before the namespace is set up.
 * @throws UsageError about the egress policy, --metrics, or a capture
 */
export async function settingsStart(input: SettingsInput): Promise<SettingsStart> {
  const { settings } = input;
  let egress: EgressControl | undefined;
  if (settings.egress.length > 0 || settings.policy !== undefined || settings.apiSocket !== undefined)
    egress = new (await import('../host/egress-control.ts')).EgressControl(settings);
  let captures: CaptureControl | undefined;
  if (settings.pcap !== undefined || settings.apiSocket !== undefined)
    captures = new (await import('../host/capture-control.ts')).CaptureControl(
      settings,
      settings.pcap === '-',
    );
  await holdOutputs();
  const log = makeLog(settings.logLevel);
  const sockets = await socketSource(settings);
  return { ...input, sockets, egress, captures, log, metrics: await metricsEndpoint(input, log) };
}

async function metricsEndpoint(
  { settings, program, version }: SettingsInput,
  log: Log,
): Promise<MetricsEndpoint | undefined> {
  if (settings.metrics === undefined) return undefined;
  const { openMetrics } = await import('../metrics/endpoint.ts');
  return openMetrics(settings.metrics, { program, version: version() }, log);
}

/** The hooks that `run` and `attach` have in common. */
export abstract class SettingsFrontEnd implements FrontEnd<NetnsJob, NetnsTap> {
  readonly log: Log;
  readonly booted: BootedThread;
  readonly netns: Netns<NetnsJob, NetnsTap>;
  readonly job: NetnsJob;
  readonly metrics: MetricsEndpoint | undefined;
  readonly nat64: Nat64Wish | undefined;
  readonly #start: SettingsStart;
  /** Its limit is the host's, read before the main thread enters the namespace. */
  readonly #multicast: MulticastPlan | undefined;
  #stats: StatsReport | undefined;

  constructor(start: SettingsStart) {
    const { settings, target, sockets } = start;
    this.#start = start;
    this.#multicast = multicastPlan(settings.multicast);
    this.log = start.log;
    this.metrics = start.metrics;
    this.booted = start.booted;
    if (settings.ipv6)
      this.nat64 = nat64Wish(settings.nat64, 'auto', start.egress, settings.outboundInterface);
    this.netns = chooseNetns(settings);
    const queues = tapQueues(chosenThreads(settings), settings.threads.kind === 'auto');
    this.job = { settings, target, sockets, tapQueues: queues };
  }

  plan(made: NetnsTap, engine: EngineLoaded, host: RouteSocket): EnginePlan {
    const { settings, sockets } = this.#start;
    const egress = this.#start.egress?.plan(host, made.network.addresses, this.log);
    const plan = enginePlan(settings, made, engine.engineKeys(), sockets, this.#multicast);
    return { ...plan, ...(egress && { egress }) };
  }

  /** As CaptureControl: to be called before this process executes our program again. */
  protected giveOutputBack(): void {
    this.#start.captures?.giveOutputBack();
  }

  openCapture({ network: { addresses, interfaceName } }: NetnsTap): CaptureStart | undefined {
    const { captures, program, version } = this.#start;
    return captures?.atStart({ program, version: version(), addresses, interfaceName });
  }

  configured(notes: readonly string[]): void {
    for (const note of notes) this.log('warning', note);
  }

  /**
   * After a change of the host's network, only the engine is informed. The namespace needs no change: from
   * the start it has an address, a default route and the address of our DNS forwarder.
   */
  following(engine: EngineHandle, { network }: NetnsTap): Following {
    const { outboundInterface, dns } = this.#start.settings;
    this.#start.egress?.started(engine);
    return {
      nameservers: network.nameservers,
      resolvers: network.addresses.resolvers,
      followsFile: dns === undefined,
      boundInterfaces: [outboundInterface],
      hostChanged: (host, links) => {
        this.#start.egress?.hostChanged(host);
        const now = readNetwork(host, links, true, outboundInterface);
        const scope = findTemplate(now, 6, outboundInterface)?.linkIndex;
        engine.hostChanged(scope === undefined ? {} : { linkLocalScope: scope });
      },
    };
  }

  /** Of --switch-sockets. */
  readonly switched: SwitchedConnections | undefined = undefined;

  /** As in the API's answer to `info`. */
  protected get namespacePid(): number | undefined {
    return undefined;
  }

  /** @throws UsageError */
  async openApi(
    engine: EngineHandle,
    { network: { addresses, interfaceName } }: NetnsTap,
  ): Promise<ApiSocket | undefined> {
    const { settings, program, version, egress } = this.#start;
    if (settings.apiSocket === undefined) return undefined;
    const { openApiOption, ownNamespace } = await import('../api/server.ts');
    const ports = portsBeside(engine, published(settings));
    return openApiOption(
      settings.apiSocket,
      program === 'bucatini run' ? 'run' : 'attach',
      {
        ...{ engine, ports, addresses, interfaceName, program, version: version(), egress },
        captures: this.#start.captures,
        shaping: settings.shaping,
        ...(this.netns.mainInside && { namespace: ownNamespace() }),
        namespacePid: this.namespacePid,
        switched: this.switched,
      },
      { onError: (error) => this.log('warning', error.message) },
      this.log,
    );
  }

  async beforeSandbox(engine: EngineHandle, files: FileWatch): Promise<Sandbox> {
    const { settings, program, version } = this.#start;
    if (settings.stats || settings.statsJson !== undefined) {
      const { StatsReport } = await import('../host/stats-report.ts');
      this.#stats = new StatsReport(engine, { ...settings, program, version: version(), log: this.log });
    }
    this.#start.captures?.started(engine, say);
    return this.sandbox(engine, files);
  }

  protected abstract sandbox(engine: EngineHandle, files: FileWatch): Sandbox | Promise<Sandbox>;
  abstract ready(made: NetnsTap): void;
  abstract ends(): readonly Promise<number>[];

  engineFailed(error: Error): never {
    throw new Error(`the engine failed: ${error.message}`);
  }

  served(): void {
    this.#stats?.end();
  }
}
