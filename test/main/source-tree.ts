/**
 * An installation in a temporary directory that runs from source: the real launcher, texts generated from the
 * option table, and a one-line dist/main/bucatini.js. With it, tests of the front end need no build and use
 * the current source.
 */
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import { generatedTexts } from '../../src/main/bucatini/cli-texts.ts';

export const repoRoot = fileURLToPath(new URL('../../', import.meta.url)).replace(/\/$/, '');
export const VERSION = '9.8.7-test';

export interface SourceTree {
  readonly root: string;
  /** The launcher. */
  readonly program: string;
  remove(): void;
}

export function makeSourceTree(root = mkdtempSync(`${tmpdir()}/bucatini tree `)): SourceTree {
  for (const dir of ['bin', 'dist', 'dist/main', 'dist/texts'])
    mkdirSync(`${root}/${dir}`, { recursive: true });
  chmodSync(root, 0o755); // an ordinary user runs it as well
  for (const name of ['bucatini', 'launch.sh'])
    copyFileSync(`${repoRoot}/bin/${name}`, `${root}/bin/${name}`);
  chmodSync(`${root}/bin/bucatini`, 0o755);
  symlinkSync(`${repoRoot}/node_modules`, `${root}/node_modules`);
  writeFileSync(`${root}/package.json`, JSON.stringify({ type: 'module', version: VERSION }));
  writeFileSync(
    `${root}/dist/main/bucatini.js`,
    `await import(${JSON.stringify(`${repoRoot}/src/main/bucatini/main.ts`)});\n`,
  );
  for (const [name, text] of generatedTexts(VERSION)) writeFileSync(`${root}/dist/texts/${name}`, text);
  return {
    root,
    program: `${root}/bin/bucatini`,
    remove: () => rmSync(root, { recursive: true, force: true }),
  };
}
