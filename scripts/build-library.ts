/**
 * Build dist/library: what `import 'bucatini'` loads, in one file for Node and Bun, and its types. The types
 * are those of src/library/ alone: a public type that needs another folder fails the build.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { rolldown } from 'rolldown';

/** Internal, although the compiler writes its types: no public type needs them. */
const INTERNAL = ['engine.d.ts'];

/**
 * Build the library.
 * @param root      directory of package.json, with a final slash
 * @param compiled  directory of src/ compiled to JavaScript
 * @param out       directory to put it in
 * @throws Error with what the compiler printed
 */
export async function buildLibrary(root: string, compiled: string, out: string): Promise<void> {
  rmSync(out, { recursive: true, force: true });
  const bundle = await rolldown({
    input: { index: `${compiled}/library/index.js` },
    external: /^node:/,
    platform: 'node',
  });
  await bundle.write({ dir: out, format: 'esm', comments: false });
  await bundle.close();
  const work = `${out}/types`;
  mkdirSync(work);
  const tsc = spawnSync(
    process.execPath,
    [`${root}node_modules/typescript/bin/tsc`, '-p', `${root}tsconfig.library.json`, '--outDir', work],
    { encoding: 'utf8' },
  );
  if (tsc.status !== 0) throw new Error(`types of the library: ${tsc.stdout}${tsc.stderr}`);
  for (const name of readdirSync(`${work}/library`)) {
    if (INTERNAL.includes(name)) continue;
    const text = readFileSync(`${work}/library/${name}`, 'utf8');
    for (const [, from = ''] of text.matchAll(/from '(\.[^']*)\.ts'/g))
      if (!from.startsWith('./') || INTERNAL.includes(`${from.slice(2)}.d.ts`))
        throw new Error(`src/library/${name}: a public type is in ${from}.ts`);
    writeFileSync(
      `${out}/${name}`,
      `${name === 'index.d.ts' ? REFERENCES : ''}${text.replace(/'(\.\/[^']*)\.ts'/g, "'$1.js'")}`,
    );
  }
  rmSync(work, { recursive: true });
}

/** TypeScript from version 6 on includes no types of its own accord. */
const REFERENCES = '/// <reference types="node" />\n/// <reference lib="esnext.disposable" />\n';
