/**
 * The peers: how each tool is started at an MTU, which process holds its guest namespace, and how to get a missing one.
 */
import { fileURLToPath } from 'node:url';
import { type Argv, commandLine, Daemon, descendants, run, until } from './processes.ts';
import { holdNamespaces, type World } from './world.ts';

/** A peer that runs: its guest is there, traffic is to be expected within seconds. */
export interface Guest {
  /** Prefix a command so that it runs inside. */
  inside(argv: Argv): Argv;
  /** Root of the tool's process tree, for its CPU time; null when there is no tool. */
  readonly toolPid: number | null;
  /** The tool's last words, for when something is wrong. */
  words(): string;
  stop(): Promise<void>;
}

export interface Peer {
  readonly name: string;
  /** Measured against, not competing. */
  readonly isOurs: boolean;
  /** @returns its version, or why it cannot be measured and how to get it */
  probe(): Promise<{ version: string } | { missing: string }>;
  start(world: World, mtu: number, ipv6: boolean): Promise<Guest>;
}

export const DIRECT = 'direct';
const bucatini = fileURLToPath(new URL('../../bin/bucatini', import.meta.url));

let nextTag = 100_000_000;

/** A tool that runs a command in the namespace it makes: pasta and ourselves. */
async function startAround(world: World, tool: Argv): Promise<Guest> {
  // The command is found again by its argument, which nobody else uses.
  const command = `sleep ${nextTag++}`;
  const daemon = new Daemon(world.asUser([...tool, ...command.split(' ')] as unknown as Argv));
  const pid = await until(tool.join(' '), 10_000, () => {
    if (!daemon.running) throw new Error(`${tool.join(' ')}: ${daemon.output || 'ended at once'}`);
    return descendants(daemon.pid).find((each) => commandLine(each) === command) ?? null;
  }).catch(async (error) => {
    await daemon.stop();
    throw error;
  });
  return {
    inside: (argv) => world.inGuest(pid, argv),
    toolPid: daemon.pid,
    words: () => daemon.output,
    stop: () => daemon.stop(),
  };
}

/** First line of `PROGRAM --version`; when it does not run, the remedy and what it said. */
async function version(program: string, remedy: string): Promise<{ version: string } | { missing: string }> {
  const { status, stdout, stderr } = await run([program, '--version'], 10_000);
  const first = (stdout || stderr).trim().split('\n')[0] ?? '';
  if (status === 0) return { version: first };
  return { missing: status === null ? remedy : `${remedy} (${first})` };
}

function ours(plan: string): Peer {
  return {
    name: plan,
    isOurs: true,
    probe: () => version(bucatini, 'npm ci builds it'),
    start: (world, mtu) => startAround(world, [bucatini, 'run', '--threads', plan, '--mtu', `${mtu}`, '--']),
  };
}

function pasta(name: string, program: string, remedy: string): Peer {
  return {
    name,
    isOurs: false,
    probe: async () => (program === '' ? { missing: remedy } : version(program, remedy)),
    start: (world, mtu) => startAround(world, [program, '--config-net', '-m', `${mtu}`, '--']),
  };
}

const slirp: Peer = {
  name: 'slirp4netns',
  isOurs: false,
  probe: () => version('slirp4netns', 'apt-get install slirp4netns'),
  async start(world, mtu, ipv6) {
    const holder = await holdNamespaces(world.asUser(['unshare', '-Urn', 'sleep', `${nextTag++}`]), 'net');
    const six = ipv6 ? ['-6'] : [];
    const daemon = new Daemon(
      world.asUser(['slirp4netns', '-c', ...six, '-m', `${mtu}`, `${holder}`, 'tap0']),
    );
    return {
      inside: (argv) => world.inGuest(holder, argv),
      toolPid: daemon.pid,
      words: () => daemon.output,
      async stop() {
        await daemon.stop();
        process.kill(holder, 'SIGKILL');
      },
    };
  },
};

const direct: Peer = {
  name: DIRECT,
  isOurs: false,
  probe: async () => ({ version: 'veth, no tool' }),
  start: async () => ({ inside: (argv) => argv, toolPid: null, words: () => '', stop: async () => {} }),
};

export const PEERS: readonly Peer[] = [
  direct,
  ours('fused'),
  ours('pipeline=1'),
  ours('pipeline=2'),
  pasta('pasta', 'pasta', 'apt-get install passt'),
  pasta('pasta-new', process.env.PASTA_NEW ?? '', 'PASTA_NEW=FILE names a newer pasta'),
  slirp,
];
