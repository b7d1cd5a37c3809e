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
 * Ends with COMMAND and its status; with status 0 when the namespace is gone or SIGTERM or SIGQUIT comes; with 1 when the engine
 * fails.
 */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { hostname } from 'node:os';
import { Errno } from '../../sys/constants.ts';
import { LeftBehind } from '../../sys/left-behind.ts';
import { strerror } from '../../sys/libc.ts';
import type { EngineHandle } from '../../workers/engine.ts';
import type { BootedThread } from '../../workers/packet-worker.ts';
import type { ApiSocket } from '../api-socket.ts';
import { NamespaceWatch } from '../attach.ts';
import { closeInheritedOnExec, fewDescriptors } from '../descriptors.ts';
import { endWithin, loadEngine } from '../engine-launch.ts';
import { HostWatch } from '../host-watch.ts';
import { holdOutputs } from '../output.ts';
import { RESOLV_CONF } from '../resolv-conf.ts';
import { ResolverZones } from '../resolver-zones.ts';
import { followResolvConf } from '../resolvers.ts';
import { bindErrorText } from '../socket-file.ts';
import { Stopwatch } from '../stopwatch.ts';
import { Terminal } from '../terminal.ts';
import { UsageError } from '../values.ts';
import { closeWall, leaveHost } from '../wall.ts';
import { HOST_NAME_MAX, PastaCommand, type PastaCommandOptions } from './command.ts';
import type { ControlSocket } from './control-socket.ts';
import { becomeUser, leaveCaller } from './daemon.ts';
import { pastaEnginePlan } from './engine-plan.ts';
import { followHost } from './follow.ts';
import { Forwarder } from './forwarder.ts';
import { LogFile, type PastaLog } from './log.ts';
import { Message } from './messages.ts';
import type { PastaNetns } from './netns-thread.ts';
import type { PastaConf, PastaTarget } from './options.ts';
import { needsSockets, portRules, refuseOutboundTarget } from './ports.ts';

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
  const { conf, target, netns, log } = start;
  const steps = new Stopwatch();
  const terminal = new Terminal();
  const rules = portRules(conf);
  await holdOutputs();
  if (conf.logFile !== undefined) {
    const header = `pasta ${start.version}: ${start.program} (${process.pid})`;
    log.toFile(new LogFile({ path: conf.logFile, maxBytes: conf.logBytes, header }, errnoText));
  }
  const pidFd = conf.pidFile === undefined ? undefined : openPidFile(conf.pidFile);
  const path = targetPath(target);

  const end = Promise.withResolvers<number>();
  for (const name of ['SIGTERM', 'SIGQUIT'] as const) process.on(name, () => end.resolve(0));

  const sockets = needsSockets(conf, rules)
    ? (await import('../../workers/splice/socket-source.ts')).makeSocketSource()
    : undefined;
  // Before the namespace thread looks at the host: what changes meanwhile is seen afterwards.
  const watch = new HostWatch();
  const { runAs } = start;
  const changesUser = runAs !== undefined;
  netns.start({
    conf,
    target: path === undefined ? { kind: 'new' } : { kind: 'path', path },
    sockets,
    changesUser,
  });
  const loading = loadEngine(start.booted);
  let command: PastaCommand | undefined;
  let engine: EngineHandle | undefined;
  const leftBehind = target.kind === 'command' ? new LeftBehind() : undefined;
  let tapFd: number | undefined;
  let starting: Promise<EngineHandle> | undefined;
  let forwarder: Forwarder | undefined;
  let control: ControlSocket | undefined;
  let api: ApiSocket | undefined;
  try {
    if (target.kind === 'command') {
      const namespaceFd = await netns.namespaceFd;
      steps.lap('namespace made');
      closeInheritedOnExec();
      command = new PastaCommand({
        argv: target.argv,
        login: start.login,
        env: start.env,
        ...(netns.mainInside ? {} : { namespaceFd }),
        pidns: conf.pidns,
        ...hostnameOf(conf, log),
      });
      // The chain goes there by our descriptor.
      command.started.then(
        () => closeSync(namespaceFd),
        () => {},
      );
    }
    const made = await netns.tap;
    steps.lap('TAP made');
    if (conf.fd === undefined) tapFd = made.tap?.fd; // whose end is our caller's matter
    for (const line of made.network.warnings) log.log('warning', line);
    const few = fewDescriptors();
    if (few !== undefined) log.log('warning', few);
    // A command's output is not to be mixed with ours.
    const level = command === undefined || conf.verbosity !== 'normal' ? 'info' : 'debug';
    for (const line of made.network.info) log.log(level, line);
    const engineModule = await loading.module;
    forwarder = new Forwarder({
      ...rules,
      splice: conf.splice,
      hostTables: made.hostTables,
      guestTables: made.tables,
      guestIsNew: path === undefined,
      log: (l, text) => log.log(l, text),
    });
    const listeners = forwarder.listeners();
    const forwarding = forwarder;
    if (conf.confPath !== undefined) {
      const { ControlSocket } = await import('./control-socket.ts');
      control = new ControlSocket({
        tables: () => [forwarding.inbound, forwarding.outbound],
        replace: async (tables) => {
          const inbound = tables.get('HOST') ?? forwarding.inbound;
          const outbound = tables.get('SPLICE') ?? forwarding.outbound;
          refuseOutboundTarget(outbound);
          await forwarding.replace(
            await (starting ?? Promise.reject(new Error('not ready'))),
            inbound,
            outbound,
          );
        },
        log: (l, text) => log.log(l, text),
      });
      await control.listen(conf.confPath).catch((error: Error) => {
        throw new UsageError(Message.controlSocket(bindErrorText(conf.confPath!, error)));
      });
    }
    const plan = {
      ...pastaEnginePlan(conf, made, listeners, sockets, engineModule.engineKeys(), log.upTo),
      changesUser,
    };
    starting = engineModule.startEngine(plan, {
      onLog: (l, text) => log.log(l, text),
      booted: loading.booted,
    });
    starting.catch(() => {});
    for (const note of await netns.configured) log.log('debug', note);
    steps.lap('interface configured');
    engine = await starting.catch((error: Error) => {
      if (!(error instanceof engineModule.ListenError)) throw error;
      throw new UsageError(forwarder!.failureText(error.failure).join('\n'));
    });
    steps.lap('engine started');
    const running = engine;
    forwarder.start(running);
    const readable: number[] = [];
    let configuresNetwork = false;
    // Loopback is as it is, whatever becomes of the host's network.
    if (!conf.spliceOnly) {
      const { nameservers, addresses } = made.network;
      const resolvers = new ResolverZones(
        nameservers,
        addresses.resolvers,
        () => watch.host.links(),
        (list) => running.setResolvers(list),
      );
      followResolvConf((list) => resolvers.use(list), RESOLV_CONF, readable);
      configuresNetwork = followHost(watch, {
        ...{ conf, start: made.network, engine: running, resolvers, inside: made.inside },
        log: (l, text) => log.log(l, text),
      });
    }
    if (conf.statsSeconds !== undefined) {
      const { printStats } = await import('../stats.ts');
      setInterval(() => printStats(running), conf.statsSeconds * 1000).unref();
    }
    if (conf.apiSocket !== undefined) {
      const { openApiOption } = await import('../api-server.ts');
      const { addresses, interfaceName } = made.network;
      api = await openApiOption(
        conf.apiSocket,
        {
          ...{ engine: running, ports: forwarder.addedPorts(running), addresses },
          ...(!conf.spliceOnly && { interfaceName }),
          ...{ program: 'bucatini pasta', version: start.version },
        },
        { onError: (error) => log.log('warning', error.message) },
      );
    }
    await command?.started;
    log.log('debug', `start: ${steps.text()}`);

    const watched =
      path !== undefined && conf.netnsQuit
        ? new NamespaceWatch({ path, ...(target.kind === 'pid' && { pid: target.pid }) }, running, () => {
            log.log('info', Message.netnsGone(path));
            end.resolve(0);
          })
        : undefined;
    if (pidFd !== undefined) {
      writePidFile(pidFd, conf.pidFile!);
    }
    const syslog =
      start.statusFd === undefined ? undefined : (await import('../../sys/syslog.ts')).openSyslog();
    const none = openSync('/dev/null', 'r+');
    leaveHost({
      eventRings: engine.eventRings,
      log: (l, text) => log.log(l, text),
      watched,
      chrootFallback: conf.chrootFallback,
      changeUser: runAs === undefined ? undefined : () => becomeUser(runAs),
    });
    const wall = (): void =>
      closeWall({
        readable,
        removable: [...(control?.directories ?? []), ...(api?.directories ?? [])],
        signals: command?.signalled ?? [],
        watchesProcess: target.kind === 'pid' && watched?.polls === true,
        configuresNetwork,
      });
    if (start.statusFd !== undefined) {
      log.leaveForBackground(syslog);
      leaveCaller(start.statusFd, none, wall);
    } else {
      closeSync(none);
      wall();
      if (command !== undefined) log.leaveToCommand();
    }
    command?.go();

    const outcome = await Promise.race([
      end.promise,
      engine.failed,
      ...(command === undefined ? [] : [command.ended]),
    ]);
    if (outcome instanceof Error) throw outcome;
    log.log('debug', `ending with status ${outcome}`);
    return outcome;
  } catch (error) {
    command?.kill();
    throw error;
  } finally {
    watch.stop();
    forwarder?.stop();
    control?.close();
    api?.close();
    await endWithin(engine);
    if (tapFd !== undefined) leftBehind?.leave(tapFd);
    terminal.restore();
  }
}

/** The namespace to connect; undefined: one of our own. */
function targetPath(target: PastaTarget): string | undefined {
  if (target.kind === 'netns') return target.path;
  return target.kind === 'pid' ? `/proc/${target.pid}/ns/net` : undefined;
}

/** Made at once, so that a directory where it cannot be is told before anything starts; written when all is ready. */
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
