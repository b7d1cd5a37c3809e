/**
 * Build dist/bun/bucatini: one executable with Bun, all our programs and their bytecode. Its first argument is
 * the program: `bucatini`, `pasta/main`, `peer` ... Threads are files in it (src/runtime/bun/program.ts).
 *
 * Without a Bun package for this machine nothing is made, and the launchers run Node.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { bunExecutable } from './bun.ts';
import { bundleRoles } from './bundle-roles.ts';

/**
 * Build the executable.
 * @param root  directory of package.json, with a final slash
 * @param out   directory to put it in
 * @returns false: there is no Bun for this machine
 * @throws Error with what Bun printed
 */
export function buildBun(root: string, out: string): boolean {
  const bun = bunExecutable(root);
  if (bun === undefined) return false;
  const entries = [...bundleRoles(`${root}src`)].flatMap(([module, role]) =>
    'name' in role ? [{ module, ...role }] : [],
  );
  // Entries of threads keep their names in the executable: NAME.ts in this directory becomes NAME.js.
  const work = `${out}/entries`;
  rmSync(out, { recursive: true, force: true });
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
  const main = `${work}/main.ts`;
  writeFileSync(
    main,
    `import { chooseProgram } from ${source('runtime/bun/program')};
const name = chooseProgram();
switch (name) {
${choices}  default: throw new Error(name + ': no such program in this executable');
}
`,
  );
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
      ...['--no-compile-autoload-dotenv', '--no-compile-autoload-bunfig', '--external=piscina'],
      ...[`--root=${work}`, `--outfile=${out}/bucatini`, main, ...threads],
    ],
    { cwd: root, encoding: 'utf8', env: { PATH: process.env.PATH, HOME: work, BUN_INSTALL: work } },
  );
  if (built.status !== 0) throw new Error(`bun build: ${built.stderr || built.stdout || built.error}`);
  rmSync(work, { recursive: true });
  return true;
}
