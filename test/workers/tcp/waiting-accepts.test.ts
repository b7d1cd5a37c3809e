// @vitest: beside
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { WaitingAccepts } from '../../../src/workers/translator/tcp/waiting-accepts.ts';

const WORDS = 16;
const MOST = 64;

it('any adds and takes: behaves as a list; take gives the oldest of a flow, others keep order and messages', () => {
  const flow = fc.nat(3);
  const step = fc.oneof(fc.record({ add: flow }), fc.record({ take: flow }));
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const waiting = new WaitingAccepts();
      const model: { flow: number; message: number[] }[] = [];
      const words = new Uint32Array(3 * WORDS);
      steps.forEach((s, n) => {
        if ('add' in s) {
          const message = Array.from({ length: WORDS }, (_, i) => 1000 * n + i);
          words.set(message, WORDS);
          expect(waiting.add(s.add, words, WORDS)).toBe(true);
          model.push({ flow: s.add, message });
        } else {
          const i = model.findIndex(({ flow }) => flow === s.take);
          expect(waiting.take(s.take)).toBe(i >= 0);
          if (i >= 0) expect(Array.from(waiting.taken)).toEqual(model.splice(i, 1)[0]!.message);
        }
        expect(waiting.count).toBe(model.length);
        for (let f = 0; f < 4; f++) expect(waiting.has(f)).toBe(model.some(({ flow }) => flow === f));
      });
    }),
  );
});

it('full at 64: one more is refused; the last can be taken whole, and its place used again', () => {
  const waiting = new WaitingAccepts();
  const message = (n: number) => Uint32Array.from({ length: WORDS }, (_, i) => 1000 * n + i);
  for (let n = 0; n < MOST; n++) expect(waiting.add(n, message(n), 0)).toBe(true);
  expect(waiting.add(MOST, message(MOST), 0)).toBe(false);
  expect(waiting.has(MOST)).toBe(false);
  expect(waiting.take(0)).toBe(true);
  expect(waiting.add(MOST, message(MOST), 0)).toBe(true);
  expect(waiting.take(MOST - 1)).toBe(true);
  expect(waiting.taken).toEqual(message(MOST - 1));
  expect(waiting.take(MOST)).toBe(true);
  expect(waiting.taken).toEqual(message(MOST));
});
