// @vitest: beside
import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { CHAIN_VARIABLES, LAUNCHER_VARIABLES } from '../../src/main/process/launcher-env.ts';
import { repoRoot } from './source-tree.ts';

const read = (path: string): string => readFileSync(`${repoRoot}/${path}`, 'utf8');

/** Names of our variables in a file, comments included; those of TypeScript's own constants are none. */
function namesIn(text: string): readonly string[] {
  const names = new Set(text.match(/\b(?:BUCATINI|PASTA|SLIRP4NETNS)_[A-Z_]*[A-Z]\b/g));
  return [...names].filter((name) => !new RegExp(`\\b(?:const|as) ${name}\\b`).test(text));
}

function usedNames(): readonly string[] {
  const sources = (readdirSync(`${repoRoot}/src`, { recursive: true, encoding: 'utf8' }) as string[])
    .filter((file) => file.endsWith('.ts') && !file.endsWith('launcher-env.ts'))
    .map((file) => `src/${file}`);
  const launchers = readdirSync(`${repoRoot}/bin`).map((file) => `bin/${file}`);
  return [...new Set([...launchers, ...sources].flatMap((path) => namesIn(read(path))))].sort();
}

describe('environment variables', () => {
  it('the list has exactly the variables that bin/ and src/ use', () => {
    expect(usedNames()).toEqual([...Object.keys(LAUNCHER_VARIABLES), ...CHAIN_VARIABLES].sort());
  });

  it('each launcher shell unsets its own variables', () => {
    const unset = ['src/main/process/command.ts', 'src/main/pasta/command.ts']
      .flatMap((path) => [...read(path).matchAll(/^unset (.*)$/gm)])
      .flatMap((match) => match[1]!.split(' '));
    expect(unset).toEqual(expect.arrayContaining([...CHAIN_VARIABLES]));
  });

  it('the table in CONTRIBUTING.md matches the list', () => {
    const rows = read('CONTRIBUTING.md').match(/^\| `(?:BUCATINI|PASTA|SLIRP4NETNS)_.*$/gm);
    expect(rows).toEqual(
      Object.entries(LAUNCHER_VARIABLES).map(
        ([name, { setBy, meaning }]) => `| \`${name}\` | ${setBy} | ${meaning} |`,
      ),
    );
  });

  it('the search finds a literal name and a constant', () => {
    expect(namesIn('[ -z "$BUCATINI_NEW" ] || PASTA_X_Y=1; env.SLIRP4NETNS_Z')).toEqual([
      'BUCATINI_NEW',
      'PASTA_X_Y',
      'SLIRP4NETNS_Z',
    ]);
    expect(namesIn('const PASTA_ROWS = 1; import { A as BUCATINI_A }')).toEqual([]);
  });
});
