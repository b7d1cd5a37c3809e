// bundle: front-end slirp4netns/main
/**
 * Entry of the `slirp4netns` front end. bin/slirp4netns starts it in the user namespace that the options
 * name. The exit status is 0 after --exit-fd or the end of the namespace, 1 after an error, with its reason
 * on standard error.
 */
import { existsSync } from 'node:fs';
import { bootPacketThread } from '../../workers/packet-worker.ts';
import { enterProgram, exitAfter, ownVersion } from '../process/entry.ts';
import { launcherVariable } from '../process/launcher-env.ts';
import { ownStreams } from '../process/output.ts';
import { ownArguments } from '../process/own-texts.ts';

/** @returns the exit status. @throws Error with the message for the user */
async function main(argv: readonly string[]): Promise<number> {
  const program = launcherVariable('SLIRP4NETNS_PROGRAM') ?? 'slirp4netns';
  const { mayNeedLogFormat, parseSlirp } = await import('./options.ts');
  const parsed = parseSlirp(argv, program, { exists: existsSync, interfaceAddress });
  const { say, serveSlirp, useLogWriter, writeAll } = await serveModule;
  const logFormat = parsed.kind === 'go' ? parsed.conf.logFormat : undefined;
  if (parsed.kind === 'go' && mayNeedLogFormat(logFormat)) {
    const { logWriter } = await import('../host/log-format.ts');
    useLogWriter(logWriter(logFormat, { program: 'slirp4netns', version: ownVersion() })?.log);
  }
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
  for (const name of ignored) process.on(name, () => {}); // signals that the caller ignores stay ignored
  return serveSlirp(parsed.conf, booted ?? bootPacketThread(PACKET_THREAD), ownVersion);
}

/**
 * First address of an interface in the caller's network namespace. node:os is loaded only for
 * --outbound-addr.
 * @returns undefined where there is none of this family
 */
function interfaceAddress(name: string, family: 4 | 6): string | undefined {
  const { networkInterfaces } = process.getBuiltinModule('node:os');
  const list = networkInterfaces()[name] ?? [];
  return list.find((address) => address.family === `IPv${family}`)?.address;
}

enterProgram('slirp4netns', false);
ownStreams();
const PACKET_THREAD = 'packet thread 0';
/**
 * The packet thread takes longest to start, so it is started first (decision 016), unless the launcher has
 * found that the command line is wrong or asks for help or the version. A wrong value is found only here,
 * while the thread boots.
 */
const booted = launcherVariable('SLIRP4NETNS_SERVES') === '1' ? bootPacketThread(PACKET_THREAD) : undefined;
const serveModule = import('./serve.ts');
void exitAfter(main(ownArguments()), async (error) => {
  (await serveModule).say(error.message, 'error');
  return 1;
});
