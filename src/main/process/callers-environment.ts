// bundle: boot
/**
 * The environment as our caller gave it, for COMMAND. The launchers set aside what a shell would drop or they
 * would change, and what would bend our Node (bin/launch.sh): BUCATINI_KEPT, an entry a line. Loaded before
 * all else.
 */
import { LAUNCHER_VARIABLES, launcherVariable } from './launcher-env.ts';

export function callersEnvironment(from: NodeJS.ProcessEnv = process.env): NodeJS.ProcessEnv {
  const env = { ...from };
  for (const entry of (launcherVariable('BUCATINI_KEPT', from) ?? '').split('\n')) {
    const nameEnd = entry.indexOf('=');
    if (nameEnd > 0) env[entry.slice(0, nameEnd)] = entry.slice(nameEnd + 1).replaceAll('\x01', '\n');
  }
  for (const name of Object.keys(LAUNCHER_VARIABLES)) delete env[name];
  return env;
}

/** Entries that a shell drops: their names are none to it. */
export const beyondShells = (env: NodeJS.ProcessEnv): readonly string[] =>
  Object.entries(env)
    .filter(([name, value]) => value !== undefined && !/^[A-Za-z_][A-Za-z0-9_]*$/.test(name))
    .map(([name, value]) => `${name}=${value}`);
