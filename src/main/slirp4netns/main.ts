// bundle: front-end slirp4netns/main
/**
 * Entry of the `slirp4netns` front end, started by bin/slirp4netns in the user namespace that the options ask
 * for. Ends with 0 when it was told to, with 1 and one reason on standard error for every error.
 */
import { existsSync } from 'node:fs';
import { bootPacketThread } from '../../workers/packet-worker.ts';
import { enterProgram, exitAfter, ownVersion } from '../process/entry.ts';
import { launcherVariable } from '../process/launcher-env.ts';
import { ownStreams } from '../process/output.ts';

async function main(argv: readonly string[]): Promise<number> {
  const program = launcherVariable('SLIRP4NETNS_PROGRAM') ?? 'slirp4netns';
  const { parseSlirp } = await import('./options.ts');
  const parsed = parseSlirp(argv, program, { exists: existsSync, interfaceAddress });
  const { say, serveSlirp, writeAll } = await saying;
  if (parsed.kind !== 'go' && parsed.kind !== 'wrong') {
    const { usageText, versionText } = await import('./texts.ts');
    writeAll(1, parsed.kind === 'help' ? usageText(program) : versionText(ownVersion()));
    return 0;
  }
  for (const warning of parsed.warnings) writeAll(1, `${warning}\n`);
  if (parsed.kind === 'wrong') {
    if (parsed.error !== '') say(parsed.error);
    if (parsed.usage) writeAll(1, (await import('./texts.ts')).usageText(program));
    return 1;
  }
  const ignored = (await import('../process/signals.ts')).ignoredSignals();
  for (const name of ignored) process.on(name, () => {}); // as whoever started us wanted it
  return serveSlirp(parsed.conf, booted ?? bootPacketThread(PACKET_THREAD), ownVersion);
}

/** Asked in the namespace that we were started in. Loaded only for --outbound-addr. */
function interfaceAddress(name: string, family: 4 | 6): string | undefined {
  const { networkInterfaces } = process.getBuiltinModule('node:os');
  const list = networkInterfaces()[name] ?? [];
  return list.find((address) => address.family === `IPv${family}`)?.address;
}

enterProgram('slirp4netns');
ownStreams();
const PACKET_THREAD = 'packet thread 0';
/**
 * Takes longest, so it is started first (decision 016), unless the launcher has found that the command line
 * asks for something else or is wrong. A value that is wrong is found here, with the thread still booting.
 */
const booted = launcherVariable('SLIRP4NETNS_SERVES') === '1' ? bootPacketThread(PACKET_THREAD) : undefined;
const saying = import('./serve.ts');
void exitAfter(main(process.argv.slice(2)), async (error) => {
  (await saying).say(error.message);
  return 1;
});
