/**
 * The host's network changes, or the engine is stopped for a time, while it runs. Each test restores the
 * bed's network.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, type Guest, makeBed, succeed, succeedIn } from '../support/bed.ts';
import { repoRoot } from '../support/engines.ts';
import { GATEWAY4, GATEWAY6, HOST4, PEER4, PORT } from '../support/ports.ts';
import { eventually, type Started, sleeps, wakesBetween } from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';

const OTHER4 = '10.77.0.9';
const FOLLOWED_MS = 5000;
/** Time for a packet thread to wake and to wake the main thread, on a loaded machine. */
const TOLD_MS = 500;
/** After this time without changes, the next one is reported at once. */
const QUIET_MS = 2200;
/**
 * For 120 changes in three seconds: about six updates, each of which wakes all threads. One update per change
 * would be hundreds of wake-ups.
 */
const BURST_WAKES = 100;
/** Those that wait for packets and messages; a runtime's compiler and collector have threads of their own. */
const OWN_THREADS = /^(bucatini|packet thread)/;
const STOPPED_MS = 2500;

/** Sends each line of its input by one socket, and prints what comes back. */
const LINES = (proto: 'tcp' | 'udp'): string[] => [
  ...['bash', '-c'],
  `exec 3<>/dev/${proto}/${PEER4}/${PORT.echo}; while read -r l; do echo "$l" >&3; a=$(timeout 1 dd bs=2000 count=1 <&3 2>/dev/null); echo "got $a"; done`,
];

describeE2e('live changes of the host', [requireTool('curl', 'apt package curl')], () => {
  let bed: Bed;
  const host = (command: string): Promise<string> => succeedIn(bed, 'host', ['sh', '-ec', command]);
  const say = (client: Started, line: string): Promise<unknown> => {
    client.process.stdin!.write(`${line}\n`);
    return eventually(`"${line}" comes back`, 2000, () => client.printed().stdout.includes(`got ${line}\n`));
  };
  beforeAll(async () => {
    bed = await makeBed();
  });
  afterAll(() => bed?.close());

  describe.each(['fused', 'pipeline=1'])('%s', (plan) => {
    let guest: Guest;
    beforeAll(async () => {
      guest = await bed.engine({ plan });
    });
    afterAll(() => guest?.stop());

    it('the host changes its address: a UDP flow goes on from the new one, new connections use it', async () => {
      const client = guest.startInside(LINES('udp'));
      await say(client, 'before');
      await host(`ip addr add ${OTHER4}/24 dev veth0; ip addr del ${HOST4}/24 dev veth0
        ip addr show dev veth0 | grep -q ${OTHER4} || ip addr add ${OTHER4}/24 dev veth0
        ip route replace default via ${GATEWAY4}`);
      try {
        // A datagram that is sent before the change is noticed is lost, as UDP may be.
        let n = 0;
        await eventually('the flow goes on', FOLLOWED_MS, async () => {
          client.process.stdin!.write(`after ${++n}\n`);
          await sleep(300);
          return client.printed().stdout.includes('got after ');
        });
        const source = await succeed(guest, ['curl', '-sS', `http://${PEER4}:${PORT.http}/source`]);
        expect(source).toBe(OTHER4);
      } finally {
        await host(`ip addr add ${HOST4}/24 dev veth0; ip addr del ${OTHER4}/24 dev veth0
          ip addr show dev veth0 | grep -q ${HOST4} || ip addr add ${HOST4}/24 dev veth0
          ip route replace default via ${GATEWAY4}`);
        client.process.stdin!.end();
      }
    });

    it('the engine is stopped and continued, as by a suspended machine: connections and flows go on', async () => {
      const clients = [guest.startInside(LINES('tcp')), guest.startInside(LINES('udp'))];
      for (const client of clients) await say(client, 'before');
      process.kill(guest.enginePid, 'SIGSTOP');
      await sleep(STOPPED_MS);
      process.kill(guest.enginePid, 'SIGCONT');
      for (const client of clients) {
        await say(client, 'after');
        client.process.stdin!.end();
      }
    });
  });

  // The front end watches, in each plan.
  describe.each(['fused'])('%s, bound to an interface', (plan) => {
    const INTERFACE = 'bound0';
    let guest: Guest;
    const add = (): Promise<string> => host(`ip link add ${INTERFACE} type veth peer name bound1`);
    const remove = (): Promise<string> => host(`ip link del ${INTERFACE}`);
    const told = (): number => guest.started.printed().stderr.split(`${INTERFACE} is gone`).length - 1;
    beforeAll(async () => {
      await add();
      guest = await bed.engine({ plan, extra: ['--outbound-interface', INTERFACE] });
    });
    afterAll(async () => {
      await guest?.stop();
      await host(`ip link del ${INTERFACE} 2>/dev/null || :`);
    });

    it('the interface is removed: the engine notices within half a second', { timeout: 30_000 }, async () => {
      const took: number[] = [];
      for (let round = 1; round <= 3; round++) {
        await sleep(QUIET_MS);
        const at = performance.now();
        await remove();
        await eventually('the engine reports the removal', FOLLOWED_MS, () => told() === round);
        took.push(Math.round(performance.now() - at));
        await add();
      }
      console.log(
        `${plan}: a change of the host was told ${took.join(', ')} ms after the command that made it began`,
      );
      expect(took.toSorted((a, b) => a - b)[1], `ms: ${took}`).toBeLessThan(TOLD_MS);
    });

    it('120 route changes, then the removal: few wake-ups, and the removal is noticed', {
      timeout: 30_000,
    }, async () => {
      await sleep(QUIET_MS);
      const [before, gone] = [sleeps([guest.enginePid], OWN_THREADS), told()];
      await host(`for i in $(seq 60); do
        ip route add 198.51.100.0/24 dev veth0; sleep 0.02; ip route del 198.51.100.0/24 dev veth0; sleep 0.02
      done`);
      const wakes = wakesBetween(before, sleeps([guest.enginePid], OWN_THREADS));
      await remove();
      await eventually('the engine reports the removal', FOLLOWED_MS, () => told() === gone + 1);
      console.log(`${plan}: 120 changes of the host cost ${wakes} wakes`);
      expect(wakes).toBeLessThan(BURST_WAKES);
    });
  });

  it('pasta --config-net, host without default route: the host gets one: the namespace gets one', async () => {
    const netns = `${bed.ramDir}/late`;
    await host(`ip route del default; ip -6 route del default; : >${netns}; unshare --net=${netns} true`);
    const inside = (...argv: string[]): Promise<string> =>
      succeedIn(bed, 'host', ['nsenter', `--net=${netns}`, '--', ...argv]);
    try {
      await succeedIn(bed, 'host', [
        ...[`${repoRoot}/bin/pasta`, '--config-net', '-q', '-t', 'none', '-u', 'none'],
        ...['-T', 'none', '-U', 'none', '--netns', netns],
      ]);
      expect(await inside('ip', 'route')).not.toContain('default');
    } finally {
      await host(`ip route add default via ${GATEWAY4}; ip -6 route add default via ${GATEWAY6}`);
    }
    await eventually('default routes of both families', FOLLOWED_MS, async () => {
      const routes = `${await inside('ip', 'route')}${await inside('ip', '-6', 'route')}`;
      return routes.includes(`default via ${GATEWAY4}`) && routes.includes(`default via ${GATEWAY6}`);
    });
    const url = `http://${PEER4}:${PORT.http}/source`;
    expect(await inside('curl', '-sS', url)).toBe(HOST4);
    await host(`umount ${netns}; rm ${netns}`);
  });
});
