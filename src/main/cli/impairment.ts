/** Faults for tests. */
import type { ImpairmentPlan } from '../../workers/engine-plan.ts';

/**
 * Test door: BUCATINI_TEST_IMPAIR=fromGuest=0.01,toGuest=0.01,seed=7 loses frames at random inside the
 * engine; crashAfter=100 ends the thread that reads the hundredth from the guest by an exception.
 */
export function parseImpairment(text: string | undefined): ImpairmentPlan | undefined {
  if (text === undefined || text === '') return undefined;
  const fields = new Map(text.split(',').map((field) => field.split('=', 2) as [string, string]));
  const number = (name: string): number => Number(fields.get(name) ?? 0) || 0;
  return {
    ...{ lossFromGuest: number('fromGuest'), lossToGuest: number('toGuest'), seed: number('seed') },
    ...(number('crashAfter') > 0 && { crashAfterFrames: number('crashAfter') }),
  };
}
