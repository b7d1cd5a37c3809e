/**
 * `pasta` from finished options to its end.
 *
 *   main thread              main or namespace thread (netns-setup)   chain (command.ts)
 *   ───────────              ──────────────────────────────────────   ──────────────────
 *   PID file, log file       plan, unshare or setns
 *   load engine              namespace's fd ────────────────────────▶ nsenter … sh (only with COMMAND)
 *   start engine ◀────────── TAP                                      "started"
 *                            addresses, routes
 *   ready: "go", or let go of the caller ───────────────────────────▶ COMMAND
 *
 * Ends with COMMAND and its status; with status 0 when the namespace is gone or SIGTERM or SIGQUIT comes;
 * with 1 when the engine fails.
 */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { hostname } from 'node:os';
import { Errno } from '../../sys/constants.ts';
import { strerror } from '../../sys/libc.ts';
import type { EngineHandle } from '../../workers/engine.ts';
import type { EnginePlan } from '../../workers/engine-plan.ts';
import type { BootedThread } from '../../workers/packet-worker.ts';
import type { ApiSocket } from '../api/socket.ts';
import { UsageError } from '../cli/values.ts';
import type { Following } from '../host/follow.ts';
import type { Log } from '../host/log.ts';
import { NamespaceWatch } from '../host/namespace-watch.ts';
import { bindErrorText } from '../host/socket-file.ts';
import { type EngineLoaded, type FrontEnd, type Sandbox, serve } from '../host/start.ts';
import { holdOutputs } from '../process/output.ts';
import { Terminal } from '../process/terminal.ts';
import { HOST_NAME_MAX, PastaCommand, type PastaCommandOptions } from './command.ts';
import type { PastaConf, PastaTarget } from './conf.ts';
import type { ControlSocket } from './control-socket.ts';
import { becomeUser, leaveCaller } from './daemon.ts';
import { pastaEnginePlan } from './engine-plan.ts';
import { following } from './follow.ts';
import { Forwarder } from './forwarder.ts';
import { LogFile, type PastaLog } from './log.ts';
import { Message } from './messages.ts';
import type { PastaJob, PastaTap } from './netns-setup.ts';
import type { PastaNetns } from './netns-thread.ts';
import { needsSockets, type PortRules, portRules, refuseOutboundTarget } from './ports.ts';

export interface PastaStart {
  readonly conf: PastaConf;
  readonly target: PastaTarget;
  readonly netns: PastaNetns;
  readonly booted: BootedThread;
  readonly log: PastaLog;
  /** COMMAND's environment. */
  readonly env: NodeJS.ProcessEnv;
  /** No COMMAND was written. */
  readonly login: boolean;
  /** Where bin/pasta waits; absent in the foreground. */
  readonly statusFd?: number;
  /** "UID:GID" to become once all that takes privileges is done. */
  readonly runAs?: string;
  readonly version: string;
  readonly program: string;
}

/** @returns the exit status. @throws Error with what to tell */
export async function servePasta(start: PastaStart): Promise<number> {
  const { conf, log } = start;
  const rules = portRules(conf);
  await holdOutputs();
  if (conf.logFile !== undefined) {
    const header = `pasta ${start.version}: ${start.program} (${process.pid})`;
    log.toFile(new LogFile({ path: conf.logFile, maxBytes: conf.logBytes, header }, errnoText));
  }
  const pidFd = conf.pidFile === undefined ? undefined : openPidFile(conf.pidFile);
  const sockets = needsSockets(conf, rules)
    ? (await import('../../workers/splice/socket-source.ts')).makeSocketSource()
    : undefined;
  return serve(new Pasta(start, rules, pidFd, sockets));
}

class Pasta implements FrontEnd<PastaJob, PastaTap> {
  readonly log: Log;
  readonly booted: BootedThread;
  readonly netns: PastaNetns;
  readonly job: PastaJob;
  readonly tapOfOurs: ((made: PastaTap) => number | undefined) | undefined;
  readonly startCommand: ((namespaceFd: number) => void) | undefined;
  readonly #start: PastaStart;
  readonly #rules: PortRules;
  readonly #pidFd: number | undefined;
  /** The namespace to connect; undefined: one of our own. */
  readonly #path: string | undefined;
  readonly #terminal = new Terminal();
  /** SIGTERM or SIGQUIT, or the namespace is gone. */
  readonly #end = Promise.withResolvers<number>();
  readonly #running = Promise.withResolvers<EngineHandle>();
  #command: PastaCommand | undefined;
  #forwarder: Forwarder | undefined;
  #control: ControlSocket | undefined;
  #syslog: ((message: Buffer) => void) | undefined;
  #none = -1;

  constructor(
    start: PastaStart,
    rules: PortRules,
    pidFd: number | undefined,
    sockets: SharedArrayBuffer | undefined,
  ) {
    const { conf, target, runAs } = start;
    this.#start = start;
    this.#rules = rules;
    this.#pidFd = pidFd;
    this.#path = targetPath(target);
    this.log = start.log.log;
    this.booted = start.booted;
    this.netns = start.netns;
    this.job = {
      ...{ conf, sockets, changesUser: runAs !== undefined },
      target: this.#path === undefined ? { kind: 'new' } : { kind: 'path', path: this.#path },
    };
    if (target.kind === 'command') {
      // With --fd its end is our caller's matter.
      this.tapOfOurs = ({ tap }) => (conf.fd === undefined ? tap?.fd : undefined);
      this.startCommand = (namespaceFd) => this.#spawn(target.argv, namespaceFd);
    }
    for (const name of ['SIGTERM', 'SIGQUIT'] as const) process.on(name, () => this.#end.resolve(0));
  }

  #spawn(argv: readonly string[], namespaceFd: number): void {
    const { conf, login, env, log } = this.#start;
    this.#command = new PastaCommand({
      ...{ argv, login, env, pidns: conf.pidns },
      ...(this.netns.mainInside ? {} : { namespaceFd }),
      ...hostnameOf(conf, log),
    });
    // The chain goes there by our descriptor.
    this.#command.started.then(
      () => closeSync(namespaceFd),
      () => {},
    );
  }

  async plan(made: PastaTap, engine: EngineLoaded): Promise<EnginePlan> {
    const { conf } = this.#start;
    const { sockets, changesUser } = this.job;
    for (const line of made.network.warnings) this.log('warning', line);
    // A command's output is not to be mixed with ours.
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
    return {
      ...pastaEnginePlan(conf, made, listeners, sockets, engine.engineKeys(), this.#start.log.upTo),
      changesUser: changesUser === true,
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
        await forwarder.replace(await this.#running.promise, inbound, outbound);
      },
      log: this.log,
    });
    await this.#control.listen(path).catch((error: Error) => {
      throw new UsageError(Message.controlSocket(bindErrorText(path, error)));
    });
  }

  configured(notes: readonly string[]): void {
    for (const note of notes) this.log('debug', note);
  }

  engineNotStarted(error: Error, { ListenError }: EngineLoaded): Error {
    if (!(error instanceof ListenError)) return error;
    return new UsageError(this.#forwarder!.failureText(error.failure).join('\n'));
  }

  engineStarted(engine: EngineHandle): void {
    this.#running.resolve(engine);
    this.#forwarder!.start(engine);
  }

  /** With --splice-only only loopback matters, which changes of the host's network leave alone. */
  following(engine: EngineHandle, { network, inside }: PastaTap): Following | undefined {
    const { conf } = this.#start;
    if (conf.spliceOnly) return undefined;
    return following({ ...{ conf, start: network, engine, inside }, log: this.log });
  }

  async openApi(engine: EngineHandle, { network }: PastaTap): Promise<ApiSocket | undefined> {
    const { conf, version } = this.#start;
    if (conf.apiSocket === undefined) return undefined;
    const { openApiOption } = await import('../api/server.ts');
    const { addresses, interfaceName } = network;
    return openApiOption(
      conf.apiSocket,
      {
        ...{ engine, ports: this.#forwarder!.addedPorts(engine), addresses },
        ...(!conf.spliceOnly && { interfaceName }),
        ...{ program: 'bucatini pasta', version },
      },
      { onError: (error) => this.log('warning', error.message) },
    );
  }

  async beforeSandbox(engine: EngineHandle): Promise<Sandbox> {
    const { conf, target, runAs, statusFd } = this.#start;
    if (conf.statsSeconds !== undefined) {
      const { printStats } = await import('../host/stats.ts');
      setInterval(() => printStats(engine), conf.statsSeconds * 1000).unref();
    }
    await this.#command?.started;
    const watched = conf.netnsQuit ? this.#watchNamespace(engine) : undefined;
    if (this.#pidFd !== undefined) writePidFile(this.#pidFd, conf.pidFile!);
    if (statusFd !== undefined) this.#syslog = (await import('../../sys/syslog.ts')).openSyslog();
    this.#none = openSync('/dev/null', 'r+');
    return {
      watched,
      chrootFallback: conf.chrootFallback,
      changeUser: runAs === undefined ? undefined : () => becomeUser(runAs),
      removable: this.#control?.directories ?? [],
      signals: this.#command?.signalled ?? [],
      watchesProcess: target.kind === 'pid' && watched?.polls === true,
    };
  }

  #watchNamespace(engine: EngineHandle): NamespaceWatch | undefined {
    const { target } = this.#start;
    const path = this.#path;
    if (path === undefined) return undefined;
    return new NamespaceWatch({ path, ...(target.kind === 'pid' && { pid: target.pid }) }, engine, () => {
      this.log('info', Message.netnsGone(path));
      this.#end.resolve(0);
    });
  }

  enterSandbox(close: () => void): void {
    const { statusFd, log } = this.#start;
    if (statusFd !== undefined) {
      log.leaveForBackground(this.#syslog);
      leaveCaller(statusFd, this.#none, close);
    } else {
      closeSync(this.#none);
      close();
      if (this.#command !== undefined) log.leaveToCommand();
    }
  }

  ready(): void {
    this.#command?.go();
  }

  ends(): readonly Promise<number>[] {
    return [this.#end.promise, ...(this.#command === undefined ? [] : [this.#command.ended])];
  }

  served(status: number): void {
    this.log('debug', `ending with status ${status}`);
  }

  stop(failed: boolean): void {
    if (failed) this.#command?.kill();
    this.#forwarder?.stop();
    this.#control?.close();
  }

  afterEngine(): void {
    this.#terminal.restore();
  }
}

/** The namespace to connect; undefined: one of our own. */
function targetPath(target: PastaTarget): string | undefined {
  if (target.kind === 'netns') return target.path;
  return target.kind === 'pid' ? `/proc/${target.pid}/ns/net` : undefined;
}

/**
 * Made at once, so that a directory where it cannot be is told before anything starts; written when all is
 * ready.
 */
function openPidFile(path: string): number {
  try {
    return openSync(path, 'w', 0o600);
  } catch (error) {
    throw new UsageError(Message.pidFile(path, errnoText(error)));
  }
}

function writePidFile(fd: number, path: string): void {
  const text = `${process.pid}\n`;
  try {
    const bytes = writeSync(fd, text);
    if (bytes < text.length) throw new Error(strerror(Errno.ENOSPC));
  } catch (error) {
    ftruncateSync(fd); // half a number is another process
    throw new UsageError(Message.pidFull(path, errnoText(error)));
  } finally {
    closeSync(fd);
  }
}

/** Of the command's own UTS namespace: what was asked for, where the kernel takes it. */
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

/** What strerror(3) says of an error of Node's. */
const errnoText = (error: unknown): string => {
  const { errno, message } = error as NodeJS.ErrnoException;
  return errno === undefined ? message : strerror(-errno);
};
