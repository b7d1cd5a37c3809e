/** Allocates the engine's shared memory. */
import { allocateShared, type SharedMemory } from '../ring/layout.ts';
import { addressOf } from '../sys/memory.ts';
import type { EnginePlan } from './engine-plan.ts';
import { threadPlan } from './placement.ts';

/**
 * Allocate rings, counters and log rings for the plan's threads, and the frame pool.
 * @param ringDescriptors  per ring, a power of two
 * @param logBytes  per thread, a power of two
 * @throws RangeError as allocateShared()
 */
export function engineMemory(
  { pool, threads }: Pick<EnginePlan, 'pool' | 'threads'>,
  { ringDescriptors, logBytes }: { readonly ringDescriptors: number; readonly logBytes: number },
): SharedMemory {
  const plan = threadPlan(threads);
  return allocateShared(
    {
      smallSlots: pool.smallSlots,
      largeSlots: pool.largeSlots,
      rings: plan.rings,
      ringDescriptors,
      counterBlocks: plan.threads,
      logBytes,
    },
    addressOf,
  );
}
