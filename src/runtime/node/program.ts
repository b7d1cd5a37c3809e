// bundle: boot
/**
 * Where the parts of this program are, on Node: files below dist/main/ when compiled, below src/ when run
 * from source. The build puts a copy of this module into dist/main/ for each front end: paths are relative to
 * that directory. It imports nothing that takes time.
 */
import { enableCompileCache, flushCompileCache } from 'node:module';
import { fileURLToPath } from 'node:url';

const compiled = import.meta.url.endsWith('.js');

/** The runtime in words: "Node 26.10.0". */
export const runtimeText = (): string => `Node ${process.version.slice(1)}`;

/**
 * URL of the program of one of our threads or processes.
 * @param name  as in the program's `// bundle:` line
 * @param path  of its source, relative to src/, without extension
 */
export const programUrl = (name: string, path: string): URL =>
  new URL(compiled ? `./${name}.js` : `../../${path}.ts`, import.meta.url);

/** The command line, without arguments of its own, that runs such a program in another process. */
export const programCommand = (name: string, path: string): readonly string[] => [
  process.execPath,
  fileURLToPath(programUrl(name, path)),
];

/** The command line, without arguments of its own, that starts this front end again. */
export const ownCommand = (): readonly string[] => [
  process.execPath,
  ...process.execArgv,
  ...process.argv.slice(1, 2),
];

/** The directory that contains package.json and bin/. */
export const packageRoot = new URL(compiled ? '../../' : '../../../', import.meta.url);

/** A directory in which all files that the program loads lie, its dependencies' aside. */
export const codeDirectory: string = import.meta.dirname;

/**
 * Use Node's compile cache in dist/cache, which saves 20 of 150 ms at start. A user without write permission
 * only reads it.
 */
export function useCodeCache(): void {
  if (!compiled) return;
  const cache = fileURLToPath(new URL('../cache', import.meta.url));
  enableCompileCache(cache);
  process.env.NODE_COMPILE_CACHE = cache; // the workers' Node reads this
}

/** Write the cache of what has been loaded: for scripts/build.ts. */
export const writeCodeCache = (): void => flushCompileCache();

/** The start is over. Node needs nothing. */
export const startFinished = (): void => {};

/** Does nothing: V8 collects by itself. */
export const collectGarbage = (): void => {};
