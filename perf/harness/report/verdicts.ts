/** Compares a result with the targets. Pure. */
import { METRICS, type Metric, type PeerInfo, type PeerKind } from '../result.ts';
import { TARGETS, type Target } from '../targets.ts';
import type { Figures } from './statistics.ts';

export interface Verdict {
  readonly target: Target;
  readonly measured: number | null;
  /** Value of the target in this run; null when its reference was not measured. */
  readonly bound: number | null;
  /**
   * null: value or reference was not measured. A cell in which most of bucatini's rounds failed counts as not
   * reached.
   */
  readonly reached: boolean | null;
}

function newest(figures: Figures, kind: PeerKind): string | null {
  return figures.result.peers.findLast((peer) => peer.kind === kind)?.name ?? null;
}

/** The peer that a target is about; null: it is not in this run. */
const subject = ({ ours, result }: Figures, { peer }: Target): PeerInfo | null =>
  peer === undefined ? ours : (result.peers.find(({ name }) => name === peer) ?? null);

/** Throughput that a peer must have in `cell` to count, in Mbit/s; 0: no requirement. */
function leastMbitIn(figures: Figures, { carrying }: Target, cell: string): number {
  if (carrying === undefined) return 0;
  if ('leastMbit' in carrying) return carrying.leastMbit;
  const ours = figures.ours;
  return carrying.shareOfOurs * ((ours && figures.median(cell, ours.name, 'mbit')) ?? 0);
}

function referenceIn(figures: Figures, target: Target, cell: string): number | null {
  const leastMbit = leastMbitIn(figures, target, cell);
  const of = (name: string | null | undefined): number | null =>
    name === null || name === undefined ? null : figures.median(cell, name, target.metric);
  const carrier = (name: string | null): number | null =>
    leastMbit > 0 && (name === null || (figures.median(cell, name, 'mbit') ?? 0) < leastMbit)
      ? null
      : of(name);
  switch (target.reference) {
    case 'fixed':
      return 1;
    case 'direct':
      return of(figures.direct?.name);
    case 'best':
      return figures.best(cell, target.metric, leastMbit)?.median ?? null;
    case 'ours':
      return of(figures.ours?.name);
    case 'newest-pasta':
      return carrier(newest(figures, 'pasta'));
    case 'newest-slirp4netns':
      return carrier(newest(figures, 'slirp4netns'));
    case 'newest-bypass4netns':
      return carrier(newest(figures, 'bypass4netns'));
  }
}

function bestOf(values: readonly (number | null)[], metric: Metric): number | null {
  const there = values.filter((value) => value !== null);
  if (there.length < values.length || there.length === 0) return null;
  return METRICS[metric].better === 'more' ? Math.max(...there) : Math.min(...there);
}

export function judgeTarget(figures: Figures, target: Target): Verdict {
  const ours = subject(figures, target);
  const measured = ours === null ? null : figures.median(target.cell, ours.name, target.metric);
  const reference = bestOf(
    (target.than ?? [target.cell]).map((cell) => referenceIn(figures, target, cell)),
    target.metric,
  );
  const bound = reference === null ? null : target.factor * reference + (target.plus ?? 0);
  if (ours !== null && figures.failedMostly(target.cell, ours.name, target.metric))
    return { target, measured, bound, reached: false };
  if (measured === null || bound === null) return { target, measured, bound, reached: null };
  const { carrying } = target;
  if (ours !== null && carrying !== undefined && 'leastMbit' in carrying)
    if ((figures.median(target.cell, ours.name, 'mbit') ?? 0) < carrying.leastMbit)
      return { target, measured, bound, reached: false };
  const reached =
    target.op === '<=' ? measured <= bound : target.op === '>' ? measured > bound : measured >= bound;
  return { target, measured, bound, reached };
}

export const judgeTargets = (figures: Figures): Verdict[] =>
  TARGETS.map((target) => judgeTarget(figures, target));

const REFERENCE_WORDS = {
  direct: 'direct',
  best: 'the best peer',
  'newest-pasta': 'the newest pasta',
  'newest-slirp4netns': 'the newest slirp4netns',
  'newest-bypass4netns': 'the newest bypass4netns',
  ours: 'our own',
} as const;

/** The bound as text: `>= 0.55 x direct`, `<= direct + 2`. */
export function boundText(target: Target): string {
  const { op, factor, plus = 0, reference, carrying } = target;
  if (reference === 'fixed') return `${op} ${factor}`;
  const whose = REFERENCE_WORDS[reference];
  const times = `${op} ${factor === 1 ? '' : `${factor} × `}${whose}${plus === 0 ? '' : ` + ${plus}`}`;
  if (carrying === undefined) return times;
  const least =
    'leastMbit' in carrying ? `${carrying.leastMbit} Mbit/s` : `${carrying.shareOfOurs} × our rate`;
  return `${times} (of those that carried >= ${least})`;
}
