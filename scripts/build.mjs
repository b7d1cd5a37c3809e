// Build dist/: compile src/ to plain JavaScript, write the texts that the launcher prints without starting Node, fill the code cache.
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

const { generatedTexts } = await import(`${out}/main/cli-texts.js`);
const { version } = JSON.parse(readFileSync(`${root}package.json`, 'utf8'));
const { generatedPastaTexts } = await import(`${out}/main/pasta/texts.js`);
const { generatedSlirpTexts } = await import(`${out}/main/slirp4netns/texts.js`);
mkdirSync(`${out}/texts`);
for (const [name, text] of generatedSlirpTexts(version)) writeFileSync(`${out}/texts/${name}`, text);
for (const [name, text] of generatedPastaTexts(version)) writeFileSync(`${out}/texts/${name}`, text);
for (const [name, text] of generatedTexts(version)) writeFileSync(`${out}/texts/${name}`, text);

// One file for each thread's entry, one for all that a front end needs to start, and small ones for the rest: to find, read and link
// sixty modules in each thread was a good part of a start (docs/decisions/018). Entries keep their place below main/; the pieces
// of each lie in main/ itself, where they find one another and the threads' entries, under names that no other entry gives.
const bundled = `${out}/bundled`;
const entries = {
  bucatini: 'main/bucatini.js',
  'netns-worker': 'main/netns-worker.js',
  'doctor-probe': 'main/doctor-probe.js',
  'packet-thread': 'workers/packet-thread.js',
  'pasta/main': 'main/pasta/main.js',
  'pasta/netns-worker': 'main/pasta/netns-worker.js',
  'slirp4netns/main': 'main/slirp4netns/main.js',
  'slirp4netns/netns-worker': 'main/slirp4netns/netns-worker.js',
  peer: 'main/selftest/peer.js',
  client: 'main/selftest/client.js',
};
/** What starts the packet thread. */
const BOOT =
  /\/(main\/(callers-environment|entry|launcher-env|output|working-directory)|workers\/packet-worker)\.js$/;
/** Front ends: what is loaded before anything else, and what most starts do without. */
const frontEnds = {
  bucatini: {
    first:
      /\/(main\/(bucatini|commands|log|callers-environment|entry|launcher-env|output|working-directory)|workers\/packet-worker)\.js$/,
    rare: /\/main\/(api|api-socket|api-server|request-json|doctor|switch-over|bug-report|pasta\/.*|kernel-features|cli-texts|counter-texts|stats|reenter|selftest\/.*)\.js$/,
  },
  'pasta/main': {
    first:
      /\/(main\/(pasta\/main|callers-environment|entry|launcher-env|output|working-directory)|workers\/packet-worker)\.js$/,
    rare: /\/main\/(pasta\/(texts|control-socket)|api|api-socket|api-server|request-json|cli-texts|counter-texts|stats)\.js$/,
  },
  'slirp4netns/main': {
    first:
      /\/(main\/(slirp4netns\/main|callers-environment|entry|launcher-env|output|working-directory)|workers\/packet-worker)\.js$/,
    rare: /\/main\/(slirp4netns\/texts|api|api-socket|api-server|request-json|option-texts|cli-texts|counter-texts|stats)\.js$/,
  },
};
for (const [name, file] of Object.entries(entries)) {
  const bundle = await rolldown({
    input: { [name]: `${out}/${file}` },
    external: (id) => !/^[./]/.test(id),
    platform: 'node',
    preserveEntrySignatures: name === 'packet-thread' ? 'strict' : false,
    checks: { ineffectiveDynamicImport: false },
  });
  const frontEnd = frontEnds[name];
  await bundle.write({
    dir: bundled,
    format: 'esm',
    chunkFileNames: name === 'bucatini' ? '[name].js' : `${name.replace('/', '-')}-[name].js`,
    entryFileNames: '[name].js',
    comments: false,
    ...(frontEnd && {
      codeSplitting: {
        includeDependenciesRecursively: false,
        groups: [
          // Finds the packet thread's file beside itself: never part of an entry further down.
          ...(name.includes('/') ? [{ name: 'boot', test: BOOT }] : []),
          { name: 'start', test: (id) => !frontEnd.rare.test(id) && !frontEnd.first.test(id) },
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

// Compiled code for every later start, also where dist/ cannot be written (docs/decisions/017). Node keeps it by the file's final
// path and by user id, which is 0 in the user namespace that the launcher makes, and readable by its owner alone.
const cache = `${root}dist/cache`;
const modules = ['netns-worker', 'packet-thread', 'pasta/netns-worker', 'slirp4netns/netns-worker'].map(
  (name) => `${name}.js`,
);
const imports = modules
  .map((file) => `await import(${JSON.stringify(`${root}dist/main/${file}`)});`)
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
