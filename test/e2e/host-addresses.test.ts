// @vitest: beside
/**
 * A published port answers on every address of the host: its second one in the same network, one in another
 * network, one on lo. Asked by the peer, by the host itself, and by the guest (hairpin).
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, type Guest, makeBed, succeed, succeedIn, supportProgram } from '../support/bed.ts';
import { engine } from '../support/engines.ts';
import { HOST4, HOST6 } from '../support/ports.ts';
import { eventually } from '../support/process.ts';
import { describeE2e } from '../support/require.ts';
import type { Outcome } from '../support/tcp-script.ts';

const TCP = { host: 8080, guest: 80 };
const UDP = { host: 5353, guest: 53 };
const BYTES = 100_000;

const ADDRESSES = {
  IPv4: { own: HOST4, second: '10.77.0.9', other: '10.88.0.1', lo: '10.99.0.1' },
  IPv6: { own: HOST6, second: 'fd77::9', other: 'fd88::1', lo: 'fd99::1' },
} as const;

const HOST_UP = `
addr add 10.77.0.9/24 dev veth0
addr add 10.88.0.1/24 dev veth0
addr add 10.99.0.1/32 dev lo
addr add fd77::9/64 dev veth0 nodad
addr add fd88::1/64 dev veth0 nodad
addr add fd99::1/128 dev lo nodad`;
const PEER_UP = `
route add 10.88.0.1 via ${HOST4}
route add 10.99.0.1 via ${HOST4}
route add fd88::1 via ${HOST6}
route add fd99::1 via ${HOST6}`;

const CASES = Object.entries(ADDRESSES).flatMap(([family, addresses]) =>
  Object.entries(addresses).flatMap(([kind, address]) =>
    (['peer', 'host', 'guest'] as const).map((from) => ({ family, kind, address, from })),
  ),
);

describeE2e('addresses of the host', [], () => {
  let bed: Bed;
  beforeAll(async () => {
    bed = await makeBed();
    const batch = async (where: 'host' | 'peer', lines: string): Promise<unknown> =>
      succeedIn(bed, where, ['sh', '-c', `ip -batch - <<END\n${lines.trim()}\nEND\n`]);
    await batch('host', HOST_UP);
    await batch('peer', PEER_UP);
  });
  afterAll(() => bed?.close());

  describe.each(engine.plans)('%s', (plan) => {
    let guest: Guest;
    let own: string;
    beforeAll(async () => {
      const publish = [`${TCP.host}:${TCP.guest}`, `${UDP.host}:${UDP.guest}/udp`];
      guest = await bed.engine({ plan, publish });
      own = await succeed(guest, ['ip', '-o', 'addr']);
      const tcp = guest.startInside(supportProgram('clients/tcp-server.ts', TCP.guest));
      const udp = guest.startInside(supportProgram('clients/udp-server.ts', UDP.guest));
      for (const s of [tcp, udp])
        await eventually("the guest's server listens", 5000, () => s.printed().stdout.includes('ready'));
    });
    afterAll(() => guest?.stop());

    const run = (from: 'peer' | 'host' | 'guest', argv: readonly string[]): Promise<string> =>
      from === 'guest' ? succeed(guest, argv) : succeedIn(bed, from, argv);

    it.each(CASES)('$family, $kind address $address, asked by the $from: TCP and UDP', async (one) => {
      const { address, from } = one;
      // One of the host's addresses is the guest's too: inside, it leads to the guest's own ports.
      if (from === 'guest' && own.includes(` ${address}/`)) return;
      const request = JSON.stringify({ id: 'x', steps: [['recvEof'], ['send', BYTES], ['fin']] });
      const steps = JSON.stringify([['send', BYTES], ['fin'], ['recvEof']]);
      const argv = supportProgram('clients/tcp-client.ts', address, TCP.host, steps, request);
      const outcome = JSON.parse(await run(from, argv)) as Outcome;
      expect(outcome).toMatchObject({ receivedBytes: BYTES, eof: true, error: null });
      const ask = supportProgram(
        'clients/udp-ask.ts',
        address,
        UDP.host,
        40_100 + CASES.indexOf(one),
        'hello',
      );
      expect((await run(from, ask)).trim()).toMatch(/ hello$/);
    });
  });
});
