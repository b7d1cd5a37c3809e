/**
 * The command lines of the launcher chain in front of COMMAND; the chain itself runs in the end-to-end tests.
 */
import { expect, it } from 'vitest';
import { CHANNEL } from '../../src/main/process/child.ts';
import { standardStreams, tool, withEntriesShellsDrop } from '../../src/main/process/command.ts';

it('names that a shell drops: set by env(1), unless the program name contains an equals sign', () => {
  const env = { PATH: '/bin', 'a-b': '1' };
  expect(withEntriesShellsDrop(['sh', '-c', 'x=1'], env)).toEqual([
    ...[tool('env'), '--', 'a-b=1'],
    ...['sh', '-c', 'x=1'],
  ]);
  expect(withEntriesShellsDrop(['./a=b', 'c'], env)).toEqual(['./a=b', 'c']);
  expect(withEntriesShellsDrop(['sh'], { PATH: '/bin' })).toEqual(['sh']);
});

it('standard streams of the caller, in any order: passed at their numbers; others are ignored', () => {
  expect(standardStreams([3, 4, 5])).toEqual([undefined, undefined, CHANNEL, 0, 1, 2]);
  expect(standardStreams([9, 4, 7])).toEqual([
    ...[undefined, undefined, CHANNEL, undefined, 1],
    ...[undefined, undefined, 2, undefined, 0],
  ]);
});
