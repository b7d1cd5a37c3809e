/**
 * The part of the harness that the user starts: check the command line and the tools, create namespaces,
 * start the inside there.
 */
import { spawn } from 'node:child_process';
import { LIFELINE_FD } from './inside.ts';
import { helpText, parseOptions, UsageError } from './options.ts';
import { removeEmpty, tryOutputs } from './outputs.ts';
import { run } from './processes.ts';
import { namespacesForbidden } from './world.ts';

export const INSIDE = 'BUCATINI_HARNESS_INSIDE';

const NEEDED = [
  ['iperf3', 'iperf3'],
  ['ip', 'iproute2'],
  ['unshare', 'util-linux'],
  ['nsenter', 'util-linux'],
] as const;

export async function outside(main: string, argv: readonly string[]): Promise<number> {
  const options = parseOptions(argv);
  if (options === null) {
    console.log(helpText());
    return 0;
  }
  for (const [program, name] of NEEDED)
    if ((await run([program, '-V'])).status === null && (await run([program, '--version'])).status === null)
      throw new UsageError(`${program} is missing: apt-get install ${name} (or scripts/setup.sh perf)`);
  const forbidden = await namespacesForbidden();
  if (forbidden !== null) throw new UsageError(forbidden);
  const made = options.showPlan ? [] : tryOutputs(options.outputs);
  // Where a new /proc may not be mounted (in some containers), there is no PID namespace, and the inside
  // kills the processes it started.
  const pidNamespace = ['-pf', '--mount-proc', '--kill-child'];
  const hasPidNamespace = (await run(['unshare', '-Urnm', ...pidNamespace, 'true'])).status === 0;
  const child = spawn(
    'unshare',
    ['-Urnm', ...(hasPidNamespace ? pidNamespace : []), process.execPath, ...process.execArgv, main, ...argv],
    { stdio: ['inherit', 'inherit', 'inherit', 'pipe'], env: { ...process.env, [INSIDE]: '1' } },
  );
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
