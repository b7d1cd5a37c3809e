// @vitest: beside
/** The one representation of "no descriptor": zeroed memory is an empty table. */
import { expect, it } from 'vitest';
import { DescriptorTable, NO_DESCRIPTOR } from '../../src/workers/thread/descriptor-table.ts';

it('an index is empty until it is set, and again after clear()', () => {
  const table = new DescriptorTable(3);
  expect([table.length, table.has(1), table.get(1)]).toEqual([3, false, NO_DESCRIPTOR]);
  table.set(1, 7);
  expect([table.has(0), table.has(1), table.get(1), table.has(2)]).toEqual([false, true, 7, false]);
  table.clear(1);
  expect([table.has(1), table.get(1)]).toEqual([false, NO_DESCRIPTOR]);
});

it('descriptor 0 is a descriptor', () => {
  const table = new DescriptorTable(1);
  table.set(0, 0);
  expect([table.has(0), table.get(0)]).toEqual([true, 0]);
});

it('each() visits what is set, in order, and the visitor may clear it; setting twice counts once', () => {
  const table = new DescriptorTable(5000);
  for (const index of [4999, 0, 1023, 1024]) table.set(index, index);
  table.set(1024, 9);
  table.clear(1023);
  table.clear(1023);
  const seen: number[] = [];
  table.each((index) => {
    seen.push(index);
    table.clear(index);
  });
  table.each(() => expect.unreachable());
  expect(seen).toEqual([0, 1024, 4999]);
});
