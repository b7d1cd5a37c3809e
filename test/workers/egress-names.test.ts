import { Worker } from 'node:worker_threads';
import { expect, it } from 'vitest';
import { EGRESS_NAMES_BYTES, EgressNames } from '../../src/workers/flow/egress-names.ts';

it('two threads write while another reads: every name that is found is that of its address', async () => {
  const memory = new SharedArrayBuffer(EGRESS_NAMES_BYTES);
  const stop = new Int32Array(new SharedArrayBuffer(8));
  const workers = [1, 2].map(
    (seed) =>
      new Worker(new URL('./egress-names.worker.ts', import.meta.url), {
        workerData: { memory, stop, seed },
      }),
  );
  try {
    const names = new EgressNames(memory);
    const words = Uint32Array.of(0, 0, 0xffff, 0);
    let found = 0;
    let wrong = 0;
    const end = performance.now() + 20_000;
    // Until both have written a while, and much was found.
    while (performance.now() < end && (Atomics.load(stop, 1) < 100 || found < 5000)) {
      for (let n = 0; n < 2000; n++) {
        const last = Math.floor(Math.random() * 20_000);
        words[3] = last;
        for (let entry = names.first(words, 0, 1000); entry >= 0; entry = names.next(words, 0, 1000)) {
          const text = Buffer.from(names.name.subarray(1, names.nameBytes - 4)).toString();
          if (text !== `a${last}`.repeat(1 + (last % 5))) wrong++;
          found++;
        }
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(wrong).toBe(0);
    expect(found).toBeGreaterThanOrEqual(5000);
    // Both names of one address, none of them twice.
    words[3] = 30_000;
    for (const label of ['x', 'y', 'x']) {
      const name = Uint8Array.of(1, label.charCodeAt(0), 1, 122);
      names.learn(name, 0, name.length, words, 0, 3000, 1000);
    }
    const labels: number[] = [];
    for (let entry = names.first(words, 0, 1000); entry >= 0; entry = names.next(words, 0, 1000))
      labels.push(names.name[1]!);
    expect(labels.sort()).toEqual([120, 121]);
  } finally {
    Atomics.store(stop, 0, 1);
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
});
