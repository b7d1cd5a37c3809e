/**
 * Files of the harness's programs: sources in a checkout (perf/), bundles in a package (dist/bench/, which
 * scripts/build.ts makes for `bucatini bench`).
 */
import { fileURLToPath } from 'node:url';

/** The programs that the harness starts, and their sources in perf/. */
export const PROGRAMS = {
  main: 'harness/main',
  'stream-client': 'harness/traffic/stream-client',
  'stream-server': 'harness/traffic/stream-server',
  'many-udp': 'harness/traffic/many-udp',
  'line-emulator': 'line-emulator',
} as const;

/** Whether this is a bundle, which lies with all others in one directory. */
export const isBuilt = import.meta.url.endsWith('.js');

export const programFile = (name: keyof typeof PROGRAMS): string =>
  fileURLToPath(new URL(isBuilt ? `${name}.js` : `../${PROGRAMS[name]}.ts`, import.meta.url));

/** Directory of package.json, with a slash at the end. */
export const packageDirectory = fileURLToPath(new URL('../../', import.meta.url));
