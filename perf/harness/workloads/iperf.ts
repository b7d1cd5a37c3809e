/** TCP and UDP throughput by iperf3: a server for each run, a client, the tool's CPU time around it. */
import type { Direction } from '../matrix.ts';
import type { Guest } from '../peers.ts';
import type { Argv } from '../processes.ts';
import { CONGESTION_CONTROL, HOST_ADDRESS, type World } from '../world.ts';
import {
  type Context,
  failure,
  memoryValues,
  nextPort,
  type Outcome,
  runClient,
  startServer,
  type Usage,
  type Workload,
  withUsage,
} from './context.ts';

/** The fields of iperf3's report that we read. */
export interface IperfReport {
  readonly error?: string;
  readonly end?: Readonly<Partial<Record<SumName, IperfSum>>>;
}

type SumName = 'sum' | 'sum_sent' | 'sum_received' | 'sum_sent_bidir_reverse' | 'sum_received_bidir_reverse';

export interface IperfSum {
  readonly bits_per_second?: number;
  readonly bytes?: number;
  readonly seconds?: number;
  readonly retransmits?: number;
  readonly packets?: number;
  readonly lost_packets?: number;
  readonly jitter_ms?: number;
}

interface Ends {
  readonly server: Argv;
  readonly client: Argv;
}

/** Which end is where, and how the client finds the server. */
function ends(world: World, guest: Guest, family: 4 | 6, inbound: boolean): Ends {
  const port = inbound ? guest.servicePort : nextPort();
  const server: Argv = ['iperf3', '-s', '-1', '--forceflush', '-p', `${port}`];
  const client = (address: string, at: number): Argv => [
    'iperf3',
    '-c',
    address,
    '-p',
    `${at}`,
    '-J',
    '--connect-timeout',
    '2000',
  ];
  return inbound
    ? { server: guest.inside(server), client: world.inPeer(client(HOST_ADDRESS, guest.publishedPort)) }
    : { server: world.inPeer(server), client: guest.inside(client(world.peerAddress(family), port)) };
}

export async function iperf(
  context: Context,
  family: 4 | 6,
  inbound: boolean,
  flags: readonly string[],
  timeoutMs: number,
): Promise<IperfReport> {
  const { world, guest, abort } = context;
  const { server: serverArgv, client } = ends(world, guest, family, inbound);
  try {
    // A server for this client alone: nothing of a run that failed is left for the next one.
    const server = await startServer(serverArgv);
    try {
      return await runClient<IperfReport>([...client, ...flags], timeoutMs, abort);
    } finally {
      if (server.running) await server.stop();
    }
  } catch (error) {
    return { error: error instanceof Error ? error.message : `${error}` };
  }
}

/** -R for what comes to the guest; the client is in the guest, or for a published port at the peer. */
function directionFlags(direction: Direction, inbound: boolean): string[] {
  if (direction === 'both') return ['--bidir'];
  return (direction === 'down') === inbound ? [] : ['-R'];
}

/** Beyond the seconds themselves: connecting, draining what is queued, the report. */
const GRACE_MS = 8000;
const GIB_BYTES = 2 ** 30;

export const tcp: Workload<'tcp'> = async (context, traffic, { seconds }) => {
  const flags = [
    '-t',
    `${seconds}`,
    '-P',
    `${traffic.streams}`,
    '-C',
    CONGESTION_CONTROL,
    ...directionFlags(traffic.direction, traffic.inbound),
    ...(traffic.paceMbit === null ? [] : ['-b', `${traffic.paceMbit / traffic.streams}M`]),
  ];
  const { value, usage } = await withUsage(context.guest, () =>
    iperf(context, traffic.family, traffic.inbound, flags, seconds * 1000 + GRACE_MS),
  );
  return tcpOutcome(value, usage, seconds);
};

/** @param seconds nominal length, for the share of a processor */
export function tcpOutcome(report: IperfReport, usage: Usage | null, seconds: number): Outcome {
  const { end } = report;
  if (report.error !== undefined || end?.sum_received === undefined)
    return failure(report.error ?? 'no result in the report');
  const received = [end.sum_received, end.sum_received_bidir_reverse];
  const sent = [end.sum_sent, end.sum_sent_bidir_reverse];
  const sum = (sums: readonly (IperfSum | undefined)[], field: keyof IperfSum) =>
    sums.reduce((total, each) => total + (each?.[field] ?? 0), 0);
  const bytes = sum(received, 'bytes');
  return {
    values: {
      mbit: sum(received, 'bits_per_second') / 1e6,
      retransmits: sum(sent, 'retransmits'),
      ...cpuValues(usage, bytes, seconds),
    },
    error: null,
  };
}

export function cpuValues(usage: Usage | null, bytes: number, seconds: number): Outcome['values'] {
  if (usage === null) return {};
  return {
    ...(bytes > 0 ? { cpuSecondsPerGib: usage.cpuSeconds / (bytes / GIB_BYTES) } : {}),
    cpuPercent: (usage.cpuSeconds / seconds) * 100,
    ...memoryValues(usage),
  };
}

export const udp: Workload<'udp'> = async (context, traffic, { seconds }) => {
  const flags = [
    '-u',
    '-l',
    `${traffic.datagramBytes}`,
    '-b',
    traffic.offerMbit === null ? '0' : `${traffic.offerMbit}M`,
    '-t',
    `${seconds}`,
    ...(traffic.direction === 'down' ? ['-R'] : []),
  ];
  const { value, usage } = await withUsage(context.guest, () =>
    iperf(context, 4, false, flags, seconds * 1000 + GRACE_MS),
  );
  return udpOutcome(value, usage, traffic.datagramBytes);
};

export function udpOutcome(report: IperfReport, usage: Usage | null, datagramBytes: number): Outcome {
  const sum = report.end?.sum;
  if (report.error !== undefined || !sum) return failure(report.error ?? 'no result in the report');
  const { packets = 0, lost_packets: lost = 0, seconds = 0, jitter_ms: jitterMs = 0 } = sum;
  if (packets === 0 || seconds === 0) return failure('no datagram arrived');
  const arrived = packets - lost;
  return {
    values: {
      mbit: (arrived * datagramBytes * 8) / seconds / 1e6,
      packetsPerSecond: arrived / seconds,
      lossPercent: (100 * lost) / packets,
      jitterMs,
      ...cpuValues(usage, arrived * datagramBytes, seconds),
    },
    error: null,
  };
}
