// @vitest: beside
/**
 * Hosts whose network is not one interface with a default route in the main table: the route is in another
 * table, there are two uplinks of which one goes down, or the network comes later. All four front ends.
 *
 *   the host of the bed      10.77.0.1/24, fd77::1      veth0 ═══ veth0   the peer: gateways .254 and ::fe of each
 *                            10.78.0.1/24, fd78::1      veth1 ═══ veth1   FAR4, FAR6 on its loopback
 */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type Bed, type Inside, makeBed, succeed, succeedIn } from '../support/bed.ts';
import { engine, repoRoot } from '../support/engines.ts';
import { GATEWAY4, GATEWAY6, HOST4, HOST6, PEER4, PORT } from '../support/ports.ts';
import { eventually, killTree, type Started } from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';

const FAR4 = '198.18.0.1';
const FAR6 = '2001:db8:18::1';
const OTHER4 = '10.78.0.1';
const OTHER6 = 'fd78::1';
const OTHER_GATEWAY4 = '10.78.0.254';
const OTHER_GATEWAY6 = 'fd78::fe';
/** A port of FAR4 whose UDP server answers each line with the address of its sender and the line. */
const WHO_PORT = 7777;
const FOLLOWED_MS = 5000;
const START_MS = 10_000;

const needs = [
  requireTool('curl', 'apt package curl'),
  requireTool('socat', 'apt package socat'),
  requireTool('dig', 'apt package bind9-dnsutils'),
];

describeE2e('hosts as they are', needs, () => {
  let bed: Bed;
  const host = (command: string): Promise<string> => succeedIn(bed, 'host', ['sh', '-ec', command]);
  /** The host's routes and rules as in the drawing, with the default routes by veth0. */
  const restore = (): Promise<string> =>
    host(`ip link set veth0 up; ip link set veth1 up
      for f in -4 -6; do
        while ip $f rule del pref 100 2>/dev/null; do :; done
        ip $f route flush table 51820 2>/dev/null || :
        while ip $f route del default 2>/dev/null; do :; done
      done
      ip addr replace ${HOST4}/24 dev veth0; ip -6 addr replace ${HOST6}/64 dev veth0 nodad
      ip addr replace ${OTHER4}/24 dev veth1; ip -6 addr replace ${OTHER6}/64 dev veth1 nodad
      ip route add default via ${GATEWAY4}; ip -6 route add default via ${GATEWAY6}`);

  beforeAll(async () => {
    bed = await makeBed();
    const inPeer = bed.start('peer', ['sh', '-c', 'echo $$; exec sleep infinity']);
    const pid = await eventually(
      'a process in the peer',
      START_MS,
      () => /^\d+$/m.test(inPeer.printed().stdout) && inPeer.printed().stdout.trim(),
    );
    await host(`ip link add veth1 type veth peer name veth1 netns ${pid}`);
    await succeedIn(bed, 'peer', [
      ...['sh', '-ec'],
      `ip addr add 10.78.0.2/24 dev veth1; ip addr add ${OTHER_GATEWAY4}/24 dev veth1
      ip -6 addr add ${OTHER_GATEWAY6}/64 dev veth1 nodad; ip link set veth1 up
      ip addr add ${FAR4}/32 dev lo; ip -6 addr add ${FAR6}/128 dev lo nodad`,
    ]);
    bed.start('peer', [
      ...['socat', `UDP4-LISTEN:${WHO_PORT},bind=${FAR4},fork,reuseaddr`],
      `SYSTEM:while read -r l; do echo "$SOCAT_PEERADDR $l"; done`,
    ]);
  });
  beforeEach(restore);
  afterAll(() => bed?.close());

  interface Running extends Inside {
    stop(): Promise<unknown>;
  }
  const within = async (start: (pid: string) => Started): Promise<Running> => {
    const guest = await bed.emptyGuest();
    const started = start(String(bed.pidSeenInside(guest.pid)));
    await eventually(`an address inside: ${started.printed().stderr}`, START_MS, async () =>
      (await guest.inside(['ip', '-4', 'addr', 'show', 'scope', 'global', 'up'])).stdout.includes('inet '),
    );
    await eventually('the default route is inside, or the front end has none to give', 2000, async () =>
      (await guest.inside(['ip', 'route'])).stdout.includes('default'),
    ).catch(() => {});
    return {
      ...guest,
      async stop() {
        await guest.end();
        await started.exited;
      },
    };
  };
  const none = ['-t', 'none', '-u', 'none', '-T', 'none', '-U', 'none'];
  const frontEnds = [
    ...engine.plans.map((plan) => ({
      name: `run, ${plan}`,
      start: (): Promise<Running> => bed.engine({ plan }),
      dns: '169.254.1.1',
      six: true,
    })),
    {
      name: 'attach',
      start: () => within((pid) => bed.attach('user', {}, pid)),
      dns: '169.254.1.1',
      six: true,
    },
    {
      name: 'pasta',
      start: () =>
        within((pid) =>
          bed.start('user', [
            ...[`${repoRoot}/bin/pasta`, '--config-net', '-f', '-q', ...none],
            ...['--dns-forward', '169.254.1.1', pid],
          ]),
        ),
      dns: '169.254.1.1',
      six: true,
    },
    {
      name: 'slirp4netns',
      start: () =>
        within((pid) => bed.start('user', [`${repoRoot}/bin/slirp4netns`, '--configure', pid, 'tap0'])),
      dns: '10.0.2.3',
      six: false,
    },
  ] as const;

  const source = async (guest: Inside, address: string): Promise<string> =>
    (
      await guest.inside([
        ...['curl', '-sS', '--noproxy', '*', '--max-time', '3'],
        `http://${address.includes(':') ? `[${address}]` : address}:${PORT.http}/source`,
      ])
    ).stdout;
  /** A UDP flow that says every 200 ms by which address of the host it goes out. */
  const udpFlow = (guest: Inside): { last(): string; end(): void } => {
    const client = guest.startInside([
      ...['sh', '-c'],
      `while sleep 0.2; do echo x; done | socat - UDP4:${FAR4}:${WHO_PORT}`,
    ]);
    return {
      last: () => client.printed().stdout.trim().split('\n').at(-1) ?? '',
      end: () => killTree(client.pid),
    };
  };
  const defaultElsewhere = `for f in -4 -6; do ip $f route del default; ip $f rule add pref 100 table 51820; done
    ip route add default via ${OTHER_GATEWAY4} table 51820
    ip -6 route add default via ${OTHER_GATEWAY6} table 51820`;

  describe.each(frontEnds)('$name', ({ name, start, dns, six }) => {
    it('the default route is only in another table: the way of the host is the way out', async () => {
      await host(defaultElsewhere);
      const guest = await start();
      try {
        if (name !== 'slirp4netns') {
          expect(await succeed(guest, ['ip', 'route'])).toContain(`default via ${OTHER_GATEWAY4}`);
          expect(await succeed(guest, ['ip', '-6', 'route'])).toContain(`default via ${OTHER_GATEWAY6}`);
          expect(await succeed(guest, ['ip', 'addr'])).toContain(`inet ${OTHER4}/24`);
          expect(await succeed(guest, ['ip', 'addr'])).toContain(`inet6 ${OTHER6}/64`);
        }
        expect(await source(guest, FAR4)).toBe(OTHER4);
        if (six) expect(await source(guest, FAR6)).toBe(OTHER6);
      } finally {
        await guest.stop();
      }
    });

    it('a rule alone changes the way: new flows and a UDP flow that runs go the new one', async () => {
      await host(`ip route add default via ${OTHER_GATEWAY4} table 51820`);
      const guest = await start();
      const flow = udpFlow(guest);
      try {
        await eventually('the flow runs', FOLLOWED_MS, () => flow.last() === `${HOST4} x`);
        await host('ip rule add pref 100 table 51820');
        await eventually('the flow goes the new way', FOLLOWED_MS, () => flow.last() === `${OTHER4} x`);
        expect(await source(guest, FAR4)).toBe(OTHER4);
      } finally {
        flow.end();
        await guest.stop();
      }
    });

    it.each([
      {
        what: 'its route is deleted',
        down: 'ip route del default dev veth0; ip -6 route del default dev veth0',
      },
      { what: 'its link goes down', down: 'ip link set veth0 down' },
    ])('two uplinks, of the preferred one $what: flows go by the other', async ({ down }) => {
      await host(`ip route add default via ${OTHER_GATEWAY4} metric 500
        ip -6 route add default via ${OTHER_GATEWAY6} metric 2000`);
      const guest = await start();
      const flow = udpFlow(guest);
      try {
        expect(await source(guest, FAR4)).toBe(HOST4);
        // The set-up adds IPv6 after IPv4.
        if (six) await eventually('IPv6 inside', START_MS, async () => (await source(guest, FAR6)) === HOST6);
        await eventually('the flow runs', FOLLOWED_MS, () => flow.last() === `${HOST4} x`);
        await host(down);
        expect(await source(guest, FAR4)).toBe(OTHER4);
        if (six) expect(await source(guest, FAR6)).toBe(OTHER6);
        await eventually('the flow goes by the other', FOLLOWED_MS, () => flow.last() === `${OTHER4} x`);
      } finally {
        flow.end();
        await guest.stop();
      }
    });

    it('network and resolvers come later: both are followed', async () => {
      await host(`ip route del default; ip -6 route del default; ip link set veth1 down
        ip -4 addr flush dev veth1; ip -6 addr flush dev veth0 scope global; ip -4 addr flush dev veth0`);
      bed.write('/etc/resolv.conf', '');
      const guest = await start();
      try {
        expect(await source(guest, FAR4)).toBe('');
        bed.write('/etc/resolv.conf', `nameserver ${PEER4}\n`);
        await restore();
        await eventually('a connection', FOLLOWED_MS, async () => (await source(guest, FAR4)) === HOST4);
        if (six) await eventually('by IPv6', FOLLOWED_MS, async () => (await source(guest, FAR6)) === HOST6);
        await eventually('a name', FOLLOWED_MS, async () =>
          (
            await guest.inside(['dig', `@${dns}`, '+short', '+tries=1', '+time=1', 'peer.bed.test', 'A'])
          ).stdout.includes(PEER4),
        );
      } finally {
        bed.write('/etc/resolv.conf', `nameserver ${PEER4}\nsearch bed.test\n`);
        await guest.stop();
      }
    });
  });

  describe.each(frontEnds.filter((f) => f.six))('$name', ({ start }) => {
    /** Of the addresses of veth0, the kernel prefers the second one: the first is deprecated, the third local. */
    const KINDS = ['2001:db8:77::d/64', '2001:db8:77::5/64', 'fd88::5/64'];
    const change = (verb: string): Promise<string> =>
      host(
        KINDS.map((a, i) => {
          const more = verb === 'add' ? `nodad${i === 0 ? ' preferred_lft 0' : ''}` : '';
          return `ip -6 addr ${verb} ${a} dev veth0 ${more}`;
        }).join('\n'),
      );

    it('IPv6 addresses of several kinds: sockets have the one that the kernel gives the host itself', async () => {
      await succeedIn(bed, 'peer', ['ip', '-6', 'route', 'replace', '2001:db8:77::/64', 'dev', 'veth0']);
      await change('add');
      const guest = await start();
      try {
        await eventually('IPv6 inside', START_MS, async () => (await source(guest, FAR6)) !== '');
        const own = await succeedIn(bed, 'host', [
          ...['curl', '-sS', '--noproxy', '*', `http://[${FAR6}]:${PORT.http}/source`],
        ]);
        expect(own).toBe('2001:db8:77::5');
        expect(await source(guest, FAR6)).toBe(own);
        expect(await succeed(guest, ['ip', '-6', 'addr'])).toContain('inet6 2001:db8:77::5/64');
      } finally {
        await guest.stop();
        await change('del');
      }
    });
  });

  it('pasta, default route only in another table, which comes later: the namespace gets one', async () => {
    await host('ip route del default; ip -6 route del default');
    const guest = await frontEnds.find((f) => f.name === 'pasta')!.start();
    try {
      expect(await succeed(guest, ['ip', 'route'])).not.toContain('default');
      await host(defaultElsewhere.replace(/ip \$f route del default; /, ''));
      await eventually('default routes of both families', FOLLOWED_MS, async () =>
        /default(.|\n)*default/.test(
          `${await succeed(guest, ['ip', 'route'])}${await succeed(guest, ['ip', '-6', 'route'])}`,
        ),
      );
      expect(await source(guest, FAR4)).toBe(OTHER4);
      expect(await source(guest, FAR6)).toBe(OTHER6);
    } finally {
      await guest.stop();
    }
  });
});
