import { expect, it } from 'vitest';
import { autoThreads, startedThreads } from '../../src/workers/placement.ts';

it('one and two processors: fused; more: one lane at the start, up to one for each, eight at the most', () => {
  for (const processors of [1, 2]) expect(autoThreads(processors)).toEqual({ kind: 'fused' });
  for (const [processors, lanes] of [
    [3, 3],
    [4, 4],
    [8, 8],
    [16, 8],
  ] as const) {
    expect(autoThreads(processors)).toEqual({ kind: 'lanes', lanes, first: 1 });
    expect(startedThreads(autoThreads(processors))).toBe(1);
  }
});

it('a small pool: fewer lanes, and fused where it is for one', () => {
  expect(autoThreads(16, 3)).toEqual({ kind: 'lanes', lanes: 3, first: 1 });
  expect(autoThreads(16, 1)).toEqual({ kind: 'fused' });
  expect(autoThreads(16, 0)).toEqual({ kind: 'fused' });
});
