// @vitest: beside
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { expect, it } from 'vitest';
import { findEventRings } from '../../src/sys/event-rings.ts';

it('a thread runs JavaScript: io_uring descriptors of all event loops are found', async () => {
  const before = findEventRings();
  const module = new URL('../../src/sys/event-rings.ts', import.meta.url).href;
  const worker = new Worker(
    `import(${JSON.stringify(module)}).then((m) => {
      require('node:worker_threads').parentPort.postMessage(m.findEventRings());
      setInterval(() => {}, 1000);
    });`,
    { eval: true },
  );
  try {
    const [seenInside] = (await once(worker, 'message')) as [number[]];
    expect(seenInside).toEqual(findEventRings());
    // Where the kernel or a container's filter refuses io_uring there are none.
    expect(seenInside.length).toBe(before.length === 0 ? 0 : before.length + 1);
    expect(seenInside).toEqual(expect.arrayContaining([...before]));
  } finally {
    await worker.terminate();
  }
});
