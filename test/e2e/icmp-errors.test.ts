/**
 * What routers say about the guest's packets reaches the guest: hops one after the other, and the MTU of a link behind the first.
 *
 *     guest -- engine -- host 10.77.0.1 -- router (the bed's peer) -- MTU 1400 -- far 198.51.100.2
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, type Guest, makeBed, succeed, succeedIn } from '../support/bed.ts';
import { engine } from '../support/engines.ts';
import { GATEWAY4, GATEWAY6, PEER4, PEER6 } from '../support/ports.ts';
import { eventually } from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';

const FAR_MTU = 1400;
const FAR4 = '198.51.100.2';
const FAR6 = 'fd78::2';

/** Adds the far network to the bed; prints "far PID" of the process that keeps it, and stays until that ends. */
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

/** Drop what a kernel has learnt of MTUs: it would not let the same happen again. */
async function forget(run: (argv: readonly string[]) => Promise<unknown>): Promise<void> {
  for (const flag of ['-4', '-6']) await run(['ip', flag, 'route', 'flush', 'cache']);
}

const FAMILIES = [
  { name: 'IPv4', flag: '-4', far: FAR4, router: [PEER4, GATEWAY4], traceroute: 'traceroute' },
  { name: 'IPv6', flag: '-6', far: FAR6, router: [PEER6, GATEWAY6], traceroute: 'traceroute6' },
] as const;

describeE2e(
  'errors of routers',
  [requireTool('ping', 'apt package iputils-ping'), requireTool('busybox', 'apt package busybox')],
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
        it('ping with a hop limit of 1: the router says that it is exceeded', async () => {
          const { stdout } = await guest.inside(['ping', flag, '-n', '-c1', '-W2', '-t1', far]);
          const from = /^From (\S+) icmp_seq=1 Time (?:to live )?exceeded/m.exec(stdout)?.[1];
          expect(router, stdout).toContain(from);
        });

        it('traceroute by UDP: the router, then the end', async () => {
          const out = await succeed(guest, ['busybox', traceroute, '-n', '-q1', '-w2', '-m4', far]);
          const hops = [...out.matchAll(/^ *\d+ {2}(\S+)/gm)].map((m) => m[1]);
          expect(router, out).toContain(hops[0]);
          expect(hops.slice(1), out).toEqual([far]);
        });

        it("a datagram too long for the far link: the guest's kernel learns its MTU", async () => {
          const route = (): Promise<string> => succeed(guest, ['ip', 'route', 'get', far]);
          expect(await route()).not.toContain(' mtu ');
          const bytes = 1500 - (flag === '-4' ? 28 : 48);
          // An error for a socket that is gone would teach nothing.
          const hold = `exec 3>/dev/udp/${far}/9; head -c ${bytes} /dev/zero >&3; sleep 0.5`;
          await guest.inside(['bash', '-c', hold]);
          expect(await route()).toContain(` mtu ${FAR_MTU} `);
        });

        it('ping that must not be fragmented: told the MTU', async () => {
          await forget((argv) => bed.run('host', argv));
          await forget((argv) => guest.inside(argv));
          const size = String(1500 - (flag === '-4' ? 28 : 48));
          const { stdout, stderr } = await guest.inside([
            ...['ping', flag, '-n', '-c1', '-W2', '-Mdo', '-s', size, far],
          ]);
          expect(stdout + stderr).toMatch(new RegExp(`mtu ?[=:] ?${FAR_MTU}`));
        });
      });
    });
  },
);
