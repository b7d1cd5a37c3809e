/** What `--check` fails for. Pure. */
import { METRIC_NAMES, type Metric, type Result } from '../result.ts';
import { type Comparison, regressions } from './compare.ts';
import { Figures } from './statistics.ts';
import { figure, unitFor } from './units.ts';
import { boundText, judgeTargets, type Verdict } from './verdicts.ts';

/** Exit status of a check, or a soak, that failed. */
export const CHECK_FAILED = 3;

/** A bound of the caller's own, for the median of bucatini in a cell. */
export interface Requirement {
  readonly cell: string;
  readonly metric: Metric;
  readonly op: '>=' | '<=';
  readonly bound: number;
  /** As it was written. */
  readonly text: string;
}

/** @returns null when the text is not CELL:METRIC>=NUMBER or CELL:METRIC<=NUMBER */
export function parseRequirement(text: string): Requirement | null {
  const [, cell, name, op, number] = /^([a-z0-9-]+):(\w+)(>=|<=)(\d+(?:\.\d+)?)$/.exec(text) ?? [];
  const metric = METRIC_NAMES.find((each) => each === name);
  if (cell === undefined || metric === undefined || op === undefined) return null;
  return { cell, metric, op: op === '>=' ? '>=' : '<=', bound: Number(number), text };
}

/** A missed target with its figures, in one line. */
export function missedText({ target, measured, bound }: Verdict): string {
  const unit = unitFor(target.metric, [Math.max(measured ?? 0, bound ?? 0)]);
  const want = bound === null ? '' : `, want ${target.op} ${unit.text(bound)}`;
  return `${target.text}: ${unit.label} ${boundText(target)}: ${measured === null ? 'failed' : unit.text(measured)}${want}`;
}

function failedRequirements(result: Result, requirements: readonly Requirement[]): string[] {
  const figures = new Figures(result);
  return requirements.flatMap(({ cell, metric, op, bound, text }) => {
    const value = figures.ours === null ? null : figures.median(cell, figures.ours.name, metric);
    if (value === null) return [`--require ${text}: not measured`];
    return (op === '>=' ? value >= bound : value <= bound)
      ? []
      : [`--require ${text}: measured ${figure(value, metric)}`];
  });
}

/**
 * The reasons for status 3, a line each; none: the check is passed. Beside an older result only what got worse
 * counts: a cell that fails now, a figure beyond its spread, a target that was reached. Without one, every
 * missed target does.
 */
export function checkFailures(
  result: Result,
  comparison: Comparison | null,
  requirements: readonly Requirement[],
): string[] {
  const missed =
    comparison?.lostTargets ??
    judgeTargets(new Figures(result)).filter(
      ({ target, reached }) => reached === false && target.isStretch !== true,
    );
  const worse = comparison === null ? [] : regressions(comparison);
  const broken = (comparison?.broken ?? []).filter(({ peer }) => peer.kind === 'bucatini');
  return [
    ...broken.map(
      ({ cell, peer, error }) => `fails now: ${peer.name}, ${cell.text}, MTU ${cell.mtu}: ${error}`,
    ),
    ...missed.map((verdict) => `target missed: ${missedText(verdict)}`),
    ...worse.map(({ cell, peer, metric, old, now }) => {
      const unit = unitFor(metric, [Math.max(old.median, now.median)]);
      return `worse beyond the spread: ${peer}, ${cell.text}, MTU ${cell.mtu}: ${unit.text(old.median)}, now ${unit.text(now.median)} ${unit.label}`;
    }),
    ...failedRequirements(result, requirements),
  ];
}
