/** The measurements and what the model makes of them, as Markdown. Pure. */
import {
  type Bound,
  enginesNs,
  freeCores,
  handedOverShare,
  laneCount,
  lanesBound,
  lanesByHash,
  measuredRate,
  type Pooled,
  pipelineBound,
  poolRuns,
  usedCores,
} from './model.ts';
import type { Direction, RunsFile } from './runs.ts';

const CORES = [2, 4, 8, 16];
/** `auto` takes as many lanes at most. */
const MAX_LANES = 8;
const MANY = 16;
/** The model counts as right if it differs by no more than this from what was measured. */
const TOLERANCE = 0.15;
/**
 * Copies of a byte from program to program: into the first socket, to and from the engine, out of the last
 * socket. Each reads and writes it.
 */
const COPIES = 4;

const table = (words: number, head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [
    `| ${head.join(' | ')} |`,
    `|${head.map((_, i) => (i < words ? '---' : '--:')).join('|')}|`,
    ...rows.map((row) => `| ${row.join(' | ')} |`),
  ].join('\n');

/** Gbit/s of TCP, thousands of datagrams per second of UDP. */
const rateText = (unitsPerNs: number, { protocol }: Pick<Pooled, 'protocol'>): string =>
  protocol === 'tcp' ? (unitsPerNs * 8).toFixed(1) : `${(unitsPerNs * 1e6).toFixed(0)} k/s`;
const nsText = (ns: number, { protocol }: Pooled): string => ns.toFixed(protocol === 'tcp' ? 3 : 0);
const percent = (share: number): string => (share * 100).toFixed(2);
const kindText = ({ plan, protocol, direction, streams }: Pooled): string =>
  `${plan}, ${protocol === 'tcp' ? 'TCP' : 'UDP'} ${direction}, ${streams}`;

function measuredTable(runs: readonly Pooled[], cores: number): string {
  return table(
    1,
    [
      'plan, direction, streams',
      'Gbit/s',
      'all threads, ns/B',
      'client',
      'server',
      'cores used',
      'cores idle',
      'cores of other work',
    ],
    runs.map((run) => [
      kindText(run),
      rateText(measuredRate(run), run),
      ...[enginesNs(run), run.clientNs, run.serverNs].map((ns) => nsText(ns, run)),
      ...[usedCores(run), run.idleCores, Math.max(0, cores - freeCores(run))].map((n) => n.toFixed(2)),
    ]),
  );
}

function threadTable(runs: readonly Pooled[]): string {
  const rows = runs.flatMap((run) =>
    run.threads.map((thread) => [
      kindText(run),
      thread.name,
      thread.busy.toFixed(2),
      nsText(thread.nsPerUnit, run),
      percent(thread.share),
      thread.share === 0 ? '-' : nsText(thread.nsPerUnit / thread.share, run),
      thread.nsPerFrame === null ? '-' : (thread.nsPerFrame / 1000).toFixed(2),
      thread.framesFromGuest === 0 ? '-' : percent(thread.handedOver / thread.framesFromGuest),
      `${thread.handOverFull}`,
      thread.frames === 0 ? '-' : ((thread.wakes / thread.frames) * 1000).toFixed(1),
    ]),
  );
  return table(
    2,
    [
      'plan, direction, streams',
      'thread',
      'busy, of one core',
      'ns/B of all',
      'carried, %',
      'ns/B of its own',
      'µs/frame',
      'handed over, %',
      'handed over and lost',
      'wakes/1000 frames',
    ],
    rows,
  );
}

interface Set {
  readonly direction: Direction;
  readonly streams: number;
  readonly fused: Pooled | undefined;
  readonly pipeline: Pooled | undefined;
  readonly lanes: Pooled | undefined;
  /** Cost of a byte in a frame that goes to another thread. */
  readonly hopNs: number;
}

/** Runs of TCP with the same direction and number of streams. */
function setsOf(runs: readonly Pooled[]): Set[] {
  const tcp = runs.filter(({ protocol }) => protocol === 'tcp');
  const keys = [...new Set(tcp.map(({ direction, streams }) => `${direction} ${streams}`))];
  return keys.map((key) => {
    const those = tcp.filter(({ direction, streams }) => key === `${direction} ${streams}`);
    const fused = those.find(({ plan }) => laneCount(plan) === 1);
    const pipeline = those.find(({ plan }) => plan.startsWith('pipeline'));
    const { direction, streams } = those[0]!;
    return {
      ...{ direction, streams, fused, pipeline },
      lanes: those.find(({ plan }) => laneCount(plan) > 1),
      hopNs: fused && pipeline ? Math.max(0, enginesNs(pipeline) - enginesNs(fused)) : 0,
    };
  });
}

const nameOf = ({ direction, streams }: Set): string =>
  `${direction}, ${streams} stream${streams === 1 ? '' : 's'}`;

function sharedTable(sets: readonly Set[]): string {
  const rows = sets.flatMap((set) => {
    const { lanes, hopNs } = set;
    if (!lanes) return [];
    const share = handedOverShare(lanes);
    return [[nameOf(set), percent(share), hopNs.toFixed(3), percent((share * hopNs) / enginesNs(lanes))]];
  });
  return table(1, ['lanes', 'frames handed over, %', 'a hop, ns/B', "of the lanes' time, %"], rows);
}

function checks(set: Set): { what: string; run: Pooled; bound: Bound }[] {
  const { fused, lanes, pipeline, hopNs, streams } = set;
  const made: { what: string; run: Pooled; bound: Bound }[] = [];
  const ofLanes = (from: Pooled, run: Pooled): Bound => {
    const count = laneCount(run.plan);
    return lanesBound(from, {
      ...{ lanes: count, cores: freeCores(run), hopNs, ends: 'same cores' },
      busyLanes: lanesByHash(count, streams),
      handedOver: lanes ? handedOverShare(lanes) : 0,
      measuredLanes: lanes ? laneCount(lanes.plan) : 1,
    });
  };
  if (fused) made.push({ what: 'its own costs', run: fused, bound: ofLanes(fused, fused) });
  if (lanes) made.push({ what: 'its own costs', run: lanes, bound: ofLanes(lanes, lanes) });
  if (fused && lanes) made.push({ what: 'the costs of fused', run: lanes, bound: ofLanes(fused, lanes) });
  if (pipeline) {
    const bound = pipelineBound(pipeline, freeCores(pipeline), 1, 'same cores');
    made.push({ what: 'its own costs', run: pipeline, bound });
  }
  return made;
}

function checkTable(sets: readonly Set[]): string {
  const rows = sets.flatMap((set) =>
    checks(set).map(({ what, run, bound }) => {
      const ratio = bound.rate / measuredRate(run);
      return [
        kindText(run),
        what,
        bound.by,
        rateText(bound.rate, run),
        rateText(measuredRate(run), run),
        ratio.toFixed(2),
        Math.abs(ratio - 1) <= TOLERANCE ? 'yes' : 'no',
      ];
    }),
  );
  const within = `within ${TOLERANCE * 100} %`;
  return table(
    3,
    ['plan, direction, streams', 'predicted from', 'limited by', 'predicted', 'measured', 'ratio', within],
    rows,
  );
}

function predictedTable(set: Set): string | null {
  const { lanes, pipeline, fused, hopNs } = set;
  const from = lanes ?? fused;
  if (!from) return null;
  const isOne = set.streams === 1;
  const rows = CORES.map((cores) => {
    const count = Math.min(cores, MAX_LANES);
    const common = {
      ...{ lanes: count, cores, hopNs },
      handedOver: lanes ? handedOverShare(lanes) : 0,
      measuredLanes: lanes ? laneCount(lanes.plan) : 1,
    };
    const bound = (busyLanes: number, ends: 'same cores' | 'own cores'): Bound =>
      lanesBound(from, { ...common, busyLanes, ends });
    const same = bound(isOne ? 1 : count, 'same cores');
    const own = bound(isOne ? 1 : count, 'own cores');
    const both = ({ rate, by }: Bound): string[] => [rateText(rate, from), by];
    const piped = pipeline ? both(pipelineBound(pipeline, cores, set.streams, 'same cores')) : ['-', '-'];
    return [
      `${cores}`,
      `${count}`,
      ...both(same),
      rateText(own.rate, from),
      ...(isOne ? [] : [rateText(bound(lanesByHash(count, MANY), 'own cores').rate, from)]),
      (same.rate * COPIES * 2).toFixed(0),
      ...piped,
    ];
  });
  return table(
    0,
    [
      'cores',
      'lanes',
      'ends on the same cores',
      'limited by',
      'ends elsewhere',
      ...(isOne ? [] : [`${MANY} flows by hash, ends elsewhere`]),
      'memory, GB/s at most',
      'pipeline, ends on the same cores',
      'limited by',
    ],
    rows,
  );
}

/** The whole report. */
export function report(file: RunsFile): string {
  const runs = poolRuns(file);
  const sets = setsOf(runs);
  const { cpu, cores, kernel, iperf3, commit } = file.machine;
  const rounds = Math.max(...file.runs.map(({ round }) => round));
  return [
    `Measured on ${file.date}: ${cpu}, ${cores} cores, Linux ${kernel}, iperf3 ${iperf3}, commit ${commit}; ${rounds} rounds, added up. Rates in Gbit/s and costs per byte; of UDP datagrams per second and costs per datagram.`,
    measuredTable(runs, cores),
    '## Threads',
    threadTable(runs),
    '## Shared structures',
    'Estimated: a hop is the processor time a byte of the pipeline less that of fused.',
    sharedTable(sets),
    `## Check on ${cores} cores`,
    'Predicted for the cores that other work left free.',
    checkTable(sets),
    ...sets.flatMap((set) => {
      const predicted = predictedTable(set);
      return predicted === null ? [] : [`## Predicted: ${nameOf(set)}`, predicted];
    }),
  ].join('\n\n');
}
