// bundle: front-end pasta/main
/**
 * Entry of the `pasta` front end. bin/pasta starts it in the user namespace that the options name. It starts
 * the packet thread, which takes longest, before it loads program.ts, which does the rest.
 */
import { bootPacketThread } from '../../workers/packet-worker.ts';
import { enterProgram } from '../process/entry.ts';
import { ownStreams } from '../process/output.ts';
import { ownArguments } from '../process/own-texts.ts';

const env = enterProgram('pasta');
ownStreams();
const booted = bootPacketThread('packet thread 0');
// No top-level await: with one the bundler makes a file of each module that is imported later, and a start
// reads six or seven more files.
void import('./program.ts').then(({ pasta }) => pasta({ argv: ownArguments(), env, booted }));
