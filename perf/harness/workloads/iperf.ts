/**
 * TCP and UDP throughput by iperf3: for each run a server and a client, and the tool's CPU time during it.
 */
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
  readonly end?: Readonly<Partial<Record<SumName, IperfSum>>> & {
    /** TCP: one per stream, two per stream with --bidir. */
    readonly streams?: readonly { readonly receiver?: IperfSum }[];
  };
}

type SumName = 'sum' | 'sum_sent' | 'sum_received' | 'sum_sent_bidir_reverse' | 'sum_received_bidir_reverse';

export interface IperfSum {
  readonly bits_per_second?: number;
  readonly bytes?: number;
  readonly seconds?: number;
  readonly retransmits?: number;
  readonly packets?: number;
  readonly jitter_ms?: number;
}

interface Ends {
  readonly server: Argv;
  readonly client: Argv;
}

/** Where client and server run, and the server's address and port. */
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
    // A new server for each client, so that a failed run does not affect the next one.
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

/** -R for traffic to the client. The client runs in the guest, or for a published port at the peer. */
function directionFlags(direction: Direction, inbound: boolean): string[] {
  if (direction === 'both') return ['--bidir'];
  return (direction === 'down') === inbound ? [] : ['-R'];
}

/** Time beyond the measured seconds: connecting, draining queues, the report. */
const GRACE_MS = 8000;
const GIB_BYTES = 2 ** 30;
/** The outcome is a figure of 0, not a missing one: the tool was running and carried nothing. */
export const RECEIVED_NOTHING = 'the receiver got nothing';

export const tcp: Workload<'tcp'> = async (context, traffic, { seconds }) => {
  const flags = [
    '-t',
    `${seconds}`,
    '-P',
    `${traffic.streams / traffic.processes}`,
    '-C',
    CONGESTION_CONTROL,
    ...directionFlags(traffic.direction, traffic.inbound),
    ...(traffic.paceMbit === null ? [] : ['-b', `${traffic.paceMbit / traffic.streams}M`]),
  ];
  const one = () => iperf(context, traffic.family, traffic.inbound, flags, seconds * 1000 + GRACE_MS);
  const { value, usage } = await withUsage(context.guest, () =>
    Promise.all(Array.from({ length: traffic.processes }, one)),
  );
  return tcpOutcome(joined(value), usage, seconds);
};

const SUM_NAMES = [
  'sum_sent',
  'sum_received',
  'sum_sent_bidir_reverse',
  'sum_received_bidir_reverse',
] as const satisfies readonly SumName[];

/**
 * The report of transfers at the same time as one: rates, bytes and retransmits added, the shortest time. An
 * error of one is the error of all.
 */
export function joined(reports: readonly IperfReport[]): IperfReport {
  const [first = {}] = reports;
  if (reports.length < 2) return first;
  const failed = reports.find(({ error, end }) => error !== undefined || end === undefined);
  if (failed) return { error: failed.error ?? 'no result in the report' };
  const sums = SUM_NAMES.flatMap((name) => {
    const those = reports.flatMap(({ end }) => end?.[name] ?? []);
    if (those.length === 0) return [];
    const total = (field: keyof IperfSum) => those.reduce((all, each) => all + (each[field] ?? 0), 0);
    const seconds = those.flatMap((each) => each.seconds ?? []);
    return [
      [
        name,
        {
          bits_per_second: total('bits_per_second'),
          bytes: total('bytes'),
          retransmits: total('retransmits'),
          ...(seconds.length === 0 ? {} : { seconds: Math.min(...seconds) }),
        },
      ] as const,
    ];
  });
  return {
    end: { ...Object.fromEntries(sums), streams: reports.flatMap(({ end }) => end?.streams ?? []) },
  };
}

/** A transfer shorter than this share of the requested time was interrupted. */
const WHOLE_SHARE = 0.8;

/** Remarks on a transfer that has figures, joined; null: none. */
export function shortcoming(notes: readonly (string | false)[]): string | null {
  return notes.filter((note) => note !== false).join('; ') || null;
}

const cutShort = (ran: number | undefined, seconds: number): string | false =>
  ran !== undefined &&
  ran < WHOLE_SHARE * seconds &&
  `the transfer ended after ${ran.toFixed(1)} of ${seconds} s`;

/**
 * Figures from the receiver's count alone: the sender's count is only the offered load.
 * @param seconds nominal length, for the share of a processor
 */
export function tcpOutcome(report: IperfReport, usage: Usage | null, seconds: number): Outcome {
  const { end } = report;
  if (report.error !== undefined || end?.sum_received === undefined)
    return failure(report.error ?? 'no result in the report');
  const received = [end.sum_received, end.sum_received_bidir_reverse].filter((each) => each !== undefined);
  const sent = [end.sum_sent, end.sum_sent_bidir_reverse];
  const sum = (sums: readonly (IperfSum | undefined)[], field: keyof IperfSum) =>
    sums.reduce((total, each) => total + (each?.[field] ?? 0), 0);
  const bytes = sum(received, 'bytes');
  const streams = end.streams ?? [];
  const stalled = streams.filter(({ receiver }) => receiver?.bytes === 0).length;
  return {
    values: {
      mbit: bytes === 0 ? 0 : sum(received, 'bits_per_second') / 1e6,
      retransmits: sum(sent, 'retransmits'),
      ...cpuValues(usage, bytes, seconds),
    },
    error: shortcoming([
      bytes === 0 && RECEIVED_NOTHING,
      bytes > 0 && received.some((each) => (each.bytes ?? 0) === 0) && 'one direction carried nothing',
      bytes > 0 && stalled > 0 && `${stalled} of ${streams.length} streams carried nothing`,
      bytes > 0 && cutShort(Math.min(...received.map((each) => each.seconds ?? seconds)), seconds),
    ]),
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
  return udpOutcome(value, usage, traffic.datagramBytes, seconds);
};

/**
 * Figures from the receiver's count, as with TCP. iperf3's `sum` is not usable: its bytes and packets are the
 * sender's, and its losses are only the gaps that the receiver saw, none when nothing arrived.
 */
export function udpOutcome(
  report: IperfReport,
  usage: Usage | null,
  datagramBytes: number,
  seconds: number,
): Outcome {
  const { end } = report;
  if (report.error !== undefined || !end) return failure(report.error ?? 'no result in the report');
  const { sum_sent: offered, sum_received: received } = end;
  if (offered === undefined || received?.bytes === undefined)
    return failure('this iperf3 does not say what the receiver got; 3.12 does');
  const { packets: sent = 0 } = offered;
  if (sent === 0) return failure('no datagram was sent');
  const arrived = received.bytes / datagramBytes;
  const ran = received.seconds ?? 0;
  return {
    values: {
      mbit: arrived === 0 || ran === 0 ? 0 : (received.bytes * 8) / ran / 1e6,
      packetsPerSecond: arrived === 0 || ran === 0 ? 0 : arrived / ran,
      // Duplicates do not make the loss negative.
      lossPercent: Math.max(0, 100 * (1 - arrived / sent)),
      ...(arrived === 0 ? {} : { jitterMs: received.jitter_ms ?? 0 }),
      ...cpuValues(usage, received.bytes, seconds),
    },
    error: shortcoming([
      arrived === 0 && RECEIVED_NOTHING,
      arrived > 0 && cutShort(Math.min(offered.seconds ?? seconds, ran), seconds),
    ]),
  };
}
