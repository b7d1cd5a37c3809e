// bundle: boot
/**
 * The environment as our caller gave it, for COMMAND. The launchers set aside what a shell would drop or they would change, and what
 * would bend our Node (bin/launch.sh): BUCATINI_KEPT, an entry a line. Imports nothing: loaded before all else.
 */
export const KEPT_VARIABLE = 'BUCATINI_KEPT';

/** Ours, of all front ends: not for COMMAND. */
const OWN = [
  ...[KEPT_VARIABLE, 'BUCATINI_IGNORED', 'BUCATINI_REENTERED', 'BUCATINI_OWN_MOUNTS', 'BUCATINI_INHERITED'],
  ...['BUCATINI_OPEN_FILES', 'BUCATINI_TEST_IMPAIR'],
  ...['PASTA_PROGRAM', 'PASTA_STARTED_AS_ROOT', 'PASTA_RUNAS', 'PASTA_STATUS_FD'],
];

export function callersEnvironment(from: NodeJS.ProcessEnv = process.env): NodeJS.ProcessEnv {
  const env = { ...from };
  for (const entry of (env[KEPT_VARIABLE] ?? '').split('\n')) {
    const nameEnd = entry.indexOf('=');
    if (nameEnd > 0) env[entry.slice(0, nameEnd)] = entry.slice(nameEnd + 1).replaceAll('\x01', '\n');
  }
  for (const name of OWN) delete env[name];
  return env;
}

/** Entries that a shell drops: their names are none to it. */
export const beyondShells = (env: NodeJS.ProcessEnv): readonly string[] =>
  Object.entries(env)
    .filter(([name, value]) => value !== undefined && !/^[A-Za-z_][A-Za-z0-9_]*$/.test(name))
    .map(([name, value]) => `${name}=${value}`);
