/** docs/counters.md, from the tables of counters and histograms. */
import { COUNTERS } from '../ring/counters.ts';
import { HISTOGRAMS } from '../ring/histograms.ts';

/** The whole page. */
export function countersMarkdown(): string {
  const rows = (table: readonly { name: string; unit: string; help: string }[]): string =>
    table.map(({ name, unit, help }) => `| \`${name}\` | ${unit} | ${help} |`).join('\n');
  return `# Counters

Written by \`scripts/cli-docs.mjs\` from \`src/ring/counters.ts\` and \`src/ring/histograms.ts\`; a test compares.

\`--stats\` prints them when the engine ends: the sum over all packet threads and, where there are several, each thread's own. A counter
that is 0 is left out. Every thread counts for itself with plain additions, so counting orders nothing and costs about a nanosecond.

| counter | unit | |
|---|---|---|
${rows(COUNTERS)}

Packets that are lost on the way are counted by cause as \`drop.CAUSE\`.

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
