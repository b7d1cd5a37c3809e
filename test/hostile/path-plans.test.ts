// @vitest: beside
/** Hostile frames through the packet path with other plans; see path.test.ts. */
import { describe, it } from 'vitest';
import { PATH_FRAMES, randomRun } from './random-run.ts';

const TIMEOUT = { timeout: 3_600_000 };

describe('hostile frames at random: no exception, no leak, well-formed answers', () => {
  it('two shards, no DHCP', TIMEOUT, () => {
    randomRun('two shards', Math.floor(PATH_FRAMES * 0.27), { shards: 2, dhcp: false });
  });

  it('no vnet headers', TIMEOUT, () => {
    randomRun('no vnet headers', Math.floor(PATH_FRAMES * 0.23), { shards: 1, vnet: false });
  });
});
