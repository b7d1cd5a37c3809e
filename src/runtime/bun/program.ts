// bundle: boot
/**
 * Where the parts of this program are, on Bun. The build makes one executable, dist/bun/bucatini, which
 * contains Bun, all our programs and their bytecode. Programs of threads are files /$bunfs/root/NAME.js in
 * it; its first argument is the name of another program (scripts/build-bun.ts). When run from source,
 * programs are files below src/.
 */
interface Bun {
  readonly version: string;
  readonly main: string;
  fileURLToPath(url: URL): string;
  pathToFileURL(path: string): URL;
  readonly unsafe: { setJITPolicy(scale: number): void };
  gc(wait: boolean): number;
}
const { Bun } = globalThis as unknown as { readonly Bun: Bun };

const EMBEDDED = '/$bunfs/root/';
const compiled = Bun.main.startsWith(EMBEDDED);

/** The runtime in words: "Bun 1.4.5". */
export const runtimeText = (): string => `Bun ${Bun.version}`;

/**
 * URL of the program of one of our threads.
 * @param name  as in the program's `// bundle:` line
 * @param path  of its source, relative to src/, without extension
 */
export const programUrl = (name: string, path: string): URL =>
  compiled ? new URL(`file://${EMBEDDED}${name}.js`) : new URL(`../../${path}.ts`, import.meta.url);

/** The command line, without arguments of its own, that runs one of our programs in another process. */
export const programCommand = (name: string, path: string): readonly string[] => [
  process.execPath,
  compiled ? name : Bun.fileURLToPath(programUrl(name, path)),
];

/** What followed the executable on the command line, up to the program's own arguments. */
let ownName: readonly string[] = process.argv.slice(1, 2);

/**
 * To be called once, by the executable's entry. Removes the name from process.argv, which then has the
 * program's own arguments from index 2 on, as for a program in a file.
 * @returns the name of the program that the command line chose; empty: none
 */
export function chooseProgram(): string {
  const [name = ''] = process.argv.splice(2, 1);
  ownName = [name];
  return name;
}

/** The command line, without arguments of its own, that starts this front end again. */
export const ownCommand = (): readonly string[] => [process.execPath, ...ownName];

/** The directory that contains package.json and bin/. */
export const packageRoot: URL = compiled
  ? new URL('../../', Bun.pathToFileURL(process.execPath))
  : new URL('../../../', import.meta.url);

/** A directory in which all files that the program loads lie, its dependencies' aside. */
export const codeDirectory: string = Bun.fileURLToPath(
  compiled ? new URL('.', Bun.pathToFileURL(process.execPath)) : new URL('../..', import.meta.url),
);

/** Does nothing: the bytecode is in the executable. */
export const useCodeCache = (): void => {};
/** Does nothing, likewise. */
export const writeCodeCache = (): void => {};

/**
 * The start is over: compile what runs often as soon as Bun usually does. Until now it compiled 100 times
 * later (--compile-jit-policy in scripts/build-bun.ts): a start runs little code often, and compiling took a
 * tenth of its processor time.
 */
export const startFinished = (): void => Bun.unsafe.setJITPolicy(1);

/**
 * Collect the garbage of this thread. Bun's own timer for this is off (bin/launch.sh), so rare work that makes
 * garbage, but too little for a collection, would let the process grow by it each time.
 */
export const collectGarbage = (): void => void Bun.gc(true);
