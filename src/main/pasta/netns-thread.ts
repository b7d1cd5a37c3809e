/** The namespace thread of `pasta`, seen from the main thread: that of `bucatini` with another program, job and result. */
import { type NetnsMessage, NetnsThread } from '../netns.ts';
import type { PastaJob, PastaTap } from './netns-setup.ts';

export type PastaNetnsMessage = NetnsMessage<PastaTap>;

export class PastaNetns extends NetnsThread<PastaJob, PastaTap> {
  constructor() {
    super('pasta/netns-worker');
  }
}
