/**
 * Two results beside each other: what moved beyond the spread of the rounds. Pure.
 *
 * A figure has moved when the ranges of both results, from the lowest to the highest round, do not overlap.
 * With few rounds ranges are apart by chance too often; then the gap between them must have a width:
 *
 *     fewest rounds    gap, in mean widths of the ranges    moves by chance
 *     2                not judged                           (a third without a gap)
 *     3                1                                    1.3 %
 *     4                1/4                                  1.1 %
 *     5 and more       0                                    0.8 % and less
 *
 * (Monte Carlo, normal noise, the same number of rounds in both.) A median that differs by less than 3 %, or by
 * less than the metric can resolve, has not moved.
 */
import { type CellInfo, METRICS, type Metric, type PeerInfo, type PeerKind, type Result } from '../result.ts';
import { Figures, ratio, type Summary } from './statistics.ts';
import { judgeTargets, type Verdict } from './verdicts.ts';

export const VERDICTS = ['worse', 'better', 'same', 'unknown'] as const;
export type Movement = (typeof VERDICTS)[number];

export interface Row {
  readonly cell: CellInfo;
  readonly peer: string;
  readonly kind: PeerKind;
  readonly metric: Metric;
  /** The cell's first metric, which its chart shows. */
  readonly isMain: boolean;
  readonly old: Summary;
  readonly now: Summary;
  /** Median by median; null: the old one is 0. */
  readonly ratio: number | null;
  /** Lowest new by highest old, and highest new by lowest old; null where one of these is 0. */
  readonly ratioLow: number | null;
  readonly ratioHigh: number | null;
  readonly verdict: Movement;
  /** The direct link moved in the same way: then the machine did, and not the tool. */
  readonly isLikeDirect: boolean;
}

export interface Comparison {
  readonly old: Result;
  readonly now: Result;
  readonly rows: readonly Row[];
  /** Tools that the old result has figures of, and the new one only errors. */
  readonly broken: readonly { readonly cell: CellInfo; readonly peer: PeerInfo; readonly error: string }[];
  /** Targets that the old result reached, and that every round of the new one misses. */
  readonly lostTargets: readonly Verdict[];
  /** Why the two should not be compared without care. */
  readonly warnings: readonly string[];
}

const GAP_BY_ROUNDS: Readonly<Record<number, number>> = { 3: 1, 4: 0.25 };
const FEWEST_ROUNDS = 3;
const LEAST_SHARE = 0.03;
/** Differences that a metric cannot resolve; absent: none. */
const LEAST: Partial<Record<Metric, number>> = {
  lossPercent: 0.5,
  jitterMs: 0.02,
  cpuTicks: 2,
  cpuPercent: 1,
  cpuSecondsPerGib: 0.02,
  rssMib: 1,
};
/** The kernel's count of losses says nothing about a tool by itself; peaks say what the memory says. */
const LEFT_OUT: readonly Metric[] = ['retransmits', 'peakRssMib'];

export function movement(old: Summary, now: Summary, metric: Metric): Movement {
  const rounds = Math.min(old.rounds, now.rounds);
  if (rounds < FEWEST_ROUNDS) return 'unknown';
  const difference = Math.abs(now.median - old.median);
  if (difference <= LEAST_SHARE * Math.abs(old.median) || difference < (LEAST[metric] ?? 0)) return 'same';
  const gap = Math.max(now.low - old.high, old.low - now.high);
  const width = (old.high - old.low + (now.high - now.low)) / 2;
  if (gap <= 0 || gap < (GAP_BY_ROUNDS[rounds] ?? 0) * width) return 'same';
  return now.median > old.median === (METRICS[metric].better === 'more') ? 'better' : 'worse';
}

/** Conditions that differ between the two results. */
function warningsOf(old: Result, now: Result, shared: readonly CellInfo[]): string[] {
  const conditions = ['cpu', 'cores', 'kernel', 'governor', 'iperf3', 'runtime'] as const;
  const differ = conditions.flatMap((field) => {
    const [a, b] = [old.machine[field] ?? 'Node', now.machine[field] ?? 'Node'];
    return a === b ? [] : [`${field}: ${a}, then ${b}`];
  });
  const versions = now.peers.flatMap(({ name, version, kind }) => {
    const before = old.peers.find((peer) => peer.name === name);
    return kind === 'bucatini' || before === undefined || before.version === version
      ? []
      : [`${name}: ${before.version}, then ${version}`];
  });
  const lengths = shared.filter(
    ({ id, seconds }) => old.cells.find((cell) => cell.id === id)?.seconds !== seconds,
  );
  return [
    ...[...differ, ...versions].map((text) => `not the same ${text}`),
    ...(lengths.length > 0 ? [`cells that were measured for another time: ${lengths.length}`] : []),
    ...(old.endedEarly || now.endedEarly ? ['one of them ended early'] : []),
  ];
}

function everyRoundMisses(figures: Figures, { target, bound }: Verdict): boolean {
  const rounds = figures.ours && figures.summary(target.cell, figures.ours.name, target.metric);
  if (rounds === null || bound === null) return true;
  return target.op === '<=' ? rounds.low > bound : rounds.high < bound;
}

/**
 * Compare the cells and tools (by name) that both results have.
 * @throws Error when they have none in common
 */
export function compareResults(old: Result, now: Result): Comparison {
  const [before, after] = [new Figures(old), new Figures(now)];
  const shared = now.cells.filter(({ id }) => old.cells.some((cell) => cell.id === id));
  const peers = now.peers.filter(({ name }) => old.peers.some((peer) => peer.name === name));
  const rows = shared.flatMap((cell) =>
    after.metrics(cell.id).flatMap((metric, index) => {
      if (LEFT_OUT.includes(metric)) return [];
      const moved = peers.flatMap(({ name, kind }): Row[] => {
        const a = before.summary(cell.id, name, metric);
        const b = after.summary(cell.id, name, metric);
        if (a === null || b === null) return [];
        const verdict = movement(a, b, metric);
        return [
          {
            ...{ cell, metric, kind, verdict, old: a, now: b, peer: name, isMain: index === 0 },
            ratio: ratio(b.median, a.median),
            ratioLow: ratio(b.low, a.high),
            ratioHigh: ratio(b.high, a.low),
            isLikeDirect: false,
          },
        ];
      });
      const direct = moved.find(({ kind }) => kind === 'direct')?.verdict;
      return moved.map((row) => ({
        ...row,
        isLikeDirect:
          row.kind !== 'direct' && row.verdict === direct && (direct === 'better' || direct === 'worse'),
      }));
    }),
  );
  const broken = shared.flatMap((cell) =>
    peers.flatMap((peer) => {
      const [metric] = before.metrics(cell.id);
      if (metric === undefined || before.summary(cell.id, peer.name, metric) === null) return [];
      if (!after.failedMostly(cell.id, peer.name, metric)) return [];
      return [{ cell, peer, error: after.error(cell.id, peer.name) ?? 'failed' }];
    }),
  );
  if (rows.length + broken.length === 0)
    throw new Error('the two results have no figure of the same cell and tool');
  const reachedBefore = judgeTargets(before);
  const lostTargets = judgeTargets(after).filter(
    (verdict, i) =>
      verdict.reached === false &&
      verdict.target.isStretch !== true &&
      reachedBefore[i]?.reached === true &&
      everyRoundMisses(after, verdict),
  );
  return { old, now, rows, broken, lostTargets, warnings: warningsOf(old, now, shared) };
}

/** What `--check` fails for: figures of bucatini that are worse beyond their spread, unless direct's are too. */
export const regressions = ({ rows }: Comparison): readonly Row[] =>
  rows.filter(
    ({ kind, verdict, isLikeDirect }) => kind === 'bucatini' && verdict === 'worse' && !isLikeDirect,
  );
