// @vitest: beside
/**
 * Several MACs behind the TAP: the guest has put it into a bridge.
 *
 *   the guest      br0 10.77.0.1 ─┬─ tap0 ── the engine
 *                                 ├─ veth ── eth0 10.77.0.101, fd77::101   "a"
 *                                 └─ veth ── eth0 10.77.0.102, fd77::102   "b"
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, type Guest, makeBed, succeed, succeedIn } from '../support/bed.ts';
import { engine } from '../support/engines.ts';
import { GATEWAY4, GATEWAY6, HOST4, HOST6, PEER4, PEER6 } from '../support/ports.ts';
import { eventually, killTree } from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';

const FAR4 = '198.18.0.1';
const FAR6 = '2001:db8:18::1';
/** The peer's server answers a line a second later. */
const LATE_PORT = 7778;
const PUBLISHED = 8088;

const BRIDGE = `
  ip addr flush dev tap0; ip -6 addr flush dev tap0 scope global
  ip link add br0 type bridge; ip link set br0 address 02:00:00:00:77:01
  ip link set tap0 master br0; ip link set br0 up
  ip addr add ${HOST4}/24 dev br0; ip -6 addr add ${HOST6}/64 dev br0 nodad
  ip route replace default via ${GATEWAY4}; ip -6 route replace default via ${GATEWAY6} dev br0
  for n in 1 2; do
    unshare --net sleep infinity & p=$!
    while [ "$(readlink /proc/$p/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
    ip link add port$n type veth peer name eth0 netns $p
    ip link set port$n master br0 up
    nsenter --net=/proc/$p/ns/net sh -ec "
      ip link set lo up; ip addr add 10.77.0.10$n/24 dev eth0; ip -6 addr add fd77::10$n/64 dev eth0 nodad
      ip link set eth0 up; ip route add default via ${GATEWAY4}; ip -6 route add default via ${GATEWAY6}"
    echo $p
  done
  echo set`;

const needs = [
  requireTool('socat', 'apt package socat'),
  requireTool('bridge', 'apt package iproute2'),
  requireTool('curl', 'apt package curl'),
];

describeE2e('a bridge inside', needs, () => {
  let bed: Bed;
  beforeAll(async () => {
    bed = await makeBed();
    await succeedIn(bed, 'peer', [
      ...['sh', '-ec'],
      `ip addr add ${FAR4}/32 dev lo; ip -6 addr add ${FAR6}/128 dev lo nodad`,
    ]);
    bed.start('peer', [
      ...['socat', '-t', '4', `TCP6-LISTEN:${LATE_PORT},ipv6only=0,fork,reuseaddr`],
      'SYSTEM:read -r l; sleep 1; echo "late $l"',
    ]);
  });
  afterAll(() => bed?.close());

  describe.each(engine.plans)('%s', (plan) => {
    let guest: Guest;
    let members: string[];
    const member = (n: number, argv: readonly string[]): string[] => [
      ...['nsenter', `--net=/proc/${members[n]}/ns/net`, '--'],
      ...argv,
    ];
    beforeAll(async () => {
      guest = await bed.engine({
        plan,
        publish: [`${PUBLISHED}:80`],
        extra: ['--interface-name', 'tap0'],
      });
      const setUp = guest.startInside(['sh', '-ec', BRIDGE]);
      await eventually(`the bridge is set up: ${setUp.printed().stderr}`, 10_000, () =>
        setUp.printed().stdout.endsWith('set\n'),
      );
      members = setUp.printed().stdout.trim().split('\n');
    });
    afterAll(() => guest?.stop());

    it('one member waits while the other one sends: each gets its own answer', async () => {
      const chatter = guest.startInside(
        member(1, ['sh', '-c', `while curl -s http://${PEER4}:8000/source; do sleep 0.01; done`]),
      );
      try {
        await eventually('the other one sends', 5000, () => chatter.printed().stdout.length > 50);
        const ask = (address: string): Promise<string> =>
          succeed(guest, member(0, ['sh', '-c', `echo x | socat -t 4 - TCP:${address}:${LATE_PORT}`]));
        const answers = await Promise.all([PEER4, FAR4, `[${PEER6}]`, `[${FAR6}]`].map(ask));
        expect(answers).toEqual(Array(4).fill('late x\n'));
      } finally {
        killTree(chatter.pid);
      }
    });

    it('members reach one another: the engine does not answer for them', async () => {
      for (const address of ['10.77.0.102', 'fd77::102', HOST4])
        await succeed(guest, member(0, ['ping', '-c', '2', '-i', '0.2', '-W', '2', address]));
    });

    it("a member claims the gateway's address: the gateway goes on answering", async () => {
      await succeed(
        guest,
        member(1, [
          ...['sh', '-c'],
          `ip addr add ${GATEWAY4}/32 dev eth0; ping -c1 -W1 -I ${GATEWAY4} 10.77.0.77; ip addr del ${GATEWAY4}/32 dev eth0`,
        ]),
      );
      await succeed(guest, member(0, ['ip', 'neigh', 'flush', 'dev', 'eth0']));
      await succeed(guest, member(0, ['curl', '-sS', '-m', '5', `http://${PEER4}:8000/source`]));
    });

    it('a published port leads to the bridge, whoever spoke last', async () => {
      const server = guest.startInside(['socat', 'TCP-LISTEN:80,fork,reuseaddr', 'SYSTEM:echo hello']);
      try {
        await succeed(guest, member(1, ['curl', '-sS', `http://${PEER4}:8000/source`]));
        const fetch = await bed.run('peer', ['socat', '-u', `TCP:${HOST4}:${PUBLISHED}`, '-']);
        expect(fetch.stdout).toBe('hello\n');
      } finally {
        killTree(server.pid);
      }
    });
  });
});
