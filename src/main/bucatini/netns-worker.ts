// bundle: thread bucatini/netns-worker
/**
 * The thread that moves into the namespace: see netns-setup.ts for what it does and netns.ts for who listens.
 */
import { runNetnsThread } from '../host/netns.ts';
import { setUpNetns } from './netns-setup.ts';

runNetnsThread(setUpNetns);
