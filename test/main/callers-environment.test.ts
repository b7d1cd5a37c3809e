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

it('entries in several variables; a variable that is meant for the runtime alone does not reach COMMAND', () => {
  const kept = {
    BUCATINI_KEPT_1: 'A=1\nB=2\n',
    BUCATINI_KEPT_2: 'C=3\n',
    BUCATINI_KEPT: 'BUCATINI_KEPT_3=D=4\n',
  };
  expect(callersEnvironment({ ...kept, BUN_ENABLE_CRASH_REPORTING: '0' })).toEqual({
    A: '1',
    B: '2',
    C: '3',
  });
  const own = { BUN_ENABLE_CRASH_REPORTING: '1' };
  expect(callersEnvironment({ BUCATINI_KEPT: 'BUN_ENABLE_CRASH_REPORTING=1\n' })).toEqual(own);
  expect(callersEnvironment(own)).toEqual(own); // started without a launcher
});

it('all in hexadecimal, in several pieces: every byte arrives', () => {
  const hex = Buffer.from('A=\x01\n\x02\0B=\xff\0none\0E=\0BUCATINI_KEPT_3=x\0', 'latin1').toString('hex');
  const pieces = { BUCATINI_KEPT_1: hex.slice(0, 7), BUCATINI_KEPT_2: hex.slice(7), BUCATINI_KEPT: 'hex' };
  expect(callersEnvironment({ ...pieces, A: 'ours' })).toEqual({ A: '\x01\n\x02', B: '\udcff', E: '' });
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
