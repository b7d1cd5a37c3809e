/** A process that makes a network, says which processes it has, and waits, until package.test.ts kills it. */
import { createNetwork } from 'bucatini';

const network = await createNetwork();
const child = network.spawn('sh', ['-c', 'sleep 1000 & echo up; wait']);
child.stdout!.once('data', () => {
  console.log(JSON.stringify([network.info.pid, network.info.namespacePid, child.pid]));
});
await network.ended;
