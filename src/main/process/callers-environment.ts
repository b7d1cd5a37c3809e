// bundle: boot
/**
 * The environment as our caller gave it, for COMMAND. The launchers (bin/launch.sh) move it into
 * BUCATINI_KEPT, one entry a line, and leave our runtime only what it needs. Loaded before all other modules.
 */
import { textsOfBytes } from '../../sys/byte-text.ts';
import { LAUNCHER_VARIABLES } from './launcher-env.ts';
import { ownEnvironment } from './own-texts.ts';

/** Variables that the launchers set for our runtime. */
const FOR_RUNTIME = [
  'NODE_OPTIONS',
  'BUN_ENABLE_CRASH_REPORTING',
  'BUN_GC_TIMER_DISABLE',
  'BUN_JSC_useWarmUpMarkedBlocks',
  'BUN_JSC_thresholdForFTLOptimizeAfterWarmUp',
  'MIMALLOC_SCAVENGER',
];
/** Entries that did not fit into one variable are in BUCATINI_KEPT_1 and so on. */
const KEPT = /^BUCATINI_KEPT(_[0-9]+)?$/;
/** BUCATINI_KEPT where the others have the environment as in memory, each byte as two hexadecimal digits. */
const IN_HEX = 'hex';

/**
 * @param from  the environment of this process
 * @returns the caller's environment, without any variable of ours
 */
export function callersEnvironment(from: NodeJS.ProcessEnv = ownEnvironment()): NodeJS.ProcessEnv {
  const env = { ...from };
  const kept = Object.keys(env).filter((name) => KEPT.test(name));
  if (kept.length > 0) for (const name of FOR_RUNTIME) delete env[name];
  const entries =
    env.BUCATINI_KEPT === IN_HEX
      ? textsOfBytes(Buffer.from(hexDigits(env), 'hex'))
      : kept.flatMap((name) => env[name]!.split('\n').map((entry) => entry.replaceAll('\x01', '\n')));
  for (const entry of entries) {
    const nameEnd = entry.indexOf('=');
    if (nameEnd > 0) env[entry.slice(0, nameEnd)] = entry.slice(nameEnd + 1);
  }
  for (const name of Object.keys(env)) if (KEPT.test(name)) delete env[name];
  for (const name of Object.keys(LAUNCHER_VARIABLES)) delete env[name];
  return env;
}

/** The digits of BUCATINI_KEPT_1, BUCATINI_KEPT_2 and so on. */
function hexDigits(env: NodeJS.ProcessEnv): string {
  let digits = '';
  for (let i = 1, piece: string | undefined; (piece = env[`BUCATINI_KEPT_${i}`]) !== undefined; i++)
    digits += piece;
  return digits;
}

/** Empty an environment that is not needed any more: its values would be kept by whoever refers to it. */
export function forgetEnvironment(env: NodeJS.ProcessEnv): void {
  for (const name of Object.keys(env)) delete env[name];
}

/** Entries that a shell drops, because their names are not valid shell variables. As NAME=VALUE. */
export const entriesShellsDrop = (env: NodeJS.ProcessEnv): readonly string[] =>
  Object.entries(env)
    .filter(([name, value]) => value !== undefined && !/^[A-Za-z_][A-Za-z0-9_]*$/.test(name))
    .map(([name, value]) => `${name}=${value}`);
