// bundle: front-end slirp4netns/main
/**
 * Entry of the `slirp4netns` front end, started by bin/slirp4netns in the user namespace that the options ask for. Ends with 0 when
 * it was told to, with 1 and one reason on standard error for every error.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { enableCompileCache } from 'node:module';
import { fileURLToPath } from 'node:url';
import { bootPacketThread } from '../../workers/packet-worker.ts';
import { ownStreams } from '../output.ts';
import { leaveRemovedDirectory } from '../working-directory.ts';

/** Compiled code is kept beside dist/main by whoever may write there. undefined when run from source. */
const codeCache = import.meta.url.endsWith('.js')
  ? fileURLToPath(new URL('../../cache', import.meta.url))
  : undefined;
if (codeCache !== undefined) {
  enableCompileCache(codeCache);
  process.env.NODE_COMPILE_CACHE = codeCache; // workers go by it
}

async function main(argv: readonly string[]): Promise<number> {
  const program = process.env.SLIRP4NETNS_PROGRAM ?? 'slirp4netns';
  const { parseSlirp } = await import('./options.ts');
  const parsed = parseSlirp(argv, program, { exists: existsSync, interfaceAddress });
  const { say, serveSlirp, writeAll } = await saying;
  if (parsed.kind !== 'go' && parsed.kind !== 'wrong') {
    const { usageText, versionText } = await import('./texts.ts');
    writeAll(1, parsed.kind === 'help' ? usageText(program) : versionText(version()));
    return 0;
  }
  for (const warning of parsed.warnings) writeAll(1, `${warning}\n`);
  if (parsed.kind === 'wrong') {
    if (parsed.error !== '') say(parsed.error);
    if (parsed.usage) writeAll(1, (await import('./texts.ts')).usageText(program));
    return 1;
  }
  const ignored = (await import('../signals.ts')).ignoredSignals();
  for (const name of ignored) process.on(name, () => {}); // as whoever started us wanted it
  return serveSlirp(parsed.conf, booted ?? bootPacketThread(PACKET_THREAD), version);
}

/** Asked in the namespace that we were started in. Loaded only for --outbound-addr. */
function interfaceAddress(name: string, family: 4 | 6): string | undefined {
  const { networkInterfaces } = process.getBuiltinModule('node:os');
  const list = networkInterfaces()[name] ?? [];
  return list.find((address) => address.family === `IPv${family}`)?.address;
}

const version = (): string =>
  JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')).version;

try {
  // The name of the main thread is the process's in ps and pgrep.
  writeFileSync('/proc/self/comm', 'slirp4netns');
} catch {
  // Without /proc there is no ps either.
}
leaveRemovedDirectory();
ownStreams();
const PACKET_THREAD = 'packet thread 0';
/**
 * Takes longest, so it is started first (decision 016), unless the launcher has found that the command line asks for something else
 * or is wrong. A value that is wrong is found here, with the thread still booting.
 */
const booted = process.env.SLIRP4NETNS_SERVES === '1' ? bootPacketThread(PACKET_THREAD) : undefined;
// Asked for now: nothing can be loaded behind the wall (../wall.ts).
const leaving = import('../../sys/process.ts');
const saying = import('./serve.ts');
const leave = async (status: number): Promise<never> => (await leaving).exitNow(status);
main(process.argv.slice(2)).then(leave, async (error: Error) => {
  (await saying).say(error.message);
  if (process.env.BUCATINI_STACK !== undefined) console.error(error);
  await leave(1);
});
