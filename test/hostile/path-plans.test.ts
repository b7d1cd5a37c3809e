// @vitest: beside
/** Hostile frames through the packet path with other plans; see path.test.ts. */
import { describe, it } from 'vitest';
import { PATH_FRAMES, randomRun } from './random-run.ts';

const TIMEOUT = { timeout: 3_600_000 };

describe('hostile frames at random: no exception, no leak, well-formed answers', () => {
  it('two shards, no DHCP, multicast', TIMEOUT, () => {
    randomRun('two shards', Math.floor(PATH_FRAMES * 0.2), {
      threads: { kind: 'pipeline', shards: 2 },
      dhcp: false,
      multicast: true,
    });
  });

  it('no vnet headers', TIMEOUT, () => {
    randomRun('no vnet headers', Math.floor(PATH_FRAMES * 0.15), {
      threads: { kind: 'fused' },
      vnet: false,
    });
  });

  it('two lanes, frames of each flow over both queues, flows move', TIMEOUT, () => {
    randomRun('two lanes', Math.floor(PATH_FRAMES * 0.15), {
      threads: { kind: 'lanes', lanes: 2 },
      give: 0.01,
    });
  });

  it(
    'three lanes, no DHCP, multicast, buckets are given away with and without flows, also while frames are on their way',
    TIMEOUT,
    () => {
      randomRun('three lanes', Math.floor(PATH_FRAMES * 0.1), {
        threads: { kind: 'lanes', lanes: 3 },
        dhcp: false,
        multicast: true,
        oldTable: 0.3,
        give: 0.02,
      });
    },
  );
});
