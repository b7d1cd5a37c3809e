/**
 * `--soak`: mixed load on one bucatini for a long time. Three lanes run concurrently, each repeating its own
 * pieces of load; memory and descriptors are sampled meanwhile. The verdict needs more than three minutes:
 * two for warming up, and the third as the base that the rest is compared with.
 */
import type { Cell } from './matrix.ts';
import { descriptorCount, framesDropped, memoryMib, sleep } from './processes.ts';
import { Progress, say } from './progress.ts';
import type { Soak, SoakSample } from './result.ts';
import type { Context, Outcome } from './workloads/context.ts';
import { tcp, udp } from './workloads/iperf.ts';
import { torrent } from './workloads/others.ts';
import { connections, flows, request } from './workloads/streams.ts';

const SAMPLE_MS = 10_000;
/** The first two minutes are warm-up: caches, compiled code, the first timeouts. */
const BASE_FROM_SECONDS = 120;
const BASE_TO_SECONDS = 180;
const LAST_SECONDS = 60;
/** At the end two samples may be missing. */
const MISSED_SECONDS = 20;
/** Growth that garbage not yet collected may cause. */
const RSS_SLACK = 1.03;
/** Growth that flows which have not timed out yet may cause. */
const DESCRIPTOR_SLACK = 1.1;
const DESCRIPTOR_SLACK_COUNT = 16;

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
    processes: 1,
  } as const;
  return (context) => tcp(context, traffic, piece(seconds));
};
const piece = (seconds: number): Pick<Cell, 'seconds' | 'mtu'> => ({ seconds, mtu: 0 });
const datagrams = (direction: 'up' | 'down', datagramBytes: number): Piece => {
  const traffic = { kind: 'udp', direction, datagramBytes, offerMbit: 100 } as const;
  return (context) => udp(context, traffic, piece(3));
};

/** The pieces of each lane. The report counts them by name. */
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

/** All pieces: each has to be completed at least once, because an unfinished piece proves nothing. */
const ALL_PIECES = LANES.flatMap((lane) => Object.keys(lane));

export type SoakRecord = Pick<Soak, 'samples' | 'errors' | 'pieces' | 'minutes'>;

/**
 * The verdict of a soak, with the figures it rests on. Samples of the third minute, the base, are compared
 * with those after it. To pass:
 *
 * - Memory: the peak after the base is at most RSS_SLACK times that of the base. The resident memory of the
 *   process tree contains the runtime's heap and our tables. A heap that is collected late goes up and down; its peak
 *   is what a machine has to have. A leak, however slow, raises the peak.
 * - Descriptors: the minimum of the last minute is compared with that of the base. How much of a burst of a
 *   thousand connections a sample sees is chance; the minimum shows what remains between bursts.
 * - There was no error, every kind of load was carried, and the soak ran its whole time: one that was ended,
 *   or whose load stopped, proves nothing.
 *
 * Pure.
 */
export function judge({ samples, errors, pieces, minutes }: SoakRecord): {
  verdict: string;
  passed: boolean;
} {
  const between = (from: number, to: number) => samples.filter(({ second }) => second > from && second <= to);
  const base = between(BASE_FROM_SECONDS, BASE_TO_SECONDS);
  const rest = between(BASE_TO_SECONDS, Number.POSITIVE_INFINITY);
  const lastSecond = samples.at(-1)?.second ?? 0;
  const last = rest.filter(({ second }) => second > lastSecond - LAST_SECONDS);
  const said: string[] = [];
  let passed = true;
  const fail = (why: string): void => {
    said.push(why);
    passed = false;
  };
  if (errors.length > 0) fail(`${errors.length} error${errors.length === 1 ? '' : 's'}`);
  const missing = ALL_PIECES.filter((name) => !pieces[name]);
  if (missing.length > 0) fail(`never carried: ${missing.join(', ')}`);
  if (lastSecond < minutes * 60 - MISSED_SECONDS) fail(`ended after ${lastSecond} s of ${minutes} minutes`);
  if (base.length === 0 || rest.length === 0) {
    fail('too short to judge growth (4 minutes are needed)');
    return { verdict: said.join('; '), passed };
  }
  const highestRss = (of: readonly SoakSample[]) => Math.max(...of.map(({ rssMib }) => rssMib));
  const fewest = (of: readonly SoakSample[]) => Math.min(...of.map(({ descriptors }) => descriptors));
  const rss = [highestRss(base), highestRss(rest)] as const;
  const stay = [fewest(base), fewest(last)] as const;
  const memory = `at most ${rss[0].toFixed(1)} MiB in the third minute, ${rss[1].toFixed(1)} MiB later (${percent(rss[1] / rss[0])})`;
  if (rss[1] > rss[0] * RSS_SLACK) fail(`memory grew: ${memory}`);
  else said.push(`memory did not grow: ${memory}`);
  const open = `at least ${stay[0]} in the third minute, ${stay[1]} in the last`;
  if (stay[1] > stay[0] * DESCRIPTOR_SLACK + DESCRIPTOR_SLACK_COUNT) fail(`descriptors grew: ${open}`);
  else said.push(`descriptors did not grow: ${open}`);
  return { verdict: said.join('; '), passed };
}

const percent = (ratio: number): string => `${ratio < 1 ? '' : '+'}${(100 * (ratio - 1)).toFixed(1)} %`;

export async function soak(context: Context, peer: string, minutes: number): Promise<Soak> {
  const { guest, abort } = context;
  const [pid] = guest.toolPids;
  if (pid === undefined) throw new Error(`--soak: ${peer} has no process to watch`);
  const beganMs = performance.now();
  const totalMs = minutes * 60_000;
  const pieces: Record<string, number> = {};
  const errors: string[] = [];
  const samples: SoakSample[] = [];
  const isOver = () => abort.aborted || performance.now() - beganMs >= totalMs || !guest.alive();

  const seconds = (): number => Math.round((performance.now() - beganMs) / 1000);
  // The pieces offer what they offer, whatever the machine can carry: where the queue of the TAP overflows,
  // frames of every flow are lost, and a connection of a few frames can miss its time-out.
  const queueWasFull = (before: number): string => {
    const frames = framesDropped(pid, guest.holder) - before;
    return frames > 0 ? ` (meanwhile ${frames} frames did not fit in the queue of the TAP)` : '';
  };

  const lane = async (of: Readonly<Record<string, Piece>>): Promise<void> => {
    for (;;)
      for (const [name, perform] of Object.entries(of)) {
        if (isOver()) return;
        let error: string | null;
        const dropsBefore = framesDropped(pid, guest.holder);
        try {
          ({ error } = await perform(context));
        } catch (thrown) {
          error = thrown instanceof Error ? thrown.message : `${thrown}`;
        }
        if (abort.aborted) return;
        if (error === null) pieces[name] = (pieces[name] ?? 0) + 1;
        else errors.push(`${seconds()} s, ${name}: ${error}${queueWasFull(dropsBefore)}`);
      }
  };
  const sampling = (async () => {
    for (let due = SAMPLE_MS; !isOver(); due += SAMPLE_MS) {
      while (performance.now() - beganMs < due && !isOver()) await sleep(100);
      if (!guest.alive() || abort.aborted) break;
      const second = seconds();
      const rssMib = memoryMib([pid], guest.holder).rss;
      const descriptors = descriptorCount(pid);
      samples.push({ second, rssMib, descriptors });
      say(
        `[${Progress.time(Math.max(0, minutes * 60 - second))} left] ${rssMib.toFixed(0)} MiB, ${descriptors} descriptors, ${errors.length} errors`,
      );
    }
  })();
  await Promise.all([sampling, ...LANES.map(lane)]);
  if (!guest.alive() && !abort.aborted) errors.push(`the tool died: ${guest.words().split('\n').at(-1)}`);
  const record: SoakRecord = { minutes, samples, pieces, errors };
  return { peer, ...record, ...judge(record) };
}
