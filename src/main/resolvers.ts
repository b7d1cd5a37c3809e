/** Follow the host's resolv.conf: it changes when the host changes networks, and the engine must ask the new resolvers. */
import { type FSWatcher, realpathSync, watch } from 'node:fs';
import { basename, dirname } from 'node:path';
import { RESOLV_CONF, readResolvConf } from './resolv-conf.ts';

/** Writers replace the file or write it in pieces: look when they are done. */
const SETTLE_MS = 100;

/** @returns a function that stops following */
export function followResolvConf(
  onChange: (nameservers: readonly string[]) => void,
  path = RESOLV_CONF,
): () => void {
  let last = readResolvConf(path)?.nameservers.join(' ');
  let timer: NodeJS.Timeout | undefined;
  const look = (): void => {
    timer = undefined;
    const now = readResolvConf(path)?.nameservers;
    if (now === undefined || now.join(' ') === last) return;
    last = now.join(' ');
    onChange(now);
  };
  const watchers = new Set<FSWatcher>();
  // The link and what it points to may change, each in its own directory.
  for (const file of new Set([path, resolved(path)])) {
    try {
      const watcher = watch(dirname(file), { persistent: false }, (_event, name) => {
        if (name === null || name === basename(file)) timer ??= setTimeout(look, SETTLE_MS).unref();
      });
      watcher.on('error', () => watcher.close());
      watchers.add(watcher);
    } catch {
      // No inotify instance left, or no such directory: the resolvers of the start stay in use.
    }
  }
  return () => {
    clearTimeout(timer);
    for (const watcher of watchers) watcher.close();
  };
}

function resolved(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}
