// bundle: thread pasta/netns-worker
/**
 * Entry of the thread that moves into the namespace for `pasta`. netns-setup.ts has its steps,
 * ../host/netns.ts what receives its messages.
 */
import { runNetnsThread } from '../host/netns.ts';
import { setUpPasta } from './netns-setup.ts';

runNetnsThread(setUpPasta);
