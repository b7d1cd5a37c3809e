/** Faults that tests inject into the engine. */
import type { ImpairmentPlan } from '../../workers/engine-plan.ts';

/**
 * Parse BUCATINI_TEST_IMPAIR. `fromGuest=0.01,toGuest=0.01,seed=7` drops one frame of a hundred at random in
 * each direction. `crashAfter=100` throws an exception in the thread that reads the hundredth frame from the
 * guest. `wrongLane=7` passes each seventh frame through the shard of another lane. `busyShare=0.1` lets a lane count as
 * busy at a tenth of a processor. `lanesTurn=200` opens a
 * lane or gives one up each 200 ms.
 * @returns undefined if the variable is empty or not set
 */
export function parseImpairment(text: string | undefined): ImpairmentPlan | undefined {
  if (text === undefined || text === '') return undefined;
  const fields = new Map(text.split(',').map((field) => field.split('=', 2) as [string, string]));
  const number = (name: string): number => Number(fields.get(name) ?? 0) || 0;
  return {
    lossFromGuest: number('fromGuest'),
    lossToGuest: number('toGuest'),
    seed: number('seed'),
    ...(number('crashAfter') > 0 && { crashAfterFrames: number('crashAfter') }),
    ...(number('wrongLane') > 0 && { wrongLaneEvery: number('wrongLane') }),
    ...(number('busyShare') > 0 && { busyShare: number('busyShare') }),
    ...(number('lanesTurn') > 0 && { lanesTurnMs: number('lanesTurn') }),
  };
}
