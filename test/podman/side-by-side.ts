/**
 * `npm run test:podman` and `npm run test:callers`: every case with our tool and with the tree's own, one after the other. A case
 * that works with the stock tool must work with ours. Last line: `N passed, N failed, N skipped`.
 *
 * usage: sh scripts/node.sh test/podman/side-by-side.ts podman|callers [5.4|6.1] [rootlessport|pasta] [switch]
 * [TEXT...]
 *   podman    Podman and Buildah with pasta; Podman 5.4, then 6.1 with each of its port forwarders, and
 *             both with `bucatini switch-agent`
 *   callers   Podman and Buildah with slirp4netns, RootlessKit and rootless Docker with either
 *   5.4, 6.1  this Podman alone; rootlessport or pasta: this port forwarder alone; switch: socket switching alone
 *   TEXT      cases whose names contain one of the texts; default: all
 */
import { type Bed, makeBed } from '../support/bed.ts';
import { BRIDGES } from './bridges.ts';
import { CALLERS } from './callers.ts';
import { CASES, PODMAN6 } from './cases.ts';
import { FORWARDED, PESTO, ROOTLESSPORT } from './forwarders.ts';
import type { Case } from './pieces.ts';
import { type Forwarder, Podman, podmanNeeds, podmanTree, type Tree } from './podman.ts';
import { SWITCHING } from './switching.ts';

/** Cases that are run in one tree with one setting. */
interface Round {
  readonly tree: Tree;
  /** undefined: this Podman has no such setting. */
  readonly forwarder?: Forwarder;
  /** What is tried, if it is not Podman's network in general. */
  readonly about?: 'switch';
  readonly cases: readonly Case[];
}

const ROUNDS: Readonly<Record<'podman' | 'callers', readonly Round[]>> = {
  podman: [
    { tree: '5.4', cases: [...CASES, ...BRIDGES, ...FORWARDED, ...ROOTLESSPORT] },
    {
      tree: '6.1',
      forwarder: 'rootlessport',
      cases: [...CASES, ...PODMAN6, ...BRIDGES, ...FORWARDED, ...ROOTLESSPORT],
    },
    { tree: '6.1', forwarder: 'pasta', cases: [...BRIDGES, ...FORWARDED, ...PESTO] },
    { tree: '5.4', about: 'switch', cases: SWITCHING },
    { tree: '6.1', about: 'switch', cases: SWITCHING },
  ],
  callers: [{ tree: 'callers', cases: CALLERS }],
};

interface Outcome {
  /** Reason of the failure; undefined: passed. */
  readonly failure: string | undefined;
  readonly ms: number;
}

interface Count {
  passed: number;
  failed: number;
  skipped: number;
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

/** One row of the table, and below it why a tool failed. */
function tell(one: Case, ours: Outcome, stock: Outcome): void {
  const word = (o: Outcome): string => (o.failure === undefined ? 'works' : 'fails');
  const ms = (o: Outcome, width: number): string => String(o.ms).padStart(width);
  console.log(
    `| ${one.name.padEnd(80)} | ${word(ours)} | ${word(stock)} | ${ms(ours, 7)} | ${ms(stock, 8)} |`,
  );
  for (const [tool, { failure }] of [
    ['ours', ours],
    ['stock', stock],
  ] as const)
    if (failure !== undefined) console.log(`  ${tool}: ${failure.replaceAll('\n', '\n    ')}`);
}

async function all(bed: Bed, { tree, forwarder, cases }: Round, count: Count): Promise<void> {
  const path = await podmanTree(tree);
  const ours = await Podman.login(bed, path, 'ours', forwarder);
  const stock = await Podman.login(bed, path, 'stock', forwarder);
  const through = forwarder && `published ports of bridges through ${forwarder}`;
  // Trixie's pasta says nothing to an ordinary user.
  const said = [await stock.version('podman'), await stock.version('pasta'), through].filter(Boolean);
  console.log(`\n${said.join(', ')}\n`);
  console.log(`| ${'case'.padEnd(80)} | ours | stock | ms ours | ms stock |\n|---|---|---|---|---|`);
  for (const one of cases) {
    const outcomes = [await tried(one, ours), await tried(one, stock)] as const;
    tell(one, ...outcomes);
    if (outcomes[0].failure === undefined) count.passed++;
    else if (outcomes[1].failure === undefined) count.failed++;
    else count.skipped++; // the stock tool fails on this machine too: no result for ours
  }
  await ours.logout();
  await stock.logout();
}

/** The rounds with their cases that the command line selects. */
function chosen(rounds: readonly Round[], words: readonly string[]): Round[] {
  const only = <T>(values: readonly T[], named: (value: T) => string | undefined): T[] => {
    const names = words.filter((word) => values.some((value) => named(value) === word));
    return values.filter((value) => names.length === 0 || names.includes(named(value)!));
  };
  const settings = new Set<string | undefined>(
    rounds.flatMap((round) => [round.tree, round.forwarder, round.about]),
  );
  const texts = words.filter((word) => !settings.has(word));
  const wanted = ({ name }: Case): boolean => texts.length === 0 || texts.some((text) => name.includes(text));
  const ofTree = only(rounds, ({ tree }) => tree);
  const some = only(
    only(ofTree, ({ forwarder }) => forwarder),
    ({ about }) => about,
  );
  return some.map((round) => ({ ...round, cases: round.cases.filter(wanted) }));
}

const [set = '', ...words] = process.argv.slice(2);
if (set !== 'podman' && set !== 'callers') {
  console.error(`side-by-side.ts: '${set}': write podman or callers`);
  process.exit(2);
}
const rounds = chosen(ROUNDS[set], words).filter(({ cases }) => cases.length > 0);
const missing = podmanNeeds();
if (missing !== undefined) {
  const total = rounds.reduce((sum, { cases }) => sum + cases.length, 0);
  console.log(`${missing}\n0 passed, ${process.env.CI === 'true' ? 1 : 0} failed, ${total} skipped`);
  process.exit(process.env.CI === 'true' ? 1 : 0);
}
const bed = await makeBed({ privileged: true, plainRoutes: true });
const count: Count = { passed: 0, failed: 0, skipped: 0 };
try {
  for (const round of rounds) await all(bed, round, count);
} finally {
  await bed.close();
}
console.log(`${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped`);
process.exit(count.failed === 0 && count.passed > 0 ? 0 : 1);
