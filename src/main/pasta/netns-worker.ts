// bundle: thread pasta/netns-worker
/**
 * The thread that moves into the namespace for `pasta`: see netns-setup.ts beside it, and ../netns.ts for who
 * listens.
 */
import { runNetnsThread } from '../host/netns.ts';
import { setUpPasta } from './netns-setup.ts';

runNetnsThread(setUpPasta);
