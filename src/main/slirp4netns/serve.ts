/**
 * `slirp4netns` from finished options to its end: the namespace's TAP, the engine, the API socket, the ready byte, and then until
 * exit-fd hangs up or nobody is left in the namespace. Signals have their default action, as callers expect.
 *
 * When the ready byte is read, the API socket accepts.
 */
import { closeSync, fstatSync, openSync, writeSync } from 'node:fs';
import { heldIdentity, heldNames } from '../../sys/held-directory.ts';
import { strerror } from '../../sys/libc.ts';
import type { RouteSocket } from '../../sys/netlink.ts';
import type { EngineHandle } from '../../workers/engine.ts';
import type { EnginePlan } from '../../workers/engine-plan.ts';
import type { BootedThread } from '../../workers/packet-worker.ts';
import { FRAME_PEER_GONE } from '../../workers/tap/frame-peer.ts';
import { MAX_ADDED_PORTS, portsBeside } from '../api/added-ports.ts';
import type { ApiOptions } from '../api/api.ts';
import type { ApiSocket } from '../api/socket.ts';
import { SOCKET_PATH_BYTES } from '../cli/values.ts';
import type { Following } from '../host/follow.ts';
import type { Log } from '../host/log.ts';
import { NamespaceWatch } from '../host/namespace-watch.ts';
import { type Netns, NetnsHere, NetnsThread } from '../host/netns.ts';
import { readResolvConf } from '../host/resolv-conf.ts';
import { withIndexes } from '../host/resolver-zones.ts';
import { type EngineLoaded, type FrontEnd, type Sandbox, serve } from '../host/start.ts';
import { descriptorOfPath } from '../process/inherited-descriptors.ts';
import { holdOutputs, put } from '../process/output.ts';
import { resolvers, slirpEnginePlan, slirpThreads } from './engine-plan.ts';
import { bannerLine, Message } from './messages.ts';
import type { SlirpJob, SlirpTap } from './netns-setup.ts';
import { networkAddresses } from './network.ts';
import type { SlirpConf, SlirpTarget } from './options.ts';

/** How soon it is noticed that nobody is left in a namespace whose first process has gone. */
const EMPTY_POLL_MS = 1000;

/** Who moves into the namespace, as for `bucatini` (engine-launch.ts): the main thread where it can. */
function slirpNetns(): Netns<SlirpJob, SlirpTap> {
  if (slirpThreads().kind !== 'fused') return new NetnsThread<SlirpJob, SlirpTap>('slirp4netns/netns-worker');
  return new NetnsHere(async () => (await import('./netns-setup.ts')).setUpSlirp);
}

/**
 * @param booted  the packet thread, started before the main thread may move: it stays in the host's network
 * @returns the exit status. @throws Error with what to tell, one or several lines
 */
export async function serveSlirp(
  conf: SlirpConf,
  booted: BootedThread,
  version: () => string,
): Promise<number> {
  await holdOutputs();
  return serve(new Slirp(conf, booted, version));
}

class Slirp implements FrontEnd<SlirpJob, SlirpTap> {
  readonly log: Log = tell;
  readonly booted: BootedThread;
  readonly netns = slirpNetns();
  readonly job: SlirpJob;
  readonly #conf: SlirpConf;
  readonly #version: () => string;
  readonly #end = Promise.withResolvers<number>();
  /** Of the host's resolv.conf. */
  readonly #nameservers = resolvers(readResolvConf()?.nameservers ?? []);
  #plan: EnginePlan | undefined;

  constructor(conf: SlirpConf, booted: BootedThread, version: () => string) {
    this.booted = booted;
    this.job = { conf };
    this.#conf = conf;
    this.#version = version;
  }

  /** In its own words, and that it was in the namespace. */
  setUpFailed(error: Error): Error {
    return new Error(`${error.message}\n${Message.childFailed}`, { cause: error });
  }

  plan(made: SlirpTap, engine: EngineLoaded, host: RouteSocket): EnginePlan {
    const given = this.#nameservers.some((text) => text.includes('%'))
      ? withIndexes(this.#nameservers, host.links())
      : this.#nameservers;
    this.#plan = slirpEnginePlan(this.#conf, made, engine.engineKeys(), MAX_ADDED_PORTS, given);
    return this.#plan;
  }

  configured(_notes: readonly string[], { tap, name }: SlirpTap): void {
    if (this.#conf.target.kind === 'netns') say(Message.sentTap(tap.fd, name));
    say(Message.receivedTap(tap.fd));
  }

  engineStarted(): void {
    writeAll(1, `${banner(this.#conf).join('\n')}\n`);
  }

  /**
   * As in the original, link-local destinations lie behind no interface of the host's, but resolvers with one
   * of their own do.
   */
  following(engine: EngineHandle): Following {
    return {
      nameservers: this.#nameservers,
      resolvers: this.#plan!.addresses.resolvers,
      followsFile: true,
      resolversOf: resolvers,
      boundInterfaces: [],
      hostChanged: () => engine.hostChanged({}),
    };
  }

  async openApi(engine: EngineHandle, { name }: SlirpTap): Promise<ApiSocket | undefined> {
    if (this.#conf.apiSocket === undefined) return undefined;
    return listen(this.#conf.apiSocket, {
      ...{ engine, ports: portsBeside(engine, []), addresses: this.#plan!.addresses },
      ...{ interfaceName: name, program: 'bucatini slirp4netns', version: this.#version() },
    });
  }

  beforeSandbox(engine: EngineHandle): Sandbox {
    const { target, exitFd } = this.#conf;
    const end = (): void => this.#end.resolve(0);
    if (exitFd !== undefined) {
      onHangUp(exitFd, engine, () => {
        say(Message.exitFd);
        end();
      });
    }
    const watched = target.kind === 'netns' ? new NetnsEnd(target, engine, end) : undefined;
    return {
      watched,
      keepOpen: namedDescriptors(this.#conf),
      listable: watched?.listable ?? [],
      watchesProcess: watched?.byProcess ?? false,
    };
  }

  ready(): void {
    if (this.#conf.readyFd !== undefined) tellReady(this.#conf.readyFd);
  }

  ends(): readonly Promise<number>[] {
    return [this.#end.promise];
  }

  /** A virtual machine that was switched off is an end like any other. */
  engineFailed(error: Error): number {
    if (this.#conf.target.kind === 'bess' && error.message.includes(FRAME_PEER_GONE)) return 0;
    throw error;
  }

  served(): void {
    say(Message.exiting);
  }
}

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

/** @throws Error in the original's words */
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
    const { errno, message } = cause as NodeJS.ErrnoException;
    const why = errno === undefined ? message : strerror(-errno);
    throw new Error(`${Message.bindFailed(why)}\n${Message.doSlirpFailed}`, { cause });
  }
}

/**
 * Call `onEnd` when the other end of a pipe or socket is closed; at once for a descriptor that is not open. A
 * packet thread waits for it: a stream of Node's would make it non-blocking for our caller too. What is
 * written to it is no reason to end.
 */
function onHangUp(fd: number, engine: Pick<EngineHandle, 'watchHangUp'>, onEnd: () => void): void {
  let stat: ReturnType<typeof fstatSync>;
  try {
    stat = fstatSync(fd);
  } catch {
    onEnd();
    return;
  }
  if (!stat.isFIFO() && !stat.isSocket()) return; // a file never hangs up
  engine.watchHangUp(fd, onEnd);
}

/** Those of the caller's that go on being used. */
function namedDescriptors({ target, exitFd, readyFd }: SlirpConf): readonly number[] {
  return [
    ...(target.kind === 'tapfd' ? [target.fd] : descriptorOfPath(target.path)),
    ...[exitFd, readyFd].filter((fd) => fd !== undefined),
  ];
}

/** A caller that has gone, or never opened it, need not be told. */
function tellReady(fd: number): void {
  try {
    writeSync(fd, '1');
    closeSync(fd);
  } catch {
    // EBADF, EPIPE
  }
}

/**
 * Tells when the file that was named is unlinked, or the process that was named and all others in its
 * namespace have gone.
 */
class NetnsEnd {
  readonly byProcess: boolean;
  readonly #onEnd: () => void;
  readonly #watch: NamespaceWatch;
  /** Held: the path leads nowhere in the sandbox. */
  readonly #proc: number = -1;
  readonly #identity: string | number = -1;

  constructor(
    { path, pid }: Extract<SlirpTarget, { readonly kind: 'netns' }>,
    engine: EngineHandle,
    onEnd: () => void,
  ) {
    this.byProcess = pid !== undefined;
    this.#onEnd = onEnd;
    if (pid !== undefined) {
      this.#proc = openSync('/proc', 'r');
      this.#identity = heldIdentity(this.#proc, `${pid}/ns/net`);
    }
    const target = { path, ...(pid !== undefined && { pid }) };
    this.#watch = new NamespaceWatch(target, engine, () => this.#nameGone());
  }

  get listable(): readonly number[] {
    return this.#proc < 0 ? [] : [this.#proc];
  }

  rootChanged(): void {
    this.#watch.rootChanged();
  }

  #nameGone(): void {
    // A namespace that we may not look at is known by its process alone.
    if (typeof this.#identity === 'number') return this.#onEnd();
    const timer = setInterval(() => {
      if (this.#isInhabited()) return;
      clearInterval(timer);
      this.#onEnd();
    }, EMPTY_POLL_MS);
  }

  /** Whether a process that we may see, other than ourselves, is in the namespace. */
  #isInhabited(): boolean {
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

/** Standard error may be closed: then there is nobody to tell. */
export function say(text: string): void {
  writeAll(2, `${text}\n`);
}

/** What is worth telling of what happens while running. */
const tell: Log = (level, text) => {
  if (level === 'error' || level === 'warning') say(text);
};

/** Write a text to a descriptor whose other end may be gone, or may not read. */
export function writeAll(fd: 1 | 2, text: string): void {
  put(fd, text);
}
