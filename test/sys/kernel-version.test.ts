// @vitest: beside
import { expect, it } from 'vitest';
import { kernelAtLeast } from '../../src/sys/kernel-version.ts';

it('kernelAtLeast: compares the first two numbers, not text', () => {
  const is = (kernel: string) => [kernelAtLeast(5, 7, kernel), kernelAtLeast(6, 12, kernel)];
  expect(is('6.12.41-amd64')).toEqual([true, true]);
  expect(is('6.2')).toEqual([true, false]);
  expect(is('5.10.0')).toEqual([true, false]);
  expect(is('5.6.19')).toEqual([false, false]);
  expect(is('10.0-rc1')).toEqual([true, true]);
  expect(is('unknown')).toEqual([false, false]);
  expect(kernelAtLeast(2, 6)).toBe(true);
});
