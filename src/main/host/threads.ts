/** Thread plan and pool of a front end, and the queues that its TAP needs. */
import { availableParallelism } from 'node:os';
import type { EnginePlan, ShapingPlan, TapPlan, ThreadsPlan } from '../../workers/engine-plan.ts';
import { autoThreads, laneCount, startedThreads } from '../../workers/placement.ts';
import { DEFAULT_POOL_MIB, poolPlan } from '../cli/pool-plan.ts';

/** The queues of a TAP, one for each lane. */
export interface TapQueues {
  readonly queues: number;
  /** How many of them are attached: the kernel gives frames to these only. */
  readonly attached: number;
  /** Where the TAP cannot have several queues, it gets one. */
  readonly orOne: boolean;
}

/**
 * The plan `auto`.
 * @param mostLanes  lanes at the most
 */
export const ownThreads = (mostLanes?: number): ThreadsPlan => autoThreads(availableParallelism(), mostLanes);

/** The plan `auto`. With an emulated line there is one packet thread. */
export const threadsOfLine = (line: ShapingPlan | undefined): ThreadsPlan =>
  line === undefined ? ownThreads() : { kind: 'fused' };

/**
 * The queues that a TAP is to have.
 * @param isOwn  the plan is that of ownThreads(): it is not an error that the TAP cannot have several
 */
export const tapQueues = (threads: ThreadsPlan, isOwn: boolean): TapQueues => ({
  queues: laneCount(threads),
  attached: threads.kind === 'lanes' ? startedThreads(threads) : 1,
  orOne: isOwn,
});

/**
 * Threads and pool for the TAP that was made: with a single queue, or without a TAP, there is only one lane.
 * @param poolMib  of all lanes together; absent: DEFAULT_POOL_MIB for each
 */
export function threadsAndPool(
  wanted: ThreadsPlan,
  tap: TapPlan | undefined,
  poolMib?: number,
): Pick<EnginePlan, 'threads' | 'pool'> {
  const threads: ThreadsPlan =
    wanted.kind === 'lanes' && tap?.moreQueues === undefined ? { kind: 'fused' } : wanted;
  const lanes = laneCount(threads);
  return { threads, pool: poolPlan(poolMib ?? DEFAULT_POOL_MIB * lanes, lanes) };
}

/** Descriptors of all queues. */
export const queueFds = ({ fd, moreQueues }: TapPlan): readonly number[] => [fd, ...(moreQueues ?? [])];
