// bundle: front-end pasta/main
/**
 * Entry of the `pasta` front end, started by bin/pasta in the user namespace that the options ask for. Loads nothing before it has
 * started the packet thread, which takes longest: program.ts has the rest.
 */
import { writeFileSync } from 'node:fs';
import { enableCompileCache } from 'node:module';
import { fileURLToPath } from 'node:url';
import { bootPacketThread } from '../../workers/packet-worker.ts';
import { callersEnvironment } from '../callers-environment.ts';
import { ownStreams } from '../output.ts';
import { leaveRemovedDirectory } from '../working-directory.ts';

/** Compiled code is kept beside dist/main by whoever may write there. undefined when run from source. */
const codeCache = import.meta.url.endsWith('.js')
  ? fileURLToPath(new URL('../../cache', import.meta.url))
  : undefined;
const env = callersEnvironment();
if (codeCache !== undefined) {
  enableCompileCache(codeCache);
  process.env.NODE_COMPILE_CACHE = codeCache; // workers go by it
}

try {
  // The name of the main thread is the process's in ps and pgrep.
  writeFileSync('/proc/self/comm', 'pasta');
} catch {
  // Without /proc there is no ps either.
}
leaveRemovedDirectory();
ownStreams();
const booted = bootPacketThread('packet thread 0');
// No top-level await: with one the bundler gives each module that is asked for later a file of its own, six or seven more in a start.
void import('./program.ts').then(({ pasta }) =>
  pasta({
    argv: process.argv.slice(2),
    env,
    booted,
    packageFile: new URL('../../../package.json', import.meta.url),
  }),
);
