// @vitest: beside
import { describe, expect, it } from 'vitest';
import { UsageError } from '../../../src/main/cli/values.ts';
import type { PastaConf } from '../../../src/main/pasta/conf.ts';
import { OPTIONS, SHOWN_OPTIONS } from '../../../src/main/pasta/options.ts';
import { parsePasta } from '../../../src/main/pasta/parse.ts';

const parse = (line: string, env: NodeJS.ProcessEnv = {}) => parsePasta(line.split(' ').filter(Boolean), env);
const go = (line: string) => {
  const parsed = parse(line);
  if (parsed.kind !== 'go') throw new Error(`${line}: ${parsed.kind}`);
  return parsed;
};
const conf = (line: string): PastaConf => go(line).conf;
const refusal = (line: string): string => {
  try {
    const parsed = parse(line);
    return parsed.kind === 'usage' ? parsed.error : `accepted as ${parsed.kind}`;
  } catch (error) {
    return (error as Error).message;
  }
};

describe('pasta options', () => {
  it('operands, --netns and --userns: select the namespaces to connect', () => {
    expect(parse('', { SHELL: '/bin/zsh' })).toMatchObject({
      login: true,
      target: { kind: 'command', argv: ['/bin/zsh'] },
    });
    expect(go('')).toMatchObject({ target: { argv: ['/bin/sh'] } });
    expect(go('-q ls -l')).toMatchObject({ login: false, target: { kind: 'command', argv: ['ls', '-l'] } });
    expect(go('123').target).toEqual({ kind: 'pid', pid: 123 });
    expect(go('+010').target).toEqual({ kind: 'pid', pid: 10 });
    expect(go('-- -0').target).toEqual({ kind: 'pid', pid: 0 });
    expect(() => go('-- -1')).toThrow(/^Invalid PID -1$/);
    expect(go('-- -1 x').target).toEqual({ kind: 'command', argv: ['-1', 'x'] });
    expect(go('123 4').target).toEqual({ kind: 'command', argv: ['123', '4'] });
    expect(go('--netns name').target).toEqual({ kind: 'netns', path: '/run/netns/name' });
    expect(go('--netns ./x').target).toEqual({ kind: 'netns', path: './x' });
    expect(conf('--netns /x').netnsOnly).toBe(true);
    expect(conf('--netns /x --userns /y')).toMatchObject({ netnsOnly: false, userns: '/y' });
    expect(conf('--netns-only --userns /y')).toMatchObject({ netnsOnly: false, userns: '/y' });
    expect(conf('--userns /y --netns-only').userns).toBeUndefined();
  });

  it('--multicast: several options add up', () => {
    const groups = [{ address: '224.0.0.251' }, { address: 'ff02::fb', port: 5353 }];
    const { multicast } = conf('--multicast 224.0.0.251 --multicast [ff02::fb]:5353');
    expect(multicast).toEqual({ all: false, groups });
  });

  it("--api-socket: accepted in full only, for passt's pasta has no such option", () => {
    expect(conf('--api-socket /x').apiSocket).toBe('/x');
    expect(conf('--a 192.0.2.1').address4).toBe('192.0.2.1');
    expect(parse('--api /x')).toMatchObject({ kind: 'usage', error: "unrecognized option '--api'" });
  });

  it('--allow, --deny, --policy: kept in their order; ours, so accepted in full only', () => {
    expect(conf('--allow 10.0.0.0/8:443 --deny any --policy /p')).toMatchObject({
      egress: [
        { allow: true, text: '10.0.0.0/8:443' },
        { allow: false, text: 'any' },
      ],
      policy: '/p',
    });
    expect(parse('--den any')).toMatchObject({ kind: 'usage', error: "unrecognized option '--den'" });
    expect(() => parse('--policy=')).toThrow('--policy "": is empty');
  });

  it("Podman's command line: parsed without a warning", () => {
    const {
      conf: c,
      target,
      warnings,
    } = go(
      '--config-net -t 127.0.0.1/80-80:8080-8080 --dns-forward 169.254.1.1 -u none -T none -U none --no-map-gw --quiet --netns /run/x --map-guest-addr 169.254.1.2',
    );
    expect(target).toEqual({ kind: 'netns', path: '/run/x' });
    expect(warnings).toEqual([]);
    expect(c).toMatchObject({
      configNet: true,
      ra: false,
      verbosity: 'quiet',
      mapGateway: false,
      dnsForward4: '169.254.1.1',
      mapGuestAddr4: '169.254.1.2',
    });
    expect(c.ports.map((p) => `${p.written} ${p.spec}`)).toEqual([
      '-t 127.0.0.1/80-80:8080-8080',
      ...['-u none', '-T none', '-U none'],
    ]);
  });

  it('an option given twice: the last one is used, per family', () => {
    expect(conf('-a 1.2.3.4 -a 2001:DB8::1 -a 1.2.3.5')).toMatchObject({
      address4: '1.2.3.5',
      address6: '2001:db8::1',
    });
    expect(conf('-4 -6')).toMatchObject({ ipv4: false, ipv6: true });
    expect(conf('-d -q').verbosity).toBe('quiet');
    expect(conf('-q --trace').verbosity).toBe('trace');
    expect(conf('--dns-forward 1.2.3.4 -D none').dnsForward4).toBeUndefined();
    expect(conf('-D none --dns-forward 1.2.3.4')).toMatchObject({ dns: [], dnsForward4: '1.2.3.4' });
    expect(conf('--map-host-loopback 1.2.3.4 --map-host-loopback none')).toMatchObject({ mapGateway: false });
    expect(conf('-S a.example -S none -S b.example').search).toEqual(['b.example']);
    expect(conf('--no-icmp')).toMatchObject({ icmp: false, ndp: false });
  });

  it('numbers in C notation and prefix lengths or masks: accepted', () => {
    expect(conf('-m 0x500').mtu).toBe(1280);
    expect(conf('-m 02400').mtu).toBe(1280);
    expect(conf('-m 0').mtu).toBe(0);
    expect(conf('--log-size 40960').logBytes).toBe(40960);
    expect(conf('-n 255.255.240.0').prefixLen4).toBe(20);
    expect(conf('-n 0').prefixLen4).toBe(0);
    expect(conf('-a 10.0.0.1/28').prefixLen4).toBe(28);
  });

  it('more resolvers than DHCP offers: the rest is left out with a warning', () => {
    const { conf: c, warnings } = go('-D 1.1.1.1 -D 1.1.1.2 -D 1.1.1.3 -D 1.1.1.4 -D ::9');
    expect(c.dns).toEqual(['1.1.1.1', '1.1.1.2', '1.1.1.3', '::9']);
    expect(warnings).toEqual(['Too many nameservers, 1.1.1.4 is left out']);
  });

  // Read off passt 2026-10-02.
  it.each([
    ['-m 99999', 'MTU 99999 too large (max 65521)'],
    ['-m abc', 'Invalid MTU: abc'],
    ['-m 1500x', 'Invalid MTU: 1500x'],
    ['-m -1', 'MTU 18446744073709551615 too large (max 65521)'],
    ['-m 99999999999', 'MTU 99999999999 too large (max 65521)'],
    ['-I 1234567890123456', 'Invalid interface name: 1234567890123456'],
    ['-a 127.0.0.1', 'Invalid guest address: 127.0.0.1'],
    ['-a 224.0.0.1', 'Invalid guest address: 224.0.0.1'],
    ['-a 10.77.0.2/33', 'Invalid prefix length: 10.77.0.2/33'],
    ['-a 10.77.0.2/-1', 'Invalid prefix length: 10.77.0.2/-1'],
    ['-a 10.77.0.2/', 'Invalid guest address: 10.77.0.2/'],
    ['-a 10.77.0.2/x', 'Invalid guest address: 10.77.0.2/x'],
    ['-a 10.77.0.2/24/24', 'Invalid guest address: 10.77.0.2/24/24'],
    ['-a 10.77.0.2/255.255.255.0', 'Invalid prefix length: 10.77.0.2/255.255.255.0'],
    ['-a ::ffff:10.77.0.2/24', 'Invalid prefix length: ::ffff:10.77.0.2/24'],
    ['-a ::ffff:10.77.0.2/129', 'Invalid prefix length: ::ffff:10.77.0.2/129'],
    ['-a ::ffff:127.0.0.1', 'Invalid guest address: ::ffff:127.0.0.1'],
    ['-a ::ffff:10.77.0.2/120 -n 24', 'Redundant prefix length specification'],
    ['-a [2001:db8::1/64]', 'Invalid guest address: [2001:db8::1/64]'],
    ['-a fe80::1%eth0', 'Invalid guest address: fe80::1%eth0'],
    ['-D fe80::1%eth0', 'Cannot use DNS address fe80::1%eth0'],
    [`-c /${'a'.repeat(107)}`, `Invalid configuration path: /${'a'.repeat(107)}`],
    ['-i 1234567890123456', 'Invalid interface name 1234567890123456: No such device'],
    ['-i a/b', 'Invalid interface name a/b: No such device'],
    ['-a 192.0.2.1/28 -n 28', 'Redundant prefix length specification'],
    ['-n 28 -a 192.0.2.1/28', 'Redundant prefix length specification'],
    ['-n foo', 'Invalid prefix length: foo'],
    ['-n 33', 'Invalid prefix length: 33'],
    ['-n 255.0.255.0', 'Invalid prefix length: 255.0.255.0'],
    ['-g 0.0.0.0', 'Invalid gateway address: 0.0.0.0'],
    ['-o 224.0.0.1', 'Invalid or redundant outbound address: 224.0.0.1'],
    ['-D foo', 'Cannot use DNS address foo'],
    ['-D fe80::1%eth0', 'Cannot use DNS address fe80::1%eth0'],
    ['--dns-forward 127.0.0.1', 'Invalid DNS forwarding address: 127.0.0.1'],
    ['--dns-host foo', 'Invalid host nameserver address: foo'],
    ['--map-host-loopback foo', 'Invalid address to remap to host: foo'],
    ['--map-guest-addr 127.0.0.1', 'Invalid address to remap to host: 127.0.0.1'],
    ['-M 00:11', 'Invalid MAC address: 00:11'],
    ['--log-size 10', 'Invalid --log-size: 10'],
    ['--stats 1', "Can't display statistics if not running in foreground"],
    ['-s x', '-s is for passt / vhost-user mode only'],
    ['--socket x', '-s is for passt / vhost-user mode only'],
    ['-1', '--one-off is for passt mode only'],
    ['--no-dhcp-dns', '--no-dhcp-dns is for passt mode only'],
    ['--no-dhcp-search', '--no-dhcp-search is for passt mode only'],
    ['--repair-path x', '--repair-path is for vhost-user mode only'],
    ['--migrate-exit', '--migrate-exit is for vhost-user mode only'],
    ['--migrate-no-linger', '--migrate-no-linger is for vhost-user mode only'],
    ['-S a -S b -S c -S d -S e -S f -S g', 'Cannot use DNS search domain g'],
    ['--vhost-user', '--vhost-user is for passt / vhost-user mode only'],
    ['--no-copy-routes', '--no-copy-routes needs --config-net'],
    ['--no-pidns 1', '--no-pidns is incompatible with PID or --netns'],
    ['--netns /x true', 'Both --netns and PID or command given'],
    ['99999999999', 'Invalid PID 99999999999'],
    ['--bogus', "unrecognized option '--bogus'"],
    ['-F x', 'Invalid --fd: x'],
    ['-F -1', 'Invalid --fd: -1'],
    ['-F 2', 'Invalid --fd: 2'],
    ['-F 3x', 'Invalid --fd: 3x'],
    ['-F 07', 'Invalid --fd: 07'],
    ['--fd 2147483648', 'Invalid --fd: 2147483648'],
    ['-F 3 --splice-only', '--splice-only is incompatible with --fd'],
    ['--no-switch 10.0.0.0/8', '--no-switch: nothing is switched without --switch-sockets; add it'],
    [
      '--no-switch 10.0.0.1/8 --switch-sockets',
      '--no-switch 10.0.0.1/8: 10.0.0.1/8: has bits set behind the prefix; write the first address of the block, or /32',
    ],
  ])('%s is refused: %s', (line, message) => {
    expect(refusal(line)).toBe(message);
  });

  it.each([
    ['--pcap', '-p x.pcap'],
    ['--rate', '--rate 1mbit'],
    ['--impair', '--impair none'],
    ['--no-tcp', '--no-tcp'],
    ['--splice-only', '--splice-only'],
    ['--fd', '-F 3'],
    ['--outbound', '-o 192.0.2.1'],
    ['PID', '1'],
    ['--netns', '--netns /run/netns/x'],
  ])('--switch-sockets with %s: refused', (other, words) => {
    expect(refusal(`--switch-sockets ${words}`)).toMatch(
      new RegExp(`^--switch-sockets and ${other} exclude each other: .*; leave one of them out$`),
    );
  });

  it('--switch-sockets and --no-switch', () => {
    const { conf } = go('--switch-sockets --no-switch 10.0.0.0/8,::/0 --no-switch 192.0.2.7 true');
    expect(conf).toMatchObject({
      switchSockets: true,
      noSwitch: ['10.0.0.0/8', '::/0', '192.0.2.7/32'],
    });
    expect(go('true').conf).not.toHaveProperty('switchSockets');
  });

  it("empty values: refused with the text of passt's pasta", () => {
    const message = (...argv: string[]): string => {
      try {
        return parsePasta(argv).kind;
      } catch (error) {
        return (error as Error).message;
      }
    };
    expect(message('-D', '')).toBe('Cannot use DNS address ');
    expect(message('-S', '')).toBe('Cannot use DNS search domain ');
    expect(message('-c', '')).toBe('Invalid configuration path: ');
    expect(message('-P', '')).toBe('Invalid PID file: ');
    expect(message('-p', '')).toBe('Invalid pcap path: ');
    expect(message('--userns', '')).toBe('Invalid userns: ');
    expect(message('-i', '')).toBe('Invalid interface name : No such device');
  });

  it.each([
    ['-i', 'a\nb', 'Invalid interface name a\\nb: No such device'],
    ['-I', 'a\tb', 'Invalid interface name: a\\tb'],
    ['-t', '8080\n', "Invalid port specifier '8080\\n'"],
    ['-a', '10.0.0.1\r', 'Invalid guest address: 10.0.0.1\\r'],
  ])('%s with control characters: refused in one line', (option, value, message) => {
    expect(() => parsePasta([option, value, 'true'])).toThrow(new UsageError(message));
  });

  it.each(['..', 'a..b', '.a', `${'a'.repeat(64)}.b`, '☃'])(
    '%j as search domain or name: not offered, with a warning',
    (name) => {
      for (const [option, long] of [
        ['-S', '--search'],
        ['--fqdn', '--fqdn'],
      ] as const)
        expect(go(`${option} ${name}`).warnings).toEqual([
          expect.stringMatching(`^${long} .*: no domain name, not offered$`),
        ]);
    },
  );

  it('-S ".": no search domain, no warning', () => {
    expect(go('-S .').warnings).toEqual([]);
  });

  it('numbers with a sign or leading white space: accepted as by strtoul(3)', () => {
    const mtu = (text: string): number => {
      const parsed = parsePasta(['-m', text]);
      return parsed.kind === 'go' ? parsed.conf.mtu : -1;
    };
    expect([' 1500', '+1500', '0x5dc'].map(mtu)).toEqual([1500, 1500, 1500]);
  });

  it.each([
    ['::ffff:192.0.2.1', { address4: '192.0.2.1' }],
    ['::FFFF:c000:201/120', { address4: '192.0.2.1', prefixLen4: 24 }],
    ['::ffff:192.0.2.1/96', { address4: '192.0.2.1' }],
    ['[192.0.2.1]/28', { address4: '192.0.2.1', prefixLen4: 28 }],
    ['[2001:db8::1]/64', { address6: '2001:db8::1' }],
  ])('-a %s: brackets and v4-mapped addresses are accepted', (text, expected) => {
    const { address4, address6, prefixLen4 } = conf(`-a ${text}`);
    expect({ address4, address6, prefixLen4 }).toEqual({ ...expected });
  });

  it('-S given twice with lists: more than six names are accepted', () => {
    expect(conf('-S a,b,c,d -S e,f,g').search).toHaveLength(7);
  });

  it('a prefix length of 0: counts as absent, the address class gives the length', () => {
    expect(conf('-a 192.0.2.1/0').prefixLen4).toBeUndefined();
  });

  it('an MTU below 68: a warning per family, IPv4 first, and the MTU is not set', () => {
    const { conf: c, warnings } = go('-m 60');
    expect(warnings).toEqual([
      'MTU 60 is too small for IPv4 (minimum 68)',
      'MTU 60 is too small for IPv6 (minimum 1280)',
    ]);
    expect(c.mtu).toBe(0);
  });

  it('--help and --version: options after them are not checked, those before are', () => {
    expect(parse('--version -m abc').kind).toBe('version');
    expect(refusal('-m abc --version')).toBe('Invalid MTU: abc');
    expect(parse('-h').kind).toBe('help');
  });

  it('the option table: unique names and letters, an action for each, a help text for each shown', () => {
    const names = OPTIONS.map((o) => o.name);
    const letters = OPTIONS.flatMap((o) => o.short ?? []);
    expect(new Set(names).size).toBe(names.length);
    expect(new Set(letters).size).toBe(letters.length);
    for (const o of OPTIONS) {
      if (o.name === 'help' || o.name === 'version') continue;
      expect(o.set, o.name).toBeTypeOf('function');
    }
    for (const o of SHOWN_OPTIONS) expect(o.help, o.name).toMatch(/^[A-Z].*\.$/);
  });
});
