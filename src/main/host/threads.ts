/** The thread plan that a front end chooses by itself, and the queues that its TAP needs. */
import { availableParallelism } from 'node:os';
import type { TapPlan, ThreadsPlan } from '../../workers/engine-plan.ts';
import { autoThreads, laneCount, startedThreads } from '../../workers/placement.ts';

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
 * The plan for the TAP that was made.
 * @param moreQueues  TapPlan.moreQueues: with a single queue there can be only one lane
 */
export const threadsFor = (threads: ThreadsPlan, moreQueues: readonly number[] | undefined): ThreadsPlan =>
  threads.kind === 'lanes' && moreQueues === undefined ? { kind: 'fused' } : threads;

/** Descriptors of all queues. */
export const queueFds = ({ fd, moreQueues }: TapPlan): readonly number[] => [fd, ...(moreQueues ?? [])];
