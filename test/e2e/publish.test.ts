// @vitest: beside
/** Published ports: reached from the peer, and the guest sees the peer's address. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, type Guest, makeBed, succeedIn, supportProgram } from '../support/bed.ts';
import { engine } from '../support/engines.ts';
import { patternSha256 } from '../support/pattern.ts';
import { FAMILIES } from '../support/ports.ts';
import { eventually, type Started } from '../support/process.ts';
import { describeE2e } from '../support/require.ts';
import type { Outcome } from '../support/tcp-script.ts';

const MIB = 2 ** 20;
const TCP = { host: 8080, guest: 80, closed: 8081 };
const UDP = { host: 5353, guest: 53 };

describeE2e('published ports', [], () => {
  let bed: Bed;
  beforeAll(async () => {
    bed = await makeBed();
  });
  afterAll(() => bed?.close());

  describe.each(engine.plans)('%s', (plan) => {
    let guest: Guest;
    let server: Started;
    beforeAll(async () => {
      guest = await bed.engine({
        plan,
        publish: [`${TCP.host}:${TCP.guest}`, `${TCP.closed}:${TCP.closed}`, `${UDP.host}:${UDP.guest}/udp`],
      });
      server = guest.startInside(supportProgram('clients/tcp-server.ts', TCP.guest));
      const udp = guest.startInside(supportProgram('clients/udp-server.ts', UDP.guest));
      for (const s of [server, udp]) {
        await eventually("the guest's server listens", 5000, () => s.printed().stdout.includes('ready'));
      }
    });
    afterAll(() => guest?.stop());

    describe.each(FAMILIES)('$name', (family) => {
      it('TCP from the peer: data both ways; the guest sees the address of the peer', async () => {
        const id = `${plan}-${family.name}`;
        const request = JSON.stringify({ id, steps: [['recvEof'], ['send', 4 * MIB], ['fin']] });
        const steps = JSON.stringify([['send', MIB], ['fin'], ['recvEof']]);
        const client = JSON.parse(
          await succeedIn(
            bed,
            'peer',
            supportProgram('clients/tcp-client.ts', family.host, TCP.host, steps, request),
          ),
        ) as Outcome;
        expect(client).toMatchObject({
          receivedBytes: 4 * MIB,
          sha256: patternSha256(4 * MIB),
          eof: true,
          error: null,
        });

        const line = await eventually('the guest prints its outcome', 5000, () =>
          server
            .printed()
            .stdout.split('\n')
            .find((l) => l.includes(id)),
        );
        const { outcome } = JSON.parse(line) as { outcome: Outcome };
        expect(outcome).toMatchObject({ receivedBytes: MIB, sha256: patternSha256(MIB), eof: true });
        expect([family.peer, family.gateway]).toContain(outcome.remoteAddress);
      });

      it("TCP, nobody listens in the guest: the peer's connection fails at once", async () => {
        const argv = supportProgram('clients/tcp-client.ts', family.host, TCP.closed, '[["awaitError"]]');
        const outcome = JSON.parse(await succeedIn(bed, 'peer', argv)) as Outcome;
        expect(outcome.error).toMatch(/^(ECONNREFUSED|ECONNRESET)$/);
        expect(outcome.ms).toBeLessThan(1000);
      });

      it('UDP from the peer: answered from the published port; the guest sees address and port of the peer', async () => {
        const ask = (port: number): Promise<string> =>
          succeedIn(
            bed,
            'peer',
            supportProgram('clients/udp-ask.ts', family.host, UDP.host, port, `hello${port}`),
          );
        for (const port of [40_001, 40_002]) {
          const [address, seenPort, text] = (await ask(port)).trim().split(' ');
          expect([family.peer, family.gateway]).toContain(address);
          expect(seenPort).toBe(String(port));
          expect(text).toBe(`hello${port}`);
        }
      });
    });
  });
});
