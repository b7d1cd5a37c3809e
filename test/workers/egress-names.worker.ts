/** Notes names of random addresses until the main thread sets the stop word; see egress-names.test.ts. */
import { workerData } from 'node:worker_threads';
import { EgressNames } from '../../src/workers/flow/egress-names.ts';

const { memory, stop, seed } = workerData as {
  memory: SharedArrayBuffer;
  stop: Int32Array;
  seed: number;
};
const names = new EgressNames(memory);
const words = Uint32Array.of(0, 0, 0xffff, 0);
let state = seed;
let count = 0;
while (Atomics.load(stop, 0) === 0) {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  const last = (state >>> 8) % 20_000;
  words[3] = last;
  // The name of an address: its number as text, in capitals sometimes, and as often as its length varies.
  const text = `A${last}`.repeat(1 + (last % 5));
  const name = Uint8Array.of(text.length, ...Buffer.from(text), 3, 79, 82, 71);
  names.learn(name, 0, name.length, words, 0, 30 + (state & 1023), 1000);
  if (++count % 1000 === 0) Atomics.add(stop, 1, 1);
}
