// @vitest: beside
/** Names resolve in the guest with its resolv.conf, for each place where the host's resolver may listen. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, type Guest, makeBed, succeed, supportProgram } from '../support/bed.ts';
import { engine } from '../support/engines.ts';
import { PEER4, PEER6 } from '../support/ports.ts';
import { eventually } from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';

const RESOLVERS = [
  { where: "the peer's IPv4 address", address: PEER4, name: 'peer', loopback: false },
  { where: "the peer's IPv6 address", address: PEER6, name: 'peer', loopback: false },
  { where: "the host's loopback", address: '127.0.0.53', name: 'loopback', loopback: true },
] as const;

const needs = [requireTool('dig', 'apt package bind9-dnsutils'), requireTool('curl', 'apt package curl')];

describeE2e('DNS', needs, () => {
  describe.each(RESOLVERS)("the host's resolver on $where", (resolver) => {
    let bed: Bed;
    beforeAll(async () => {
      bed = await makeBed({ resolver: resolver.address });
      if (resolver.loopback) {
        const server = bed.start('host', supportProgram('dns-server.ts', resolver.name, resolver.address));
        await eventually('the resolver listens', 5000, () => server.printed().stdout.includes('ready'));
      }
    });
    afterAll(() => bed?.close());

    const reachable = !resolver.loopback || engine.can.loopbackResolver;
    if (!reachable) it.skip(`(${engine.name} does not serve it without options)`);
    describe.each(reachable ? engine.plans : [])('%s', (plan) => {
      let guest: Guest;
      beforeAll(async () => {
        guest = await bed.engine({ plan });
      });
      afterAll(() => guest?.stop());
      const dig = (...args: string[]): Promise<string> =>
        succeed(guest, ['dig', '+tries=2', '+time=2', ...args]);

      it.each(['+notcp', '+tcp'])('dig %s: addresses of both families', async (transport) => {
        expect(await dig(transport, '+short', 'peer.bed.test', 'A')).toBe(`${PEER4}\n`);
        expect(await dig(transport, '+short', 'peer.bed.test', 'AAAA')).toBe(`${PEER6}\n`);
      });

      it.each(['+notcp', '+tcp'])(
        'dig %s: the answer comes from the resolver of the host',
        async (transport) => {
          expect(await dig(transport, '+short', 'who.bed.test', 'TXT')).toMatch(
            new RegExp(`^"${resolver.name} `),
          );
        },
      );

      it('an answer over 512 bytes arrives by UDP', async () => {
        const out = await dig('+ignore', '+bufsize=1232', '+notcp', 'big.bed.test', 'TXT');
        expect(out).toContain('(UDP)');
        expect(out).not.toMatch(/flags:[^;]* tc[ ;]/);
        for (const letter of 'abcde') expect(out).toContain(`"${letter.repeat(200)}"`);
      });

      it('an answer too long for UDP: truncated, then complete by TCP', async () => {
        const out = await dig('huge.bed.test', 'TXT');
        expect(out).toContain('Truncated, retrying in TCP mode');
        expect(out).toContain('ANSWER: 60');
      });

      it('an answer with 30 addresses arrives', async () => {
        expect((await dig('+short', 'many.bed.test')).trim().split('\n').length).toBe(30);
      });

      it('a name that does not exist: NXDOMAIN', async () => {
        expect(await dig('nothing.bed.test')).toContain('status: NXDOMAIN');
      });

      it('curl fetches a URL by name', async () => {
        expect(
          await succeed(guest, ['curl', '-sSf', '--noproxy', '*', 'http://peer.bed.test:8000/source']),
        ).not.toBe('');
      });
    });
  });
});
