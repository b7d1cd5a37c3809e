/**
 * Memory and wakes of idle engines: one instance of each peer, then COUNT of them, one peer after another.
 *
 *   scripts/node.sh perf/memory/main.ts --peers bucatini,pasta,pasta-new=/opt/passt/pasta --json memory.json
 *
 * It enters new namespaces, as the harness does, and starts the peers as an ordinary user of the test network
 * (perf/harness/world.ts). COMMAND is a `sleep`, which is left out of all figures. The file pages of one
 * instance alone are private to it if no other process runs the same program: read `private` from the line of
 * COUNT instances, it is what a further instance costs.
 */
import { spawn } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { describeMachine } from '../harness/machine.ts';
import { peerList, UsageError } from '../harness/options.ts';
import { type Guest, makePeers, type Peer } from '../harness/peers.ts';
import { run, sleep, stopAll } from '../harness/processes.ts';
import { say } from '../harness/progress.ts';
import { buildWorld, namespacesForbidden, type World } from '../harness/world.ts';
import {
  addMemory,
  type Instance,
  instanceOf,
  type Memory,
  memorySum,
  NO_MEMORY,
  ThreadWatch,
} from './sample.ts';
import { type PeerFigures, table } from './table.ts';

const INSIDE = 'BUCATINI_MEMORY_INSIDE';
const MTU = 65520;
const SAMPLE_MS = 1000;
const BIN = fileURLToPath(new URL('../../bin/', import.meta.url));
/** Names say which kind of tool it is: options.ts of the harness. */
const DEFAULT_PEERS = `bucatini,pasta-ours=${BIN}pasta,slirp-ours=${BIN}slirp4netns,pasta,slirp4netns`;

const HELP = `usage: scripts/node.sh perf/memory/main.ts [OPTION...]

Memory of one and of several idle instances, what their first minute costs, and how often they wake after it.

  --peers A,B    whom to measure (bucatini, our pasta and slirp4netns, the stock ones); NAME=FILE as in iperf-harness.sh
  --count N      instances of the second measurement (20); 0: none
  --settle S     seconds from the start of one instance to its figures (60)
  --settle-all S the same from the start of the last of N (10)
  --window S     seconds in which wakes are counted after that (5); 0: no wakes
  --rounds N     times through all peers (1); medians
  --json FILE    write the figures there
  --help         this text`;

interface Options {
  readonly peers: string;
  readonly count: number;
  readonly settle: number;
  readonly settleAll: number;
  readonly window: number;
  readonly rounds: number;
  readonly json: string | undefined;
}

function options(args: string[]): Options | null {
  let values: Record<string, string | boolean | undefined>;
  try {
    const string = { type: 'string' } as const;
    ({ values } = parseArgs({
      args,
      options: {
        ...{ peers: string, count: string, settle: string, 'settle-all': string },
        ...{ window: string, rounds: string, json: string, help: { type: 'boolean' } },
      },
    }));
  } catch (error) {
    throw new UsageError(`${error instanceof Error ? error.message : error} (--help lists the options)`);
  }
  if (values.help === true) return null;
  const whole = (flag: string, fallback: number, min: number): number => {
    const n = Number(values[flag] ?? fallback);
    if (!Number.isInteger(n) || n < min)
      throw new UsageError(`--${flag}: want a whole number, ${min} or more`);
    return n;
  };
  return {
    peers: typeof values.peers === 'string' ? values.peers : DEFAULT_PEERS,
    count: whole('count', 20, 0),
    settle: whole('settle', 60, 1),
    settleAll: whole('settle-all', 10, 1),
    window: whole('window', 5, 0),
    rounds: whole('rounds', 1, 1),
    json: typeof values.json === 'string' ? values.json : undefined,
  };
}

/**
 * Start itself in new namespaces: the PID namespace ends every process that is left. The inside runs a copy
 * of this runtime, so that it does not share pages with engines that run the same file.
 */
async function outside(args: string[]): Promise<number> {
  const forbidden = await namespacesForbidden();
  if (forbidden !== null) throw new UsageError(forbidden);
  const flags = ['-Urnm', '-pf', '--mount-proc', '--kill-child'];
  if ((await run(['unshare', ...flags, 'true'])).status !== 0)
    throw new UsageError('unshare --pid --mount-proc is refused here: this needs a PID namespace of its own');
  const scratch = mkdtempSync(join(tmpdir(), 'memory-'));
  try {
    const runtime = join(scratch, 'runtime');
    copyFileSync(process.execPath, runtime);
    const argv = [...flags, runtime, fileURLToPath(import.meta.url), ...args];
    const child = spawn('unshare', argv, { stdio: 'inherit', env: { ...process.env, [INSIDE]: '1' } });
    return await new Promise((resolve, reject) => {
      child.on('error', reject);
      child.on('exit', (status) => resolve(status ?? 1));
    });
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

async function inside(o: Options): Promise<number> {
  const peers: Peer[] = [];
  for (const peer of makePeers(peerList(o.peers))) {
    const probed = await peer.probe();
    if ('version' in probed) peers.push(peer);
    else say(`${peer.name} is missing: ${probed.missing}`);
  }
  const machine = await describeMachine();
  const world = await buildWorld(null);
  const figures: PeerFigures[] = [];
  for (let round = 1; round <= o.rounds; round++) {
    for (const peer of peers) {
      say(`${peer.name}, round ${round} of ${o.rounds}`);
      figures.push(await measure(world, peer, o));
    }
  }
  await stopAll();
  console.log(table(figures));
  if (o.json !== undefined) {
    const { count, settle, settleAll, window } = o;
    const result = {
      date: new Date().toISOString().slice(0, 10),
      machine,
      count,
      settle,
      settleAll,
      window,
      figures,
    };
    writeFileSync(o.json, `${JSON.stringify(result, null, 1)}\n`);
  }
  return 0;
}

const instance = ({ toolPids, holder }: Guest): Instance => instanceOf(toolPids[0] ?? -1, holder);

/** Sums over the instances, per instance. */
function perInstance(guests: readonly Guest[]): { engine: Memory; helpers: Memory } {
  const instances = guests.map(instance);
  const mean = (memories: readonly Memory[]): Memory => {
    const { rss, pss, private: own, anonymous } = memories.reduce(addMemory, NO_MEMORY);
    const n = memories.length;
    return { rss: rss / n, pss: pss / n, private: own / n, anonymous: anonymous / n };
  };
  return {
    engine: mean(instances.map(({ engine }) => memorySum(engine))),
    helpers: mean(instances.map(({ helpers }) => memorySum(helpers))),
  };
}

async function measure(world: World, peer: Peer, o: Options): Promise<PeerFigures> {
  const guests = [await peer.start(world, MTU)];
  const { engine } = instance(guests[0]!);
  const watch = new ThreadWatch(engine);
  for (let second = 0; second < o.settle; second++) {
    await sleep(SAMPLE_MS);
    watch.sample();
  }
  const minute = watch.sample();
  const one = perInstance(guests);
  const after = new ThreadWatch(engine);
  await sleep(o.window * 1000);
  const idle = after.sample();
  let all: ReturnType<typeof perInstance> | null = null;
  if (o.count > 0) {
    while (guests.length < o.count) guests.push(await peer.start(world, MTU));
    await sleep(o.settleAll * 1000);
    all = perInstance(guests);
  }
  await Promise.all(guests.map((guest) => guest.stop()));
  return { peer: peer.name, one, count: o.count, all, minute, idleWakes: idle.switches };
}

const args = process.argv.slice(2);
try {
  const parsed = options(args);
  if (parsed === null) console.log(HELP);
  else if (process.env[INSIDE] === '1') process.exit(await inside(parsed));
  else process.exitCode = await outside(args);
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  say(`memory: ${error.message}`);
  process.exitCode = 2;
}
