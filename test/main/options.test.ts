// @vitest: beside
import { describe, expect, it } from 'vitest';
import type { CommandName } from '../../src/main/bucatini/commands.ts';
import { OPTIONS, parseArguments, type Settings } from '../../src/main/bucatini/options.ts';
import { type LineOption, parseLineOptions } from '../../src/main/cli/lines.ts';
import { poolPlan } from '../../src/main/cli/pool-plan.ts';
import { UsageError } from '../../src/main/cli/values.ts';
import { slotShares } from '../../src/workers/placement.ts';

/** The first command that has the option. */
const commandOf = (name: string): CommandName =>
  OPTIONS.find((o) => `--${o.name}` === name)?.commands[0] ?? 'run';

function settings(...args: string[]): Settings {
  const parsed = parseArguments(commandOf(args[0]?.replace(/=.*/, '') ?? ''), args);
  if (parsed.kind !== 'go') throw new Error(parsed.kind);
  return parsed.settings;
}

const lines = (...options: LineOption[]) => parseLineOptions(options, () => '');

function message(
  args: readonly string[],
  command: CommandName = commandOf(args[0]?.replace(/=.*/, '') ?? ''),
): string {
  try {
    parseArguments(command, args);
  } catch (error) {
    expect(error).toBeInstanceOf(UsageError);
    return (error as Error).message;
  }
  throw new Error(`accepted: ${args.join(' ')}`);
}

/**
 * Per option: accepted texts with the resulting settings; refused texts with a word of the reason.
 */
const CASES: Record<string, { good: [string[], Partial<Settings>][]; bad: [string[], string][] }> = {
  '--address': {
    good: [
      [['192.0.2.15'], { address4: { family: 4, address: '192.0.2.15' } }],
      [['192.0.2.15/24'], { address4: { family: 4, address: '192.0.2.15', prefixLen: 24 } }],
      [['2001:DB8::0:15/64'], { address6: { family: 6, address: '2001:db8::15', prefixLen: 64 } }],
    ],
    bad: [
      [['192.0.2'], 'not an IPv4 or IPv6 address'],
      [[''], 'not an IPv4 or IPv6 address'],
      [['127.0.0.1'], 'loopback'],
      [['0.0.0.0'], '0.0.0.0/8'],
      [['224.0.0.1'], 'multicast'],
      [['255.255.255.255'], 'broadcast'],
      [['::'], 'unspecified'],
      [['::1'], 'loopback'],
      [['ff02::1'], 'multicast'],
      [['::ffff:192.0.2.1'], 'mapped'],
      [['fe80::1%eth0'], 'scope id'],
      [['192.0.2.15/33'], '1 to 32'],
      [['192.0.2.15/0'], '1 to 32'],
      [['2001:db8::1/129'], '1 to 128'],
      [['192.0.2.15/'], 'prefix length'],
      [['192.0.2.15/255.255.255.0'], 'prefix length'],
    ],
  },
  '--gateway': {
    good: [
      [['192.0.2.1'], { gateway4: '192.0.2.1' }],
      [['fe80::1'], { gateway6: 'fe80::1' }],
    ],
    bad: [
      [['gateway'], 'not an IPv4'],
      [['127.0.0.1'], 'loopback'],
      [['192.0.2.1/24'], 'not an IPv4'],
    ],
  },
  '--dns': {
    good: [
      [['127.0.0.53'], { dns: ['127.0.0.53'] }],
      [['::1'], { dns: ['::1'] }],
      [['none'], { dns: [] }],
    ],
    bad: [
      [['resolver.example'], 'or none'],
      [['0.0.0.0'], 'not the address of a resolver'],
    ],
  },
  '--interface-name': {
    good: [[['tap7'], { interfaceName: 'tap7' }]],
    bad: [
      [['lo'], 'loopback interface'],
      [[''], '1 to 15'],
      [['sixteen-letters-'], '1 to 15'],
      [['a/b'], '1 to 15'],
      [['a b'], '1 to 15'],
      [['..'], '1 to 15'],
    ],
  },
  '--mtu': {
    good: [
      [['1280'], { mtu: 1280 }],
      [['65521'], { mtu: 65521 }],
    ],
    bad: [
      [['65522'], 'larger than 65521'],
      [['67'], 'smaller than 68'],
      [['-1'], 'not a whole number'],
      [['1e3'], 'not a whole number'],
      [['1500.5'], 'not a whole number'],
      [[''], 'not a whole number'],
      [['1279'], '--ipv4-only'],
    ],
  },
  '--publish': {
    good: [[['8080:80'], { publish: [{ proto: 'tcp', address: '', port: 8080, targetPort: 80 }] }]],
    bad: [[['http'], 'port number']],
  },
  '--splice': { good: [[[], { splice: true }]], bad: [] },
  '--switch-sockets': { good: [[[], { switchSockets: true }]], bad: [] },
  '--no-switch': {
    good: [
      [
        ['10.0.0.0/8,2001:DB8::/32', '--switch-sockets'],
        { switchSockets: true, noSwitch: ['10.0.0.0/8', '2001:db8::/32'] },
      ],
      [
        ['192.0.2.7', '--no-switch', '2001:db8:0::7,0.0.0.0/0', '--switch-sockets'],
        { noSwitch: ['192.0.2.7/32', '2001:db8::7/128', '0.0.0.0/0'] },
      ],
    ],
    bad: [
      [[''], 'an item of the list is empty'],
      [['10.0.0.0/8,'], 'an item of the list is empty'],
      [['10.0.0.1/8'], 'bits set behind the prefix'],
      [['10.0.0.0/33'], 'not 0 to 32'],
      [['2001:db8::/129'], 'not 0 to 128'],
      [['::ffff:10.0.0.0/104'], 'mapped'],
      [['example.org'], 'not an IPv4 or IPv6 address'],
      [['fe80::1%eth0'], 'not an IPv4 or IPv6 address'],
      [[Array(257).fill('192.0.2.7').join()], 'more than 256'],
      [['10.0.0.0/8'], 'without --switch-sockets'],
    ],
  },
  '--socket': {
    good: [[['/run/user/1000/x.sock'], { socket: '/run/user/1000/x.sock' }]],
    bad: [
      [[''], 'is empty'],
      [[`/${'x'.repeat(108)}`], '107 bytes'],
    ],
  },
  '--interface': {
    good: [[['eth0'], { interface: 'eth0' }]],
    bad: [
      [[''], 'interface name'],
      [['a/b'], 'interface name'],
    ],
  },
  '--print-profile': { good: [[[''], { printProfile: '' }]], bad: [] },
  '--host-loopback': {
    good: [
      [['192.0.2.1'], { hostLoopback4: '192.0.2.1' }],
      [['fd00::1'], { hostLoopback6: 'fd00::1' }],
      [['none'], {}],
      [['gateway'], { hostLoopbackGateway: true }],
    ],
    bad: [
      [['127.0.0.1'], 'loopback'],
      [['yes'], 'gateway, 192.0.2.15, 2001:db8::15 or none'],
    ],
  },
  '--api-socket': {
    good: [
      [['/run/x'], { apiSocket: '/run/x' }],
      [['auto'], { apiSocket: 'auto' }],
    ],
    bad: [
      [[''], 'is empty'],
      [['x'.repeat(108)], 'longer than 107 bytes'],
    ],
  },
  '--multicast': {
    good: [
      [['all'], { multicast: { all: true, groups: [] } }],
      [['239.1.2.3:5001,all'], { multicast: { all: true, groups: [{ address: '239.1.2.3', port: 5001 }] } }],
    ],
    bad: [
      [['192.0.2.1'], 'not a multicast address'],
      [['mdns'], 'not a group'],
    ],
  },
  '--nat64': {
    good: [
      [['off'], { nat64: 'off' }],
      [['2001:db8:64::/48'], { nat64: [{ words: [0x20010db8, 0x00640000, 0, 0], bits: 48 }] }],
    ],
    bad: [[['64:ff9b::'], '32, 40, 48']],
  },
  // Their items are parsed later: host/egress-control.ts.
  '--allow': { good: [[['any'], { egress: [{ allow: true, text: 'any' }] }]], bad: [] },
  '--deny': { good: [[['host,any:25'], { egress: [{ allow: false, text: 'host,any:25' }] }]], bad: [] },
  '--policy': { good: [[['x'], { policy: 'x' }]], bad: [[[''], 'file name']] },
  '--protocol': { good: [[['udp'], { protocol: 'udp' }]], bad: [[['sctp'], 'not one of tcp, udp']] },
  '--ready-fd': { good: [[['3'], { readyFd: 3 }]], bad: [[['2'], 'smaller than 3']] },
  '--exit-fd': { good: [[['4'], { exitFd: 4 }]], bad: [[['x'], 'not a whole number']] },
  '--container': { good: [[['web'], { container: 'web' }]], bad: [[['-l'], 'not a name']] },
  '--name': { good: [[['example.org'], { name: 'example.org' }]], bad: [] },
  '--outbound-interface': {
    good: [[['eth0'], { outboundInterface: 'eth0' }]],
    bad: [[['not an interface'], '1 to 15']],
  },
  '--threads': {
    good: [
      [['auto'], { threads: { kind: 'auto' } }],
      [['fused'], { threads: { kind: 'fused' } }],
      [['pipeline'], { threads: { kind: 'pipeline', shards: 1 } }],
      [['pipeline=3'], { threads: { kind: 'pipeline', shards: 3 } }],
      [['lanes=1'], { threads: { kind: 'lanes', lanes: 1 } }],
      [['lanes=8'], { threads: { kind: 'lanes', lanes: 8 } }],
      [['lanes=1-3'], { threads: { kind: 'lanes', lanes: 3, first: 1 } }],
      [['lanes=2-2'], { threads: { kind: 'lanes', lanes: 2 } }],
    ],
    bad: [
      [['four'], 'pipeline=N'],
      [['pipeline='], 'not a whole number'],
      [['pipeline=0'], 'smaller than 1'],
      [['pipeline=17'], 'larger than 16'],
      [['fused=2'], 'lanes=N'],
      [['lanes'], 'write for example lanes=2'],
      [['lanes='], 'neither N nor MIN-MAX; write for example lanes=2 or lanes=1-4'],
      [['lanes=1-'], 'neither N nor MIN-MAX'],
      [['lanes=-2'], 'neither N nor MIN-MAX'],
      [['lanes=0'], 'smaller than 1'],
      [['lanes=9'], 'larger than 8'],
      [['lanes=0-2'], 'smaller than 1'],
      [['lanes=1-9'], 'larger than 8'],
      [['lanes=3-1'], '3 is more than 1; write the smaller number first'],
    ],
  },
  '--pool-size': {
    good: [[['8'], { poolMib: 8 }]],
    bad: [
      [['7'], 'smaller than 8'],
      [['1025'], 'larger than 1024'],
      [['64M'], 'not a whole number'],
    ],
  },
  '--pcap': { good: [[['x.pcap'], { pcap: 'x.pcap' }]], bad: [[[''], 'file name']] },
  '--pcap-rotate': {
    good: [
      [
        ['size=100mb,files=3', '--pcap', 'x.pcapng'],
        { pcap: 'x.pcapng', pcapRotate: { bytes: 100e6, files: 3 } },
      ],
      [['seconds=60', '--pcap', 'x'], { pcap: 'x', pcapRotate: { seconds: 60, files: 10 } }],
    ],
    bad: [
      [['size=1'], 'from 65536'],
      [['files=1'], 'smaller than 2'],
      [['seconds=0'], 'smaller than 1'],
      [['often'], 'size=100mb'],
      [['size=1mb,size=2mb'], 'size is given twice'],
      [['size=1tb'], 'not a number of bytes'],
      [['size=1mb'], 'needs a file'],
      [['files=3', '--pcap', 'x'], 'says not when'],
      [['size=1mb', '--pcap', '-'], 'not for standard output'],
    ],
  },
  '--pcap-ring': {
    good: [[['64MiB', '--pcap', 'x'], { pcap: 'x', pcapRing: 2 ** 26 }]],
    bad: [
      [['64'], 'from 1000000'],
      [['64mb'], 'needs a file'],
      [['64mb', '--pcap', '-'], 'not for standard output'],
      [['64mb', '--pcap', 'x', '--pcap-rotate', 'size=1mb'], 'what was in memory'],
    ],
  },
  '--pcap-snaplen': {
    good: [[['96', '--pcap', 'x'], { pcap: 'x', pcapSnaplen: 96 }]],
    bad: [
      [['13'], 'smaller than 14'],
      [['300000'], 'larger than'],
      [['96'], 'needs a file'],
    ],
  },
  '--pcap-filter': {
    good: [[['tcp port 443', '--pcap', 'x'], { pcap: 'x', pcapFilter: 'tcp port 443' }]],
    bad: [
      [[' '], 'is empty'],
      [['tcp'], 'needs a file'],
    ],
  },
  '--log-level': {
    good: [[['debug'], { logLevel: 'debug' }]],
    bad: [[['verbose'], 'error, warning, info, debug']],
  },
  '--log-format': {
    good: [[['logfmt'], { logFormat: 'logfmt' }]],
    bad: [[['xml'], 'text, logfmt, json']],
  },
  '--metrics': {
    good: [
      [['9469'], { metrics: { kind: 'tcp', address: '127.0.0.1', port: 9469 } }],
      [[':9469'], { metrics: { kind: 'tcp', address: '127.0.0.1', port: 9469 } }],
      [['localhost:1'], { metrics: { kind: 'tcp', address: '127.0.0.1', port: 1 } }],
      [['192.0.2.1:65535'], { metrics: { kind: 'tcp', address: '192.0.2.1', port: 65535 } }],
      [['[2001:DB8::0:1]:9469'], { metrics: { kind: 'tcp', address: '2001:db8::1', port: 9469 } }],
      [['unix:m:1.sock'], { metrics: { kind: 'unix', path: 'm:1.sock' } }],
    ],
    bad: [
      [['0'], 'smaller than 1'],
      [['65536'], 'larger than 65535'],
      [['127.0.0.1'], 'not a whole number'],
      [['127.0.0.1:'], 'not a whole number'],
      [['::1:9469'], '[::1]:9469'],
      [['[127.0.0.1]:9469'], 'not an address'],
      [['example.org:9469'], 'not an address'],
      [['*:9469'], 'write 0.0.0.0 or [::]'],
      [['/run/m.sock'], 'unix:/run/m.sock'],
      [['unix:'], 'is empty'],
      [[`unix:${'x'.repeat(108)}`], '107 bytes'],
    ],
  },
  '--listen': {
    good: [[['9469'], { listen: { kind: 'tcp', address: '127.0.0.1', port: 9469 } }]],
    bad: [[['x:1'], 'not an address']],
  },
  '--all': { good: [[[], { all: true }]], bad: [] },
  '--ipv4-only': { good: [[[], { ipv4: true, ipv6: false }]], bad: [] },
  '--ipv6-only': { good: [[[], { ipv4: false, ipv6: true }]], bad: [] },
  '--rate': {
    good: [
      [['100mbit'], { mtu: 1500, shaping: lines(['rate', '100mbit']) }],
      [['1gbit,64k/down'], { shaping: lines(['rate', '1gbit,64k/down']) }],
    ],
    bad: [
      [['100'], 'write for example'],
      [['10bit'], 'not within'],
      [['1mbit/left'], 'write /up or /down'],
    ],
  },
  '--delay': {
    good: [[['50ms,5ms,pareto/up'], { shaping: lines(['delay', '50ms,5ms,pareto/up']) }]],
    bad: [
      [['50'], 'not a time'],
      [['61s'], 'longer than 60s'],
      [['5ms,1ms,square'], 'uniform, normal, pareto'],
      [['5ms,'], 'write for example'],
    ],
  },
  '--loss': {
    good: [[['1%,5'], { shaping: lines(['loss', '1%,5']) }]],
    bad: [
      [['1'], 'not a share'],
      [['101%'], 'at most 100%'],
      [['90%,1'], 'write a longer one'],
      [['ge,1%'], 'both changes'],
    ],
  },
  '--impair': {
    good: [
      [['none'], { mtu: 1500, shaping: lines(['impair', 'none']) }],
      [['starlink'], { shaping: lines(['impair', 'starlink']) }],
      [['reorder=1%,5ms'], { shaping: lines(['impair', 'reorder=1%,5ms']) }],
    ],
    bad: [
      [['no-such-file'], 'nor a file that can be read: No such file'],
      [['speed=9'], 'no such setting'],
      [['toString'], 'nor a file that can be read: No such file'],
      [['constructor=9'], 'no such setting'],
      [['seed=x'], 'not a whole number'],
      [['max-packet=12'], 'smaller than 68'],
    ],
  },
  '--no-configure': { good: [[[], { configure: false }]], bad: [] },
  '--stats': { good: [[[], { stats: true }]], bad: [] },
  '--stats-json': { good: [[['x.json'], { statsJson: 'x.json' }]], bad: [[[''], 'file name']] },
  '--json': { good: [[[], { json: true }]], bad: [] },
  '--watch': { good: [[[], { watch: 2 }]], bad: [] },
  '--once': { good: [[[], { once: true }]], bad: [] },
  '--interval': {
    good: [
      [['0.5'], { interval: 0.5 }],
      [['60'], { interval: 60 }],
    ],
    bad: [
      [['0'], 'from 0.1 to 3600'],
      [['3601'], 'from 0.1 to 3600'],
      [['1s'], 'write for example 2'],
    ],
  },
  '--sort': { good: [[['rtt'], { sort: 'rtt' }]], bad: [[['name'], 'not one of rate, bytes']] },
  '--filter': { good: [[[':443 tcp'], { filter: ':443 tcp' }]], bad: [] },
};

describe('option table', () => {
  it('every option that changes a setting has cases here', () => {
    // Two commands may have an option of one name each.
    const names = [...new Set(OPTIONS.filter((o) => o.set !== undefined).map((o) => o.name))];
    expect(Object.keys(CASES).sort()).toEqual(names.map((name) => `--${name}`).sort());
  });

  for (const [name, { good, bad }] of Object.entries(CASES)) {
    for (const [args, expected] of good) {
      it(`${name} ${args.join(' ')}: taken`, () => {
        expect(settings(name, ...args)).toMatchObject(expected);
        if (args.length > 0) expect(settings(`${name}=${args[0]}`, ...args.slice(1))).toMatchObject(expected);
      });
    }
    for (const [args, reason] of bad) {
      it(`${name} "${args.join(' ')}": one line that names option, value and remedy`, () => {
        const text = message([name, ...args]);
        expect(text).toContain(name);
        expect(text).toContain(reason);
        expect(text).not.toContain('\n');
        expect(message([`${name}=${args[0]}`, ...args.slice(1)])).toBe(text);
      });
    }
    const option = OPTIONS.find((o) => `--${o.name}` === name);
    if (option?.optional) continue; // below
    if (option?.value === undefined) {
      it(`${name}=x: a flag takes no value`, () =>
        expect(message([`${name}=x`])).toContain('takes no value'));
    } else {
      it(`${name} at the end: needs a value`, () => expect(message([name])).toContain('needs a value'));
    }
  }

  it('values that may be left out: only behind "="', () => {
    expect(settings('--stats=5')).toMatchObject({ stats: true, statsSeconds: 5 });
    expect(settings('--watch=0.5')).toMatchObject({ watch: 0.5 });
    expect(parseArguments('run', ['--stats', '5'])).toMatchObject({ operands: ['5'] });
    expect(settings('--stats').statsSeconds).toBeUndefined();
    for (const text of ['--stats=0', '--stats=x', '--watch=0']) {
      expect(message([text])).toContain(text.replace('=', ' '));
      expect(message([text])).toMatch(/smaller than 1|not a whole number|0\.1 to 3600/);
    }
  });

  it('defaults: both families, 65520, 64 MiB, warnings for run and ready line for attach', () => {
    expect(settings()).toMatchObject({
      ipv4: true,
      ipv6: true,
      mtu: 65520,
      logLevel: 'warning',
      stats: false,
    });
    const attach = parseArguments('attach', []);
    expect(attach).toMatchObject({ settings: { logLevel: 'info' } });
  });
});

describe('parsing', () => {
  it('options end at the first operand, and at --', () => {
    expect(parseArguments('run', ['--mtu', '1500', 'ls', '--mtu', 'x'])).toMatchObject({
      settings: { mtu: 1500 },
      operands: ['ls', '--mtu', 'x'],
    });
    expect(parseArguments('run', ['--', '--help'])).toMatchObject({ kind: 'go', operands: ['--help'] });
    expect(parseArguments('run', ['-'])).toMatchObject({ operands: ['-'] });
  });

  it('--help and --version among options: take precedence', () => {
    expect(parseArguments('run', ['--mtu', '1500', '--help'])).toEqual({ kind: 'help' });
    expect(parseArguments('attach', ['--version'])).toEqual({ kind: 'version' });
    expect(parseArguments('run', ['ls', '--help'])).toMatchObject({ kind: 'go' });
  });

  it('short names: a value directly after the letter, several letters in one word', () => {
    const go = (...args: string[]) => {
      const parsed = parseArguments('run', args);
      return parsed.kind === 'go' ? [parsed.settings.publish, parsed.settings.ipv6, parsed.operands] : parsed;
    };
    const plan = { proto: 'tcp', address: '', port: 8080, targetPort: 80 };
    expect(go('-p8080:80', 'id', '-4')).toEqual([[plan], true, ['id', '-4']]);
    expect(go('-4p', '8080:80', '--', '-4p')).toEqual([[plan], false, ['-4p']]);
    expect(go('-4p8080:80')).toEqual([[plan], false, []]);
    expect(() => go('-4x')).toThrow(/-x.*unknown option/);
    expect(() => go('-4p')).toThrow(/-p needs a value/);
  });

  it('short names: each is accepted', () => {
    expect(settings('-4', '-p', '80:8080')).toMatchObject({ ipv6: false, publish: [{ port: 80 }] });
  });

  it('unknown option: the error suggests a similar one, else the list', () => {
    expect(message(['--mut', '1500'])).toBe('--mut: unknown option; did you mean --mtu?');
    expect(message(['--foo'])).toBe('--foo: unknown option; bucatini run --help lists the options');
    expect(message(['--wibble'])).toContain('bucatini run --help');
    expect(message(['-x'])).toContain('unknown option');
    expect(message(['--two words\nand a line'])).not.toContain('\n');
    expect(message(['--mtu', '1500'], 'doctor')).toContain('unknown option');
  });

  it('a single option given twice: refused', () => {
    expect(message(['--mtu', '1500', '--mtu', '1400'])).toContain('given twice');
    expect(message(['--address', '192.0.2.1', '--address', '192.0.2.2'])).toContain('second IPv4 value');
  });

  it('repeatable options: one address per family, several resolvers in order, several ports', () => {
    const both = settings(
      '--address',
      '192.0.2.5',
      '--address',
      '2001:db8::5',
      '--dns',
      '192.0.2.53',
      '--dns',
      '::1',
    );
    expect(both).toMatchObject({
      address4: { address: '192.0.2.5' },
      address6: { address: '2001:db8::5' },
      dns: ['192.0.2.53', '::1'],
    });
    expect(settings('--publish', '80', '--publish', '80/udp').publish).toHaveLength(2);
  });

  it('options that exclude each other: refused', () => {
    expect(message(['-4', '-6'])).toContain('exclude each other');
    expect(message(['-6', '--address', '192.0.2.5'])).toContain('no IPv4');
    expect(message(['-4', '--gateway', 'fe80::1'])).toContain('no IPv6');
    expect(message(['-4', '--host-loopback', 'fd00::1'])).toContain('no IPv6');
    for (const [other, ...args] of [
      ['--pcap', 'x.pcap'],
      ['--pcap', 'x.pcap', '--pcap-snaplen', '96'],
      ['--impair', 'none'],
      ['--rate', '10mbit'],
      ['--delay', '5ms'],
      ['--loss', '1%'],
    ] as const)
      expect(message(['--switch-sockets', other, ...args])).toContain(
        `--switch-sockets and ${other} exclude each other: `,
      );
    expect(message(['--switch-sockets'], 'attach')).toContain('unknown option');
    expect(message(['--dns', 'none', '--dns', '192.0.2.53'])).toContain('contradicts');
    expect(message(['--dns', '192.0.2.53', '--dns', 'none'])).toContain('contradicts');
    expect(message(['--host-loopback', '192.0.2.1', '--host-loopback', 'none'])).toContain('contradicts');
    expect(message(['--address', '192.0.2.1', '--gateway', '192.0.2.1'])).toContain(
      'also the address inside',
    );
    expect(message(['--publish', '80', '--publish', '127.0.0.1:80'])).toContain('collides');
    expect(settings('-4', '--mtu', '576')).toMatchObject({ mtu: 576 });
    expect(message(['--threads', 'lanes=4', '--pool-size', '15'])).toContain('4 lanes need at least 16');
    expect(settings('--pool-size', '16', '--threads', 'lanes=4')).toMatchObject({ poolMib: 16 });
  });
});

describe('pool', () => {
  it('pool size: slots fill it, and the flow table grows with it', () => {
    for (const mib of [8, 64, 1024]) {
      const plan = poolPlan(mib);
      const bytes = plan.smallSlots * 2048 + plan.largeSlots * 69632;
      expect(bytes).toBeLessThanOrEqual(mib << 20);
      expect(bytes).toBeGreaterThan((mib << 20) * 0.98);
    }
    expect(poolPlan(64)).toMatchObject({ flows: 32768 });
    expect(poolPlan(1024)).toMatchObject({ flows: 131072 });
    expect(poolPlan(100)).toMatchObject({ flows: 32768 }); // a power of two, no more than 512 a MiB
    expect(poolPlan(127)).toMatchObject({ flows: 32768 });
    expect(poolPlan(128)).toMatchObject({ flows: 65536 });
  });

  it('lanes: each has the slots and the flows of a pool of its part of the size', () => {
    const one = poolPlan(64);
    for (let lanes = 1; lanes <= 8; lanes++) {
      const plan = poolPlan(64 * lanes, lanes);
      expect(plan.flows).toBe(one.flows);
      expect(plan.smallSlots).toBe(one.smallSlots * lanes);
      expect(Math.floor(plan.largeSlots / lanes)).toBe(one.largeSlots);
      const least = poolPlan(Math.max(8, 4 * lanes), lanes);
      expect(() => slotShares(least.smallSlots, least.largeSlots, lanes, lanes)).not.toThrow();
    }
  });
});
