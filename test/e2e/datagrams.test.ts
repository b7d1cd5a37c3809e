// @vitest: beside
/** UDP of every size, ping with verified payloads, and ICMP errors. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, type Guest, makeBed, succeed, supportProgram } from '../support/bed.ts';
import { engine } from '../support/engines.ts';
import { FAMILIES, PORT } from '../support/ports.ts';
import { eventually } from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';

/** Ports of the peer that answer with the source port that they see. */
const MIRRORS = [7101, 7102, 7103, 7104, 7105, 7106];
const SIZES = [0, 1, 1472, 1473, 9000, 65507];

interface Echo {
  readonly size: number;
  readonly outcome: string;
  readonly ms: number;
}

describeE2e('datagrams', [requireTool('ping', 'apt package iputils-ping')], () => {
  let bed: Bed;
  beforeAll(async () => {
    bed = await makeBed();
    const mirror = bed.start('peer', supportProgram('clients/udp-mapping.ts', 'mirror', ...MIRRORS));
    await eventually('the mirror is ready', 5000, () => mirror.printed().stdout.includes('ready'));
  });
  afterAll(() => bed?.close());

  describe.each(engine.plans)('%s', (plan) => {
    describe.each([65520, 1500])('MTU %i', (mtu) => {
      let guest: Guest;
      beforeAll(async () => {
        guest = await bed.engine({ plan, mtu });
      });
      afterAll(() => guest?.stop());

      describe.each(FAMILIES)('$name', (family) => {
        const echo = async (port: number, ...sizes: number[]): Promise<Echo[]> =>
          JSON.parse(
            await succeed(guest, supportProgram('clients/udp-echo.ts', family.peer, port, ...sizes)),
          );

        it(`UDP payloads of ${SIZES.join(', ')} bytes come back unchanged`, async () => {
          const results = await echo(PORT.echo, ...SIZES);
          expect(results.map(({ size, outcome }) => ({ size, outcome }))).toEqual(
            SIZES.map((size) => ({ size, outcome: 'same' })),
          );
        });

        it('a burst of 60 datagrams, the last one shorter: each comes back unchanged', async () => {
          const burst = supportProgram('clients/udp-burst.ts', family.peer, PORT.echo, 60, 1200);
          expect(JSON.parse(await succeed(guest, burst))).toEqual({ same: 60, lost: 0 });
        });

        it('one guest socket, many peers: all see its port; a datagram of another peer is dropped', async () => {
          const ask = supportProgram('clients/udp-mapping.ts', 'ask', family.peer, ...MIRRORS);
          const { own, seen, strangers } = JSON.parse(await succeed(guest, ask));
          expect(seen).toEqual(MIRRORS.map(() => own));
          expect(strangers).toBe(0);
        });

        it('UDP to a port where nobody listens: the guest sees ECONNREFUSED', async () => {
          const [result] = await echo(PORT.closed, 100);
          expect(result).toMatchObject({ outcome: 'ECONNREFUSED' });
        });

        it('ping the peer: five answers in order, with the payload sent', async () => {
          const out = await succeed(guest, ['ping', '-c5', '-i0.2', '-s1000', '-W2', '-pa55e', family.peer]);
          expect([...out.matchAll(/^1008 bytes from .*icmp_seq=(\d+) /gm)].map((m) => m[1])).toEqual([
            '1',
            '2',
            '3',
            '4',
            '5',
          ]);
          expect(out).not.toMatch(/wrong data|DUP!|corrupted/);
          expect(out).toContain(' 0% packet loss');
        });

        it('ping the gateway: answered', async () => {
          expect(await succeed(guest, ['ping', '-c2', '-i0.2', '-W2', family.gateway])).toContain(
            ' 0% packet loss',
          );
        });
      });
    });
  });
});
