/**
 * The pasta front end as its callers use it: Podman's command line in the background, the form with a
 * command, the form with a process id. The expected results are those of passt 2026-10-02 in the same
 * network.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, isFrontEnd, makeBed, succeedIn } from '../support/bed.ts';
import { repoRoot } from '../support/engines.ts';
import { GATEWAY4, HOST4, HOST6, PEER4, PEER6, PORT } from '../support/ports.ts';
import { eventually } from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';

const PASTA = `${repoRoot}/bin/pasta`;
const QUIT_MS = 5000; // what Podman's tests allow

/** Prints the number of bytes that arrived. */
const download = (host: string, bytes: number): string[] => [
  ...['curl', '-sS', '-o', '/dev/null', '-w', '%{size_download}'],
  `http://${host}:${PORT.http}/bytes/${bytes}`,
];

const needs = [
  requireTool('curl', 'apt package curl'),
  requireTool('dig', 'apt package bind9-dnsutils'),
  requireTool('socat', 'apt package socat'),
];

describeE2e('pasta', needs, () => {
  let bed: Bed;
  beforeAll(async () => {
    bed = await makeBed();
  });
  afterAll(() => bed?.close());

  const pastas = (): string[] => bed.processes().filter((line) => isFrontEnd(line, 'pasta'));
  const none = (): Promise<unknown> => eventually('no pasta is left', QUIT_MS, () => pastas().length === 0);
  const global = (text: string): string[] => [...text.matchAll(/inet6? (\S+)/g)].map((m) => m[1]!);
  const addresses = ['ip', '-o', 'addr', 'show', 'scope', 'global'];

  describe("Podman's command line: in the background, for a namespace at a path", () => {
    let netns: string;
    let pidFile: string;
    const inside = (...argv: string[]): Promise<string> =>
      succeedIn(bed, 'host', ['nsenter', `--net=${netns}`, '--', ...argv]);
    const podman = (...more: string[]): string[] => [
      ...[PASTA, '--config-net', '--pid', pidFile, '--dns-forward', '169.254.1.1'],
      ...['-t', 'none', '-u', 'none', '-T', 'none', '-U', 'none', '--no-map-gw', '--quiet'],
      ...['--netns', netns, ...more, '--map-guest-addr', '169.254.1.2'],
    ];

    beforeAll(async () => {
      netns = `${bed.ramDir}/netns`;
      pidFile = `${bed.ramDir}/pasta.pid`;
      await succeedIn(bed, 'host', ['sh', '-c', `: >${netns}; unshare --net=${netns} true`]);
      // runToEnd returns when no process has its pipes open: a daemon that kept them would block it.
      expect(await bed.run('host', podman())).toMatchObject({ status: 0, stdout: '', stderr: '' });
    });

    it('pasta returns: the interface is configured', async () => {
      expect(global(await inside(...addresses))).toEqual([`${HOST4}/24`, `${HOST6}/64`]);
      expect(await inside('ip', '-4', 'route')).toContain('default via 10.77.0.254');
      expect(await inside('ip', '-6', 'route')).toContain('default via fd77::fe');
      expect(await inside('ip', 'link', 'show', 'veth0')).toMatch(/[<,]UP.*mtu 65520/s);
      expect(await inside('ip', 'link', 'show', 'lo')).toMatch(/[<,]UP/);
    });

    it.each([PEER4, `[${PEER6}]`])('TCP to %s', async (host) => {
      expect(await inside(...download(host, 70_000))).toBe('70000');
    });

    it.each(['+notcp', '+tcp'])('names resolve through the DNS forwarding address, %s', async (transport) => {
      const answer = await inside('dig', transport, '+short', '@169.254.1.1', 'peer.bed.test', 'A');
      expect(answer).toBe(`${PEER4}\n`);
    });

    it('the PID file names the serving process: called pasta, with no descriptor of the caller', async () => {
      const pid = (await succeedIn(bed, 'host', ['cat', pidFile])).trim();
      expect(pastas().map((line) => line.split(' ')[0])).toEqual([pid]);
      expect(await succeedIn(bed, 'host', ['cat', `/proc/${pid}/comm`])).toBe('pasta\n');
      expect((await succeedIn(bed, 'host', ['stat', '-c', '%a', pidFile])).trim()).toBe('600');
      const fds = await succeedIn(bed, 'host', ['sh', '-c', `readlink /proc/${pid}/fd/[012]`]);
      expect(fds).toBe('/dev/null\n/dev/null\n/dev/null\n');
    });

    it('every thread is in the sandbox', async () => {
      const script = 'grep -hE "^(NoNewPrivs|Seccomp):" /proc/$0/task/*/status | sort -u';
      const pid = (await succeedIn(bed, 'host', ['cat', pidFile])).trim();
      expect(await succeedIn(bed, 'host', ['sh', '-c', script, pid])).toBe('NoNewPrivs:\t1\nSeccomp:\t2\n');
    });

    it('a second pasta for the same namespace is refused', async () => {
      const second = await bed.run('host', podman());
      expect(second).toMatchObject({ status: 1, stdout: '' });
      expect(second.stderr).toContain('TUNSETIFF ioctl on /dev/net/tun failed: Device or resource busy');
    });

    it('an unknown option: the error text that Podman matches on', async () => {
      const refused = await bed.run('host', podman('--no-such-option'));
      expect(refused.status).toBe(1);
      expect(refused.stderr).toMatch(/: unrecognized option '--no-such-option'\nUsage: /);
    });

    it('the file of the namespace is removed: pasta ends', async () => {
      await succeedIn(bed, 'host', ['sh', '-c', `umount ${netns}; rm ${netns}`]);
      await none();
    });
  });

  describe('with a command', () => {
    const run = (options: readonly string[], ...command: string[]) =>
      bed.run('user', [PASTA, ...options, '--', ...command]);

    it("it has the host's addresses and routes, is process 1 and root; its status is returned", async () => {
      const script = `ip -o addr show scope global; ip route; echo $$ $(id -u) $(hostname); exit 7`;
      const { status, stdout, stderr } = await run(['--config-net'], 'sh', '-c', script);
      expect({ status, stderr }).toEqual({ status: 7, stderr: '' });
      expect(global(stdout)).toEqual([`${HOST4}/24`, `${HOST6}/64`]);
      expect(stdout).toContain('default via 10.77.0.254 dev veth0');
      expect(stdout).toMatch(/^1 0 pasta-\S+$/m);
      await none();
    });

    it('-a and -g: the routes of that family are not copied', async () => {
      const options = ['--config-net', '-a', '192.0.2.2', '-g', '192.0.2.1', '-I', 'myname', '-m', '1280'];
      const script = `ip -4 -o addr show dev myname; ip -4 route; ip link show myname; ${download(PEER4, 5).join(' ')}`;
      const { stdout } = await run([...options, '-H', 'guest'], 'sh', '-c', script);
      expect(global(stdout)).toEqual(['192.0.2.2/24']);
      expect(stdout).toContain('default via 192.0.2.1 dev myname');
      expect(stdout).not.toContain('10.77.0.0/24');
      expect(stdout).toContain(' mtu 1280 ');
      expect(stdout).toMatch(/\n5$/);
    });

    it('a host name of 65 characters: a warning, and the name of the host is kept', async () => {
      const { stdout, stderr } = await run(['-H', 'a'.repeat(65)], 'hostname');
      expect(stderr).toBe('Unable to set configured hostname\n');
      expect(stdout).toBe((await bed.run('user', ['hostname'])).stdout);
    });

    it('a host name that hostname(1) would refuse: set', async () => {
      const { status, stdout, stderr } = await run(['-H', 'a b'], 'uname', '-n');
      expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: 'a b\n', stderr: '' });
    });

    it('-p, a FIFO: without a reader status 1; with a reader frames arrive', async () => {
      const fifo = `${bed.ramDir}/frames`;
      await succeedIn(bed, 'user', ['mkfifo', fifo]);
      const none = await run(['-p', fifo], 'true');
      expect(none).toMatchObject({
        status: 1,
        stderr: `--pcap ${fifo}: nobody reads it; start its reader first\n`,
      });
      const reader = bed.start('user', ['sh', '-c', `od -An -tx1 -N24 ${fifo}`]);
      const command = ['sh', '-c', `sleep 0.2; ${download(PEER4, 5).join(' ')}`];
      await eventually(
        'it is read',
        QUIT_MS,
        async () => (await run(['--config-net', '-p', fifo], ...command)).status === 0,
      );
      await reader.exited;
      expect(reader.printed().stdout).toMatch(/^ 4d 3c b2 a1 02 00 04 00/);
      await succeedIn(bed, 'user', ['rm', fifo]);
    });

    it.each([
      ['--netns', "Couldn't open network namespace FIFO: Invalid argument\n"],
      ['--userns', "Couldn't enter user namespace FIFO: Invalid argument\n"],
    ])('%s, a FIFO: an error at once, no wait for a writer', async (option, message) => {
      const fifo = `${bed.ramDir}/no-namespace`;
      const { status, stderr } = await bed.run('user', [
        ...['sh', '-c', `mkfifo ${fifo}; ${PASTA} ${option} ${fifo}; s=$?; rm ${fifo}; exit $s`],
      ]);
      expect({ status, stderr }).toEqual({ status: 1, stderr: message.replace('FIFO', fifo) });
    });

    it('-o: a server on host loopback, reached by the gateway address, sees the address of -o', async () => {
      const listen = ['socat', 'TCP4-LISTEN:7777,bind=127.0.0.1', 'SYSTEM:echo $SOCAT_PEERADDR'];
      const server = bed.start('host', listen);
      const isUp = async () => (await bed.run('host', ['ss', '-tlnH'])).stdout.includes('127.0.0.1:7777 ');
      await eventually('it listens', QUIT_MS, isUp);
      const { stdout } = await run(
        ['--config-net', '-4', '-o', HOST4],
        ...['socat', '-u', `TCP:${GATEWAY4}:7777`, '-'],
      );
      expect(stdout.trim()).toBe(HOST4);
      await server.exited;
    });

    it('-c in a directory that does not exist: refused', async () => {
      const { status, stderr } = await run(['-c', '/nonexistent/file'], 'true');
      expect({ status, stderr }).toEqual({
        status: 1,
        stderr: 'Failed to bind UNIX domain socket: No such file or directory\n',
      });
    });

    it('an MTU that no device accepts: a warning, and the interface keeps its own', async () => {
      const { status, stdout } = await run(['--config-net', '-4', '-m', '60'], 'ip', 'link', 'show', 'veth0');
      expect({ status, mtu: / mtu (\d+)/.exec(stdout)?.[1] }).toEqual({ status: 0, mtu: '1500' });
    });

    it.each([
      ['-4', [`${HOST4}/24`]],
      ['-6', [`${HOST6}/64`]],
    ])('%s: one family only', async (option, expected) => {
      expect(global((await run(['--config-net', option], ...addresses)).stdout)).toEqual(expected);
    });

    it('without --config-net: the interface is down and has no address', async () => {
      const { stdout } = await run([], 'ip', 'addr', 'show', 'dev', 'veth0');
      expect(stdout).not.toMatch(/[<,]UP|inet/);
    });

    it.each([
      [
        'a program that does not exist',
        ['/nonexistent'],
        1,
        /^Failed to start command or shell: No such file/,
      ],
      ['a program that is killed', ['sh', '-c', 'sh -c "kill -9 \\$\\$"; exit $?'], 137, /^(Killed\n)?$/],
    ] as const)('%s', async (_what, command, status, stderr) => {
      const finished = await run(['-q'], ...command);
      expect(finished.status).toBe(status);
      expect(finished.stderr).toMatch(stderr);
    });

    it('-P and --pid=FILE: written before the command runs', async () => {
      const file = `${bed.ramDir}/command.pid`;
      expect((await run([`--pid=${file}`], 'cat', file)).stdout).toMatch(/^\d+\n$/);
    });
  });

  it('a process id: in the background, in its user namespace; the process ends: pasta ends', async () => {
    const guest = await bed.emptyGuest();
    const pid = String(bed.pidSeenInside(guest.pid));
    expect(await bed.run('user', [PASTA, '-q', '--config-net', pid])).toMatchObject({
      status: 0,
      stderr: '',
    });
    expect((await guest.inside(download(PEER4, 1000))).stdout).toBe('1000');
    await guest.end();
    await none();
  });

  it('SIGTERM in the foreground: status 0', async () => {
    const guest = await bed.emptyGuest();
    const started = bed.start('user', [PASTA, '-f', String(bed.pidSeenInside(guest.pid))]);
    const line = await eventually('pasta runs', QUIT_MS, () => pastas()[0]);
    await eventually(
      'it is ready',
      QUIT_MS,
      async () => (await guest.inside(['ip', 'link', 'show', 'veth0'])).status === 0,
    );
    await succeedIn(bed, 'host', ['kill', line.split(' ')[0]!]);
    expect(await started.exited).toBe(0);
    expect(started.printed().stderr).toContain('Template interface: veth0 (IPv4), veth0 (IPv6)');
    await guest.end();
  });
});
