// @vitest: beside
/** The egress policy with real clients: curl, dig, ping, nc; changed by the API while connections exist. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, type Guest, makeBed, succeed, succeedIn, supportProgram } from '../support/bed.ts';
import { engine, repoRoot } from '../support/engines.ts';
import { GATEWAY4, HOST4, PEER4, PEER6, PORT } from '../support/ports.ts';
import { eventually, killTree } from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';

const needs = [
  requireTool('dig', 'apt package bind9-dnsutils'),
  requireTool('curl', 'apt package curl'),
  requireTool('ping', 'apt package iputils-ping'),
  requireTool('nc.openbsd', 'apt package netcat-openbsd'),
];
/** Other engines (E2E_ENGINE) have no policy. */
const PLANS = engine.name === 'bucatini' ? engine.plans : [];
/** A refusal comes at once: in less than this. */
const AT_ONCE_MS = 1500;
const LOOPBACK = '192.0.2.99';

const POLICY = `# for the tests
allow tcp peer.bed.test ${PORT.http}   # its addresses are those that the forwarder answers
deny  tcp any ${PORT.http}
allow tcp ${PEER4},${PEER6} ${PORT.echo}
allow udp ${PEER4} ${PORT.echo}
deny  dns any
default deny
`;

describeE2e('egress policy', needs, () => {
  let bed: Bed;
  beforeAll(async () => {
    bed = await makeBed();
  });
  afterAll(() => bed?.close());

  describe.each(PLANS)('%s', (plan) => {
    let guest: Guest;
    const socket = (): string => `${bed.ramDir}/api-${plan}`;
    const counters = async (): Promise<Record<string, number>> => {
      const [reply] = await ask({ execute: 'stats' });
      return reply.return.counters;
    };
    // biome-ignore lint/suspicious/noExplicitAny: the tests check the replies
    const ask = async (...requests: object[]): Promise<any[]> => {
      const texts = requests.map((request) => JSON.stringify(request));
      const client = supportProgram('clients/api-client.ts', socket(), ...texts);
      return JSON.parse(await succeedIn(bed, 'host', client));
    };
    const curl = (host: string, port: number = PORT.http, path = 'source') =>
      guest.inside(['curl', '-sS', '--noproxy', '*', '-m', '5', `http://${host}:${port}/${path}`]);
    const refusedAtOnce = async (argv: readonly string[]): Promise<string> => {
      const before = performance.now();
      const done = await guest.inside(argv);
      expect(done.status, done.stdout).not.toBe(0);
      expect(performance.now() - before).toBeLessThan(AT_ONCE_MS);
      return done.stdout + done.stderr;
    };

    beforeAll(async () => {
      const file = `${bed.ramDir}/policy-${plan}`;
      bed.write(file, POLICY);
      const extra = ['--policy', file, '--api-socket', socket()];
      guest = await bed.engine({ plan, hostLoopback: LOOPBACK, publish: ['8080:7001'], extra });
    });
    afterAll(() => guest?.stop());

    it('an address is refused until its name is resolved', async () => {
      expect((await curl(PEER4)).stderr).toContain('curl: (7)');
      expect(await curl('peer.bed.test')).toMatchObject({ status: 0 });
      expect(await curl(PEER4)).toMatchObject({ status: 0 });
      expect(await curl(`[${PEER6}]`)).toMatchObject({ status: 0 });
      await refusedAtOnce(['curl', '-sS', '--noproxy', '*', `http://${HOST4}:${PORT.http}/`]);
    });

    it.each([PEER4, PEER6])('%s: other ports are reset at once, the permitted one works', async (peer) => {
      expect(await refusedAtOnce(['nc.openbsd', '-v', '-z', peer, `${PORT.script}`])).toContain('refused');
      await succeed(guest, ['nc.openbsd', '-z', peer, `${PORT.echo}`]);
    });

    it('UDP and ping: prohibited by ICMP, at once', async () => {
      expect(await refusedAtOnce(['ping', '-c1', '-W3', PEER4])).toContain('Packet filtered');
      expect(await refusedAtOnce(['ping', '-c1', '-W3', PEER6])).toMatch(/prohibited/i);
      const udp = (peer: string) => supportProgram('clients/udp-ask.ts', peer, PORT.echo, 0, 'hello');
      expect(await succeed(guest, udp(PEER4))).toBe('hello\n');
      expect((await guest.inside(udp(PEER6))).stderr).toMatch(/EACCES|EHOSTUNREACH/);
    });

    it('names: REFUSED; other resolvers and queries over TCP are destinations like any other', async () => {
      const dig = async (...args: string[]): Promise<string> =>
        (await guest.inside(['dig', '+tries=1', '+time=3', ...args])).stdout;
      expect(await dig('who.bed.test', 'TXT')).toContain('status: REFUSED');
      expect(await dig('peer.bed.test')).toContain('status: NOERROR');
      expect(await dig('+tcp', 'peer.bed.test')).toMatch(/connection refused/);
      const before = performance.now();
      expect(await dig(`@${PEER4}`, 'peer.bed.test')).toMatch(/unreachable|timed out|refused|no servers/);
      expect(performance.now() - before).toBeLessThan(2 * AT_ONCE_MS);
    });

    it("the host's loopback is refused, published ports are not the policy's matter", async () => {
      await refusedAtOnce(['nc.openbsd', '-z', LOOPBACK, '22']);
      const server = guest.startInside(supportProgram('clients/tcp-echo.ts', 7001));
      await eventually('it listens', 5000, () => server.printed().stdout.includes('ready'));
      const crowd = supportProgram('clients/tcp-crowd.ts', HOST4, 8080, 2, 2, 100_000, 1);
      expect(JSON.parse(await succeedIn(bed, 'host', crowd))).toMatchObject({ ok: 2, failed: {} });
    });

    it('another policy: connections that it denies are reset, others stay; get_policy tells it', async () => {
      const session = (peer: string) =>
        guest.startInside([
          ...['bash', '-c'],
          `exec 3<>/dev/tcp/${peer}/${PORT.echo}; echo one >&3; read -r -u3 a; echo "$a"; sleep 1.5
           echo two >&3; read -r -t 5 -u3 b || b=ended; echo "$b"`,
        ]);
      const [four, six] = [session(PEER4), session(PEER6)];
      await eventually('both run', 5000, () =>
        [four, six].every((one) => one.printed().stdout.includes('one\n')),
      );
      const text = `allow tcp ${PEER6} ${PORT.echo}\nallow tcp *.bed.test ${PORT.http}\n`;
      const [bad, reply, now] = await ask(
        { execute: 'set_policy', arguments: { policy: 'allow privat' } },
        { execute: 'set_policy', arguments: { policy: text } },
        { execute: 'get_policy' },
      );
      expect(bad.error.desc).toContain('set_policy: policy: line 1: privat');
      expect(reply.return.flows_ended).toBeGreaterThanOrEqual(1);
      expect(now.return.policy).toBe(
        `allow tcp ${PEER6}/128 ${PORT.echo}\nallow tcp *.bed.test ${PORT.http}\ndefault deny\n`,
      );
      await Promise.all([four.exited, six.exited]);
      expect(four.printed().stdout).toBe('one\nended\n');
      expect(six.printed().stdout).toBe('one\ntwo\n');
      await refusedAtOnce(['nc.openbsd', '-z', PEER4, `${PORT.echo}`]);
      // Names that were resolved under the old policy.
      expect(await curl(PEER4)).toMatchObject({ status: 0 });
      const counted = await counters();
      expect(counted['drop.egressPolicy']).toBeGreaterThan(5);
      expect(counted.policyFlowsEnded).toBeGreaterThanOrEqual(1);
      expect(counted.policyNamesRefused).toBeGreaterThanOrEqual(1);
      await ask({ execute: 'set_policy', arguments: { policy: null } });
      await succeed(guest, ['ping', '-c1', '-W3', PEER4]);
    });
  });

  describe.runIf(engine.name === 'bucatini')('pasta', () => {
    const inside = async (options: readonly string[], command: string): Promise<string> => {
      const { stdout, stderr } = await bed.run('user', [
        ...[`${repoRoot}/bin/pasta`, '--config-net', '--quiet', '-t', 'none', '-u', 'none', ...options],
        ...['--', 'sh', '-c', command],
      ]);
      return stdout + stderr;
    };
    const PORTS = ['-T', '7000:7001', '-U', '7000:7001'];
    const ECHO = 'echo hello | nc.openbsd -N -w 1';
    beforeAll(async () => {
      for (const file of ['tcp-echo.ts', 'udp-server.ts']) {
        const server = bed.start('host', supportProgram(`clients/${file}`, 7001));
        await eventually('it listens', 5000, () => server.printed().stdout.includes('ready'));
      }
    });

    it('--allow, --deny: the gateway leads to the host, and so do ports of -T and -U', async () => {
      const all = `${ECHO} 127.0.0.1 7000; ${ECHO} -u 127.0.0.1 7000; ${ECHO} ${GATEWAY4} 7001; ${ECHO} ${PEER4} ${PORT.echo}`;
      const hellos = (text: string): number => text.split('hello').length - 1;
      expect(hellos(await inside(PORTS, all))).toBe(4);
      expect(hellos(await inside([...PORTS, '--deny', 'host'], all))).toBe(1);
      expect(hellos(await inside([...PORTS, '--allow', 'host'], all))).toBe(3);
      expect(hellos(await inside([...PORTS, '--allow', 'host:7001/udp'], all))).toBe(1);
      expect(await inside(['--deny', 'hosts'], 'true')).toContain(
        '--deny hosts: hosts: not one of any, host',
      );
    });

    it('set_policy: spliced connections to the host are ended, too', async () => {
      const path = `${bed.ramDir}/api-pasta`;
      const deny = JSON.stringify({ execute: 'set_policy', arguments: { policy: 'deny host' } });
      const text = await inside(
        [...PORTS, '--api-socket', path],
        `exec 2>&1; bash -c 'exec 3<>/dev/tcp/127.0.0.1/7000; echo one >&3; read -r -u3 a; echo "$a"
           echo "$0" | nc.openbsd -N -U ${path}; echo two >&3; read -r -t 5 -u3 b || b=ended; echo "$b"' '${deny}'`,
      );
      expect(text).toMatch(/^one\n\{"return":\{"flows_ended":1\}\}/);
      expect(text).toContain('ended');
    });
  });

  it.runIf(engine.name === 'bucatini')(
    'host: also what the kernel delivers locally without being an address of an interface',
    async () => {
      const port = 7002;
      // The whole network of an address on the loopback interface, and a prefix that is routed to the host.
      const set = 'ip addr add 198.51.100.1/24 dev lo; ip route add local 203.0.113.128/25 dev lo';
      await succeedIn(bed, 'host', ['sh', '-c', set]);
      const server = bed.start('host', supportProgram('clients/tcp-echo.ts', port));
      await eventually('it listens', 5000, () => server.printed().stdout.includes('ready'));
      const guest = await bed.engine({ plan: 'fused', extra: ['--deny', 'host'] });
      const free = await bed.engine({ plan: 'fused' });
      try {
        for (const to of ['198.51.100.55', '203.0.113.200']) {
          const argv = ['nc', '-z', '-w', '3', to, `${port}`];
          expect((await free.inside(argv)).status, to).toBe(0);
          expect((await guest.inside(argv)).status, to).not.toBe(0);
        }
      } finally {
        await Promise.all([guest.stop(), free.stop()]);
        const unset = set.replaceAll(' add ', ' del ');
        await succeedIn(bed, 'host', ['sh', '-c', unset]);
      }
    },
  );

  it.runIf(engine.name === 'bucatini')(
    'a policy of 10,000 rules by the API; a longer request is refused',
    async () => {
      const path = `${bed.ramDir}/api-large`;
      const guest = await bed.engine({ plan: 'fused', extra: ['--api-socket', path] });
      try {
        const file = `${bed.ramDir}/request`;
        const send = async (rules: number): Promise<string> => {
          const list = Array.from(
            { length: rules },
            (_, i) => `deny tcp 10.${128 + (i >>> 14)}.${(i >>> 6) & 255}.${(i & 63) * 4}/30 443`,
          );
          bed.write(file, JSON.stringify({ execute: 'set_policy', arguments: { policy: list.join('\n') } }));
          return succeedIn(bed, 'host', ['sh', '-c', `nc.openbsd -N -U ${path} <${file}`]);
        };
        expect(JSON.parse(await send(10_000))).toEqual({ return: { flows_ended: 0 } });
        expect(await send(60_000)).toContain('too large message');
        await succeed(guest, ['nc.openbsd', '-z', PEER4, `${PORT.echo}`]);
      } finally {
        await guest.stop();
      }
    },
  );

  it.runIf(engine.name === 'bucatini')('slirp4netns: --allow, --deny, --policy', async () => {
    const empty = await bed.emptyGuest();
    const rules = `${bed.ramDir}/slirp.policy`;
    bed.write(rules, `allow tcp any ${PORT.echo}\n`);
    const options = ['--deny', 'any/icmp', '--allow', `${PEER4}:${PORT.http}`, '--policy', rules];
    const argv = ['-c', ...options, String(bed.pidSeenInside(empty.pid)), 'tap0'];
    const slirp = bed.start('user', [`${repoRoot}/bin/slirp4netns`, ...argv]);
    try {
      await eventually('the namespace has an interface', 5000, async () =>
        (await empty.inside(['ip', 'route'])).stdout.includes('default'),
      );
      const open = (port: number) => empty.inside(['nc.openbsd', '-z', '-w', '5', PEER4, `${port}`]);
      expect((await open(PORT.http)).status).toBe(0);
      expect((await open(PORT.echo)).status).toBe(0);
      expect((await open(PORT.script)).status).toBe(1);
      expect((await empty.inside(['ping', '-c1', '-W2', PEER4])).status).not.toBe(0);
    } finally {
      killTree(slirp.pid);
      await empty.end();
    }
  });
});
