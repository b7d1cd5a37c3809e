// @vitest: beside
import { describe, expect, it } from 'vitest';
import { findTemplate, type HostNetwork, planNetwork } from '../../src/main/bucatini/address-plan.ts';
import { hostNetwork } from '../../src/main/bucatini/netns-setup.ts';
import { parseArguments } from '../../src/main/bucatini/options.ts';
import { samePrefix } from '../../src/main/host/prefix.ts';
import { IFA_F_DEPRECATED, IFA_F_SECONDARY, IFA_F_TEMPORARY } from '../../src/sys/constants.ts';
import type { AddressInfo, LinkInfo, RouteInfo } from '../../src/sys/netlink-messages.ts';

const GLOBAL = 0;
const LINK = 253;

const link = (index: number, name: string, more: Partial<LinkInfo> = {}): LinkInfo => ({
  ...{ index, name, mac: '', mtu: 1500, flags: 0x1043, up: true, running: true, loopback: name === 'lo' },
  ...{ txQueueLen: 1000, kind: '' },
  ...more,
});

const address = (index: number, text: string, more: Partial<AddressInfo> = {}): AddressInfo => {
  const [ip = '', length] = text.split('/');
  const family = ip.includes(':') ? 6 : 4;
  return { family, address: ip, prefixLen: Number(length), index, scope: GLOBAL, flags: 0x80, ...more };
};

const route = (oif: number | undefined, text: string, more: Partial<RouteInfo> = {}): RouteInfo => {
  const [dst = '', length] = text.split('/');
  const family = dst.includes(':') ? 6 : 4;
  return {
    ...{
      family,
      dst,
      prefixLen: Number(length),
      table: 254,
      scope: 0,
      type: 1,
      protocol: 3,
      priority: 0,
      flags: 0,
    },
    ...(oif !== undefined && { oif }),
    ...more,
  };
};

/** A laptop: wired and wireless interfaces, each with a default route, a container bridge, both families. */
const laptop = (): HostNetwork =>
  hostNetwork(
    [link(1, 'lo'), link(2, 'eth0'), link(3, 'wlan0'), link(4, 'docker0')],
    [
      address(1, '127.0.0.1/8', { scope: 254 }),
      address(4, '172.17.0.1/16'),
      address(2, '192.168.1.5/24'),
      address(2, '192.168.1.77/24', { flags: IFA_F_SECONDARY }),
      address(3, '10.9.8.7/16'),
      address(1, '::1/128', { scope: 254 }),
      address(2, '2001:db8:1::aaaa/64', { flags: IFA_F_TEMPORARY }),
      address(2, '2001:db8:1::bbbb/64', { flags: IFA_F_DEPRECATED }),
      address(2, '2001:db8:1::5/64'),
      address(2, 'fe80::5/64', { scope: LINK }),
    ],
    [
      route(4, '172.17.0.0/16'),
      route(3, '0.0.0.0/0', { gateway: '10.9.0.1', priority: 600 }),
      route(2, '0.0.0.0/0', { gateway: '192.168.1.1', priority: 100 }),
      route(2, '0.0.0.0/0', { gateway: '192.168.1.9', priority: 50, table: 1000 }),
      route(undefined, '203.0.113.0/24', { type: 7 }),
      route(2, '192.168.1.0/24'),
      route(2, 'fe80::/64'),
      route(2, '::/0', { gateway: 'fe80::1', priority: 1024 }),
    ],
    true,
  );

const empty = (hasIpv6 = true): HostNetwork => hostNetwork([link(1, 'lo')], [], [], hasIpv6);

function plan(host: HostNetwork, ...args: string[]): ReturnType<typeof planNetwork> {
  const parsed = parseArguments('run', args);
  if (parsed.kind !== 'go') throw new Error(parsed.kind);
  const resolv = { nameservers: ['192.168.1.1', '::1'], search: ['example.org'], options: [] };
  return planNetwork(parsed.settings, host, resolv);
}

describe('template interface', () => {
  it('several default routes: the lowest metric in the main table is used', () => {
    expect(findTemplate(laptop(), 4)).toEqual({
      ...{ linkName: 'eth0', linkIndex: 2, address: '192.168.1.5', prefixLen: 24, gateway: '192.168.1.1' },
    });
  });

  it('IPv6: temporary, deprecated and link-local addresses are not copied', () => {
    expect(findTemplate(laptop(), 6)).toEqual({
      ...{ linkName: 'eth0', linkIndex: 2, address: '2001:db8:1::5', prefixLen: 64, gateway: 'fe80::1' },
    });
  });

  it('--outbound-interface: that interface is copied, with its own gateway', () => {
    expect(findTemplate(laptop(), 4, 'wlan0')).toMatchObject({ address: '10.9.8.7', gateway: '10.9.0.1' });
    expect(findTemplate(laptop(), 6, 'wlan0')).toBeUndefined();
  });

  it("the kernel's route to the internet decides, whatever its table: interface, gateway and address", () => {
    const way = { linkIndex: 3, gateway: '10.9.0.2', source: '10.9.8.7', isMain: false };
    expect(findTemplate({ ...laptop(), chosen: { 4: way } }, 4)).toEqual({
      ...{ linkName: 'wlan0', linkIndex: 3, address: '10.9.8.7', prefixLen: 16, gateway: '10.9.0.2' },
    });
    // A tunnel without address: a router's address on its loopback interface.
    const router = hostNetwork([link(1, 'lo'), link(2, 'wg0')], [address(1, '192.0.2.9/32')], [], true);
    const tunnel = { linkIndex: 2, source: '192.0.2.9', isMain: false };
    expect(findTemplate({ ...router, chosen: { 4: tunnel } }, 4)).toEqual({
      ...{ linkName: 'wg0', linkIndex: 2, address: '192.0.2.9', prefixLen: 32 },
    });
    expect(findTemplate({ ...router, chosen: { 4: { linkIndex: 1, isMain: false } } }, 4)).toBeUndefined();
  });

  it("IPv6: the kernel's source address, in place of a temporary one that of its prefix; no unique local one", () => {
    const host = hostNetwork(
      [link(2, 'eth0')],
      [
        address(2, 'fd00:1::5/64'),
        address(2, '2001:db8:2::5/64'),
        address(2, '2001:db8:1::5/64'),
        address(2, '2001:db8:1::aaaa/64', { flags: IFA_F_TEMPORARY }),
      ],
      [route(2, '::/0', { gateway: 'fe80::1' })],
      true,
    );
    const by = (source: string) =>
      findTemplate({ ...host, chosen: { 6: { linkIndex: 2, gateway: 'fe80::1', source, isMain: true } } }, 6)
        ?.address;
    expect(by('2001:db8:1::aaaa')).toBe('2001:db8:1::5');
    expect(by('2001:db8:2::5')).toBe('2001:db8:2::5');
    expect(by('fd00:1::5')).toBe('fd00:1::5');
  });

  it('the link of the first default route is down: the next default route is used', () => {
    const host = laptop();
    const links = host.links.map((l) => (l.name === 'eth0' ? { ...l, up: false } : l));
    expect(findTemplate({ ...host, links }, 4)).toMatchObject({ linkName: 'wlan0' });
  });

  it('several addresses on the link: the longest prefix is copied', () => {
    const host = hostNetwork(
      [link(2, 'eth0')],
      [address(2, '10.0.0.5/8'), address(2, '192.0.2.5/25')],
      [route(2, '0.0.0.0/0', { gateway: '192.0.2.1' })],
      true,
    );
    expect(findTemplate(host, 4)).toMatchObject({ address: '192.0.2.5', prefixLen: 25 });
  });

  it('multipath default route: the first hop is copied', () => {
    const hops = [
      { oif: 2, gateway: '192.0.2.1', weight: 1 },
      { oif: 3, gateway: '198.51.100.1', weight: 9 },
    ];
    const host = hostNetwork(
      [link(2, 'a'), link(3, 'b')],
      [address(2, '192.0.2.5/24'), address(3, '198.51.100.5/24')],
      [route(undefined, '0.0.0.0/0', { hops })],
      true,
    );
    expect(findTemplate(host, 4)).toMatchObject({ linkName: 'a', gateway: '192.0.2.1' });
  });

  it('an IPv4 route through an IPv6 gateway: no gateway is copied', () => {
    const host = hostNetwork(
      [link(2, 'eth0')],
      [address(2, '192.0.2.5/32')],
      [route(2, '0.0.0.0/0', { gateway: 'fe80::1' })],
      true,
    );
    expect(findTemplate(host, 4)).toEqual({
      linkName: 'eth0',
      linkIndex: 2,
      address: '192.0.2.5',
      prefixLen: 32,
    });
    expect(plan(host).addresses.ipv4).toMatchObject({ guest: '192.0.2.5', gateway: '169.254.2.2' });
  });

  it('no default route: the first link with an address and a route is used', () => {
    const host = hostNetwork(
      [link(1, 'lo'), link(2, 'lan0')],
      [address(2, '10.1.1.5/24')],
      [route(2, '10.1.1.0/24')],
      true,
    );
    expect(findTemplate(host, 4)).toEqual({
      linkName: 'lan0',
      linkIndex: 2,
      address: '10.1.1.5',
      prefixLen: 24,
    });
  });
});

describe('address plan', () => {
  it('a host with both families: addresses, prefixes and gateways are copied', () => {
    const { addresses, interfaceName } = plan(laptop());
    expect(interfaceName).toBe('eth0');
    expect(addresses).toEqual({
      mtu: 65520,
      mac: '9a:55:9a:55:9a:55',
      ipv4: { guest: '192.168.1.5', prefixLen: 24, gateway: '192.168.1.1', dns: '169.254.1.1' },
      ipv6: {
        ...{ guest: '2001:db8:1::5', prefixLen: 64, gateway: 'fe80::1', linkLocal: 'fe80::1' },
        linkLocalScope: 2,
        dns: 'fd9a:559a:559a::53',
      },
      resolvers: ['192.168.1.1', '::1'],
      offeredDns: ['169.254.1.1'],
      searchDomains: ['example.org'],
    });
  });

  it('local mode: built-in addresses, always with a default gateway', () => {
    const { addresses, interfaceName } = plan(empty());
    expect(interfaceName).toBe('tap0');
    expect(addresses.ipv4).toMatchObject({ guest: '169.254.2.1', prefixLen: 16, gateway: '169.254.2.2' });
    expect(addresses.ipv6).toMatchObject({ guest: 'fd9a:559a:559a::2', prefixLen: 64, gateway: 'fe80::1' });
  });

  it('a host without IPv6: IPv4 only; with --ipv6-only: an error', () => {
    expect(plan(empty(false)).addresses.ipv6).toBeUndefined();
    expect(() => plan(empty(false), '-6')).toThrow(/this host has no IPv6/);
  });

  it('--ipv4-only, --ipv6-only: the other family has no addresses', () => {
    expect(plan(laptop(), '-4').addresses.ipv6).toBeUndefined();
    const { addresses } = plan(laptop(), '-6');
    expect(addresses.ipv4).toBeUndefined();
    expect(addresses.offeredDns).toEqual(['fd9a:559a:559a::53']);
  });

  it('--address and --gateway: replace the copied ones of their family', () => {
    const { addresses } = plan(
      laptop(),
      '--address',
      '10.0.2.15',
      '--address',
      'fd00::15/48',
      '--gateway',
      'fd00::1',
    );
    expect(addresses.ipv4).toMatchObject({ guest: '10.0.2.15', prefixLen: 24, gateway: '192.168.1.1' });
    expect(addresses.ipv6).toMatchObject({
      guest: 'fd00::15',
      prefixLen: 48,
      gateway: 'fd00::1',
      linkLocal: 'fe80::1',
    });
    expect(() => plan(laptop(), '--address', '192.168.1.1')).toThrow(/gateway's address/);
  });

  it('--dns: that list of resolvers; --dns=none: no forwarding', () => {
    const fixed = plan(laptop(), '--dns', '9.9.9.9').addresses;
    expect(fixed).toMatchObject({ resolvers: ['9.9.9.9'], offeredDns: ['169.254.1.1'] });
    const none = plan(laptop(), '--dns', 'none').addresses;
    expect(none).toMatchObject({ resolvers: [], offeredDns: [] });
    expect(none.ipv4).not.toHaveProperty('dns');
  });

  it('--outbound-interface that does not exist: the error lists those that do', () => {
    expect(() => plan(laptop(), '--outbound-interface', 'eth9')).toThrow(
      /eth9: no such interface; write one of eth0, wlan0/,
    );
  });

  it('--host-loopback: sets the mapping of its family', () => {
    expect(plan(laptop(), '--host-loopback', '192.168.1.1').addresses.ipv4).toMatchObject({
      hostLoopback: '192.168.1.1',
    });
    expect(plan(laptop()).addresses.ipv4).not.toHaveProperty('hostLoopback');
    const both = plan(laptop(), '--host-loopback', 'gateway', '--host-loopback', '192.0.2.99').addresses;
    expect(both.ipv4?.hostLoopback).toBe('192.0.2.99');
    expect(both.ipv6?.hostLoopback).toBe(both.ipv6?.gateway);
  });
});

describe('samePrefix', () => {
  for (const [a, b, length, expected] of [
    ['192.0.2.1', '192.0.2.200', 24, true],
    ['192.0.2.1', '192.0.2.200', 25, false],
    ['192.0.3.1', '192.0.2.200', 23, true],
    ['192.0.2.1', '2001:db8::1', 1, false],
    ['2001:db8::1', '2001:db8::ffff:0:1', 64, true],
    ['2001:db8::1', '2001:db8:0:1::1', 64, false],
    ['::', '::1', 127, true],
  ] as const) {
    it(`${a} and ${b}/${length}: ${expected}`, () => expect(samePrefix(a, b, length)).toBe(expected));
  }
});
