// bundle: thread slirp4netns/netns-worker
/**
 * The thread that moves into the namespace for `slirp4netns`, where packet threads are started after it: see
 * netns-setup.ts.
 */
import { runNetnsThread } from '../host/netns.ts';
import { setUpSlirp } from './netns-setup.ts';

runNetnsThread(setUpSlirp);
