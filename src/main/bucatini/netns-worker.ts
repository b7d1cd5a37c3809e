// bundle: thread bucatini/netns-worker
/**
 * The thread that moves into the namespace. netns-setup.ts describes its work, netns.ts receives its
 * messages.
 */
import { runNetnsThread } from '../host/netns.ts';
import { setUpNetns } from './netns-setup.ts';

runNetnsThread(setUpNetns);
