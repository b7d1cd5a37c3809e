// bundle: front-end pasta/main
/**
 * Entry of the `pasta` front end, started by bin/pasta in the user namespace that the options ask for. Loads
 * nothing before it has started the packet thread, which takes longest: program.ts has the rest.
 */
import { bootPacketThread } from '../../workers/packet-worker.ts';
import { enterProgram } from '../process/entry.ts';
import { ownStreams } from '../process/output.ts';

const env = enterProgram('pasta');
ownStreams();
const booted = bootPacketThread('packet thread 0');
// No top-level await: with one the bundler gives each module that is asked for later a file of its own, six
// or seven more in a start.
void import('./program.ts').then(({ pasta }) => pasta({ argv: process.argv.slice(2), env, booted }));
