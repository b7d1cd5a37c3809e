// @vitest: beside
/**
 * NAT64: the prefix that the host's resolver knows comes to the guest in router advertisements, traffic to it
 * is IPv6 as any other, and a policy about IPv4 addresses is about those behind the prefix, too. The peer has
 * an address with the prefix, in place of a translator.
 */
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { type Bed, type Guest, makeBed, succeed, succeedIn, supportProgram } from '../support/bed.ts';
import { engine } from '../support/engines.ts';
import { GATEWAY4, PEER6, PORT } from '../support/ports.ts';
import { eventually, killTree, type Started, sleepMs } from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';

const DNS64 = '127.0.0.64';
const PLAIN = '127.0.0.65';
/** PEER4 behind the prefix of the server dns64. */
const TRANSLATED = '2001:db8:64::a4d:2';
/** Prefix information option of the guest's network: /64, L A. */
const OUR_PREFIX = '030440c0';
const PREFIX = '20010db80064000000000000';
/** PREF64: type 38, 16 bytes, the greatest lifetime and /96 (code 0), the prefix. Then the same without lifetime. */
const OFFERED = `2602fff8${PREFIX}`;
const WITHDRAWN = `26020000${PREFIX}`;
/** curl's status when it could not connect. */
const CURL_REFUSED = 7;
const START_MS = 5000;
const FOLLOWED_MS = 5000;

const needs = [
  requireTool('curl', 'apt package curl'),
  requireTool('socat', 'apt package socat'),
  requireTool('dig', 'apt package bind9-dnsutils'),
];

describeE2e('NAT64', needs, () => {
  let bed: Bed;
  let dns64: Started;
  let plain: Started;
  const host = (command: string): Promise<string> => succeedIn(bed, 'host', ['sh', '-ec', command]);
  const resolver = (address: string): Promise<string> => host(`echo nameserver ${address} >/etc/resolv.conf`);
  const queries = (server: Started): number => server.printed().stdout.split('ipv4only.arpa').length - 1;
  beforeAll(async () => {
    bed = await makeBed();
    dns64 = bed.start('host', supportProgram('dns-server.ts', 'dns64', DNS64));
    plain = bed.start('host', supportProgram('dns-server.ts', 'plain', PLAIN));
    await succeedIn(bed, 'peer', ['ip', '-6', 'addr', 'add', `${TRANSLATED}/128`, 'dev', 'lo', 'nodad']);
    for (const server of [dns64, plain])
      await eventually('the resolver listens', START_MS, () => server.printed().stdout.includes('ready'));
  });
  beforeEach(() =>
    host(`ip route del default 2>/dev/null || :; ip route add default via ${GATEWAY4}
      echo nameserver ${DNS64} >/etc/resolv.conf`),
  );
  afterAll(() => bed?.close());

  const start = (...extra: string[]): Promise<Guest> =>
    bed.engine({ plan: engine.plans[0]!, extra: ['--interface-name', 'tap0', ...extra] });
  /** ICMPv6 messages that the guest gets from now on, in hexadecimal. */
  const capture = async (guest: Guest): Promise<{ seen(): string; end(): void }> => {
    const dump = guest.startInside(['socat', '-u', '-d', '-d', '-x', 'IP6-RECV:58', 'OPEN:/dev/null']);
    await eventually('socat listens', START_MS, () => dump.printed().stderr.includes('starting data'));
    return {
      seen: () =>
        dump
          .printed()
          .stderr.replace(/^[^ ].*$/gm, '')
          .replace(/\s/g, ''),
      end: () => killTree(dump.pid),
    };
  };
  /** A router solicitation. */
  const solicit = (guest: Guest): Promise<string> =>
    succeed(guest, [
      ...['sh', '-c'],
      `printf '\\205\\0\\0\\0\\0\\0\\0\\0' | socat -u - 'IP6-DATAGRAM:[ff02::2%tap0]:58,setsockopt-int=41:18:255'`,
    ]);
  const fetch = (guest: Guest, address: string) =>
    guest.inside([
      ...['curl', '-sS', '--noproxy', '*', '--max-time', '3'],
      `http://[${address}]:${PORT.http}/source`,
    ]);

  it('no IPv4 on the host: the prefix is offered and used, and withdrawn when the resolver has none', async () => {
    await host('ip route del default');
    const guest = await start();
    const ra = await capture(guest);
    try {
      await eventually('the prefix is offered', FOLLOWED_MS, async () => {
        await solicit(guest);
        return ra.seen().includes(OFFERED);
      });
      expect((await fetch(guest, TRANSLATED)).stdout).not.toBe('');
      expect(
        await succeed(guest, ['dig', '+short', '+tries=2', '+time=2', 'ipv4only.arpa', 'AAAA']),
      ).toContain('2001:db8:64::c000:aa\n');
      const before = queries(plain);
      await resolver(PLAIN);
      await eventually('the prefix is withdrawn', FOLLOWED_MS, () => ra.seen().includes(WITHDRAWN));
      expect(queries(plain)).toBe(before + 1);
      await resolver(DNS64);
      const offers = () => ra.seen().split(OFFERED).length;
      const count = offers();
      await eventually('it is offered again', FOLLOWED_MS, () => offers() > count);
      await host(`ip route add default via ${GATEWAY4}`);
      const withdrawals = ra.seen().split(WITHDRAWN).length;
      await eventually(
        'the host has IPv4',
        FOLLOWED_MS,
        () => ra.seen().split(WITHDRAWN).length > withdrawals,
      );
    } finally {
      ra.end();
      await guest.stop();
    }
  });

  it('a resolver without NAT64: one query, no option', async () => {
    await host('ip route del default');
    await resolver(PLAIN);
    const before = queries(plain);
    const guest = await start();
    const ra = await capture(guest);
    try {
      await eventually('the resolver is asked', FOLLOWED_MS, () => queries(plain) > before);
      await eventually('an advertisement comes', FOLLOWED_MS, async () => {
        await solicit(guest);
        return ra.seen().includes(OUR_PREFIX);
      });
      expect(ra.seen()).not.toContain(PREFIX);
      expect(queries(plain)).toBe(before + 1);
    } finally {
      ra.end();
      await guest.stop();
    }
  });

  it('IPv4 on the host: nothing is asked without a policy; with one, IPv4 rules hold behind the prefix', async () => {
    const before = queries(dns64);
    const open = await start();
    expect((await fetch(open, TRANSLATED)).stdout).not.toBe('');
    await sleepMs(400);
    await open.stop();
    expect(queries(dns64)).toBe(before);
    const guest = await start('--deny', '10.0.0.0/8');
    const ra = await capture(guest);
    try {
      await eventually('the resolver is asked', FOLLOWED_MS, () => queries(dns64) > before);
      await eventually(
        'what is behind the prefix is denied',
        FOLLOWED_MS,
        async () => (await fetch(guest, TRANSLATED)).status === CURL_REFUSED,
      );
      expect((await fetch(guest, PEER6)).stdout).not.toBe('');
      await solicit(guest);
      await eventually('an advertisement comes', FOLLOWED_MS, () => ra.seen().includes(OUR_PREFIX));
      expect(ra.seen()).not.toContain(PREFIX);
    } finally {
      ra.end();
      await guest.stop();
    }
  });
});
