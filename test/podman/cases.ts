/**
 * Uses of rootless Podman with pasta, one case each. A case throws when it fails; a run with the stock tool
 * shows whether our tool is the cause.
 */
import { supportProgram } from '../support/bed.ts';
import { HOST4, HOST6, PEER4, PEER6 } from '../support/ports.ts';
import { eventually, type Finished } from '../support/process.ts';
import { type Case, download, has, hex, nothingLeft, same, udpEcho, web, who } from './pieces.ts';
import { answer, asked, fetched, IMAGE } from './podman.ts';

const LARGE_BYTES = 10 << 20;
const UDP_BYTES = 60_000; // one datagram
/** Faster, for single large datagrams: one process per client. */
const udpMirror = (port: number): string => `exec socat -b 65536 UDP6-LISTEN:${port},fork PIPE`;

export const CASES: readonly Case[] = [
  {
    name: "run: the host's addresses and routes, TCP over IPv4 and IPv6",
    smoke: true,
    async run(podman) {
      const script = `ip -o addr show scope global; ip route; ${download(PEER4, 70_000)}; ${download(`[${PEER6}]`, 70_000)}`;
      const said = await podman.once('pasta', script);
      has(said, new RegExp(`inet ${HOST4}/24`));
      has(said, new RegExp(`inet6 ${HOST6}/64`));
      has(said, /default via 10\.77\.0\.254/);
      has(said, /\n70000\n70000$/);
    },
  },
  {
    name: 'run --network pasta:OPTIONS: address, gateway, mask, interface name, MAC, MTU',
    async run(podman) {
      const options = '-a,192.0.2.2,-g,192.0.2.1,-n,24,-I,myname,--ns-mac-addr,9a:dd:31:ea:92:98,-m,1400';
      const said = await podman.once(
        `pasta:${options}`,
        `ip addr show myname; ip route; ${download(PEER4, 9)}`,
      );
      has(said, /inet 192\.0\.2\.2\/24/);
      has(said, /default via 192\.0\.2\.1 dev myname/);
      has(said, /mtu 1400/);
      has(said, /9a:dd:31:ea:92:98/i);
      has(said, /\n9$/);
    },
  },
  {
    name: 'run --network pasta:--ipv4-only and --ipv6-only',
    async run(podman) {
      const four = await podman.once('pasta:--ipv4-only', 'ip -o addr show scope global');
      has(four, /inet /);
      if (/inet6/.test(four)) throw new Error(four);
      const six = await podman.once('pasta:--ipv6-only', 'ip -o addr show scope global');
      has(six, /inet6 /);
      if (/inet 10/.test(six)) throw new Error(six);
    },
  },
  {
    name: 'containers.conf: pasta_options, and the command line above them',
    async run(podman) {
      const conf = '[network]\npasta_options = ["-I", "fromconf", "-m", "1300"]\n';
      const script = `mkdir -p ~/.config/containers/containers.conf.d; printf '%s' '${conf}' >~/.config/containers/containers.conf.d/o.conf`;
      await podman.exec('sh', '-c', script);
      try {
        has(await podman.once('pasta', 'ip link'), /fromconf.*mtu 1300/);
        has(await podman.once('pasta:-I,cmdline', 'ip link'), /cmdline.*mtu 1300/);
      } finally {
        await podman.exec('sh', '-c', 'rm ~/.config/containers/containers.conf.d/o.conf');
      }
    },
  },
  ...(['IPv4', 'IPv6'] as const).map(
    (family): Case => ({
      name: `ping to the outside, ${family}`,
      async run(podman) {
        const address = family === 'IPv4' ? PEER4 : PEER6;
        has(
          await podman.once('pasta', `ping -c 2 -W 3 ${address}`, '--cap-add', 'NET_RAW'),
          /2 packets received/,
        );
      },
    }),
  ),
  {
    name: "names by the container's resolv.conf",
    smoke: true,
    async run(podman) {
      const said = await podman.once(
        'pasta',
        'cat /etc/resolv.conf; nslookup peer.bed.test; wget -q -O - http://peer.bed.test:8000/bytes/5 | wc -c',
      );
      has(said, /^nameserver 169\.254\.1\.1\n/m);
      has(said, new RegExp(PEER4.replaceAll('.', '\\.')));
      has(said, /\n5$/);
    },
  },
  // The second one's resolver is of the other family: the stock tool does not forward then.
  ...(['198.51.100.1', '2001:db8::53'] as const).map(
    (address): Case => ({
      name: `run --network pasta:--dns-forward,${address}: another forwarding address`,
      async run(podman) {
        const said = await podman.once(
          `pasta:--dns-forward,${address}`,
          `cat /etc/resolv.conf; nslookup peer.bed.test ${address}; ${download('peer.bed.test', 6)}`,
        );
        has(said, new RegExp(`^nameserver ${address}$`, 'm'));
        has(said, new RegExp(`^Server:\\s+${address}$`, 'm'));
        has(said, new RegExp(`^Address:\\s+${PEER4}$`, 'm'));
        has(said, /\n6$/);
      },
    }),
  ),
  {
    name: 'host.containers.internal',
    async run(podman) {
      const { ramDir } = podman.bed;
      podman.bed.write(`${ramDir}/word`, 'from the host\n');
      const server = podman.bed.start('host', ['busybox', 'httpd', '-f', '-p', '[::]:8100', '-h', ramDir]);
      try {
        await fetched(podman.bed, 'host', 'http://127.0.0.1:8100/word');
        same(
          await podman.once('pasta', 'wget -q -T 5 -O - http://host.containers.internal:8100/word'),
          'from the host',
        );
      } finally {
        server.process.kill();
      }
    },
  },
  {
    name: 'run -p: TCP from loopback, from the host, from outside with its source address',
    smoke: true,
    async run(podman) {
      const name = await podman.start(
        ['--network', 'pasta', '-p', '8080:80', '-p', '8081:81'],
        web('published'),
      );
      await podman.succeed('exec', '-d', name, 'sh', '-c', who(81));
      for (const host of ['127.0.0.1', '[::1]', HOST4, `[${HOST6}]`])
        same(await fetched(podman.bed, 'host', `http://${host}:8080/`), 'published');
      const asPeer = (host: string): Promise<string> =>
        answer(podman.bed, 'peer', ['ncat', '--recv-only', host, '8081']);
      same(await asPeer(HOST4), `[0000:0000:0000:0000:0000:ffff:${hex(PEER4)}]`);
      has(await asPeer(HOST6), /^\[fd77:[0:]*0002\]$/m);
    },
  },
  {
    name: 'run -p: UDP',
    async run(podman) {
      await podman.start(['--network', 'pasta', '-p', '8081:81/udp'], udpEcho(81));
      for (const [where, address] of [
        ['host', '127.0.0.1'],
        ['host', HOST4],
        ['peer', HOST4],
        ['peer', HOST6],
      ] as const)
        has(await asked(podman.bed, where, address, 8081), /hello/);
    },
  },
  {
    name: 'run -p: ranges, TCP and UDP',
    async run(podman) {
      const options = ['--network', 'pasta', '-p', '8110-8112:80-82', '-p', '8110-8112:90-92/udp'];
      const name = await podman.start(options, web('first'));
      await podman.succeed('exec', '-d', name, 'sh', '-c', udpEcho(92));
      await podman.succeed('exec', '-d', name, 'httpd', '-f', '-p', '[::]:82', '-h', '/w');
      same(await fetched(podman.bed, 'host', 'http://127.0.0.1:8110/'), 'first');
      same(await fetched(podman.bed, 'peer', `http://${HOST4}:8112/`), 'first');
      has(await asked(podman.bed, 'peer', HOST4, 8112), /hello/);
    },
  },
  {
    name: 'run -p: bound to an address, IPv4 and IPv6',
    async run(podman) {
      const published = ['-p', '127.0.0.1:8120:80', '-p', '[::1]:8121:80', '-p', `${HOST4}:8122:80`];
      await podman.start(['--network', 'pasta', ...published], web('bound'));
      for (const host of ['127.0.0.1:8120', '[::1]:8121', `${HOST4}:8122`])
        same(await fetched(podman.bed, 'host', `http://${host}/`), 'bound');
      const refused = await podman.bed.run('peer', ['curl', '-sS', '-m', '3', `http://${HOST4}:8120/`]);
      if (refused.status !== 7) throw new Error(`from outside: curl's status ${refused.status}`);
    },
  },
  {
    name: 'run --network pasta:-t,%IFNAME/PORT and -u: bound to an interface, TCP and UDP',
    async run(podman) {
      const options = '-t,%lo/8123:80,-t,%veth0/8124:80,-u,%lo/8123:81,-u,%veth0/8124:81';
      const name = await podman.start(['--network', `pasta:${options}`], web('interface'));
      await podman.succeed('exec', '-d', name, 'sh', '-c', udpEcho(81));
      for (const [where, host] of [
        ['host', '127.0.0.1:8123'],
        ['host', '[::1]:8123'],
        ['peer', `${HOST4}:8124`],
        ['peer', `[${HOST6}]:8124`],
      ] as const)
        same(await fetched(podman.bed, where, `http://${host}/`), 'interface');
      has(await asked(podman.bed, 'host', '127.0.0.1', 8123), /hello/);
      has(await asked(podman.bed, 'peer', HOST6, 8124), /hello/);
      for (const [where, host] of [
        ['peer', `${HOST4}:8123`],
        ['host', '127.0.0.1:8124'],
      ] as const) {
        const { status } = await podman.bed.run(where, ['curl', '-sS', '-m', '3', `http://${host}/`]);
        if (status !== 7) throw new Error(`${where}, ${host}: curl's status ${status}, not refused`);
      }
    },
  },
  {
    name: 'run -p: a port that is taken is told in words that callers know, status 126',
    async run(podman) {
      await podman.start(['--network', 'pasta', '-p', '8130:80'], web('holder'));
      const { status, stderr } = await podman.run(
        'run',
        '--rm',
        '--network',
        'pasta',
        '-p',
        '8130:80',
        IMAGE,
        'true',
      );
      same(String(status), '126');
      has(stderr, /ddress already in use/);
    },
  },
  {
    name: 'run: an unknown option of pasta is told, status 126',
    async run(podman) {
      const { status, stderr } = await podman.run(
        'run',
        '--rm',
        '--network',
        'pasta:--no-such',
        IMAGE,
        'true',
      );
      same(String(status), '126');
      has(stderr, /pasta failed with exit code 1[\s\S]*--no-such/);
    },
  },
  {
    name: "inspect: the network's mode and the published ports; /etc/hosts: the container's address",
    async run(podman) {
      const name = await podman.start(['--network', 'pasta', '-p', '8140:80'], web('x'));
      const format = '{{.HostConfig.NetworkMode}} {{json .NetworkSettings.Ports}}';
      has(await podman.succeed('inspect', '-f', format, name), /^pasta .*"80\/tcp":\[\{.*"HostPort":"8140"/);
      has(await podman.inside(name, 'cat /etc/hosts'), new RegExp(`^${HOST4}\\s.*${name}`, 'm'));
      has(await podman.inside(name, 'ip addr'), new RegExp(HOST4));
    },
  },
  {
    name: 'network create: containers find each other, the outside and published ports',
    smoke: true,
    async run(podman) {
      await podman.succeed('network', 'create', '--ipv6', 'net1');
      const server = await podman.start(['--network', 'net1', '-p', '8150:80'], web('bridged'));
      const format = '{{(index .NetworkSettings.Networks "net1").IPAddress}}';
      has(await podman.succeed('inspect', '-f', format, server), /^10\.89\.\d+\.\d+$/);
      const wait = `for i in 1 2 3 4 5; do wget -q -T 2 -O - http://${server}/ && break; sleep 0.3; done`;
      const said = await podman.once('net1', `${wait}; ${download('peer.bed.test', 70_000)}`);
      same(said, 'bridged\n70000');
      same(await fetched(podman.bed, 'host', 'http://127.0.0.1:8150/'), 'bridged');
      same(await fetched(podman.bed, 'peer', `http://${HOST4}:8150/`), 'bridged');
    },
  },
  {
    name: 'network connect: a second network for a running container',
    async run(podman) {
      await podman.succeed('network', 'create', 'net2');
      await podman.succeed('network', 'create', 'net3');
      const one = await podman.start(['--network', 'net2'], web('second'));
      await podman.succeed('network', 'connect', 'net3', one);
      const wait = `for i in 1 2 3 4 5; do wget -q -T 2 -O - http://${one}/ && break; sleep 0.3; done`;
      same(await podman.once('net3', wait), 'second');
      await podman.succeed('network', 'disconnect', 'net3', one);
    },
  },
  {
    name: 'build: RUN reaches the outside by name',
    async run(podman) {
      const file = `FROM ${IMAGE}\nRUN ${download('peer.bed.test', 31)} >/size\n`;
      const made = await podman.exec(
        'sh',
        '-c',
        `mkdir -p ~/b && printf '%s' '${file}' >~/b/Containerfile && podman build -q -t built ~/b`,
      );
      if (made.status !== 0) throw new Error(made.stderr);
      same(await podman.succeed('run', '--rm', '--network', 'none', 'built', 'cat', '/size'), '31');
    },
  },
  {
    name: 'buildah bud: the same',
    async run(podman) {
      const file = `FROM ${IMAGE}\nRUN ${download(PEER4, 32)} >/size\n`;
      const made = await podman.exec(
        'sh',
        '-c',
        `mkdir -p ~/b && printf '%s' '${file}' >~/b/Containerfile && buildah bud -q -t budded ~/b`,
      );
      if (made.status !== 0) throw new Error(made.stderr);
      same(await podman.succeed('run', '--rm', '--network', 'none', 'budded', 'cat', '/size'), '32');
    },
  },
  {
    name: 'pod: containers share its network, its ports are published',
    async run(podman) {
      await podman.succeed('pod', 'create', '--network', 'pasta', '-p', '8160:80', 'pod1');
      await podman.start(['--pod', 'pod1'], web('pod'));
      same(await fetched(podman.bed, 'host', 'http://127.0.0.1:8160/'), 'pod');
      const said = await podman.succeed(
        ...['run', '--rm', '--pod', 'pod1', IMAGE, 'sh', '-c'],
        `wget -q -O - http://127.0.0.1/; ${download(PEER4, 8)}`,
      );
      same(said, 'pod\n8');
    },
  },
  {
    name: 'restart, twice: the published port is free again each time',
    async run(podman) {
      const name = await podman.start(['--network', 'pasta', '-p', '8170:80'], web('again'));
      for (let round = 0; round < 2; round++) {
        await podman.succeed('restart', '-t', '1', name);
        same(await fetched(podman.bed, 'host', 'http://127.0.0.1:8170/'), 'again');
      }
    },
  },
  {
    name: 'stop: no process of pasta stays behind, the ports are free',
    smoke: true,
    async run(podman) {
      const name = await podman.start(['--network', 'pasta', '-p', '8180:80'], web('y'));
      if (podman.engines().length === 0) throw new Error('no engine was there at all');
      await podman.succeed('stop', '-t', '1', name);
      await nothingLeft(podman);
      const { stdout } = await podman.bed.run('host', ['ss', '-tlnH']);
      if (stdout.includes(':8180 ')) throw new Error(`still listening: ${stdout}`);
    },
  },
  {
    name: 'network prune after the last container: the shared pasta of bridges ends',
    async run(podman) {
      await podman.succeed('network', 'create', 'net4');
      const name = await podman.start(['--network', 'net4'], web('z'));
      await podman.succeed('rm', '-f', '-t', '0', name);
      await nothingLeft(podman);
    },
  },
  {
    name: '20 containers started at once: each has a network; none leaves a process',
    async run(podman) {
      const all = await Promise.all(
        Array.from({ length: 20 }, () => podman.once('pasta', download(PEER4, 1000))),
      );
      for (const said of all) same(said, '1000');
      await nothingLeft(podman);
    },
  },
  ...(
    [
      ['IPv4', HOST4],
      ['IPv6', HOST6],
    ] as const
  ).map(
    ([family, address]): Case => ({
      name: `TCP, ${family}: an upload of 10 MiB arrives whole`,
      async run(podman) {
        const name = await podman.start(
          ['--network', 'pasta', '-p', '8190:80'],
          'exec socat -u TCP6-LISTEN:80,fork SYSTEM:"sha256sum >/sum.new; mv /sum.new /sum"',
        );
        const script = `head -c ${LARGE_BYTES} /dev/urandom | tee /tmp/$$.x | ncat --send-only ${address} 8190 && sha256sum </tmp/$$.x; rm /tmp/$$.x`;
        const sent = await answer(podman.bed, 'peer', ['sh', '-c', script]);
        const came = await eventually('the sum', 5000, async () => {
          const { status, stdout } = await podman.run('exec', name, 'cat', '/sum');
          return status === 0 && stdout;
        });
        same(came, sent.trim());
      },
    }),
  ),
  {
    name: 'UDP, IPv4 from loopback and IPv6 from outside: 2 KiB and 10 MiB come back whole',
    async run(podman) {
      await podman.start(['--network', 'pasta', '-p', '8191:81/udp'], udpMirror(81));
      for (const [where, address] of [
        ['host', '127.0.0.1'],
        ['peer', HOST6],
      ] as const) {
        has(await asked(podman.bed, where, address, 8191), /hello/); // the server may not be up yet
        for (const [count, bytes] of [
          [1, 4096], // the last piece is half as long
          [Math.ceil(LARGE_BYTES / UDP_BYTES), UDP_BYTES],
        ] as const) {
          const program = supportProgram('clients/udp-burst.ts', address, 8191, count, bytes, 1);
          const said = await answer(podman.bed, where, program);
          same(`${where} to ${address}: ${said}`, `${where} to ${address}: {"same":${count},"lost":0}`);
        }
      }
    },
  },
  {
    name: "switch-over: the user's Podman runs ours; switch-back: the stock one again, and nothing is left",
    async run(podman) {
      const without = ['env', '-u', 'CONTAINERS_CONF_OVERRIDE'];
      const listing = async (): Promise<string> =>
        (await podman.exec('sh', '-c', 'find ~ -path ~/storage -prune -o -print | sort')).stdout;
      const pasta = async (): Promise<string> =>
        (await podman.exec(...without, 'podman', 'info', '-f', '{{.Host.Pasta.Executable}}')).stdout;
      const before = await listing();
      same(await pasta(), '/usr/bin/pasta');
      const over = await podman.exec(...without, '/opt/bucatini/bin/bucatini', 'switch-over');
      if (over.status !== 0) throw new Error(over.stderr);
      same(await pasta(), '/home/rl/.local/share/bucatini/helpers/pasta');
      const run = ['run', '--rm', '--network', 'pasta', IMAGE, 'sh', '-c', download(PEER4, 77)];
      same((await podman.exec(...without, 'podman', ...run)).stdout, '77');
      const back = await podman.exec('/opt/bucatini/bin/bucatini', 'switch-back');
      if (back.status !== 0) throw new Error(back.stderr);
      same(await pasta(), '/usr/bin/pasta');
      same(await listing(), before.trim());
    },
  },
];

const ROOTLESS_DROP_INS = '/etc/containers/containers.rootless.conf.d';

/** Differences of Podman 6 from earlier versions. */
export const PODMAN6: readonly Case[] = [
  {
    name: "switch-over: the machine's drop-ins for rootless users, read before ours and after it, are told of as Podman takes them",
    async run(podman) {
      const bucatini = (verb: string): Promise<Finished> =>
        podman.exec('env', '-u', 'CONTAINERS_CONF_OVERRIDE', '/opt/bucatini/bin/bucatini', verb);
      const dropIn = (name: string): string => `${ROOTLESS_DROP_INS}/${name}`;
      const conf = '[engine]\nhelper_binaries_dir = ["/usr/bin", "/usr/libexec/podman", "/usr/lib/podman"]\n';
      try {
        for (const [name, status, told] of [
          [
            '40-before.conf',
            0,
            /checked {2}podman info: \/home\/rl\/\.local\/share\/bucatini\/helpers\/pasta/,
          ],
          ['60-after.conf', 1, /note .*60-after\.conf[\s\S]*NOT YET {2}Podman still uses \/usr\/bin\/pasta/],
        ] as const) {
          await podman.exec('sh', '-c', `printf '%s' '${conf}' >${dropIn(name)}`);
          const over = await bucatini('switch-over');
          has(over.stdout + over.stderr, told);
          same(String(over.status), String(status));
          await podman.exec('rm', dropIn(name));
        }
      } finally {
        await podman.exec('sh', '-c', `rm -f ${ROOTLESS_DROP_INS}/*`);
        await bucatini('switch-back');
      }
    },
  },
];
