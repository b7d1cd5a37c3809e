// @vitest: beside
/** The tests that run on Bun: its executable is there, and messages of its test processes arrive whole. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { bunExecutable } from '../scripts/bun.ts';
import config from '../vitest.config.ts';
import { decode, encode } from './support/bun-pool/messages.ts';
import { describeNeeding, type Need } from './support/require.ts';

const root = new URL('../', import.meta.url).pathname;
const requireBun: Need = () =>
  bunExecutable(root) === undefined ? "Bun's npm package is missing: npm ci --include=optional" : undefined;

describeNeeding('unit tests on Bun', [requireBun], () => {
  it('their files: in two projects of vitest.config.ts', () => {
    const projects = config.test?.projects as { readonly test: { readonly name: string } }[];
    const names = projects.map(({ test }) => test.name);
    expect(names).toEqual(expect.arrayContaining(['bun beside', 'bun alone']));
  });
});

it('messages: any value arrives as it was', () => {
  const value = fc.anything({ withMap: true, withSet: true, withDate: true, withBigInt: true });
  fc.assert(
    fc.property(value, (message) => {
      expect(decode(encode(message))).toEqual(message);
    }),
  );
  expect(decode(encode(new Uint8Array([0, 255])))).toEqual(new Uint8Array([0, 255]));
  expect(decode(encode([/a\/b/gu, -0, Number.NaN, undefined]))).toEqual([
    /a\/b/gu,
    -0,
    Number.NaN,
    undefined,
  ]);
});

it('messages: cycles stay cycles, errors stay errors', () => {
  const task = { name: 'x', parts: [] as unknown[] };
  task.parts.push(task, new Map([[task, task]]));
  const copy = decode(encode(task)) as typeof task;
  expect(copy.parts[0]).toBe(copy);
  expect((copy.parts[1] as Map<unknown, unknown>).get(copy)).toBe(copy);
  const error = decode(encode(Object.assign(new TypeError('bad'), { code: 'EX', cause: new Error('why') })));
  expect(error).toBeInstanceOf(Error);
  expect(error).toMatchObject({ name: 'TypeError', message: 'bad', code: 'EX', cause: { message: 'why' } });
});
