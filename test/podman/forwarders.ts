/**
 * Published ports of containers on bridge networks. They are served by rootlessport or (Podman 6,
 * `rootless_port_forwarder = "pasta"`) by the pasta of the bridges, which `pesto` configures over its control
 * socket. Judged as in cases.ts. FORWARDED has the cases of both, ROOTLESSPORT and PESTO those of one.
 */
import { HOST4, HOST6 } from '../support/ports.ts';
import { eventually, sleepMs } from '../support/process.ts';
import {
  type Case,
  echoes,
  fails,
  has,
  listeners,
  noListener,
  PEER4_SEEN,
  PEER6_SEEN,
  refused,
  same,
  serves,
  udpEcho,
  udpWho,
  WAYS4,
  WAYS6,
  web,
  who,
  withHostServer,
} from './pieces.ts';
import { answer, asked, IMAGE, type Podman } from './podman.ts';

const LARGE_BYTES = 10 << 20;

const network = (podman: Podman, name: string, ...options: string[]): Promise<string> =>
  podman.succeed('network', 'create', ...options, name);

/** A container that ends at once, with published ports. */
const trueOn = (name: string, ...ports: string[]): string[] => [
  ...['run', '--rm', '--network', name, ...ports.flatMap((port) => ['-p', port]), IMAGE, 'true'],
];

/** A pod of one container as Kubernetes YAML. */
const POD = `apiVersion: v1
kind: Pod
metadata: {name: kp}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: ${IMAGE}
    command: [sh, -c, "${web('kube')}"]
    ports: [{containerPort: 80, hostPort: 8460}]
`;

export const FORWARDED: readonly Case[] = [
  {
    name: 'bridge -p: TCP and UDP over IPv4 and IPv6, from loopback, from the host and from outside',
    async run(podman) {
      await network(podman, 'n6', '--ipv6');
      const options = ['--network', 'n6', '-p', '8401:80', '-p', '8402:81/udp'];
      await podman.start(options, `(${udpEcho(81)}) & ${web('published')}`);
      await serves(podman, 8401, 'published', [...WAYS4, ...WAYS6]);
      await echoes(podman, 8402, [...WAYS4, ...WAYS6]);
    },
  },
  {
    name: 'bridge -p, a network without IPv6: by IPv4, from loopback, from the host and from outside',
    async run(podman) {
      await network(podman, 'n4');
      const options = ['--network', 'n4', '-p', '8401:80', '-p', '8402:81/udp'];
      await podman.start(options, `(${udpEcho(81)}) & ${web('published')}`);
      await serves(podman, 8401, 'published', WAYS4);
      await echoes(podman, 8402, WAYS4);
    },
  },
  {
    name: 'bridge -p, a network without IPv4',
    async run(podman) {
      await network(podman, 'n66', '--ipv6', '--subnet', 'fd99::/64');
      await podman.start(['--network', 'n66', '-p', '8401:80'], web('six'));
      await serves(podman, 8401, 'six', WAYS6);
    },
  },
  {
    name: 'bridge -p: bound to an address, IPv4 and IPv6',
    async run(podman) {
      await network(podman, 'n6', '--ipv6');
      const bound = ['127.0.0.1:8411', `${HOST4}:8412`, '[::1]:8413', `[${HOST6}]:8414`];
      const options = ['--network', 'n6', ...bound.flatMap((at) => ['-p', `${at}:80`])];
      await podman.start(options, web('bound'));
      await serves(podman, 8411, 'bound', [['host', '127.0.0.1']]);
      await serves(podman, 8412, 'bound', [['peer', HOST4]]);
      await serves(podman, 8413, 'bound', [['host', '::1']]);
      await serves(podman, 8414, 'bound', [['peer', HOST6]]);
      await refused(podman, 8411, ['peer', HOST4]);
      await refused(podman, 8412, ['host', '127.0.0.1']);
      await refused(podman, 8413, ['peer', HOST6]);
    },
  },
  {
    name: 'bridge -p: a range, one port for both protocols, a port that Podman chooses',
    async run(podman) {
      await network(podman, 'n4');
      const options = ['-p', '8421-8423:80-82', '-p', '8424:80/tcp', '-p', '8424:83/udp', '-p', '80'];
      const script = `(${udpEcho(83)}) & mkdir /w2; echo last >/w2/index.html; httpd -p [::]:82 -h /w2; ${web('first')}`;
      const name = await podman.start(['--network', 'n4', ...options], script);
      await serves(podman, 8421, 'first');
      await serves(podman, 8423, 'last');
      await serves(podman, 8424, 'first');
      await echoes(podman, 8424, [['peer', HOST4]]);
      const chosen = (await podman.succeed('port', name, '80'))
        .split('\n')
        .map((line) => Number(/:(\d+)$/.exec(line)![1]))
        .find((port) => port !== 8421 && port !== 8424);
      await serves(podman, chosen!, 'first');
    },
  },
  {
    name: 'bridge -p: ports come and go with their containers while others are served',
    async run(podman) {
      await network(podman, 'n6', '--ipv6');
      const publish = (port: number, word: string): Promise<string> =>
        podman.start(['--network', 'n6', '-p', `${port}:80`], web(word));
      const one = await publish(8431, 'one');
      const two = await publish(8432, 'two');
      await serves(podman, 8431, 'one');
      await serves(podman, 8432, 'two');
      await podman.succeed('stop', '-t', '1', one);
      await refused(podman, 8431);
      await serves(podman, 8432, 'two');
      await publish(8433, 'three');
      await serves(podman, 8433, 'three', [['peer', HOST6]]);
      await serves(podman, 8432, 'two', [['peer', HOST6]]);
      await podman.succeed('start', one);
      await serves(podman, 8431, 'one');
      await podman.succeed('rm', '-f', '-t', '0', two);
      await refused(podman, 8432);
      await noListener(podman, /^8432$/);
      await serves(podman, 8431, 'one');
      await serves(podman, 8433, 'three');
    },
  },
  {
    name: 'bridge -p: a connection lives on while other ports are added and removed',
    async run(podman) {
      await network(podman, 'n4');
      await podman.start(['--network', 'n4', '-p', '8434:7'], 'exec socat TCP6-LISTEN:7,fork PIPE');
      await answer(podman.bed, 'peer', ['sh', '-c', `echo up | ncat -w 2 ${HOST4} 8434`]);
      const client = podman.bed.start('peer', ['ncat', HOST4, '8434']);
      const said = (word: string): Promise<boolean> =>
        eventually(`${word} comes back`, 3000, () => client.printed().stdout.includes(word));
      try {
        client.process.stdin!.write('one\n');
        await said('one');
        const other = await podman.start(['--network', 'n4', '-p', '8435:80'], web('other'));
        await podman.succeed('rm', '-f', '-t', '0', other);
        client.process.stdin!.write('two\n');
        await said('two');
      } finally {
        client.process.kill();
        await client.exited;
      }
    },
  },
  {
    name: 'bridge -p: restart, twice; stop, and no listener is left',
    async run(podman) {
      await network(podman, 'n6', '--ipv6');
      const name = await podman.start(['--network', 'n6', '-p', '8436:80'], web('again'));
      await serves(podman, 8436, 'again');
      for (let round = 0; round < 2; round++) {
        await podman.succeed('restart', '-t', '1', name);
        await serves(podman, 8436, 'again', [
          ['peer', HOST4],
          ['peer', HOST6],
        ]);
      }
      await podman.succeed('stop', '-t', '1', name);
      await noListener(podman, /^8436$/);
    },
  },
  {
    name: 'bridge -p: the container is killed and started again',
    async run(podman) {
      await network(podman, 'n4');
      const name = await podman.start(['--network', 'n4', '-p', '8437:80'], web('killed'));
      await serves(podman, 8437, 'killed');
      await podman.succeed('kill', name);
      await podman.succeed('wait', name);
      await podman.succeed('start', name);
      await serves(podman, 8437, 'killed');
    },
  },
  {
    name: 'network connect and disconnect: the published port follows; network reload',
    async run(podman) {
      await network(podman, 'n4');
      await network(podman, 'm4');
      const name = await podman.start(['--network', 'n4', '-p', '8438:80'], web('follows'));
      await serves(podman, 8438, 'follows');
      for (const [verb, which] of [
        ['connect', 'm4'],
        ['disconnect', 'n4'],
        ['connect', 'n4'],
        ['disconnect', 'm4'],
      ] as const) {
        await podman.succeed('network', verb, which, name);
        await serves(podman, 8438, 'follows');
      }
      await podman.succeed('network', 'reload', name);
      await serves(podman, 8438, 'follows');
    },
  },
  {
    name: 'bridge -p: a container on two networks, one of them with IPv6',
    async run(podman) {
      await network(podman, 'n4');
      await network(podman, 'n6', '--ipv6');
      const networks = ['--network', 'n4', '--network', 'n6'];
      await podman.start([...networks, '-p', '8439:80'], web('both'));
      await serves(podman, 8439, 'both', [
        ['peer', HOST4],
        ['peer', HOST6],
      ]);
    },
  },
  {
    name: 'bridge -p: from a container by host.containers.internal, from another one and from itself',
    async run(podman) {
      await network(podman, 'n4');
      const name = await podman.start(['--network', 'n4', '-p', '8440:80'], web('round'));
      await serves(podman, 8440, 'round');
      const ask = 'wget -q -T 3 -O - http://host.containers.internal:8440/';
      same(await podman.once('n4', ask), 'round');
      same(await podman.inside(name, ask), 'round');
    },
  },
  {
    name: 'bridge -p: a port that another container has is told; the holder is served on, the rest of the range is free',
    async run(podman) {
      await network(podman, 'n4');
      await podman.start(['--network', 'n4', '-p', '8441:80'], web('holder'));
      await serves(podman, 8441, 'holder');
      await fails(podman, trueOn('n4', '8441:80'), /8441/);
      await fails(podman, trueOn('n4', '8440-8442:80-82'), /844/);
      await noListener(podman, /^844[02]$/);
      await serves(podman, 8441, 'holder');
    },
  },
  {
    name: 'bridge -p: 1,000 ports of TCP and of UDP; none is left',
    async run(podman) {
      await network(podman, 'n4');
      const ports = '20000-20999:20000-20999';
      const script = web('last').replace(':80', ':20999');
      const name = await podman.start(['--network', 'n4', '-p', ports, '-p', `${ports}/udp`], script);
      await serves(podman, 20_999, 'last');
      const count = (await listeners(podman, /^20\d\d\d$/)).length;
      if (count < 2000) throw new Error(`${count} sockets listen`);
      await podman.succeed('rm', '-f', '-t', '0', name);
      await noListener(podman, /^20\d\d\d$/);
    },
  },
  {
    name: 'bridge -p: 10 containers started and removed at once; no listener is left',
    async run(podman) {
      await network(podman, 'n4');
      const numbers = Array.from({ length: 10 }, (_, i) => 8450 + i);
      const names = await Promise.all(
        numbers.map((port) => podman.start(['--network', 'n4', '-p', `${port}:80`], web(`w${port}`))),
      );
      for (const port of numbers) await serves(podman, port, `w${port}`);
      await Promise.all(names.map((name) => podman.succeed('rm', '-f', '-t', '0', name)));
      await noListener(podman, /^845\d$/);
    },
  },
  {
    name: 'bridge -p: 300 requests, 8 at a time, are answered',
    async run(podman) {
      await network(podman, 'n4');
      await podman.start(['--network', 'n4', '-p', '8460:80'], web('many'));
      await serves(podman, 8460, 'many');
      const script = `seq 300 | xargs -P 8 -I{} curl -sf -m 5 http://${HOST4}:8460/ | grep -c many`;
      same((await podman.bed.run('peer', ['sh', '-c', script], { timeoutMs: 60_000 })).stdout, '300');
    },
  },
  {
    name: 'bridge -p: an upload of 10 MiB arrives whole, a datagram of 20,000 bytes too, IPv4 and IPv6',
    async run(podman) {
      await network(podman, 'n6', '--ipv6');
      const sum = (kind: string): string =>
        `exec socat -u ${kind} SYSTEM:"sha256sum >/sum.new; mv /sum.new /sum"`;
      const udp = "exec socat -b 65000 UDP6-RECVFROM:81,fork SYSTEM:'head -c 20000 | sha256sum'";
      const options = ['--network', 'n6', '-p', '8461:80', '-p', '8462:81/udp', '-p', '8463:82'];
      const script = `(${sum('TCP6-LISTEN:80,fork')}) & (${udp}) & ${web('up').replace(':80', ':82')}`;
      const name = await podman.start(options, script);
      await serves(podman, 8463, 'up');
      const random = (bytes: number): string => `head -c ${bytes} /dev/urandom >/tmp/$$.x`;
      for (const host of [HOST4, HOST6]) {
        const send = `${random(LARGE_BYTES)}; ncat --send-only ${host} 8461 </tmp/$$.x && sha256sum </tmp/$$.x; rm /tmp/$$.x`;
        const sent = await answer(podman.bed, 'peer', ['sh', '-c', send]);
        const came = await eventually('the sum', 5000, async () => {
          const { status, stdout } = await podman.run('exec', name, 'sh', '-c', 'cat /sum && rm /sum');
          return status === 0 && stdout;
        });
        same(`TCP to ${host}: ${came}`, `TCP to ${host}: ${sent.trim()}`);
        const to = host.includes(':') ? `UDP:[${host}]:8462` : `UDP:${host}:8462`;
        const ask = `${random(20_000)}; socat -t 2 -b 60000 - ${to} </tmp/$$.x; sha256sum </tmp/$$.x; rm /tmp/$$.x`;
        const [back, own] = (await answer(podman.bed, 'peer', ['sh', '-c', ask])).trim().split('\n');
        same(`UDP to ${host}: ${back}`, `UDP to ${host}: ${own}`);
      }
    },
  },
  {
    name: 'pod on a bridge: its port with the pod stopped, started and restarted',
    async run(podman) {
      await network(podman, 'n4');
      await podman.succeed('pod', 'create', '--name', 'p', '--network', 'n4', '-p', '8463:80');
      await podman.start(['--pod', 'p'], web('pod'));
      await serves(podman, 8463, 'pod');
      await podman.succeed('pod', 'stop', '-t', '1', 'p');
      await refused(podman, 8463);
      await podman.succeed('pod', 'start', 'p');
      await serves(podman, 8463, 'pod');
      await podman.succeed('pod', 'restart', 'p');
      await serves(podman, 8463, 'pod');
    },
  },
  {
    name: 'kube play: with its own network and on a bridge, replaced, down',
    async run(podman) {
      const wrote = await podman.exec('sh', '-c', `cat >~/k.yaml <<'END'\n${POD}END`);
      if (wrote.status !== 0) throw new Error(wrote.stderr);
      const file = '/home/rl/k.yaml';
      await podman.succeed('kube', 'play', file);
      await serves(podman, 8460, 'kube');
      await podman.succeed('kube', 'down', file);
      await refused(podman, 8460);
      await network(podman, 'n4');
      await podman.succeed('kube', 'play', '--network', 'n4', file);
      await serves(podman, 8460, 'kube');
      await podman.succeed('kube', 'play', '--replace', '--network', 'n4', file);
      await serves(podman, 8460, 'kube');
      await podman.succeed('kube', 'down', file);
      await noListener(podman, /^8460$/);
    },
  },
];

/**
 * Limits of Podman 6.1 with pasta as its forwarder, with any pasta: it publishes at the host's IPv6 addresses
 * only for networks with IPv6 alone, and gets no error for a port that cannot be opened (the container runs
 * without it).
 */
export const ROOTLESSPORT: readonly Case[] = [
  {
    name: 'bridge -p, a network without IPv6: by the IPv6 addresses of the host',
    async run(podman) {
      await network(podman, 'n4');
      await podman.start(['--network', 'n4', '-p', '8401:80'], web('published'));
      await serves(podman, 8401, 'published', [...WAYS4, ...WAYS6]);
    },
  },
  {
    name: 'bridge -p: a port that the host has is told, alone and in a range; the rest is free, and the port later',
    async run(podman) {
      await network(podman, 'n4');
      await withHostServer(podman, 8445, async () => {
        await fails(podman, trueOn('n4', '8445:80'), /8445/);
        await fails(podman, trueOn('n4', '8443-8447:80-84'), /8445/);
      });
      await noListener(podman, /^844[34567]$/);
      await podman.start(['--network', 'n4', '-p', '8445:80'], web('later'));
      await serves(podman, 8445, 'later');
    },
  },
  {
    name: 'bridge -p: a port below 1024 is refused with the reason',
    async run(podman) {
      await network(podman, 'n4');
      await fails(podman, trueOn('n4', '81:80'), /ip_unprivileged_port_start|[Pp]ermission denied/);
    },
  },
];

export const PESTO: readonly Case[] = [
  {
    name: "bridge -p: the container sees the client's address, TCP and UDP, IPv4 and IPv6",
    async run(podman) {
      await network(podman, 'n6', '--ipv6');
      const options = ['--network', 'n6', '-p', '8470:80', '-p', '8471:81/udp'];
      await podman.start(options, `(${who(80)}) & ${udpWho(81)}`);
      for (const [host, seen] of [
        [HOST4, PEER4_SEEN],
        [HOST6, PEER6_SEEN],
      ] as const) {
        has(await answer(podman.bed, 'peer', ['ncat', '--recv-only', host, '8470']), seen);
        has(await asked(podman.bed, 'peer', host, 8471), seen);
      }
    },
  },
  {
    name: 'pesto -s shows the published ports with where they lead, and no longer those of a container that is gone',
    async run(podman) {
      await network(podman, 'n4', '--subnet', '10.66.0.0/24');
      const ports = ['-p', '8472:80', '-p', '127.0.0.1:8473-8475:83-85/udp'];
      await podman.start(['--network', 'n4'], web('keeps'));
      const name = await podman.start(['--network', 'n4', '--ip', '10.66.0.9', ...ports], web('shown'));
      const control = `${await podman.bridgesDir()}/pasta.sock`;
      const shown = async (): Promise<string> => {
        const { stdout, stderr } = await podman.exec('pesto', '-s', control);
        return stdout + stderr;
      };
      const all = await shown();
      has(all, /8472.*10\.66\.0\.9/);
      has(all, /127\.0\.0\.1.*8473-8475.*10\.66\.0\.9/);
      await podman.succeed('rm', '-f', '-t', '0', name);
      if (/847[2-5]/.test(await shown())) throw new Error(await shown());
    },
  },
  {
    name: 'bridge -p: 126 ports of one container, 252 rules; the first and the last are served',
    async run(podman) {
      await network(podman, 'n6', '--ipv6');
      const ports = Array.from({ length: 126 }, (_, i) => 8500 + i);
      const publish = ports.flatMap((port) => ['-p', `${port}:80`]);
      await podman.start(['--network', 'n6', ...publish], web('rules'));
      await serves(podman, 8500, 'rules');
      await serves(podman, 8625, 'rules', [['peer', HOST6]]);
    },
  },
  {
    name: 'two containers at once, again and again: no rule of either is lost',
    async run(podman) {
      await network(podman, 'n4');
      for (let round = 0; round < 3; round++) {
        const [one, two] = await Promise.all(
          [8476, 8477].map((port) => podman.start(['--network', 'n4', '-p', `${port}:80`], web(`w${port}`))),
        );
        await serves(podman, 8476, 'w8476');
        await serves(podman, 8477, 'w8477');
        await Promise.all([one, two].map((name) => podman.succeed('rm', '-f', '-t', '0', name!)));
        await sleepMs(100);
      }
      await noListener(podman, /^847[67]$/);
    },
  },
];
