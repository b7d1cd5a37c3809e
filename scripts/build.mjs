// Build dist/: compile src/ to plain JavaScript, then write the texts that the launcher prints without starting Node.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
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
mkdirSync(`${out}/texts`);
for (const [name, text] of generatedTexts(version)) writeFileSync(`${out}/texts/${name}`, text);

rmSync(`${root}dist`, { recursive: true, force: true });
renameSync(out, `${root}dist`);
