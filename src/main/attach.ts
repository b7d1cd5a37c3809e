/**
 * `bucatini attach`: serve a namespace that someone else made, until it is gone.
 *
 * Gone means: the process that was named has ended, or the file that was named has been unlinked. Other processes may still be inside;
 * our own descriptors keep the namespace from ending by itself.
 */
import { type FSWatcher, readlinkSync, statSync, watch } from 'node:fs';
import { basename, dirname } from 'node:path';
import { Errno, O_DIRECTORY, O_PATH } from '../sys/constants.ts';
import { heldIdentity } from '../sys/held-directory.ts';
import { openPath } from '../sys/path.ts';
import { pidfdOpen } from '../sys/process.ts';
import type { EngineHandle } from '../workers/engine.ts';
import type { BootedThread } from '../workers/packet-worker.ts';
import { descriptorOfPath, fewDescriptors } from './descriptors.ts';
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
import { Stopwatch } from './stopwatch.ts';
import { quoted, UsageError } from './values.ts';
import { closeWall, leaveHost } from './wall.ts';

/** How soon the end is noticed of what cannot be waited for. */
const POLL_MS = 250;

export interface AttachTarget {
  /** Of the network namespace. */
  readonly path: string;
  readonly pid?: number;
}

/** @returns the exit status */
export async function attach(
  booted: BootedThread,
  settings: Settings,
  operands: readonly string[],
  version: () => Promise<string>,
): Promise<number> {
  const target = parseTarget(operands);
  const identity = namespaceIdentity(target.path);
  if (identity === undefined) throw new UsageError(missing(target));
  const log = makeLog(settings.logLevel);
  const steps = new Stopwatch();

  const end = Promise.withResolvers<string>();
  for (const name of ['SIGTERM', 'SIGINT'] as const) process.on(name, () => end.resolve(name));

  await holdOutputs();
  const sockets = await socketSource(settings);
  const netns = chooseNetns(settings);
  // Opened in the host's namespace: the main thread may be about to leave it.
  const hostWatch = new HostWatch();
  netns.start({ settings, target: { kind: 'path', path: target.path }, sockets });
  const loading = loadEngine(booted);
  const made = await netns.tap.catch(async (error: NetnsError) => {
    (await import('./reenter.ts')).reenterOwnerOf(target.path, error.code);
    throw error;
  });
  steps.lap('TAP made');
  const starting = launchEngine(loading, settings, made, log, sockets);
  starting.catch(() => {});
  for (const note of await netns.configured) log('warning', note);
  const few = fewDescriptors();
  if (few !== undefined) log('warning', few);
  steps.lap('interface configured');
  const engine = await starting;
  steps.lap('engine started');
  const readable: number[] = [];
  const unfollow = followHost(hostWatch, settings, made.network, engine, readable, log);
  const watched = new NamespaceWatch(target, engine, () => end.resolve('the namespace is gone'), identity);
  const printStats = settings.stats ? (await import('./stats.ts')).printStats : () => {};
  const api = await openSettingsApi({ settings, program: 'bucatini attach', version }, made, engine, log);
  leaveHost({ eventRings: engine.eventRings, log, watched, keepOpen: descriptorOfPath(target.path) });
  closeWall({
    readable,
    removable: api?.directories ?? [],
    signals: [],
    watchesProcess: target.pid !== undefined && watched.polls,
  });
  steps.lap('wall closed');
  log('debug', `start: ${steps.text()}`);
  log('info', `ready: ${made.network.interfaceName}: ${made.network.summary}`);

  const outcome = await Promise.race([end.promise, engine.failed]);
  api?.close();
  if (outcome instanceof Error) {
    await endWithin(engine);
    throw new Error(`the engine failed: ${outcome.message}`);
  }
  log('info', `${outcome}, ending`);
  watched.stop();
  hostWatch.stop();
  unfollow();
  printStats(engine);
  await endWithin(engine);
  return 0;
}

/** The operand of `attach`: a process id or a path. @throws UsageError */
function parseTarget(operands: readonly string[]): AttachTarget {
  const [word, ...rest] = operands;
  if (word === undefined || word === '') {
    throw new UsageError('no namespace given; write a process id or the path of a network namespace');
  }
  if (rest.length > 0)
    throw new UsageError(
      `${quoted(rest[0]!)}: unexpected argument; write one process id or path, after the options`,
    );
  if (!/^[0-9]+$/.test(word)) return { path: word };
  const pid = Number(word);
  if (pid === 0 || pid > 0x7fff_ffff) throw new UsageError(`${word}: not a process id`);
  return { path: `/proc/${pid}/ns/net`, pid };
}

function missing(target: AttachTarget): string {
  if (target.pid === undefined) return `${quoted(target.path)}: no such file, or this user may not see it`;
  return `${target.pid}: no such process, or not one of yours`;
}

/** Device and inode name a namespace. undefined: gone. Not being allowed to look is no sign that it is gone. */
function namespaceIdentity(path: string): string | undefined {
  try {
    const { dev, ino } = statSync(path);
    return `${dev}:${ino}`;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EACCES' ? 'EACCES' : undefined;
  }
}

/** For a process by whose name in /proc a namespace goes: readable once it has ended. undefined: to be had for none. */
function processEnd({ path, pid }: AttachTarget): number | undefined {
  const id = pid ?? Number(/^\/proc\/([0-9]+)\/ns\/net$/.exec(path)?.[1]);
  try {
    // A /proc of another PID namespace means other processes.
    if (!Number.isSafeInteger(id) || Number(readlinkSync('/proc/self')) !== process.pid) return undefined;
  } catch {
    return undefined;
  }
  const fd = pidfdOpen(id); // close-on-exec
  return fd < 0 ? undefined : fd; // it has just ended, or Linux is older than 5.3
}

/**
 * Watches whether a namespace is still there: by inotify where its name is a file's, by a packet thread that waits for the end of the
 * process whose name it is, else by looking again and again whether the name still leads to it. That goes through the name's directory, as
 * the name itself leads nowhere behind the wall (wall.ts).
 */
export class NamespaceWatch {
  readonly #name: string;
  readonly #directory: number;
  readonly #onGone: () => void;
  #identity: string | undefined;
  #watcher: FSWatcher | undefined;
  #timer: NodeJS.Timeout | undefined;
  #ended = false;

  /** Calls `onGone` once, maybe at once. @param identity  of the namespace that is meant */
  constructor(
    target: AttachTarget,
    engine: Pick<EngineHandle, 'watchReadable'>,
    onGone: () => void,
    identity = namespaceIdentity(target.path),
  ) {
    this.#name = basename(target.path);
    this.#directory = openPath(dirname(target.path), O_PATH | O_DIRECTORY);
    this.#onGone = onGone;
    this.#identity = identity;
    if (target.pid !== undefined || target.path.startsWith('/proc/')) {
      const fd = processEnd(target);
      if (fd === undefined)
        this.#poll(); // procfs has no inotify
      else engine.watchReadable(fd, () => this.#end());
    } else {
      try {
        this.#watcher = watch(dirname(target.path), (_event, name) => {
          if (name === null || name === this.#name) this.#look();
        });
        this.#watcher.on('error', () => this.#poll());
      } catch {
        this.#poll();
      }
    }
    this.#look(); // it may have gone while we were starting
  }

  /**
   * The old root has been let go of, and with it a mount that the name may have led to: from now on it counts whether the name is
   * there.
   */
  rootChanged(): void {
    const now = this.#now();
    if (now !== undefined) this.#identity = now;
    this.#look();
  }

  /** It looks where the name leads to, behind the wall too. */
  get polls(): boolean {
    return this.#timer !== undefined;
  }

  stop(): void {
    this.#ended = true;
    this.#watcher?.close();
    clearInterval(this.#timer);
  }

  #now(): string | undefined {
    const now = heldIdentity(this.#directory, this.#name);
    if (typeof now === 'string') return now;
    return now === -Errno.EACCES ? 'EACCES' : undefined;
  }

  #look(): void {
    const now = this.#now();
    if (now !== this.#identity && now !== 'EACCES') this.#end();
  }

  #end(): void {
    if (this.#ended) return;
    this.stop();
    this.#onGone();
  }

  #poll(): void {
    this.#timer ??= setInterval(() => this.#look(), POLL_MS);
  }
}
