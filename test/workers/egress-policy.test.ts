import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { joinPolicy, parsePolicyText } from '../../src/main/cli/policy-text.ts';
import { addressParse } from '../../src/proto/address.ts';
import { EGRESS_NAMES_BYTES, EgressNames, LEAST_TTL_S } from '../../src/workers/flow/egress-names.ts';
import {
  compileEgress,
  type EgressNat64,
  EgressPolicy,
  EgressProto,
  type EgressRule,
  type EgressRules,
} from '../../src/workers/flow/egress-policy.ts';

const NOW = 1000;

function address(text: string): Uint32Array {
  const words = new Uint32Array(4);
  if (!addressParse(text, words, 0)) throw new Error(text);
  return words;
}

/** A name in wire format without the root's zero. */
const wire = (name: string): Uint8Array =>
  Uint8Array.from(name.split('.').flatMap((label) => [label.length, ...Buffer.from(label)]));

interface Bed {
  readonly policy: EgressPolicy;
  readonly names: EgressNames;
  decide(to: string, proto?: keyof typeof EgressProto, port?: number, toHost?: boolean, now?: number): string;
  query(name: string): string;
  learn(name: string, to: string, ttl?: number): void;
}

function bed(rules: EgressRules, hosts: readonly string[] = [], nat64?: EgressNat64): Bed {
  const names = new EgressNames(new SharedArrayBuffer(EGRESS_NAMES_BYTES));
  const hostWords = Uint32Array.from(hosts.flatMap((text) => [...address(text), 128]));
  const policy = new EgressPolicy(compileEgress(rules, hostWords, nat64), names);
  const text = (verdict: number): string => (verdict < 0 ? `deny ${-1 - verdict}` : `allow ${verdict}`);
  return {
    policy,
    names,
    decide: (to, proto = 'tcp', port = 443, toHost = false, now = NOW) =>
      text(policy.decide(address(to), 0, toHost, EgressProto[proto], proto === 'icmp' ? 0 : port, now)),
    query: (name) => {
      const bytes = Uint8Array.of(9, 9, ...wire(name), 0);
      return text(policy.decideName(bytes, 2, bytes.length - 3));
    },
    learn: (name, to, ttl = 60) => {
      const bytes = wire(name);
      names.learn(bytes, 0, bytes.length, address(to), 0, ttl, NOW);
    },
  };
}

const policy = (text: string): EgressRules => joinPolicy([], parsePolicyText(text, 'test'));

describe('look-up', () => {
  it('the first rule that matches decides, else the default', () => {
    const b = bed(
      policy(`deny tcp 10.1.0.0/16 22
        allow tcp,udp 10.0.0.0/8 1-1023,8443
        allow icmp any
        allow 2001:db8::/32
        default deny`),
    );
    expect(b.decide('10.1.2.3', 'tcp', 22)).toBe('deny 0');
    expect(b.decide('10.1.2.3', 'udp', 22)).toBe('allow 1');
    expect(b.decide('10.1.2.3', 'tcp', 1024)).toBe('deny 4');
    expect(b.decide('10.1.2.3', 'tcp', 8443)).toBe('allow 1');
    expect(b.decide('10.1.2.3', 'icmp')).toBe('allow 2');
    expect(b.decide('11.1.2.3', 'icmp')).toBe('allow 2');
    expect(b.decide('2001:db8:1::1', 'udp', 9)).toBe('allow 3');
    expect(b.decide('2001:db9::1', 'udp', 9)).toBe('deny 4');
  });

  it('the default is deny if any rule allows, else allow', () => {
    expect(bed(policy('deny 192.0.2.0/24')).decide('10.0.0.1')).toBe('allow 1');
    expect(bed(policy('deny 192.0.2.0/24\nallow 10.0.0.0/8')).decide('11.0.0.1')).toBe('deny 2');
    expect(bed(policy('')).decide('11.0.0.1')).toBe('allow 0');
    expect(bed(policy('default deny')).decide('11.0.0.1')).toBe('deny 0');
  });

  it('0.0.0.0/0 is all of IPv4, ::/0 all of IPv6, any both', () => {
    const b = bed(policy('allow tcp 0.0.0.0/0\nallow udp ::/0\nallow icmp any'));
    expect(b.decide('1.2.3.4', 'tcp')).toBe('allow 0');
    expect(b.decide('2001:db8::1', 'tcp')).toBe('deny 3');
    expect(b.decide('1.2.3.4', 'udp')).toBe('deny 3');
    expect(b.decide('2001:db8::1', 'udp')).toBe('allow 1');
    expect(b.decide('1.2.3.4', 'icmp')).toBe('allow 2');
    expect(b.decide('::1:2', 'icmp')).toBe('allow 2');
  });

  it('private, internet, host and multicast divide the addresses', () => {
    const b = bed(policy('allow tcp private\nallow tcp internet\nallow tcp host\nallow tcp multicast'), [
      '192.168.7.7',
      '8.8.4.4',
    ]);
    const kind = (to: string, toHost = false): string | undefined =>
      ['private', 'internet', 'host', 'multicast', 'none'][
        Number(b.decide(to, 'tcp', 1, toHost).split(' ')[1])
      ];
    for (const to of [
      '10.1.1.1',
      '172.31.255.255',
      '192.168.7.8',
      '100.64.0.1',
      '169.254.169.254',
      'fd00::1',
      'fe80::1',
      '64:ff9b::a00:1',
    ])
      expect(kind(to), to).toBe('private');
    for (const to of [
      '8.8.8.8',
      '172.32.0.0',
      '100.128.0.0',
      '198.20.0.1',
      '2606:4700::1',
      '2001:200::1',
      '3ffe::1',
      '64:ff9b::808:808',
    ])
      expect(kind(to), to).toBe('internet');
    for (const to of ['192.168.7.7', '8.8.4.4']) expect(kind(to), to).toBe('host');
    expect(kind('192.168.7.8', true)).toBe('host');
    for (const to of ['224.0.0.251', '239.1.2.3', 'ff02::fb', '255.255.255.255'])
      expect(kind(to), to).toBe('multicast');
    for (const to of [
      '192.0.2.1',
      '198.51.100.1',
      '203.0.113.9',
      '198.19.0.1',
      '127.0.0.1',
      '0.0.0.0',
      '2001:db8::1',
      '3fff::1',
      '2002:a00:1::1',
      '2001:0:4136::1',
      '64:ff9b::127.0.0.1',
      '64:ff9b:1::8.8.8.8',
      '::',
      '::1',
    ])
      expect(kind(to), to).toBe('none');
  });
});

describe('behind a NAT64 prefix', () => {
  const prefix = (text: string, bits: number) => {
    const [a, b, c, d] = address(text) as unknown as [number, number, number, number];
    return { words: [a, b, c, d] as const, bits };
  };
  /** A prefix of 2000::/3 and one of fc00::/7. */
  const both = [prefix('2606:64::', 96), prefix('fd64:1::', 48)];
  const found: EgressNat64 = { trusted: [], found: both };
  const trusted: EgressNat64 = { trusted: both, found: [] };
  /** An IPv4 address a.b.c.d behind the three prefixes. */
  const behind = (ipv4: string): string[] => {
    const [a, b, c, d] = ipv4.split('.').map((octet) => Number(octet).toString(16).padStart(2, '0'));
    return [`64:ff9b::${ipv4}`, `2606:64::${ipv4}`, `fd64:1:0:${a}${b}:${c}:${d}00::`];
  };

  it.each([
    ['deny 10.0.0.0/8', '10.1.2.3'],
    ['deny private', '192.168.1.1'],
    ['deny private', '169.254.169.254'],
    ['deny host', '192.0.2.9'],
    ['deny internet', '8.8.8.8'],
  ])('%s: %s is denied behind each of them', (rule, to) => {
    for (const nat64 of [found, trusted]) {
      const b = bed(policy(`${rule}\ndefault allow`), ['192.0.2.9'], nat64);
      for (const address of behind(to)) expect(b.decide(address), address).toBe('deny 0');
      for (const address of behind('203.0.113.7').slice(0, 2))
        expect(b.decide(address), address).toBe(
          rule === 'deny internet' && address.startsWith('2606') ? 'deny 0' : 'allow 1',
        );
    }
  });

  it('without the prefix, only the well-known one counts', () => {
    const b = bed(policy('deny 10.0.0.0/8\ndefault allow'));
    expect(behind('10.1.2.3').map((to) => b.decide(to))).toEqual(['deny 0', 'allow 1', 'allow 1']);
  });

  it('an IPv4 rule that allows: behind the well-known prefix and given ones, not behind those of DNS', () => {
    const rules = policy('allow 192.0.2.0/24 443\nallow private\ndefault deny');
    const verdicts = (nat64: EgressNat64, to: string) => {
      const b = bed(rules, [], nat64);
      return behind(to).map((address) => b.decide(address));
    };
    expect(verdicts(trusted, '192.0.2.1')).toEqual(['allow 0', 'allow 0', 'allow 0']);
    // fd64:1::/48 is private itself.
    expect(verdicts(found, '192.0.2.1')).toEqual(['allow 0', 'deny 2', 'allow 1']);
    expect(verdicts(found, '10.0.0.1')).toEqual(['allow 1', 'deny 2', 'allow 1']);
  });

  it('internet: what is behind the prefix must be there, too', () => {
    const rules = policy('allow internet\ndefault deny');
    for (const nat64 of [found, trusted]) {
      const b = bed(rules, ['8.8.4.4'], nat64);
      for (const to of ['10.0.0.1', '127.0.0.1', '169.254.169.254', '8.8.4.4'])
        for (const address of behind(to)) expect(b.decide(address), address).toBe('deny 1');
      expect(b.decide('2606:64::8.8.8.8')).toBe('allow 0');
      expect(b.decide('2606:65::10.0.0.1'), 'beside the prefix').toBe('allow 0');
    }
  });

  it('the first rule that matches either address decides', () => {
    const b = bed(policy('allow 64:ff9b::10.0.0.1\ndeny 10.0.0.0/8\nallow 64:ff9b::/96\ndefault deny'));
    expect(b.decide('64:ff9b::10.0.0.1')).toBe('allow 0');
    expect(b.decide('64:ff9b::10.0.0.2')).toBe('deny 1');
    expect(b.decide('64:ff9b::8.8.8.8')).toBe('allow 2');
    expect(b.decide('8.8.8.8')).toBe('deny 3');
  });

  it('a permitted name does not lead to the host or to link-local addresses', () => {
    const b = bed(policy('allow example.org\ndefault deny'), ['192.0.2.9'], found);
    const all = [...behind('192.0.2.9'), ...behind('169.254.169.254'), ...behind('192.0.2.10')];
    for (const to of all) b.learn('example.org', to);
    expect(all.map((to) => b.decide(to))).toEqual([
      ...Array.from({ length: 6 }, () => 'deny 1'),
      ...['allow 0', 'allow 0', 'allow 0'],
    ]);
    b.learn('example.org', '192.0.2.11');
    expect(
      behind('192.0.2.11').map((to) => b.decide(to)),
      'an A record, used behind the prefix',
    ).toEqual(['allow 0', 'deny 1', 'deny 1']);
  });

  it('a prefix of DNS opens nothing', () => {
    const parts = [
      'any',
      'private',
      'internet',
      'host',
      '10.0.0.0/8',
      '192.0.2.9',
      '2606:64::/32',
      'fd64::/16',
    ];
    const rule = fc
      .tuple(fc.constantFrom('allow', 'deny'), fc.constantFrom(...parts))
      .map(([verb, target]) => `${verb} ${target}`);
    const to = fc.constantFrom(
      ...['10.0.0.1', '192.0.2.9', '127.0.0.1', '8.8.8.8', '169.254.1.1'].flatMap(behind),
    );
    fc.assert(
      fc.property(
        fc.array(rule, { maxLength: 6 }),
        fc.constantFrom('allow', 'deny'),
        to,
        (rules, last, at) => {
          const text = policy([...rules, `default ${last}`].join('\n'));
          const with64 = bed(text, ['192.0.2.9', 'fd64:1::7'], found).decide(at);
          const without = bed(text, ['192.0.2.9', 'fd64:1::7']).decide(at);
          if (without.startsWith('deny')) expect(with64).toMatch(/^deny/);
        },
      ),
    );
  });
});

describe('names', () => {
  const rules = policy(`deny  tcp bad.example.org
    allow tcp *.example.org,example.net 443
    allow udp www.example.org
    deny  any evil.test
    default deny`);

  it('a rule with a name matches the addresses of the names that were answered, for their time', () => {
    const b = bed(rules);
    expect(b.decide('192.0.2.7')).toBe('deny 4');
    b.learn('www.Example.ORG', '192.0.2.7', 60);
    expect(b.decide('192.0.2.7')).toBe('allow 1');
    expect(b.decide('192.0.2.7', 'udp', 9)).toBe('allow 2');
    expect(b.decide('192.0.2.7', 'tcp', 80)).toBe('deny 4');
    expect(b.decide('192.0.2.8')).toBe('deny 4');
    expect(b.decide('192.0.2.7', 'tcp', 443, false, NOW + 59)).toBe('allow 1');
    expect(b.decide('192.0.2.7', 'tcp', 443, false, NOW + 60)).toBe('deny 4');
    expect(b.decide('192.0.2.7', 'tcp', 443, false, 0), 'time does not count').toBe('allow 1');
  });

  it('*.NAME is every name below it but not itself; NAME is itself alone', () => {
    const b = bed(rules);
    b.learn('example.org', '192.0.2.1');
    b.learn('a.b.c.example.org', '192.0.2.2');
    b.learn('example.net', '192.0.2.3');
    b.learn('www.example.net', '192.0.2.4');
    b.learn('notexample.net', '192.0.2.5');
    expect(['1', '2', '3', '4', '5'].map((n) => b.decide(`192.0.2.${n}`))).toEqual([
      ...['deny 4', 'allow 1', 'allow 1', 'deny 4', 'deny 4'],
    ]);
  });

  it('an address with several names: the first rule about any of them decides', () => {
    const b = bed(rules);
    b.learn('www.example.org', '2001:db8::7');
    b.learn('bad.example.org', '2001:db8::7');
    expect(b.decide('2001:db8::7')).toBe('deny 0');
    expect(b.decide('2001:db8::7', 'udp')).toBe('allow 2');
  });

  it('a TTL below the least one counts as that', () => {
    const b = bed(rules);
    b.learn('www.example.org', '192.0.2.7', 0);
    expect(b.decide('192.0.2.7', 'tcp', 443, false, NOW + LEAST_TTL_S - 1)).toBe('allow 1');
    expect(b.decide('192.0.2.7', 'tcp', 443, false, NOW + LEAST_TTL_S)).toBe('deny 4');
  });

  it('a permitted name does not lead to the host or to link-local addresses', () => {
    const b = bed(rules, ['192.0.2.9']);
    for (const to of ['192.0.2.9', '169.254.169.254', 'fe80::1', '192.0.2.10'])
      b.learn('www.example.org', to);
    b.learn('bad.example.org', '192.0.2.9');
    expect(b.decide('192.0.2.10')).toBe('allow 1');
    expect(b.decide('192.0.2.10', 'tcp', 443, true)).toBe('deny 4');
    expect(b.decide('169.254.169.254')).toBe('deny 4');
    expect(b.decide('fe80::1')).toBe('deny 4');
    expect(b.decide('192.0.2.9')).toBe('deny 0');
  });

  it('more addresses than places: the table stays bounded and keeps those that last longest', () => {
    const b = bed(rules);
    for (let i = 0; i < 20_000; i++)
      b.learn('www.example.org', `10.${i >>> 16}.${(i >>> 8) & 255}.${i & 255}`, 30);
    b.learn('www.example.org', '192.0.2.7', 3600);
    for (let i = 0; i < 20_000; i++)
      b.learn('www.example.org', `11.${i >>> 16}.${(i >>> 8) & 255}.${i & 255}`, 30);
    expect(b.decide('192.0.2.7')).toBe('allow 1');
  });

  it('queries: a name that no allow-rule can match is refused', () => {
    const b = bed(rules);
    expect(b.query('www.example.org')).toBe('allow 1');
    expect(b.query('WWW.EXAMPLE.ORG')).toBe('allow 1');
    expect(b.query('example.org')).toBe('deny 4');
    expect(b.query('bad.example.org'), 'only TCP is denied').toBe('allow 1');
    expect(b.query('evil.test')).toBe('deny 3');
    expect(b.query('other.test')).toBe('deny 4');
  });

  it('queries: an allow-rule with addresses can match every name, and dns rules are about queries alone', () => {
    expect(bed(policy('allow tcp 10.0.0.0/8 443')).query('a.test')).toBe('allow 0');
    expect(bed(policy('allow host')).query('a.test')).toBe('deny 1');
    expect(bed(policy('allow tcp 10.0.0.0/8 443\nallow tcp a.test\ndeny any')).query('b.test')).toBe(
      'allow 0',
    );
    expect(bed(policy('deny any\nallow tcp 10.0.0.0/8 443')).query('b.test')).toBe('deny 0');
    const strict = bed(policy('allow dns *.corp.test\nallow tcp 10.0.0.0/8 443\ndeny dns any'));
    expect(strict.query('db.corp.test')).toBe('allow 0');
    expect(strict.query('a.test')).toBe('deny 2');
    strict.learn('db.corp.test', '192.0.2.7');
    expect(strict.decide('192.0.2.7')).toBe('deny 3');
    expect(strict.decide('10.0.0.1')).toBe('allow 1');
    expect(strict.policy.readsQueries).toBe(true);
    expect(bed(policy('deny evil.test')).query('evil.test')).toBe('deny 0');
    expect(bed(policy('deny evil.test 443')).query('evil.test')).toBe('allow 1');
    expect(bed(policy('deny any')).policy.readsQueries).toBe(true);
    expect(bed(policy('deny 10.0.0.0/8')).policy.readsQueries).toBe(false);
  });
});

// A second implementation of the look-up: rule after rule.

const PROTOS = ['tcp', 'udp', 'icmp'] as const;
/** Few addresses, so that rules and destinations meet. */
const arbAddress = fc.oneof(
  fc.tuple(fc.constantFrom(10, 11), fc.nat(1), fc.constant(0), fc.nat(3)).map((n) => n.join('.')),
  fc.tuple(fc.constantFrom('fd00', '2001'), fc.nat(3)).map(([net, n]) => `${net}::${n}`),
);
const arbTarget = fc.oneof(
  fc.tuple(arbAddress, fc.nat(32)).map(([text, cut]) => {
    const words = address(text);
    const family = text.includes(':') ? (6 as const) : (4 as const);
    const bits = 128 - (family === 4 ? cut : cut * 4);
    const masked = [0, 1, 2, 3].map((i) => {
      const left = Math.min(Math.max(bits - 32 * i, 0), 32);
      return (words[i]! & (left === 0 ? 0 : (0xffffffff << (32 - left)) >>> 0)) >>> 0;
    });
    return { kind: 'prefix' as const, words: masked as [number, number, number, number], bits, family };
  }),
  fc.constantFrom('any' as const, 'host' as const).map((word) => ({ kind: 'word' as const, word })),
);
const arbRule: fc.Arbitrary<EgressRule> = fc
  .record({
    allow: fc.boolean(),
    protocols: fc.integer({ min: 1, max: 15 }),
    targets: fc.array(arbTarget, { minLength: 1, maxLength: 3 }),
    ports: fc.array(fc.tuple(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 9 })), {
      maxLength: 2,
    }),
  })
  .map((rule) => ({
    ...rule,
    ports: rule.ports.map(([a, b]) => [Math.min(a, b), Math.max(a, b)] as const),
    line: 0,
  }));

function reference(rules: EgressRules, to: string, toHost: boolean, proto: number, port: number): number {
  const words = address(to);
  const is4 = !to.includes(':');
  const bitsOf = (list: ArrayLike<number>): string =>
    Array.from(list, (word) => word.toString(2).padStart(32, '0')).join('');
  const index = rules.rules.findIndex((rule) => {
    if ((rule.protocols & proto) === 0) return false;
    if (rule.ports.length > 0 && !rule.ports.some(([a, b]) => port >= a && port <= b)) return false;
    return rule.targets.some((target) => {
      if (target.kind === 'word') return target.word === 'any' || toHost;
      if (target.kind !== 'prefix' || (target.family === 4) !== is4) return false;
      return bitsOf(words).slice(0, target.bits) === bitsOf(target.words).slice(0, target.bits);
    });
  });
  const rule = index < 0 ? rules.rules.length : index;
  return (index < 0 ? rules.defaultAllow : rules.rules[index]!.allow) ? rule : -1 - rule;
}

it('property: the compiled policy decides as its rules read one after the other', () => {
  fc.assert(
    fc.property(
      fc.array(arbRule, { maxLength: 40 }),
      fc.boolean(),
      fc.array(
        fc.tuple(arbAddress, fc.boolean(), fc.constantFrom(...PROTOS), fc.integer({ min: 1, max: 9 })),
        { minLength: 1, maxLength: 20 },
      ),
      (rules, defaultAllow, flows) => {
        const all = { rules, defaultAllow };
        const { policy } = bed(all);
        for (const [to, toHost, proto, port] of flows) {
          const bit = EgressProto[proto];
          const expected = reference(all, to, toHost, bit, port);
          expect(policy.decide(address(to), 0, toHost, bit, port, NOW)).toBe(expected);
        }
      },
    ),
  );
});

it('property: any bytes as a name are read within their length', () => {
  const b = bed(policy('allow *.example.org\nallow dns a.b\ndeny evil.test'));
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 255 }), fc.uint8Array({ maxLength: 40 }), (name, behind) => {
      const verdict = b.policy.decideName(Uint8Array.of(...name, ...behind), 0, name.length);
      expect(b.policy.decideName(Uint8Array.of(...name), 0, name.length)).toBe(verdict);
      b.policy.concerns(name, 0, name.length);
    }),
  );
});
