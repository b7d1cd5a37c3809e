// @vitest: beside
/** The kind of each test file (support/test-kind.ts), and its project in vitest.config.ts. */
import { existsSync, globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { bunExecutable } from '../scripts/bun.ts';
import config from '../vitest.config.ts';
import { runsOnNodeToo } from './support/both-files.ts';
import { runsOnBun } from './support/bun-files.ts';
import { testKind } from './support/test-kind.ts';

const root = path.resolve(import.meta.dirname, '..');
const files = globSync('test/**/*.test.ts', { cwd: root }).sort();

describe('test files', () => {
  it("each file: 'beside', 'alone' or nothing in its first line", () => {
    const wrong = files.flatMap((file) => {
      try {
        testKind(readFileSync(`${root}/${file}`, 'utf8'));
        return [];
      } catch (error) {
        return [`${file}: ${(error as Error).message}`];
      }
    });
    expect(wrong).toEqual([]);
  });

  it('each file: in one of the two projects, some in one more of a runtime', () => {
    const projects = config.test?.projects as {
      readonly test: { readonly name: string; readonly include: readonly string[] };
    }[];
    const included = (names: readonly string[]): string[] =>
      projects
        .filter(({ test }) => names.includes(test.name))
        .flatMap(({ test }) => test.include)
        .sort();
    expect(included(['beside', 'alone'])).toEqual(files);
    const bun = bunExecutable(`${root}/`) !== undefined;
    expect(included(['bun beside', 'bun alone'])).toEqual(bun ? files.filter(runsOnBun) : []);
    const built = existsSync(`${root}/dist/bun/bucatini`);
    const onNode = ['e2e on node', 'e2e on node lanes'].flatMap((name) => [
      `${name} beside`,
      `${name} alone`,
    ]);
    expect(included(onNode)).toEqual(built ? files.filter(runsOnNodeToo) : []);
  });

  it('testKind: reads the first line, refuses a pragma elsewhere', () => {
    expect(testKind('// @vitest: beside\n/** x */')).toBe('beside');
    expect(testKind('// @vitest: alone\n')).toBe('alone');
    expect(testKind('/** x */\n')).toBe('alone');
    expect(() => testKind('// @vitest: besides\n')).toThrow('neither');
    expect(() => testKind('/** x */\n// @vitest: beside\n')).toThrow('first line');
  });
});
