// Build dist/: compile src/ to JavaScript, bundle it for Node, bundle the harness of perf/ for `bucatini
// bench`, write the texts that the launchers print without starting a runtime, build the library
// (build-library.ts) and the executable with Bun (build-bun.ts), and fill Node's code cache.
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
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
import { PROGRAMS } from '../perf/harness/programs.ts';
import { buildBun } from './build-bun.ts';
import { buildLibrary } from './build-library.ts';
import { bundleEntries, bundleRoles } from './bundle-roles.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
// The build goes to another directory, which replaces dist/ at the end: a failed build keeps the last good
// one.
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

// Bundle: one file for each thread's entry, one with all that a front end needs to start, and small files for
// the rest. To find, read and link sixty modules in each thread took a large part of the start
// (docs/decisions/018). Entries keep their path below main/. The chunks of all entries lie in main/ itself,
// so that relative imports between them and of the threads' entries work; their names begin with the entry's
// name, so they cannot collide. The first line of a module states its role (bundle-roles.ts).
const bundled = `${out}/bundled`;
const entries = bundleEntries(roles);
/** Name of a module of the compiled tree, as `roles` has it: path without extension. */
const moduleOf = (id: string): string => id.slice(out.length + 1).replace(/\.js$/, '');
const folderOf = (module: string): string => module.slice(0, module.lastIndexOf('/') + 1);
const frontEnds = entries.filter(({ kind }) => kind === 'front-end');
const isBoot = (id: string): boolean => roles.get(moduleOf(id))?.kind === 'boot';

/**
 * Whether most starts of front end `own` do not need a module: its role is rare, or it belongs to another
 * front end.
 */
function isRare(own: string, module: string): boolean {
  if (['rare', 'texts'].includes(roles.get(module)?.kind ?? '')) return true;
  // The folder of one front end may lie in that of another; the innermost folder decides.
  const inside = frontEnds.map((one) => folderOf(one.module)).filter((folder) => module.startsWith(folder));
  const innermost = inside.sort((a, b) => b.length - a.length)[0];
  return innermost !== undefined && innermost !== folderOf(own) && !folderOf(own).startsWith(innermost);
}

/** package.json leads `#runtime/x` to the source tree; here the compiled tree is bundled, for Node. */
const runtimeAlias = Object.fromEntries(
  readdirSync(`${out}/runtime/node`).map((file) => {
    const name = file.replace(/\.js$/, '');
    return [`#runtime/${name}`, `${out}/runtime/node/${file}`];
  }),
);

const written = new Set<string>();
for (const { module: entry, kind, name } of entries) {
  const bundle = await rolldown({
    input: { [name]: `${out}/${entry}.js` },
    // Of prom-client only the registry is used: bundled, it needs no installed package.
    external: (id) => !/^[./#]|^prom-client\//.test(id),
    resolve: { alias: runtimeAlias },
    platform: 'node',
    // A thread that is started early gets its task through its default export; exports of other entries are
    // not used.
    preserveEntrySignatures: /^export default/m.test(readFileSync(`${root}src/${entry}.ts`, 'utf8'))
      ? 'strict'
      : false,
    checks: { ineffectiveDynamicImport: false },
  });
  const isStart = (id: string): boolean =>
    moduleOf(id) !== entry && !isBoot(id) && !isRare(entry, moduleOf(id)) && !id.includes('/node_modules/');
  const { output } = await bundle.write({
    dir: bundled,
    format: 'esm',
    chunkFileNames: name === 'bucatini' ? '[name].js' : `${name.replace('/', '-')}-[name].js`,
    entryFileNames: '[name].js',
    comments: false,
    ...(kind === 'front-end' && {
      codeSplitting: {
        includeDependenciesRecursively: false,
        groups: [
          // The boot chunk looks for the packet thread's file in its own directory, so it is never part of an
          // entry in a subdirectory.
          ...(name.includes('/') ? [{ name: 'boot', test: isBoot }] : []),
          { name: 'start', test: isStart },
        ],
      },
    }),
  });
  await bundle.close();
  for (const { fileName } of output) {
    if (written.has(fileName)) throw new Error(`two bundles write ${fileName}: rename a module or an entry`);
    written.add(fileName);
  }
}
await buildLibrary(root, out, `${out}/bundled-library`);
for (const made of readdirSync(out))
  if (!['bundled', 'bundled-library', 'texts'].includes(made)) rmSync(`${out}/${made}`, { recursive: true });
renameSync(bundled, `${out}/main`);
renameSync(`${out}/bundled-library`, `${out}/library`);

// The harness of perf/ for `bucatini bench`: a program of its own, on Node, with a file for each of its processes.
const bench = await rolldown({
  input: Object.fromEntries(
    Object.entries(PROGRAMS).map(([name, source]) => [name, `${root}perf/${source}.ts`]),
  ),
  external: (id) => !/^[./#]/.test(id),
  resolve: {
    alias: Object.fromEntries(
      Object.keys(runtimeAlias).map((name) => [name, `${root}src/runtime/node/${name.slice(9)}.ts`]),
    ),
  },
  platform: 'node',
  checks: { ineffectiveDynamicImport: false },
});
await bench.write({
  dir: `${out}/bench`,
  format: 'esm',
  entryFileNames: '[name].js',
  chunkFileNames: 'shared-[name].js',
  comments: false,
});
await bench.close();

// The bundles contain code of these packages, which are not installed with ours.
mkdirSync(`${out}/licenses`);
for (const name of ['prom-client'])
  copyFileSync(`${root}node_modules/${name}/LICENSE`, `${out}/licenses/${name}.txt`);

const noBun = buildBun(root, `${out}/bun`, entries);
if (noBun !== undefined) console.error(`No executable with Bun: ${noBun}.`);

rmSync(`${root}dist`, { recursive: true, force: true });
renameSync(out, `${root}dist`);

// Fill the compile cache for all later starts, also for users that cannot write to dist/
// (docs/decisions/017). Node's cache entries depend on the file's final path and on the user id, which is 0
// in the user namespace that the launcher creates, and only their owner can read them: they are renamed to
// user id 0 and made readable for all below.
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
