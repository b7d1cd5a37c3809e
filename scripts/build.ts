// Build dist/: compile src/ to plain JavaScript, write the texts that the launcher prints without starting
// Node, fill the code cache.
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { fileURLToPath } from 'node:url';
import { rolldown } from 'rolldown';
import { bundleRoles } from './bundle-roles.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
// Made aside and put in place at the end: a failed build leaves the last good one.
const out = `${root}dist.new`;
rmSync(out, { recursive: true, force: true });
const tsc = spawnSync(
  process.execPath,
  [`${root}node_modules/typescript/bin/tsc`, '-p', `${root}tsconfig.build.json`, '--outDir', out],
  { stdio: 'inherit' },
);
if (tsc.status !== 0) {
  rmSync(out, { recursive: true, force: true });
  process.exit(tsc.status ?? 1);
}

const { version } = JSON.parse(readFileSync(`${root}package.json`, 'utf8'));
mkdirSync(`${out}/texts`);
const roles = bundleRoles(`${root}src`);
for (const [module, { kind }] of roles) {
  if (kind !== 'texts') continue;
  const { generatedTexts } = await import(`${out}/${module}.js`);
  for (const [name, text] of generatedTexts?.(version) ?? []) writeFileSync(`${out}/texts/${name}`, text);
}

// One file for each thread's entry, one for all that a front end needs to start, and small ones for the rest:
// to find, read and link sixty modules in each thread was a good part of a start (docs/decisions/018).
// Entries keep their place below main/; the pieces of each lie in main/ itself, where they find one another
// and the threads' entries, under names that no other entry gives. Modules say in their first line what they
// are (bundle-roles.ts).
const bundled = `${out}/bundled`;
const entries = [...roles].flatMap(([module, role]) => ('name' in role ? [{ module, ...role }] : []));
/** A module of the compiled tree, as roles name it. */
const moduleOf = (id: string): string => id.slice(out.length + 1).replace(/\.js$/, '');
const folderOf = (module: string): string => module.slice(0, module.lastIndexOf('/') + 1);
const frontEnds = entries.filter(({ kind }) => kind === 'front-end');
const isBoot = (id: string): boolean => roles.get(moduleOf(id))?.kind === 'boot';

/**
 * Whether most starts of front end `own` do without a module: it says so, or is part of another front end.
 */
function isRare(own: string, module: string): boolean {
  if (['rare', 'texts'].includes(roles.get(module)?.kind ?? '')) return true;
  // The folder of one front end may lie in another's.
  const inside = frontEnds.map((one) => folderOf(one.module)).filter((folder) => module.startsWith(folder));
  const innermost = inside.sort((a, b) => b.length - a.length)[0];
  return innermost !== undefined && innermost !== folderOf(own) && !folderOf(own).startsWith(innermost);
}

for (const { module: entry, kind, name } of entries) {
  const bundle = await rolldown({
    input: { [name]: `${out}/${entry}.js` },
    external: (id) => !/^[./]/.test(id),
    platform: 'node',
    // A thread that is booted ahead gets its task by the default export; nobody asks the others for theirs.
    preserveEntrySignatures: /^export default/m.test(readFileSync(`${root}src/${entry}.ts`, 'utf8'))
      ? 'strict'
      : false,
    checks: { ineffectiveDynamicImport: false },
  });
  const isStart = (id: string): boolean =>
    moduleOf(id) !== entry && !isBoot(id) && !isRare(entry, moduleOf(id));
  await bundle.write({
    dir: bundled,
    format: 'esm',
    chunkFileNames: name === 'bucatini' ? '[name].js' : `${name.replace('/', '-')}-[name].js`,
    entryFileNames: '[name].js',
    comments: false,
    ...(kind === 'front-end' && {
      codeSplitting: {
        includeDependenciesRecursively: false,
        groups: [
          // Finds the packet thread's file beside itself: never part of an entry further down.
          ...(name.includes('/') ? [{ name: 'boot', test: isBoot }] : []),
          { name: 'start', test: isStart },
        ],
      },
    }),
  });
  await bundle.close();
}
for (const made of readdirSync(out))
  if (!['bundled', 'texts'].includes(made)) rmSync(`${out}/${made}`, { recursive: true });
renameSync(bundled, `${out}/main`);

rmSync(`${root}dist`, { recursive: true, force: true });
renameSync(out, `${root}dist`);

// Compiled code for every later start, also where dist/ cannot be written (docs/decisions/017). Node keeps it
// by the file's final path and by user id, which is 0 in the user namespace that the launcher makes, and
// readable by its owner alone.
const cache = `${root}dist/cache`;
const imports = entries
  .filter(({ kind }) => kind === 'thread')
  .map(({ name }) => `await import(${JSON.stringify(`${root}dist/main/${name}.js`)});`)
  .join('');
for (const args of [
  ['--input-type=module', '-e', imports],
  [`${root}dist/main/bucatini.js`, 'run', '--version'],
]) {
  const filled = spawnSync(process.execPath, args, {
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, NODE_OPTIONS: '', NODE_COMPILE_CACHE: cache },
  });
  if (filled.status !== 0) process.exit(filled.status ?? 1);
}
for (const dir of readdirSync(cache)) {
  const asRoot = dir.replace(/-\d+$/, '-0');
  if (asRoot !== dir && !existsSync(`${cache}/${asRoot}`))
    renameSync(`${cache}/${dir}`, `${cache}/${asRoot}`);
  chmodSync(`${cache}/${asRoot}`, 0o755);
  for (const file of readdirSync(`${cache}/${asRoot}`)) chmodSync(`${cache}/${asRoot}/${file}`, 0o644);
}
