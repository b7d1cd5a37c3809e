/** Parameters and results of a workload, and functions that workloads share. */
import type { Cell } from '../matrix.ts';
import type { Guest } from '../peers.ts';
import { type Argv, cpuSeconds, Daemon, memoryMib, run, until } from '../processes.ts';
import { type PROGRAMS, programWords } from '../programs.ts';
import type { Measurement } from '../result.ts';
import type { World } from '../world.ts';

export type Outcome = Pick<Measurement, 'values' | 'error' | 'distribution'>;

export interface Context {
  readonly world: World;
  readonly guest: Guest;
  readonly abort: AbortSignal;
}

export const failure = (error: string): Outcome => ({ values: {}, error });

const FIRST_PORT = 5201;
/** The peer's ports are used in turn, so that connections left by one run do not disturb the next. */
const PORTS = 1000;
let portIndex = 0;
export const nextPort = (count = 1): number => {
  if (portIndex + count > PORTS) portIndex = 0;
  const port = FIRST_PORT + portIndex;
  portIndex += count;
  return port;
};

export const trafficProgram = (
  name: Exclude<keyof typeof PROGRAMS, 'main' | 'line-emulator' | 'contained'>,
  ...args: readonly (string | number)[]
): Argv => [...programWords(name), ...args.map(String)];

/**
 * Start a server and wait until it reports that it listens.
 * @throws Error with its output when it does not
 */
export async function startServer(argv: Argv): Promise<Daemon> {
  const server = new Daemon(argv);
  await until(argv.slice(-6).join(' '), 8000, () => {
    if (!server.running) throw new Error(`server: ${server.output || 'ended at once'}`);
    return server.output.includes('listening') ? true : null;
  }).catch(async (error) => {
    await server.stop();
    throw error;
  });
  return server;
}

/**
 * Run a client and parse the JSON that it prints.
 * @throws Error with its output when that is not complete JSON
 */
export async function runClient<T>(argv: Argv, timeoutMs: number, abort: AbortSignal): Promise<T> {
  const { stdout, stderr } = await run(argv, timeoutMs, abort);
  const late = `no answer in ${timeoutMs / 1000} s`;
  if (stdout.trim() === '') throw new Error(lastLines(stderr) || late);
  try {
    return JSON.parse(stdout) as T;
  } catch (cause) {
    throw new Error(`the client ended in the middle of its report: ${lastLines(stderr) || late}`, { cause });
  }
}

/** Outcome when the tool has ended during a measurement: no figures, whatever the client reports. */
export const toolDied = (guest: Guest): Outcome =>
  failure(`the tool died: ${guest.words().split('\n').at(-1) || 'without a word'}`);

/** The last lines of a program's output, joined to one line. */
export const lastLines = (text: string): string =>
  text
    .trim()
    .split('\n')
    .filter((line) => /error|cannot|refused|failed|no /i.test(line))
    .slice(0, 2)
    .join(' / ') || text.trim().split('\n').slice(-2).join(' / ');

export interface Usage {
  readonly cpuSeconds: number;
  readonly rssMib: number;
  readonly peakRssMib: number;
}

/**
 * CPU time of the tool's process trees during `work`, and its memory afterwards; null when there is no tool.
 */
export async function withUsage<T>(
  guest: Guest,
  work: () => Promise<T>,
): Promise<{ value: T; usage: Usage | null }> {
  const { toolPids, holder } = guest;
  if (toolPids.length === 0) return { value: await work(), usage: null };
  const before = cpuSeconds(toolPids, holder);
  const value = await work();
  const cpu = cpuSeconds(toolPids, holder) - before;
  const memory = memoryMib(toolPids, holder);
  return { value, usage: { cpuSeconds: cpu, rssMib: memory.rss, peakRssMib: memory.peak } };
}

export const memoryValues = (usage: Usage | null): Outcome['values'] =>
  usage === null ? {} : { rssMib: usage.rssMib, peakRssMib: usage.peakRssMib };

export type Workload<Kind extends Cell['traffic']['kind']> = (
  context: Context,
  traffic: Extract<Cell['traffic'], { kind: Kind }>,
  cell: Pick<Cell, 'seconds' | 'mtu'>,
) => Promise<Outcome>;
