/** From settings and a finished namespace to a running engine; what both `run` and `attach` do. */

import { availableParallelism } from 'node:os';
import type * as EngineModule from '../workers/engine.ts';
import {
  DEFAULT_POLICY,
  type EnginePlan,
  type ImpairmentPlan,
  type ListenerPlan,
} from '../workers/engine-plan.ts';
import type { BootedThread } from '../workers/packet-worker.ts';
import { autoThreads } from '../workers/plan.ts';
import { portsBeside } from './added-ports.ts';
import { findTemplate } from './address-plan.ts';
import type { ApiSocket } from './api-socket.ts';
import { type HostWatch, InterfacePresence } from './host-watch.ts';
import type { Log } from './log.ts';
import { type Netns, NetnsHere, NetnsThread } from './netns.ts';
import type { NetnsJob, NetnsTap } from './netns-setup.ts';
import { hostNetwork } from './netns-setup.ts';
import { poolPlan, type Settings } from './options.ts';
import { MAX_ADDED_PORTS, portCount } from './publish.ts';
import { RESOLV_CONF } from './resolv-conf.ts';
import { ResolverZones } from './resolver-zones.ts';
import { followResolvConf } from './resolvers.ts';

type EngineLoaded = typeof EngineModule;
type EngineKeys = Pick<EnginePlan, 'hashKey' | 'isnKey'>;

function chosenThreads({ threads }: Settings): EnginePlan['threads'] {
  return threads.kind === 'auto' ? autoThreads(availableParallelism()) : threads;
}

/**
 * Who moves into the namespace: the main thread where the one packet thread that there will be has been started already, else
 * a thread of its own.
 */
export function chooseNetns(settings: Settings): Netns<NetnsJob, NetnsTap> {
  if (chosenThreads(settings).kind !== 'fused') return new NetnsThread();
  return new NetnsHere(async () => (await import('./netns-setup.ts')).setUpNetns);
}

export function enginePlan(
  settings: Settings,
  netns: NetnsTap,
  keys: EngineKeys,
  sockets?: SharedArrayBuffer,
): EnginePlan {
  const impairment = parseImpairment(process.env.BUCATINI_TEST_IMPAIR);
  return {
    threads: chosenThreads(settings),
    addresses: netns.network.addresses,
    policy: {
      ...DEFAULT_POLICY,
      ...(settings.outboundInterface !== undefined && {
        outboundInterface4: settings.outboundInterface,
        outboundInterface6: settings.outboundInterface,
      }),
    },
    listeners: published(settings),
    ...(settings.apiSocket !== undefined && {
      listenerCapacity: portCount(settings.publish) + MAX_ADDED_PORTS,
    }),
    ...(sockets && { splice: { sockets, hostLoToNsLo: false } }),
    pool: poolPlan(settings.poolMib),
    tap: netns.tap,
    ...keys,
    ...(settings.pcap !== undefined && { pcapFile: settings.pcap }),
    ...(impairment && { impairment }),
    logLevel: settings.logLevel,
  };
}

/** Listeners of --publish. */
export const published = ({ splice, publish }: Settings): readonly ListenerPlan[] =>
  splice ? publish.map((listener) => ({ ...listener, path: 'splice' })) : publish;

export interface EngineLoading {
  readonly module: Promise<EngineLoaded>;
  readonly booted: BootedThread;
}

/** What of the engine can be had before its plan: its modules are read while its first packet thread boots. */
export function loadEngine(booted: BootedThread): EngineLoading {
  const module = import('../workers/engine.ts');
  module.catch(() => {}); // whoever awaits it hears of it
  return { module, booted };
}

export async function launchEngine(
  loading: EngineLoading,
  settings: Settings,
  netns: NetnsTap,
  log: Log,
  sockets?: SharedArrayBuffer,
): Promise<EngineModule.EngineHandle> {
  const engine = await loading.module;
  const plan = enginePlan(settings, netns, engine.engineKeys(), sockets);
  return engine.startEngine(plan, { onLog: log, booted: loading.booted });
}

/** For the loopback path, where it is used: what the thread in the namespace and the engine share. */
export async function socketSource(settings: Settings): Promise<SharedArrayBuffer | undefined> {
  if (!settings.splice || settings.publish.length === 0) return undefined;
  return (await import('../workers/splice/socket-source.ts')).makeSocketSource();
}

/**
 * The engine goes along with the host's network and resolvers. The namespace needs nothing when they change: it has an address, a default
 * route and our address to ask for names from the start.
 * @param readable  out: as `held` of followResolvConf()
 * @returns a function that stops following resolv.conf
 */
export function followHost(
  watch: HostWatch,
  { outboundInterface, dns }: Pick<Settings, 'outboundInterface' | 'dns'>,
  { nameservers, addresses }: Pick<NetnsTap['network'], 'nameservers' | 'addresses'>,
  engine: EngineModule.EngineHandle,
  readable: number[],
  log: Log,
): () => void {
  const resolvers = new ResolverZones(
    nameservers,
    addresses.resolvers,
    () => watch.host.links(),
    (list) => engine.setResolvers(list),
  );
  const unfollow =
    dns === undefined ? followResolvConf((list) => resolvers.use(list), RESOLV_CONF, readable) : () => {};
  const presence = new InterfacePresence([outboundInterface], log);
  const onChange = (): void => {
    const { host } = watch;
    const links = host.links();
    presence.look(links);
    resolvers.look(links);
    const now = hostNetwork(links, host.addresses(), host.routes(), true);
    const scope = findTemplate(now, 6, outboundInterface)?.linkIndex;
    engine.hostChanged(scope === undefined ? {} : { linkLocalScope: scope });
  };
  watch.start(engine, onChange, log);
  return unfollow;
}

const STOP_LIMIT_MS = 1000;

/** --api-socket of `run` and `attach`; before the wall. @returns undefined without it @throws UsageError */
export async function openSettingsApi(
  { settings, program, version }: ApiCaller,
  { network: { addresses, interfaceName } }: NetnsTap,
  engine: EngineModule.EngineHandle,
  log: Log,
): Promise<ApiSocket | undefined> {
  if (settings.apiSocket === undefined) return undefined;
  const { openApiOption } = await import('./api-server.ts');
  const ports = portsBeside(engine, published(settings));
  return openApiOption(
    settings.apiSocket,
    { engine, ports, addresses, interfaceName, program, version: await version() },
    { onError: (error) => log('warning', error.message) },
  );
}

export interface ApiCaller {
  readonly settings: Settings;
  readonly program: string;
  version(): Promise<string>;
}

/** Stop the engine, but do not wait for ever for a thread that died or hangs. */
export async function endWithin(engine: EngineModule.EngineHandle | undefined): Promise<void> {
  if (engine === undefined) return;
  const limit = new Promise((resolve) => setTimeout(resolve, STOP_LIMIT_MS));
  await Promise.race([engine.stop().catch(() => {}), limit]);
}

/**
 * Test door: BUCATINI_TEST_IMPAIR=fromGuest=0.01,toGuest=0.01,seed=7 loses frames at random inside the engine; crashAfter=100 ends the
 * thread that reads the hundredth from the guest by an exception.
 */
export function parseImpairment(text: string | undefined): ImpairmentPlan | undefined {
  if (text === undefined || text === '') return undefined;
  const fields = new Map(text.split(',').map((field) => field.split('=', 2) as [string, string]));
  const number = (name: string): number => Number(fields.get(name) ?? 0) || 0;
  return {
    ...{ lossFromGuest: number('fromGuest'), lossToGuest: number('toGuest'), seed: number('seed') },
    ...(number('crashAfter') > 0 && { crashAfterFrames: number('crashAfter') }),
  };
}
