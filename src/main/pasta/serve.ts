/**
 * `pasta` from parsed options to its exit status. host/start.ts calls the hooks below.
 *
 *   main thread              main or namespace thread (netns-setup)   chain (command.ts)
 *   ───────────              ──────────────────────────────────────   ──────────────────
 *   PID file, log file       plan, unshare or setns
 *   load engine              namespace's fd ────────────────────────▶ sh (only with COMMAND)
 *   start engine ◀────────── TAP                                      "started"
 *                            addresses, routes
 *   ready: "go", or detach from the caller ─────────────────────────▶ COMMAND
 *
 * The exit status is COMMAND's; 0 after the namespace has gone, SIGTERM or SIGQUIT; 1 after the engine has
 * failed.
 */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { hostname } from 'node:os';
import { Errno } from '../../sys/constants.ts';
import { strerrorOf } from '../../sys/error.ts';
import { strerror } from '../../sys/libc.ts';
import type { RouteSocket } from '../../sys/netlink.ts';
import type { CaptureStart, EngineHandle } from '../../workers/engine.ts';
import type { EnginePlan, MulticastPlan } from '../../workers/engine-plan.ts';
import type { BootedThread } from '../../workers/packet-worker.ts';
import type { ApiSocket } from '../api/socket.ts';
import { UsageError } from '../cli/values.ts';
import type { CaptureControl } from '../host/capture-control.ts';
import type { EgressControl } from '../host/egress-control.ts';
import type { FileWatch } from '../host/file-watch.ts';
import type { Following } from '../host/follow.ts';
import { multicastPlan } from '../host/group-limit.ts';
import type { Log } from '../host/log.ts';
import { type HeldNamespace, holdNamespace, NamespaceWatch } from '../host/namespace-watch.ts';
import { type Nat64Wish, nat64Wish } from '../host/nat64-wish.ts';
import { NetnsHere } from '../host/netns.ts';
import {
  type EngineLoaded,
  type FrontEnd,
  type MetricsEndpoint,
  type Sandbox,
  serve,
} from '../host/start.ts';
import { queueFds, tapQueues, threadsOfLine } from '../host/threads.ts';
import { forgetEnvironment } from '../process/callers-environment.ts';
import { holdOutputs } from '../process/output.ts';
import { Terminal } from '../process/terminal.ts';
import type { SwitchControl } from '../switching/switch-control.ts';
import { HOST_NAME_MAX, PastaCommand, type PastaCommandOptions } from './command.ts';
import type { PastaConf, PastaTarget } from './conf.ts';
import type { ControlSocket } from './control-socket.ts';
import { becomeUser, detachFromCaller } from './daemon.ts';
import { pastaEnginePlan } from './engine-plan.ts';
import { following } from './follow.ts';
import { Forwarder } from './forwarder.ts';
import { LogFile, type PastaLog } from './log.ts';
import { Message } from './messages.ts';
import type { PastaJob, PastaTap } from './netns-setup.ts';
import { needsSockets, type PortRules, portRules, refuseOutboundTarget } from './ports.ts';

/** What the front end has parsed and started before serving. */
export interface PastaStart {
  readonly conf: PastaConf;
  readonly target: PastaTarget;
  readonly booted: BootedThread;
  readonly log: PastaLog;
  /** COMMAND's environment. */
  readonly env: NodeJS.ProcessEnv;
  /** No COMMAND was given. */
  readonly login: boolean;
  /** The pipe on which bin/pasta waits; absent in the foreground. */
  readonly statusFd?: number;
  /** "UID:GID" to switch to when no step that needs privileges is left. */
  readonly runAs?: string;
  readonly version: string;
  readonly program: string;
}

/** @returns the exit status. @throws Error with the message for the user */
export async function servePasta(start: PastaStart): Promise<number> {
  const { conf, log } = start;
  const rules = portRules(conf);
  let egress: EgressControl | undefined;
  if (conf.egress.length > 0 || conf.policy !== undefined || conf.apiSocket !== undefined)
    egress = new (await import('../host/egress-control.ts')).EgressControl(conf);
  let captures: CaptureControl | undefined;
  if (conf.pcap !== undefined || conf.apiSocket !== undefined)
    captures = new (await import('../host/capture-control.ts')).CaptureControl(conf);
  await holdOutputs();
  if (conf.logFile !== undefined) {
    const header = `pasta ${start.version}: ${start.program} (${process.pid})`;
    const { line } = log;
    log.toFile(new LogFile({ path: conf.logFile, maxBytes: conf.logBytes, header, line }, strerrorOf));
  }
  const pidFd = conf.pidFile === undefined ? undefined : openPidFile(conf.pidFile);
  const sockets = needsSockets(conf, rules)
    ? (await import('../../workers/splice/socket-source.ts')).makeSocketSource()
    : undefined;
  const metrics = await metricsEndpoint(start);
  // Before the main thread enters the namespace: the supervisor has to be in the host's.
  const switching =
    conf.switchSockets && new (await import('../switching/switch-control.ts')).SwitchControl(log.log);
  return serve(new Pasta(start, rules, pidFd, sockets, egress, metrics, captures, switching));
}

/** @throws UsageError */
async function metricsEndpoint({ conf, version, log }: PastaStart): Promise<MetricsEndpoint | undefined> {
  if (conf.metrics === undefined) return undefined;
  const { openMetrics } = await import('../metrics/endpoint.ts');
  return openMetrics(conf.metrics, { program: 'bucatini pasta', version }, log.log);
}

class Pasta implements FrontEnd<PastaJob, PastaTap> {
  readonly log: Log;
  readonly booted: BootedThread;
  readonly netns = new NetnsHere<PastaJob, PastaTap>(
    async () => (await import('./netns-setup.ts')).setUpPasta,
  );
  readonly job: PastaJob;
  readonly metrics: MetricsEndpoint | undefined;
  readonly nat64: Nat64Wish | undefined;
  readonly tapOfOurs: ((made: PastaTap) => readonly number[]) | undefined;
  readonly startCommand: ((namespaceFd: number) => void) | undefined;
  /** Of --switch-sockets. */
  readonly switched: SwitchControl | undefined;
  readonly #start: PastaStart;
  readonly #rules: PortRules;
  /** Its limit is the host's, read before the main thread enters the namespace. */
  readonly #multicast: MulticastPlan | undefined;
  readonly #pidFd: number | undefined;
  /** Absent: there is no egress policy, and none can be set. */
  readonly #egress: EgressControl | undefined;
  readonly #captures: CaptureControl | undefined;
  /** Path of the namespace to connect; undefined: a new one. */
  readonly #path: string | undefined;
  /** That namespace, if its end is ours; as it was before it is entered. */
  readonly #held: HeldNamespace | undefined;
  readonly #terminal = new Terminal();
  /** Resolves on SIGTERM, on SIGQUIT and when the namespace has gone. */
  readonly #end = Promise.withResolvers<number>();
  readonly #running = Promise.withResolvers<EngineHandle>();
  #command: PastaCommand | undefined;
  #forwarder: Forwarder | undefined;
  #control: ControlSocket | undefined;
  #syslog: ((message: Buffer) => void) | undefined;
  #devNull = -1;

  constructor(
    start: PastaStart,
    rules: PortRules,
    pidFd: number | undefined,
    sockets: SharedArrayBuffer | undefined,
    egress: EgressControl | undefined,
    metrics: MetricsEndpoint | undefined,
    captures: CaptureControl | undefined,
    switching: SwitchControl | undefined,
  ) {
    const { conf, target } = start;
    this.#start = start;
    this.switched = switching;
    if (egress !== undefined) egress.switched = switching;
    this.#rules = rules;
    this.#multicast = multicastPlan(conf.multicast);
    this.#pidFd = pidFd;
    this.#egress = egress;
    this.metrics = metrics;
    this.#captures = captures;
    if (conf.ipv6 && !conf.spliceOnly) this.nat64 = nat64Wish(conf.nat64, 'off', egress, conf.outboundIf6);
    this.#path = targetPath(target);
    if (this.#path !== undefined && conf.netnsQuit) {
      const pid = target.kind === 'pid' ? { pid: target.pid } : {};
      this.#held = holdNamespace({ path: this.#path, ...pid });
    }
    this.log = start.log.log;
    this.booted = start.booted;
    this.job = {
      ...{ conf, sockets },
      tapQueues: tapQueues(threadsOfLine(conf.shaping), true),
      target: this.#path === undefined ? { kind: 'new' } : { kind: 'path', path: this.#path },
    };
    if (target.kind === 'command') {
      // The TAP of --fd is the caller's to close.
      this.tapOfOurs = ({ tap }) => (tap !== undefined && conf.fd === undefined ? queueFds(tap) : []);
      this.startCommand = (namespaceFd) => this.#spawn(target.argv, namespaceFd);
    }
    for (const name of ['SIGTERM', 'SIGQUIT'] as const) process.on(name, () => this.#end.resolve(0));
  }

  #spawn(argv: readonly string[], namespaceFd: number): void {
    const { conf, login, env, log } = this.#start;
    this.#command = new PastaCommand({
      ...{ argv, login, env, pidns: conf.pidns, supervised: this.switched?.supervision },
      ...hostnameOf(conf, log),
    });
    this.switched?.started(this.#command.firstPid);
    forgetEnvironment(env);
    // The child has entered the namespace through this descriptor before it executed sh.
    this.#command.started.then(
      () => closeSync(namespaceFd),
      () => {},
    );
  }

  async plan(made: PastaTap, engine: EngineLoaded, host: RouteSocket): Promise<EnginePlan> {
    const { conf } = this.#start;
    const { sockets } = this.job;
    for (const line of made.network.warnings) this.log('warning', line);
    // COMMAND's output must not be mixed with ours.
    const level = this.#command === undefined || conf.verbosity !== 'normal' ? 'info' : 'debug';
    for (const line of made.network.info) this.log(level, line);
    const forwarder = new Forwarder({
      ...this.#rules,
      splice: conf.splice,
      hostTables: made.hostTables,
      guestTables: made.tables,
      guestIsNew: this.#path === undefined,
      log: this.log,
    });
    this.#forwarder = forwarder;
    const listeners = forwarder.listeners();
    if (conf.confPath !== undefined) await this.#listenForControl(conf.confPath, forwarder);
    const egress = this.#egress?.plan(host, made.network.addresses, this.log);
    return {
      ...(egress && { egress }),
      ...pastaEnginePlan(
        conf,
        made,
        listeners,
        sockets,
        engine.engineKeys(),
        this.#start.log.upTo,
        this.#multicast,
      ),
      changesUser: this.#start.runAs !== undefined,
    };
  }

  /** @throws UsageError */
  async #listenForControl(path: string, forwarder: Forwarder): Promise<void> {
    const { ControlSocket } = await import('./control-socket.ts');
    this.#control = new ControlSocket({
      tables: () => [forwarder.inbound, forwarder.outbound],
      replace: async (tables) => {
        const inbound = tables.get('HOST') ?? forwarder.inbound;
        const outbound = tables.get('SPLICE') ?? forwarder.outbound;
        refuseOutboundTarget(outbound);
        return forwarder.replace(await this.#running.promise, inbound, outbound);
      },
      log: this.log,
    });
    await this.#control.listen(path).catch((error: Error) => {
      throw new UsageError(Message.controlSocket(strerrorOf(error)));
    });
  }

  openCapture({ network: { addresses, interfaceName } }: PastaTap): CaptureStart | undefined {
    const { version } = this.#start;
    return this.#captures?.atStart({ program: 'bucatini pasta', version, addresses, interfaceName });
  }

  configured(notes: readonly string[]): void {
    for (const note of notes) this.log('debug', note);
  }

  engineNotStarted(error: Error, { ListenError }: EngineLoaded): Error {
    if (!(error instanceof ListenError)) return error;
    return new UsageError(this.#forwarder!.failureText(error.failure).join('\n'));
  }

  engineStarted(engine: EngineHandle, { network }: PastaTap): void {
    const { noSwitch, outboundIf4: device4, outboundIf6: device6 } = this.#start.conf;
    const explains = this.#start.log.upTo === 'debug';
    void this.switched?.setJudge(this.#egress?.judge);
    this.switched?.begin({ noSwitch, outbound: { device4, device6 }, explains }, network.addresses);
    this.#egress?.started(engine);
    this.#captures?.started(engine, (text) => this.log('info', text));
    this.#running.resolve(engine);
    this.#forwarder!.start(engine);
  }

  /** With --splice-only only loopback matters, which changes of the host's network leave alone. */
  following(engine: EngineHandle, { network, inside }: PastaTap): Following | undefined {
    const { conf } = this.#start;
    if (conf.spliceOnly) return undefined;
    const followed = following({ ...{ conf, start: network, engine, inside }, log: this.log });
    const egress = this.#egress;
    if (egress === undefined) return followed;
    return {
      ...followed,
      hostChanged: (host, links) => {
        egress.hostChanged(host);
        followed.hostChanged(host, links);
      },
    };
  }

  async openApi(engine: EngineHandle, { network }: PastaTap): Promise<ApiSocket | undefined> {
    const { conf, version } = this.#start;
    if (conf.apiSocket === undefined) return undefined;
    const { openApiOption, ownNamespace } = await import('../api/server.ts');
    const { addresses, interfaceName } = network;
    return openApiOption(
      conf.apiSocket,
      'pasta',
      {
        ...{ engine, ports: this.#forwarder!.addedPorts(engine), addresses },
        ...(!conf.spliceOnly && { interfaceName }),
        ...{ program: 'bucatini pasta', version, egress: this.#egress, shaping: conf.shaping },
        namespace: ownNamespace(),
        captures: this.#captures,
        switched: this.switched,
      },
      { onError: (error) => this.log('warning', error.message) },
      this.log,
    );
  }

  async beforeSandbox(engine: EngineHandle, files: FileWatch): Promise<Sandbox> {
    const { conf, target, runAs, statusFd } = this.#start;
    if (conf.statsSeconds !== undefined) {
      const { printStats } = await import('../host/stats.ts');
      const startMs = performance.now();
      const print = async (): Promise<void> => {
        await this.switched?.refresh();
        printStats(engine, performance.now() - startMs);
      };
      setInterval(print, conf.statsSeconds * 1000).unref();
    }
    await this.#command?.started;
    await this.switched?.ready();
    const watched = this.#watchNamespace(engine, files);
    if (this.#pidFd !== undefined) writePidFile(this.#pidFd, conf.pidFile!);
    if (statusFd !== undefined) this.#syslog = (await import('../../sys/syslog.ts')).openSyslog();
    this.#devNull = openSync('/dev/null', 'r+');
    return {
      watched,
      chrootFallback: conf.chrootFallback,
      changeUser: runAs === undefined ? undefined : () => becomeUser(runAs),
      removable: this.#control?.directories ?? [],
      signals: [
        ...(this.#command?.signalled ?? []),
        ...(this.switched === undefined ? [] : [this.switched.pid]),
      ],
      watchesProcess: target.kind === 'pid' && watched?.polls === true,
    };
  }

  #watchNamespace(engine: EngineHandle, files: FileWatch): NamespaceWatch | undefined {
    const held = this.#held;
    if (held === undefined) return undefined;
    return new NamespaceWatch(held, engine, files, () => {
      this.log('info', Message.netnsGone(held.path));
      this.#end.resolve(0);
    });
  }

  enterSandbox(close: () => void): void {
    const { statusFd, log } = this.#start;
    if (statusFd !== undefined) {
      log.leaveForBackground(this.#syslog);
      detachFromCaller(statusFd, this.#devNull, close);
    } else {
      closeSync(this.#devNull);
      close();
      if (this.#command !== undefined) log.leaveToCommand();
    }
  }

  ready(): void {
    this.#command?.go();
  }

  ends(): readonly Promise<number>[] {
    return [
      this.#end.promise,
      ...(this.#command === undefined ? [] : [this.#command.ended]),
      ...(this.switched === undefined ? [] : [this.switched.lost]),
    ];
  }

  served(status: number): void {
    this.log('debug', `ending with status ${status}`);
  }

  stop(failed: boolean): void {
    if (failed) this.#command?.kill();
    this.switched?.kill();
    this.#forwarder?.stop();
    this.#control?.close();
  }

  afterEngine(): void {
    this.#terminal.restore();
  }
}

/** Path of the namespace to connect; undefined: a new one. */
function targetPath(target: PastaTarget): string | undefined {
  if (target.kind === 'netns') return target.path;
  return target.kind === 'pid' ? `/proc/${target.pid}/ns/net` : undefined;
}

/**
 * Create the PID file. Before anything starts, so that a path that does not work is reported early; the file
 * is written when the network is ready.
 */
function openPidFile(path: string): number {
  try {
    return openSync(path, 'w', 0o600);
  } catch (error) {
    throw new UsageError(Message.pidFile(path, strerrorOf(error)));
  }
}

function writePidFile(fd: number, path: string): void {
  const text = `${process.pid}\n`;
  try {
    const bytes = writeSync(fd, text);
    if (bytes < text.length) throw new Error(strerror(Errno.ENOSPC));
  } catch (error) {
    ftruncateSync(fd); // part of the number would name another process
    throw new UsageError(Message.pidFull(path, strerrorOf(error)));
  } finally {
    closeSync(fd);
  }
}

/** COMMAND's host name: that of --hostname if the kernel accepts its length, else "pasta-" and the host's. */
function hostnameOf(
  conf: PastaConf,
  log: PastaLog,
): Pick<PastaCommandOptions, 'hostname' | 'hostnameWritten'> {
  if (!conf.hostname) return { hostname: `pasta-${hostname()}`.slice(0, HOST_NAME_MAX) };
  if (Buffer.byteLength(conf.hostname) <= HOST_NAME_MAX)
    return { hostname: conf.hostname, hostnameWritten: true };
  log.log('warning', Message.hostnameUnusable);
  return {};
}
