// @vitest: beside
/**
 * Bundle roles of modules (scripts/bundle-roles.ts): their syntax, and that each module that needs one has
 * one.
 */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { bundleRole, bundleRoles } from '../../scripts/bundle-roles.ts';

const SRC = path.resolve(import.meta.dirname, '../../src');
const roles = bundleRoles(SRC);
const sources = new Map(
  readdirSync(SRC, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts'))
    .map((file) => [file.slice(0, -3), readFileSync(`${SRC}/${file}`, 'utf8')]),
);

const withoutComments = (source: string): string =>
  source.replace(/\/\*[\s\S]*?\*\//g, '').replace(/^\s*\/\/.*$/gm, '');

/** Modules that `source` needs when it runs: no `import type`, no import of nothing but types. */
function neededBy(module: string, source: string): readonly string[] {
  const code = withoutComments(source);
  const stated = [...code.matchAll(/^(?:import|export) (?!type\b)([^;'"]*?)from '(\.[^']+)'/gm)].filter(
    ([, names]) => !/^\{(\s*type \w+,?)+\s*\} ?$/.test(names!),
  );
  const ofRuntimes = [...code.matchAll(/['"]#runtime\/([\w-]+)['"]/g)].flatMap(([, name]) => [
    `runtime/node/${name}`,
    `runtime/bun/${name}`,
  ]);
  const files = [
    ...stated.map((m) => m[2]!),
    ...[...code.matchAll(/import\('(\.[^']+)'\)/g)].map((m) => m[1]!),
  ];
  return [
    ...ofRuntimes,
    ...files.map((file) => path.posix.join(path.posix.dirname(module), file).replace(/\.ts$/, '')),
  ];
}

/** Whether a module is empty without its types. */
const isTypesOnly = (source: string): boolean =>
  !/^(import (?!type)|(export )?(default |async )*(const|let|function|class)\b|if\b|await\b|[\w.]+\()/m.test(
    withoutComments(source),
  );

it('bundle role: read from the first line, one of six', () => {
  expect(bundleRole('// bundle: rare\n')).toEqual({ kind: 'rare' });
  expect(bundleRole('// bundle: thread pasta/netns-worker\nx')).toEqual({
    kind: 'thread',
    name: 'pasta/netns-worker',
  });
  expect(bundleRole('/** x */')).toBeUndefined();
  expect(() => bundleRole('// bundle: rarely\n')).toThrow('none of');
  expect(() => bundleRole('// bundle: thread\n')).toThrow('none of');
  expect(() => bundleRole('/** x */\n// bundle: rare\n')).toThrow('first line');
});

it('a module that no other imports: is an entry, or makes texts and is not built', () => {
  const needed = new Set([...sources].flatMap(([module, source]) => neededBy(module, source)));
  const lost = [...sources].filter(
    ([module, source]) =>
      !needed.has(module) &&
      !['front-end', 'thread', 'process', 'texts'].includes(roles.get(module)?.kind ?? '') &&
      !isTypesOnly(source),
  );
  expect(lost.map(([module]) => module)).toEqual([]);
});

it('entries: unique names', () => {
  const names = [...roles.values()].flatMap((role) => ('name' in role ? [role.name] : []));
  expect(names).toContain('bucatini/doctor-probe');
  expect(new Set(names).size).toBe(names.length);
});
