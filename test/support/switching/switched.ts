/** `bucatini run --switch-sockets` in the test bed, with programs that are children of its COMMAND. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import type { Bed, EngineOptions } from '../bed.ts';
import { repoRoot } from '../engines.ts';
import {
  commandLine,
  descendantsOf,
  eventually,
  type Finished,
  killTree,
  type RunOptions,
  type Started,
} from '../process.ts';
import type { Need } from '../require.ts';

const START_MS = 10_000;
const STOP_MS = 5000;

/** The system's interpreter rather than a version manager's: a start of that one takes 100 ms. */
export const PYTHON = existsSync('/usr/bin/python3') ? '/usr/bin/python3' : 'python3';

/** Python with modules that python3-minimal lacks. */
export const requirePython: Need = () =>
  spawnSync(PYTHON, ['-c', 'import asyncio, ctypes']).status === 0
    ? undefined
    : 'python3 with asyncio and ctypes is missing: apt packages python3-minimal and libpython3-stdlib';

/** A Python program of test/support/switching, as a command line. */
export const pythonProgram = (file: string, ...args: (string | number)[]): string[] => [
  PYTHON,
  `${repoRoot}/test/support/switching/${file}`,
  ...args.map(String),
];

/** A program inside. */
export interface Job {
  /** The output so far. */
  printed(): { stdout: string; stderr: string };
  /** Resolves when the program has ended. */
  readonly finished: Promise<Finished>;
  /** Send a signal to the program and its children. */
  kill(signal: number): void;
}

export interface SwitchedRun {
  /** The front end. */
  readonly started: Started;
  start(argv: readonly string[], options?: RunOptions): Job;
  /** Run a program inside to its end. @throws Error at the time limit */
  run(argv: readonly string[], options?: RunOptions): Promise<Finished>;
  /** The process that answers connect(), as the test process sees it. */
  supervisorPid(): number;
  /** COMMAND, as the test process sees it. */
  commandPid(): number;
  stop(): Promise<number>;
}

/**
 * Start it.
 * @param argv  of another program than `bucatini run` with options; `jobs.py` is appended as its COMMAND
 */
export async function startSwitched(
  bed: Bed,
  options: EngineOptions = {},
  argv?: readonly string[],
): Promise<SwitchedRun> {
  const jobs = pythonProgram('jobs.py');
  const started =
    argv === undefined
      ? bed.launch(options, jobs)
      : bed.start('user', [...argv, ...jobs], { env: { HOME: bed.ramDir } });
  interface State {
    readonly startedAt: number;
    stdout: string;
    stderr: string;
    end(status: number): void;
  }
  const running = new Map<number, State>();
  let rest = '';
  let ready = false;
  started.process.stdout?.on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      const event = JSON.parse(line);
      const state = running.get(event.id);
      if (event.ready) ready = true;
      if (state === undefined) continue;
      state.stdout += event.out ?? '';
      state.stderr += event.err ?? '';
      if (event.status !== undefined) state.end(event.status);
    }
  });
  await Promise.race([
    eventually('COMMAND runs', START_MS, () => ready),
    started.exited.then((status) => {
      throw new Error(`it ended with status ${status}: ${started.printed().stderr}`);
    }),
  ]).catch((e: Error) => {
    killTree(started.pid);
    throw new Error(`${e.message}\n${started.printed().stderr}`);
  });

  let serial = 0;
  const send = (request: object): void => {
    started.process.stdin?.write(`${JSON.stringify(request)}\n`);
  };
  const start = (command: readonly string[], runOptions: RunOptions = {}): Job => {
    const id = ++serial;
    const state: State = { startedAt: performance.now(), stdout: '', stderr: '', end: () => {} };
    const finished = new Promise<Finished>((resolve) => {
      state.end = (status) => {
        running.delete(id);
        const { stdout, stderr } = state;
        resolve({ status, stdout, stderr, ms: Math.round(performance.now() - state.startedAt) });
      };
    });
    running.set(id, state);
    send({ id, argv: command, input: runOptions.input ?? '' });
    started.exited.then((status) => state.end(status));
    return { printed: () => state, finished, kill: (signal) => send({ id, kill: signal }) };
  };
  const found = (pattern: RegExp): number => {
    const pid = descendantsOf(started.pid).find((one) => commandLine(one).some((word) => pattern.test(word)));
    if (pid === undefined) throw new Error(`no process ${pattern}`);
    return pid;
  };
  return {
    started,
    start,
    async run(command, runOptions = {}) {
      const job = start(command, runOptions);
      const limit = runOptions.timeoutMs ?? 20_000;
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<never>((_, reject) => {
        timer = setTimeout(() => {
          job.kill(9);
          const { stdout, stderr } = job.printed();
          reject(new Error(`not ended after ${limit} ms: ${command.join(' ')}\n${stdout}\n${stderr}`));
        }, limit);
      });
      return await Promise.race([job.finished, late]).finally(() => clearTimeout(timer));
    },
    supervisorPid: () => found(/switch-supervisor(\.js)?$/),
    commandPid: () =>
      descendantsOf(started.pid).findLast((one) => commandLine(one)[1]?.endsWith('switching/jobs.py')) ?? 0,
    async stop() {
      started.process.stdin?.end();
      const late = setTimeout(() => killTree(started.pid), STOP_MS);
      const status = await started.exited;
      clearTimeout(late);
      return status;
    },
  };
}
