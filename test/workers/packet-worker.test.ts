// @vitest: beside
import { expect, it } from 'vitest';
import { startThread } from '#runtime/threads';
import { ON_BUN } from '../support/runtime.ts';

// JavaScriptCore has no young generation of a size of its own.
it.skipIf(ON_BUN)(
  'thread heap: the young generation is limited; the old one is not, for the limit would end the engine',
  async () => {
    const thread = startThread(new URL('./heap-limits.worker.ts', import.meta.url), {
      youngGenerationMib: 6,
    });
    try {
      const limits = await new Promise<{ maxYoungGenerationSizeMb: number; maxOldGenerationSizeMb: number }>(
        (resolve, reject) => {
          thread.onMessage(resolve);
          thread.onError(reject);
        },
      );
      expect(limits.maxYoungGenerationSizeMb).toBeLessThanOrEqual(8);
      expect(limits.maxOldGenerationSizeMb).not.toBeLessThan(512);
    } finally {
      await thread.terminate();
    }
  },
);
