/** Faults that tests inject into the engine. */
import type { ImpairmentPlan } from '../../workers/engine-plan.ts';

/**
 * Parse BUCATINI_TEST_IMPAIR. `fromGuest=0.01,toGuest=0.01,seed=7` drops one frame of a hundred at random in
 * each direction. `crashAfter=100` throws an exception in the thread that reads the hundredth frame from the
 * guest.
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
  };
}
