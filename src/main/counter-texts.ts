/** docs/counters.md, from the tables of counters and histograms. */
import { readFileSync } from 'node:fs';
import { COUNTERS } from '../ring/counters.ts';
import { HISTOGRAMS } from '../ring/histograms.ts';

/** Where the causes are, each with its comment: the one text for the reader of the code and of the page. */
const CAUSE_TABLES = ['../proto/drop.ts', '../workers/link/stage-drop.ts'] as const;
const CAUSE = /^ {2}\/\*\* (.+) \*\/\n {2}(\w+): -\d+,$/gm;

/** Name and meaning of every cause of loss, by the order of the codes. Reads the sources: for the generator and its test alone. */
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

/** The whole page. */
export function countersMarkdown(): string {
  const rows = (table: readonly { name: string; unit: string; help: string }[]): string =>
    table.map(({ name, unit, help }) => `| \`${name}\` | ${unit} | ${help} |`).join('\n');
  return `# Counters

Written by \`scripts/cli-docs.mjs\` from \`src/ring/counters.ts\`, \`src/ring/histograms.ts\`, \`src/proto/drop.ts\` and
\`src/workers/link/stage-drop.ts\`; a test compares.

\`--stats\` prints them when the engine ends: the sum over all packet threads and, where there are several, each thread's own. A counter
that is 0 is left out. Every thread counts for itself with plain additions, so counting orders nothing and costs about a nanosecond.

| counter | unit | |
|---|---|---|
${rows(COUNTERS)}

Packets that are lost on the way are counted by cause as \`drop.CAUSE\`. What every kernel says on its link unasked (memberships,
solicitations, mDNS) is for nobody but the link and counts above, not here: without a \`drop.\` line nothing was lost.

| cause | what was lost |
|---|---|
${causeRows()}

What is worth dividing:

| quotient | tells |
|---|---|
| \`bytesFromGuest\` / \`tapReads\`, \`bytesToGuest\` / \`tapWrites\` | bytes a system call on the TAP; near 65,000 for bulk TCP |
| \`sockSendBytes\` / (\`sockSends\` - \`datagramSends\`), \`sockPeekBytes\` / \`sockPeeks\` | bytes a system call on stream sockets |
| \`datagramSendBytes\` / \`datagramSends\`, \`datagramsToHost\` / \`datagramSends\`, \`datagramsToGuest\` / \`datagramRecvs\` | what batching of datagrams gains |
| \`linkDescriptors\` / \`linkBatches\` | descriptors a publication: the batch size between stages |
| \`wakes\` / \`linkBatches\` | how often a publication met a thread that slept (35 to 40 us until it is awake) |
| \`sleeps\` / \`busyRounds\` | how often there was nothing left to do |
| (\`cpuUserUs\` + \`cpuSystemUs\`) of a thread / frames or bytes of its stage | what the stage costs |

## Distributions

| measured | unit | |
|---|---|---|
${rows(HISTOGRAMS)}
`;
}
