/**
 * `slirp4netns` from parsed options to its exit status: the namespace's TAP, the engine, the API socket, the
 * ready byte. host/start.ts calls the hooks below. It ends when the descriptor of --exit-fd hangs up, when
 * the last process has left the namespace, or when the namespace's path is unlinked. Signals have their
 * default action, as callers expect.
 *
 * The ready byte is written as soon as the interface is configured, so that the caller continues while the
 * engine starts and this process enters the sandbox: until then the interface's queue keeps what the guest
 * sends, and the engine carries nothing (EnginePlan.waitsForBegin). With an API socket it is written when
 * that socket accepts connections, as callers use both at once.
 */
import { openSync } from 'node:fs';
import { strerrorOf } from '../../sys/error.ts';
import { heldIdentity, heldNames } from '../../sys/held-directory.ts';
import { strerror } from '../../sys/libc.ts';
import type { RouteSocket } from '../../sys/netlink.ts';
import type { EngineHandle } from '../../workers/engine.ts';
import type { EnginePlan, MulticastPlan } from '../../workers/engine-plan.ts';
import type { BootedThread } from '../../workers/packet-worker.ts';
import { FRAME_PEER_GONE } from '../../workers/tap/frame-peer.ts';
import { MAX_ADDED_PORTS, portsBeside } from '../api/added-ports.ts';
import type { ApiOptions } from '../api/api.ts';
import type { ApiSocket } from '../api/socket.ts';
import { SOCKET_PATH_BYTES } from '../cli/values.ts';
import type { EgressControl } from '../host/egress-control.ts';
import type { FileWatch } from '../host/file-watch.ts';
import type { Following } from '../host/follow.ts';
import { multicastPlan } from '../host/group-limit.ts';
import type { Log, LogLevel } from '../host/log.ts';
import { type HeldNamespace, holdNamespace, NamespaceWatch } from '../host/namespace-watch.ts';
import { type Nat64Wish, nat64Wish } from '../host/nat64-wish.ts';
import { NetnsHere } from '../host/netns.ts';
import { watchHangUp, writeReadyByte } from '../host/ready-exit.ts';
import { readResolvConf } from '../host/resolv-conf.ts';
import { withIndexes } from '../host/resolver-zones.ts';
import {
  type EngineLoaded,
  type FrontEnd,
  type MetricsEndpoint,
  type Sandbox,
  serve,
} from '../host/start.ts';
import { tapQueues, threadsOfLine } from '../host/threads.ts';
import { descriptorOfPath } from '../process/inherited-descriptors.ts';
import { holdOutputs, put } from '../process/output.ts';
import { resolvers, slirpEnginePlan } from './engine-plan.ts';
import { bannerLine, Message } from './messages.ts';
import type { SlirpJob, SlirpTap } from './netns-setup.ts';
import { networkAddresses } from './network.ts';
import type { SlirpConf } from './options.ts';

/** Poll interval for other processes in the namespace after the process that was named has gone. */
const EMPTY_POLL_MS = 1000;

/**
 * @param booted  the packet thread, started before the main thread may move: it stays in the host's network
 * @returns the exit status
 * @throws Error with the message for the user, one or several lines
 */
export async function serveSlirp(
  conf: SlirpConf,
  booted: BootedThread,
  version: () => string,
): Promise<number> {
  let egress: EgressControl | undefined;
  // Else an egress policy of the API's is prepared when that socket is opened, after the caller goes on.
  const apiNeedsNat64 = conf.apiSocket !== undefined && conf.nat64 !== undefined;
  if (conf.egress.length > 0 || conf.policy !== undefined || apiNeedsNat64)
    egress = new (await import('../host/egress-control.ts')).EgressControl(conf);
  // The banner prints the path.
  const apiSocket =
    conf.apiSocket === 'auto'
      ? await (await import('../api/socket-directory.ts')).autoSocketPath('slirp4netns')
      : conf.apiSocket;
  await holdOutputs();
  const metrics =
    conf.metrics &&
    (await (
      await import('../metrics/endpoint.ts')
    ).openMetrics(conf.metrics, { program: 'bucatini slirp4netns', version: version() }, logProblem));
  return serve(
    new Slirp({ ...conf, ...(apiSocket !== undefined && { apiSocket }) }, booted, version, egress, metrics),
  );
}

class Slirp implements FrontEnd<SlirpJob, SlirpTap> {
  readonly log: Log = logProblem;
  readonly booted: BootedThread;
  readonly netns = new NetnsHere<SlirpJob, SlirpTap>(
    async () => (await import('./netns-setup.ts')).setUpSlirp,
  );
  readonly job: SlirpJob;
  readonly metrics: MetricsEndpoint | undefined;
  readonly nat64: Nat64Wish | undefined;
  readonly #conf: SlirpConf;
  /** Its limit is the host's, read before the main thread enters the namespace. */
  readonly #multicast: MulticastPlan | undefined;
  readonly #version: () => string;
  /** The namespace as it is before it is entered; undefined: there is none. */
  readonly #held: HeldNamespace | undefined;
  readonly #end = Promise.withResolvers<number>();
  /** The resolvers that get the guest's queries, from the host's resolv.conf. */
  readonly #nameservers = resolvers(readResolvConf()?.nameservers ?? []);
  #plan: EnginePlan | undefined;
  #host: RouteSocket | undefined;
  /** With options of an egress policy, or with an API socket, whose clients may set one. */
  #egress: EgressControl | undefined;

  constructor(
    conf: SlirpConf,
    booted: BootedThread,
    version: () => string,
    egress: EgressControl | undefined,
    metrics: MetricsEndpoint | undefined,
  ) {
    this.booted = booted;
    this.#egress = egress;
    this.metrics = metrics;
    if (conf.ipv6) this.nat64 = nat64Wish(conf.nat64, 'off', egress);
    const queues = tapQueues(threadsOfLine(conf.shaping), true);
    this.job = { conf, tapQueues: queues };
    this.#conf = conf;
    this.#multicast = multicastPlan(conf.multicast);
    this.#version = version;
    if (conf.target.kind === 'netns') {
      const { path, pid } = conf.target;
      this.#held = holdNamespace({ path, ...(pid !== undefined && { pid }) });
    }
  }

  /** The error's own message, and the original's line for errors in the namespace. */
  setUpFailed(error: Error): Error {
    return new Error(`${error.message}\n${Message.childFailed}`, { cause: error });
  }

  plan(made: SlirpTap, engine: EngineLoaded, host: RouteSocket): EnginePlan {
    this.#host = host;
    const given = this.#nameservers.some((text) => text.includes('%'))
      ? withIndexes(this.#nameservers, host.links())
      : this.#nameservers;
    const plan = slirpEnginePlan(
      this.#conf,
      made,
      engine.engineKeys(),
      MAX_ADDED_PORTS,
      given,
      this.#multicast,
    );
    const egress = this.#egress?.plan(host, plan.addresses, this.log);
    this.#plan = egress === undefined ? plan : { ...plan, egress };
    return this.#plan;
  }

  configured(_notes: readonly string[], { tap, name }: SlirpTap): void {
    if (this.#conf.target.kind === 'netns') say(Message.sentTap(tap.fd, name));
    say(Message.receivedTap(tap.fd));
    writeAll(1, `${banner(this.#conf).join('\n')}\n`);
    if (this.#conf.apiSocket === undefined) this.#tellReady();
  }

  /**
   * As in the original, link-local destinations of the guest are not mapped to an interface of the host.
   * Resolvers with a zone are.
   */
  following(engine: EngineHandle): Following {
    return {
      nameservers: this.#nameservers,
      resolvers: this.#plan!.addresses.resolvers,
      followsFile: true,
      resolversOf: resolvers,
      boundInterfaces: [],
      hostChanged: (host) => {
        this.#egress?.hostChanged(host);
        engine.hostChanged({});
      },
    };
  }

  async openApi(engine: EngineHandle, { name }: SlirpTap): Promise<ApiSocket | undefined> {
    this.#egress?.started(engine);
    if (this.#conf.apiSocket === undefined) return undefined;
    if (this.#egress === undefined) {
      this.#egress = new (await import('../host/egress-control.ts')).EgressControl({ egress: [] });
      this.#egress.plan(this.#host!, this.#plan!.addresses, this.log);
      this.#egress.started(engine);
    }
    const { ownNamespace } = await import('../api/server.ts');
    const captures = new (await import('../host/capture-control.ts')).CaptureControl({});
    const about = { interfaceName: name, program: 'bucatini slirp4netns', version: this.#version() };
    captures.atStart({ ...about, addresses: this.#plan!.addresses });
    captures.started(engine, say);
    const api = await listen(this.#conf.apiSocket, {
      ...{ egress: this.#egress, captures },
      ...(this.#conf.target.kind === 'netns' && { namespace: ownNamespace() }),
      shaping: this.#conf.shaping,
      ...{ engine, ports: portsBeside(engine, []), addresses: this.#plan!.addresses },
      ...about,
    });
    this.#tellReady();
    return api;
  }

  beforeSandbox(engine: EngineHandle, files: FileWatch): Sandbox {
    const { exitFd } = this.#conf;
    const end = (): void => this.#end.resolve(0);
    if (exitFd !== undefined) {
      watchHangUp(exitFd, engine, () => {
        say(Message.exitFd);
        end();
      });
    }
    const watched = this.#held && new NetnsEnd(this.#held, engine, files, end);
    return {
      watched,
      keepOpen: descriptorsInUse(this.#conf),
      listable: watched?.listable ?? [],
      watchesProcess: watched?.byProcess ?? false,
    };
  }

  #tellReady(): void {
    if (this.#conf.readyFd !== undefined) writeReadyByte(this.#conf.readyFd);
  }

  ends(): readonly Promise<number>[] {
    return [this.#end.promise];
  }

  /** With bess, the end of the virtual machine is not an error. */
  engineFailed(error: Error): number {
    if (this.#conf.target.kind === 'bess' && error.message.includes(FRAME_PEER_GONE)) return 0;
    throw error;
  }

  served(): void {
    say(Message.exiting);
  }
}

/** The lines that the original prints at the start. */
function banner(conf: SlirpConf): string[] {
  const { first, netmask, gateway, dns, dhcpBegin, dhcpEnd, guest } = networkAddresses(conf.network);
  const lines = [
    'Starting slirp',
    bannerLine('MTU', String(conf.mtu)),
    bannerLine('Network', first),
    bannerLine('Netmask', netmask),
    bannerLine('Gateway', gateway),
    bannerLine('DNS', dns),
    bannerLine('DHCP begin', dhcpBegin),
    bannerLine('DHCP end', dhcpEnd),
    bannerLine('Recommended IP', guest),
  ];
  if (conf.apiSocket !== undefined) lines.push(bannerLine('API Socket', conf.apiSocket));
  if (conf.outbound4 !== undefined) lines.push(bannerLine('Outbound IPv4', ` ${conf.outbound4}`));
  if (conf.outbound6 !== undefined) lines.push(bannerLine('Outbound IPv6', ` ${conf.outbound6}`));
  if (conf.mac !== undefined) lines.push(bannerLine('MAC address', conf.mac));
  if (conf.hostLoopback) lines.push(Message.hostLoopback(gateway));
  return lines;
}

/** @throws Error with the original's message */
async function listen(path: string, options: ApiOptions): Promise<ApiSocket> {
  const { openApi } = await import('../api/server.ts');
  if (Buffer.byteLength(path) >= SOCKET_PATH_BYTES)
    throw new Error(`${Message.socketPathTooLong}\n${Message.doSlirpFailed}`);
  try {
    return await openApi(path, options, {
      onClient: () => say(Message.apiEvent),
      onRequest: (request) => say(Message.apiRequest(request)),
      onTooLarge: () => say(Message.apiTooLarge),
      onError: (error) => say(error.message),
    });
  } catch (cause) {
    throw new Error(`${Message.bindFailed(strerrorOf(cause))}\n${Message.doSlirpFailed}`, { cause });
  }
}

/** Descriptors of the caller that stay in use in the sandbox. */
function descriptorsInUse({ target, exitFd, readyFd }: SlirpConf): readonly number[] {
  return [
    ...(target.kind === 'tapfd' ? [target.fd] : descriptorOfPath(target.path)),
    // That of --ready-fd is closed already: its number may be another descriptor's by now.
    ...[exitFd, readyFd].filter((fd) => fd !== undefined),
  ];
}

/**
 * Calls `onEnd` when the path that was named is unlinked, or when the process that was named and all others
 * in its namespace have gone.
 */
class NetnsEnd {
  readonly byProcess: boolean;
  readonly #onEnd: () => void;
  readonly #watch: NamespaceWatch;
  /** Descriptor of /proc, kept open: the sandbox hides the path. */
  readonly #proc: number = -1;
  readonly #identity: string | undefined;

  constructor(held: HeldNamespace, engine: EngineHandle, files: FileWatch, onEnd: () => void) {
    this.byProcess = held.pid !== undefined;
    this.#onEnd = onEnd;
    if (this.byProcess) {
      this.#proc = openSync('/proc', 'r');
      this.#identity = held.identity;
    }
    this.#watch = new NamespaceWatch(held, engine, files, () => this.#onTargetGone());
  }

  get listable(): readonly number[] {
    return this.#proc < 0 ? [] : [this.#proc];
  }

  rootChanged(): void {
    this.#watch.rootChanged();
  }

  #onTargetGone(): void {
    // Named by its file, or without permission to look at the namespaces of processes.
    if (this.#identity === undefined || this.#identity === 'EACCES') return this.#onEnd();
    const timer = setInterval(() => {
      if (this.#hasOtherProcess()) return;
      clearInterval(timer);
      this.#onEnd();
    }, EMPTY_POLL_MS);
  }

  /** Whether a visible process other than this one is in the namespace. */
  #hasOtherProcess(): boolean {
    const names = heldNames(this.#proc);
    if (typeof names === 'number') throw new Error(`/proc cannot be listed: ${strerror(-names)}`);
    return names.some(
      (name) =>
        /^[0-9]+$/.test(name) &&
        Number(name) !== process.pid &&
        heldIdentity(this.#proc, `${name}/ns/net`) === this.#identity,
    );
  }
}

/** Of --log-format, or of the journal. */
let writer: Log | undefined;

/** From now on messages are written by `log`. @param log  undefined: as text */
export function useLogWriter(log: Log | undefined): void {
  writer = log;
}

/**
 * Write a line to standard error. A closed standard error is no error.
 * @param level  for other formats than text, which does not show it
 */
export function say(text: string, level: LogLevel = 'info'): void {
  if (writer !== undefined) writer(level, text);
  else writeAll(2, `${text}\n`);
}

/** Log warnings and errors; drop the rest. */
const logProblem: Log = (level, text) => {
  if (level === 'error' || level === 'warning') say(text, level);
};

/** Write a text to standard output or error, whose other end may be closed or may not read. */
export function writeAll(fd: 1 | 2, text: string): void {
  put(fd, text);
}
