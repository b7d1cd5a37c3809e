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
mkdirSync(`${out}/texts`);
for (const [name, text] of generatedPastaTexts(version)) writeFileSync(`${out}/texts/${name}`, text);
for (const [name, text] of generatedTexts(version)) writeFileSync(`${out}/texts/${name}`, text);

rmSync(`${root}dist`, { recursive: true, force: true });
renameSync(out, `${root}dist`);

// Compiled code for every later start, also where dist/ cannot be written (docs/decisions/017). Node keeps it by the file's final
// path and by user id, which is 0 in the user namespace that the launcher makes, and readable by its owner alone.
const cache = `${root}dist/cache`;
const modules = ['run', 'attach', 'netns-worker', 'descriptors', 'options'].map((name) => `main/${name}.js`);
modules.push(...['serve', 'options', 'netns-worker'].map((name) => `main/pasta/${name}.js`));
modules.push('workers/engine.js', 'workers/packet-thread.js');
const imports = modules.map((file) => `await import(${JSON.stringify(`${root}dist/${file}`)});`).join('');
const entries = [
  [`${root}dist/main/bucatini.js`, 'run', '--version'],
  [`${root}dist/main/pasta/main.js`, '--version'],
];
for (const args of [['--input-type=module', '-e', imports], ...entries]) {
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
