// @vitest: beside
import { expect, it } from 'vitest';
import { hasBigTcp } from '../../src/sys/tap.ts';

it.each([
  ['6.2.16-generic', false],
  ['6.3.0', true],
  ['6.12.41-amd64', true],
  ['7.0.1', true],
  ['5.19.17', false],
  ['unknown', false],
])('hasBigTcp: Linux %s: %s', (kernelRelease, has) => {
  expect(hasBigTcp(kernelRelease)).toBe(has);
});
