// bundle: texts
/** docs/counters.md, from the tables of counters and histograms. */
import { readFileSync } from 'node:fs';
import { COUNTERS } from '../../ring/counters.ts';
import { HISTOGRAMS } from '../../ring/histograms.ts';

/** The tables of drop causes. The comment of each cause is also its text in docs/counters.md. */
const CAUSE_TABLES = ['../../proto/drop.ts', '../../workers/link/stage-drop.ts'] as const;
const CAUSE = /^ {2}\/\*\* (.+) \*\/\n {2}(\w+): -\d+,$/gm;

/**
 * Name and meaning of every cause of loss, in the order of the codes. Reads the source files, so it works
 * only for the generator and its test.
 */
export function causes(): { name: string; help: string }[] {
  return CAUSE_TABLES.flatMap((file) =>
    [...readFileSync(new URL(file, import.meta.url), 'utf8').matchAll(CAUSE)].map(
      ([, help = '', name = '']) => ({
        name,
        help,
      }),
    ),
  );
}

const causeRows = (): string =>
  causes()
    .map(({ name, help }) => `| \`${name}\` | ${help} |`)
    .join('\n');

/** The whole text of docs/counters.md. */
export function countersMarkdown(): string {
  const rows = (table: readonly { name: string; unit: string; help: string }[]): string =>
    table.map(({ name, unit, help }) => `| \`${name}\` | ${unit} | ${help} |`).join('\n');
  return `# Counters

<!-- Written by \`scripts/cli-docs.ts\` from \`src/ring/counters.ts\`, \`src/ring/histograms.ts\`, \`src/proto/drop.ts\` and
\`src/workers/link/stage-drop.ts\`; a test compares. -->

\`--stats\` prints these counters when the engine ends, summed over all packet threads; if there are several threads, also for each thread.
Counters that are 0 are left out. Threads are named by what they run: \`packets\` (everything), \`reader\`, \`shard N\`, \`host-io\`, \`lane N\`. A
lane that was closed keeps its column. If a TCP connection moves to another lane, the first lane has counted its opening, and the other one counts
its end: in one column \`tcpOpened\` and \`tcpClosed\`, or \`sockOpened\` and \`sockClosed\`, need not agree; the sums over all threads do.

| counter | unit | |
|---|---|---|
${rows(COUNTERS)}

A packet that is dropped is counted by its cause, as \`drop.CAUSE\`. Packets that every kernel sends to its link by itself (membership
reports, solicitations, mDNS) are counted above and not here. So without a \`drop.\` line no packet was dropped for any of these causes.

| cause | what was lost |
|---|---|
${causeRows()}

Useful quotients:

| quotient | meaning |
|---|---|
| \`bytesFromGuest\` / \`tapReads\`, \`bytesToGuest\` / \`tapWrites\` | bytes per system call on the TAP; near 65,000 for bulk TCP |
| \`sockSendBytes\` / (\`sockSends\` - \`datagramSends\`), \`sockPeekBytes\` / \`sockPeeks\` | bytes per system call on stream sockets |
| \`datagramSendBytes\` / \`datagramSends\`, \`datagramsToHost\` / \`datagramSends\`, \`datagramsToGuest\` / \`datagramRecvs\` | bytes and datagrams per system call: the gain of batching |
| \`linkDescriptors\` / \`linkBatches\` | descriptors per publication: the batch size between stages |
| \`wakes\` / \`linkBatches\` | how often the receiving thread slept at a publication (it takes 35 to 40 us to wake up) |
| \`sleeps\` / \`busyRounds\` | how often a thread ran out of work |
| (\`cpuUserUs\` + \`cpuSystemUs\`) of a thread / frames or bytes of its stage | the cost of the stage |

## Distributions

| measured | unit | |
|---|---|---|
${rows(HISTOGRAMS)}
`;
}

/** Generated files of the repository (`npm run docs`): path -> content. */
export const generatedDocs = (): ReadonlyMap<string, string> =>
  new Map([['docs/counters.md', countersMarkdown()]]);
