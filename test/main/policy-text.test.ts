import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  joinPolicy,
  parsePolicyItems,
  parsePolicyText,
  policyText,
  ruleText,
} from '../../src/main/cli/policy-text.ts';
import { UsageError } from '../../src/main/cli/values.ts';

const errorOf = (text: string): string => {
  try {
    parsePolicyText(text, 'p.txt');
  } catch (error) {
    expect(error).toBeInstanceOf(UsageError);
    return (error as Error).message;
  }
  return 'no error';
};

const itemError = (text: string): string => {
  try {
    parsePolicyItems(text, true);
  } catch (error) {
    expect(error).toBeInstanceOf(UsageError);
    return (error as Error).message;
  }
  return 'no error';
};

describe('the file', () => {
  it('rules, comments, blank lines, default', () => {
    const text = `# the corporate network
allow tcp 10.0.0.0/8 443   # https

  deny\tany
allow udp,tcp 2001:DB8::/32,fd00::1 1-1023,8443
allow any any 53
allow any 53
allow any tcp.test
allow *.Example.ORG
allow dns db.
default deny\r
`;
    expect(policyText(joinPolicy([], parsePolicyText(text, 'p')))).toBe(`allow tcp 10.0.0.0/8 443
deny any
allow 2001:db8::/32,fd00::1/128 1-1023,8443
allow any 53
allow any 53
allow tcp.test
allow *.example.org
allow dns db.
default deny
`);
    expect(parsePolicyText(text, 'p').rules.map(({ line }) => line)).toEqual([2, 4, 5, 6, 7, 8, 9, 10]);
  });

  it('an error names file, line and word', () => {
    expect({
      action: errorOf('\npermit any'),
      none: errorOf('allow tcp'),
      protocol: errorOf('allow sctp 10.0.0.0/8'),
      word: errorOf('allow privat'),
      address: errorOf('allow 10.0.0.300'),
      bits: errorOf('allow 10.0.0.1/8'),
      length: errorOf('allow 10.0.0.0/33'),
      six: errorOf('allow 2001:db8::/129'),
      mapped: errorOf('allow ::ffff:1.2.3.4'),
      zone: errorOf('allow fe80::1%eth0'),
      name: errorOf('allow ex ample.org 80'),
      star: errorOf('allow www.*.org'),
      port: errorOf('allow any http'),
      range: errorOf('allow any 80-70'),
      zero: errorOf('allow any 0'),
      large: errorOf('allow any 65536'),
      icmp: errorOf('allow icmp any 8'),
      extra: errorOf('allow tcp any 80 90'),
      default: errorOf('default maybe'),
      twice: errorOf('default deny\ndefault deny'),
    }).toMatchInlineSnapshot(`
      {
        "action": "p.txt: line 2: permit: a line begins with allow, deny, default or #",
        "address": "p.txt: line 1: 10.0.0.300: 10.0.0.300 is not an IPv4 or IPv6 address; write for example 10.0.0.0/8, 2001:db8::/32, *.example.org or any",
        "bits": "p.txt: line 1: 10.0.0.1/8: has bits set behind the prefix; write the first address of the block, or /32",
        "default": "p.txt: line 1: default maybe: write default allow or default deny",
        "extra": "p.txt: line 1: 90: one word too many; write allow|deny [PROTOCOL] TARGET [PORTS]",
        "icmp": "p.txt: line 1: icmp: only tcp and udp have ports; leave the ports out",
        "large": "p.txt: line 1: 65536: a port is a number from 1 to 65535",
        "length": "p.txt: line 1: 10.0.0.0/33: the prefix length is not 0 to 32",
        "mapped": "p.txt: line 1: ::ffff:1.2.3.4: is an IPv4 address mapped into IPv6; write the IPv4 address",
        "name": "p.txt: line 1: ex: not one of the protocols tcp, udp, icmp, dns, any",
        "none": "p.txt: line 1: allow tcp: names no target; write for example 10.0.0.0/8, 2001:db8::/32, *.example.org or any",
        "port": "p.txt: line 1: http: not one of any, host, private, internet, multicast; a domain name of one word has a dot at its end: http.",
        "protocol": "p.txt: line 1: 10.0.0.0/8: not a port; write for example 443, 1-1023 or 80,443",
        "range": "p.txt: line 1: 80-70: the range ends before it starts; write 70-80",
        "six": "p.txt: line 1: 2001:db8::/129: the prefix length is not 0 to 128",
        "star": "p.txt: line 1: www.*.org: not a prefix, a domain name or one of any, host, private, internet, multicast; write for example 10.0.0.0/8, 2001:db8::/32, *.example.org or any",
        "twice": "p.txt: line 2: default: is given twice; write it once",
        "word": "p.txt: line 1: privat: not one of any, host, private, internet, multicast; a domain name of one word has a dot at its end: privat.",
        "zero": "p.txt: line 1: 0: a port is a number from 1 to 65535",
        "zone": "p.txt: line 1: fe80::1%eth0: fe80::1%eth0 is not an IPv4 or IPv6 address; write for example 10.0.0.0/8, 2001:db8::/32, *.example.org or any",
      }
    `);
  });

  it('a short text cannot make a table that fills the memory', () => {
    const targets = Array.from({ length: 600 }, (_, i) => `10.0.${i >> 8}.${i & 255}`).join();
    const ports = Array.from({ length: 600 }, (_, i) => 2 * i + 1).join();
    expect(() => parsePolicyText(`deny tcp ${targets} ${ports}`, 'p')).toThrow(
      'p: line 1: more than 262144 pairs of a target and a port range',
    );
  });

  it('a text of 10,000 rules is parsed', () => {
    const text = Array.from({ length: 10_000 }, (_, i) => `allow tcp 10.${i >>> 8}.${i & 255}.0/24 443`);
    expect(parsePolicyText(text.join('\n'), 'p').rules).toHaveLength(10_000);
  });
});

describe('--allow and --deny', () => {
  it('lists of targets with ports and protocols', () => {
    const text =
      '10.0.0.0/8:443,[2001:db8::/32]:1-1023/udp,fd00::/8,*.example.org:80,private/icmp,any,[fd00::1]';
    expect(parsePolicyItems(text, false).map(ruleText)).toEqual([
      'deny 10.0.0.0/8 443',
      'deny udp 2001:db8::/32 1-1023',
      'deny fd00::/8',
      'deny *.example.org 80',
      'deny icmp private',
      'deny any',
      'deny fd00::1/128',
    ]);
  });

  it('errors', () => {
    expect({
      empty: itemError(''),
      hole: itemError('10.0.0.0/8,,any'),
      port: itemError('10.0.0.0/8:443,8443'),
      bracket: itemError('[10.0.0.1]:80'),
      range: itemError('any:9-1'),
      word: itemError('everything'),
      protocol: itemError('10.0.0.0/8:443/sctp'),
      protocols: itemError('10.0.0.0/8:443/tcp/udp'),
      brackets: itemError('2001:db8::/32:443'),
    }).toMatchInlineSnapshot(`
      {
        "bracket": "[10.0.0.1]:80: only IPv6 stands in brackets",
        "brackets": "2001:db8::/32:443: with ports, an IPv6 prefix stands in brackets, for example [2001:db8::/32]:443",
        "empty": "an item of the list is empty; write for example 10.0.0.0/8, 2001:db8::/32, *.example.org or any",
        "hole": "an item of the list is empty; write for example 10.0.0.0/8, 2001:db8::/32, *.example.org or any",
        "port": "8443: is no target; write the target in front of each port, as in 10.0.0.0/8:8443",
        "protocol": "10.0.0.0/8:443/sctp: sctp is not one of the protocols tcp, udp, icmp, dns",
        "protocols": "10.0.0.0/8:443/tcp/udp: has two protocols; write one item for each",
        "range": "9-1: the range ends before it starts; write 1-9",
        "word": "everything: not one of any, host, private, internet, multicast; a domain name of one word has a dot at its end: everything.",
      }
    `);
  });

  it('they come before the rules of the file; any allow-rule makes the default deny', () => {
    const file = parsePolicyText('deny any 25', 'p');
    expect(joinPolicy([], file).defaultAllow).toBe(true);
    expect(policyText(joinPolicy(parsePolicyItems('10.0.0.0/8', true), file))).toBe(
      'allow 10.0.0.0/8\ndeny any 25\ndefault deny\n',
    );
    expect(
      joinPolicy(parsePolicyItems('any', true), parsePolicyText('default allow', 'p')).defaultAllow,
    ).toBe(true);
  });
});

describe('fuzz', () => {
  const word = fc.oneof(
    fc.constantFrom('allow', 'deny', 'default', 'tcp', 'udp,icmp', 'dns', 'any', 'host', 'private', '443'),
    fc.constantFrom(
      '10.0.0.0/8',
      '::/0',
      '*.a.b',
      'x.',
      '1-5',
      '#',
      '[::1]:5',
      ':',
      '/',
      ',',
      '-',
      '.',
      '*.',
    ),
    fc.string({ maxLength: 8 }),
  );
  const line = fc.array(word, { maxLength: 6 }).map((words) => words.join(' '));

  it('any text is rules or an error of one line that names the file', () => {
    fc.assert(
      fc.property(
        fc.array(line, { maxLength: 6 }).map((lines) => lines.join('\n')),
        (text) => {
          const error = errorOf(text);
          if (error === 'no error') return;
          expect(error).toMatch(/^p\.txt: line [0-9]+: /);
          expect(error).not.toMatch(/[\n\r]/);
        },
      ),
    );
  });

  it('any value of an option too', () => {
    fc.assert(
      fc.property(
        fc.array(word, { maxLength: 4 }).map((words) => words.join(',')),
        (text) => {
          expect(itemError(text)).not.toMatch(/[\n\r]/);
        },
      ),
    );
  });

  it('what is printed is parsed as the same rules', () => {
    fc.assert(
      fc.property(fc.array(line, { maxLength: 6 }), (lines) => {
        for (const text of lines) {
          if (errorOf(text) !== 'no error') continue;
          const policy = joinPolicy([], parsePolicyText(text, 'p'));
          const again = joinPolicy([], parsePolicyText(policyText(policy), 'p'));
          expect(policyText(again)).toBe(policyText(policy));
          expect(again.rules).toEqual(policy.rules.map((rule) => ({ ...rule, line: 1 })));
        }
      }),
    );
  });
});
