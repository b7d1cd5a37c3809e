// bundle: thread slirp4netns/netns-worker
/**
 * Entry of the thread that moves into the namespace for `slirp4netns`, used where packet threads are started
 * after the move. netns-setup.ts has its steps.
 */
import { runNetnsThread } from '../host/netns.ts';
import { setUpSlirp } from './netns-setup.ts';

runNetnsThread(setUpSlirp);
