/**
 * One measurement: an iperf3 server in the peer namespace, a client in a guest, the tool's CPU time around it.
 */
import { readFileSync } from 'node:fs';
import type { Options } from './options.ts';
import type { Guest } from './peers.ts';
import { type Argv, cpuSeconds, Daemon, run, sleep, until } from './processes.ts';
import { CONGESTION_CONTROL, type World } from './world.ts';

export const DIRECTIONS = ['up', 'down'] as const;
export type Direction = (typeof DIRECTIONS)[number];

export interface Measurement {
  readonly mtu: number;
  readonly round: number;
  readonly peer: string;
  readonly direction: Direction;
  /** What arrived; 0 when the run failed. */
  readonly mbit: number;
  readonly retransmits: number;
  /** CPU time of the tool's process tree per GiB that arrived; null for no tool. */
  readonly cpuSecondsPerGib: number | null;
  readonly error: string | null;
}

/** The fields of iperf3's report that we read. */
interface IperfReport {
  readonly error?: string;
  readonly end?: {
    readonly sum_received?: { readonly bits_per_second: number; readonly bytes: number };
    readonly sum_sent?: { readonly retransmits?: number };
  };
}

const FIRST_PORT = 5201;
const PORTS = 64;
let portIndex = 0;

async function client(
  world: World,
  guest: Guest,
  timeoutMs: number,
  abort: AbortSignal,
  flags: readonly string[],
) {
  const port = `${FIRST_PORT + (portIndex++ % PORTS)}`;
  // A server for this client alone: nothing of a run that failed is left for the next one.
  const server = new Daemon(world.inPeer(['iperf3', '-s', '-1', '--forceflush', '-p', port]));
  try {
    await until('iperf3 -s', 5000, () => {
      if (!server.running) throw new Error(`iperf3 -s: ${server.output}`);
      return server.output.includes('listening') ? true : null;
    });
    const argv: Argv = [
      'iperf3',
      '-c',
      world.peerAddress,
      '-p',
      port,
      '-J',
      '--connect-timeout',
      '2000',
      ...flags,
    ];
    const { stdout, stderr } = await run(guest.inside(argv), timeoutMs, abort);
    if (stdout.trim() === '') return { error: stderr.trim() || `no answer in ${timeoutMs / 1000} s` };
    return JSON.parse(stdout) as IperfReport;
  } catch (error) {
    return { error: error instanceof Error ? error.message : `${error}` };
  } finally {
    if (server.running) await server.stop();
  }
}

/** Wait until a new guest reaches the peer. @returns what stands in the way, or null */
export async function reaches(world: World, guest: Guest, abort: AbortSignal): Promise<string | null> {
  const end = performance.now() + 15_000;
  let report: IperfReport = {};
  do {
    report = await client(world, guest, 4000, abort, ['-n', '1K']);
    if (report.error === undefined) return null;
  } while (performance.now() < end && !abort.aborted);
  return `${report.error}${guest.words() === '' ? '' : `; it said: ${guest.words().split('\n').slice(-3).join(' / ')}`}`;
}

const IDLE_SHARE = 0.9;
const IDLE_SAMPLE_MS = 300;

/** Wait until the machine has been idle for a moment, `seconds` at most. */
async function quiet(seconds: number, abort: AbortSignal): Promise<void> {
  const end = performance.now() + seconds * 1000;
  // The first line of /proc/stat: user, nice, system, idle, ... in ticks of all cores together.
  const sample = () => {
    const ticks = readFileSync('/proc/stat', 'latin1').split('\n')[0]?.split(/ +/).slice(1).map(Number) ?? [];
    return { total: ticks.reduce((sum, n) => sum + n, 0), idle: ticks[3] ?? 0 };
  };
  while (performance.now() < end && !abort.aborted) {
    const before = sample();
    await sleep(IDLE_SAMPLE_MS);
    const after = sample();
    if (after.idle - before.idle >= IDLE_SHARE * (after.total - before.total)) return;
  }
}

export async function measure(
  world: World,
  guest: Guest,
  options: Options,
  direction: Direction,
  abort: AbortSignal,
): Promise<Pick<Measurement, 'mbit' | 'retransmits' | 'cpuSecondsPerGib' | 'error'>> {
  const flags = ['-t', `${options.seconds}`, '-P', `${options.streams}`, '-C', CONGESTION_CONTROL];
  if (direction === 'down') flags.push('-R');
  await quiet(options.idleSeconds, abort);
  const cpuBefore = guest.toolPid === null ? 0 : cpuSeconds(guest.toolPid);
  const report = await client(world, guest, options.seconds * 1000 + 10_000, abort, flags);
  const cpuAfter = guest.toolPid === null ? 0 : cpuSeconds(guest.toolPid);
  const received = report.end?.sum_received;
  if (report.error !== undefined || received === undefined)
    return {
      mbit: 0,
      retransmits: 0,
      cpuSecondsPerGib: null,
      error: report.error ?? 'no result in the report',
    };
  const gib = received.bytes / 2 ** 30;
  return {
    mbit: received.bits_per_second / 1e6,
    retransmits: report.end?.sum_sent?.retransmits ?? 0,
    cpuSecondsPerGib: guest.toolPid === null || gib === 0 ? null : (cpuAfter - cpuBefore) / gib,
    error: null,
  };
}
