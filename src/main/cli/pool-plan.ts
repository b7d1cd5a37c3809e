/** Division of the packet pool's memory. */
import { LARGE_SLOT_BYTES, SMALL_SLOT_BYTES } from '../../ring/layout.ts';
import type { PoolPlan } from '../../workers/engine-plan.ts';

const MAX_FLOWS = 131072;

/** Size of the pool where no option gives it, in MiB. Each lane has as much. */
export const DEFAULT_POOL_MIB = 64;

/**
 * Give three quarters of the memory to large slots (one for each 64 KiB of bulk data in flight), one quarter
 * to small slots.
 * @param mib    size of the pool, in MiB
 * @param lanes  number of lanes that divide the pool among themselves; the shards of a pipeline share it
 */
export function poolPlan(mib: number, lanes = 1): PoolPlan {
  const bytes = mib * 1024 * 1024;
  return {
    smallSlots: Math.floor(bytes / 4 / SMALL_SLOT_BYTES),
    largeSlots: Math.floor((bytes * 3) / 4 / LARGE_SLOT_BYTES),
    flows: Math.min(MAX_FLOWS, 2 ** Math.floor(Math.log2((mib / lanes) * 512))),
  };
}
