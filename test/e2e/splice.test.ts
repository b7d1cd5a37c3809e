/**
 * Published ports from host loopback, which do not use the TAP: data, FIN and refusals as on a direct
 * connection. The guest sees its own address as the peer's, as with passt's pasta.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, type Guest, makeBed, succeedIn, supportProgram } from '../support/bed.ts';
import { engine } from '../support/engines.ts';
import { patternSha256 } from '../support/pattern.ts';
import { eventually, type Started } from '../support/process.ts';
import { describeE2e } from '../support/require.ts';
import type { Outcome } from '../support/tcp-script.ts';

const MIB = 2 ** 20;
const TCP = { host: 8080, guest: 80, closed: 8081, crowd: 8007, echo: 7 };
const UDP = { host: 5353, guest: 53 };
const LOOPBACK = [
  { name: 'IPv4', address: '127.0.0.1' },
  { name: 'IPv6', address: '::1' },
];
/** Of pipelines the smallest: the stage runs on the thread of host-io, however many shards there are. */
const plans = engine.plans.map((plan) => (plan === 'pipeline=2' ? 'pipeline=1' : plan));

describeE2e('published ports from loopback', [], () => {
  let bed: Bed;
  beforeAll(async () => {
    bed = await makeBed();
  });
  afterAll(() => bed?.close());

  describe.each(plans)('%s', (plan) => {
    let guest: Guest;
    let server: Started;
    beforeAll(async () => {
      guest = await bed.engine({
        plan,
        publish: [
          `${TCP.host}:${TCP.guest}`,
          `${TCP.closed}:${TCP.closed}`,
          `${TCP.crowd}:${TCP.echo}`,
          `${UDP.host}:${UDP.guest}/udp`,
        ],
        extra: engine.name === 'bucatini' ? ['--splice'] : [],
      });
      server = guest.startInside(supportProgram('clients/tcp-server.ts', TCP.guest));
      const udp = guest.startInside(supportProgram('clients/udp-server.ts', UDP.guest));
      for (const s of [server, udp]) {
        await eventually("the guest's server listens", 5000, () => s.printed().stdout.includes('ready'));
      }
    });
    afterAll(() => guest?.stop());

    const client = async (
      address: string,
      port: number,
      steps: unknown,
      request?: unknown,
    ): Promise<Outcome> =>
      JSON.parse(
        await succeedIn(
          bed,
          'host',
          supportProgram(
            'clients/tcp-client.ts',
            address,
            port,
            JSON.stringify(steps),
            ...(request === undefined ? [] : [JSON.stringify(request)]),
          ),
        ),
      ) as Outcome;

    describe.each(LOOPBACK)('$name', ({ name, address }) => {
      it('TCP: data both ways, half-closed by each side; the guest sees its own address', async () => {
        const id = `${plan}-${name}`;
        const request = { id, steps: [['recvEof'], ['send', 8 * MIB], ['fin']] };
        const outcome = await client(address, TCP.host, [['send', 4 * MIB], ['fin'], ['recvEof']], request);
        expect(outcome).toMatchObject({
          receivedBytes: 8 * MIB,
          sha256: patternSha256(8 * MIB),
          eof: true,
          error: null,
        });
        const line = await eventually('the guest prints its outcome', 5000, () =>
          server
            .printed()
            .stdout.split('\n')
            .find((l) => l.includes(id)),
        );
        const { outcome: seen } = JSON.parse(line) as { outcome: Outcome };
        expect(seen).toMatchObject({ receivedBytes: 4 * MIB, sha256: patternSha256(4 * MIB), eof: true });
        const own = await guest.inside(['ip', '-o', 'address', 'show', 'scope', 'global']);
        expect(own.stdout).toContain(` ${seen.remoteAddress}/`);
      });

      it('UDP: answered from the published port, an empty datagram too; the guest sees its own address and the port', async () => {
        for (const [port, text] of [
          [40_001, 'hello'],
          [40_002, ''],
          [40_001, 'x'.repeat(9000)],
        ] as const) {
          const argv = supportProgram('clients/udp-ask.ts', address, UDP.host, port, text);
          const [seen = '', seenPort, ...rest] = (await succeedIn(bed, 'host', argv)).trim().split(' ');
          const own = await guest.inside(['ip', '-o', 'address', 'show', 'scope', 'global']);
          expect(own.stdout).toContain(` ${seen}/`);
          expect(seenPort).toBe(String(port));
          expect(rest.join(' ')).toBe(text);
        }
      });

      it('nobody listens inside: the connection is accepted, then reset', async () => {
        const outcome = await client(address, TCP.closed, [['awaitError']]);
        expect(outcome.error).toBe('ECONNRESET');
        expect(outcome.ms).toBeLessThan(1000);
      });
    });

    it('a hundred connections at once, more than the prepared sockets inside: all succeed', async () => {
      const echo = guest.startInside(supportProgram('clients/tcp-echo.ts', TCP.echo));
      await eventually('it listens', 5000, () => echo.printed().stdout.includes('ready'));
      const argv = supportProgram('clients/tcp-crowd.ts', '127.0.0.1', TCP.crowd, 100, 100, 100_000, 1);
      const crowd = JSON.parse(await succeedIn(bed, 'host', argv));
      expect(crowd).toMatchObject({ ok: 100, failed: {}, peakOpen: 100 });
    });
  });
});
