/**
 * `bucatini run`: the start path, side by side where it can be.
 *
 *   packet thread      main thread (or namespace thread, netns.ts)   chain (command.ts)
 *   ─────────────      ───────────────────────────────────────────   ──────────────────
 *   boots              options, read host's network, unshare
 *                      resolv.conf, spawn ─────────────────────────▶ setpriv … sh
 *                      make the TAP
 *   starts ◀────────── task
 *                      addresses, routes                             "started"
 *   "ready" ─────────▶ "go" ───────────────────────────────────────▶ COMMAND
 *
 * We are root of a user namespace of our own by now (the launcher's doing), in the host's network namespace. Whatever ends
 * first ends the rest: COMMAND the engine, the engine COMMAND, and our own death both (command.ts).
 */
import { closeSync, realpathSync } from 'node:fs';
import { constants as os } from 'node:os';
import { LeftBehind } from '../sys/left-behind.ts';
import { exitNow } from '../sys/process.ts';
import type { EngineHandle } from '../workers/engine.ts';
import type { BootedThread } from '../workers/packet-worker.ts';
import { forwarders } from './address-plan.ts';
import type { ApiSocket } from './api-socket.ts';
import { Command, CommandError, findProgram, type PrivateResolvConf } from './command.ts';
import { closeInheritedOnExec, fewDescriptors, OPEN_FILES_VARIABLE } from './descriptors.ts';
import {
  chooseNetns,
  endWithin,
  followHost,
  launchEngine,
  loadEngine,
  openSettingsApi,
  socketSource,
} from './engine-launch.ts';
import { HostWatch } from './host-watch.ts';
import { makeLog } from './log.ts';
import type { NetnsError } from './netns.ts';
import type { Settings } from './options.ts';
import { holdOutputs } from './output.ts';
import { RESOLV_CONF, readResolvConf, resolvConfText } from './resolv-conf.ts';
import { forwardSignals } from './signals.ts';
import { Stopwatch } from './stopwatch.ts';
import { Terminal } from './terminal.ts';
import { closeWall, leaveHost } from './wall.ts';

/** @returns the exit status. @throws CommandError, NetnsError or Error with one line for the user */
export async function run(
  booted: BootedThread,
  settings: Settings,
  operands: readonly string[],
  env: NodeJS.ProcessEnv,
  version: () => Promise<string>,
): Promise<number> {
  const log = makeLog(settings.logLevel);
  const watch = new Stopwatch();
  const argv = commandLine(operands, env);

  await holdOutputs();
  const terminal = new Terminal();
  const leftBehind = new LeftBehind();
  let tapFd: number | undefined;
  let command: Command | undefined;
  let engine: EngineHandle | undefined;
  let api: ApiSocket | undefined;
  let ending = false;
  forwardSignals(
    () => (command?.running ? command : undefined),
    (name) => {
      ending = true;
      command?.kill();
      // Threads may still be booting; Node's taking them apart then has been seen to end in a signal of its own.
      void endWithin(engine).then(() => exitNow(128 + os.signals[name]));
    },
    terminal,
  );

  const sockets = await socketSource(settings);
  const netns = chooseNetns(settings);
  // Opened in the host's namespace: the main thread may be about to leave it.
  const hostWatch = new HostWatch();
  netns.start({ settings, target: { kind: 'new' }, sockets });
  const loading = loadEngine(booted);
  try {
    const namespaceFd = await netns.namespaceFd.catch(async (error: NetnsError) => {
      (await import('./reenter.ts')).reenterOwnNamespaces(error.code);
      throw error;
    });
    watch.lap('namespace made');
    closeInheritedOnExec();
    const resolvConf = privateResolvConf(settings);
    const options = {
      ...{ argv, env, openFiles: process.env[OPEN_FILES_VARIABLE] },
      ...(netns.mainInside ? {} : { namespaceFd }),
      ...(resolvConf && { resolvConf }),
    };
    command = new Command({ ...options, mountProc: true });
    watch.lap('chain spawned');
    const made = await netns.tap;
    watch.lap('TAP made');
    tapFd = made.tap.fd;
    const starting = launchEngine(loading, settings, made, log, sockets);
    starting.catch(() => {});
    for (const note of await netns.configured) log('warning', note);
    const few = fewDescriptors();
    if (few !== undefined) log('warning', few);
    watch.lap('interface configured');
    engine = await starting;
    watch.lap('engine started');
    let notes: readonly string[];
    try {
      notes = await command.started;
    } catch (error) {
      if (ending) await new Promise(() => {}); // a signal ended it, and us in a moment
      // Where parts of /proc are covered (containers) a new one cannot be mounted: COMMAND then sees ours.
      log(
        'warning',
        `COMMAND sees the caller's /proc, as a new one cannot be mounted (${(error as Error).message})`,
      );
      command = new Command({ ...options, mountProc: false });
      notes = await command.started;
    }
    for (const note of notes) log('warning', note);
    watch.lap('command ready');
    // Not before: until the chain has copied our mounts, its resolv.conf covers the host's here too.
    const readable: number[] = [];
    const unfollow = followHost(hostWatch, settings, made.network, engine, readable, log);
    const printStats = settings.stats ? (await import('./stats.ts')).printStats : () => {};
    api = await openSettingsApi({ settings, program: 'bucatini run', version }, made, engine, log);
    closeSync(namespaceFd); // nobody goes there any more
    leaveHost({ eventRings: engine.eventRings, log });
    closeWall({
      readable: [...readable, ...command.directories],
      removable: api?.directories ?? [],
      signals: command.signalled,
      watchesProcess: false,
    });
    watch.lap('wall closed');
    log('info', `${made.network.interfaceName}: ${made.network.summary}`);
    log('debug', `start: ${watch.text()}`);
    command.go();

    const outcome = await Promise.race([command.ended, engine.failed]);
    if (outcome instanceof Error) throw new Error(`the engine failed: ${outcome.message}`);
    unfollow();
    hostWatch.stop();
    printStats(engine);
    return outcome;
  } finally {
    command?.kill();
    api?.close();
    await endWithin(engine);
    if (tapFd !== undefined) leftBehind.leave(tapFd);
    terminal.restore();
  }
}

/** COMMAND as an argument list; without one the user's shell. */
function commandLine(operands: readonly string[], env: NodeJS.ProcessEnv): readonly string[] {
  if (operands.length > 0) {
    findProgram(operands[0]!);
    return operands;
  }
  const shell = env.SHELL || '/bin/sh';
  try {
    findProgram(shell);
    return [shell];
  } catch (error) {
    throw new CommandError(`your shell (SHELL): ${(error as Error).message}`, (error as CommandError).status);
  }
}

/** The file that COMMAND gets to see; undefined where the host has none or DNS is not forwarded. */
function privateResolvConf(settings: Settings): PrivateResolvConf | undefined {
  const host = readResolvConf();
  const forwards = forwarders(settings);
  if (host === undefined || forwards.length === 0) return undefined;
  return { path: realpathSync(RESOLV_CONF), text: resolvConfText(forwards, host) };
}
