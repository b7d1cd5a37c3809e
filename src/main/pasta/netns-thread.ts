/**
 * Which thread moves into the namespace for `pasta`: as for `bucatini`, the main thread where all packet
 * threads have been started before.
 */
import { availableParallelism } from 'node:os';
import { autoThreads } from '../../workers/placement.ts';
import { type Netns, NetnsHere, NetnsThread } from '../host/netns.ts';
import type { PastaJob, PastaTap } from './netns-setup.ts';

export type PastaNetns = Netns<PastaJob, PastaTap>;

/** The thread plan, for which `pasta` has no option. */
export const pastaThreads = (): ReturnType<typeof autoThreads> => autoThreads(availableParallelism());

/** Call it before any thread has moved. */
export function choosePastaNetns(): PastaNetns {
  if (pastaThreads().kind !== 'fused') return new NetnsThread<PastaJob, PastaTap>('pasta/netns-worker');
  return new NetnsHere<PastaJob, PastaTap>(async () => (await import('./netns-setup.ts')).setUpPasta);
}
