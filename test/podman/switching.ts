/**
 * Socket switching by `bucatini switch-agent` under Podman, with crun and runc. The agent is ours with either pasta.
 */
import { PEER4, PEER6, PORT } from '../support/ports.ts';
import { eventually, killTree, type Started } from '../support/process.ts';
import { type Case, download, has, same, serves, web, withHostServer } from './pieces.ts';
import { IMAGE, type Podman } from './podman.ts';

const BUCATINI = '/opt/bucatini/bin/bucatini';
const SOCKET = '/run/user/1000/bucatini-switch.sock';
const PROFILE = '/run/user/1000/profile.json';
/** runc refuses to work without cgroups, as the tree's own file says; without rights to them it makes none. */
const FOR_RUNC = `[containers]
cgroups = "enabled"
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
`;
const CONF = '/home/rl/.config/containers/containers.conf';
const UP_MS = 10_000;
const BYTES = 10 << 20;
const SWITCHED = '0';
const INSIDE = '1';

/** Prints how many connections to the peer's echo server the container's own network has: none, if it was switched. */
const echoOf = (address: string): string =>
  `{ echo x; sleep 2; } | nc ${address} ${PORT.echo} >/tmp/echo & sleep 0.7; cat /proc/net/tcp /proc/net/tcp6 | grep -c ':0007 01'; test "$(cat /tmp/echo)" = x`;

/** Podman with a runtime, and the profile of an agent that runs. */
class Switched {
  readonly podman: Podman;
  readonly runtime: string;
  readonly agent: Started;

  constructor(podman: Podman, runtime: string, agent: Started) {
    this.podman = podman;
    this.runtime = runtime;
    this.agent = agent;
  }

  run(options: readonly string[], script: string, image = IMAGE): Promise<string> {
    const all = ['--security-opt', `seccomp=${PROFILE}`, ...options, image, 'sh', '-c', script];
    return this.podman.succeed('--runtime', this.runtime, 'run', ...all);
  }

  once(options: readonly string[], script: string): Promise<string> {
    return this.run(['--rm', ...options], script);
  }

  async served(): Promise<number> {
    return this.agent.printed().stderr.match(/: serving process /g)?.length ?? 0;
  }
}

async function withAgent(podman: Podman, work: (agent: Started) => Promise<void>): Promise<void> {
  const agent = podman.background(BUCATINI, 'switch-agent', '--socket', SOCKET, '--log-level', 'debug');
  try {
    await eventually('the agent listens', UP_MS, () =>
      agent.printed().stderr.includes(`listening at ${SOCKET}`),
    );
    await work(agent);
  } catch (error) {
    throw new Error(`${(error as Error).message}\nagent: ${agent.printed().stderr}`);
  } finally {
    await agent.end('SIGTERM').catch(() => killTree(agent.pid));
  }
}

const withRuntime =
  (runtime: string, work: (switched: Switched) => Promise<void>) =>
  (podman: Podman): Promise<void> =>
    withAgent(podman, async (agent) => {
      const script = `${BUCATINI} switch-agent --socket ${SOCKET} --print-profile >${PROFILE}`;
      const made = await podman.exec('sh', '-c', script);
      same(made.stderr, '');
      if (runtime === 'runc')
        await podman.exec(
          'sh',
          '-c',
          `mkdir -p ${CONF.replace(/\/[^/]*$/, '')}; printf '%s' '${FOR_RUNC}' >${CONF}`,
        );
      try {
        await work(new Switched(podman, runtime, agent));
      } finally {
        await podman.clean();
        await podman.exec('rm', '-rf', '/home/rl/.config');
      }
    });

const WORK: readonly { name: string; work(switched: Switched): Promise<void> }[] = [
  {
    name: 'run: TCP leaves by sockets of the host, IPv4 and IPv6; UDP and loopback as before',
    async work(switched) {
      same(await switched.once([], echoOf(PEER4)), SWITCHED);
      same(await switched.once([], echoOf(PEER6)), SWITCHED);
      const script = `${download(PEER4, BYTES)}; echo u | socat -t 1 - UDP:${PEER4}:${PORT.echo}; nc -l -p 99 -e echo l & sleep 0.3; nc 127.0.0.1 99`;
      same(await switched.once([], script), `${BYTES}\nu\nl`);
    },
  },
  {
    name: "run: the host's loopback is not reached, nor are its addresses by the agent",
    async work(switched) {
      await withHostServer(switched.podman, 8350, async () => {
        for (const address of ['127.0.0.1', '0.0.0.0', '[::1]', '[::ffff:127.0.0.1]'])
          same(await switched.once([], `wget -q -T 2 -O - http://${address}:8350/word || echo no`), 'no');
        same(
          await switched.once([], 'wget -q -T 5 -O - http://host.containers.internal:8350/word'),
          'from the host',
        );
      });
    },
  },
  {
    name: 'exec, and a healthcheck: each has a listener of its own',
    async work(switched) {
      const health = `echo x | nc -w 1 ${PEER4} ${PORT.echo}`;
      const options = [
        '-d',
        '--init',
        '--name',
        'sw',
        '--health-cmd',
        health,
        '--health-interval',
        'disable',
      ];
      await switched.run(options, 'sleep 60');
      const inside = (...script: string[]): Promise<string> =>
        switched.podman.succeed('--runtime', switched.runtime, 'exec', 'sw', ...script);
      same(await inside('sh', '-c', echoOf(PEER4)), SWITCHED);
      same(await inside('sh', '-c', download(PEER4, BYTES)), `${BYTES}`);
      await switched.podman.succeed('--runtime', switched.runtime, 'healthcheck', 'run', 'sw');
      if ((await switched.served()) < 4) throw new Error('fewer listeners than processes with a filter');
      await switched.podman.succeed('rm', '-f', '-t', '0', 'sw');
      await eventually('all listeners have ended', UP_MS, () => {
        const log = switched.agent.printed().stderr;
        return (
          log.match(/: serving process /g)?.length === log.match(/bucatini: \S+: no process is left/g)?.length
        );
      });
    },
  },
  {
    name: 'a pod: connections between its containers stay inside, the others are switched',
    async work(switched) {
      const { podman, runtime } = switched;
      await podman.succeed('--runtime', runtime, 'pod', 'create', '--name', 'swpod', '-p', '8351:80');
      await switched.run(['-d', '--pod', 'swpod'], web('pod'));
      await serves(podman, 8351, 'pod');
      same(await switched.once(['--pod', 'swpod'], 'wget -q -T 5 -O - http://127.0.0.1/'), 'pod');
      same(await switched.once(['--pod', 'swpod'], echoOf(PEER4)), SWITCHED);
    },
  },
  {
    name: 'a bridge network: names and containers of it stay inside, the world is switched; published ports',
    async work(switched) {
      const { podman } = switched;
      await podman.succeed('network', 'create', 'swnet');
      await switched.run(
        ['-d', '--init', '--name', 'web', '--network', 'swnet', '-p', '8352:80'],
        web('bridged'),
      );
      await serves(podman, 8352, 'bridged');
      same(await switched.once(['--network', 'swnet'], 'wget -q -T 5 -O - http://web/'), 'bridged');
      same(await switched.once(['--network', 'swnet'], echoOf(PEER4)), SWITCHED);
      same(await switched.once(['--network', 'swnet'], download(PEER4, BYTES)), `${BYTES}`);
      await podman.succeed('rm', '-f', '-t', '0', 'web');
      await podman.succeed('network', 'rm', '-f', 'swnet');
    },
  },
  {
    name: 'build: RUN is switched',
    async work({ podman, runtime }) {
      const file = `FROM ${IMAGE}\nRUN ${download(PEER4, BYTES)} >/got\n`;
      const script = `mkdir -p ~/b && printf '%s' '${file}' >~/b/Containerfile && podman --runtime ${runtime} build -q --security-opt seccomp=${PROFILE} -t localhost/swbuilt ~/b`;
      const built = await podman.exec('sh', '-c', script);
      if (built.status !== 0) throw new Error(built.stderr);
      same(await podman.succeed('run', '--rm', 'localhost/swbuilt', 'cat', '/got'), `${BYTES}`);
      await podman.succeed('rmi', 'localhost/swbuilt');
    },
  },
];

const BY_RUNTIME: readonly Case[] = ['crun', 'runc'].flatMap((runtime) =>
  WORK.map(({ name, work }) => ({ name: `switch, ${runtime}: ${name}`, run: withRuntime(runtime, work) })),
);

/** All of one tree. */
export const SWITCHING: readonly Case[] = [
  ...BY_RUNTIME,
  {
    name: 'switch-over --switch-sockets: every container of the user; switch-back: as before',
    async run(podman) {
      const bucatini = async (...argv: string[]): Promise<string> => {
        const { status, stdout, stderr } = await podman.exec(BUCATINI, ...argv);
        if (status !== 0 && !stdout.includes('NOT YET'))
          throw new Error(`${argv.join(' ')}: ${stderr}${stdout}`);
        return stdout;
      };
      const here = async (): Promise<string> =>
        (await podman.exec('sh', '-c', 'find ~/.config ~/.local/share/bucatini 2>/dev/null; true')).stdout;
      const before = await here();
      has(
        await bucatini('switch-over', '--switch-sockets'),
        /START {4}systemctl --user .*enable --now bucatini-switch-agent/,
      );
      await withAgent(podman, async () => {
        same(await podman.once('pasta', echoOf(PEER4)), SWITCHED);
        same(await podman.once('pasta', download(PEER4, BYTES)), `${BYTES}`);
      });
      await bucatini('switch-back');
      same(await podman.once('pasta', echoOf(PEER4)), INSIDE);
      same(await here(), before.trim());
    },
  },
];
