/**
 * The slirp4netns front end as its callers use it: the properties that the tests of slirp4netns, Podman and
 * RootlessKit check. The expected results are those of slirp4netns 1.3.3.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, isFrontEnd, makeBed, succeedIn, supportProgram } from '../support/bed.ts';
import { repoRoot } from '../support/engines.ts';
import { patternSha256 } from '../support/pattern.ts';
import { GATEWAY4, GATEWAY6, HOST4, HOST6, PEER4, PEER6, PORT } from '../support/ports.ts';
import { eventually, killTree } from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';

const SLIRP = `${repoRoot}/bin/slirp4netns`;
const END_MS = 5000;

const needs = [
  requireTool('curl', 'apt package curl'),
  requireTool('dig', 'apt package bind9-dnsutils'),
  requireTool('udhcpc', 'apt package udhcpc'),
];

describeE2e('slirp4netns', needs, () => {
  let bed: Bed;
  let netns: string;
  beforeAll(async () => {
    bed = await makeBed();
    netns = `${bed.ramDir}/netns`;
    await succeedIn(bed, 'host', ['sh', '-c', `: >${netns}; unshare --net=${netns} true`]);
  });
  afterAll(() => bed?.close());

  const inside = (script: string) => bed.run('host', ['nsenter', `--net=${netns}`, 'sh', '-c', script]);
  const slirps = (): string[] => bed.processes().filter((line) => isFrontEnd(line, 'slirp4netns'));
  const none = (): Promise<unknown> =>
    eventually('no slirp4netns is left', END_MS, () => slirps().length === 0);

  /**
   * Start it as Podman does, ready-fd 3 and exit-fd 4; it ends when `stop` ends, by exit-fd.
   * @returns its output so far
   */
  const start = async (options: string): Promise<{ stop(): Promise<string> }> => {
    const dir = bed.ramDir;
    const script = `cd ${dir}; rm -f ready exit log; mkfifo exit; : >ready
      sleep infinity >exit 2>/dev/null & echo $! >holder
      ${SLIRP} -r 3 -e 4 ${options} --netns-type=path ${netns} tap0 3>ready 4<exit >log 2>&1 &
      echo $! >pid; i=0
      until [ -s ready ] || [ $i = 100 ]; do sleep 0.05; i=$((i + 1)); done
      cat ready log`;
    // A background process must not keep our pipes open: run() reads them to their end.
    await succeedIn(bed, 'host', ['sh', '-c', `exec >${dir}/out 2>&1 </dev/null; ${script}`]);
    const { stdout } = await bed.run('host', ['cat', `${dir}/out`]);
    expect(stdout).toMatch(/^1/);
    return {
      stop: async () => {
        await succeedIn(bed, 'host', ['sh', '-c', `kill $(cat ${dir}/holder)`]);
        await none();
        return (await bed.run('host', ['cat', `${dir}/log`])).stdout;
      },
    };
  };

  describe('with --configure, IPv6 and an API socket', () => {
    let running: { stop(): Promise<string> };
    beforeAll(async () => {
      running = await start(`-c -6 --mtu=9000 --macaddress=0a:00:00:00:00:09 -a ${bed.ramDir}/api`);
    });

    it('address, MTU, MAC, route and an address by router advertisement', async () => {
      await eventually('fd00:: address', END_MS, async () =>
        /inet6 fd00::/.test((await inside('ip -6 addr show dev tap0 -tentative')).stdout),
      );
      const { stdout } = await inside('ip addr show tap0; ip route; ip -6 route');
      expect(stdout).toMatch(
        /mtu 9000.*link\/ether 0a:00:00:00:00:09.*inet 10\.0\.2\.100\/24 brd 10\.0\.2\.255/s,
      );
      expect(stdout).toContain('default via 10.0.2.2 dev tap0');
      expect(stdout).toContain('default via fe80::2 dev tap0');
    });

    it('connections, names, and ping of gateway and names work', async () => {
      const { stdout } = await inside(
        `curl -sS -o /dev/null -w '%{size_download} ' http://${PEER4}:${PORT.http}/bytes/70000
         dig +short @10.0.2.3 peer.bed.test A; dig +tcp +short @10.0.2.3 peer.bed.test A
         ping -c1 -W1 10.0.2.2; ping -c1 -W1 10.0.2.3; ping -c1 -W1 fd00::2`,
      );
      expect(stdout).toMatch(new RegExp(`^70000 ${PEER4}\n${PEER4}\n`));
      expect(stdout.match(/ 1 received/g)).toHaveLength(3);
    });

    it('UDP: a guest socket has one host port, and any peer may send to it', async () => {
      const ports = [7101, 7102, 7103];
      const mirror = bed.start('peer', supportProgram('clients/udp-mapping.ts', 'mirror', ...ports));
      await eventually('the mirror is ready', END_MS, () => mirror.printed().stdout.includes('ready'));
      for (const address of [PEER4, PEER6]) {
        const ask = supportProgram('clients/udp-mapping.ts', 'ask', address, ...ports);
        const { stdout } = await bed.run('host', ['nsenter', `--net=${netns}`, '--', ...ask]);
        const { own, seen, strangers } = JSON.parse(stdout);
        expect(seen).toEqual(ports.map(() => own));
        expect(strangers).toBe(ports.length);
      }
    });

    it('the process is called slirp4netns', async () => {
      const { stdout } = await bed.run('host', ['sh', '-c', `cat /proc/$(cat ${bed.ramDir}/pid)/comm`]);
      expect(stdout).toBe('slirp4netns\n');
    });

    it('it is in the sandbox: empty root, no capabilities in the main thread, a filter', async () => {
      const { stdout } = await bed.run('host', [
        'sh',
        '-c',
        `cd /proc/$(cat ${bed.ramDir}/pid); ls -A root/; grep -E '^(CapEff|NoNewPrivs|Seccomp):' status`,
      ]);
      expect(stdout).toBe('CapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n');
    });

    it('a silent API client: others add ports, which carry TCP and UDP of both families, and remove them', async () => {
      const ask = async (...requests: object[]) => {
        const texts = requests.map((request) => JSON.stringify(request));
        return JSON.parse(
          await succeedIn(
            bed,
            'host',
            supportProgram('clients/api-client.ts', `${bed.ramDir}/api`, ...texts),
          ),
        );
      };
      const servers = ['tcp-echo.ts', 'udp-server.ts'].map((file) =>
        bed.start('host', ['nsenter', `--net=${netns}`, '--', ...supportProgram(`clients/${file}`, 7001)]),
      );
      const forwards = ['tcp', 'udp'].flatMap((proto) =>
        ['127.0.0.1', HOST6].map((host_addr) => ({ proto, host_addr, host_port: 880, guest_port: 7001 })),
      );
      const adding = forwards.map((forward) => ({ execute: 'add_hostfwd', arguments: forward }));
      const replies = await ask(...adding, adding[0]!, { execute: 'list_hostfwd' });
      expect(replies.slice(0, 4)).toEqual([1, 2, 3, 4].map((id) => ({ return: { id } })));
      expect(replies[4]).toHaveProperty('error');
      expect(replies[5].entries).toMatchObject(forwards);
      for (const server of servers)
        await eventually('it listens', 2 * END_MS, () => server.printed().stdout.includes('ready'));

      const crowd = async (host: string) =>
        JSON.parse(
          (await bed.run('host', supportProgram('clients/tcp-crowd.ts', host, 880, 2, 2, 100_000, 1))).stdout,
        );
      const hello = (host: string) =>
        succeedIn(bed, 'host', supportProgram('clients/udp-ask.ts', host, 880, 0, 'hello'));
      const both = ['127.0.0.1', HOST6];
      const [echoes, answers] = await Promise.all([
        Promise.all(both.map(crowd)),
        Promise.all(both.map(hello)),
      ]);
      for (const echo of echoes) expect(echo).toMatchObject({ ok: 2, failed: {} });
      for (const answer of answers) expect(answer).toMatch(/ hello\n$/);

      const remove = { execute: 'remove_hostfwd', arguments: { id: 2 } };
      const [removed, info, stats] = await ask(remove, { execute: 'info' }, { execute: 'stats' });
      expect(removed).toEqual({ return: {} });
      expect(info.return).toMatchObject({
        ...{ interface: 'tap0', mtu: 9000, forwards: 3 },
        ipv4: { guest: '10.0.2.100', gateway: '10.0.2.2', dns: '10.0.2.3' },
      });
      expect(stats.return.counters.bytesToGuest).toBeGreaterThan(4 * 100_000);
      const [left, gone] = await Promise.all(both.map(crowd));
      expect(left).toMatchObject({ ok: 2 });
      expect(gone).toMatchObject({ failed: { ECONNREFUSED: 2 } });
      for (const server of servers) killTree(server.process.pid!);
    });

    it('exit-fd is closed: status 0, and the API socket is removed', async () => {
      const huge = { execute: 'x'.repeat(5000) };
      const ask = supportProgram('clients/api-client.ts', `${bed.ramDir}/api`, JSON.stringify(huge));
      expect(await succeedIn(bed, 'host', ask)).toContain('too large message');
      const log = await running.stop();
      expect(log).toMatch(
        /^apifd event\napi_handler: too large message \(>= 4096 bytes\)\napi_handler: rc=-1$/m,
      );
      expect(log).toContain('* MTU:             9000\n* Network:         10.0.2.0\n');
      expect(log).toContain(`* API Socket:      ${bed.ramDir}/api\n`);
      expect(log).toMatch(/^WARNING: 127\.0\.0\.1:\* on the host is accessible as 10\.0\.2\.2 /m);
      expect(log).toMatch(/exitfd event\ndo_slirp is exiting\n$/);
      expect((await bed.run('host', ['ls', `${bed.ramDir}/api`])).status).not.toBe(0);
    });
  });

  describe("the host's network changes while it runs", () => {
    const OTHER4 = '10.77.0.9';
    const FOLLOWED_MS = 5000;
    let running: { stop(): Promise<string> };
    beforeAll(async () => {
      running = await start('-c --mtu=65520');
    });
    afterAll(() => running?.stop());

    it.each(['+notcp', '+tcp'])(
      'resolv.conf changes, dig %s: the new resolver answers',
      async (transport) => {
        const name = `other${transport.length}`;
        const address = `127.0.0.${transport.length}`;
        const server = bed.start('host', supportProgram('dns-server.ts', name, address));
        await eventually('it listens', END_MS, () => server.printed().stdout.includes('ready'));
        const who = async () =>
          (await inside(`dig ${transport} +tries=1 +time=1 +short @10.0.2.3 who.bed.test TXT`)).stdout;
        expect(await who()).toMatch(/^"peer /);
        bed.write(`${bed.ramDir}/resolv.conf`, `nameserver ${address}\n`);
        try {
          await eventually('it is asked', FOLLOWED_MS, async () => (await who()).startsWith(`"${name} `));
        } finally {
          bed.write(`${bed.ramDir}/resolv.conf`, `nameserver ${PEER4}\nsearch bed.test\n`);
        }
        await eventually('the old one is asked again', FOLLOWED_MS, async () =>
          (await who()).startsWith('"peer '),
        );
        killTree(server.process.pid!);
      },
    );

    it('the default route is replaced by one with another address: a UDP flow goes on, new connections work', async () => {
      const lines = `exec 3<>/dev/udp/${PEER4}/${PORT.echo}
        while read -r l; do echo "$l" >&3; a=$(timeout 1 dd bs=2000 count=1 <&3 2>/dev/null); echo "got $a"; done`;
      const client = bed.start('host', ['nsenter', `--net=${netns}`, 'bash', '-c', lines]);
      const host = (command: string) => succeedIn(bed, 'host', ['sh', '-ec', command]);
      let n = 0;
      const goesOn = (): Promise<unknown> => {
        const first = ++n;
        return eventually('the flow goes on', FOLLOWED_MS, async () => {
          client.process.stdin!.write(`line ${n++}\n`);
          await new Promise((resolve) => setTimeout(resolve, 300));
          return [...client.printed().stdout.matchAll(/got line (\d+)/g)].some((m) => Number(m[1]) >= first);
        });
      };
      const source = `curl -sS -m 3 http://${PEER4}:${PORT.http}/source`;
      await goesOn();
      await host('ip route del default; ip addr flush dev veth0 scope global');
      try {
        expect((await inside(source)).status).not.toBe(0);
        await host(`ip addr add ${OTHER4}/24 dev veth0; ip route add default via ${GATEWAY4}`);
        await goesOn();
        expect((await inside(source)).stdout).toBe(OTHER4);
      } finally {
        await host(`ip addr flush dev veth0 scope global
          ip addr add ${HOST4}/24 dev veth0; ip addr add ${HOST6}/64 dev veth0 nodad
          ip route replace default via ${GATEWAY4}; ip -6 route replace default via ${GATEWAY6}`);
      }
      expect((await inside(source)).stdout).toBe(HOST4);
      client.process.stdin!.end();
      await client.exited;
    });
  });

  it('--disable-host-loopback: the gateway answers ping; a connection to it: network unreachable', async () => {
    const running = await start('-c --disable-host-loopback --cidr=10.0.135.128/25');
    const { stdout, stderr } = await inside(
      'ping -c1 -W1 10.0.135.130; exec 2>&1; curl -sS -m 3 http://10.0.135.130:9/; dig +short @10.0.135.131 peer.bed.test',
    );
    expect(`${stdout}${stderr}`).toMatch(/ 1 received/);
    expect(stdout).toMatch(/curl: \(7\).*(Network is unreachable|Could ?n.t connect)/i);
    expect(stdout).toContain(PEER4);
    await running.stop();
  });

  it('without --configure, an existing TAP: it stays unconfigured; --disable-dns: queries to .3 time out', async () => {
    await eventually(
      'the interface of before is gone',
      END_MS,
      async () => (await inside('ip link show tap0')).status === 1,
    );
    const must = async (script: string): Promise<void> =>
      expect(await inside(`set -e; ${script}`)).toMatchObject({ status: 0, stderr: '' });
    await must('ip tuntap add name tap0 mode tap; ip link set tap0 up');
    const running = await start('--disable-dns');
    expect((await inside('ip addr show tap0')).stdout).not.toContain('inet ');
    await must('ip addr add 10.0.2.100/24 dev tap0; ip route add default via 10.0.2.2');
    const { stdout, status } = await inside('ping -c1 -W1 10.0.2.3; dig +tcp +tries=1 +time=1 @10.0.2.3 x');
    expect(stdout).toMatch(/ 1 received/);
    expect(status).toBe(9); // dig: no reply
    expect(stdout).not.toMatch(/refused/);
    await running.stop();
    expect((await inside('ip -o link show tap0')).status).toBe(0);
    await inside('ip link del tap0');
  });

  it.each(['127.0.0.1', HOST4])(
    '--outbound-addr %s: a server on host loopback sees that address',
    async (source) => {
      const running = await start(`-c --outbound-addr=${source}`);
      const seen = `${bed.ramDir}/seen`;
      const server = `require('net').createServer((s) => {
      require('fs').writeFileSync('${seen}', s.remoteAddress); s.end(); process.exit();
    }).listen(7777, '127.0.0.1', () => require('fs').writeFileSync('${seen}', 'up'))`;
      const shell = `exec </dev/null >/dev/null 2>&1; rm -f ${seen}; sh ${repoRoot}/scripts/node.sh -e "${server}" &
      until [ -s ${seen} ]; do sleep 0.02; done`;
      await succeedIn(bed, 'host', ['sh', '-c', shell]);
      await inside('curl -sS -m 3 http://10.0.2.2:7777/');
      expect(await succeedIn(bed, 'host', ['cat', seen])).toBe(source);
      await running.stop();
    },
  );

  describe('--target-type=bess: one frame per socket message', () => {
    const BYTES = 20 * 2 ** 20;
    it('ready when a peer has connected; carries data both ways; ends with the peer', async () => {
      const path = `${bed.ramDir}/bess`;
      const ready = `${bed.ramDir}/bess-ready`;
      const slirp = bed.start('host', [
        ...[
          'sh',
          '-c',
          `: >${ready}; exec ${SLIRP} -6 -r 3 -m 9000 -a ${bed.ramDir}/bess-api "$@" 3>${ready}`,
          'sh',
        ],
        ...['--target-type=bess', path],
      ]);
      const isReady = async (): Promise<boolean> => (await bed.run('host', ['cat', ready])).stdout === '1';
      await eventually('it waits', END_MS, () =>
        slirp.printed().stdout.includes(`Waiting for connection to ${path}\n`),
      );
      expect(slirp.printed().stdout).toContain('WARNING: BESS mode is experimental\n');
      expect(await isReady()).toBe(false);
      const bridge = bed.start('host', [
        ...['nsenter', `--net=${netns}`, '--', ...supportProgram('clients/bess-bridge.ts', path, 'tap9')],
      ]);
      await eventually('it is ready', END_MS, isReady);
      await eventually('the bridge is ready', END_MS, () => bridge.printed().stdout.includes('ready'));
      const setUp = `ip link set tap9 up mtu 9000; ip addr add 10.0.2.100/24 dev tap9; ip route add default via 10.0.2.2`;
      expect(await inside(setUp)).toMatchObject({ status: 0, stderr: '' });
      const file = `${bed.ramDir}/bess-file`;
      const url = `http://${PEER4}:${PORT.http}`;
      const down = await inside(`curl -sSf -o ${file} ${url}/bytes/${BYTES}; sha256sum <${file}`);
      expect(down.stdout).toBe(`${patternSha256(BYTES)}  -\n`);
      const up = JSON.parse((await inside(`curl -sSf -H Expect: -T ${file} ${url}/upload`)).stdout);
      expect(up).toMatchObject({ bytes: BYTES, sha256: patternSha256(BYTES) });
      expect((await inside('dig +short @10.0.2.3 peer.bed.test A')).stdout).toBe(`${PEER4}\n`);
      await eventually('IPv6 by router advertisement', END_MS, async () =>
        (await inside('ping -c1 -W1 fd00::2')).stdout.includes(' 1 received'),
      );
      const ask = supportProgram('clients/api-client.ts', `${bed.ramDir}/bess-api`, '{"execute":"info"}');
      expect(JSON.parse(await succeedIn(bed, 'host', ask))[0].return).toMatchObject({ mtu: 9000 });
      const [pid] = slirps()[0]!.split(' ');
      const restrictions = `cd /proc/${pid}; grep -E '^(CapEff|Seccomp):' status`;
      expect((await bed.run('host', ['sh', '-c', restrictions])).stdout).toContain('Seccomp:\t2\n');
      killTree(bridge.process.pid!);
      expect(await slirp.exited).toBe(0);
      expect(slirp.printed().stderr).toMatch(/ \(not really TAP\) for .*\nreceived tapfd=\d+\n/);
      expect(slirp.printed().stderr).toMatch(/do_slirp is exiting\n$/);
      await succeedIn(bed, 'host', ['rm', file]);
    }, 60_000);

    it.each([
      ['', 'child_bess: bind: Invalid argument\nchild failed(1)\n'],
      ['/nowhere/socket', 'child_bess: bind: No such file or directory\nchild failed(1)\n'],
      ['/x'.repeat(54), 'the specified BESS socket path is too long (>= 108)\nchild failed(1)\n'],
    ])('%s: %s', async (path, stderr) => {
      expect(await bed.run('host', [SLIRP, '--target-type=bess', path])).toMatchObject({ status: 1, stderr });
    });
  });

  it('without --configure: a DHCP client gets .15, the gateway and the name server', async () => {
    const running = await start('');
    const told = `${bed.ramDir}/lease`;
    bed.write(`${told}.sh`, `#!/bin/sh\n[ "$1" = bound ] && echo "$ip/$mask $router $dns" >${told}; true\n`);
    await succeedIn(bed, 'host', ['chmod', '755', `${told}.sh`]);
    const client = `ip link set tap0 up; udhcpc -i tap0 -f -q -n -t 5 -T 1 -s ${told}.sh`;
    expect(await inside(client)).toMatchObject({ status: 0 });
    expect(await succeedIn(bed, 'host', ['cat', told])).toBe('10.0.2.15/24 10.0.2.2 10.0.2.3\n');
    await running.stop();
  });

  it.each([
    ['-c', ['10.0.2.100/24']],
    ['', []],
  ])('namespaces by their paths, --userns-path, %j: addresses inside are %j', async (options, addresses) => {
    const { stdout } = await bed.run('host', [
      'sh',
      '-c',
      `exec </dev/null 2>/dev/null; cd ${bed.ramDir}
       unshare -Urn sleep 60 >/dev/null & p=$!
       until [ "$(cat /proc/$p/comm)" = sleep ]; do sleep 0.02; done
       rm -f r; ${SLIRP} ${options} -r 3 --netns-type=path --userns-path=/proc/$p/ns/user /proc/$p/ns/net tap0 3>r >log 2>&1 & us=$!
       until [ -s r ] || ! [ -d /proc/$us ]; do sleep 0.05; done
       nsenter -t $p -U -n --preserve-credentials ip -j addr show dev tap0
       kill $p $us; wait`,
    ]);
    const [tap] = JSON.parse(stdout) as {
      addr_info: { family: string; local: string; prefixlen: number }[];
    }[];
    const inet = tap?.addr_info.filter(({ family }) => family === 'inet');
    expect(inet?.map(({ local, prefixlen }) => `${local}/${prefixlen}`)).toEqual(addresses);
    await none();
  });

  it('--enable-sandbox: a shared mount of the host is kept, while it runs and afterwards', async () => {
    const place = `${bed.ramDir}/shared`;
    const mounts = `grep -c ' ${place} ' /proc/self/mountinfo`;
    await succeedIn(bed, 'host', [
      'sh',
      '-c',
      `mkdir ${place}; mount -t tmpfs tmpfs ${place}; mount --make-shared ${place}`,
    ]);
    const running = await start('-c --enable-sandbox');
    expect(await succeedIn(bed, 'host', ['sh', '-c', mounts])).toBe('1\n');
    await running.stop();
    expect(await succeedIn(bed, 'host', ['sh', '-c', mounts])).toBe('1\n');
    await succeedIn(bed, 'host', ['sh', '-c', `umount ${place}; rmdir ${place}`]);
  });

  it('the file of the namespace is removed: it ends', async () => {
    const other = `${bed.ramDir}/other`;
    await succeedIn(bed, 'host', ['sh', '-c', `: >${other}; unshare --net=${other} true`]);
    await succeedIn(bed, 'host', [
      'sh',
      '-c',
      `exec </dev/null; ${SLIRP} -c -r 3 --netns-type=path ${other} tap0 3>${bed.ramDir}/r >/dev/null 2>&1 &
       until [ -s ${bed.ramDir}/r ]; do sleep 0.05; done; umount ${other}; rm ${other}`,
    ]);
    await none();
  });

  it('the named process ends: it serves until the last process leaves the namespace', async () => {
    const { stdout } = await bed.run('host', [
      'sh',
      '-c',
      `exec </dev/null 2>/dev/null; cd ${bed.ramDir}
       unshare --net sh -c 'sleep 60 >/dev/null 2>&1 & echo $! >last; exec sleep 60' >/dev/null 2>&1 & first=$!
       until [ -s last ] && [ "$(cat /proc/$first/comm)" = sleep ]; do sleep 0.02; done
       rm -f r; ${SLIRP} -c -r 3 $first tap0 3>r >log 2>&1 & us=$!
       until [ -s r ]; do sleep 0.05; done
       kill $first; wait $first; sleep 2.5; [ -d /proc/$us ] && echo on
       kill $(cat last); wait $us; echo $?`,
    ]);
    expect(stdout).toBe('on\n0\n');
  });

  it.each([
    [['--cidr=24', '1', 'tap0'], 'invalid CIDR: 24\n'],
    [['-c', '4194305', 'tap0'], '/proc/4194305/ns/net: No such file or directory\nchild failed(1)\n'],
  ])('%j: %s', async (argv, stderr) => {
    expect(await bed.run('host', [SLIRP, ...argv])).toMatchObject({ status: 1, stdout: '', stderr });
  });
});
