// @vitest: beside
/**
 * A guest that has configured its interface by itself and has sent nothing but duplicate address detection and
 * neighbour discovery: a peer outside reaches its published ports.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, type Guest, makeBed, succeed } from '../support/bed.ts';
import { engine } from '../support/engines.ts';
import { HOST4, HOST6 } from '../support/ports.ts';
import { eventually, killTree } from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';

const PUBLISHED = 8089;
/** Duplicate address detection takes a second, and router solicitation another one at most. */
const SLAAC_MS = 10_000;

const needs = [requireTool('socat', 'apt package socat'), requireTool('busybox', 'apt package busybox')];

describeE2e('a guest that has not spoken yet', needs, () => {
  let bed: Bed;
  beforeAll(async () => {
    bed = await makeBed();
  });
  afterAll(() => bed?.close());

  describe.each(engine.plans)('%s', (plan) => {
    let guest: Guest;
    beforeAll(async () => {
      guest = await bed.engine({
        plan,
        unconfigured: true,
        publish: [`${PUBLISHED}:80`],
        extra: ['--interface-name', 'tap0'],
      });
    });
    afterAll(() => guest?.stop());
    const fetch = async (address: string): Promise<string> =>
      (await bed.run('peer', ['timeout', '5', 'socat', '-u', `TCP:${address}:${PUBLISHED}`, '-'])).stdout;

    it('an address by SLAAC', { timeout: 20_000 }, async () => {
      const server = guest.startInside(['socat', 'TCP6-LISTEN:80,fork,reuseaddr', 'SYSTEM:echo hello']);
      try {
        await succeed(guest, [
          ...['sh', '-ec'],
          `cd /proc/sys/net/ipv6/conf/tap0; echo 1 >accept_ra; echo 1 >accept_dad; echo 1 >dad_transmits
          ip link set tap0 up`,
        ]);
        const address = await eventually('an address by SLAAC', SLAAC_MS, async () => {
          const shown = await succeed(guest, ['ip', '-6', 'addr', 'show', 'dev', 'tap0', 'scope', 'global']);
          return !shown.includes('tentative') && /inet6 (fd77:\S+)\//.exec(shown)?.[1];
        });
        expect(address).not.toBe(HOST6);
        expect(await fetch(`[${HOST6}]`)).toBe('hello\n');
      } finally {
        killTree(server.pid);
      }
    });

    it('an address by hand, of which only a request for a neighbour told', async () => {
      const server = guest.startInside(['socat', 'TCP4-LISTEN:80,fork,reuseaddr', 'SYSTEM:echo hello']);
      try {
        await succeed(guest, ['sh', '-ec', 'ip link set tap0 up; ip addr add 10.77.0.50/24 dev tap0']);
        await guest.inside(['busybox', 'arping', '-c', '1', '-w', '1', '-I', 'tap0', '10.77.0.254']);
        expect(await fetch(HOST4)).toBe('hello\n');
      } finally {
        killTree(server.pid);
      }
    });
  });
});
