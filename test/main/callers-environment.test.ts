import { expect, it } from 'vitest';
import { beyondShells, callersEnvironment, KEPT_VARIABLE } from '../../src/main/callers-environment.ts';

it('what was set aside comes back by its name, line ends and equals signs included; what is no entry is left out', () => {
  const kept = ['LANG=C', 'TWO=a\x01b\x01c', 'EQUALS=x=y', 'EMPTY=', '=nameless', 'none', ''].join('\n');
  expect(callersEnvironment({ [KEPT_VARIABLE]: kept, LANG: 'ours', HOME: '/root' })).toEqual({
    LANG: 'C',
    TWO: 'a\nb\nc',
    EQUALS: 'x=y',
    EMPTY: '',
    HOME: '/root',
  });
});

it('nothing of ours reaches COMMAND, of whichever front end', () => {
  const own = {
    ...{ BUCATINI_KEPT: '', BUCATINI_IGNORED: '1', BUCATINI_REENTERED: '1', BUCATINI_OWN_MOUNTS: '1' },
    ...{ BUCATINI_INHERITED: '3', BUCATINI_OPEN_FILES: '1024', BUCATINI_TEST_IMPAIR: '1' },
    ...{ PASTA_PROGRAM: 'pasta', PASTA_STARTED_AS_ROOT: '1', PASTA_RUNAS: '0', PASTA_STATUS_FD: '4' },
  };
  expect(callersEnvironment({ ...own, PATH: '/bin' })).toEqual({ PATH: '/bin' });
  expect(own.BUCATINI_IGNORED).toBe('1'); // a copy was changed
});

it('names that are none to a shell', () => {
  expect(
    beyondShells({ PATH: '/bin', _: 'x', 'a-b': '1', '1st': '2', 'npm.x': '', é: '3', GONE: undefined }),
  ).toEqual(['a-b=1', '1st=2', 'npm.x=', 'é=3']);
});
