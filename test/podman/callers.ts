/**
 * Uses of slirp4netns by its callers, and of pasta by RootlessKit and Docker, one case each; judged as in
 * cases.ts. RootlessKit's child and the Docker daemon run in the tree, with its programs.
 */
import { HOST4, PEER4, PEER6, PORT } from '../support/ports.ts';
import { eventually } from '../support/process.ts';
import { type Case, download, has, hex, nothingLeft, same, udpEcho, web, who } from './pieces.ts';
import { answer, asked, fetched, IMAGE, type Podman } from './podman.ts';

const UP_MS = 10_000;
const DOCKER_MS = 30_000;
const STATE = '/run/user/1000/rk';
/** A second address of the host, while `work` runs. */
const SECOND4 = '10.77.0.9';
const SLIRP_DNS = '10.0.2.3';

const source = (host: string): string => `wget -q -T 5 -O - http://${host}:${PORT.http}/source`;

async function withSecondAddress(podman: Podman, work: () => Promise<void>): Promise<void> {
  const change = (verb: 'add' | 'del') =>
    podman.bed.run('host', ['ip', 'addr', verb, `${SECOND4}/24`, 'dev', 'veth0']);
  await change('add');
  try {
    await work();
  } finally {
    await change('del');
  }
}

/** A server on the host's loopback that answers with one word, while `work` runs. */
async function withLoopbackServer(podman: Podman, work: (port: number) => Promise<void>): Promise<void> {
  const { ramDir } = podman.bed;
  podman.bed.write(`${ramDir}/word`, 'from the host\n');
  const server = podman.bed.start('host', ['busybox', 'httpd', '-f', '-p', '127.0.0.1:8101', '-h', ramDir]);
  try {
    await fetched(podman.bed, 'host', 'http://127.0.0.1:8101/word');
    await work(8101);
  } finally {
    server.process.kill();
    await server.exited;
  }
}

/**
 * RootlessKit with a child that runs `script` (a shell's, with wget, httpd and nslookup), then waits; `work`
 * gets the script's output. It is ended by SIGTERM, or `signal`; no process may be left then.
 */
async function rootlesskit(
  podman: Podman,
  options: readonly string[],
  script: string,
  work: (printed: string) => Promise<void>,
  signal: NodeJS.Signals = 'SIGTERM',
): Promise<void> {
  const applets = ['wget', 'httpd', 'nslookup']
    .map((name) => `${name}() { busybox ${name} "$@"; }`)
    .join('; ');
  const child = `${applets}; ${script}
echo up; exec sleep infinity`;
  const flags = [`--state-dir=${STATE}`, '--copy-up=/etc', ...options];
  const kit = podman.background('rootlesskit', ...flags, 'sh', '-c', child);
  const said = (): string => `${kit.printed().stdout}\n${kit.printed().stderr}`;
  try {
    await eventually('the child is up', UP_MS, () => kit.printed().stdout.includes('up\n')).catch(
      (e: Error) => {
        throw new Error(`${e.message}: ${said()}`);
      },
    );
    await work(kit.printed().stdout);
    await kit.end(signal);
    await nothingLeft(podman);
  } finally {
    await kit.end('SIGKILL');
  }
}

/** The daemon as Debian's own script starts it; `work` gets a function that runs `docker`. */
async function rootlessDocker(
  podman: Podman,
  net: string,
  portDriver: string,
  work: (docker: (...argv: string[]) => Promise<string>) => Promise<void>,
): Promise<void> {
  const socket = 'DOCKER_HOST=unix:///run/user/1000/docker.sock';
  const environment = [
    `DOCKERD_ROOTLESS_ROOTLESSKIT_NET=${net}`,
    `DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER=${portDriver}`,
  ];
  const script = '/usr/share/docker.io/contrib/dockerd-rootless.sh';
  const daemon = podman.background('env', ...environment, script, '--storage-driver=overlay2');
  const docker = async (...argv: string[]): Promise<string> => {
    const { status, stdout, stderr } = await podman.exec('env', socket, 'docker', ...argv);
    if (status !== 0) throw new Error(`docker ${argv.join(' ')}: status ${status}: ${stderr || stdout}`);
    return stdout.trim();
  };
  try {
    await eventually('the daemon answers', DOCKER_MS, () =>
      docker('version').then(
        () => true,
        () => false,
      ),
    ).catch((e: Error) => {
      throw new Error(`${e.message}: ${daemon.printed().stderr.slice(-2000)}`);
    });
    await docker('import', '/image.tar', 'tools');
    await work(docker);
    await daemon.end('SIGTERM');
    await nothingLeft(podman);
  } finally {
    await daemon.end('SIGKILL');
    await podman.exec(
      'rm',
      '-rf',
      '/run/user/1000/docker',
      '/run/user/1000/docker.pid',
      '/run/user/1000/docker.sock',
    );
  }
}

const PODMAN: readonly Case[] = [
  {
    name: 'podman run --network slirp4netns: address, route, names, TCP and ping of the gateway',
    smoke: true,
    async run(podman) {
      const script = `ip -o addr show tap0; ip route; cat /etc/resolv.conf; nslookup peer.bed.test; ping -c 1 -W 3 10.0.2.2; ${download('peer.bed.test', 70_000)}`;
      const said = await podman.once('slirp4netns', script, '--cap-add', 'NET_RAW');
      has(said, /inet 10\.0\.2\.100\/24/);
      has(said, /default via 10\.0\.2\.2 dev tap0/);
      has(said, new RegExp(`^nameserver ${SLIRP_DNS}$`, 'm'));
      has(said, new RegExp(`^Address:\\s+${PEER4}$`, 'm'));
      has(said, /1 packets received/);
      has(said, /\n70000$/);
    },
  },
  {
    name: 'podman run --network slirp4netns:cidr=…,mtu=…',
    async run(podman) {
      const script = `ip addr show tap0; ip route; cat /etc/resolv.conf; ${download(PEER4, 9)}`;
      const said = await podman.once('slirp4netns:cidr=10.9.8.0/24,mtu=1400', script);
      has(said, /inet 10\.9\.8\.100\/24/);
      has(said, /mtu 1400/);
      has(said, /default via 10\.9\.8\.2/);
      has(said, /^nameserver 10\.9\.8\.3$/m);
      has(said, /\n9$/);
    },
  },
  {
    name: 'podman run --network slirp4netns:enable_ipv6=true: TCP over IPv6',
    async run(podman) {
      const wait =
        'for i in 1 2 3 4 5 6 7 8 9 10; do ip -6 addr show dev tap0 -tentative | grep -q fd00 && break; sleep 0.3; done';
      const script = `${wait}; ip -6 addr show tap0; ${download(`[${PEER6}]`, 70_000)}`;
      const said = await podman.once('slirp4netns:enable_ipv6=true', script);
      has(said, /inet6 fd00:/);
      has(said, /\n70000$/);
    },
  },
  {
    name: 'podman run --network slirp4netns: allow_host_loopback=true, and refused without it',
    async run(podman) {
      await withLoopbackServer(podman, async (port) => {
        const ask = `wget -q -T 2 -O - http://10.0.2.2:${port}/word || echo none`;
        same(await podman.once('slirp4netns:allow_host_loopback=true', ask), 'from the host');
        same(await podman.once('slirp4netns', ask), 'none');
      });
    },
  },
  {
    name: 'podman run --network slirp4netns:outbound_addr=…: what the peer sees',
    async run(podman) {
      await withSecondAddress(podman, async () => {
        has(await podman.once(`slirp4netns:outbound_addr=${SECOND4}`, source(PEER4)), new RegExp(SECOND4));
        has(await podman.once('slirp4netns:outbound_addr=veth0', source(PEER4)), new RegExp(HOST4));
      });
    },
  },
  ...(['rootlesskit', 'slirp4netns'] as const).map(
    (handler): Case => ({
      name: `podman run -p, port_handler=${handler}: TCP and UDP from loopback and from outside`,
      async run(podman) {
        const network = `slirp4netns:port_handler=${handler}`;
        const options = ['--network', network, '-p', '8200:80', '-p', '8201:81/udp', '-p', '8202:82'];
        const name = await podman.start(options, web('published'));
        await podman.succeed('exec', '-d', name, 'sh', '-c', udpEcho(81));
        await podman.succeed('exec', '-d', name, 'sh', '-c', who(82));
        for (const [where, host] of [
          ['host', '127.0.0.1'],
          ['host', HOST4],
          ['peer', HOST4],
        ] as const) {
          same(await fetched(podman.bed, where, `http://${host}:8200/`), 'published');
          has(await asked(podman.bed, where, host, 8201), /hello/);
        }
        const seen = await answer(podman.bed, 'peer', ['ncat', '--recv-only', HOST4, '8202']);
        if (handler === 'slirp4netns') has(seen, new RegExp(`ffff:${hex(PEER4)}`)); // this handler keeps the source
      },
    }),
  ),
  {
    name: 'podman run -p, port_handler=slirp4netns: a port that is taken is told, status 126 or 1',
    async run(podman) {
      const options = ['--network', 'slirp4netns:port_handler=slirp4netns', '-p', '8210:80'];
      await podman.start(options, web('holder'));
      const { status, stderr } = await podman.run('run', '--rm', ...options, IMAGE, 'true');
      if (status === 0) throw new Error('the port was given to two containers');
      has(stderr, /slirp4netns|ddress already in use/);
    },
  },
  {
    name: 'podman stop with slirp4netns: no process stays behind, the ports are free; restart',
    smoke: true,
    async run(podman) {
      const options = ['--network', 'slirp4netns:port_handler=slirp4netns', '-p', '8220:80'];
      const name = await podman.start(options, web('again'));
      if (podman.engines().length === 0) throw new Error('no engine was there at all');
      await podman.succeed('restart', '-t', '1', name);
      same(await fetched(podman.bed, 'host', 'http://127.0.0.1:8220/'), 'again');
      await podman.succeed('stop', '-t', '1', name);
      await nothingLeft(podman);
      const { stdout } = await podman.bed.run('host', ['ss', '-tlnH']);
      if (stdout.includes(':8220 ')) throw new Error(`still listening: ${stdout}`);
    },
  },
  {
    name: 'podman pod create --network slirp4netns -p: its containers share it',
    async run(podman) {
      await podman.succeed('pod', 'create', '--network', 'slirp4netns', '-p', '8230:80', 'pod2');
      await podman.start(['--pod', 'pod2'], web('pod'));
      same(await fetched(podman.bed, 'host', 'http://127.0.0.1:8230/'), 'pod');
    },
  },
  {
    name: '10 containers with slirp4netns started at once: each has a network; none leaves a process',
    async run(podman) {
      const all = await Promise.all(
        Array.from({ length: 10 }, () => podman.once('slirp4netns', download(PEER4, 1000))),
      );
      for (const said of all) same(said, '1000');
      await nothingLeft(podman);
    },
  },
  {
    name: 'podman build and buildah bud --network slirp4netns: RUN reaches the outside by name',
    async run(podman) {
      const file = `FROM ${IMAGE}\nRUN ${download('peer.bed.test', 33)} >/size; ip -o addr show >/addr\n`;
      for (const tool of ['podman build', 'buildah bud']) {
        const made = await podman.exec(
          ...['sh', '-c'],
          `mkdir -p ~/b && printf '%s' '${file}' >~/b/Containerfile && ${tool} -q --no-cache --network slirp4netns -t slirped ~/b`,
        );
        if (made.status !== 0) throw new Error(`${tool}: ${made.stderr}`);
        const said = await podman.succeed(
          'run',
          '--rm',
          '--network',
          'none',
          'slirped',
          'cat',
          '/size',
          '/addr',
        );
        has(said, /^33\n/);
        has(said, /10\.0\.2\.100/);
      }
      await nothingLeft(podman);
    },
  },
];

/** Servers in RootlessKit's child: HTTP, UDP echo, and TCP that sends each client its address. */
const services = (http: number, udp: number, whoPort: number): string =>
  `mkdir -p /tmp/site; echo kit >/tmp/site/index.html; httpd -p [::]:${http} -h /tmp/site; (${udpEcho(udp)}) & (${who(whoPort)}) &`;

/**
 * Check its published ports: from loopback and from outside, TCP and UDP.
 * @returns the client's address as the service saw it
 */
async function published(podman: Podman, http: number, udp: number, whoPort: number): Promise<string> {
  for (const [where, host] of [
    ['host', '127.0.0.1'],
    ['peer', HOST4],
  ] as const) {
    same(await fetched(podman.bed, where, `http://${host}:${http}/`), 'kit');
    has(await asked(podman.bed, where, host, udp), /hello/);
  }
  return answer(podman.bed, 'peer', ['ncat', '--recv-only', HOST4, String(whoPort)]);
}

const ROOTLESSKIT: readonly Case[] = [
  ...(['builtin', 'slirp4netns'] as const).map(
    (driver): Case => ({
      name: `rootlesskit --net=slirp4netns --port-driver=${driver}: names, TCP, published TCP and UDP`,
      async run(podman) {
        const options = ['--net=slirp4netns', `--port-driver=${driver}`, '--disable-host-loopback'];
        const ports = ['8240:80/tcp', '8241:81/udp', '8242:82/tcp'].flatMap((port) => [
          '-p',
          `0.0.0.0:${port}`,
        ]);
        const script = `ip addr show tap0; cat /etc/resolv.conf; ${download('peer.bed.test', 70_000)}; ${services(80, 81, 82)}`;
        await rootlesskit(podman, [...options, ...ports], script, async (printed) => {
          has(printed, /inet 10\.0\.2\.100\/24/);
          has(printed, /mtu 65520/);
          has(printed, new RegExp(`^nameserver ${SLIRP_DNS}$`, 'm'));
          has(printed, /^70000$/m);
          const seen = await published(podman, 8240, 8241, 8242);
          if (driver === 'slirp4netns') has(seen, new RegExp(`ffff:${hex(PEER4)}`)); // this driver keeps the source
        });
      },
    }),
  ),
  {
    name: 'rootlesskit --net=slirp4netns: --cidr, --mtu, --ipv6, sandbox and seccomp asked for',
    async run(podman) {
      const options = [
        '--cidr=10.9.8.0/24',
        '--mtu=1400',
        '--ipv6',
        '--slirp4netns-sandbox=true',
        '--slirp4netns-seccomp=true',
      ];
      const wait =
        'for i in 1 2 3 4 5 6 7 8 9 10; do ip -6 addr show dev tap0 -tentative | grep -q fd00 && break; sleep 0.3; done';
      const script = `${wait}; ip addr show tap0; ${download(`[${PEER6}]`, 9000)}; ${download('peer.bed.test', 70_000)}`;
      await rootlesskit(podman, ['--net=slirp4netns', ...options], script, async (printed) => {
        has(printed, /inet 10\.9\.8\.100\/24/);
        has(printed, /mtu 1400/);
        has(printed, /^9000\n70000$/m);
      });
    },
  },
  {
    name: 'rootlesskit --net=slirp4netns --detach-netns: the namespace by its path',
    async run(podman) {
      const inside = `nsenter --net=${STATE}/netns -- busybox ${download(PEER4, 70_000)}`;
      await rootlesskit(podman, ['--net=slirp4netns', '--detach-netns'], inside, async (printed) => {
        has(printed, /^70000$/m);
      });
    },
  },
  {
    name: 'rootlesskit --net=slirp4netns: it is killed by SIGKILL, nothing is left',
    async run(podman) {
      await rootlesskit(podman, ['--net=slirp4netns'], download(PEER4, 100), async () => {}, 'SIGKILL');
    },
  },
  {
    name: 'rootlesskit --net=pasta --port-driver=implicit: names, TCP, published TCP and UDP with their source',
    async run(podman) {
      const options = ['--net=pasta', '--port-driver=implicit', '--disable-host-loopback'];
      const ports = ['8250:8250/tcp', '8251:8251/udp', '8252:8252/tcp'].flatMap((port) => [
        '-p',
        `0.0.0.0:${port}`,
      ]);
      const script = `ip -o addr show tap0; ${download('peer.bed.test', 70_000)}; ${services(8250, 8251, 8252)}`;
      await rootlesskit(podman, [...options, ...ports], script, async (printed) => {
        has(printed, /inet 10\.0\.2\.100\/24/);
        has(printed, /^70000$/m);
        has(await published(podman, 8250, 8251, 8252), new RegExp(`ffff:${hex(PEER4)}`));
      });
    },
  },
  {
    name: 'rootlesskit --net=pasta: --cidr, --mtu',
    async run(podman) {
      const script = `ip addr show tap0; ${download('peer.bed.test', 9000)}`;
      const options = ['--cidr=10.9.8.0/24', '--mtu=1400'];
      await rootlesskit(podman, ['--net=pasta', ...options], script, async (printed) => {
        has(printed, /inet 10\.9\.8\.100\/24/);
        has(printed, /mtu 1400/);
        has(printed, /^9000$/m);
      });
    },
  },
];

const DOCKER: readonly Case[] = (
  [
    ['slirp4netns', 'builtin'],
    ['slirp4netns', 'slirp4netns'],
    ['pasta', 'implicit'],
  ] as const
).map(([net, driver]) => ({
  name: `rootless Docker, --net=${net} --port-driver=${driver}: names, TCP, a published port`,
  async run(podman) {
    await rootlessDocker(podman, net, driver, async (docker) => {
      const script = `nslookup peer.bed.test; ${download('peer.bed.test', 70_000)}`;
      has(await docker('run', '--rm', 'tools', 'sh', '-c', script), /\n70000$/);
      await docker('run', '-d', '--name', 'server', '-p', '8260:80', 'tools', 'sh', '-c', web('docked'));
      same(await fetched(podman.bed, 'host', 'http://127.0.0.1:8260/'), 'docked');
      same(await fetched(podman.bed, 'peer', `http://${HOST4}:8260/`), 'docked');
      await docker('rm', '-f', 'server');
    });
  },
}));

export const CALLERS: readonly Case[] = [...PODMAN, ...ROOTLESSKIT, ...DOCKER];
