/**
 * `--soak`: mixed load on one bucatini for a long time. Three lanes run beside one another, each going round its own pieces;
 * memory and descriptors are sampled meanwhile. The verdict needs at least three minutes: the first is for growing up,
 * the second is what the rest is held against.
 */
import type { Cell } from './matrix.ts';
import { descriptorCount, memoryMib, sleep } from './processes.ts';
import { Progress, say } from './progress.ts';
import type { Soak, SoakSample } from './result.ts';
import type { Context, Outcome } from './workloads/context.ts';
import { tcp, udp } from './workloads/iperf.ts';
import { torrent } from './workloads/others.ts';
import { connections, flows, request } from './workloads/streams.ts';

const SAMPLE_MS = 10_000;
const WARM_SECONDS = 60;
const BASE_SECONDS = 60;
const LAST_SECONDS = 60;
/** What a garbage collector may be behind by, and what flows that are still to time out may hold. */
const RSS_SLACK = 1.1;
const RSS_SLACK_MIB = 8;
const DESCRIPTOR_SLACK = 1.2;
const DESCRIPTOR_SLACK_COUNT = 32;

type Piece = (context: Context) => Promise<Outcome>;

const stream = (direction: 'up' | 'down' | 'both', streams: number, seconds: number): Piece => {
  const traffic = {
    kind: 'tcp',
    direction,
    streams,
    family: 4,
    paceMbit: null,
    line: null,
    inbound: false,
  } as const;
  return (context) => tcp(context, traffic, piece(seconds));
};
const piece = (seconds: number): Pick<Cell, 'seconds' | 'mtu'> => ({ seconds, mtu: 0 });
const datagrams = (direction: 'up' | 'down', datagramBytes: number): Piece => {
  const traffic = { kind: 'udp', direction, datagramBytes, offerMbit: 100 } as const;
  return (context) => udp(context, traffic, piece(3));
};

/** Names are what the report counts by. */
const LANES: readonly Readonly<Record<string, Piece>>[] = [
  {
    'tcp up': stream('up', 1, 3),
    'tcp down': stream('down', 4, 3),
    'tcp both ways': stream('both', 16, 3),
    '1,000 flows': (context) => flows(context, { kind: 'flows', count: 1000 }, piece(2)),
  },
  {
    'udp 1400 up': datagrams('up', 1400),
    'udp 64 down': datagrams('down', 64),
    'udp fragments up': datagrams('up', 8192),
    torrent: (context) => torrent(context, { kind: 'torrent' }, piece(3)),
  },
  {
    requests: (context) => request(context, { kind: 'request', bytes: 64 }, piece(3)),
    connections: (context) => connections(context, { kind: 'connect', inbound: false }, piece(3)),
    'connections in': (context) => connections(context, { kind: 'connect', inbound: true }, piece(3)),
  },
];

/**
 * No growth after the first minute: the second minute is held against what comes after. Memory by its highest, as a heap keeps what it
 * once had. Descriptors by the lowest of each, the end by its last minute: what a sample meets of a burst of a thousand connections is
 * chance, what is left between bursts is what stays. Pure.
 */
export function judge(
  samples: readonly SoakSample[],
  errors: readonly string[],
): { verdict: string; passed: boolean } {
  const between = (from: number, to: number) => samples.filter(({ second }) => second > from && second <= to);
  const base = between(WARM_SECONDS, WARM_SECONDS + BASE_SECONDS);
  const rest = between(WARM_SECONDS + BASE_SECONDS, Number.POSITIVE_INFINITY);
  const lastSecond = samples.at(-1)?.second ?? 0;
  const last = rest.filter(({ second }) => second > lastSecond - LAST_SECONDS);
  const said: string[] = [];
  let passed = errors.length === 0;
  if (errors.length > 0) said.push(`${errors.length} errors`);
  if (base.length === 0 || rest.length === 0) {
    said.push('too short to judge growth (3 minutes are needed)');
    passed = false;
  } else {
    const highestRss = (of: readonly SoakSample[]) => Math.max(...of.map(({ rssMib }) => rssMib));
    const fewest = (of: readonly SoakSample[]) => Math.min(...of.map(({ descriptors }) => descriptors));
    const rss = [highestRss(base), highestRss(rest)] as const;
    const stay = [fewest(base), fewest(last)] as const;
    const rssGrew = rss[1] > rss[0] * RSS_SLACK + RSS_SLACK_MIB;
    const descriptorsGrew = stay[1] > stay[0] * DESCRIPTOR_SLACK + DESCRIPTOR_SLACK_COUNT;
    said.push(
      `memory ${rssGrew ? 'grew' : 'did not grow'}: at most ${rss[0].toFixed(0)} MiB in the second minute, ${rss[1].toFixed(0)} MiB later`,
      `descriptors ${descriptorsGrew ? 'grew' : 'did not grow'}: at least ${stay[0]} in the second minute, ${stay[1]} in the last`,
    );
    passed &&= !rssGrew && !descriptorsGrew;
  }
  return { verdict: said.join('; '), passed };
}

export async function soak(context: Context, peer: string, minutes: number): Promise<Soak> {
  const { guest, abort } = context;
  const pid = guest.toolPid;
  if (pid === null) throw new Error(`--soak: ${peer} has no process to watch`);
  const beganMs = performance.now();
  const totalMs = minutes * 60_000;
  const pieces: Record<string, number> = {};
  const errors: string[] = [];
  const samples: SoakSample[] = [];
  const isOver = () => abort.aborted || performance.now() - beganMs >= totalMs || !guest.alive();

  const lane = async (of: Readonly<Record<string, Piece>>): Promise<void> => {
    for (;;)
      for (const [name, perform] of Object.entries(of)) {
        if (isOver()) return;
        let error: string | null;
        try {
          ({ error } = await perform(context));
        } catch (thrown) {
          error = thrown instanceof Error ? thrown.message : `${thrown}`;
        }
        if (abort.aborted) return;
        pieces[name] = (pieces[name] ?? 0) + 1;
        if (error !== null)
          errors.push(`${Math.round((performance.now() - beganMs) / 1000)} s, ${name}: ${error}`);
      }
  };
  const sampling = (async () => {
    for (let due = SAMPLE_MS; !isOver(); due += SAMPLE_MS) {
      while (performance.now() - beganMs < due && !isOver()) await sleep(100);
      if (!guest.alive() || abort.aborted) break;
      const second = Math.round((performance.now() - beganMs) / 1000);
      const rssMib = memoryMib(pid, guest.holder).rss;
      const descriptors = descriptorCount(pid);
      samples.push({ second, rssMib, descriptors });
      say(
        `[${Progress.time(Math.max(0, minutes * 60 - second))} left] ${rssMib.toFixed(0)} MiB, ${descriptors} descriptors, ${errors.length} errors`,
      );
    }
  })();
  await Promise.all([sampling, ...LANES.map(lane)]);
  if (!guest.alive() && !abort.aborted) errors.push(`the tool died: ${guest.words().split('\n').at(-1)}`);
  return { peer, minutes, samples, pieces, errors, ...judge(samples, errors) };
}
