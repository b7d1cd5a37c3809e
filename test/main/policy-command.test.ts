// @vitest: beside
/** `bucatini policy test`, and the policy of a front end's options. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { explain } from '../../src/main/bucatini/policy.ts';
import { parseNat64 } from '../../src/main/cli/nat64.ts';
import { joinPolicy, parsePolicyText } from '../../src/main/cli/policy-text.ts';
import { UsageError } from '../../src/main/cli/values.ts';
import { EgressControl } from '../../src/main/host/egress-control.ts';
import type { Log } from '../../src/main/host/log.ts';
import type { Judge, SwitchedConnections } from '../../src/main/switching/switched-connections.ts';
import type { SwitchedFlow } from '../../src/switch/flow-records.ts';
import { RTN_ANYCAST, RTN_LOCAL, RTN_UNICAST } from '../../src/sys/constants.ts';
import type { RouteSocket } from '../../src/sys/netlink.ts';
import type { EngineHandle } from '../../src/workers/engine.ts';
import type { EgressPlan } from '../../src/workers/engine-plan.ts';
import { EgressNames } from '../../src/workers/flow/egress-names.ts';
import { EgressPolicy, EgressProto } from '../../src/workers/flow/egress-policy.ts';
import { addressWords } from '../support/packets.ts';
import { TEST_PLAN } from '../support/shard-rig.ts';

const RULES = joinPolicy(
  [],
  parsePolicyText(
    `deny host
# names
allow tcp *.example.org 443
allow tcp 10.0.0.0/8 1-1023
allow icmp any
deny dns any`,
    'p',
  ),
);
const HOSTS = Uint32Array.of(...addressWords('192.0.2.1'), 128);

const ask = (to: string, options: Parameters<typeof explain>[2] = {}) => {
  const { text, allowed } = explain(RULES, to, options, HOSTS);
  return [...text.trimEnd().split('\n'), allowed];
};

describe('policy test', () => {
  it('addresses: the rule that decides', () => {
    expect(ask('10.1.1.1:22')).toEqual([
      'tcp 10.1.1.1:22: allowed by line 4: allow tcp 10.0.0.0/8 1-1023',
      true,
    ]);
    expect(ask('10.1.1.1:22', { protocol: 'udp' })).toEqual([
      ...['udp 10.1.1.1:22: denied by default, as no rule matches', false],
    ]);
    expect(ask('2001:db8::1')).toEqual(['icmp 2001:db8::1: allowed by line 5: allow icmp any', true]);
    expect(ask('[2001:db8::1]:443')[1]).toBe(false);
    expect(ask('192.0.2.1:80')).toEqual(['tcp 192.0.2.1:80: denied by line 1: deny host', false]);
    expect(ask('192.0.2.7:443', { name: 'www.example.org' })).toEqual([
      'tcp 192.0.2.7:443 (an address of www.example.org): allowed by line 3: allow tcp *.example.org 443',
      true,
    ]);
  });

  it('an address behind a NAT64 prefix: the rule about the IPv4 address in it', () => {
    const verdict = 'allowed by line 4: allow tcp 10.0.0.0/8 1-1023';
    expect(ask('[64:ff9b::10.1.1.1]:22')[0]).toBe(`tcp [64:ff9b::10.1.1.1]:22: ${verdict}`);
    expect(ask('[2001:db8:64::10.1.1.1]:22')[1]).toBe(false);
    const nat64 = parseNat64('2001:db8:64::/96');
    expect(ask('[2001:db8:64::10.1.1.1]:22', { nat64 })[0]).toContain(verdict);
  });

  it('names: the query, then the rule about its addresses, and the rules before it', () => {
    expect(ask('www.example.org:443')).toEqual([
      'query for www.example.org: allowed by line 3: allow tcp *.example.org 443',
      'tcp www.example.org:443: allowed by line 3: allow tcp *.example.org 443',
      '  unless its address matches line 1: deny host',
      true,
    ]);
    expect(ask('example.com:443')).toEqual(['query for example.com: denied by line 6: deny dns any', false]);
    expect(ask('a.example.org', { protocol: 'dns' })[1]).toBe(true);
  });

  it.each(['10.0.0.1:', '10.0.0.1:0', '10.0.0.1:65536', '', ':443', '[::1', 'a b:1', '10.0.0.300:4 4'])(
    'destination "%s": an error of one line',
    (to) => {
      expect(() => ask(to)).toThrow(UsageError);
      expect(() => ask('10.0.0.1', { protocol: 'tcp' })).toThrow('tcp has ports');
      expect(() => ask('10.0.0.1:4', { protocol: 'icmp' })).toThrow('icmp has no ports');
    },
  );

  it('an error names the destination or option, and what is wrong with it', () => {
    expect(() => ask('10.0.0.1:65536')).toThrow('10.0.0.1:65536: port 65536: larger than 65535');
    expect(() => ask('*.example.org:443')).toThrow('neither an address nor a domain name');
    expect(() => ask('10.0.0.1:443', { name: 'a..b' })).toThrow('--name a..b: is no domain name');
    expect(() => ask('a.test:443', { name: 'b.test' })).toThrow(
      '--name b.test: needs an address, not a.test',
    );
  });
});

describe('the options of a front end', () => {
  const directory = mkdtempSync(join(tmpdir(), 'policy-'));
  afterAll(() => rmSync(directory, { recursive: true }));

  it('an error names the option and its value, or the file and the line', () => {
    const errorOf = (options: ConstructorParameters<typeof EgressControl>[0]): string => {
      try {
        new EgressControl(options);
      } catch (error) {
        return (error as Error).message;
      }
      return 'none';
    };
    expect(errorOf({ egress: [{ allow: true, text: 'any,10.0.0.1/8' }] })).toMatch(
      /^--allow any,10\.0\.0\.1\/8: 10\.0\.0\.1\/8: has bits/,
    );
    expect(errorOf({ egress: [{ allow: false, text: 'any:x' }] })).toMatch(/^--deny any:x: x: not a port/);
    expect(errorOf({ egress: [], policy: '/nonexistent' })).toBe(
      '--policy /nonexistent: No such file or directory',
    );
    const file = join(directory, 'p');
    writeFileSync(file, '# first\npermit any\n');
    expect(errorOf({ egress: [], policy: file })).toBe(
      `--policy ${file}: line 2: permit: a line begins with allow, deny, default or #`,
    );
  });

  it('other addresses of the host: the policy is compiled anew, and the names stay', async () => {
    const host = (...addresses: string[]) =>
      ({
        addresses: () => addresses.map((address) => ({ address })),
        routes: () => [
          { type: RTN_LOCAL, dst: '127.0.0.0', prefixLen: 8 },
          { type: RTN_LOCAL, dst: '10.77.0.0', prefixLen: 24 },
          { type: RTN_ANYCAST, dst: '2001:db8::', prefixLen: 128 },
          { type: RTN_UNICAST, dst: '192.0.2.0', prefixLen: 24 },
        ],
      }) as unknown as RouteSocket;
    const set: EgressPlan[] = [];
    const engine = {
      setEgress: (plan: EgressPlan) => Promise.resolve(set.push(plan)),
    } as unknown as EngineHandle;
    const control = new EgressControl({ egress: [{ allow: false, text: 'host' }] });
    const logs: string[] = [];
    const log: Log = (_level, text) => logs.push(text);
    const { addresses } = TEST_PLAN;
    const first = control.plan(host('192.0.2.1', '2001:db8::1'), addresses, log)!;
    control.started(engine);
    control.hostChanged(host('2001:db8::1', '192.0.2.1'));
    control.hostChanged(host('192.0.2.1', '192.0.2.2'));
    await control.replace('deny any 25');
    await control.replace(undefined);
    expect(set).toHaveLength(3);
    expect(set[0]!.names).toBe(first.names);
    const denies = (plan: EgressPlan, to: string): boolean =>
      new EgressPolicy(plan.policy, new EgressNames(plan.names)).decide(
        ...([addressWords(to), 0, false, EgressProto.tcp, 25, 0] as const),
      ) < 0;
    expect([first, set[0]!, set[1]!].map((plan) => denies(plan, '192.0.2.2'))).toEqual([false, true, true]);
    expect(
      ['10.77.0.9', '10.77.1.9', '2001:db8::', '2001:db8::2', '192.0.2.3'].map((to) => denies(first, to)),
    ).toEqual([true, false, true, false, false]);
    expect(set[2]).toBeUndefined();
    const { ipv4: _, ipv6: __, ...none } = addresses;
    const names = new EgressControl({ egress: [{ allow: true, text: 'a.test' }] });
    names.plan(host(), addresses, log);
    expect(logs).toEqual([]);
    names.plan(host(), none, log);
    expect(logs[0]).toContain('--dns-forward');
    expect(() => control.replace('nonsense')).toThrow('policy: line 1: nonsense');
  });

  it('switched connections: judged as the packet threads do, and ended when a new policy denies them', async () => {
    const host = { addresses: () => [{ address: '192.0.2.1' }], routes: () => [] } as unknown as RouteSocket;
    const setEgress = async () => 2;
    const logs: string[] = [];
    const flows = [
      { id: 1, destination: '10.0.0.1', destinationPort: 80 },
      { id: 5, destination: '198.51.100.1', destinationPort: 25 },
      { id: 6, destination: '2001:db8::1', destinationPort: 80 },
    ] as SwitchedFlow[];
    const ended: number[][] = [];
    const judges: (Judge | undefined)[] = [];
    const control = new EgressControl({
      egress: [
        { allow: false, text: 'host' },
        { allow: true, text: '10.0.0.0/8:443,*.a.test:80,any:25' },
      ],
    });
    control.switched = {
      setJudge: async (judge: Judge | undefined) => void judges.push(judge),
      flows: async (after: number) => {
        const rest = flows.filter(({ id }) => id > after);
        return { flows: rest.slice(0, 1), more: rest.length > 1 };
      },
      end: async (ids: readonly number[]) => {
        ended.push([...ids]);
        return ids.length - 1;
      },
    } as unknown as SwitchedConnections;
    expect(control.judge).toBeUndefined();
    const plan = control.plan(host, TEST_PLAN.addresses, (_level, text) => logs.push(text))!;
    control.started({ setEgress } as unknown as EngineHandle);
    const names = new EgressNames(plan.names);
    const [learned, expired] = [addressWords('198.51.100.7'), addressWords('198.51.100.8')];
    const now = names.now(performance.now());
    const wire = Buffer.from('\x01x\x01a\x04test');
    names.learn(wire, 0, wire.length, learned, 0, 60, now);
    names.learn(wire, 0, wire.length, expired, 0, 60, now - 100);
    const judge = control.judge!;
    expect(
      [
        ...[judge('10.1.2.3', 443), judge('198.51.100.7', 80), judge('203.0.113.1', 25)],
        ...[judge('10.1.2.3', 80), judge('198.51.100.7', 443), judge('198.51.100.8', 80)],
        ...[judge('192.0.2.1', 25), judge('64:ff9b::192.0.2.1', 25), judge('nonsense', 25)],
      ].map(Number),
    ).toEqual([1, 1, 1, 0, 0, 0, 0, 0, 0]);
    expect(await control.replace('deny any 80')).toEqual({ ended: 3, switchedLeft: 1 });
    expect([ended, judges]).toEqual([[[1, 6]], [judge]]);
    expect(logs).toEqual([
      'egress policy: it denies switched connections that could not be ended: 1 (docs/policy.md)',
    ]);
    expect([judge('10.1.2.3', 80), judge('192.0.2.1', 25)]).toEqual([false, true]);
    expect(await control.replace(undefined)).toEqual({ ended: 2, switchedLeft: 0 });
    expect(judges.at(-1)).toBeUndefined();
    expect(control.judge).toBeUndefined();
    expect(ended).toHaveLength(1);
  });

  it('rules of the options first; none given: no policy', () => {
    const file = join(directory, 'q');
    writeFileSync(file, 'allow tcp any 80\ndefault allow');
    const egress = [
      { allow: false, text: 'host' },
      { allow: true, text: '10.0.0.0/8:443,any/dns' },
    ];
    expect(new EgressControl({ egress, policy: file }).text).toBe(
      'deny host\nallow 10.0.0.0/8 443\nallow dns any\nallow tcp any 80\ndefault allow\n',
    );
    expect(new EgressControl({ egress: [] }).text).toBeUndefined();
  });
});
