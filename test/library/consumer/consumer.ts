/** A program of another project: package.test.ts compiles it against the package's types, and runs it. */
import {
  BucatiniError,
  createNetwork,
  type Flow,
  type Network,
  type NetworkOptions,
  type RunResult,
} from 'bucatini';

const options: NetworkOptions = { mtu: 1400, ipv6: false, impairment: { delay: ['5ms/up', '1ms/down'] } };

async function statusOf(network: Network, ...argv: [string, ...string[]]): Promise<number | null> {
  const [command, ...args] = argv;
  const result: RunResult = await network.run(command, args);
  return result.status;
}

await using network = await createNetwork(options);
const flows: readonly Flow[] = await network.flows();
const port = await network.publish({ port: 80, protocol: 'udp' });
const child = network.spawn('cat', [], { stdio: ['pipe', 'pipe', 'inherit'] });
child.stdin?.end('x');
const ends: number | undefined = network.info.ipv4?.prefixLength;
try {
  await network.run('no-such-program');
} catch (error) {
  if (!(error instanceof BucatiniError) || error.code !== 'not-found') throw error;
}
console.log(
  await statusOf(network, 'true'),
  flows.length,
  port.protocol,
  (await child.exited).status,
  typeof ends,
);

/** What the types refuse. Never called. */
export async function wrong(): Promise<void> {
  // @ts-expect-error: no such option
  await createNetwork({ mtuu: 1400 });
  // @ts-expect-error: a number
  await createNetwork({ mtu: '1400' });
  // @ts-expect-error: no such key of a line
  await network.setImpairment({ dleay: '5ms' });
  // @ts-expect-error: the seed is for the start
  await network.setImpairment({ seed: 1 });
  // @ts-expect-error: arguments are a list
  await network.run('ip', 'address');
  // @ts-expect-error: it cannot be made without createNetwork()
  new Network();
  // @ts-expect-error: only this package's root may be imported
  await import('bucatini/dist/library/engine.js');
}
