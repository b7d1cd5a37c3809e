/**
 * Containers on bridge networks, which share one pasta per user, also after changes of the host's network.
 * Results are judged as in cases.ts. Their published ports are in forwarders.ts.
 */
import { HOST4, HOST6, PEER4, PEER6, PORT } from '../support/ports.ts';
import { eventually, sleepMs } from '../support/process.ts';
import { type Case, download, has, nothingLeft, same, serves, WAYS4, web, withHostServer } from './pieces.ts';
import { fetched, IMAGE, type Podman } from './podman.ts';

/** How long the engine may take to follow a change of the host's network. */
const SETTLE_MS = 1500;
const OTHER4 = '10.77.0.9';
const QUIT_MS = 5000;

const ip = async (podman: Podman, ...argv: string[]): Promise<void> => {
  const { status, stderr } = await podman.bed.run('host', ['ip', ...argv]);
  if (status !== 0) throw new Error(`ip ${argv.join(' ')}: ${stderr}`);
};

/**
 * Restore the uplink of the host as bed-up.sh makes it, with the routes that the kernel removed with the
 * link.
 */
async function uplinkUp(podman: Podman): Promise<void> {
  await ip(podman, 'link', 'set', 'veth0', 'up');
  await ip(podman, 'addr', 'replace', `${HOST6}/64`, 'dev', 'veth0', 'nodad');
  await ip(podman, 'route', 'replace', 'default', 'via', '10.77.0.254', 'dev', 'veth0');
  await ip(podman, '-6', 'route', 'replace', 'default', 'via', 'fd77::fe', 'dev', 'veth0');
}

/** The host has no uplink while `work` runs. */
async function offline(podman: Podman, work: () => Promise<void>): Promise<void> {
  await ip(podman, 'link', 'set', 'veth0', 'down');
  try {
    await work();
  } finally {
    await uplinkUp(podman);
  }
  await sleepMs(SETTLE_MS);
}

/** Another IPv4 address in place of the host's, while `work` runs. */
async function readdressed(podman: Podman, work: () => Promise<void>): Promise<void> {
  const change = async (from: string, to: string): Promise<void> => {
    // The removed address may be the primary one of its prefix: the kernel removes the secondary one with it.
    await ip(podman, 'addr', 'replace', `${to}/24`, 'dev', 'veth0');
    await ip(podman, 'addr', 'del', `${from}/24`, 'dev', 'veth0');
    await ip(podman, 'addr', 'replace', `${to}/24`, 'dev', 'veth0');
    await uplinkUp(podman);
  };
  await change(HOST4, OTHER4);
  try {
    await sleepMs(SETTLE_MS);
    await work();
  } finally {
    await change(OTHER4, HOST4);
  }
}

/** A container on a bridge and one with its own pasta, each with a published port and outbound access. */
interface Pair {
  readonly bridged: string;
  readonly own: string;
}
const BRIDGED = 8301;
const OWN = 8302;

async function pair(podman: Podman): Promise<Pair> {
  await podman.succeed('network', 'create', '--ipv6', 'pair');
  const bridged = await podman.start(['--network', 'pair', '-p', `${BRIDGED}:80`], web('bridged'));
  const own = await podman.start(['--network', 'pasta', '-p', `${OWN}:80`], web('own'));
  return { bridged, own };
}

async function bothWork(podman: Podman, { bridged, own }: Pair, host = HOST4): Promise<void> {
  for (const [port, word] of [
    [BRIDGED, 'bridged'],
    [OWN, 'own'],
  ] as const)
    await serves(podman, port, word, [
      ['host', '127.0.0.1'],
      ['peer', host],
    ]);
  for (const name of [bridged, own]) same(await podman.inside(name, download(PEER4, 5000)), '5000');
}

export const BRIDGES: readonly Case[] = [
  {
    name: 'bridge: outgoing TCP over IPv4, IPv6 and by name, with the source of the host; ping',
    async run(podman) {
      await podman.succeed('network', 'create', '--ipv6', 'out');
      const hosts = [PEER4, `[${PEER6}]`, 'peer.bed.test'];
      const sources = [PEER4, `[${PEER6}]`].map(
        (host) => `wget -q -T 5 -O - http://${host}:${PORT.http}/source; echo`,
      );
      const pings = [PEER4, PEER6].map((host) => `ping -c 1 -W 3 ${host}`);
      const script = [...hosts.map((host) => download(host, 70_000)), ...sources, ...pings].join('; ');
      const said = await podman.once('out', script, '--cap-add', 'NET_RAW');
      has(said, new RegExp(`^70000\\n70000\\n70000\\n${HOST4}\\n${HOST6}\\n`));
      has(said, /1 packets received[\s\S]*1 packets received/);
    },
  },
  {
    name: 'bridge: containers find each other by name, TCP and ping of both families',
    async run(podman) {
      await podman.succeed('network', 'create', '--ipv6', 'names');
      const one = await podman.start(['--network', 'names'], web('one'));
      const wait = `for i in 1 2 3 4 5; do wget -q -T 2 -O - http://${one}/ && break; sleep 0.3; done`;
      const script = `${wait}; ping -4 -c 1 -W 2 ${one}; ping -6 -c 1 -W 2 ${one}`;
      const said = await podman.once('names', script, '--cap-add', 'NET_RAW');
      has(said, /^one\n[\s\S]*1 packets received[\s\S]*1 packets received/);
    },
  },
  {
    name: 'bridge: host.containers.internal is the host, also with a pasta of its own',
    async run(podman) {
      await podman.succeed('network', 'create', '--ipv6', 'internal');
      await withHostServer(podman, 8300, async () => {
        for (const network of ['pasta', 'internal'])
          for (const name of ['host.containers.internal', 'host.docker.internal'])
            same(await podman.once(network, `wget -q -T 3 -O - http://${name}:8300/word`), 'from the host');
      });
    },
  },
  {
    name: 'bridge, --internal: there is no way out',
    async run(podman) {
      await podman.succeed('network', 'create', '--internal', 'closed');
      const ask = `wget -q -T 2 -O - http://${PEER4}:${PORT.http}/bytes/9 2>/dev/null || echo none`;
      same(await podman.once('closed', ask), 'none');
    },
  },
  {
    name: 'bridge: 10 MiB down, whole',
    async run(podman) {
      await podman.succeed('network', 'create', 'large');
      const url = `http://${PEER4}:${PORT.http}/bytes/${10 << 20}`;
      const expected = await podman.bed.run('host', ['sh', '-c', `curl -sS ${url} | sha256sum`]);
      same(await podman.once('large', `wget -q -O - ${url} | sha256sum`), expected.stdout.trim());
    },
  },
  {
    name: "unshare --rootless-netns: the host's addresses are in the network of the bridges",
    async run(podman) {
      const said = await podman.succeed('unshare', '--rootless-netns', 'ip', '-o', 'addr');
      has(said, new RegExp(`inet ${HOST4}/24`));
    },
  },
  {
    name: 'containers.conf: pasta_options also for the pasta of bridges',
    async run(podman) {
      const options = '["-a", "10.0.2.15", "-n", "24", "-g", "10.0.2.2", "--dns-forward", "10.0.2.3"]';
      const conf = `[network]\npasta_options = ${options}\n`;
      const directory = '~/.config/containers/containers.conf.d';
      await podman.exec('sh', '-c', `mkdir -p ${directory}; printf '%s' '${conf}' >${directory}/o.conf`);
      try {
        const said = await podman.once('pasta', 'ip -o addr; cat /etc/resolv.conf');
        has(said, /inet 10\.0\.2\.15\/24[\s\S]*nameserver 10\.0\.2\.3/);
        await podman.succeed('network', 'create', 'conf');
        same(await podman.once('conf', download('peer.bed.test', 70_000)), '70000');
      } finally {
        await podman.exec('sh', '-c', `rm ${directory}/o.conf`);
      }
    },
  },
  {
    name: 'the pasta of bridges is killed: the next container has a network, and the old one after its restart',
    async run(podman) {
      await podman.succeed('network', 'create', 'killed');
      const old = await podman.start(['--network', 'killed', '-p', '8303:80'], web('old'));
      await serves(podman, 8303, 'old');
      const file = `${await podman.bridgesDir()}/rootless-netns-conn.pid`;
      const killed = await podman.exec('sh', '-c', `kill -9 "$(cat ${file})"`);
      if (killed.status !== 0) throw new Error(killed.stderr);
      await nothingLeft(podman);
      await podman.start(['--network', 'killed', '-p', '8304:80'], web('next'));
      await serves(podman, 8304, 'next');
      await podman.succeed('restart', '-t', '1', old);
      await serves(podman, 8303, 'old');
    },
  },
  {
    name: 'rm of all, bridge and pasta of its own: no process of any helper stays behind',
    async run(podman) {
      const both = await pair(podman);
      await bothWork(podman, both);
      await podman.succeed('rm', '-f', '-a', '-t', '0');
      await nothingLeft(podman);
      await eventually('no helper is left', QUIT_MS, () => podman.helpers().length === 0).catch(
        (e: Error) => {
          throw new Error(`${e.message}: ${podman.helpers()}`);
        },
      );
    },
  },
  {
    name: 'system reset: no process of any helper stays behind',
    async run(podman) {
      await pair(podman);
      if (podman.engines().length < 2) throw new Error(`not two engines: ${podman.engines()}`);
      try {
        await podman.succeed('system', 'reset', '-f');
      } finally {
        await podman.importImage();
      }
      await nothingLeft(podman);
      same(podman.helpers().join(), '');
    },
  },
  {
    name: "the host's uplink goes down and comes back: containers that ran have their network again",
    async run(podman) {
      const both = await pair(podman);
      await bothWork(podman, both);
      await offline(podman, () => sleepMs(SETTLE_MS));
      await bothWork(podman, both);
    },
  },
  {
    name: 'containers start while the host is offline: loopback reaches them, and all works once it is online',
    async run(podman) {
      let both: Pair | undefined;
      await offline(podman, async () => {
        both = await pair(podman);
        await serves(podman, BRIDGED, 'bridged', [['host', '127.0.0.1']]);
        await serves(podman, OWN, 'own', [['host', '127.0.0.1']]);
      });
      await bothWork(podman, both!);
      await serves(podman, BRIDGED, 'bridged', [['peer', HOST6]]);
    },
  },
  {
    name: "the host's address changes: containers that ran and new ones have their network",
    async run(podman) {
      const both = await pair(podman);
      await bothWork(podman, both);
      await readdressed(podman, async () => {
        await bothWork(podman, both, OTHER4);
        same(await podman.once('pair', download('peer.bed.test', 70_000)), '70000');
      });
    },
  },
  {
    name: 'build and buildah: RUN reaches the outside by name, with the default network and --network pasta',
    async run(podman) {
      const file = `FROM ${IMAGE}\nRUN ${download('peer.bed.test', 34)} >/size\n`;
      for (const tool of ['podman build', 'podman build --network pasta', 'buildah build']) {
        const script = `mkdir -p ~/b; printf '%s' '${file}' >~/b/Containerfile; ${tool} -q --no-cache -t bridged ~/b`;
        const made = await podman.exec('sh', '-c', script);
        if (made.status !== 0) throw new Error(`${tool}: ${made.stderr}`);
        same(await podman.succeed('run', '--rm', '--network', 'none', 'bridged', 'cat', '/size'), '34');
      }
    },
  },
  {
    name: 'a container is paused and goes on: its published port is served again',
    async run(podman) {
      const { bridged, own } = await pair(podman);
      await serves(podman, BRIDGED, 'bridged', WAYS4);
      for (const name of [bridged, own]) {
        // Podman's own pause wants cgroups, which the tree does not delegate: the same is done to all
        // processes but the first.
        const signal = (which: string): Promise<string> => podman.inside(name, `kill -${which} -1`);
        await signal('STOP');
        const port = name === own ? OWN : BRIDGED;
        const url = `http://${HOST4}:${port}/`;
        const waiting = await podman.bed.run('peer', ['curl', '-sS', '-m', '1', url]);
        const CURL_TIMED_OUT = 28;
        if (waiting.status !== CURL_TIMED_OUT) throw new Error(`paused: curl's status ${waiting.status}`);
        await signal('CONT');
        same(await fetched(podman.bed, 'peer', url), name === own ? 'own' : 'bridged');
      }
    },
  },
];
