/**
 * Main module of scripts/iperf-harness.sh and `bucatini bench`: measures bucatini and the stock tools, interleaved, in new
 * namespaces.
 *
 *   outside: check the command line and the tools, create the namespaces, start itself in them
 *   inside:  build the test network; for each MTU start every peer, measure cell by cell, stop them; report
 *
 * The PID namespace cleans up: when its first process (the inside) ends, the kernel kills all other processes
 * in it. With the last process the namespaces, links and addresses disappear too.
 */
import { inside } from './inside.ts';
import { ownName, UsageError } from './options.ts';
import { INSIDE, outside } from './outside.ts';
import { programWords } from './programs.ts';
import { say } from './progress.ts';

const argv = process.argv.slice(2);
const isInside = process.env[INSIDE] === '1';
// A terminal that is gone must not end a run whose results are still to be written.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
try {
  process.exitCode = isInside ? await inside(argv) : await outside(programWords('main'), argv);
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  say(`${ownName()}: ${error.message}`);
  process.exitCode = 2;
}
if (isInside) process.exit();
