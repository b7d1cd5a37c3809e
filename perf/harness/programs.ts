/**
 * Files of the harness's programs: sources in a checkout (perf/), bundles in the package of npm (dist/bench/, which
 * scripts/build.ts makes for `bucatini bench`), parts of the executable in packages that have no Node.
 */
import { fileURLToPath, pathToFileURL } from 'node:url';

/** The programs that the harness starts, and their sources in perf/. */
export const PROGRAMS = {
  main: 'harness/main',
  'stream-client': 'harness/traffic/stream-client',
  'stream-server': 'harness/traffic/stream-server',
  'many-udp': 'harness/traffic/many-udp',
  contained: 'harness/traffic/contained',
  'line-emulator': 'line-emulator',
} as const;

/** Whether this is a bundle, which lies with all others in one directory. */
export const isBuilt = import.meta.url.endsWith('.js');
/** Whether it is in the executable with Bun, whose first argument is the name of a program (scripts/build-bun.ts). */
const isEmbedded = import.meta.url.startsWith('file:///$bunfs/');

/** The command line that starts a program, without its own arguments. */
export const programWords = (name: keyof typeof PROGRAMS): readonly [string, ...string[]] =>
  isEmbedded
    ? [process.execPath, `bench/${name}`]
    : [
        process.execPath,
        '--no-warnings',
        fileURLToPath(new URL(isBuilt ? `${name}.js` : `../${PROGRAMS[name]}.ts`, import.meta.url)),
      ];

/** Directory of package.json, with a slash at the end. */
export const packageDirectory = isEmbedded
  ? fileURLToPath(new URL('../../', pathToFileURL(process.execPath)))
  : fileURLToPath(new URL('../../', import.meta.url));
