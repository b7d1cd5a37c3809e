// @vitest: beside
/**
 * Port options of the pasta front end. The expected results are those of passt 2026-10-02 with the same
 * arguments.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  ForwardError,
  type ListeningPorts,
  RuleTable,
  ruleListeners,
  ruleText,
} from '../../../src/main/pasta/forward-rules.ts';
import {
  applyPortSpec,
  DYNAMIC_PORTS,
  ephemeralPorts,
  parsePortSpec,
} from '../../../src/main/pasta/port-spec.ts';

const EPHEMERAL = { first: 32768, last: 60999 };
const ALL = { ipv4: true, ipv6: true, tcp: true, udp: true };

/** Apply options as on a command line. @returns the rules in the format of passt's pasta, or its message */
function rules(options: readonly string[], limits = ALL): string[] {
  const host = new RuleTable('HOST', limits);
  const splice = new RuleTable('SPLICE', limits);
  try {
    for (let i = 0; i < options.length; i += 2) {
      const option = options[i]!;
      const outbound = option === '-T' || option === '-U';
      const proto = option.toLowerCase() === '-t' ? 'tcp' : 'udp';
      applyPortSpec(option, proto, options[i + 1]!, outbound ? splice : host, EPHEMERAL);
    }
  } catch (error) {
    if (!(error instanceof ForwardError)) throw error;
    return error.message.split('\n');
  }
  return [...host.rules, ...splice.rules].map(ruleText);
}

describe('port options: rules', () => {
  it.each([
    ['-t 80', ['TCP [*]:80  =>  80 ']],
    ['-t 080', ['TCP [*]:80  =>  80 ']],
    ['-t */8083', ['TCP [*]:8083  =>  8083 ']],
    ['-t [::1]/8081', ['TCP [::1]:8081  =>  8081 ']],
    ['-t %lo/8082', ['TCP [*]%lo:8082  =>  8082 ']],
    ['-t 1:2:3:4:5:6:7:8/8000', ['TCP [1:2:3:4:5:6:7:8]:8000  =>  8000 ']],
    ['-t ::ffff:192.0.2.2/80', ['TCP [192.0.2.2]:80  =>  80 ']],
    ['-t 127.0.0.1%lo/8000:192.0.2.7/9000', ['TCP [127.0.0.1]%lo:8000  =>  192.0.2.7:9000 ']],
    ['-t [::]/8000:[2001:db8::7]/90', ['TCP [::]:8000  =>  2001:db8::7:90 ']],
    ['-t 192.0.2.2/80:0.0.0.0', ['TCP [192.0.2.2]:80  =>  80 ']],
    ['-t ::1%lo/8000-8003:9000-9003', ['TCP [::1]%lo:8000-8003  =>  9000-9003 ']],
    ['-u 192.0.2.2/53-60:1053-1060', ['UDP [192.0.2.2]:53-60  =>  1053-1060 ']],
    ['-t 10-20:110-120,~15', ['TCP [*]:10-14  =>  110-114 ', 'TCP [*]:16-20  =>  116-120 ']],
    ['-t 10-20,~30', ['TCP [*]:10-20  =>  10-20 ']],
    ['-t 8001,8002,~8003', ['TCP [*]:8001  =>  8001 ', 'TCP [*]:8002  =>  8002 ']],
    ['-t 80,443:8443 -T 5000,~5000', ['TCP [*]:80  =>  80 ', 'TCP [*]:443  =>  8443 ']],
    [
      '-t all',
      ['TCP [*]:1-32767  =>  1-32767  (best effort)', 'TCP [*]:61000-65535  =>  61000-65535  (best effort)'],
    ],
    [
      '-t all,all',
      ['TCP [*]:1-32767  =>  1-32767  (best effort)', 'TCP [*]:61000-65535  =>  61000-65535  (best effort)'],
    ],
    ['-t all,80', ['TCP [*]:80  =>  80 ']],
    [
      '-t 0.0.0.0/all:192.0.2.7',
      [
        'TCP [0.0.0.0]:1-32767  =>  192.0.2.7:1-32767  (best effort)',
        'TCP [0.0.0.0]:61000-65535  =>  192.0.2.7:61000-65535  (best effort)',
      ],
    ],
    [
      '-T auto',
      [
        'TCP [*]%lo:1-32767  =>  1-32767  (best effort) (auto-scan)',
        'TCP [*]%lo:61000-65535  =>  61000-65535  (best effort) (auto-scan)',
      ],
    ],
    ['-t 80,auto', ['TCP [*]:80  =>  80  (auto-scan)']],
    ['-t auto,80', ['TCP [*]:80  =>  80  (auto-scan)']],
    ['-T 5000:5001 -U 53', ['TCP [*]%lo:5000  =>  5001 ', 'UDP [*]%lo:53  =>  53 ']],
    ['-t none -t none', []],
    ['-t none -t 8080', ['TCP [*]:8080  =>  8080 ']],
    ['-t 80 -u none', ['TCP [*]:80  =>  80 ']],
    ['-t 80 -u 80 -T 80', ['TCP [*]:80  =>  80 ', 'UDP [*]:80  =>  80 ', 'TCP [*]%lo:80  =>  80 ']],
    ['-t 0.0.0.0/80 -t ::/80', ['TCP [0.0.0.0]:80  =>  80 ', 'TCP [::]:80  =>  80 ']],
    ['-t 127.0.0.1/80 -t 127.0.0.2/80', ['TCP [127.0.0.1]:80  =>  80 ', 'TCP [127.0.0.2]:80  =>  80 ']],
  ])('%s', (line, expected) => {
    expect(rules(line.split(' '))).toEqual(expected);
  });

  it('one family is on: the wildcard address is of that family, in the list and as target', () => {
    const options = ['-t', '80', '-t', '81:192.0.2.7/90', '-T', '82'];
    expect(rules(options, { ...ALL, ipv6: false })).toEqual([
      'TCP [0.0.0.0]:80  =>  80 ',
      'TCP [0.0.0.0]:81  =>  192.0.2.7:90 ',
      'TCP [0.0.0.0]%lo:82  =>  82 ',
    ]);
    expect(rules(['-t', '80', '-t', '81:[2001:db8::7]/90'], { ...ALL, ipv4: false })).toEqual([
      'TCP [::]:80  =>  80 ',
      'TCP [::]:81  =>  2001:db8::7:90 ',
    ]);
  });
});

describe('port options: refusals', () => {
  it.each([
    '80-70',
    'x',
    '80,',
    '',
    '70000',
    '80:90-91',
    '80-81:65535-65536',
    '80:65536',
    '127.0.0.300/80',
    '%/8083',
    '127.0.0.1%/8083',
    'none,80',
    '8000:',
    '8000-',
    '~',
    '8000:8000:80',
    '100000000000',
    '4294967376',
    '80;81',
    '127.0.0.1%waytoolonganame1/80',
  ])('-t %s: refused as no port specifier', (spec) => {
    expect(rules(['-t', spec])).toEqual([`Invalid port specifier '${spec}'`]);
  });

  it.each([
    ['-t /root', ["Invalid port specifier 'root'"]],
    ['-t 0.0.0.0/8000:192.0.2.7/9000-9001', ["Invalid port specifier '8000:192.0.2.7/9000-9001'"]],
    ['-t 0', ['Forwarding rule attempts to map from port 0', 'Unable to add rule TCP [*]:0  =>  0 ']],
    [
      '-t 80-81:0-1',
      ['Forwarding rule attempts to map to port 0', 'Unable to add rule TCP [*]:80-81  =>  0-1 '],
    ],
    ['-t 80 -t none', ['-t none conflicts with previous options']],
    ['-T 127.0.0.1/80', ['Listening address not allowed for -T 127.0.0.1/80']],
    ['-T %lo/80', ['Listening address not allowed for -T %lo/80']],
    [
      '-t 80 -t 80',
      [
        'Forwarding configuration conflict: TCP [*]:80  =>  80  versus TCP [*]:80  =>  80 ',
        'Unable to add rule TCP [*]:80  =>  80 ',
      ],
    ],
    [
      '-t 8000,8000',
      [
        'Forwarding configuration conflict: TCP [*]:8000  =>  8000  versus TCP [*]:8000  =>  8000 ',
        'Unable to add rule TCP [*]:8000  =>  8000 ',
      ],
    ],
    [
      '-t 80-90 -t 85:1085',
      [
        'Forwarding configuration conflict: TCP [*]:85  =>  1085  versus TCP [*]:80-90  =>  80-90 ',
        'Unable to add rule TCP [*]:85  =>  1085 ',
      ],
    ],
    [
      '-t 127.0.0.1/80 -t 127.0.0.1%lo/80',
      [
        'Forwarding configuration conflict: TCP [127.0.0.1]%lo:80  =>  80  versus TCP [127.0.0.1]:80  =>  80 ',
        'Unable to add rule TCP [127.0.0.1]%lo:80  =>  80 ',
      ],
    ],
    [
      '-t 8000:192.0.2.7/9000',
      [
        'Dual stack forward to IPv4 address 192.0.2.7 unsupported',
        'Did you mean 0.0.0.0/... instead?',
        'Unable to add rule TCP [*]:8000  =>  192.0.2.7:9000 ',
      ],
    ],
    [
      '-t ::/8000:192.0.2.7',
      [
        'Forward from IPv6 (::) to IPv4 (192.0.2.7) unsupported',
        'Unable to add rule TCP [::]:8000  =>  192.0.2.7:8000 ',
      ],
    ],
    [
      '-t 0.0.0.0/80:224.0.0.1',
      [
        'Multicast target address 224.0.0.1 for forwarding rule',
        'Unable to add rule TCP [0.0.0.0]:80  =>  224.0.0.1:80 ',
      ],
    ],
  ])('%s', (line, expected) => {
    expect(rules(line.split(' '))).toEqual(expected);
  });

  it('a protocol or family that is off: refused by name', () => {
    expect(rules(['-t', '80'], { ...ALL, tcp: false })[0]).toBe(
      "Can't add TCP forwarding rule, TCP not enabled",
    );
    expect(rules(['-t', '::1/80'], { ...ALL, ipv6: false })[0]).toBe('IPv6 forward, but IPv6 not enabled');
    expect(rules(['-t', '127.0.0.1/80'], { ...ALL, ipv4: false })[0]).toBe(
      'IPv4 forward, but IPv4 not enabled',
    );
  });

  it('256 rules: the last is refused', () => {
    const options = Array.from({ length: 256 }, (_, i) => ['-t', `${2002 + 2 * i}`]).flat();
    expect(rules(options)).toEqual([
      'Too many rules (maximum 255)',
      'Unable to add rule TCP [*]:2512  =>  2512 ',
    ]);
    expect(rules(options.slice(2))).toHaveLength(255);
  });
});

describe('port options: properties', () => {
  it('exclusions: all ports of the range but the excluded are listened on, each with its own target', () => {
    const range = fc.tuple(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 0, max: 40 }));
    fc.assert(
      fc.property(
        range,
        fc.array(range, { maxLength: 5 }),
        fc.integer({ min: 1, max: 999 }),
        (range, holes, to) => {
          const [first, more] = range;
          const spec = [
            `${first}-${first + more}:${to}-${to + more}`,
            ...holes.map(([a, n]) => `~${a}-${a + n}`),
          ];
          const found = new Map<number, number>();
          for (const rule of parsePortSpec('-t', 'tcp', spec.join(','), false, EPHEMERAL)) {
            for (let p = rule.first; p <= rule.last; p++) {
              expect(found.has(p)).toBe(false);
              found.set(p, rule.to + p - rule.first);
            }
          }
          for (let p = first; p <= first + more; p++) {
            const isHole = holes.some(([a, n]) => p >= a && p <= a + n);
            expect(found.get(p)).toBe(isHole ? undefined : to + p - first);
            found.delete(p);
          }
          expect(found.size).toBe(0);
        },
      ),
    );
  });

  it('any words: rules, or one UsageError', () => {
    const word = fc.string({ unit: fc.constantFrom(...'0189:-~,/%*[].al') });
    fc.assert(fc.property(word, (spec) => void rules(['-t', spec])));
  });
});

describe('ephemeral ports', () => {
  it('the range of the kernel, else the dynamic ports of RFC 6335', () => {
    expect(ephemeralPorts('32768\t60999\n')).toEqual(EPHEMERAL);
    for (const text of [undefined, '', 'x', '9 3', '1 70000'])
      expect(ephemeralPorts(text)).toEqual(DYNAMIC_PORTS);
  });
});

describe('listeners of a rule', () => {
  const listeners = (
    option: string,
    spec: string,
    limits = ALL,
    listening: ListeningPorts = { tcp: [79, 81, 91], udp: [] },
  ) => {
    const direction = option === '-T' ? 'SPLICE' : 'HOST';
    const table = new RuleTable(direction, limits);
    applyPortSpec(option, 'tcp', spec, table, EPHEMERAL);
    return table.rules.flatMap((rule) => ruleListeners(rule, direction, true, listening));
  };

  it('a range: one listener', () => {
    expect(listeners('-t', '80-90:180-190')).toEqual([
      { proto: 'tcp', from: 'host', address: '', port: 80, lastPort: 90, targetPort: 180, path: 'splice' },
    ]);
  });

  it('auto: only ports with a listener at the other side, with their offset', () => {
    expect(listeners('-T', '80-90:180-190,auto')).toEqual([
      {
        proto: 'tcp',
        from: 'guest',
        address: '',
        interface: 'lo',
        port: 81,
        targetPort: 181,
        weak: true,
        mayFail: true,
        path: 'splice',
      },
    ]);
    expect(listeners('-t', 'auto', ALL, { tcp: [], udp: [81] })).toEqual([]);
  });

  it('one family is on: the wildcard address of that family', () => {
    expect(listeners('-t', '80', { ...ALL, ipv6: false })[0]?.address).toBe('0.0.0.0');
    expect(listeners('-t', '80', { ...ALL, ipv4: false })[0]?.address).toBe('::');
  });

  it('a target address: the listener uses the TAP path', () => {
    expect(listeners('-t', '0.0.0.0/80:192.0.2.7')[0]).toMatchObject({
      path: 'tap',
      targetAddress: '192.0.2.7',
    });
  });
});
