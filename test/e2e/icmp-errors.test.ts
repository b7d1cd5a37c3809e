// @vitest: beside
/**
 * ICMP errors of routers reach the guest: time exceeded for each hop, and the MTU of the host and of the link
 * after it. In the other direction: packet too big from a router inside about a link behind it.
 *
 *     inner -- MTU 1280 -- guest -- engine -- host 10.77.0.1 -- router (the bed's peer) -- MTU 1400 -- far 198.51.100.2
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, type Guest, makeBed, succeed, succeedIn } from '../support/bed.ts';
import { engine } from '../support/engines.ts';
import { GATEWAY4, GATEWAY6, PEER4, PEER6, PORT } from '../support/ports.ts';
import { eventually } from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';

const FAR_MTU = 1400;
const FAR4 = '198.51.100.2';
const FAR6 = 'fd78::2';

/**
 * The kernel sends a burst of six errors to a host, then one per second (icmp_ratelimit): a fast machine
 * needs more.
 */
const TELL_ALL = 'echo 0 >/proc/sys/net/ipv4/icmp_ratelimit; echo 0 >/proc/sys/net/ipv6/icmp/ratelimit';

/**
 * Adds the far network to the bed; prints "far PID" of the process that keeps it, and stays until that ends.
 */
const FAR_UP = `
unshare --net sleep infinity &
far=$!
while [ "$(readlink /proc/$far/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.005; done
set -e
for f in accept_dad dad_transmits; do echo 0 >/proc/sys/net/ipv6/conf/default/$f; done
ip link add far0 mtu ${FAR_MTU} type veth peer name far0 netns $far mtu ${FAR_MTU}
ip addr add 198.51.100.1/24 dev far0
ip addr add fd78::1/64 dev far0 nodad
ip link set far0 up
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
${TELL_ALL}
nsenter --net=/proc/$far/ns/net sh -c '${TELL_ALL}'
nsenter --net=/proc/$far/ns/net ip -batch - <<END
link set lo up
addr add ${FAR4}/24 dev far0
addr add ${FAR6}/64 dev far0 nodad
link set far0 up
route add default via 198.51.100.1
route add default via fd78::1
END
echo "far $far"
wait $far
`;

/**
 * Adds a network behind the guest. Its link has the small MTU on the guest's side only, so that the MSS does
 * not show it. Prints "inner PID" of the process that keeps it, and stays.
 */
const INNER_UP = `
unshare --net sleep infinity &
inner=$!
trap 'kill $inner' EXIT TERM
while [ "$(readlink /proc/$inner/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.005; done
set -e
ip link add in0 mtu 1280 type veth peer name in0 netns $inner mtu 1500
ip addr add 192.0.2.1/24 dev in0
ip link set in0 up
echo 1 >/proc/sys/net/ipv4/ip_forward
nsenter --net=/proc/$inner/ns/net ip -batch - <<END
addr add 192.0.2.2/24 dev in0
link set in0 up
route add default via 192.0.2.1
END
echo "inner $inner"
wait $inner
`;

/**
 * A datagram that must not be fragmented and is too long for the host; then, when the MTU is known, one that
 * may be, and its echo.
 */
const TOO_LONG = `
import errno, select, socket, sys
far, port, ttl = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
v6 = ':' in far
level, discover, mtu, hops = (41, 23, 24, 16) if v6 else (0, 10, 14, 2)
s = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(2)
s.connect((far, port))
s.setsockopt(level, hops, ttl)
s.setsockopt(level, discover, 2)  # IP_PMTUDISC_DO
s.send(bytes(5000))
select.select([s], [], [], 2)
try:
    print('came back:', len(s.recv(65535)))
except OSError as e:
    print(errno.errorcode.get(e.errno, 'timeout'), s.getsockopt(level, mtu))
s.setsockopt(level, discover, 1 if v6 else 0)  # IP_PMTUDISC_WANT, _DONT
s.send(bytes(6000))
print('came back:', len(s.recv(65535)))
`;

/** Flush the path MTUs that a kernel has learnt, so that the next test gets the error again. */
async function forget(run: (argv: readonly string[]) => Promise<unknown>): Promise<void> {
  for (const flag of ['-4', '-6']) await run(['ip', flag, 'route', 'flush', 'cache']);
}

const FAMILIES = [
  { name: 'IPv4', flag: '-4', peer: PEER4, far: FAR4, router: [PEER4, GATEWAY4], traceroute: 'traceroute' },
  { name: 'IPv6', flag: '-6', peer: PEER6, far: FAR6, router: [PEER6, GATEWAY6], traceroute: 'traceroute6' },
] as const;

describeE2e(
  'ICMP errors of routers',
  [
    requireTool('ping', 'apt package iputils-ping'),
    requireTool('busybox', 'apt package busybox'),
    requireTool('tracepath', 'apt package iputils-tracepath'),
    requireTool('traceroute', 'apt package traceroute'),
    requireTool('python3', 'apt package python3-minimal'),
  ],
  () => {
    let bed: Bed;
    beforeAll(async () => {
      bed = await makeBed();
      const far = bed.start('peer', ['sh', '-c', FAR_UP]);
      await eventually('the far network is there', 5000, () => far.printed().stdout.includes('far '));
      await succeedIn(bed, 'host', ['ping', '-c1', '-W2', FAR4]);
    });
    afterAll(() => bed?.close());

    describe.each(engine.plans)('%s', (plan) => {
      let guest: Guest;
      beforeAll(async () => {
        await forget((argv) => bed.run('host', argv));
        guest = await bed.engine({ plan, mtu: 1500 });
      });
      afterAll(() => guest?.stop());

      describe.each(FAMILIES)('$name', ({ flag, far, router, traceroute }) => {
        it('ping, hop limit 1: the router answers time exceeded', async () => {
          const { stdout } = await guest.inside(['ping', flag, '-n', '-c1', '-W2', '-t1', far]);
          const from = /^From (\S+) icmp_seq=1 Time (?:to live )?exceeded/m.exec(stdout)?.[1];
          expect(router, stdout).toContain(from);
        });

        it('traceroute by UDP: lists the router, then the destination', async () => {
          const out = await succeed(guest, ['busybox', traceroute, '-n', '-q1', '-w2', '-m4', far]);
          const hops = [...out.matchAll(/^ *\d+ {2}(\S+)/gm)].map((m) => m[1]);
          expect(router, out).toContain(hops[0]);
          expect(hops.slice(1), out).toEqual([far]);
        });

        it("a datagram longer than the far link's MTU: the guest kernel learns that MTU", async () => {
          const route = (): Promise<string> => succeed(guest, ['ip', 'route', 'get', far]);
          expect(await route()).not.toContain(' mtu ');
          const bytes = 1500 - (flag === '-4' ? 28 : 48);
          // The kernel ignores an error for a closed socket.
          const hold = `exec 3>/dev/udp/${far}/9; head -c ${bytes} /dev/zero >&3; sleep 0.5`;
          await guest.inside(['bash', '-c', hold]);
          expect(await route()).toContain(` mtu ${FAR_MTU} `);
        });

        it("ping with DF, longer than the far link's MTU: the error carries that MTU", async () => {
          await forget((argv) => bed.run('host', argv));
          await forget((argv) => guest.inside(argv));
          const size = String(1500 - (flag === '-4' ? 28 : 48));
          const { stdout, stderr } = await guest.inside([
            ...['ping', flag, '-n', '-c1', '-W2', '-Mdo', '-s', size, far],
          ]);
          expect(stdout + stderr).toMatch(new RegExp(`mtu ?[=:] ?${FAR_MTU}`));
        });

        it.each(['-U', '-I'])('traceroute %s: lists the router, then the destination', async (method) => {
          const probe = ['-n', '-q1', '-w2', '-m4', method];
          const out = await succeed(guest, ['traceroute', flag, ...probe, far]);
          const hops = [...out.matchAll(/^ *\d+ {2}(\S+)/gm)].map((m) => m[1]);
          expect(router, out).toContain(hops[0]);
          expect(hops.slice(1), out).toEqual([far]);
        });
      });

      it('a router inside with a smaller MTU: a download arrives', async () => {
        const keeper = guest.startInside(['sh', '-c', INNER_UP]);
        try {
          await eventually('the inner network is there', 5000, () =>
            keeper.printed().stdout.includes('inner '),
          );
          const pid = /inner (\d+)/.exec(keeper.printed().stdout)![1];
          const url = `http://${PEER4}:${PORT.http}/bytes/300000`;
          const got = await guest.inside([
            ...['nsenter', `--net=/proc/${pid}/ns/net`, 'curl', '-sS', '-m5', '-o', '/dev/null'],
            ...['-w', '%{size_download}', url],
          ]);
          expect(got.stdout, got.stderr).toBe('300000');
        } finally {
          keeper.process.kill();
        }
      });
    });

    describe.each(engine.plans)('%s, MTU 65520 inside', (plan) => {
      let guest: Guest;
      beforeAll(async () => {
        await forget((argv) => bed.run('host', argv));
        guest = await bed.engine({ plan, mtu: 65_520 });
      });
      afterAll(() => guest?.stop());

      describe.each(FAMILIES)('$name', ({ flag, far, peer }) => {
        it.each([
          ['a probe that counts hops is refused with the MTU of the host', 9, 'EMSGSIZE 1500'],
          ['what is no probe goes out in fragments', 64, 'came back: 5000'],
        ])('DF set, longer than the MTU of the host: %s', async (_, ttl, first) => {
          const argv = ['python3', '-c', TOO_LONG, peer, String(PORT.echo), String(ttl)];
          expect(await succeed(guest, argv)).toBe(`${first}\ncame back: 6000\n`);
          await forget((words) => guest.inside(words));
        });

        it('tracepath: reports the MTU of the host, that of the far link, then the destination', async () => {
          const out = await succeed(guest, ['tracepath', flag, '-n', '-m4', far]);
          expect(
            [...out.matchAll(/pmtu (\d+)/g)].map((m) => Number(m[1])),
            out,
          ).toEqual([...[65_520, 1500, FAR_MTU], FAR_MTU]);
          expect(out).toContain('reached');
        });
      });
    });
  },
);
