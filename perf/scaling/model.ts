/**
 * The model: what each packet thread costs, and the throughput to expect with more cores. Pure.
 *
 * A unit is a byte of TCP or a datagram of UDP. With t ns per unit in a thread and e ns per unit in both ends of
 * the connections, C cores carry at most C / (sum of t + e) units per ns, and
 *
 *   pipeline=N   the minimum of  1 / t_reader,  N / t_shard,  1 / t_hostIo
 *   lanes=N      lanes that have a flow / t_lane(N)
 *
 * For one flow N is 1: a flow belongs to one shard. t_lane(N) is the cost in a lane plus that of frames that the
 * kernel put on another lane's queue. Where it chooses the queue by hash, it chooses the wrong one of N with
 * probability (N - 1) / N. So a share s of such frames, measured with M lanes, becomes s (N - 1) M / N (M - 1).
 */
import type { Direction, Protocol, Run, RunsFile, Threads } from './runs.ts';

/** One thread during the runs of one kind. */
export interface ThreadCost {
  readonly name: string;
  /** Share of one core. */
  readonly busy: number;
  /** Over the units of all threads. */
  readonly nsPerUnit: number;
  /** Of all units, those whose sockets this thread has; 0 for a thread without sockets. */
  readonly share: number;
  /** Frames read from the TAP and written to it. */
  readonly frames: number;
  /** Processor time over these frames; null: there were none. */
  readonly nsPerFrame: number | null;
  readonly framesFromGuest: number;
  readonly handedOver: number;
  readonly handOverFull: number;
  readonly wakes: number;
}

/** The runs of one kind, all rounds added up. */
export interface Pooled {
  readonly plan: string;
  readonly protocol: Protocol;
  readonly direction: Direction;
  readonly streams: number;
  readonly seconds: number;
  readonly units: number;
  /** ns per unit in the iperf3 client and server. */
  readonly clientNs: number;
  readonly serverNs: number;
  readonly idleCores: number;
  readonly threads: readonly ThreadCost[];
}

const sum = <T>(items: readonly T[], of: (item: T) => number): number =>
  items.reduce((total, item) => total + of(item), 0);

export const laneCount = (plan: string): number => {
  if (plan === 'fused') return 1;
  return Number(/^lanes=(\d+)$/.exec(plan)?.[1] ?? 0);
};

/** Units per ns. */
export const measuredRate = ({ units, seconds }: Pooled): number => units / seconds / 1e9;
export const endsNs = ({ clientNs, serverNs }: Pooled): number => clientNs + serverNs;
/** Processor time of all packet threads. */
export const enginesNs = ({ threads }: Pooled): number => sum(threads, ({ nsPerUnit }) => nsPerUnit);

/** Cores that the packet threads and both ends used. */
export const usedCores = (run: Pooled): number => measuredRate(run) * (enginesNs(run) + endsNs(run));
/**
 * Cores that the packet threads and both ends could have used: all but those of other processes, of the
 * runtime's own threads and of softirqs outside of these threads.
 */
export const freeCores = (run: Pooled): number => usedCores(run) + run.idleCores;

/** Share of the frames from the guest that another lane than the owner read. */
export function handedOverShare({ threads }: Pooled): number {
  const frames = sum(threads, ({ framesFromGuest }) => framesFromGuest);
  return frames === 0 ? 0 : sum(threads, ({ handedOver }) => handedOver) / frames;
}

const cpuUs = (threads: Threads | undefined, name: string): number =>
  (threads?.[name]?.cpuUserUs ?? 0) + (threads?.[name]?.cpuSystemUs ?? 0);

/** What the sockets of a thread carried, in units; with UDP both directions, one of which is negligible. */
function carried(threads: Threads, name: string, protocol: Protocol): number {
  const counters = threads[name] ?? {};
  return protocol === 'udp'
    ? (counters.datagramsToHost ?? 0) + (counters.datagramsToGuest ?? 0)
    : (counters.sockSendBytes ?? 0) + (counters.sockConsumeBytes ?? 0);
}

function pool(runs: readonly Run[], start: Threads | undefined): Pooled {
  const { plan, protocol, direction, streams, threads } = runs[0]!;
  const seconds = sum(runs, (run) => run.seconds);
  const units = sum(runs, (run) => (protocol === 'udp' ? run.datagrams : run.bytes));
  const names = Object.keys(threads);
  const all = sum(runs, (run) => sum(names, (name) => carried(run.threads, name, protocol)));
  return {
    ...{ plan, protocol, direction, streams, seconds, units },
    clientNs: (sum(runs, (run) => run.clientSeconds) * 1e9) / units,
    serverNs: (sum(runs, (run) => run.serverSeconds) * 1e9) / units,
    idleCores: sum(runs, (run) => run.idleCores * run.seconds) / seconds,
    threads: names.map((name) => {
      const count = (counter: string): number => sum(runs, (run) => run.threads[name]?.[counter] ?? 0);
      const usedUs = sum(runs, (run) => cpuUs(run.threads, name)) - runs.length * cpuUs(start, name);
      const framesFromGuest = count('framesFromGuest');
      const frames = framesFromGuest + count('framesToGuest');
      return {
        ...{ name, frames, framesFromGuest },
        busy: usedUs / 1e6 / seconds,
        nsPerUnit: (usedUs * 1e3) / units,
        share: all === 0 ? 0 : sum(runs, (run) => carried(run.threads, name, protocol)) / all,
        nsPerFrame: frames === 0 ? null : (usedUs * 1e3) / frames,
        handedOver: count('handedOver'),
        handOverFull: count('handOverFull'),
        wakes: count('wakes'),
      };
    }),
  };
}

/** Add up the rounds of each kind of run, in the order of the file. The start of the threads is subtracted. */
export function poolRuns(file: RunsFile): Pooled[] {
  const kinds = new Map<string, Run[]>();
  for (const run of file.runs) {
    const kind = [run.plan, run.protocol, run.direction, run.streams].join();
    kinds.set(kind, [...(kinds.get(kind) ?? []), run]);
  }
  return [...kinds.values()].map((runs) =>
    pool(runs, file.starts.find(({ plan }) => plan === runs[0]!.plan)?.threads),
  );
}

/** Upper bound, and what sets it. */
export interface Bound {
  /** Units per ns. */
  readonly rate: number;
  readonly by: string;
}

const least = (bounds: readonly Bound[]): Bound =>
  bounds.reduce((low, next) => (next.rate < low.rate ? next : low));

/** Where the ends of the connections run: on the engine's cores, or on others. */
export type Ends = 'same cores' | 'own cores';

/** Bound of a pipeline. @param flows  1: one shard only */
export function pipelineBound(run: Pooled, cores: number, flows: number, ends: Ends): Bound {
  const isShard = (name: string): boolean => name.startsWith('shard');
  const shardNs = sum(
    run.threads.filter(({ name }) => isShard(name)),
    ({ nsPerUnit }) => nsPerUnit,
  );
  const shards = Math.max(1, Math.min(flows, cores - 2));
  return least([
    ...run.threads
      .filter(({ name }) => !isShard(name))
      .map(({ name, nsPerUnit }) => ({ rate: 1 / nsPerUnit, by: name })),
    { rate: shards / shardNs, by: shards > 1 ? 'shards' : 'shard' },
    coresBound(enginesNs(run), run, cores, ends),
  ]);
}

const coresBound = (engineNs: number, run: Pooled, cores: number, ends: Ends): Bound =>
  ends === 'same cores'
    ? { rate: cores / (engineNs + endsNs(run)), by: 'cores' }
    : { rate: cores / engineNs, by: 'cores' };

/**
 * Lanes that have a flow, when the flows are placed by hash: the expected number.
 * @param flows  Infinity: all have one
 */
export const lanesByHash = (lanes: number, flows: number): number =>
  lanes * (1 - ((lanes - 1) / lanes) ** flows);

export interface LanesOptions {
  readonly lanes: number;
  readonly cores: number;
  /** Number of lanes that have a flow. */
  readonly busyLanes: number;
  readonly ends: Ends;
  /** Additional cost of a unit in a frame that is handed over, in ns. */
  readonly hopNs: number;
  /** Share of the frames handed over with `measuredLanes` lanes. */
  readonly handedOver: number;
  readonly measuredLanes: number;
}

/**
 * Bound of N lanes.
 * @param run  with one lane (then hopNs is added for frames handed over), or with several, whose processor time
 *   contains that already for their own number of lanes
 */
export function lanesBound(run: Pooled, o: LanesOptions): Bound {
  const wrong = (lanes: number): number => (lanes - 1) / lanes;
  const shareOf = (lanes: number): number =>
    o.measuredLanes < 2 ? 0 : (o.handedOver * wrong(lanes)) / wrong(o.measuredLanes);
  const laneNs = enginesNs(run) + o.hopNs * (shareOf(o.lanes) - shareOf(Math.max(1, laneCount(run.plan))));
  return least([
    { rate: o.busyLanes / laneNs, by: o.busyLanes > 1 ? 'lanes' : 'its lane' },
    coresBound(laneNs, run, o.cores, o.ends),
  ]);
}
