/** The expected errors and their order are those of slirp4netns 1.3.3. */
import { describe, expect, it } from 'vitest';
import { gatewayMac, networkAddresses } from '../../../src/main/slirp4netns/network.ts';
import { parseSlirp, type SlirpConf, type SlirpHost } from '../../../src/main/slirp4netns/options.ts';
import { manPage, usageText, versionText } from '../../../src/main/slirp4netns/texts.ts';

const HOST: SlirpHost = {
  exists: (path) => path === '/netns' || path === '/userns',
  interfaceAddress: (name, family) => (name === 'eth0' && family === 4 ? '192.0.2.1' : undefined),
};
const parse = (...argv: string[]) => parseSlirp(argv, 'slirp4netns', HOST);
const conf = (...argv: string[]): SlirpConf => {
  const parsed = parse(...argv);
  if (parsed.kind !== 'go') throw new Error(JSON.stringify(parsed));
  return parsed.conf;
};

const MAC_FORM =
  "macaddress has to be a valid MAC address (hex string, 6 bytes, each byte separated by a ':').";

describe('slirp4netns options', () => {
  it("Podman's command line: parsed without a warning", () => {
    const words =
      '--disable-host-loopback --mtu=65520 --enable-sandbox --enable-seccomp --enable-ipv6 -c -r 3 -e 4 --netns-type=path /netns tap0';
    expect(conf(...words.split(' '))).toMatchObject({
      target: { kind: 'netns', path: '/netns', tapName: 'tap0' },
      ...{ hostLoopback: false, mtu: 65520, ipv6: true, configure: true },
      ...{ readyFd: 3, exitFd: 4, dns: true },
    });
  });

  it("RootlessKit's command line: no --configure, options after operands, shortened names", () => {
    expect(conf('--mtu', '65520', '-r', '3', '77', 'tap0', '--api=/s')).toMatchObject({
      target: { kind: 'netns', path: '/proc/77/ns/net', pid: 77, tapName: 'tap0' },
      ...{ configure: false, apiSocket: '/s', readyFd: 3 },
    });
  });

  it('an open TAP; a long name is cut; a deprecated option: a warning', () => {
    expect(conf('--netns-type=tapfd', '9').target).toEqual({ kind: 'tapfd', fd: 9 });
    expect(conf('1', 'a234567890123456789').target).toMatchObject({ tapName: 'a23456789012345' });
    const old = parse('--no-host-loopback', '1', 'tap0', 'more');
    expect(old).toMatchObject({ kind: 'go', conf: { hostLoopback: false } });
    expect(old.kind === 'go' && old.warnings).toEqual([
      expect.stringContaining('--no-host-loopback is deprecated'),
      'WARNING: too many arguments',
    ]);
    const sandbox = parse('--create-sandbox', '1', 'tap0');
    expect(sandbox.kind === 'go' && sandbox.warnings).toEqual([
      'WARNING: --create-sandbox is deprecated and will be removed in future releases, please use --enable-sandbox instead.',
    ]);
  });

  it('--macaddress with short bytes; --outbound-addr with an interface name: accepted', () => {
    expect(conf('-c', '--macaddress=a:BB', '1', 't').mac).toBe('0a:bb:00:00:00:00');
    expect(conf('--outbound-addr=eth0', '1', 't').outbound4).toBe('192.0.2.1');
    expect(conf('--outbound-addr6=2001:db8::1', '1', 't').outbound6).toBe('2001:db8::1');
  });

  it.each([
    [['1', 't', '--mtu=0'], 'MTU must be a positive integer (< 65522)', true],
    [['1', 't', '--mtu=65522'], 'MTU must be a positive integer (< 65522)', true],
    [['1', 't', '-e', '-1'], 'exit-fd must be a non-negative integer', true],
    [['1', 't', '-r', 'x'], 'ready-fd must be a non-negative integer', true],
    [['--bogus'], "slirp4netns: unrecognized option '--bogus'", true],
    [['0', 't'], 'PID must be a positive integer', true],
    [['1'], '', true],
    [[], '', true],
    [
      ['--netns-type=path', '/none', 't'],
      'existing path expected when --netns-type=path: No such file or directory',
      true,
    ],
    [['--netns-type=tapfd', 'x'], 'TAPFD must a file descriptor', true],
    [['--userns-path=/none', '1', 't'], "userns path doesn't exist: /none", true],
    [['--userns-path=/none', '--mtu=0', '1'], "userns path doesn't exist: /none", true],
    [
      ['--macaddress=1:2', '0'],
      '--macaddr cannot be specified when --configure or -c is not specified',
      true,
    ],
    [['--target-type=bess'], '', true],
    [['--target-type=bess', '-c'], '', true],
    [['--target-type=bess', '-c', '/s', 't'], 'too many arguments', true],
    [
      ['--target-type=bess', '-c', '--netns-type=pid', '--userns-path=/userns', '/s'],
      '--configure conflicts with --target-type=bess',
      true,
    ],
    [
      ['--target-type=bess', '--netns-type=pid', '--userns-path=/userns', '/s'],
      '--netns-type conflicts with --target-type=bess',
      true,
    ],
    [
      ['--target-type=bess', '--userns-path=/userns', '/s'],
      '--userns-path conflicts with --target-type=bess',
      true,
    ],
    [['--target-type=bess', '--cidr=foo', '/s'], 'invalid CIDR: foo', false],
    [['--target-type=foo', '1', 't'], '--target-type must be either "netns" or "bess"', true],
    [
      ['--macaddress=1:2', '1', 't'],
      '--macaddr cannot be specified when --configure or -c is not specified',
      true,
    ],
    [['-c', '--macaddress=zz', '1', 't'], `"zz" is an invalid MAC address.\n${MAC_FORM}`, false],
    [
      ['-c', '--macaddress=0a:00:00:00:00:01:02', '1', 't'],
      `"0a:00:00:00:00:01:02" is an invalid MAC address.  Is it too long?\n${MAC_FORM}`,
      false,
    ],
    [['--cidr=24', '1', 't'], 'invalid CIDR: 24', false],
    [['--cidr=foo/24', '1', 't'], 'invalid CIDR: foo/24', false],
    [['--cidr=10.0.2.0', '1', 't'], 'invalid CIDR: 10.0.2.0', false],
    [['--cidr=10.0.2/24', '1', 't'], 'invalid CIDR: 10.0.2/24', false],
    [['--cidr=fd00::/64', '1', 't'], 'invalid CIDR: fd00::/64', false],
    [['--cidr=10.0.2.300/24', '1', 't'], 'invalid network address: 10.0.2.300', false],
    [['--cidr=10.0.2.0/26', '1', 't'], 'prefix length needs to be 1-25', false],
    [['--cidr=10.0.2.100/0', '1', 't'], 'prefix length needs to be 1-25', false],
    [
      ['--cidr=10.0.2.100/24', '1', 't'],
      'CIDR needs to be a network address like 10.0.2.0/24, not like 10.0.2.100/24',
      false,
    ],
    [
      ['--cidr=192.168.5.7/24', '1', 't'],
      'CIDR needs to be a network address like 10.0.2.0/24, not like 10.0.2.100/24',
      false,
    ],
    [
      ['--outbound-addr=none', '1', 't'],
      'outbound-addr has to be valid ipv4 address or interface name.',
      false,
    ],
  ] as const)('%j: %s', (argv, error, usage) => {
    expect(parse(...argv)).toMatchObject({ kind: 'wrong', error, usage });
  });

  it('--target-type=bess: a socket for frames', () => {
    expect(conf('--target-type=bess', '/s').target).toEqual({ kind: 'bess', path: '/s' });
    expect(parse('--target-type=bess', '/s')).toMatchObject({
      warnings: ['WARNING: BESS mode is experimental'],
    });
  });

  it('--cidr: sets every address', () => {
    expect(networkAddresses(conf('--cidr=10.0.135.128/25', '1', 't').network)).toEqual({
      ...{ first: '10.0.135.128', netmask: '255.255.255.128', gateway: '10.0.135.130', dns: '10.0.135.131' },
      ...{
        dhcpBegin: '10.0.135.143',
        dhcpEnd: '10.0.135.158',
        guest: '10.0.135.228',
        broadcast: '10.0.135.255',
      },
    });
    expect(gatewayMac('10.0.2.2')).toBe('52:55:0a:00:02:02');
  });
});

describe('slirp4netns texts', () => {
  it('help contains the words that Podman and RootlessKit search for', () => {
    for (const word of [
      ...['--netns-type', '--enable-ipv6', '--cidr', '--disable-host-loopback', '--api-socket', '--mtu'],
      ...[
        '--enable-sandbox',
        '--enable-seccomp',
        '--outbound-addr',
        '--configure',
        '--exit-fd',
        '--ready-fd',
      ],
    ])
      expect(usageText()).toContain(word);
    expect(usageText()).not.toContain('--no-host-loopback');
    expect(
      Math.max(
        ...usageText()
          .split('\n')
          .map((line) => line.length),
      ),
    ).toBeLessThanOrEqual(100);
  });

  it('version: lines in the format of runc', () => {
    expect(versionText('9.8.7')).toBe(
      'slirp4netns version 1.3.3+bucatini.9.8.7\nSLIRP_CONFIG_VERSION_MAX: 6\n',
    );
    expect(manPage()).toContain('\\fB\\-\\-ready\\-fd\\fR');
  });
});
