import { expect, it } from 'vitest';
import { callersEnvironment, entriesShellsDrop } from '../../src/main/process/callers-environment.ts';
import { LAUNCHER_VARIABLES } from '../../src/main/process/launcher-env.ts';

it('BUCATINI_KEPT: entries become variables again, with line ends and equals signs; malformed ones are left out', () => {
  const kept = ['LANG=C', 'TWO=a\x01b\x01c', 'EQUALS=x=y', 'EMPTY=', '=nameless', 'none', ''].join('\n');
  expect(callersEnvironment({ BUCATINI_KEPT: kept, LANG: 'ours', HOME: '/root' })).toEqual({
    LANG: 'C',
    TWO: 'a\nb\nc',
    EQUALS: 'x=y',
    EMPTY: '',
    HOME: '/root',
  });
});

it('variables of every launcher: none reaches COMMAND', () => {
  const own = Object.fromEntries(Object.keys(LAUNCHER_VARIABLES).map((name) => [name, '1']));
  expect(callersEnvironment({ ...own, PATH: '/bin' })).toEqual({ PATH: '/bin' });
  expect(own.BUCATINI_IGNORED).toBe('1'); // a copy was changed
});

it('names that a shell would drop: returned as entries', () => {
  expect(
    entriesShellsDrop({ PATH: '/bin', _: 'x', 'a-b': '1', '1st': '2', 'npm.x': '', é: '3', GONE: undefined }),
  ).toEqual(['a-b=1', '1st=2', 'npm.x=', 'é=3']);
});
