/**
 * Link-local neighbours of the host. Two links have a neighbour with the same address: "near" answers on the
 * outbound interface of the host, "other" on another one. Only the zone of `nameserver fe80::53%veth1`
 * distinguishes them.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, type Inside, makeBed, succeed, succeedIn, supportProgram } from '../support/bed.ts';
import { repoRoot } from '../support/engines.ts';
import { eventually, isAlive, type Started } from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';

const NEIGHBOUR = 'fe80::53';
const WAIT_MS = 10_000;
const PASTA = ['--config-net', '-q', '-t', 'none', '-u', 'none', '--dns-forward', '169.254.1.1'];

const needs = [
  requireTool('dig', 'apt package bind9-dnsutils'),
  requireTool('ping', 'apt package iputils-ping'),
];

describeE2e('link-local neighbours of the host', needs, () => {
  let bed: Bed;
  /** Create a second link between host and peer, with a new index each time. */
  const secondLink = async (): Promise<void> => {
    await succeedIn(bed, 'peer', [
      'ip',
      'link',
      'add',
      'veth1',
      'type',
      'veth',
      'peer',
      'veth1',
      'netns',
      '1',
    ]);
    for (const where of ['host', 'peer'] as const) {
      await succeedIn(bed, where, ['ip', 'link', 'set', 'veth1', 'up']);
    }
    await serve('other', 'veth1');
  };
  const serve = async (name: string, device: string): Promise<void> => {
    await succeedIn(bed, 'peer', ['ip', 'addr', 'add', `${NEIGHBOUR}/64`, 'dev', device, 'nodad']);
    const server = bed.start('peer', supportProgram('dns-server.ts', name, `${NEIGHBOUR}%${device}`));
    await eventually(`${name} listens`, WAIT_MS, () => server.printed().stdout.includes('ready'));
  };
  beforeAll(async () => {
    bed = await makeBed();
    await serve('near', 'veth0');
    await secondLink();
  });
  afterAll(() => bed?.close());

  const resolver = (device: string): void =>
    bed.write('/etc/resolv.conf', `nameserver ${NEIGHBOUR}%${device}\n`);
  /**
   * dig always reads resolv.conf, and fails if it contains an interface that does not exist inside.
   */
  const dig = (...args: string[]): string[] => [
    ...['unshare', '--mount', 'sh', '-c', 'mount --bind /dev/null /etc/resolv.conf && exec dig "$@"'],
    ...['dig', '+short', ...args, 'who.bed.test', 'TXT'],
  ];
  const who = (guest: Inside, ...args: string[]): Promise<string> =>
    succeed(guest, dig('+tries=3', '+time=2', ...args));
  /** The program may run in the process that was nsenter. */
  const end = async (started: Started): Promise<void> => {
    const main = ['bucatini', 'pasta', 'slirp4netns'].flatMap((name) => bed.enginePids(started, name));
    process.kill(main.find(isAlive) ?? started.pid, 'SIGTERM');
    await started.exited;
  };

  describe.each([
    {
      name: 'run',
      start: (): Promise<[Inside, () => Promise<unknown>]> =>
        bed.engine({}).then((guest) => [guest, () => guest.stop()]),
      neighbours: true,
      dns: '169.254.1.1',
    },
    {
      name: 'attach',
      start: () => beside((pid) => bed.attach('user', {}, pid)),
      neighbours: true,
      dns: '169.254.1.1',
    },
    {
      name: 'pasta',
      start: () => beside((pid) => bed.start('user', [`${repoRoot}/bin/pasta`, '-f', ...PASTA, pid])),
      neighbours: true,
      dns: '169.254.1.1',
    },
    {
      // slirp4netns reaches link-local resolvers, but no other link-local neighbours.
      name: 'slirp4netns',
      start: () => beside((pid) => bed.start('user', [`${repoRoot}/bin/slirp4netns`, '-c', pid, 'tap0'])),
      neighbours: false,
      dns: '10.0.2.3',
    },
  ])('$name', ({ start, neighbours, dns }) => {
    let guest: Inside;
    let stop: () => Promise<unknown>;
    beforeAll(async () => {
      resolver('veth1');
      [guest, stop] = await start();
    });
    afterAll(() => stop?.());

    it.each(['+notcp', '+tcp'])(
      'dig %s: a resolver with a zone is asked through that interface',
      async (transport) => {
        expect(await who(guest, transport, `@${dns}`)).toMatch(/^"other fe80::/);
      },
    );

    it('resolv.conf changes to another zone: the resolver behind that interface is asked', async () => {
      resolver('veth0');
      await eventually('near answers', WAIT_MS, async () =>
        (await who(guest, '+notcp', `@${dns}`)).startsWith('"near '),
      );
      expect(await who(guest, '+tcp', `@${dns}`)).toMatch(/^"near fe80::/);
      resolver('veth1');
      await eventually('other answers', WAIT_MS, async () =>
        (await who(guest, '+notcp', `@${dns}`)).startsWith('"other '),
      );
    });

    it('the interface is replaced under another index: its resolver is asked again', async () => {
      await succeedIn(bed, 'host', ['ip', 'link', 'del', 'veth1']);
      await secondLink();
      const ask = dig('+tries=1', '+time=1', '+notcp', `@${dns}`);
      await eventually('other answers', WAIT_MS, async () =>
        (await guest.inside(ask)).stdout.startsWith('"other '),
      );
    });

    if (!neighbours) return;
    it.each(['+notcp', '+tcp'])(
      'dig %s: a link-local neighbour on the outbound interface answers',
      async (transport) => {
        expect(await who(guest, transport, `@${NEIGHBOUR}%veth0`)).toMatch(/^"near fe80::/);
      },
    );

    it('ping: a link-local neighbour on the outbound interface answers', async () => {
      expect(await succeed(guest, ['ping', '-6', '-c1', '-W3', `${NEIGHBOUR}%veth0`])).toContain(
        ' 1 received',
      );
    });
  });

  /** A namespace of its own, served by what `serve` starts. */
  const beside = async (serve: (pid: string) => Started): Promise<[Inside, () => Promise<unknown>]> => {
    const guest = await bed.emptyGuest();
    const started = serve(String(bed.pidSeenInside(guest.pid)));
    await eventually('a default route', WAIT_MS, async () =>
      (await succeed(guest, ['ip', 'route'])).includes('default'),
    );
    const stop = async (): Promise<void> => {
      await end(started);
      await guest.end();
    };
    return [guest, stop];
  };
});
