import type { LinePlan } from '../../../src/workers/engine-plan.ts';

/** A line that does nothing. */
export const OPEN_LINE: LinePlan = {
  bytesPerSecond: Number.POSITIVE_INFINITY,
  burstBytes: 0,
  queueBytes: 1 << 20,
  queuePackets: 10_000,
  delayMs: 0,
  jitterMs: 0,
  distribution: 'uniform',
  loss: { goodToBad: 0, badToGood: 0, lossGood: 0, lossBad: 0 },
  duplicate: 0,
  reorder: 0,
  reorderMs: 5,
  corrupt: 0,
  maxPacketBytes: 65_535,
};
