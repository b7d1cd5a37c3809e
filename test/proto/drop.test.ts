// @vitest: beside
import { expect, it } from 'vitest';
import { DROP_COUNT, Drop, dropName } from '../../src/proto/drop.ts';

it('codes: distinct and contiguous from -1, for -code indexes a counter', () => {
  const codes = Object.values(Drop).map((code) => -code);
  expect(codes).toEqual(codes.map((_, i) => i + 1));
  expect(DROP_COUNT).toBe(codes.length + 1);
});

it("names: one for each code, 'unknown' for other numbers", () => {
  for (const [name, code] of Object.entries(Drop)) expect(dropName(code)).toBe(name);
  for (const code of [0, 1, -DROP_COUNT, -1000]) expect(dropName(code)).toBe('unknown');
});
