// @vitest: beside
/**
 * Address clients in an unconfigured namespace get their addresses from the engine: udhcpc, dhclient for both
 * families, SLAAC of the kernel.
 */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  type Bed,
  type Guest,
  type Inside,
  makeBed,
  succeed,
  succeedIn,
  supportProgram,
} from '../support/bed.ts';
import { engine } from '../support/engines.ts';
import { HOST4, HOST6, PEER4, PEER6, PORT } from '../support/ports.ts';
import { eventually } from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';

const TIMEOUT_MS = 40_000;
const MTU = 9000;

/** Hook script for udhcpc and dhclient: configures the interface and records the offer. */
const leaseScript = (file: string): string => `#!/bin/sh
case \${1:-$reason} in bound|renew|BOUND|RENEW|REBIND|REBOOT) ;; *) exit 0 ;; esac
address=\${ip:-$new_ip_address} mask=\${subnet:-$new_subnet_mask} routers=\${router:-$new_routers}
ip addr flush dev $interface scope global
ip addr add $address/\${mask:-24} dev $interface
for r in $routers; do ip route replace default via $r dev $interface onlink; done
echo "$address|$mask|$routers|\${dns:-$new_domain_name_servers}|\${mtu:-$new_interface_mtu}" >${file}
`;

/** Hook script of dhclient for DHCPv6. */
const lease6Script = (file: string): string => `#!/bin/sh
case $reason in BOUND6|RENEW6|REBIND6) ;; *) exit 0 ;; esac
ip -6 addr add $new_ip6_address/64 dev $interface nodad
echo "$new_ip6_address" >${file}
`;

describeE2e('address clients', [requireTool('curl', 'apt package curl')], () => {
  let bed: Bed;
  /** The configuration that the engine itself applies: the clients must get the same. */
  let configured: { ipv4: string; ipv6: string; gateway: string };

  const globalAddress = async (guest: Inside, family: '-4' | '-6'): Promise<string | undefined> =>
    /inet6? (\S+)\/\d+ /.exec(
      await succeed(guest, ['ip', '-o', family, 'addr', 'show', 'scope', 'global', '-tentative']),
    )?.[1];

  beforeAll(async () => {
    bed = await makeBed();
    const guest = await bed.engine({ mtu: MTU });
    configured = {
      ipv4: (await globalAddress(guest, '-4')) ?? '',
      ipv6: (await globalAddress(guest, '-6')) ?? '',
      gateway: /default via (\S+)/.exec(await succeed(guest, ['ip', '-4', 'route']))?.[1] ?? '',
    };
    await guest.stop();
  });
  afterAll(() => bed?.close());

  it('the engine itself configures addresses of both families and a gateway', () => {
    expect(configured).toEqual({ ipv4: HOST4, ipv6: HOST6, gateway: expect.stringMatching(/^\d/) });
  });

  describe.each(engine.plans)('%s', (plan) => {
    let guest: Guest;
    let device: string;

    beforeEach(async () => {
      guest = await bed.engine({ plan, mtu: MTU, unconfigured: true, publish: ['5353:5353/udp'] });
      const links = await succeed(guest, ['ip', '-o', 'link']);
      device =
        [...links.matchAll(/^\d+: ([^:@]+)/gm)].map((m) => m[1] ?? '').find((name) => name !== 'lo') ?? '';
      expect(await globalAddress(guest, '-4')).toBeUndefined();
      await succeed(guest, ['ip', 'link', 'set', 'lo', 'up']);
    });
    afterEach(() => guest?.stop());

    const fetches = async (url: string): Promise<void> => {
      expect(await succeed(guest, ['curl', '-sSf', '-m', '5', '--noproxy', '*', `${url}/source`])).not.toBe(
        '',
      );
    };
    const leased = async (client: (script: string) => string[]): Promise<void> => {
      const lease = `${bed.ramDir}/lease`;
      const script = `${bed.ramDir}/lease-script`;
      bed.write(lease, '');
      bed.write(script, leaseScript(lease));
      await succeed(guest, ['chmod', '755', script]);
      await succeed(guest, ['ip', 'link', 'set', device, 'up']);
      await succeed(guest, client(script), { timeoutMs: 20_000 });
      const [address, mask, routers, dns] = (await succeed(guest, ['cat', lease])).trim().split('|');
      expect({ address, mask, routers }).toEqual({
        address: configured.ipv4,
        mask: '255.255.255.0',
        routers: configured.gateway,
      });
      expect(dns).toMatch(/^\d+\.\d+\.\d+\.\d+/);
      expect(await globalAddress(guest, '-4')).toBe(configured.ipv4);
      await fetches(`http://${PEER4}:${PORT.http}`);
    };

    describeE2e('udhcpc', [requireTool('udhcpc', 'apt package udhcpc')], () => {
      it('gets the address, router and resolver; the network works', { timeout: TIMEOUT_MS }, () =>
        leased((script) => ['udhcpc', '-i', device, '-f', '-q', '-n', '-t', '5', '-T', '1', '-s', script]),
      );
    });

    describeE2e('dhclient', [requireTool('dhclient', 'apt package isc-dhcp-client')], () => {
      it('gets the address, router and resolver; the network works', { timeout: TIMEOUT_MS }, () => {
        const state = ['-lf', `${bed.ramDir}/dhclient.leases`, '-pf', `${bed.ramDir}/dhclient.pid`];
        return leased((script) => [
          'dhclient',
          '-4',
          '-1',
          '-cf',
          '/dev/null',
          ...state,
          '-sf',
          script,
          device,
        ]);
      });
    });

    // Independent of the thread plan: with one plan only, for the client is slow.
    if (plan === engine.plans[0])
      describeE2e('dhclient -6', [requireTool('dhclient', 'apt package isc-dhcp-client')], () => {
        it('gets the very address of the plan; the network works', { timeout: TIMEOUT_MS }, async () => {
          const lease = `${bed.ramDir}/lease6`;
          const script = `${bed.ramDir}/lease6-script`;
          bed.write(lease, '');
          bed.write(script, lease6Script(lease));
          await succeed(guest, ['chmod', '755', script]);
          // Duplicate address detection would delay the client's link-local address; SLAAC would hide a
          // failure of the client.
          const conf = `/proc/sys/net/ipv6/conf/${device}`;
          await succeed(guest, ['sh', '-c', `echo 0 >${conf}/dad_transmits && echo 0 >${conf}/autoconf`]);
          await succeed(guest, ['ip', 'link', 'set', device, 'up']);
          await eventually('the interface has its link-local address', 5000, async () =>
            (await succeed(guest, ['ip', '-6', 'addr', 'show', 'dev', device, '-tentative'])).includes(
              'fe80::',
            ),
          );
          const state = ['-lf', `${bed.ramDir}/dhclient6.leases`, '-pf', `${bed.ramDir}/dhclient6.pid`];
          await succeed(
            guest,
            ['dhclient', '-6', '-1', '-v', '-cf', '/dev/null', ...state, '-sf', script, device],
            {
              timeoutMs: 20_000,
            },
          );
          expect((await succeed(guest, ['cat', lease])).trim()).toBe(configured.ipv6);
          expect(await globalAddress(guest, '-6')).toBe(configured.ipv6);
          await eventually('the advertised default route is there', 10_000, async () =>
            (await succeed(guest, ['ip', '-6', 'route'])).includes('default '),
          );
          await fetches(`http://[${PEER6}]:${PORT.http}`);
        });
      });

    it("the kernel's SLAAC gets an address of the prefix and a default route; the network works", {
      timeout: TIMEOUT_MS,
    }, async () => {
      await succeed(guest, ['ip', 'link', 'set', device, 'up']);
      const address = await eventually('SLAAC gave a global address', 10_000, () =>
        globalAddress(guest, '-6'),
      );
      expect(address).toMatch(new RegExp(`^${configured.ipv6.split('::')[0]}:`));
      expect(await succeed(guest, ['ip', '-6', 'route'])).toMatch(/^default .*proto ra/m);
      await fetches(`http://[${PEER6}]:${PORT.http}`);
      // The guest has no planned address: a published port leads to the address that the engine has learnt
      // from its packets.
      const server = guest.startInside(supportProgram('clients/udp-server.ts', 5353));
      await eventually("the guest's server listens", 5000, () => server.printed().stdout.includes('ready'));
      const answer = await succeedIn(
        bed,
        'peer',
        supportProgram('clients/udp-ask.ts', HOST6, 5353, 40_000, 'hello'),
      );
      expect(answer).toContain('hello');
    });
  });
});
