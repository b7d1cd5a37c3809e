/**
 * Default routes in a namespace with a network of its own, and IPv6 inside when no interface of the host has
 * IPv6.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, type EmptyGuest, makeBed, succeed, succeedIn } from '../support/bed.ts';
import { repoRoot } from '../support/engines.ts';
import { eventually, isAlive, type Started } from '../support/process.ts';
import { describeE2e } from '../support/require.ts';

const WAIT_MS = 10_000;

/** A network with both families through a veth pair of the namespace. */
const OWN_NETWORK = `ip link set lo up
ip link add d0 type veth peer name d1; ip link set d0 up; ip link set d1 up
ip addr add 172.20.0.1/24 dev d0; ip route add default via 172.20.0.2
ip -6 addr add fd20::1/64 dev d0 nodad; ip -6 route add default via fd20::2`;
const OWN4 = /^default via 172\.20\.0\.2 dev d0/m;
const OWN6 = /^default via fd20::2 dev d0/m;

describeE2e('a namespace with default routes of its own', [], () => {
  let bed: Bed;
  let guest: EmptyGuest;
  beforeAll(async () => {
    bed = await makeBed();
  });
  afterAll(() => bed?.close());

  const routes = (family: '-4' | '-6'): Promise<string> =>
    succeed(guest, ['ip', family, 'route', 'show', 'default']);
  const pid = (): string => String(bed.pidSeenInside(guest.pid));
  /** The program may run in the process that was nsenter. */
  const end = async (started: Started): Promise<void> => {
    const main = [...bed.enginePids(started), ...bed.enginePids(started, 'slirp4netns')].find(isAlive);
    process.kill(main ?? started.pid, 'SIGTERM');
    await started.exited;
  };

  describe.each([
    { name: 'attach', start: () => bed.attach('user', {}, pid()), six: true },
    {
      name: 'slirp4netns --configure',
      start: () => bed.start('user', [`${repoRoot}/bin/slirp4netns`, '-c', pid(), 'tap0']),
      six: false,
    },
  ])('$name', ({ start, six }) => {
    it('attached: our default route has precedence; ended: the old routes are as before', async () => {
      guest = await bed.emptyGuest();
      await succeed(guest, ['sh', '-c', OWN_NETWORK]);
      const before = `${await routes('-4')}${await routes('-6')}`;
      const started = start();
      await eventually('a second default route', WAIT_MS, async () =>
        /^default .*\n.*default /s.test(await routes('-4')),
      );
      expect(await routes('-4')).toMatch(/^default via (?!172)\S+ dev \S+/);
      expect(await routes('-4')).toMatch(OWN4);
      if (six) {
        await eventually('a second IPv6 default route', WAIT_MS, async () =>
          /default .*\n.*default /s.test(await routes('-6')),
        );
        // Two routes, not one with two next hops: the kernel would spread connections over both.
        expect(await routes('-6')).toMatch(OWN6);
        expect(await succeed(guest, ['ip', '-6', 'route', 'get', '2001:db8::1'])).not.toContain('fd20::2');
      }
      await end(started);
      await eventually(
        'the routes are as before',
        WAIT_MS,
        async () => `${await routes('-4')}${await routes('-6')}` === before,
      );
      await guest.end();
    });
  });
});

describeE2e('a host without IPv6 on any interface', [], () => {
  let bed: Bed;
  beforeAll(async () => {
    bed = await makeBed();
    await succeedIn(bed, 'host', ['sh', '-c', 'echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6']);
    expect(await succeedIn(bed, 'host', ['cat', '/proc/net/if_inet6'])).toBe('');
  });
  afterAll(() => bed?.close());

  const show = ['ip', '-o', '-6', 'addr', 'show', 'scope', 'global'];
  it('run: IPv4 only, without a message', async () => {
    const started = bed.launch({}, show);
    expect(await started.exited).toBe(0);
    expect((await started.output()).stdout).toBe('');
  });
  it('run --address with an IPv6 address: the guest has it', async () => {
    const started = bed.launch({ extra: ['--address', 'fd01::5'] }, show);
    expect(await started.exited).toBe(0);
    expect((await started.output()).stdout).toContain('inet6 fd01::5/64');
  });
  it("pasta -a with an IPv6 address: the guest has it, without a message, as with passt's pasta", async () => {
    const options = ['--config-net', '-q', '-t', 'none', '-u', 'none', '-a', 'fd01::5'];
    const finished = await bed.run('user', [`${repoRoot}/bin/pasta`, ...options, '--', ...show]);
    expect(finished).toMatchObject({ status: 0, stderr: '' });
    expect(finished.stdout).toContain('inet6 fd01::5/64');
  });
});
