/**
 * `bucatini attach`: serve a namespace that someone else made, until it is gone.
 *
 * Gone means: the process that was named has ended (its /proc entry leads elsewhere or nowhere), or the file that was named
 * has been unlinked. Other processes may still be inside; our own descriptors keep the namespace from ending by itself.
 */
import { type FSWatcher, statSync, watch } from 'node:fs';
import { basename, dirname } from 'node:path';
import type { BootedThread } from '../workers/packet-worker.ts';
import { chooseNetns, endWithin, launchEngine, loadEngine, socketSource } from './engine-launch.ts';
import { makeLog } from './log.ts';
import type { NetnsError } from './netns.ts';
import type { Settings } from './options.ts';
import { followResolvConf } from './resolvers.ts';
import { Stopwatch } from './stopwatch.ts';
import { quoted, UsageError } from './values.ts';

/** How soon the end of a process is noticed. */
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
): Promise<number> {
  const target = parseTarget(operands);
  const identity = namespaceIdentity(target.path);
  if (identity === undefined) throw new UsageError(missing(target));
  const log = makeLog(settings.logLevel);
  const steps = new Stopwatch();

  const end = Promise.withResolvers<string>();
  for (const name of ['SIGTERM', 'SIGINT'] as const) process.on(name, () => end.resolve(name));

  const sockets = await socketSource(settings);
  const netns = chooseNetns(settings);
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
  steps.lap('interface configured');
  const engine = await starting;
  steps.lap('engine started');
  const unfollow =
    settings.dns === undefined ? followResolvConf((list) => engine.setResolvers(list)) : () => {};
  const unwatch = watchNamespace(target, () => end.resolve('the namespace is gone'), identity);
  log('debug', `start: ${steps.text()}`);
  log('info', `ready: ${made.network.interfaceName}: ${made.network.summary}`);

  const outcome = await Promise.race([end.promise, engine.failed]);
  if (outcome instanceof Error) {
    await endWithin(engine);
    throw new Error(`the engine failed: ${outcome.message}`);
  }
  log('info', `${outcome}, ending`);
  unwatch();
  unfollow();
  if (settings.stats) (await import('./stats.ts')).printStats(engine);
  await endWithin(engine);
  return 0;
}

export function parseTarget(operands: readonly string[]): AttachTarget {
  const [word, ...rest] = operands;
  if (word === undefined || word === '') {
    throw new UsageError('no namespace given; write a process id or the path of a network namespace');
  }
  if (rest.length > 0)
    throw new UsageError(`${quoted(rest[0]!)}: one too many; write one process id or path, options first`);
  if (!/^[0-9]+$/.test(word)) return { path: word };
  const pid = Number(word);
  if (pid === 0 || pid > 0x7fff_ffff) throw new UsageError(`${word}: not a process id`);
  return { path: `/proc/${pid}/ns/net`, pid };
}

function missing(target: AttachTarget): string {
  if (target.pid === undefined) return `${quoted(target.path)}: no such file, or not to be seen by this user`;
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

/** Call `onGone` once. @param identity  of the namespace that is meant @returns a function that stops watching */
export function watchNamespace(
  target: AttachTarget,
  onGone: () => void,
  identity = namespaceIdentity(target.path),
): () => void {
  const look = (): void => {
    const now = namespaceIdentity(target.path);
    if (now === identity || now === 'EACCES') return;
    stop();
    onGone();
  };
  let watcher: FSWatcher | undefined;
  let timer: NodeJS.Timeout | undefined;
  const stop = (): void => {
    watcher?.close();
    clearInterval(timer);
  };
  const poll = (): void => {
    timer ??= setInterval(look, POLL_MS);
  };
  if (target.pid !== undefined || target.path.startsWith('/proc/')) {
    poll(); // procfs has no inotify
  } else {
    try {
      watcher = watch(dirname(target.path), (_event, name) => {
        if (name === null || name === basename(target.path)) look();
      });
      watcher.on('error', poll);
    } catch {
      poll();
    }
  }
  look(); // it may have gone while we were starting
  return stop;
}
