// @vitest: beside
/** Paths in CONTRIBUTING.md and the pages for developers exist. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';

const root = path.resolve(import.meta.dirname, '../..');
/** A name without a directory may be of any file. */
const names = new Set(
  ['src', 'test', 'bench', 'perf', 'scripts'].flatMap((directory) =>
    readdirSync(`${root}/${directory}`, { recursive: true, encoding: 'utf8' }).map((file) =>
      path.basename(file),
    ),
  ),
);
/** Where a path may begin: the table of CONTRIBUTING.md leaves `src/` and `test/` out. */
const ROOTS = ['', 'src/', 'src/main/', 'src/workers/', 'test/'];

/** Paths in backquotes, without placeholders (`<name>`, NNN, YYYY). */
const pathsIn = (text: string): readonly string[] =>
  [...text.matchAll(/`([\w./-]+\.(?:ts|sh|mjs|json|md)|(?:src|bin|docs|test|perf|scripts)\/[\w./-]*)`/g)]
    .map((match) => match[1]!)
    .filter((file) => !/NNN|YYYY/.test(file));

const DOCS = ['api', 'architecture', 'scaling', 'start', 'theory'].map((page) => `docs/${page}.md`);
it.each(['CONTRIBUTING.md', 'README.md', ...DOCS])('%s', (page) => {
  const missing = pathsIn(readFileSync(`${root}/${page}`, 'utf8')).filter(
    (file) => !names.has(file) && !ROOTS.some((at) => existsSync(`${root}/${at}${file}`)),
  );
  expect(missing).toEqual([]);
});

it('paths in a text: found', () => {
  expect(
    pathsIn('see `ring/layout.ts`, `main/<name>.ts`, `docs/decisions/`, `W.op`, `docs/decisions/NNN-x.md`'),
  ).toEqual(['ring/layout.ts', 'docs/decisions/']);
});

it('the tour of the tree names every folder of src', () => {
  const page = readFileSync(`${root}/CONTRIBUTING.md`, 'utf8');
  const tour = page.slice(page.indexOf('| folder of `src/`'), page.indexOf('## Words'));
  const named = [...tour.matchAll(/^\| (`.*?`) \|/gm)].flatMap(([, cell]) =>
    cell!.split(', ').map((folder) => folder.slice(1, -1)),
  );
  const folders = readdirSync(`${root}/src`, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => path.relative(`${root}/src`, `${entry.parentPath}/${entry.name}`));
  expect(named.sort()).toEqual(folders.filter((folder) => folder !== 'main').sort());
});
