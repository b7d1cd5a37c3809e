/**
 * Datagrams that the guest sends from a published UDP port leave from the published host port, for any number
 * of peers.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, type EmptyGuest, type Guest, makeBed, succeedIn, supportProgram } from '../support/bed.ts';
import { engine, repoRoot } from '../support/engines.ts';
import { FAMILIES } from '../support/ports.ts';
import { eventually, openFiles, type Started } from '../support/process.ts';
import { describeE2e } from '../support/require.ts';

const FIRST = 20_000;
const PEERS = 2000;
/** More peers than may have a socket of their own. */
const SOME = 50;
const PUBLISHED = { host: 8053, guest: 53 };
const SPARE_DESCRIPTORS = 100;
const START_MS = 10_000;

describeE2e('the guest sends from a published UDP port', [], () => {
  let bed: Bed;
  beforeAll(async () => {
    bed = await makeBed();
    const mirror = bed.start('peer', supportProgram('clients/udp-hub.ts', 'mirror', FIRST, PEERS));
    await eventually('the peers listen', START_MS, () => mirror.printed().stdout.includes('ready'));
  });
  afterAll(() => bed?.close());

  const ask = (address: string, count: number): string[] =>
    supportProgram('clients/udp-hub.ts', 'ask', PUBLISHED.guest, address, FIRST, count);
  const all = (count: number): object => ({ answered: count, seen: [PUBLISHED.host] });

  describe.each(engine.plans)('%s', (plan) => {
    let guest: Guest;
    beforeAll(async () => {
      guest = await bed.engine({ plan, publish: [`${PUBLISHED.host}:${PUBLISHED.guest}/udp`] });
    });
    afterAll(() => guest?.stop());

    it.each(FAMILIES)(
      `${PEERS} peers, $name: each sees the published port, all answers arrive, few descriptors are used`,
      async (family) => {
        const descriptors = (): number =>
          guest.enginePids().reduce((sum, pid) => sum + openFiles(pid).length, 0);
        const before = descriptors();
        const { stdout, stderr } = await guest.inside(ask(family.peer, PEERS));
        expect(stderr).toBe('');
        expect(JSON.parse(stdout)).toEqual(all(PEERS));
        expect(descriptors()).toBeLessThan(before + SPARE_DESCRIPTORS);
      },
    );
  });

  it.each(FAMILIES)('pasta -u, $name: each peer sees the published port', async (family) => {
    const { guest, host } = PUBLISHED;
    const options = ['--config-net', '-q', '-t', 'none', '-u', `${host}:${guest}`];
    const { stdout, stderr } = await bed.run('user', [
      `${repoRoot}/bin/pasta`,
      ...options,
      '--',
      ...ask(family.peer, SOME),
    ]);
    expect(stderr).toBe('');
    expect(JSON.parse(stdout)).toEqual(all(SOME));
  });

  it('slirp4netns, a port of add_hostfwd: each peer sees the published port', async () => {
    const empty: EmptyGuest = await bed.emptyGuest();
    const api = `${bed.ramDir}/hub-api`;
    const pid = String(bed.pidSeenInside(empty.pid));
    const running: Started = bed.start('host', [
      `${repoRoot}/bin/slirp4netns`,
      ...['-c', '-a', api, pid, 'tap0'],
    ]);
    const there = async (): Promise<boolean> => (await bed.run('host', ['test', '-S', api])).status === 0;
    await eventually('its API socket is there', START_MS, there);
    const request = {
      execute: 'add_hostfwd',
      arguments: {
        proto: 'udp',
        host_addr: '0.0.0.0',
        host_port: PUBLISHED.host,
        guest_port: PUBLISHED.guest,
      },
    };
    await eventually('its interface is up', START_MS, async () =>
      (await empty.inside(['ip', 'route'])).stdout.includes('default'),
    );
    const argv = supportProgram('clients/api-client.ts', api, JSON.stringify(request));
    expect(JSON.parse(await succeedIn(bed, 'host', argv))).toEqual([{ return: { id: 1 } }]);
    const { stdout, stderr } = await empty.inside(ask(FAMILIES[0]!.peer, SOME));
    expect(stderr).toBe('');
    expect(JSON.parse(stdout)).toEqual(all(SOME));
    running.process.kill();
    await empty.end();
  });
});
