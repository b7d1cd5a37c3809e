// bundle: rare
/**
 * `bucatini selftest`: runs the real launcher and engine in a test network (world.ts), with real programs at
 * both ends. The launcher has put this process into a user, mount and network namespace of its own: this is
 * the "host" of the test.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { createInterface, type Interface } from 'node:readline';
import { isatty } from 'node:tty';
import { fileURLToPath } from 'node:url';
import { packageRoot, programCommand } from '#runtime/program';
import { RouteSocket } from '../../../sys/netlink.ts';
import { findProgram } from '../../process/command.ts';
import { print } from '../../process/output.ts';
import type { StepReport } from './client.ts';
import { addDefaultRoutes, configureEnd, HOST, LINK, OUTSIDE, PORT, tuneNamespace } from './world.ts';

/** Time limit for the whole client. The steps' own limits add up to more: beyond this, something hangs. */
const CLIENT_LIMIT_MS = 60_000;
const NAME_WIDTH = 18;

/**
 * Build the network, run the client, print each step.
 * @returns the exit status
 */
export async function selftest(): Promise<number> {
  const startedAt = performance.now();
  const failures: StepReport[] = [];
  let steps = 0;
  const progress = new Progress(startedAt);
  const printStep = (report: StepReport): void => {
    progress.clear();
    if (steps++ === 0) print(`${'step'.padEnd(NAME_WIDTH)}result  figure\n`);
    print(`${report.step.padEnd(NAME_WIDTH)}${(report.ok ? 'ok' : 'FAILED').padEnd(8)}${report.text}\n`);
    if (!report.ok) failures.push(report);
    progress.show(steps);
  };
  let peer: Child | undefined;
  try {
    peer = await buildWorld();
    printStep({
      step: 'world',
      ok: true,
      text: `two namespaces and a veth in ${(performance.now() - startedAt).toFixed(0)} ms`,
    });
    await runClient(printStep);
  } catch (error) {
    printStep({ step: steps === 0 ? 'world' : 'run', ok: false, text: (error as Error).message });
  } finally {
    progress.clear();
    peer?.process.kill('SIGKILL');
  }
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
  if (failures.length === 0) {
    print(`\nselftest passed: ${steps} steps in ${seconds} s\n`);
    return 0;
  }
  const first = failures[0]!;
  print(
    `\nselftest FAILED: ${failures.length} of ${steps} steps in ${seconds} s; first: ${first.step}: ${first.text}\n`,
  );
  return 1;
}

/** Steps of a run that does not fail. */
const STEPS = 22;
/** Each of the two speed tests per family takes 1 s, all other steps together as long as one of them. */
const USUAL_STEP_MS = 230;

/** A line on a terminal, below the steps, that says how many there are and how long they will take. */
class Progress {
  readonly #startedAt: number;
  readonly #shown = isatty(1) && process.env.TERM !== 'dumb';

  constructor(startedAt: number) {
    this.#startedAt = startedAt;
  }

  /** @param done  steps */
  show(done: number): void {
    if (!this.#shown || done >= STEPS) return;
    // A step of a slow machine takes longer, so the rest is estimated from what was.
    const perStepMs = Math.max(USUAL_STEP_MS, (performance.now() - this.#startedAt) / done);
    print(`${done} of ${STEPS} steps, about ${Math.ceil(((STEPS - done) * perStepMs) / 1000)} s left`);
  }

  clear(): void {
    if (this.#shown) print('\r\x1b[K');
  }
}

interface Child {
  readonly process: ChildProcess;
  readonly lines: Interface;
}

/** Start the peer, move one end of the veth into its namespace, configure our end. */
async function buildWorld(): Promise<Child> {
  tuneNamespace();
  const child = spawn(
    findProgram('unshare', `/usr/bin:/bin:${process.env.PATH ?? ''}`),
    ['--net', '--', ...programCommand('peer', 'main/bucatini/selftest/peer')],
    {
      stdio: ['pipe', 'pipe', 'inherit'],
    },
  );
  const peer = { process: child, lines: createInterface(child.stdout!) };
  await line(peer, 'new');
  const route = new RouteSocket();
  const peerNamespace = openSync(`/proc/${child.pid}/ns/net`, 'r');
  route.createVeth(LINK, LINK, peerNamespace);
  closeSync(peerNamespace);
  child.stdin!.write('go\n');
  configureEnd(route, HOST, false);
  addDefaultRoutes(route);
  route.close();
  await line(peer, 'ready');
  return peer;
}

async function line(child: Child, expected: string): Promise<void> {
  const ended = once(child.process, 'exit').then(([code]) => {
    throw new Error(`the peer ended with status ${code}`);
  });
  ended.catch(() => {});
  const [got] = (await Promise.race([once(child.lines, 'line'), ended])) as [string];
  if (got !== expected) throw new Error(`the peer printed "${got}", not "${expected}"`);
}

/** Run `bucatini run` with the client as COMMAND. Each line that the client prints is a report. */
async function runClient(printStep: (report: StepReport) => void): Promise<void> {
  const launcher = fileURLToPath(new URL('bin/bucatini', packageRoot));
  const startedAt = performance.now();
  const child = spawn(
    launcher,
    [
      ...['run', '--dns', OUTSIDE.v4, '--publish', `${PORT.published}`, '--'],
      ...programCommand('selftest-client', 'main/bucatini/selftest/client'),
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const timer = setTimeout(() => child.kill('SIGKILL'), CLIENT_LIMIT_MS);
  const ended = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
  let reports = 0;
  for await (const text of createInterface(child.stdout)) {
    const report = JSON.parse(text) as StepReport;
    if (reports++ > 0) printStep(report);
    else
      printStep({
        ...report,
        text: `COMMAND runs ${(performance.now() - startedAt).toFixed(0)} ms after the start`,
      });
  }
  const [code, signal] = await ended;
  clearTimeout(timer);
  if (code !== 0) throw new Error(`bucatini run ended with ${signal ?? `status ${code}`}`);
  if (reports === 0) throw new Error('the client printed nothing');
}
