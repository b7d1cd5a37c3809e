/**
 * `npm run test:podman` and `npm run test:callers`: every case with our tool and with the tree's own, one after the other. A case
 * that works with the stock tool must work with ours. Last line: `N passed, N failed, N skipped`.
 *
 * usage: sh scripts/node.sh test/podman/side-by-side.ts podman|callers [TEXT...]
 *   podman    Podman and Buildah with pasta
 *   callers   Podman and Buildah with slirp4netns, RootlessKit and rootless Docker with either
 *   TEXT      cases whose names hold one of the texts; all without any
 */
import { type Bed, makeBed } from '../support/bed.ts';
import { CALLERS } from './callers.ts';
import { CASES } from './cases.ts';
import type { Case } from './pieces.ts';
import { Podman, podmanNeeds, podmanTree, type Tool } from './podman.ts';

const TOOLS: readonly Tool[] = ['ours', 'stock'];

interface Outcome {
  /** Why it failed; undefined: it worked. */
  readonly failure: string | undefined;
  readonly ms: number;
}

async function tried(one: Case, podman: Podman): Promise<Outcome> {
  const startedAt = performance.now();
  let failure: string | undefined;
  try {
    await one.run(podman);
  } catch (error) {
    failure = (error as Error).message.trim();
  }
  const ms = Math.round(performance.now() - startedAt);
  await podman.clean();
  return { failure, ms };
}

async function all(bed: Bed, tree: string, cases: readonly Case[]): Promise<number> {
  let passed = 0;
  let failed = 0;
  let skipped = 0;
  const logins = new Map<Tool, Podman>();
  for (const tool of TOOLS) logins.set(tool, await Podman.login(bed, tree, tool));
  console.log(`| ${'case'.padEnd(80)} | ours | stock | ms ours | ms stock |\n|---|---|---|---|---|`);
  for (const one of cases) {
    const ours = await tried(one, logins.get('ours')!);
    const stock = await tried(one, logins.get('stock')!);
    const word = (o: Outcome): string => (o.failure === undefined ? 'works' : 'fails');
    console.log(
      `| ${one.name.padEnd(80)} | ${word(ours)} | ${word(stock)} | ${String(ours.ms).padStart(7)} | ${String(stock.ms).padStart(8)} |`,
    );
    if (ours.failure === undefined) passed++;
    else if (stock.failure === undefined) failed++;
    else skipped++; // this machine does not allow it: nothing can be said of ours
    for (const [tool, outcome] of [
      ['ours', ours],
      ['stock', stock],
    ] as const)
      if (outcome.failure !== undefined)
        console.log(`  ${tool}: ${outcome.failure.replaceAll('\n', '\n    ')}`);
  }
  for (const podman of logins.values()) await podman.logout();
  console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
  return failed === 0 && passed > 0 ? 0 : 1;
}

const [set, ...texts] = process.argv.slice(2);
if (set !== 'podman' && set !== 'callers') {
  console.error(`side-by-side.ts: '${set ?? ''}': write podman or callers`);
  process.exit(2);
}
const every = set === 'callers' ? CALLERS : CASES;
const missing = podmanNeeds();
if (missing !== undefined) {
  console.log(`${missing}\n0 passed, ${process.env.CI === 'true' ? 1 : 0} failed, ${every.length} skipped`);
  process.exit(process.env.CI === 'true' ? 1 : 0);
}
const cases = every.filter(({ name }) => texts.length === 0 || texts.some((text) => name.includes(text)));
const tree = await (set === 'callers' ? podmanTree('callers') : podmanTree());
const bed = await makeBed({ privileged: true });
let status = 1;
try {
  status = await all(bed, tree, cases);
} finally {
  await bed.close();
}
process.exit(status);
