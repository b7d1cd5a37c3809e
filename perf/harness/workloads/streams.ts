/**
 * Workloads: request and response, connections per second, and many idle flows, with our own clients on
 * blocking sockets.
 */

import { Daemon, sleep, until } from '../processes.ts';
import type { LatencySummary } from '../traffic/latency.ts';
import { HOST_ADDRESS } from '../world.ts';
import {
  type Context,
  failure,
  memoryValues,
  nextPort,
  type Outcome,
  runClient,
  startServer,
  trafficProgram,
  type Usage,
  type Workload,
  withUsage,
} from './context.ts';
import { tcp } from './iperf.ts';

interface StreamReport extends LatencySummary {
  readonly failed: number;
  /** Error of the first failure. */
  readonly firstFailure?: string | null;
  readonly perSecond: number;
}

const CONNECT_BYTES = 64;
const GRACE_MS = 6000;
/** Time for the kernel and the tool to finish with flows that were reset. */
const SETTLE_MS = 500;
const HOLD_TIMEOUT_MS = 30_000;
const COUNT_TIMEOUT_MS = 5000;

async function exchange(
  context: Context,
  mode: 'echo' | 'once',
  bytes: number,
  seconds: number,
  inbound: boolean,
): Promise<Outcome> {
  const { world, guest, abort } = context;
  const port = inbound ? guest.servicePort : nextPort();
  const serverArgv = trafficProgram('stream-server', mode, port, bytes);
  const server = await startServer(inbound ? guest.inside(serverArgv) : world.inPeer(serverArgv));
  try {
    const client = inbound
      ? world.inPeer(trafficProgram('stream-client', mode, HOST_ADDRESS, guest.publishedPort, bytes, seconds))
      : guest.inside(trafficProgram('stream-client', mode, world.peerAddress(4), port, bytes, seconds));
    const { value, usage } = await withUsage(guest, () =>
      runClient<StreamReport>(client, seconds * 1000 + GRACE_MS, abort),
    );
    return streamOutcome(value, usage, seconds, server.running);
  } finally {
    await server.stop();
  }
}

/** @param serverLives  whether the server was running all the time */
export function streamOutcome(
  report: StreamReport,
  usage: Usage | null,
  seconds: number,
  serverLives: boolean,
): Outcome {
  if (!serverLives) return failure('the server died');
  const met = report.firstFailure ? ` (the first by ${report.firstFailure})` : '';
  if (report.count === 0) return failure(`nothing was answered, ${report.failed} attempts failed${met}`);
  const { perSecond, p50Us, p99Us, p999Us, distribution, failed } = report;
  return {
    values: {
      perSecond,
      p50Us,
      p99Us,
      p999Us,
      ...(usage === null ? {} : { cpuPercent: (usage.cpuSeconds / seconds) * 100 }),
      ...memoryValues(usage),
    },
    distribution,
    error:
      failed === 0
        ? null
        : `${failed} attempts failed${met}, each counts as one that took all of its time-out`,
  };
}

export const request: Workload<'request'> = (context, traffic, { seconds }) =>
  exchange(context, 'echo', traffic.bytes, seconds, false);

export const connections: Workload<'connect'> = (context, traffic, { seconds }) =>
  exchange(context, 'once', CONNECT_BYTES, seconds, traffic.inbound);

/**
 * Open idle flows, then measure one busy stream beside them. The tool's memory is measured while all flows
 * are open.
 */
export const flows: Workload<'flows'> = async (context, traffic, cell) => {
  const { world, guest, abort } = context;
  const port = nextPort();
  const server = await startServer(world.inPeer(trafficProgram('stream-server', 'hold', port, 1)));
  const holder = new Daemon(
    guest.inside(trafficProgram('stream-client', 'hold', world.peerAddress(4), port, 1, traffic.count)),
  );
  try {
    const count = await until('idle flows', HOLD_TIMEOUT_MS, () => {
      if (abort.aborted) return 0;
      if (!holder.running) throw new Error(`idle flows: ${holder.output || 'ended at once'}`);
      const said = /"flows":(\d+)/.exec(holder.output)?.[1];
      return said === undefined ? null : Number(said);
    });
    const busy = await tcp(
      context,
      {
        kind: 'tcp',
        direction: 'up',
        streams: 1,
        family: 4,
        paceMbit: null,
        line: null,
        inbound: false,
        processes: 1,
      },
      cell,
    );
    // Flows that were lost during the busy stream were not held, so memory was measured with fewer flows.
    holder.child.kill('SIGUSR2');
    const open = await until('count of the idle flows', COUNT_TIMEOUT_MS, () => {
      if (!holder.running) throw new Error(`idle flows: ${holder.output || 'ended'}`);
      const said = /"open":(\d+)/.exec(holder.output)?.[1];
      return said === undefined ? null : Number(said);
    });
    const errors = [
      count < traffic.count && `only ${count} of ${traffic.count} flows could be opened`,
      open < count && `${count - open} of ${count} flows did not last`,
      !server.running && 'the server died',
      busy.error ?? false,
    ].filter((each) => each !== false);
    return { values: { ...busy.values, flows: open }, error: errors.join('; ') || null };
  } finally {
    // The server is stopped first, so that its resets reach the guest through the tool.
    await server.stop();
    await sleep(SETTLE_MS);
    await holder.stop();
  }
};
