// bundle: boot
/**
 * The environment as our caller gave it, for COMMAND. The launchers (bin/launch.sh) put three kinds of
 * entries into BUCATINI_KEPT, one a line: those that a shell would drop, those that the launchers themselves
 * change, and those that would change how our Node behaves. Loaded before all other modules.
 */
import { LAUNCHER_VARIABLES, launcherVariable } from './launcher-env.ts';

/**
 * @param from  the environment of this process
 * @returns the caller's environment, without any variable of ours
 */
export function callersEnvironment(from: NodeJS.ProcessEnv = process.env): NodeJS.ProcessEnv {
  const env = { ...from };
  for (const entry of (launcherVariable('BUCATINI_KEPT', from) ?? '').split('\n')) {
    const nameEnd = entry.indexOf('=');
    if (nameEnd > 0) env[entry.slice(0, nameEnd)] = entry.slice(nameEnd + 1).replaceAll('\x01', '\n');
  }
  for (const name of Object.keys(LAUNCHER_VARIABLES)) delete env[name];
  return env;
}

/** Entries that a shell drops, because their names are not valid shell variables. As NAME=VALUE. */
export const entriesShellsDrop = (env: NodeJS.ProcessEnv): readonly string[] =>
  Object.entries(env)
    .filter(([name, value]) => value !== undefined && !/^[A-Za-z_][A-Za-z0-9_]*$/.test(name))
    .map(([name, value]) => `${name}=${value}`);
