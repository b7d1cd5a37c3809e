/** Measures what the model needs: plans in turn, each with its threads' counters and both ends' time. */
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { describeMachine } from '../harness/machine.ts';
import { type Argv, Daemon, run, sleep, until } from '../harness/processes.ts';
import {
  type Direction,
  type Protocol,
  parseIperf,
  parseStats,
  type Run,
  type RunsFile,
  type Start,
} from './runs.ts';

const BUCATINI = fileURLToPath(new URL('../../bin/bucatini', import.meta.url));
/** An address that nothing has: inside it stands for the host's loopback. */
const LOOPBACK_INSIDE = '192.0.2.1';
const PORT = 5299;
const PLANS = ['fused', 'pipeline=1', 'lanes=2'];
const START_SECONDS = 2;
const UDP_BYTES = 1400;
/** Time beyond a command's seconds. */
const GRACE_MS = 10_000;
/** Start of the engine; and what the sample of idle cores leaves out at both ends. */
const EDGE_MS = 800;

interface Kind {
  readonly protocol: Protocol;
  readonly direction: Direction;
  readonly streams: number;
}

const KINDS: readonly Kind[] = [
  ...[1, 16].flatMap((streams): Kind[] => [
    { protocol: 'tcp', direction: 'up', streams },
    { protocol: 'tcp', direction: 'down', streams },
  ]),
  { protocol: 'udp', direction: 'up', streams: 4 },
];

/** @throws Error with the last line of output when the command fails */
async function bucatini(
  plan: string,
  options: readonly string[],
  command: readonly string[],
  seconds: number,
) {
  const argv: Argv = [BUCATINI, 'run', '--threads', plan, '--stats', ...options, '--', ...command];
  const { status, stdout, stderr } = await run(argv, seconds * 1000 + GRACE_MS);
  if (status !== 0)
    throw new Error(`bucatini run --threads ${plan}: ${(stdout + stderr).trim().split('\n').at(-1)}`);
  return { stdout, stderr };
}

/** Wait for the middle of a transfer that begins now. @returns cores that were idle then */
async function idleCores(seconds: number): Promise<number> {
  // The first line of /proc/stat: user, nice, system, idle, ... in ticks of all cores together.
  const sample = () => {
    const ticks =
      readFileSync('/proc/stat', 'latin1').split('\n')[0]?.split(/ +/).slice(1, 9).map(Number) ?? [];
    return { total: ticks.reduce((sum, n) => sum + n, 0), idle: ticks[3] ?? 0 };
  };
  await sleep(EDGE_MS);
  const before = sample();
  await sleep(Math.max(EDGE_MS, seconds * 1000 - EDGE_MS));
  const after = sample();
  return ((after.idle - before.idle) / (after.total - before.total)) * availableParallelism();
}

async function transfer(plan: string, kind: Kind, round: number, seconds: number): Promise<Run> {
  const { protocol, direction, streams } = kind;
  const flags = [
    ...['-t', `${seconds}`, '-P', `${streams}`, '-p', `${PORT}`],
    ...(protocol === 'udp' ? ['-u', '-b', '0', '-l', `${UDP_BYTES}`] : []),
    ...(direction === 'down' ? ['-R'] : []),
  ];
  const client = ['iperf3', '-J', '-c', LOOPBACK_INSIDE, ...flags];
  const name = `${plan} ${protocol} ${direction} ${streams}`;
  const options = ['--host-loopback', LOOPBACK_INSIDE];
  const [{ stdout, stderr }, idle] = await Promise.all([
    bucatini(plan, options, client, seconds),
    idleCores(seconds),
  ]);
  return {
    ...{ plan, protocol, direction, streams, round },
    ...parseIperf(stdout, protocol, name),
    idleCores: idle,
    threads: parseStats(stderr, name),
  };
}

/**
 * Measure, with progress on standard error.
 * @param seconds  of each transfer
 * @throws Error when a program is missing or a transfer fails
 */
export async function measure(seconds: number, rounds: number): Promise<RunsFile> {
  const { cpu, cores, kernel, iperf3, commit } = await describeMachine();
  const server = new Daemon(['iperf3', '-s', '-B', '127.0.0.1', '-p', `${PORT}`, '--forceflush']);
  try {
    await until('iperf3 -s', 5000, () => (server.output.includes('listening') ? true : null));
    const starts: Start[] = [];
    for (const plan of PLANS) {
      const { stderr } = await bucatini(plan, [], ['sleep', `${START_SECONDS}`], START_SECONDS);
      starts.push({ plan, threads: parseStats(stderr, plan) });
    }
    const runs: Run[] = [];
    for (let round = 1; round <= rounds; round++)
      for (const kind of KINDS)
        for (const plan of round % 2 === 0 ? PLANS.toReversed() : PLANS) {
          const done = await transfer(plan, kind, round, seconds);
          runs.push(done);
          const { protocol, direction, streams } = kind;
          const gbit = ((done.bytes * 8) / done.seconds / 1e9).toFixed(2);
          process.stderr.write(
            `round ${round}, ${plan}, ${protocol} ${direction} ${streams}: ${gbit} Gbit/s\n`,
          );
        }
    const machine = { cpu, cores, kernel, iperf3, commit };
    return { schema: 1, date: new Date().toISOString().slice(0, 10), machine, starts, runs };
  } finally {
    await server.stop();
  }
}
