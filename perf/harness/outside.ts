/**
 * The part of the harness that the user starts: check the command line and the tools, create namespaces,
 * start the inside there.
 */
import { spawn } from 'node:child_process';
import { compared, readResult } from './comparing.ts';
import { LIFELINE_FD } from './inside.ts';
import { helpText, type Options, parseOptions, UsageError } from './options.ts';
import { printReport, removeEmpty, tryOutputs, writeOutput } from './outputs.ts';
import { run } from './processes.ts';
import { isBuilt } from './programs.ts';
import { say } from './progress.ts';
import { CHECK_FAILED, checkFailures } from './report/gate.ts';
import type { Result } from './result.ts';
import { namespacesForbidden } from './world.ts';

export const INSIDE = 'BUCATINI_HARNESS_INSIDE';

const NEEDED = [
  ['iperf3', 'iperf3'],
  ['ip', 'iproute2'],
  ['unshare', 'util-linux'],
  ['nsenter', 'util-linux'],
] as const;

/** `--compare` with two files. @returns the status */
function compareFiles({ compare, check, requirements, outputs }: Options, old: Result, file: string): number {
  const now = readResult(file);
  const { comparison, markdown, html, json } = compared(old, compare?.old ?? '', now, file);
  tryOutputs(outputs);
  let status = printReport(markdown) ? 0 : 1;
  for (const output of outputs)
    if (!writeOutput(output, output.flag === '--html' ? html() : json())) status = 1;
  const failures = check ? checkFailures(now, comparison, requirements) : [];
  for (const failure of failures) say(`check: ${failure}`);
  return failures.length > 0 ? CHECK_FAILED : status;
}

/** @param main  the command line that starts the harness again */
export async function outside(main: readonly string[], argv: readonly string[]): Promise<number> {
  const options = parseOptions(argv);
  if (options === null) {
    return printReport(helpText()) ? 0 : 1;
  }
  if (options.compare !== null) {
    const old = readResult(options.compare.old);
    if (options.compare.now !== null) return compareFiles(options, old, options.compare.now);
  }
  for (const [program, name] of NEEDED)
    if ((await run([program, '-V'])).status === null && (await run([program, '--version'])).status === null)
      throw new UsageError(
        `${program} is missing: apt-get install ${name}${isBuilt ? '' : ' (or scripts/setup.sh perf)'}`,
      );
  const forbidden = await namespacesForbidden();
  if (forbidden !== null) throw new UsageError(forbidden);
  const made = options.showPlan ? [] : tryOutputs(options.outputs);
  // Where a new /proc may not be mounted (in some containers), there is no PID namespace, and the inside
  // kills the processes it started.
  const pidNamespace = ['-pf', '--mount-proc', '--kill-child'];
  const hasPidNamespace = (await run(['unshare', '-Urnm', ...pidNamespace, 'true'])).status === 0;
  const child = spawn('unshare', ['-Urnm', ...(hasPidNamespace ? pidNamespace : []), ...main, ...argv], {
    stdio: ['inherit', 'inherit', 'inherit', 'pipe'],
    env: { ...process.env, [INSIDE]: '1' },
  });
  // Ctrl-C reaches the inside through the terminal, any other reason to end through the end of this pipe.
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(name, () => {
      const lifeline = child.stdio[LIFELINE_FD];
      if (lifeline && 'end' in lifeline) lifeline.end();
    });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (status, signal) => {
      removeEmpty(made);
      resolve(status ?? (signal === 'SIGINT' ? 130 : 1));
    });
  });
}
