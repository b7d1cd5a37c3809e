/**
 * Who moves into the namespace for `pasta`, as for `bucatini` (engine-launch.ts): the main thread where it
 * can.
 */
import { availableParallelism } from 'node:os';
import { autoThreads } from '../../workers/placement.ts';
import { type Netns, NetnsHere, NetnsThread } from '../host/netns.ts';
import type { PastaJob, PastaTap } from './netns-setup.ts';

export type PastaNetns = Netns<PastaJob, PastaTap>;

/** `pasta` has no option for the thread plan. */
export const pastaThreads = (): ReturnType<typeof autoThreads> => autoThreads(availableParallelism());

/** To be called before anything moves. */
export function choosePastaNetns(): PastaNetns {
  if (pastaThreads().kind !== 'fused') return new NetnsThread<PastaJob, PastaTap>('pasta/netns-worker');
  return new NetnsHere<PastaJob, PastaTap>(async () => (await import('./netns-setup.ts')).setUpPasta);
}
