/**
 * The peers: how each tool is started with an MTU, which process holds its guest namespace, and how to
 * install a missing tool.
 *
 * Every guest has one published port, so that one guest serves both directions of connecting:
 *   198.18.0.1:publishedPort on the host  --tool-->  SERVICE_PORT in the guest
 * `direct` has no tool: there both are the same port of the host.
 */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { autoThreads, shardCount } from '../../src/workers/placement.ts';
import type { PeerSpec } from './options.ts';
import { type Argv, commandLine, Daemon, descendants, run, until } from './processes.ts';
import { isBuilt, packageDirectory, programWords } from './programs.ts';
import type { PeerKind } from './result.ts';
import { holdNamespaces, type World } from './world.ts';

/** A running peer: its guest namespace exists; traffic works within seconds. */
export interface Guest {
  /** Prefix a command so that it runs in the guest. */
  inside(argv: Argv): Argv;
  /** Roots of the tool's process trees; none when there is no tool. */
  readonly toolPids: readonly number[];
  /**
   * Command line of the process that holds the namespace: a descendant of the tool. It and the processes that
   * it starts are not part of the tool.
   */
  readonly holder: string;
  readonly servicePort: number;
  readonly publishedPort: number;
  /** Whether the tool is running. */
  alive(): boolean;
  /** The tool's last output, for error messages. */
  words(): string;
  stop(): Promise<void>;
}

export interface Peer {
  readonly name: string;
  readonly kind: PeerKind;
  readonly threads: string | null;
  /** Each measurement has a guest of its own. */
  readonly needsFreshGuest?: true;
  /** @returns its version; or why it cannot be measured, and how to install it */
  probe(): Promise<{ version: string } | { missing: string }>;
  start(world: World, mtu: number): Promise<Guest>;
  /** Command that starts a guest, runs `true` in it and stops it. */
  startArgv(world: World, mtu: number): Argv;
}

const OUR_LAUNCHER = `${packageDirectory}bin/bucatini`;
const SERVICE_PORT = 5201;
/** Outside the kernel's range of ephemeral ports, which world.ts sets. */
const FIRST_PUBLISHED_PORT = 7000;

let nextTag = 100_000_000;
let nextPort = FIRST_PUBLISHED_PORT;

/** Commands for programs in a container that have to be started by a process of it (traffic/contained.ts). */
const contained = (mode: 'serve' | 'run' | 'filtered', path: string, argv: readonly string[]): Argv => [
  ...programWords('contained'),
  mode,
  path,
  ...argv,
];

/**
 * Start a tool that runs a command in the namespace it creates: pasta and bucatini.
 * @param socketPath  where the command listens for programs to start; null: programs enter the namespace
 */
async function startAround(
  world: World,
  tool: Argv,
  publishedPort: number,
  socketPath: string | null = null,
): Promise<Guest> {
  // The command's process is found by its last argument, which is unique.
  const words = socketPath === null ? ['sleep', `${nextTag++}`] : contained('serve', socketPath, []);
  const command = words.join(' ');
  const daemon = new Daemon(world.asUser([...tool, ...words]));
  const pid = await until(tool.join(' '), 10_000, () => {
    if (!daemon.running) throw new Error(`${tool.join(' ')}: ${daemon.output || 'ended at once'}`);
    if (socketPath !== null && !existsSync(socketPath)) return null;
    return descendants(daemon.pid).find((each) => commandLine(each) === command) ?? null;
  }).catch(async (error) => {
    await daemon.stop();
    throw error;
  });
  return {
    inside: (argv) => (socketPath === null ? world.inGuest(pid, argv) : contained('run', socketPath, argv)),
    toolPids: [daemon.pid],
    holder: command,
    servicePort: SERVICE_PORT,
    publishedPort,
    alive: () => daemon.running,
    words: () => daemon.output,
    stop: () => daemon.stop(),
  };
}

/** First line of `PROGRAM --version`; if it does not run, the remedy and its output. */
async function version(
  program: string,
  remedy: string,
  env = process.env,
): Promise<{ version: string } | { missing: string }> {
  const { status, stdout, stderr } = await run([program, '--version'], 10_000, undefined, env);
  const first = (stdout || stderr).trim().split('\n')[0] ?? '';
  if (status === 0) return { version: first };
  return { missing: status === null ? remedy : `${remedy} (${first})` };
}

/** Thread plan as text, with the plan that `auto` selects on this machine. */
function threadsText(threads: string): string {
  if (threads !== 'auto') return threads;
  const chosen = autoThreads(availableParallelism());
  if (chosen.kind === 'fused') return 'auto: fused';
  const first = chosen.kind === 'lanes' && chosen.first !== undefined ? `${chosen.first}-` : '';
  return `auto: ${chosen.kind}=${first}${shardCount(chosen)}`;
}

/** pasta of Debian 12 prints an unknown version; then the version of its package is used. */
async function packagedVersion(name: string, packageName: string, said: string): Promise<string> {
  if (!said.includes('unknown')) return said;
  // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg-query's own format
  const { status, stdout } = await run(['dpkg-query', '-W', '-f', '${Version}', packageName], 5000);
  return status === 0 && stdout !== '' ? `${name} ${stdout}` : said;
}

const OLD_YEARS = 2;

/**
 * A note that a build of a tool is years old, or null. passt's versions contain dates (2026_10_02.abcdef),
 * Debian's too (0.0~git20230309.7c7625d). Pure.
 */
export function ageNote(name: string, version: string, now: Date): string | null {
  if (/^(?:pasta|slirp)/.test(name) && version.includes('bucatini'))
    return `${name} in PATH is bucatini's own, not the original: write --peers …,${name}=FILE`;
  const kind = name.startsWith('slirp') ? 'slirp' : 'pasta';
  const [, year, month] = /\b(?:git)?(20\d\d)[_-]?([01]\d)[_-]?[0-3]\d\b/.exec(version) ?? [];
  if (year === undefined || month === undefined) return null;
  const months = (now.getUTCFullYear() - Number(year)) * 12 + now.getUTCMonth() + 1 - Number(month);
  if (months < OLD_YEARS * 12) return null;
  return `${name} is of ${year}-${month}, ${Math.floor(months / 12)} years old: its figures are not those of a new one, which ${kind}-new=FILE in --peers adds`;
}

function ours(spec: PeerSpec, scratch: string): Peer {
  const program = spec.path ?? OUR_LAUNCHER;
  const switches = spec.switchesSockets === true;
  const argv = (mtu: number, publish: readonly string[]): Argv => [
    program,
    'run',
    '--threads',
    spec.threads,
    '--mtu',
    `${mtu}`,
    ...(switches ? ['--switch-sockets'] : []),
    ...publish,
    '--',
  ];
  return {
    name: spec.name,
    kind: spec.kind,
    threads: threadsText(spec.threads),
    probe: () => version(program, isBuilt ? 'install again' : 'npm ci builds it'),
    start: (world, mtu) => {
      const port = nextPort++;
      const socketPath = switches ? join(scratch, `${nextTag++}.sock`) : null;
      return startAround(world, argv(mtu, ['-p', `${port}:${SERVICE_PORT}`]), port, socketPath);
    },
    startArgv: (world, mtu) => world.asUser([...argv(mtu, []), 'true']),
  };
}

function pasta(spec: PeerSpec): Peer {
  const program = spec.path ?? 'pasta';
  // Options as Podman passes them: the guest's ports are not watched.
  const argv = (mtu: number, publish: string): Argv => [
    program,
    '--config-net',
    '-m',
    `${mtu}`,
    '-t',
    publish,
    '-u',
    'none',
    '-T',
    'none',
    '-U',
    'none',
    '--',
  ];
  return {
    name: spec.name,
    kind: spec.kind,
    threads: null,
    async probe() {
      if (spec.path !== null) return version(program, 'the named file does not run');
      const found = await version(program, 'apt-get install passt');
      return 'version' in found ? { version: await packagedVersion('pasta', 'passt', found.version) } : found;
    },
    start: (world, mtu) => {
      const port = nextPort++;
      return startAround(world, argv(mtu, `${port}:${SERVICE_PORT}`), port);
    },
    startArgv: (world, mtu) => world.asUser([...argv(mtu, 'none'), 'true']),
  };
}

/** Send one request to slirp4netns's API socket. @throws Error when it answers with an error or not at all */
function slirpRequest(socketPath: string, request: object): Promise<void> {
  return new Promise((resolve, reject) => {
    let answer = '';
    const socket = connect(socketPath, () => socket.end(JSON.stringify(request)));
    socket.setTimeout(3000, () => socket.destroy(new Error('slirp4netns: no answer on its API socket')));
    socket.on('data', (chunk) => {
      answer += chunk;
    });
    socket.on('error', reject);
    socket.on('close', () => {
      if (answer.includes('"return"')) resolve();
      else reject(new Error(`slirp4netns: ${answer.trim() || 'closed its API socket without an answer'}`));
    });
  });
}

/**
 * $1 program, $2 MTU, $3 an empty directory: start a namespace as in its manual, run `true` in it, stop it.
 */
const SLIRP_START = `
mkfifo "$3/up" "$3/ready"
unshare -Urn sh -c 'echo up >"$1/up"; exec sleep 60' sh "$3" & ns=$!
read -r word <"$3/up"
"$1" -c -m "$2" -r 3 $ns tap0 3>"$3/ready" >/dev/null 2>&1 & tool=$!
read -r word <"$3/ready"
nsenter --preserve-credentials -U -n -t $ns true; status=$?
kill $tool $ns
wait 2>/dev/null
rm "$3/up" "$3/ready"
exit $status`;

function slirp(spec: PeerSpec, scratch: string): Peer {
  const program = spec.path ?? 'slirp4netns';
  return {
    name: spec.name,
    kind: spec.kind,
    threads: null,
    probe: () =>
      version(program, spec.path === null ? 'apt-get install slirp4netns' : 'the named file does not run'),
    async start(world, mtu) {
      const publishedPort = nextPort++;
      const tag = nextTag++;
      const socketPath = join(scratch, `${tag}.sock`);
      const pid = await holdNamespaces(world.asUser(['unshare', '-Urn', 'sleep', `${tag}`]), 'net');
      const daemon = new Daemon(
        world.asUser([program, '-c', '-6', '-m', `${mtu}`, '--api-socket', socketPath, `${pid}`, 'tap0']),
      );
      const stop = async () => {
        await daemon.stop();
        process.kill(pid, 'SIGKILL');
      };
      try {
        await until('slirp4netns', 5000, async () => {
          if (!daemon.running) throw new Error(`slirp4netns: ${daemon.output}`);
          try {
            await slirpRequest(socketPath, {
              execute: 'add_hostfwd',
              arguments: {
                proto: 'tcp',
                host_addr: '0.0.0.0',
                host_port: publishedPort,
                guest_port: SERVICE_PORT,
              },
            });
            return true;
          } catch (error) {
            // ENOENT and ECONNREFUSED: the API socket is not ready yet.
            if (error instanceof Error && 'code' in error) return null;
            throw error;
          }
        });
      } catch (error) {
        await stop();
        throw error;
      }
      return {
        inside: (argv) => world.inGuest(pid, argv),
        toolPids: [daemon.pid],
        holder: `sleep ${tag}`,
        servicePort: SERVICE_PORT,
        publishedPort,
        alive: () => daemon.running,
        words: () => daemon.output,
        stop,
      };
    },
    startArgv: (world, mtu) => world.asUser(['sh', '-c', SLIRP_START, 'sh', program, `${mtu}`, scratch]),
  };
}

/** Inner destinations, which are slirp4netns's own. */
const BYPASS_IGNORES = '127.0.0.0/8,10.0.2.0/24';

/**
 * bypass4netns beside slirp4netns, which carries what it leaves. Its programs run as in a container of crun,
 * without the container (traffic/filtered.ts). After the last program of a container has ended, it spins on
 * the listener: guests of other peers would be measured beside that.
 */
function bypass(spec: PeerSpec, scratch: string): Peer {
  const program = spec.path ?? 'bypass4netns';
  const below = slirp({ ...spec, path: null }, scratch);
  const env = { ...process.env, XDG_RUNTIME_DIR: scratch };
  return {
    name: spec.name,
    kind: spec.kind,
    threads: null,
    needsFreshGuest: true,
    async probe() {
      const remedy = spec.path === null ? 'apt-get install bypass4netns' : 'the named file does not run';
      const found = await version(program, remedy, env);
      if ('missing' in found) return found;
      const beneath = await below.probe();
      if ('missing' in beneath) return beneath;
      const said = found.version.replace('<unknown>', 'unknown'); // Debian's
      const named = spec.path === null ? await packagedVersion('bypass4netns', 'bypass4netns', said) : said;
      return { version: `${named}, ${beneath.version}` };
    },
    async start(world, mtu) {
      const guest = await below.start(world, mtu);
      const tag = nextTag++;
      const [agentPath, socketPath] = [join(scratch, `${tag}.agent`), join(scratch, `${tag}.sock`)];
      const options = ['--ignore', BYPASS_IGNORES, '--ignore-bind', '--socket', agentPath];
      const files = ['--com-socket', `${agentPath}.com`, '--pid-file', `${agentPath}.pid`];
      const agent = new Daemon(world.asUser([program, ...options, ...files]), env);
      const started = [agent];
      const stop = async () => {
        // The container first: the kernel answers its calls with ENOSYS once the agent is gone.
        for (const daemon of started.toReversed()) await daemon.stop();
        await guest.stop();
      };
      const ready = (daemon: Daemon, path: string) =>
        until(program, 5000, () => {
          if (!daemon.running) throw new Error(`${program}: ${daemon.output || 'ended at once'}`);
          return existsSync(path) ? true : null;
        });
      try {
        await ready(agent, agentPath);
        const server = new Daemon(
          guest.inside(contained('filtered', agentPath, contained('serve', socketPath, []))),
        );
        started.push(server);
        await ready(server, socketPath);
        return {
          ...guest,
          inside: (argv) => contained('run', socketPath, argv),
          toolPids: [agent.pid, ...guest.toolPids],
          alive: () => guest.alive() && started.every((daemon) => daemon.running),
          words: () => [agent.output, guest.words()].join('\n').trim(),
          stop,
        };
      } catch (error) {
        await stop();
        throw error;
      }
    },
    startArgv: below.startArgv,
  };
}

function direct(spec: PeerSpec): Peer {
  return {
    name: spec.name,
    kind: 'direct',
    threads: null,
    probe: async () => ({ version: 'veth, no tool' }),
    async start() {
      const port = nextPort++;
      return {
        inside: (argv) => argv,
        toolPids: [],
        holder: '',
        servicePort: port,
        publishedPort: port,
        alive: () => true,
        words: () => '',
        stop: async () => {},
      };
    },
    startArgv: (world) => world.asUser(['unshare', '-Urn', 'true']),
  };
}

/**
 * Make the peers, in the order of `specs`. Creates a directory for sockets, which is removed when this
 * process ends.
 */
export function makePeers(specs: readonly PeerSpec[]): Peer[] {
  const scratch = mkdtempSync(join(tmpdir(), 'harness-'));
  process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));
  const makers: Readonly<Record<PeerKind, (spec: PeerSpec) => Peer>> = {
    direct,
    bucatini: (spec) => ours(spec, scratch),
    pasta,
    slirp4netns: (spec) => slirp(spec, scratch),
    bypass4netns: (spec) => bypass(spec, scratch),
  };
  return specs.map((spec) => makers[spec.kind](spec));
}
