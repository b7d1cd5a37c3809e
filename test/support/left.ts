/** Whether anything is left in the bed after engines have ended. */
import { expect } from 'vitest';
import type { Bed } from './bed.ts';
import { eventually } from './process.ts';

const WITHIN_MS = 1000;

/**
 * Note the processes and mounts of a bed in which no engine runs.
 * @returns a check that there are no others; it kills processes that are left, then it fails
 */
export async function watchLeft(bed: Bed): Promise<() => Promise<void>> {
  const processesBefore = bed.processes();
  const mountsBefore = await bed.mounts();
  return async () => {
    const extra = (): string[] => bed.processes().filter((p) => !processesBefore.includes(p));
    try {
      await eventually('only the bed is left', WITHIN_MS, () => extra().length === 0);
    } catch {
      const left = extra();
      // The next test starts clean.
      await bed.run('host', ['kill', '-KILL', ...left.map((p) => p.split(' ')[0] ?? '')]);
      expect(left, 'processes left').toEqual([]);
    }
    expect(await bed.mounts(), 'mounts').toBe(mountsBefore);
  };
}
