/**
 * Cost of each packet thread, and the throughput to expect with more cores.
 *
 *   scripts/node.sh perf/scaling.ts --measure RUNS.json [--seconds 3] [--rounds 2]     measure fused, pipeline=1, lanes=2
 *   scripts/node.sh perf/scaling.ts RUNS.json                                          tables in Markdown
 *
 * scaling/model.ts has the formulas. The model takes the cost of a unit as constant: it has no term for caches
 * and memory bandwidth that more threads share, and none for clock rates, so it is an upper bound.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { parseArgs } from 'node:util';
import { measure } from './scaling/measure.ts';
import { report } from './scaling/report.ts';
import { parseRuns } from './scaling/runs.ts';

const USAGE =
  'usage: scripts/node.sh perf/scaling.ts --measure RUNS.json [--seconds N] [--rounds N] | scripts/node.sh perf/scaling.ts RUNS.json';

const HELP = `${USAGE}

Costs of each packet thread per byte and per datagram, and the throughput to expect with more cores (docs/scaling.md).

  --measure FILE   measure fused, pipeline=1 and lanes=2 in turn, and write the runs to FILE; needs iperf3, no root
  --seconds N      length of each measurement (3)
  --rounds N       times through all plans (2)
  --help           this text

Without --measure: print the tables for the runs in RUNS.json, in Markdown.`;

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      measure: { type: 'string' },
      seconds: { type: 'string', default: '3' },
      rounds: { type: 'string', default: '2' },
      help: { type: 'boolean', short: 'h' },
    },
  });
  if (values.help) return console.log(HELP);
  const [seconds, rounds] = [Number(values.seconds), Number(values.rounds)];
  if (!(seconds >= 1 && rounds >= 1) || (values.measure === undefined) !== (positionals.length === 1))
    throw new Error(USAGE);
  if (values.measure !== undefined)
    return writeFileSync(values.measure, `${JSON.stringify(await measure(seconds, rounds))}\n`);
  const [file = ''] = positionals;
  console.log(report(parseRuns(readFileSync(file, 'utf8'), basename(file))));
}

try {
  await main();
} catch (error) {
  console.error(`scaling: ${error instanceof Error ? error.message : error}`);
  process.exitCode = 1;
}
