/**
 * The few cases of rootless Podman that run with all tests. To run all cases, with the stock tools too: `npm
 * run test:podman` and `test:callers`.
 */
import { afterAll, afterEach, beforeAll, it } from 'vitest';
import { type Bed, makeBed } from '../support/bed.ts';
import { describeE2e, requireTool } from '../support/require.ts';
import { CALLERS } from './callers.ts';
import { CASES } from './cases.ts';
import { Podman, podmanNeeds, podmanTree } from './podman.ts';

/** Includes time to download the tree. */
const TREE_MS = 250_000;

describeE2e(
  'rootless Podman with our pasta and slirp4netns',
  [podmanNeeds, requireTool('curl', 'apt package curl')],
  () => {
    let bed: Bed | undefined;
    let podman: Podman;
    beforeAll(async () => {
      const tree = await podmanTree();
      bed = await makeBed({ privileged: true });
      podman = await Podman.login(bed, tree, 'ours');
    }, TREE_MS);
    afterEach(() => podman?.clean());
    afterAll(() => bed?.close());

    for (const one of [...CASES, ...CALLERS]) if (one.smoke) it(one.name, () => one.run(podman));
  },
);
