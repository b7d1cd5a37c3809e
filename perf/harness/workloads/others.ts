/** Workloads: UDP like a BitTorrent client's, short container starts, idling. */
import { TORRENT } from '../matrix.ts';
import type { Guest, Peer } from '../peers.ts';
import { cpuSeconds, memoryMib, run, sleep, until } from '../processes.ts';
import { median } from '../report/statistics.ts';
import type { World } from '../world.ts';
import {
  failure,
  nextPort,
  type Outcome,
  runClient,
  startServer,
  toolDied,
  trafficProgram,
  type Usage,
  type Workload,
  withUsage,
} from './context.ts';
import { cpuValues, RECEIVED_NOTHING, shortcoming } from './iperf.ts';

interface ManyUdpReport {
  readonly sent: number;
  readonly received: number;
}

const GRACE_MS = 5000;
/** Peers that receive nothing give up after ten seconds (traffic/many-udp.ts) and report it. */
const PEERS_MS = 12_000;

export const torrent: Workload<'torrent'> = async ({ world, guest, abort }, _traffic, { seconds }) => {
  const { peers, datagramBytes, mbitEachWay } = TORRENT;
  const load = [nextPort(peers), peers, datagramBytes, mbitEachWay, seconds] as const;
  const server = await startServer(world.inPeer(trafficProgram('many-udp', 'peer', ...load)));
  try {
    const { value: here, usage } = await withUsage(guest, () =>
      runClient<ManyUdpReport>(
        guest.inside(trafficProgram('many-udp', 'guest', ...load, world.peerAddress(4))),
        seconds * 1000 + GRACE_MS,
        abort,
      ),
    );
    const there = await until('the peers of the torrent', PEERS_MS, () => {
      const line = server.output.split('\n').find((each) => each.startsWith('{'));
      if (line === undefined && !server.running) throw new Error(`peers: ${server.output}`);
      return line === undefined ? null : (JSON.parse(line) as ManyUdpReport);
    });
    return torrentOutcome(here, there, usage, seconds);
  } finally {
    await server.stop();
  }
};

/** A side that sent less than this share of its load did not offer the intended load. */
const OFFERED_SHARE = 0.5;

export function torrentOutcome(
  guest: ManyUdpReport,
  peers: ManyUdpReport,
  usage: Usage | null,
  seconds: number,
): Outcome {
  const { datagramBytes, mbitEachWay } = TORRENT;
  const sent = guest.sent + peers.sent;
  const received = guest.received + peers.received;
  if (guest.sent === 0) return failure('the guest could not send anything');
  const due = (mbitEachWay * 1e6 * seconds) / 8 / datagramBytes;
  const little = (who: string, side: ManyUdpReport) =>
    side.sent > 0 &&
    side.sent < OFFERED_SHARE * due &&
    `${who} sent only ${Math.round((100 * side.sent) / due)} % of the load`;
  return {
    values: {
      mbit: (received * datagramBytes * 8) / seconds / 1e6,
      lossPercent: (100 * (sent - received)) / sent,
      ...cpuValues(usage, received * datagramBytes, seconds),
    },
    error: shortcoming([
      received === 0 && RECEIVED_NOTHING,
      // The peers send only after they received a datagram from the guest.
      received > 0 && guest.received === 0 && 'nothing arrived at the guest',
      received > 0 && peers.received === 0 && 'nothing arrived at the peers',
      little('the guest', guest),
      little('the peers', peers),
    ]),
  };
}

const START_TIMEOUT_MS = 10_000;

export async function start(
  world: World,
  peer: Peer,
  mtu: number,
  starts: number,
  abort: AbortSignal,
): Promise<Outcome> {
  const took: number[] = [];
  const argv = peer.startArgv(world, mtu);
  for (let i = 0; i < starts && !abort.aborted; i++) {
    const beganMs = performance.now();
    const { status, stderr } = await run(argv, START_TIMEOUT_MS, abort);
    if (status !== 0) return failure(stderr.trim().split('\n').at(-1) || `status ${status}`);
    took.push(performance.now() - beganMs);
  }
  const startMs = median(took);
  return startMs === null ? failure('ended early') : { values: { startMs }, error: null };
}

const TICKS_PER_SECOND = 100;
const SLICE_MS = 500;

/** Measures all guests at once: idle tools do not disturb each other, and the period is the same for all. */
export async function idle(
  guests: readonly { readonly name: string; readonly guest: Guest }[],
  seconds: number,
  abort: AbortSignal,
): Promise<Map<string, Outcome>> {
  const used = ({ toolPids, holder }: Guest): number => cpuSeconds(toolPids, holder);
  const tools = guests
    .filter(({ guest }) => guest.toolPids.length > 0)
    .map((tool) => ({ ...tool, before: used(tool.guest) }));
  const end = performance.now() + seconds * 1000;
  while (performance.now() < end && !abort.aborted) await sleep(SLICE_MS);
  return new Map(
    tools.map(({ name, guest, before }): [string, Outcome] => {
      // A process that has ended has no memory and no time in /proc, which would look like the best figures.
      if (!guest.alive()) return [name, toolDied(guest)];
      const { rss, peak } = memoryMib(guest.toolPids, guest.holder);
      const cpuTicks = Math.round((used(guest) - before) * TICKS_PER_SECOND);
      return [name, { values: { cpuTicks, rssMib: rss, peakRssMib: peak }, error: null }];
    }),
  );
}
