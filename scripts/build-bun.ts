/**
 * Build dist/bun/bucatini: one executable with Bun, all our programs and their bytecode. Its first argument
 * is the program: `bucatini`, `pasta/main`, `peer` ... Threads are files in it (src/runtime/bun/program.ts).
 *
 * dist/bun/loader has the path of the ELF interpreter that it needs, for bin/launch.sh.
 *
 * Where Bun does not run, dist/bun/why.txt says so instead.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { PROGRAMS } from '../perf/harness/programs.ts';
import { bunExecutable } from './bun.ts';
import type { BundleEntry } from './bundle-roles.ts';

/**
 * Build the executable.
 * @param root     directory of package.json, with a final slash
 * @param out      directory to put it in
 * @param entries  of bundleEntries()
 * @returns why there is none: Bun does not run on this machine
 * @throws Error with what Bun printed
 */
export function buildBun(root: string, out: string, entries: readonly BundleEntry[]): string | undefined {
  rmSync(out, { recursive: true, force: true });
  mkdirSync(out, { recursive: true });
  const bun = bunExecutable(root);
  const why =
    bun === undefined
      ? 'no Bun package for this machine is installed (@oven/bun-linux-*, by packaging/bun/package.json)'
      : cannotRun(bun);
  if (bun === undefined || why !== undefined) writeFileSync(`${out}/why.txt`, `${why}\n`);
  else compile(bun, root, out, entries);
  return why;
}

/** @returns why Bun's executable cannot run here; undefined: it can */
function cannotRun(bun: string): string | undefined {
  const tried = spawnSync(bun, ['--version'], { encoding: 'utf8', env: {} });
  if (tried.status === 0) return undefined;
  const why = tried.error?.message ?? tried.stderr.trim().split('\n')[0] ?? '';
  return `${bun} does not run: ${tried.signal ?? `status ${tried.status}`}${why && `, ${why}`}`;
}

/** Write the entries' sources and let Bun build the executable from them. */
function compile(bun: string, root: string, out: string, entries: readonly BundleEntry[]): void {
  // Entries of threads keep their names in the executable: NAME.ts in this directory becomes NAME.js.
  const work = `${out}/entries`;
  mkdirSync(work, { recursive: true });
  const source = (module: string): string => JSON.stringify(`${root}src/${module}.ts`);
  const threads: string[] = [];
  for (const { module, kind, name } of entries) {
    if (kind !== 'thread') continue;
    const file = `${work}/${name}.ts`;
    mkdirSync(file.slice(0, file.lastIndexOf('/')), { recursive: true });
    writeFileSync(file, `import ${source(module)};\n`);
    threads.push(file);
  }
  const choices = entries
    .filter(({ kind }) => kind !== 'thread')
    .map(({ module, name }) => `  case ${JSON.stringify(name)}: void import(${source(module)}); break;\n`)
    .join('');
  // They measure from their first line on, so they compile at once as usual.
  const benches = Object.entries(PROGRAMS)
    .map(
      ([name, file]) =>
        `  case ${JSON.stringify(`bench/${name}`)}: startFinished(); void import(${JSON.stringify(`${root}perf/${file}.ts`)}); break;\n`,
    )
    .join('');
  const main = `${work}/main.ts`;
  const made = `${out}/bucatini`;
  writeFileSync(
    main,
    `import { chooseProgram, startFinished } from ${source('runtime/bun/program')};
const name = chooseProgram();
switch (name) {
${choices}${benches}  default: throw new Error(name + ': no such program in this executable');
}
`,
  );
  // Decision 119 has the figures. --keep-names: stacks and errors have the names of functions and classes.
  // --compile-jit-policy: runtime/bun/program.ts, startFinished().
  const built = spawnSync(
    bun,
    [
      ...[
        'build',
        '--compile',
        '--bytecode',
        '--minify',
        '--keep-names',
        '--format=esm',
        '--target=bun',
        '--splitting',
        '--compile-jit-policy=100',
      ],
      // No file of the caller's directory may change how the executable runs.
      ...['--no-compile-autoload-dotenv', '--no-compile-autoload-bunfig'],
      ...['--no-compile-autoload-tsconfig', '--no-compile-autoload-package-json', '--external=piscina'],
      ...[`--root=${work}`, `--outfile=${made}`, main, ...threads],
    ],
    // Settings and caches of the user (below HOME) must not change the build.
    { cwd: root, encoding: 'utf8', env: { PATH: process.env.PATH, HOME: work, BUN_INSTALL: work } },
  );
  if (built.status !== 0) throw new Error(`bun build: ${built.stderr || built.stdout || built.error}`);
  // The launchers run what is there, without a trial.
  const tried = spawnSync(made, ['bucatini', 'doctor', '--version'], { encoding: 'utf8', env: {} });
  if (tried.status !== 0)
    throw new Error(`${made} does not run: ${tried.signal ?? tried.status} ${tried.stderr}`);
  writeFileSync(`${out}/loader`, `${loaderOf(readFileSync(made))}\n`);
  rmSync(work, { recursive: true });
}

/** Of an ELF file for 64-bit machines with little-endian numbers (elf(5)). */
const PROGRAM_HEADERS_AT = 32;
const HEADER_BYTES_AT = 54;
const HEADER_COUNT_AT = 56;
const PT_INTERP = 3;

/** @returns the path of the program that the kernel starts with an ELF executable; '': none */
export function loaderOf(elf: Buffer): string {
  const bytes = elf.readUInt16LE(HEADER_BYTES_AT);
  let at = Number(elf.readBigUInt64LE(PROGRAM_HEADERS_AT));
  for (let left = elf.readUInt16LE(HEADER_COUNT_AT); left > 0; left--, at += bytes) {
    if (elf.readUInt32LE(at) !== PT_INTERP) continue;
    const start = Number(elf.readBigUInt64LE(at + 8));
    return elf.toString('latin1', start, elf.indexOf(0, start));
  }
  return '';
}
