// @vitest: beside
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { seqAdd, seqDiff, seqGeq, seqGt, seqLeq, seqLt } from '../../src/proto/seq.ts';
import { u32 } from './vector.ts';

it('seqLt and seqLeq: order holds across the wrap', () => {
  expect(seqLt(0xffffffff, 0)).toBe(true);
  expect(seqGt(0, 0xffffffff)).toBe(true);
  expect(seqLeq(7, 7) && seqGeq(7, 7)).toBe(true);
  expect(seqLt(7, 7) || seqGt(7, 7)).toBe(false);
  expect(seqDiff(2, 0xfffffffe)).toBe(4);
  expect(seqAdd(0xffffffff, 1)).toBe(0);
  expect(seqAdd(0, -1)).toBe(0xffffffff);
});

it('seqAdd: a + n is later than a by n, for every a and n below 2^31', () => {
  fc.assert(
    fc.property(u32, fc.integer({ min: 1, max: 0x7fffffff }), (a, n) => {
      const b = seqAdd(a, n);
      return (
        seqLt(a, b) &&
        seqLeq(a, b) &&
        seqGt(b, a) &&
        seqGeq(b, a) &&
        seqDiff(b, a) === n &&
        seqDiff(a, b) === -n
      );
    }),
  );
});
