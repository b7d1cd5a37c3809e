// @vitest: beside
import { once } from 'node:events';
import { expect, it } from 'vitest';
import { bootPacketThread } from '../../src/workers/packet-worker.ts';

it('packet thread heap: the young generation is limited; the old one is not, for the limit would end the engine', async () => {
  const { worker } = bootPacketThread('packet thread');
  try {
    await once(worker, 'online');
    expect(worker.resourceLimits?.maxYoungGenerationSizeMb).toBeLessThanOrEqual(8);
    expect(worker.resourceLimits?.maxOldGenerationSizeMb).not.toBeLessThan(512);
  } finally {
    await worker.terminate();
  }
});
