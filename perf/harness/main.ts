/**
 * scripts/iperf-harness.sh: bucatini beside the stock tools, interleaved, in namespaces of its own.
 *
 *   outside: check the command line and what is here, make user, network, mount and PID namespaces, start itself there
 *   inside:  build the bed, then for each MTU start every peer, go round them cell by cell, stop them; print the report
 *
 * The PID namespace is the cleaner: when its first process (we, inside) ends, whatever way, the kernel ends
 * all that was started in it, and with the last process the namespaces, the links and the addresses go too.
 */
import { fileURLToPath } from 'node:url';
import { inside } from './inside.ts';
import { UsageError } from './options.ts';
import { INSIDE, outside } from './outside.ts';
import { say } from './progress.ts';

const argv = process.argv.slice(2);
const isInside = process.env[INSIDE] === '1';
try {
  process.exitCode = isInside ? await inside(argv) : await outside(fileURLToPath(import.meta.url), argv);
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  say(`iperf-harness: ${error.message}`);
  process.exitCode = 2;
}
if (isInside) process.exit();
